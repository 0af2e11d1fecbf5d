//! Damaged and hostile files.

use super::super::layout::STATE_PRESENT;
use super::super::region::TABLE_OFFSETS;
use super::*;

const BAT: u64 = 3 * MIB;

fn set_entry(folder: &FaultFolder, entry: u64, word: u64) {
    let file = folder.file(NAME).unwrap();
    file.write_at(BAT + entry * 8, &word.to_le_bytes()).unwrap();
}

#[test]
fn blocks_that_share_a_place_are_found_and_not_written() {
    let (folder, _) = image("dynamic");
    for place in [4 * MIB, 0, MIB, 2 * MIB, BAT] {
        let folder = folder.copy();
        set_entry(&folder, 1, place | STATE_PRESENT);
        let findings = check(&folder);
        assert_eq!(findings.n_corruptions, 1, "{:#?}", findings.list);
        assert!(findings.list[0].text.starts_with("BAT entry 1"));
        assert!(
            open(&folder, NAME, Access::ReadWrite).is_err(),
            "{place:#x}"
        );
    }
}

#[test]
fn blocks_past_the_end_of_the_file_are_found() {
    let (folder, _) = image("dynamic");
    for place in [100 * MIB, 1 << 50, u64::MAX << 20] {
        let folder = folder.copy();
        set_entry(&folder, 1, place | STATE_PRESENT);
        assert_eq!(check(&folder).n_corruptions, 1);
        assert!(open(&folder, NAME, Access::ReadWrite).is_err());
        let disk = open(&folder, NAME, Access::ReadOnly).unwrap();
        assert!(disk.read_at(BLOCK as u64, &mut [0]).is_err());
        assert!(disk.next_extent(BLOCK as u64).is_err());
        assert!(disk.read_at(0, &mut [0]).is_ok());
    }
}

#[test]
fn stored_space_that_nothing_refers_to_is_a_leak() {
    let (folder, _) = image("dynamic");
    set_entry(&folder, 2, 0);
    let findings = check(&folder);
    assert_eq!((findings.n_leaks, findings.leaked_bytes), (1, MIB));
}

#[test]
fn one_bad_region_table_is_told_and_mended_by_writing() {
    let (folder, content) = image("dynamic");
    for offset in TABLE_OFFSETS {
        let folder = folder.copy();
        let file = folder.file(NAME).unwrap();
        file.write_at(offset + 20, &[0xff]).unwrap();
        assert_eq!(check(&folder).n_oddities, 1);
        assert!(self::content(&folder) == content);
        drop(open(&folder, NAME, Access::ReadWrite).unwrap());
        assert_eq!(check(&folder).worst(), None);
    }
    let file = folder.file(NAME).unwrap();
    for offset in TABLE_OFFSETS {
        file.write_at(offset + 20, &[0xff]).unwrap();
    }
    assert!(open(&folder, NAME, Access::ReadOnly).is_err());
    assert_eq!(check(&folder).n_corruptions, 1);
}

#[test]
fn metadata_that_cannot_be_are_refused() {
    const TABLE: u64 = 2 * MIB;
    const ITEMS: u64 = TABLE + (64 << 10);
    let (folder, _) = image("dynamic");
    // Where, what: entry count, an item's GUID, offset, length; block size, virtual size, sector.
    for (at, bytes) in [
        (TABLE, &[0; 8][..]),
        (TABLE + 10, &[0xff, 0xff]),
        (TABLE + 10, &[0, 0]),
        (TABLE + 32, &[9; 16]),
        (TABLE + 32 + 16, &[0; 4]),
        (TABLE + 32 + 16, &[0xff; 4]),
        (TABLE + 32 + 20, &[1, 0, 0, 0]),
        (
            TABLE + 64,
            b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b",
        ),
        (ITEMS, &[0; 4]),
        (ITEMS, &[0, 0, 0x30, 0]),
        (ITEMS, &[0, 0, 0, 0x20]),
        (ITEMS + 4, &[2, 0, 0, 0]),
        (ITEMS + 8, &[0; 8]),
        (ITEMS + 8, &[1, 2, 3, 0, 0, 0, 0, 0]),
        (ITEMS + 8, &[0xff; 8]),
        (ITEMS + 8, &[0, 0, 0, 0, 0, 1, 0, 0]),
        (ITEMS + 32, &[0, 4, 0, 0]),
    ] {
        let folder = folder.copy();
        folder.file(NAME).unwrap().write_at(at, bytes).unwrap();
        let error = open(&folder, NAME, Access::ReadOnly).err();
        assert!(error.is_some(), "{at:#x} {bytes:x?}");
        let checked = Vhdx.check(args(&folder, NAME, Access::ReadOnly));
        assert!(
            checked.is_err() || checked.unwrap().n_corruptions > 0,
            "{at:#x} {bytes:x?}"
        );
    }
}

#[test]
fn truncated_files_are_refused() {
    let (folder, _) = image("dynamic");
    for len in [0, 7, 8, 4096, MIB - 1, MIB, 2 * MIB, BAT, BAT + 4096] {
        let folder = folder.copy();
        folder.file(NAME).unwrap().set_len(len).unwrap();
        assert!(open(&folder, NAME, Access::ReadOnly).is_err(), "{len}");
        assert!(open(&folder, NAME, Access::ReadWrite).is_err(), "{len}");
        assert_eq!(check(&folder).n_corruptions, 1, "{len}");
    }
}
