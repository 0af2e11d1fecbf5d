//! Logs that must be replayed.

use super::super::bytes::{put, record_checksum};
use super::super::header::HEADER_OFFSETS;
use super::super::journal::Journal;
use super::*;

/// An image whose log must be replayed: what it is with that, and what without.
fn dirty() -> Vec<(FaultFolder, Vec<u8>)> {
    let (folder, before) = image("dynamic");
    let mut after = before.clone();
    let mut dirty = Vec::new();
    cut_everywhere(
        &folder,
        |folder| {
            let disk = open(folder, NAME, Access::ReadWrite).unwrap();
            disk.write_at(BLOCK as u64, &[5; 3 * BLOCK]).unwrap();
            disk.discard(4 * BLOCK as u64..5 * BLOCK as u64).unwrap();
            disk.flush().unwrap();
        },
        |cut| {
            if structure(cut).n_replayed == Some(1) {
                dirty.push(cut.copy());
            }
        },
    );
    after[BLOCK..4 * BLOCK].fill(5);
    after[4 * BLOCK..5 * BLOCK].fill(0);
    assert!(dirty.len() > 3, "{} cuts left a log", dirty.len());
    dirty
        .into_iter()
        .map(|folder| (folder, after.clone()))
        .collect()
}

#[test]
fn log_is_replayed_in_memory_and_the_file_stays_as_it_is() {
    for (folder, after) in dirty() {
        let before = folder.files();
        let disk = open(&folder, NAME, Access::ReadOnly).unwrap();
        assert!(read_all(&*disk) == after);
        assert!(disk.info().oddities[0].contains("1 log entries are replayed"));
        let mut offset = 0;
        while offset < SIZE as u64 {
            offset = disk.next_extent(offset).unwrap().end();
        }
        drop(disk);
        assert_eq!(check(&folder).n_corruptions, 0);
        assert_eq!(check(&folder).n_oddities, 1);
        assert!(folder.files() == before);
        assert_eq!(folder.log_len(), 0, "read-only");
    }
}

#[test]
fn opening_for_writing_replays_the_log_and_survives_a_cut() {
    let (folder, after) = dirty().swap_remove(0);
    cut_everywhere(
        &folder,
        |folder| drop(open(folder, NAME, Access::ReadWrite).unwrap()),
        |cut| assert!(content(cut) == after),
    );
    assert_eq!(structure(&folder).n_replayed, None);
    assert!(content(&folder) == after);
    // A leak at worst: the place of what was discarded.
    let findings = check(&folder);
    assert_eq!((findings.n_corruptions, findings.n_oddities), (0, 0));
}

#[test]
fn qemu_img_replays_a_log_of_ours() {
    for (folder, after) in dirty().into_iter().take(4) {
        assert!(qemu_content(&folder) == after);
    }
}

#[test]
fn of_many_changed_sectors_each_is_old_or_new() {
    let folder = FaultFolder::default();
    // One BAT sector for 512 blocks: a flush of many sectors needs several log entries.
    let sink = Vhdx
        .stream(CreateArgs {
            storage: folder.create(NAME).unwrap(),
            name: NAME.to_owned(),
            outputs: &folder,
            virtual_size: 1 << 40,
            parent: None,
            options: CreateOptions {
                unit_bytes: Some(MIB),
                ..CreateOptions::default()
            },
        })
        .unwrap();
    sink.finish().unwrap();
    let places: Vec<u64> = (0..180).map(|index| index * 600 * MIB).collect();
    let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
    for place in &places {
        disk.write_at(*place, &[9; 512]).unwrap();
    }
    cut_everywhere(
        &folder,
        |_| disk.flush().unwrap(),
        |cut| {
            let disk = open(cut, NAME, Access::ReadOnly).unwrap();
            for place in places.iter().step_by(17) {
                let mut bytes = [1; 600];
                disk.read_at(*place, &mut bytes).unwrap();
                assert!([0, 9].contains(&bytes[0]) && bytes[..512] == [bytes[0]; 512]);
                assert_eq!(bytes[512..], [0; 88]);
            }
        },
    );
    let disk = open(&folder, NAME, Access::ReadOnly).unwrap();
    for place in places {
        let mut bytes = [1; 512];
        disk.read_at(place, &mut bytes).unwrap();
        assert_eq!(bytes, [9; 512]);
    }
    assert_eq!(check(&folder).worst(), None);
}

