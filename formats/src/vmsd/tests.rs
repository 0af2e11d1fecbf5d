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

fn disk(node: &str, file: &str) -> SnapshotDisk {
    SnapshotDisk {
        node: node.parse().unwrap(),
        file: file.to_owned(),
        format: None,
    }
}

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
            config: None,
            firmware: Vec::new(),
            disks: vec![disk("scsi0:0", "web.vmdk"), disk("nvme0:0", "data.vmdk"),],
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

fn new_snapshot(uid: u32, parent: Option<u32>, name: &str) -> Snapshot {
    Snapshot {
        index: 0,
        uid,
        parent,
        name: name.to_owned(),
        description: String::new(),
        created_us: Some((310_596 << 32) + (1 << 32) - 938_781_285),
        state_file: Some(format!("web-Snapshot{uid}.vmsn")),
        config: Some(format!("web-Snapshot{uid}.vmx")),
        firmware: Vec::new(),
        disks: vec![disk("scsi0:0", "web.vmdk")],
    }
}

#[test]
fn a_first_snapshot_is_written_as_vmware_writes_it() {
    let mut vmsd = Vmsd::new();
    assert_eq!(vmsd.next_uid().unwrap(), 1);
    let mut snapshot = new_snapshot(1, None, "clean \"install\"");
    snapshot.description = "a\nb".to_owned();
    snapshot.disks.push(SnapshotDisk {
        format: Some("qcow2".to_owned()),
        ..disk("nvme0:0", "data.qcow2")
    });
    vmsd.add(&snapshot).unwrap();
    let wanted = ".encoding = \"UTF-8\"\nsnapshot.lastUID = \"1\"\nsnapshot.current = \"1\"\n\
        snapshot.numSnapshots = \"1\"\nsnapshot0.uid = \"1\"\n\
        snapshot0.filename = \"web-Snapshot1.vmsn\"\n\
        snapshot0.displayName = \"clean |22install|22\"\nsnapshot0.description = \"a|0Ab\"\n\
        snapshot0.createTimeHigh = \"310596\"\nsnapshot0.createTimeLow = \"-938781285\"\n\
        snapshot0.numDisks = \"2\"\nsnapshot0.disk0.fileName = \"web.vmdk\"\n\
        snapshot0.disk0.node = \"scsi0:0\"\nsnapshot0.disk1.fileName = \"data.qcow2\"\n\
        snapshot0.disk1.node = \"nvme0:0\"\nhako.uid1.config = \"web-Snapshot1.vmx\"\n\
        hako.uid1.nvme0:0.format = \"qcow2\"\n";
    assert_eq!(String::from_utf8(vmsd.to_bytes()).unwrap(), wanted);
    let read = parsed(wanted);
    assert_eq!(read.oddities(), [""; 0]);
    assert_eq!(read.snapshots(), [snapshot]);
}

#[test]
fn an_entry_is_added_behind_the_others_and_every_other_byte_stays() {
    let text = TEXT
        .replace("snapshot10.", "  Snapshot1.")
        .replace('\n', "\r\n");
    let text = format!("# mine\r\n{text}foo.bar = \"1\" # x\r\n");
    let mut vmsd = parsed(&text);
    vmsd.add(&new_snapshot(13, Some(12), "third")).unwrap();
    let bytes = String::from_utf8(vmsd.to_bytes()).unwrap();
    let changed = |line: &str| {
        [
            "snapshot.lastUID",
            "snapshot.current",
            "snapshot.numSnapshots",
        ]
        .iter()
        .any(|key| line.starts_with(key))
    };
    let old = text.lines().filter(|line| !changed(line));
    let new: Vec<&str> = bytes.lines().filter(|line| !changed(line)).collect();
    assert!(
        new.join("\n")
            .starts_with(&old.collect::<Vec<_>>().join("\n"))
    );
    assert!(bytes.contains("snapshot2.parent = \"12\"\r\n"), "{bytes}");
    let read = parsed(&bytes);
    assert_eq!(read.oddities(), [""; 0]);
    assert_eq!((read.current(), read.last_uid()), (Some(13), Some(13)));
    assert!(vmsd.add(&new_snapshot(13, None, "again")).is_err());
}

#[test]
fn removed_entries_leave_no_gap_and_their_children_go_up() {
    let mut vmsd = parsed(TEXT);
    vmsd.add(&new_snapshot(13, Some(12), "third")).unwrap();
    vmsd.remove(&BTreeSet::from([12, 99])).unwrap();
    let read = parsed(&String::from_utf8(vmsd.to_bytes()).unwrap());
    assert_eq!(read.oddities(), [""; 0]);
    let left: Vec<_> = read
        .snapshots()
        .iter()
        .map(|one| (one.index, one.uid, one.parent))
        .collect();
    assert_eq!(left, [(0, 1, None), (1, 13, Some(1))]);
    assert_eq!(read.dictionary().value("snapshot.mru0.uid"), None);
    assert_eq!(
        read.snapshots()[1].config.as_deref(),
        Some("web-Snapshot13.vmx")
    );
    let mut vmsd = read;
    vmsd.remove(&BTreeSet::from([13])).unwrap();
    assert_eq!(vmsd.current(), Some(1));
    assert_eq!(vmsd.next_uid().unwrap(), 14, "uids never come back");
    vmsd.remove(&BTreeSet::from([1])).unwrap();
    assert_eq!((vmsd.current(), vmsd.next_uid().unwrap()), (None, 14));
    assert_eq!(
        String::from_utf8(vmsd.to_bytes()).unwrap(),
        ".encoding = \"UTF-8\"\nsnapshot.lastUID = \"13\"\nsnapshot.current = \"0\"\n\
         snapshot.numSnapshots = \"0\"\n"
    );
}

