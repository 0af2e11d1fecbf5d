//! The bodies of the targets that read texts: what is read is written back as it was, and what is
//! changed is read back as it was meant.

use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Bus, Cpu, DiskMedium, Drive, Firmware, Mac, Medium, Network, Nic};
use hako_formats::vmsd::{Snapshot, Vmsd};
use hako_formats::vmx::{Encryption, Vmx};

/// A change of a VMX.
type Edit = fn(&mut Vmx) -> hako_block::Result<()>;

/// Changes of every kind.
const EDITS: [Edit; 9] = [
    |vmx| vmx.set_name("a ü \u{1f642}"),
    |vmx| vmx.set_memory(64 << 20),
    |vmx| vmx.set_firmware(Firmware::Efi, true),
    |vmx| {
        vmx.set_cpu(Cpu {
            count: 4,
            cores_per_socket: 2,
        })
    },
    |vmx| vmx.set_annotation("a\n|\"b\""),
    put_drives,
    |vmx| {
        vmx.put_nic(&Nic {
            number: 1,
            model: Some("e1000".to_owned()),
            network: Network::Custom("VMnet3".to_owned()),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mac_is_static: true,
            connected: false,
        })
    },
    |vmx| {
        let drives = vmx.machine().drives;
        drives
            .iter()
            .try_for_each(|drive| vmx.remove_drive(drive.node))
    },
    |vmx| {
        let nics = vmx.machine().nics;
        nics.iter().try_for_each(|nic| vmx.remove_nic(nic.number))
    },
];

/// A VMX: read, changed in every way, and made anew of what it says.
pub fn vmx(bytes: &[u8]) {
    let Ok(vmx) = Vmx::parse(bytes) else { return };
    assert!(vmx.to_bytes() == bytes, "written back otherwise");
    dictionary(vmx.dictionary());
    let machine = vmx.machine();
    for (index, edit) in EDITS.iter().enumerate() {
        let mut edited = vmx.clone();
        let done = edit(&mut edited);
        if vmx.encryption() == Encryption::Full {
            assert!(
                edited.to_bytes() == bytes,
                "edit {index} of an encrypted text"
            );
        }
        if done.is_ok() {
            same(edited.dictionary());
        }
    }
    if let Ok(new) = Vmx::new(&machine) {
        let first = new.machine();
        let read = Vmx::parse(&new.to_bytes()).expect("our own text is read");
        assert_eq!(read.machine(), first);
        assert_eq!(Vmx::new(&first).expect("made again").machine(), first);
    }
}

/// Puts a disk at the first free place of every bus.
fn put_drives(vmx: &mut Vmx) -> hako_block::Result<()> {
    let free = Bus::ALL
        .into_iter()
        .filter_map(|bus| vmx.free_node(bus, None));
    let free: Vec<_> = free.collect();
    for node in free {
        let drive = Drive {
            node,
            medium: Medium::Disk(DiskMedium {
                file: "new.vmdk".to_owned(),
                ..DiskMedium::default()
            }),
            connected: true,
        };
        vmx.put_drive(&drive, None)?;
        assert!(vmx.machine().drives.contains(&drive), "{node} is not there");
    }
    Ok(())
}

/// A VMSD: read and changed.
pub fn vmsd(bytes: &[u8]) {
    let Ok(mut vmsd) = Vmsd::parse(bytes) else {
        return;
    };
    assert!(vmsd.to_bytes() == bytes, "written back otherwise");
    dictionary(vmsd.dictionary());
    let snapshots = vmsd.snapshots();
    let _ = (vmsd.current(), vmsd.last_uid(), vmsd.needs_consolidation());
    if vmsd.dictionary_mut().set("snapshot.current", "1").is_ok() {
        assert!(vmsd.current() == Some(1) && vmsd.snapshots() == snapshots);
    }
    add_and_remove(vmsd);
}

/// Adds a snapshot to a list and removes it: the others are what they were, but for their numbers.
fn add_and_remove(mut vmsd: Vmsd) {
    let known = |vmsd: &Vmsd| -> Vec<(u32, String)> {
        let snapshots = vmsd.snapshots().into_iter();
        snapshots.map(|one| (one.uid, one.name)).collect()
    };
    let before = known(&vmsd);
    let Ok(uid) = vmsd.next_uid() else { return };
    let snapshot = Snapshot {
        index: 0,
        uid,
        parent: vmsd.current(),
        name: "new".to_owned(),
        description: String::new(),
        created_us: Some(1),
        state_file: None,
        config: Some("new.vmx".to_owned()),
        firmware: Vec::new(),
        disks: Vec::new(),
    };
    if vmsd.add(&snapshot).is_err() {
        return;
    }
    let read = Vmsd::parse(&vmsd.to_bytes()).expect("our own text is read");
    assert!(read.current() == Some(uid) && read.last_uid() == Some(uid));
    assert!(
        read.snapshots()
            .iter()
            .any(|one| one.uid == uid && one.name == "new")
    );
    if vmsd.remove(&[uid].into()).is_ok() {
        assert_eq!(known(&vmsd), before);
    }
}

/// Sets and removes keys: the others keep their values.
fn dictionary(text: &Dictionary) {
    let entries: Vec<(String, String)> = text
        .entries()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let first = entries.first().map_or("first.key", |(key, _)| key.as_str());
    let last = entries.last().map_or("last.key", |(key, _)| key.as_str());
    for key in [first, last, "new.key", "scsi0:0.fileName"] {
        for value in ["", "plain", "a \"b\" |7C\n", "Stra\u{df}e"] {
            let mut edited = text.clone();
            if edited.set(key, value).is_ok() {
                assert_eq!(edited.value(key).as_deref(), Some(value), "{key}");
                only_changed(&entries, &edited, key);
                same(&edited);
            }
        }
        let mut edited = text.clone();
        if edited.remove(key) {
            assert_eq!(edited.value(key), None, "{key}");
            only_changed(&entries, &edited, key);
        }
    }
}

fn only_changed(before: &[(String, String)], after: &Dictionary, changed: &str) {
    let others = before.iter();
    let others = others.filter(|(key, _)| !key.eq_ignore_ascii_case(changed));
    for (key, value) in others {
        assert_eq!(
            after.value(key).as_ref(),
            Some(value),
            "{key} after {changed}"
        );
    }
}

/// What is written and read again says the same, if its code page can still be told.
fn same(text: &Dictionary) {
    let again = Dictionary::parse(&text.to_bytes()).expect("our own text is read");
    if text.encoding_name() == again.encoding_name() {
        assert!(text.entries().eq(again.entries()), "read otherwise");
    }
}
