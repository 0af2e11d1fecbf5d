//! VMSD, the text that lists a VMware machine's snapshots: what its keys mean, over the lossless
//! text of [`Dictionary`].
//!
//! VMware has published no specification; keys and the form of times are those of real files
//! (Broadcom KB 337269). A file of no bytes is what a machine without snapshots has.

use std::collections::{BTreeSet, HashMap};

use hako_block::Result;

use crate::dictionary::{Dictionary, note_of};
use crate::machine::Node;
use crate::oddities::Oddities;

/// Most snapshots that are read. VMware's products stop at 255 layers.
const MAX_SNAPSHOTS: usize = 4096;
/// Most disks of one snapshot that are read.
const MAX_DISKS: usize = 1024;

/// A VMSD.
#[derive(Debug, Clone)]
pub struct Vmsd {
    dictionary: Dictionary,
    oddities: Vec<String>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number in the keys, `snapshotN`; it may change when others come and go.
    pub index: u32,
    /// What it is known by, for good.
    pub uid: u32,
    /// The uid of the snapshot that it was taken on; none for a first one.
    pub parent: Option<u32>,
    /// Its name for people.
    pub name: String,
    /// A note.
    pub description: String,
    /// When it was taken, in microseconds since 1970.
    pub created_us: Option<u64>,
    /// The file of the machine's state (.vmsn), as the text names it.
    pub state_file: Option<String>,
    /// Where the disks were, and the files that hold what they held, as the text names them.
    pub disks: Vec<(Node, String)>,
}

impl Vmsd {
    /// Reads a VMSD. Errors: those of [`Dictionary::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let dictionary = Dictionary::parse(bytes)?;
        let (snapshots, oddities) = read(&dictionary);
        let mut vmsd = Self {
            oddities: dictionary.oddities().to_vec(),
            dictionary,
        };
        vmsd.oddities.extend(oddities);
        vmsd.note_oddities(&snapshots);
        Ok(vmsd)
    }

    /// Returns the text: byte for byte what was read, but for what was changed.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.dictionary.to_bytes()
    }

    /// Returns the keys and values.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// Returns the keys and values, to change them.
    pub fn dictionary_mut(&mut self) -> &mut Dictionary {
        &mut self.dictionary
    }

    /// Returns the snapshots, in the order of their index. Parents may be missing, and in a
    /// damaged text a snapshot may be its own ancestor: [`Vmsd::oddities`] tells.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        read(&self.dictionary).0
    }

    /// Returns the uid of the snapshot that the machine's present state comes from.
    pub fn current(&self) -> Option<u32> {
        self.number("snapshot.current").filter(|uid| *uid != 0)
    }

    /// Returns the highest uid that was ever given.
    pub fn last_uid(&self) -> Option<u32> {
        self.number("snapshot.lastUID")
    }

    /// Returns whether a deletion has left files behind that are still to be merged.
    pub fn needs_consolidation(&self) -> bool {
        self.dictionary.is_true("snapshot.needConsolidate")
    }

    /// Returns whether the list is encrypted: its snapshots are not known then.
    pub fn is_encrypted(&self) -> bool {
        self.dictionary.value("encryption.data").is_some()
    }

    /// Returns what was odd about the text when it was read, one sentence each.
    pub fn oddities(&self) -> &[String] {
        &self.oddities
    }

    fn number(&self, key: &str) -> Option<u32> {
        self.dictionary.value(key)?.trim().parse().ok()
    }

    fn note_oddities(&mut self, snapshots: &[Snapshot]) {
        let mut odd = Oddities::default();
        if self.is_encrypted() {
            odd.push("the list of snapshots is encrypted");
        }
        let told = self.number("snapshot.numSnapshots");
        if let Some(told) = told.filter(|told| usize::try_from(*told) != Ok(snapshots.len())) {
            odd.push(format!(
                "snapshot.numSnapshots is {told}, but {} snapshots are there",
                snapshots.len()
            ));
        }
        let mut parents = HashMap::new();
        for snapshot in snapshots {
            if parents.insert(snapshot.uid, snapshot.parent).is_some() {
                odd.push(format!("two snapshots have the uid {}", snapshot.uid));
            }
        }
        if let Some(current) = self.current().filter(|uid| !parents.contains_key(uid)) {
            odd.push(format!("snapshot.current is {current}, which is not there"));
        }
        for snapshot in snapshots {
            let (uid, parent) = (snapshot.uid, snapshot.parent);
            if let Some(parent) = parent.filter(|parent| !parents.contains_key(parent)) {
                odd.push(format!(
                    "snapshot {uid} has the parent {parent}, which is not there"
                ));
            }
        }
        if let Some(uid) = own_ancestor(&parents) {
            odd.push(format!("snapshot {uid} is its own ancestor"));
        }
        self.oddities.extend(odd.into_sentences());
    }
}

