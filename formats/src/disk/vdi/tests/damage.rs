//! Images that are damaged.

use hako_block::testkit::FaultFolder;
use hako_block::{Access, ErrorKind, Storage};

use super::{BLOCK, SIZE, Vdi, args, check, header, image, open, patch, read_all};
use crate::disk::vdi::map::ZERO;
use crate::disk::{DiskFormat, Severity};

pub fn set_entry(folder: &FaultFolder, block: u64, entry: u32) {
    let offset = header(folder, "disk.vdi").entry_offset(block);
    patch(folder, "disk.vdi", offset, &entry.to_le_bytes());
}

/// Returns blocks that are stored, with their places.
pub fn stored(folder: &FaultFolder) -> Vec<(u64, u32)> {
    let header = header(folder, "disk.vdi");
    let file = folder.file("disk.vdi").unwrap();
    let entry = |block| {
        let mut bytes = [0; 4];
        file.read_at(header.entry_offset(block), &mut bytes)
            .unwrap();
        u32::from_le_bytes(bytes)
    };
    let entries = (0..header.n_blocks).map(|block| (block, entry(block)));
    entries.filter(|(_, entry)| *entry < ZERO).collect()
}

#[test]
fn place_past_the_end_of_the_file_is_told_and_never_read() {
    let (folder, content) = image("dynamic");
    let block = stored(&folder)[0].0;
    set_entry(&folder, block, 0x0fff_0000);
    let disk = open(&folder, "disk.vdi", Access::ReadOnly).unwrap();
    let at = block as usize * BLOCK;
    let error = disk.read_at(at as u64, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(
        error.byte(),
        Some(header(&folder, "disk.vdi").entry_offset(block))
    );
    let mut rest = vec![0; SIZE - at - BLOCK];
    disk.read_at((at + BLOCK) as u64, &mut rest).unwrap();
    assert!(rest == content[at + BLOCK..]);
    assert!(check(&folder, "disk.vdi").n_corruptions > 0);
    assert!(open(&folder, "disk.vdi", Access::ReadWrite).is_err());

    let mut salvage = args(&folder, "disk.vdi", Access::ReadOnly);
    salvage.salvage = true;
    let disk = Vdi.open(salvage).unwrap();
    let mut lost = content;
    lost[at..at + BLOCK].fill(0);
    assert!(read_all(&*disk) == lost);
    assert!(
        disk.info().oddities[0].contains("1 blocks"),
        "{:?}",
        disk.info().oddities
    );
}

#[test]
fn place_used_twice_is_told_and_never_written() {
    let (folder, _) = image("dynamic");
    let stored = stored(&folder);
    set_entry(&folder, stored[0].0, stored[1].1);
    let findings = check(&folder, "disk.vdi");
    assert_eq!(findings.n_corruptions, 1, "{findings:?}");
    let error = open(&folder, "disk.vdi", Access::ReadWrite).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.hint_text().is_some());
    assert!(open(&folder, "disk.vdi", Access::ReadOnly).is_ok());
}

#[test]
fn place_that_the_file_has_but_no_disk_could_need_is_told() {
    let (folder, _) = image("dynamic");
    let n_blocks = header(&folder, "disk.vdi").n_blocks;
    folder.file("disk.vdi").unwrap().set_len(1 << 20).unwrap();
    set_entry(&folder, stored(&folder)[0].0, n_blocks as u32);
    assert_eq!(check(&folder, "disk.vdi").n_corruptions, 1);
    assert!(open(&folder, "disk.vdi", Access::ReadWrite).is_err());
}

#[test]
fn map_that_the_file_ends_in_is_refused_or_salvaged() {
    let (folder, _) = image("dynamic");
    let map_offset = header(&folder, "disk.vdi").map_offset;
    let file = folder.file("disk.vdi").unwrap();
    file.set_len(map_offset + 10).unwrap();
    assert!(open(&folder, "disk.vdi", Access::ReadOnly).is_err());
    assert_eq!(check(&folder, "disk.vdi").n_corruptions, 1);
    let mut salvage = args(&folder, "disk.vdi", Access::ReadOnly);
    salvage.salvage = true;
    let disk = Vdi.open(salvage).unwrap();
    assert_eq!(read_all(&*disk), vec![0; SIZE]);
    assert!(!disk.info().oddities.is_empty());
}

#[test]
fn number_of_stored_blocks_too_small_is_dangerous_and_too_large_is_a_leak() {
    let (folder, _) = image("dynamic");
    let n_stored = header(&folder, "disk.vdi").n_stored;
    for (number, worst) in [
        (n_stored - 1, Severity::Corruption),
        (n_stored + 1, Severity::Oddity),
    ] {
        patch(&folder, "disk.vdi", 0x184, &(number as u32).to_le_bytes());
        assert_eq!(check(&folder, "disk.vdi").worst(), Some(worst), "{number}");
    }
    // The next writer stores its blocks behind the last one, whatever the header says.
    patch(&folder, "disk.vdi", 0x184, &0_u32.to_le_bytes());
    let disk = open(&folder, "disk.vdi", Access::ReadWrite).unwrap();
    disk.write_at(0, &[7; SIZE]).unwrap();
    disk.flush().unwrap();
    assert_eq!(read_all(&*disk), [7; SIZE]);
    assert_eq!(check(&folder, "disk.vdi").worst(), None);
}

#[test]
fn space_that_nothing_uses_is_a_leak_and_is_used_again() {
    let (folder, _) = image("dynamic");
    let (block, _) = stored(&folder)[2];
    set_entry(&folder, block, ZERO);
    let file = folder.file("disk.vdi").unwrap();
    let len = file.len_bytes().unwrap();
    file.set_len(len + 1000).unwrap();
    let findings = check(&folder, "disk.vdi");
    assert_eq!(findings.n_corruptions, 0, "{findings:?}");
    assert_eq!(findings.n_leaks, 2);
    assert_eq!(findings.leaked_bytes, BLOCK as u64 + 1000);
    let disk = open(&folder, "disk.vdi", Access::ReadWrite).unwrap();
    let at = block * BLOCK as u64;
    disk.write_at(at + 5, &[7; 10]).unwrap();
    disk.flush().unwrap();
    let mut expected = vec![0; BLOCK];
    expected[5..15].fill(7);
    let mut got = vec![1; BLOCK];
    disk.read_at(at, &mut got).unwrap();
    assert_eq!(got, expected, "what lay there before is gone");
    assert_eq!(file.len_bytes().unwrap(), len + 1000);
}

#[test]
fn odd_headers_are_told() {
    for (at, bytes, word) in [
        (0x188, &[0; 16][..], "image UUID is nil"),
        (0x198, &[0; 16], "modification UUID is nil"),
        (0x1a8, &[1; 16], "names the parent"),
        (0x170, &[1], "no multiple of 512"),
    ] {
        let (folder, _) = image("dynamic");
        patch(&folder, "disk.vdi", at, bytes);
        let disk = open(&folder, "disk.vdi", Access::ReadOnly).unwrap();
        assert!(disk.info().oddities[0].contains(word), "{word}");
        assert!(disk.info().parent.is_none());
        assert!(check(&folder, "disk.vdi").n_oddities > 0);
    }
}
