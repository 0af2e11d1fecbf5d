//! Damaged, hostile and odd extents: what is read all the same, what is refused, what a check says.

use std::sync::Arc;
use std::time::Instant;

use hako_block::testkit::{FaultFolder, Op, Rng};
use hako_block::{
    Access, BlockImage, ErrorKind, Extent, ExtentKind, FileStorage, MemoryStorage, Outputs, Result,
    Sink, Storage,
};

use super::tests::{GRAIN, args, create, descriptor};
use super::{HostedCreate, HostedSink, check, open};
use crate::disk::{Allocation, Findings, Severity};

/// The layout of a disk of 10 MiB, in bytes.
const RGD: u64 = 21 * 512;
const RGT: u64 = 22 * 512;
const GD: u64 = 26 * 512;
const GT: u64 = 27 * 512;
const CAPACITY: u64 = 10 << 20;

/// A disk of 10 MiB with grains 0, 1, 4 and the last; grain n holds bytes n + 1.
fn disk() -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
    let mut sink = Box::new(HostedSink::new(create(storage.clone(), CAPACITY)).unwrap());
    for grain in [0, 1, 4, 159] {
        let bytes = [grain as u8 + 1; GRAIN as usize];
        sink.data(grain * GRAIN, &bytes).unwrap();
    }
    sink.finish().unwrap();
    storage
}

fn put(storage: &dyn Storage, offset: u64, number: u32) {
    storage.write_at(offset, &number.to_le_bytes()).unwrap();
}

fn get(storage: &dyn Storage, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    storage.read_at(offset, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

fn reader(storage: &Arc<MemoryStorage>) -> Result<Box<dyn BlockImage>> {
    open(args(storage.clone(), Access::ReadOnly, false)?)
}

fn writer(storage: &Arc<MemoryStorage>) -> Result<Box<dyn BlockImage>> {
    open(args(storage.clone(), Access::ReadWrite, false)?)
}

fn byte(image: &dyn BlockImage, offset: u64) -> Result<u8> {
    let mut byte = [0xee];
    image.read_at(offset, &mut byte).map(|()| byte[0])
}

fn findings(storage: &Arc<MemoryStorage>) -> Findings {
    let mut findings = Findings::default();
    let args = args(storage.clone(), Access::ReadOnly, false).unwrap();
    check(args, &mut findings).unwrap();
    findings
}

/// Panics unless there is exactly one finding, of that severity and with that text.
fn assert_finds(storage: &Arc<MemoryStorage>, severity: Severity, text: &str) {
    let findings = findings(storage);
    assert_eq!(findings.list.len(), 1, "{:#?}", findings.list);
    let finding = &findings.list[0];
    assert_eq!(finding.severity, severity, "{finding:?}");
    assert!(
        finding.text.contains(text),
        "{:?} lacks {text:?}",
        finding.text
    );
}

#[test]
fn sound_disk_has_no_findings() {
    let storage = disk();
    let findings = findings(&storage);
    assert!(findings.list.is_empty(), "{:#?}", findings.list);
    assert_eq!((findings.n_units, findings.n_allocated_units), (160, 4));
    let image = reader(&storage).unwrap();
    assert!(image.info().oddities.is_empty());
    let extent = image.next_extent(0).unwrap();
    assert_eq!(
        (extent.len, extent.host.unwrap().offset),
        (2 * GRAIN, 128 * 512)
    );
    let hole = image.next_extent(2 * GRAIN).unwrap();
    assert_eq!(hole, Extent::new(2 * GRAIN, 2 * GRAIN, ExtentKind::Hole));
}

#[test]
fn redundant_directory_is_used_when_the_first_is_bad() {
    let sector_fields: [(u64, u32); 3] = [(56, 0), (56, 5), (56, 0x7fff_0000)];
    for (offset, value) in sector_fields {
        let storage = disk();
        put(&*storage, offset, value);
        let image = reader(&storage).unwrap();
        assert_eq!(byte(&*image, 4 * GRAIN).unwrap(), 5);
        let oddity = image.info().oddities.join("\n");
        assert!(oddity.contains("grain directory: sector"), "{oddity}");
        let error = writer(&storage).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.hint_text().is_some());
        assert_eq!(findings(&storage).n_corruptions, 1);
    }
}

#[test]
fn redundant_entry_is_used_when_the_first_is_bad_or_missing() {
    for bad in [0x7000_0000, 1, 26] {
        let storage = disk();
        put(&*storage, GD, bad);
        let image = reader(&storage).unwrap();
        assert_eq!(byte(&*image, 0).unwrap(), 1);
        let oddity = image.info().oddities.join("\n");
        assert!(
            oddity.contains("grain directory, entry 0: sector"),
            "{oddity}"
        );
        assert!(writer(&storage).is_err());
        assert_eq!(findings(&storage).n_corruptions, 1);
    }
    let storage = disk();
    put(&*storage, GD, 0);
    assert_eq!(byte(&*reader(&storage).unwrap(), 0).unwrap(), 1);
    let says = "redundant grain directory, entry 0: sector 22, but the grain directory says 0";
    assert!(
        findings(&storage)
            .list
            .iter()
            .any(|found| found.text == says)
    );
}

#[test]
fn redundant_table_is_used_when_the_first_is_bad_but_not_after_an_unclean_shutdown() {
    let storage = disk();
    storage.write_at(GT, &[0xa5; 2048]).unwrap();
    assert_eq!(byte(&*reader(&storage).unwrap(), GRAIN).unwrap(), 2);
    assert!(findings(&storage).n_corruptions > 0);
    storage.write_at(72, &[1]).unwrap();
    let image = reader(&storage).unwrap();
    assert!(image.info().oddities[0].contains("unclean"));
    assert!(byte(&*image, GRAIN).is_err());
}

#[test]
fn bad_entry_is_named_with_its_place() {
    let storage = disk();
    let last_sector = storage.len_bytes().unwrap() / 512;
    for table in [GT, RGT] {
        put(&*storage, table + 4, 9_000_000);
    }
    let image = reader(&storage).unwrap();
    assert_eq!(byte(&*image, 0).unwrap(), 1);
    let error = byte(&*image, GRAIN).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "disk.vmdk: grain table 0, entry 1: sector 9000000 past end of file ({last_sector} sectors) (byte {:#x})",
            GT + 4
        )
    );
    let writer = writer(&storage).unwrap();
    assert!(writer.write_at(GRAIN, &[1; 512]).is_err());
    for bad in [1, 2, 127] {
        for table in [GT, RGT] {
            put(&*storage, table + 4, bad);
        }
        let error = byte(&*reader(&storage).unwrap(), GRAIN)
            .unwrap_err()
            .to_string();
        assert!(error.contains("before the first grain"), "{error}");
    }
}