/// Returns a snapshot that is its own ancestor, the lowest such uid.
fn own_ancestor(parents: &HashMap<u32, Option<u32>>) -> Option<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ready = Vec::new();
    for (uid, parent) in parents {
        match parent.filter(|parent| parents.contains_key(parent)) {
            Some(parent) => children.entry(parent).or_default().push(*uid),
            None => ready.push(*uid),
        }
    }
    let mut left: BTreeSet<u32> = parents.keys().copied().collect();
    while let Some(uid) = ready.pop() {
        left.remove(&uid);
        ready.extend(children.remove(&uid).unwrap_or_default());
    }
    left.first().copied()
}

/// Returns the snapshots, and what is odd about them.
fn read(dictionary: &Dictionary) -> (Vec<Snapshot>, Vec<String>) {
    let devices = dictionary.prefixes().into_iter();
    let mut indices: Vec<u32> = devices
        .filter_map(|device| number_of(device, "snapshot"))
        .collect();
    indices.sort_unstable();
    let mut odd = Oddities::default();
    if indices.len() > MAX_SNAPSHOTS {
        odd.push(format!(
            "{} snapshots; the first {MAX_SNAPSHOTS} are read",
            indices.len()
        ));
        indices.truncate(MAX_SNAPSHOTS);
    }
    let disks = disk_numbers(dictionary);
    let snapshots = indices.into_iter().filter_map(|index| {
        let numbers = disks.get(&index).map_or(&[][..], Vec::as_slice);
        snapshot(dictionary, index, numbers, &mut odd)
    });
    let snapshots = snapshots.collect();
    (snapshots, odd.into_sentences())
}

/// Returns the number of `NAMEnumber`, without leading zeros.
fn number_of(text: &str, name: &str) -> Option<u32> {
    let number: u32 = text.strip_prefix(name)?.parse().ok()?;
    (format!("{name}{number}") == text).then_some(number)
}

/// Returns, by snapshot, the numbers K of its keys `snapshotN.diskK.node`, ascending.
fn disk_numbers(dictionary: &Dictionary) -> HashMap<u32, Vec<u32>> {
    let mut numbers: HashMap<u32, Vec<u32>> = HashMap::new();
    for (key, _) in dictionary.entries() {
        let key = key.to_ascii_lowercase();
        let mut parts = key.split('.');
        let snapshot = parts.next().and_then(|part| number_of(part, "snapshot"));
        let disk = parts.next().and_then(|part| number_of(part, "disk"));
        if let (Some(snapshot), Some(disk), Some("node"), None) =
            (snapshot, disk, parts.next(), parts.next())
        {
            numbers.entry(snapshot).or_default().push(disk);
        }
    }
    for numbers in numbers.values_mut() {
        numbers.sort_unstable();
        numbers.truncate(MAX_DISKS);
    }
    numbers
}