#[test]
fn a_disk_gets_another_file_and_format() {
    let mut vmsd = parsed(TEXT);
    let new = SnapshotDisk {
        format: Some("qcow2".to_owned()),
        ..disk("nvme0:0", "data-000001.qcow2")
    };
    vmsd.set_disk(1, &new).unwrap();
    assert_eq!(vmsd.snapshots()[0].disks[1], new);
    vmsd.set_disk(1, &disk("nvme0:0", "data.vmdk")).unwrap();
    assert_eq!(vmsd.to_bytes(), TEXT.as_bytes());
    assert!(vmsd.set_disk(12, &new).is_err());
    assert!(vmsd.set_disk(2, &new).is_err());
}

#[test]
fn a_damaged_list_is_settled() {
    let text = "snapshot.current = \"9\"\nsnapshot.numSnapshots = \"7\"\n\
        snapshot0.displayName = \"no uid\"\nsnapshot3.uid = \"4\"\nsnapshot3.parent = \"5\"\n\
        snapshot12.uid = \"6\"\nsnapshot12.parent = \"4\"\nsnapshot.mru0.uid = \"5\"\n\
        snapshot.mru1.uid = \"6\"\n";
    let mut vmsd = parsed(text);
    vmsd.settle().unwrap();
    vmsd.set_needs_consolidation(true).unwrap();
    let vmsd = parsed(&String::from_utf8(vmsd.to_bytes()).unwrap());
    let left: Vec<_> = vmsd
        .snapshots()
        .iter()
        .map(|one| (one.index, one.uid, one.parent))
        .collect();
    assert_eq!(left, [(0, 4, None), (1, 6, Some(4))]);
    let value = |key: &str| vmsd.dictionary().value(key);
    assert_eq!(value("snapshot2.displayName").as_deref(), Some("no uid"));
    assert_eq!(value("snapshot.numSnapshots").as_deref(), Some("2"));
    assert_eq!(value("snapshot.mru0.uid").as_deref(), Some("6"));
    assert_eq!((vmsd.current(), vmsd.last_uid()), (None, Some(6)));
    assert!(vmsd.needs_consolidation());
    let ring = "snapshot0.uid = \"1\"\nsnapshot0.parent = \"2\"\nsnapshot1.uid = \"2\"\n\
        snapshot1.parent = \"1\"\nsnapshot2.uid = \"3\"\nsnapshot2.parent = \"2\"\n";
    let mut vmsd = parsed(ring);
    vmsd.remove(&BTreeSet::from([1, 2])).unwrap();
    assert_eq!(vmsd.snapshots()[0].parent, None);
}

#[test]
fn an_encrypted_list_is_not_changed() {
    let text = "encryption.keySafe = \"x\"\nencryption.data = \"y\"\n";
    let mut vmsd = parsed(text);
    assert!(vmsd.add(&new_snapshot(1, None, "a")).is_err());
    assert!(vmsd.settle().is_err());
    assert_eq!(vmsd.to_bytes(), text.as_bytes());
}

#[test]
fn many_entries_are_renumbered() {
    let mut vmsd = Vmsd::new();
    for uid in 1..=64 {
        vmsd.add(&new_snapshot(
            uid,
            uid.checked_sub(1).filter(|uid| *uid > 0),
            "x",
        ))
        .unwrap();
    }
    vmsd.remove(&(1..=63).collect()).unwrap();
    assert_eq!(vmsd.snapshots().len(), 1);
    assert_eq!(vmsd.snapshots()[0].index, 0);
}

#[test]
fn linked_clones_are_read_with_the_snapshots_that_they_stand_on() {
    let vmsd = parsed(
        "snapshot0.uid = \"1\"\nsnapshot0.clone0 = \"/vms/a/a.vmx\"\n\
         snapshot0.clone1 = \"../b/b.vmx\"\nsnapshot0.numClones = \"2\"\n\
         snapshot3.uid = \"9\"\nSnapshot3.Clone0 = \"c.vmx\"\nsnapshot4.clone0 = \"no.vmx\"\n\
         snapshot3.clones = \"x\"\nsnapshot3.clone1 = \"\"\n",
    );
    let clone = |uid: u32, vmx: &str| (uid, vmx.to_owned());
    assert_eq!(
        vmsd.clones(),
        [
            clone(1, "/vms/a/a.vmx"),
            clone(1, "../b/b.vmx"),
            clone(9, "c.vmx")
        ]
    );
}