#[test]
fn last_grain_may_be_short_in_the_file_and_no_other() {
    let capacity = CAPACITY - 3 * 512;
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
    let mut sink = Box::new(HostedSink::new(create(storage.clone(), capacity)).unwrap());
    sink.data(0, &[7; GRAIN as usize]).unwrap();
    sink.data(159 * GRAIN, &[8; GRAIN as usize - 3 * 512])
        .unwrap();
    sink.finish().unwrap();
    let len = storage.len_bytes().unwrap();
    storage.set_len(len - 3 * 512).unwrap();
    assert_eq!(byte(&*reader(&storage).unwrap(), capacity - 1).unwrap(), 8);
    let image = writer(&storage).unwrap();
    image.write_at(capacity - 1, &[9]).unwrap();
    image.write_at(GRAIN, &[6; 100]).unwrap();
    image.flush().unwrap();
    assert_eq!(byte(&*reader(&storage).unwrap(), capacity - 1).unwrap(), 9);
    assert!(findings(&storage).list.is_empty());

    let storage = disk();
    let len = storage.len_bytes().unwrap();
    storage.set_len(len - 512).unwrap();
    assert!(byte(&*reader(&storage).unwrap(), CAPACITY - 1).is_err());
    assert_eq!(findings(&storage).n_corruptions, 1);
}

#[test]
fn grain_used_twice_is_found() {
    let storage = disk();
    for table in [GT, RGT] {
        put(&*storage, table + 8, 128);
    }
    assert_finds(
        &storage,
        Severity::Corruption,
        "entry 2: sector 128 is used already",
    );
}