fn snapshot(
    dictionary: &Dictionary,
    index: u32,
    disk_numbers: &[u32],
    odd: &mut Oddities,
) -> Option<Snapshot> {
    let value = |name: &str| dictionary.value(&format!("snapshot{index}.{name}"));
    let number = |name: &str| -> Option<u32> { value(name)?.trim().parse().ok() };
    let Some(uid) = number("uid").filter(|uid| *uid != 0) else {
        odd.push(format!("snapshot{index} has no valid uid; it is not read"));
        return None;
    };
    let mut disks = Vec::new();
    for disk in disk_numbers {
        let node = value(&format!("disk{disk}.node")).and_then(|node| node.trim().parse().ok());
        let file = value(&format!("disk{disk}.fileName"));
        match node.zip(file) {
            Some(disk) => disks.push(disk),
            None => odd.push(format!("snapshot{index}.disk{disk} is not understood")),
        }
    }
    let told = number("numDisks");
    if told.is_some_and(|told| usize::try_from(told) != Ok(disks.len())) {
        odd.push(format!(
            "snapshot{index} has another number of disks than it says"
        ));
    }
    Some(Snapshot {
        index,
        uid,
        parent: number("parent").filter(|uid| *uid != 0),
        name: value("displayName").unwrap_or_default(),
        description: note_of(&value("description").unwrap_or_default()),
        created_us: created_us(value("createTimeHigh"), value("createTimeLow")),
        state_file: value("filename").filter(|file| !file.is_empty()),
        disks,
    })
}

