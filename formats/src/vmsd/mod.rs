//! VMSD, the text that lists a VMware machine's snapshots: what its keys mean, over the lossless
//! text of [`Dictionary`].
//!
//! VMware has published no specification; keys and the form of times are those of real files
//! (Broadcom KB 337269). A file of no bytes is what a machine without snapshots has.
//!
//! Our own keys are `hako.uidN.…`, by the uid, for that stays when the index moves: `config` names
//! the file with the machine's configuration at the snapshot, `NODE.format` the format of a disk
//! that is no VMDK, `nvram` and `hako.nvram` the copies of what these keys of the VMX name.

mod edit;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use hako_block::Result;

use crate::dictionary::{Dictionary, note_of};
use crate::machine::{DiskMedium, Node};
use crate::oddities::Oddities;

/// Most snapshots that are read. VMware's products stop at 255 layers.
const MAX_SNAPSHOTS: usize = 4096;
/// Most disks of one snapshot that are read.
const MAX_DISKS: usize = 1024;

/// Keys of a VMX that name files with settings of the firmware.
pub const FIRMWARE_KEYS: [&str; 2] = ["nvram", "hako.nvram"];

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
    /// The file with the machine's configuration at that time, as the text names it; VMware's
    /// products have that in the file of the state.
    pub config: Option<String>,
    /// Copies of the firmware's settings at that time; VMware's products have the NVRAM in the file
    /// of the state.
    pub firmware: Vec<FirmwareFile>,
    /// The disks that it holds.
    pub disks: Vec<SnapshotDisk>,
}

/// What a snapshot keeps of a firmware's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareFile {
    /// The key of the VMX that names the file, one of [`FIRMWARE_KEYS`].
    pub key: &'static str,
    /// The copy of that file, as the text names it.
    pub file: String,
}

/// A disk of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDisk {
    /// Where it was.
    pub node: Node,
    /// The image that holds what it held, as the text names it.
    pub file: String,
    /// Format of the image if it isn't VMDK.
    pub format: Option<String>,
}

impl SnapshotDisk {
    /// Returns the disk as a machine's text would describe it.
    pub fn medium(&self) -> DiskMedium {
        DiskMedium {
            file: self.file.clone(),
            format: self.format.clone(),
            ..DiskMedium::default()
        }
    }
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

    /// Returns the linked clones that stand on snapshots, as VMware's products note them: the
    /// snapshot's uid, and the clone's .vmx as the text names it.
    pub fn clones(&self) -> Vec<(u32, String)> {
        let snapshots = self.snapshots();
        let keys = self.dictionary.entries();
        let clones = keys.filter_map(|(key, value)| {
            let key = key.to_ascii_lowercase();
            let (snapshot, clone) = key.split_once('.')?;
            number_of(clone, "clone")?;
            let index = number_of(snapshot, "snapshot")?;
            let found = snapshots.iter().find(|one| one.index == index)?;
            Some((found.uid, value))
        });
        clones.filter(|(_, vmx)| !vmx.is_empty()).collect()
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
    let mut indices = indices(dictionary);
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

/// Returns the numbers N of the keys `snapshotN.…`, ascending.
fn indices(dictionary: &Dictionary) -> Vec<u32> {
    let devices = dictionary.prefixes().into_iter();
    let numbers = devices.filter_map(|device| number_of(device, "snapshot"));
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers
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
            Some((node, file)) => disks.push(SnapshotDisk {
                node,
                file,
                format: format(dictionary, uid, node),
            }),
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
        config: dictionary
            .value(&config_key(uid))
            .filter(|file| !file.is_empty()),
        firmware: firmware(dictionary, uid),
        disks,
    })
}

fn firmware(dictionary: &Dictionary, uid: u32) -> Vec<FirmwareFile> {
    let files = FIRMWARE_KEYS.into_iter().filter_map(|key| {
        let file = dictionary.value(&firmware_key(uid, key))?;
        Some(FirmwareFile { key, file }).filter(|kept| !kept.file.is_empty())
    });
    files.collect()
}

fn firmware_key(uid: u32, key: &str) -> String {
    format!("hako.uid{uid}.{key}")
}

fn config_key(uid: u32) -> String {
    format!("hako.uid{uid}.config")
}

fn format_key(uid: u32, node: Node) -> String {
    format!("hako.uid{uid}.{node}.format")
}

fn format(dictionary: &Dictionary, uid: u32, node: Node) -> Option<String> {
    let format = dictionary.value(&format_key(uid, node))?;
    let format = format.trim().to_ascii_lowercase();
    Some(format).filter(|format| !matches!(format.as_str(), "" | "vmdk"))
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