#[test]
fn grain_over_another_out_of_line_is_found() {
    let storage = disk();
    for table in [GT, RGT] {
        put(&*storage, table + 8, 130);
    }
    let found = findings(&storage);
    assert_eq!(
        (found.n_corruptions, found.n_oddities),
        (1, 1),
        "{:#?}",
        found.list
    );
    // Out of line, but where nothing else is.
    let end = storage.len_bytes().unwrap();
    storage.set_len(end + GRAIN + 1024).unwrap();
    for table in [GT, RGT] {
        put(&*storage, table + 8, (end / 512) as u32 + 2);
    }
    let found = findings(&storage);
    assert_eq!(
        (found.n_corruptions, found.n_leaks),
        (0, 0),
        "{:#?}",
        found.list
    );
}

#[test]
fn space_that_nothing_uses_is_a_leak() {
    let storage = disk();
    for table in [GT, RGT] {
        put(&*storage, table + 4, 0);
    }
    assert_finds(
        &storage,
        Severity::Leak,
        "65536 bytes at sector 256 are used by nothing",
    );
    assert_eq!(findings(&storage).leaked_bytes, GRAIN);
}

#[test]
fn copies_that_differ_are_told() {
    let storage = disk();
    put(&*storage, RGT + 12, 5);
    assert_finds(
        &storage,
        Severity::Oddity,
        "redundant grain table 0, entry 3: 5, but the grain table says 0 (1 entries differ)",
    );
}

#[test]
fn tables_that_overlap_are_found_and_not_written() {
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
    let sink = HostedSink::new(create(storage.clone(), 64 << 20)).unwrap();
    Box::new(sink).finish().unwrap();
    let gd = 512 * u64::from(get(&*storage, 56));
    let second = get(&*storage, gd + 4);
    for overlapping in [second - 4, second - 3] {
        put(&*storage, gd + 4, overlapping);
        assert!(writer(&storage).is_err());
        assert!(reader(&storage).is_ok());
        assert_eq!(findings(&storage).n_corruptions, 1);
    }
}

#[test]
fn hostile_headers_are_refused_without_large_buffers() {
    // Field offset, value, what the error names.
    let fields: [(u64, u64, &str); 4] = [
        (12, 0, "capacity of 0"),
        (12, u64::MAX / 4096, "grain tables"),
        (56, u64::MAX - 7, "past end of file"),
        (64, u64::MAX, "overhead"),
    ];
    for (offset, value, names) in fields {
        let storage = disk();
        storage.write_at(8, &1u32.to_le_bytes()).unwrap();
        storage.write_at(offset, &value.to_le_bytes()).unwrap();
        let error = reader(&storage).err().unwrap().to_string();
        assert!(error.contains(names), "{error}");
    }
}

#[test]
fn random_damage_neither_panics_nor_hangs() {
    let original = disk().to_vec();
    let mut rng = Rng::new(7);
    for _ in 0..400 {
        let mut bytes = original.clone();
        for _ in 0..rng.below(1..6) {
            let at = match rng.below(0..3) {
                0 => rng.below(4..80),
                1 => rng.below(RGD..RGT + 64),
                _ => rng.below(GD..GT + 64),
            };
            bytes[at as usize] = rng.next_u64() as u8;
        }
        bytes.truncate(rng.below(512..original.len() as u64 * 2) as usize);
        let storage = Arc::new(MemoryStorage::new("disk.vmdk", bytes));
        let Ok(args) = args(storage.clone(), Access::ReadWrite, rng.one_in(2)) else {
            continue;
        };
        let _ = check(args.clone(), &mut Findings::default());
        let Ok(image) = open(args) else { continue };
        walk(&*image);
        let size = image.info().virtual_size;
        for _ in 0..20 {
            let offset = rng.below(0..size);
            let len = rng.below(1..200_000).min(size - offset) as usize;
            let _ = image.read_at(offset, &mut vec![0; len]);
            let _ = image.write_at(offset, &vec![1; len]);
            let _ = image.write_zeroes(offset..offset + len as u64);
            let _ = image.discard(offset..offset + len as u64);
        }
        let _ = image.flush();
    }
}

fn walk(image: &dyn BlockImage) -> u64 {
    let (mut offset, mut n_extents) = (0, 0);
    while offset < image.info().virtual_size {
        match image.next_extent(offset) {
            Ok(extent) => offset = extent.end(),
            Err(_) => offset += image.info().unit_bytes,
        }
        n_extents += 1;
        if n_extents > 10_000 {
            break;
        }
    }
    n_extents
}