/// Puts the halves of a time together; each is printed as a signed number of 32 bits.
fn created_us(high: Option<String>, low: Option<String>) -> Option<u64> {
    let half = |text: Option<String>| -> Option<u64> {
        let number: i64 = text?.trim().parse().ok()?;
        let signed = i32::try_from(number).map(i32::cast_unsigned);
        signed
            .or_else(|_| u32::try_from(number))
            .ok()
            .map(u64::from)
    };
    Some(half(high)? << 32 | half(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Like a real one: numSnapshots behind the first snapshot, an index of two digits.
    const TEXT: &str = ".encoding = \"UTF-8\"\nsnapshot.lastUID = \"12\"\n\
        snapshot.current = \"12\"\nsnapshot0.uid = \"1\"\nsnapshot0.filename = \"web-Snapshot1.vmsn\"\n\
        snapshot0.displayName = \"clean |22install|22\"\nsnapshot0.description = \"a|0Ab\"\n\
        snapshot0.createTimeHigh = \"310596\"\nsnapshot0.createTimeLow = \"938781285\"\n\
        snapshot0.numDisks = \"2\"\nsnapshot0.disk0.fileName = \"web.vmdk\"\n\
        snapshot0.disk0.node = \"scsi0:0\"\nsnapshot0.disk1.fileName = \"data.vmdk\"\n\
        snapshot0.disk1.node = \"nvme0:0\"\nsnapshot.numSnapshots = \"2\"\n\
        snapshot.mru0.uid = \"12\"\nsnapshot10.uid = \"12\"\nsnapshot10.parent = \"1\"\n\
        snapshot10.displayName = \"später\"\nsnapshot10.createTimeHigh = \"310596\"\n\
        snapshot10.createTimeLow = \"-938781285\"\n";

    fn parsed(text: &str) -> Vmsd {
        Vmsd::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn snapshots_are_read_with_disks_parents_and_times() {
        let vmsd = parsed(TEXT);
        assert_eq!(vmsd.oddities(), [""; 0]);
        assert_eq!((vmsd.current(), vmsd.last_uid()), (Some(12), Some(12)));
        assert!(!vmsd.needs_consolidation());
        let snapshots = vmsd.snapshots();
        let node = |text: &str| text.parse::<Node>().unwrap();
        assert_eq!(
            snapshots[0],
            Snapshot {
                index: 0,
                uid: 1,
                parent: None,
                name: "clean \"install\"".to_owned(),
                description: "a\nb".to_owned(),
                created_us: Some((310_596 << 32) + 938_781_285),
                state_file: Some("web-Snapshot1.vmsn".to_owned()),
                disks: vec![
                    (node("scsi0:0"), "web.vmdk".to_owned()),
                    (node("nvme0:0"), "data.vmdk".to_owned()),
                ],
            }
        );
        let second = &snapshots[1];
        assert_eq!((second.index, second.uid, second.parent), (10, 12, Some(1)));
        assert_eq!(second.name, "später");
        let low = (1_u64 << 32) - 938_781_285;
        assert_eq!(second.created_us, Some((310_596 << 32) + low));
        assert_eq!(vmsd.to_bytes(), TEXT.as_bytes());
    }

    #[test]
    fn a_machine_without_snapshots_has_an_empty_file_or_says_so() {
        for text in [
            "",
            ".encoding = \"UTF-8\"\n",
            "snapshot.lastUID = \"0\"\nsnapshot.current = \"0\"\n",
        ] {
            let vmsd = parsed(text);
            assert!(vmsd.snapshots().is_empty());
            assert_eq!(vmsd.current(), None);
            assert_eq!(vmsd.oddities(), [""; 0]);
        }
    }

    #[test]
    fn names_are_read_in_the_code_page_of_the_text() {
        let mut bytes = b".encoding = \"Shift_JIS\"\nsnapshot0.uid = \"1\"\n".to_vec();
        bytes.extend(b"snapshot0.displayName = \"\x83|7C\"\n");
        let vmsd = Vmsd::parse(&bytes).unwrap();
        assert_eq!(vmsd.snapshots()[0].name, "ポ");
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let text = "snapshot.current = \"9\"\nsnapshot.numSnapshots = \"7\"\n\
            snapshot.needConsolidate = \"TRUE\"\n\
            snapshot0.uid = \"1\"\nsnapshot0.parent = \"2\"\nsnapshot1.uid = \"2\"\n\
            snapshot1.parent = \"1\"\nsnapshot2.uid = \"2\"\nsnapshot2.parent = \"1\"\n\
            snapshot3.uid = \"x\"\nsnapshot4.uid = \"4\"\nsnapshot4.parent = \"5\"\n\
            snapshot4.disk0.node = \"scsi0:7\"\nsnapshot4.disk0.fileName = \"a\"\n\
            snapshot4.numDisks = \"1\"\nsnapshot4.createTimeHigh = \"99999999999\"\n\
            snapshot4.createTimeLow = \"1\"\n";
        let vmsd = parsed(text);
        assert!(vmsd.needs_consolidation());
        assert_eq!(vmsd.snapshots().len(), 4);
        assert_eq!(vmsd.snapshots()[3].created_us, None);
        let oddities = vmsd.oddities().join("\n");
        for expected in [
            "snapshot3 has no valid uid",
            "snapshot4.disk0 is not understood",
            "snapshot4 has another number of disks",
            "numSnapshots is 7, but 4 snapshots",
            "two snapshots have the uid 2",
            "snapshot.current is 9, which is not there",
            "snapshot 4 has the parent 5",
            "snapshot 1 is its own ancestor",
        ] {
            assert!(oddities.contains(expected), "{expected}: {oddities}");
        }
    }

    #[test]
    fn an_encrypted_list_is_told() {
        let vmsd = parsed("encryption.keySafe = \"x\"\nencryption.data = \"y\"\n");
        assert!(vmsd.is_encrypted());
        assert_eq!(vmsd.oddities().len(), 1);
    }

    #[test]
    fn an_edit_leaves_the_other_lines() {
        let mut vmsd = parsed(TEXT);
        vmsd.dictionary_mut()
            .set("snapshot10.displayName", "x")
            .unwrap();
        let wanted = TEXT.replace("später", "x");
        assert_eq!(vmsd.to_bytes(), wanted.as_bytes());
        assert_eq!(vmsd.snapshots()[1].name, "x");
    }
}
