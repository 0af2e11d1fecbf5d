use std::sync::Arc;

use super::{Role, Volumes};
use crate::volume::Volume;

/// A disk of 2 MiB with an MBR: partitions of kind, first sector, number of sectors.
fn disk(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut bytes = vec![0; 2 << 20];
    bytes[440..444].copy_from_slice(&[1, 2, 3, 4]);
    for (index, (kind, start, sectors)) in partitions.iter().enumerate() {
        let entry = &mut bytes[446 + 16 * index..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&sectors.to_le_bytes());
    }
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

fn put_swap(bytes: &mut [u8], at: usize, label: &[u8]) {
    bytes[at + 4086..at + 4096].copy_from_slice(b"SWAPSPACE2");
    bytes[at + 1024] = 1;
    bytes[at + 1036..at + 1052].fill(0xab);
    bytes[at + 1052..at + 1052 + label.len()].copy_from_slice(label);
}

fn volumes(disks: Vec<Vec<u8>>) -> Volumes {
    let disks = disks
        .into_iter()
        .map(|disk| Arc::new(disk) as Arc<dyn Volume>);
    Volumes::of(disks.collect()).unwrap()
}

fn names(found: &[&super::FoundVolume]) -> Vec<String> {
    found.iter().map(|found| found.name.clone()).collect()
}

#[test]
fn each_disk_and_partition_has_its_name_and_content() {
    let mut first = disk(&[(0x82, 64, 512), (0x83, 1024, 1024)]);
    put_swap(&mut first, 64 * 512, b"swap one");
    let mut second = disk(&[(0x83, 64, 512)]);
    second[64 * 512..][..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    second[64 * 512 + 24..][..4].copy_from_slice(b"safe");
    second[64 * 512 + 168..][..4].copy_from_slice(b"id-1");
    let volumes = volumes(vec![first, second, Vec::new()]);
    let shown: Vec<_> = volumes
        .list()
        .iter()
        .map(|found| {
            (
                found.name.as_str(),
                found.content.kind,
                found.content.label.as_str(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("disk", "dos", ""),
            ("p1", "swap", "swap one"),
            ("p2", "", ""),
            ("disk2", "dos", ""),
            ("disk2p1", "crypto_LUKS", "safe"),
            ("disk3", "", ""),
        ]
    );
    assert_eq!(volumes.list()[4].content.role, Role::Encrypted);
    assert_eq!(volumes.list()[1].partition().unwrap().start, 64 * 512);
}

#[test]
fn volumes_are_found_by_what_a_guest_calls_them() {
    let mut first = disk(&[(0x82, 64, 512), (0x83, 1024, 1024)]);
    put_swap(&mut first, 64 * 512, b"a b");
    let volumes = volumes(vec![first, disk(&[(0x83, 64, 512)])]);
    let uuid = "abababab-abab-abab-abab-abababababab";
    for (wanted, name) in [
        ("p2", "p2"),
        ("2", "p2"),
        ("disk2", "disk2"),
        ("LABEL=a b", "p1"),
        ("LABEL=\"a b\"", "p1"),
        (&format!("UUID={}", uuid.to_uppercase()), "p1"),
        (&format!("/dev/disk/by-uuid/{uuid}"), "p1"),
        ("/dev/disk/by-label/a\\x20b", "p1"),
        ("/dev/sda2", "p2"),
        ("/dev/vda", "disk"),
        ("/dev/xvdb1", "disk2p1"),
        ("/dev/nvme1n1p1", "disk2p1"),
        ("/dev/mmcblk0p1", "p1"),
    ] {
        assert_eq!(names(&volumes.find(wanted)), [name], "{wanted}");
    }
    assert_eq!(
        names(&volumes.find("PARTUUID=04030201-01")),
        ["p1", "disk2p1"]
    );
    for wanted in [
        "",
        "p3",
        "3",
        "UUID=",
        "LABEL=",
        "/dev/sdc1",
        "/dev/sd",
        "/dev/nvme",
        "X=p1",
    ] {
        assert!(volumes.find(wanted).is_empty(), "{wanted}");
    }
}

#[test]
fn disks_behind_the_26th_have_two_letters() {
    let volumes = volumes((0..28).map(|_| disk(&[(0x83, 64, 512)])).collect());
    for (wanted, name) in [
        ("/dev/sdz", "disk26"),
        ("/dev/sdaa1", "disk27p1"),
        ("/dev/vdab", "disk28"),
    ] {
        assert_eq!(names(&volumes.find(wanted)), [name], "{wanted}");
    }
    assert!(volumes.find("/dev/sdac").is_empty());
    assert!(volumes.find("/dev/sdzzzzzzzzzzzzzzzzzzzz1").is_empty());
}

#[test]
fn tables_in_tables_end() {
    // Each partition begins with the same table, and so on down.
    let mut bytes = disk(&[
        (0x83, 1, 4000),
        (0x83, 2, 4000),
        (0x83, 3, 4000),
        (0x83, 4, 4000),
    ]);
    let sector = bytes[..512].to_vec();
    for copy in bytes.chunks_exact_mut(512) {
        copy.copy_from_slice(&sector);
    }
    let volumes = volumes(vec![bytes]);
    assert!(volumes.list().len() <= super::MOST_VOLUMES);
    assert!(!volumes.remarks().is_empty());
}