#[test]
fn empty_disk_of_two_tebibytes_costs_its_directories() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let storage = Arc::new(FileStorage::from_file(file, &path, true).unwrap());
    let capacity = (2 << 40) - (300 << 20);
    let start = Instant::now();
    let sink = HostedSink::new(create(storage.clone(), capacity)).unwrap();
    Box::new(sink).finish().unwrap();
    let image = open(args(storage.clone(), Access::ReadOnly, false).unwrap()).unwrap();
    assert_eq!(walk(&*image), 1);
    let mut found = Findings::default();
    let args = args(storage.clone(), Access::ReadOnly, false).unwrap();
    check(args, &mut found).unwrap();
    assert!(found.list.is_empty(), "{:#?}", found.list);
    assert!(storage.allocated_bytes().unwrap() < 1 << 20);
    // Unoptimised, on a busy machine; tests/bench measures it properly.
    assert!(start.elapsed().as_secs() < 5, "took {:?}", start.elapsed());
}

#[test]
fn each_delivery_is_one_write() {
    let folder = FaultFolder::default();
    let storage = folder.create("disk.vmdk").unwrap();
    let mut sink = Box::new(HostedSink::new(create(storage, 1 << 30)).unwrap());
    folder.take_log();
    let piece = vec![3; 1 << 20];
    for n in 0..64 {
        sink.data(n << 20, &piece).unwrap();
    }
    let writes = folder.take_log().into_iter().filter_map(|op| match op {
        Op::Write { bytes, .. } => Some(bytes.len()),
        _ => None,
    });
    let writes: Vec<usize> = writes.collect();
    assert_eq!(writes.iter().filter(|len| **len == 1 << 20).count(), 64);
    // Two copies of the table that was left behind after 32 MiB.
    assert_eq!(writes.len(), 66);
}

#[test]
fn sink_leaves_nothing_of_what_was_there() {
    let old = vec![0xff; 20 << 20];
    for allocation in [Allocation::Thin, Allocation::Lazy, Allocation::Eager] {
        let storage = Arc::new(MemoryStorage::new("disk.vmdk", old.clone()));
        let create = HostedCreate {
            allocation,
            ..create(storage.clone(), CAPACITY)
        };
        let mut sink = Box::new(HostedSink::new(create).unwrap());
        sink.data(2 * GRAIN, &[5; 2 * GRAIN as usize]).unwrap();
        sink.zero(6 * GRAIN..8 * GRAIN).unwrap();
        sink.finish().unwrap();
        let mut bytes = vec![1; CAPACITY as usize];
        reader(&storage).unwrap().read_at(0, &mut bytes).unwrap();
        for (at, grain) in bytes.chunks(GRAIN as usize).enumerate() {
            let expected = if (2..4).contains(&at) { 5 } else { 0 };
            assert!(grain.iter().all(|byte| *byte == expected), "grain {at}");
        }
        let found = findings(&storage);
        assert!(found.list.is_empty(), "{:#?}", found.list);
        let n_stored = if allocation == Allocation::Thin {
            2
        } else {
            160
        };
        assert_eq!(found.n_allocated_units, n_stored);
    }
}

#[test]
fn what_the_sink_cannot_take_is_refused() {
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
    let mut sink = HostedSink::new(create(storage.clone(), CAPACITY)).unwrap();
    assert!(sink.data(512, &[0; 512]).is_err());
    assert!(sink.data(0, &[0; 512]).is_err());
    assert!(sink.data(CAPACITY, &[0; GRAIN as usize]).is_err());
    sink.data(GRAIN, &[1; GRAIN as usize]).unwrap();
    assert!(sink.data(0, &[0; GRAIN as usize]).is_err());
    let long = HostedCreate {
        descriptor: Some(vec![b' '; 20 * 512 + 1]),
        ..create(storage, CAPACITY)
    };
    assert!(HostedSink::new(long).is_err());
    assert!(descriptor(CAPACITY).len() < 20 * 512);
}