/// Puts bytes into the log's newest entry, whose checksum is made right again.
fn with_entry(change: impl Fn(&mut Vec<u8>)) -> FaultFolder {
    let (folder, _) = dirty().swap_remove(0);
    let file = folder.file(NAME).unwrap();
    let log = Headers::read(&*file).unwrap().current.log_offset;
    for place in 0..3 {
        let at = log + place * 85 * 4096;
        let mut entry = vec![0; 8192];
        file.read_at(at, &mut entry).unwrap();
        if !entry.starts_with(b"loge") {
            continue;
        }
        change(&mut entry);
        let checksum = record_checksum(&entry);
        put(&mut entry, 4, &checksum.to_le_bytes());
        file.write_at(at, &entry).unwrap();
    }
    folder.copy()
}

#[test]
fn hostile_log_entries_are_refused() {
    let opened = |change: fn(&mut Vec<u8>)| open(&with_entry(change), NAME, Access::ReadOnly).err();
    assert!(opened(|_| ()).is_none());
    // Where no log may write: the headers, the log, beyond any file.
    for offset in [
        0,
        64 << 10,
        MIB,
        MIB + 4096,
        4 * MIB + 512,
        u64::MAX - 4095,
        1 << 62,
    ] {
        let folder = with_entry(|entry| put(entry, 64 + 16, &offset.to_le_bytes()));
        let error = finding(open(&folder, NAME, Access::ReadOnly).err());
        assert!(error.contains("may change nothing"), "{error}");
        assert!(open(&folder, NAME, Access::ReadWrite).is_err());
    }
    // A descriptor of another entry, or none; a file that was cut.
    assert!(finding(opened(|entry| put(entry, 64 + 24, &[9]))).contains("another entry"));
    assert!(finding(opened(|entry| put(entry, 64, b"xxxx"))).contains("descriptor 0 is none"));
    assert!(finding(opened(|entry| put(entry, 48, &[0xff; 4]))).contains("it was cut"));
    // More sectors than it has.
    assert!(finding(opened(|entry| put(entry, 24, &[9]))).contains("descriptor 1"));
}

#[test]
fn entry_of_zeros_is_replayed() {
    let bat = 3 * MIB;
    let folder = with_entry(|entry| {
        put(entry, 64, b"zero\0\0\0\0");
        put(entry, 72, &4096_u64.to_le_bytes());
        put(entry, 80, &bat.to_le_bytes());
    });
    assert!(content(&folder).iter().all(|byte| *byte == 0));
    drop(open(&folder, NAME, Access::ReadWrite).unwrap());
    assert_eq!(structure(&folder).n_replayed, None);
    assert!(content(&folder).iter().all(|byte| *byte == 0));
}

#[test]
fn torn_entry_counts_for_nothing() {
    let (folder, _) = dirty().swap_remove(0);
    let file = folder.file(NAME).unwrap();
    let log = Headers::read(&*file).unwrap().current.log_offset;
    for place in 0..3 {
        file.write_at(log + place * 85 * 4096 + 5000, &[0xcc])
            .unwrap();
    }
    let structure = structure(&folder);
    assert_eq!(structure.n_replayed, Some(0));
    assert!(open(&folder, NAME, Access::ReadWrite).is_ok());
}

#[test]
fn one_torn_header_falls_back_to_the_other() {
    let (folder, content) = image("dynamic");
    for offset in HEADER_OFFSETS {
        let folder = folder.copy();
        let file = folder.file(NAME).unwrap();
        file.write_at(offset + 100, &[1]).unwrap();
        assert!(self::content(&folder) == content);
        assert_eq!(check(&folder).n_oddities, 1);
        // Writing goes on with the one that is left.
        let headers = Headers::read(&*file).unwrap();
        let mut journal = Journal::new(file.clone(), &headers).unwrap();
        journal.rewrite().unwrap();
        assert_eq!(check(&folder).worst(), None);
    }
}