#[test]
fn unclean_flag_is_set_from_the_first_allocation_to_the_flush() {
    let storage = disk();
    let flag = || {
        let mut byte = [9];
        storage.read_at(72, &mut byte).unwrap();
        byte[0]
    };
    let image = writer(&storage).unwrap();
    image.write_at(0, &[1; 512]).unwrap();
    assert_eq!(flag(), 0, "an overwrite changes no structure");
    image.write_at(2 * GRAIN, &[1; 512]).unwrap();
    assert_eq!(flag(), 1);
    image.flush().unwrap();
    assert_eq!(flag(), 0);
    image.discard(0..GRAIN).unwrap();
    assert_eq!(flag(), 1);
    image.flush().unwrap();
    assert_eq!(flag(), 0);
}

#[test]
fn freed_grains_are_used_again_after_a_flush() {
    let storage = disk();
    let image = writer(&storage).unwrap();
    let len = storage.len_bytes().unwrap();
    image.write_zeroes(0..2 * GRAIN).unwrap();
    image.write_at(8 * GRAIN, &[9; 100]).unwrap();
    assert_eq!(
        storage.len_bytes().unwrap(),
        len + GRAIN,
        "not before the flush"
    );
    image.flush().unwrap();
    image
        .write_at(9 * GRAIN + 5, &[9; 2 * GRAIN as usize - 10])
        .unwrap();
    image.flush().unwrap();
    assert_eq!(storage.len_bytes().unwrap(), len + GRAIN);
    assert_eq!(byte(&*image, 9 * GRAIN + 4).unwrap(), 0);
    assert_eq!(byte(&*image, 11 * GRAIN - 1).unwrap(), 0);
    assert!(findings(&storage).list.is_empty());
}

#[test]
fn overlay_without_zeroed_grains_stores_zeros() {
    let storage = disk();
    let image = open(args(storage.clone(), Access::ReadWrite, true).unwrap()).unwrap();
    image.write_zeroes(GRAIN / 2..7 * GRAIN).unwrap();
    image.flush().unwrap();
    let image = reader(&storage).unwrap();
    let mut offset = 0;
    while offset < 7 * GRAIN {
        let extent = image.next_extent(offset).unwrap();
        assert_eq!(extent.kind, ExtentKind::Data, "{extent:?}");
        offset = extent.end();
    }
    assert_eq!(byte(&*image, GRAIN / 2 - 1).unwrap(), 1);
    assert_eq!(byte(&*image, GRAIN / 2).unwrap(), 0);
    assert_eq!(byte(&*image, 5 * GRAIN).unwrap(), 0);
}

#[test]
fn tables_that_are_not_there_are_made() {
    for (first, redundant) in [(0, 0), (27, 0), (0, 22)] {
        let storage = disk();
        storage.write_at(GT, &[0; 2048]).unwrap();
        storage.write_at(RGT, &[0; 2048]).unwrap();
        put(&*storage, GD, first);
        put(&*storage, RGD, redundant);
        let image = writer(&storage).unwrap();
        image.write_at(3 * GRAIN, &[4; 512]).unwrap();
        image.flush().unwrap();
        assert_eq!(byte(&*reader(&storage).unwrap(), 3 * GRAIN).unwrap(), 4);
        let found = findings(&storage);
        assert_eq!(
            (found.n_corruptions, found.n_oddities),
            (0, 0),
            "{:#?}",
            found.list
        );
        assert_ne!(get(&*storage, GD), 0);
        assert_ne!(get(&*storage, RGD), 0);
    }
}

#[test]
fn first_flush_after_an_unclean_shutdown_makes_the_copies_equal() {
    let storage = disk();
    storage.write_at(72, &[1]).unwrap();
    put(&*storage, RGT + 4, 0);
    let image = writer(&storage).unwrap();
    image.flush().unwrap();
    assert_eq!(findings(&storage).n_oddities, 2, "a flush of nothing");
    image.write_at(2 * GRAIN, &[3; 512]).unwrap();
    image.flush().unwrap();
    assert!(findings(&storage).list.is_empty());
    drop(image);
    // What cannot be right is left alone, and so is the flag.
    storage.write_at(72, &[1]).unwrap();
    put(&*storage, GT + 40, 5);
    let image = writer(&storage).unwrap();
    image.write_at(3 * GRAIN, &[3; 512]).unwrap();
    image.flush().unwrap();
    assert!(reader(&storage).unwrap().info().oddities[0].contains("unclean"));
}
