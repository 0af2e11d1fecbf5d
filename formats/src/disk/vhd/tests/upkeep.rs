//! Upkeep, each verb cut off at every write.

use std::collections::BTreeMap;

use hako_block::testkit::{FaultFolder, Rng, cut_images};
use hako_block::{Access, Cancel, Error, ErrorKind, ExtentKind, NoProgress, Result, Uuid, is_zero};

use super::{Vhd, args, byte, create, dynamic, file, kinds, open, options, parent, patch};
use crate::disk::{CreateOptions, DiskFormat, Repair, Settings, Severity, Task};

const MIB: u64 = 1 << 20;
/// Bytes of the disks made here.
const SIZE: u64 = 20 * MIB;

/// What a disk holds: its size, and the pieces of 512 bytes that are not zeros.
#[derive(Debug, Clone, PartialEq)]
struct Content {
    size: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    /// Returns what is there after a change of the size.
    fn resized(mut self, size: u64) -> Self {
        self.size = size;
        self.pieces.retain(|offset, _| *offset < size);
        self
    }
}

fn disk(folder: &FaultFolder) -> Result<Content> {
    let image = open(folder, Access::ReadOnly)?;
    let size = image.info().virtual_size;
    let mut pieces = BTreeMap::new();
    let mut offset = 0;
    while offset < size {
        let extent = image.next_extent(offset)?;
        offset = extent.end();
        if extent.kind != ExtentKind::Data {
            continue;
        }
        let mut bytes = vec![0; extent.len as usize];
        image.read_at(extent.offset, &mut bytes)?;
        for (at, piece) in (extent.offset..).step_by(512).zip(bytes.chunks(512)) {
            if !is_zero(piece) {
                pieces.insert(at, piece.to_vec());
            }
        }
    }
    Ok(Content { size, pieces })
}

/// Runs a verb, then looks at what a cut at every write of it may leave: the old disk, the new
/// one, or one that is refused and that a repair makes the one or the other; and the verb can be
/// run again.
fn cut_everywhere(folder: &FaultFolder, verb: impl Fn(&FaultFolder) -> Result<()>) {
    let old = disk(folder).unwrap();
    let (before, numbers) = (folder.files(), folder.numbers());
    folder.take_log();
    verb(folder).unwrap();
    let log = folder.take_log();
    let new = disk(folder).unwrap();
    let found = kinds(folder);
    let all_odd = found.iter().all(|(kind, _)| *kind == Severity::Oddity);
    assert!(all_odd, "{found:?}");
    let mut n = 0;
    cut_images(&before, &numbers, &log, 6, &mut Rng::new(3), |cut| {
        let what = format!("cut after {} operations, lost: {}", cut.n_ops, cut.lost);
        n += 1;
        let sound = match disk(&cut.folder) {
            Ok(got) => Some(got),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                assert!(error.hint_text().is_some(), "{what}: {error}");
                None
            }
        };
        if let Some(got) = &sound {
            assert!(*got == old || *got == new, "{what}");
            let findings = kinds(&cut.folder);
            assert!(
                findings
                    .iter()
                    .all(|(kind, _)| *kind != Severity::Corruption),
                "{what}: {findings:?}"
            );
        }
        if sound.is_none() || n % 4 == 0 {
            repair(&cut.folder, Repair::All);
            // What a smaller disk has lost is not for a repair to throw away.
            let lost = |text: &str| text.contains("beyond the end of the disk");
            let findings = kinds(&cut.folder);
            assert!(
                findings.iter().all(|(_, text)| lost(text)),
                "{what}: {findings:?}"
            );
            let got = disk(&cut.folder).unwrap();
            assert!(got == old || got == new, "{what}, repaired");
            verb(&cut.folder).unwrap();
            assert!(disk(&cut.folder).unwrap() == new, "{what}, again");
        }
    });
    assert!(n > 0);
}

fn repair(folder: &FaultFolder, what: Repair) -> Vec<String> {
    Vhd.repair(args(folder, Access::ReadWrite), what).unwrap()
}

fn resize(folder: &FaultFolder, size: u64) -> Result<()> {
    Vhd.resize(args(folder, Access::ReadWrite), size)
}

fn compact(folder: &FaultFolder) -> Result<()> {
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    Vhd.compact(args(folder, Access::ReadWrite), task)
}

fn fixed() -> FaultFolder {
    let folder = FaultFolder::default();
    let data = [(0, 5), (MIB, 6), (4 * MIB - 4096, 7)];
    create(&folder, options("fixed"), 4 * MIB, None, &data).unwrap();
    folder
}

fn overlay() -> FaultFolder {
    let folder = FaultFolder::default();
    let data = [(2 * MIB, 7), (2 * MIB + 8192, 8)];
    let options = CreateOptions::default();
    create(&folder, options, SIZE, Some(parent()), &data).unwrap();
    folder
}

#[test]
fn a_fixed_disk_grows_and_shrinks() {
    for size in [6 * MIB, 4 * MIB + 512, 2 * MIB, 4 * MIB - 512, 4 * MIB] {
        let folder = fixed();
        cut_everywhere(&folder, |folder| resize(folder, size));
        let got = disk(&folder).unwrap();
        let expected = disk(&fixed()).unwrap().resized(size);
        assert!(got == expected, "{size}");
        assert_eq!(file(&folder).len_bytes().unwrap(), size + 512);
    }
}

#[test]
fn a_fixed_disk_with_an_old_footer_grows() {
    let folder = fixed();
    file(&folder).set_len(4 * MIB + 511).unwrap();
    cut_everywhere(&folder, |folder| resize(folder, 5 * MIB));
    assert_eq!(file(&folder).len_bytes().unwrap(), 5 * MIB + 512);
}

#[test]
fn a_dynamic_disk_grows_in_its_table_and_beyond() {
    let data = [(0, 5), (4 * MIB, 6), (SIZE - 4096, 7)];
    // Ten blocks: room for 128 entries in the sector of the table.
    for size in [22 * MIB, SIZE + 512, 256 * MIB, 300 * MIB] {
        let folder = dynamic(&data);
        cut_everywhere(&folder, |folder| resize(folder, size));
        let expected = disk(&dynamic(&data)).unwrap().resized(size);
        assert!(disk(&folder).unwrap() == expected, "{size}");
        assert_eq!(kinds(&folder), []);
        let image = open(&folder, Access::ReadWrite).unwrap();
        image.write_at(size - 512, &[9; 512]).unwrap();
        image.flush().unwrap();
        assert_eq!(byte(&*image, size - 1), 9);
    }
}

#[test]
fn a_table_grows_to_the_largest_disk() {
    let folder = dynamic(&[(4 * MIB, 6)]);
    resize(&folder, 2040 << 30).unwrap();
    let image = open(&folder, Access::ReadOnly).unwrap();
    assert_eq!(image.info().virtual_size, 2040 << 30);
    assert_eq!(byte(&*image, 4 * MIB), 6);
    assert_eq!(kinds(&folder), []);
    assert!(resize(&folder, (2040 << 30) + 512).is_err());
}

#[test]
fn a_dynamic_disk_shrinks_and_what_it_lost_does_not_come_back() {
    let data = [(0, 5), (4 * MIB, 6), (5 * MIB, 7), (SIZE - 4096, 8)];
    let folder = dynamic(&data);
    cut_everywhere(&folder, |folder| resize(folder, 5 * MIB));
    assert_eq!(kinds(&folder), []);
    cut_everywhere(&folder, |folder| resize(folder, SIZE));
    let expected = disk(&dynamic(&data)).unwrap();
    assert!(disk(&folder).unwrap() == expected.resized(5 * MIB).resized(SIZE));
}

#[test]
fn an_overlay_grows_and_stays_one() {
    let folder = overlay();
    cut_everywhere(&folder, |folder| resize(folder, 300 * MIB));
    let image = open(&folder, Access::ReadOnly).unwrap();
    assert_eq!(image.info().parent, Some(parent()));
    assert_eq!(byte(&*image, 2 * MIB + 8192), 8);
}

#[test]
fn blocks_of_zeros_and_gaps_are_given_back() {
    let data: Vec<_> = (0..8).map(|n| (n * 2 * MIB, n as u8 % 3)).collect();
    let folder = dynamic(&data);
    let image = open(&folder, Access::ReadWrite).unwrap();
    image.discard(2 * MIB..4 * MIB).unwrap();
    image.flush().unwrap();
    drop(image);
    let len = file(&folder).len_bytes().unwrap();
    cut_everywhere(&folder, compact);
    assert_eq!(kinds(&folder), []);
    // Of eight blocks three held zeros, and one was given up before.
    let now = file(&folder).len_bytes().unwrap();
    assert!(now <= len - 4 * 2 * MIB, "{len} {now}");
    let mut footer = [0; 8];
    file(&folder).read_at(now - 512, &mut footer).unwrap();
    assert_eq!(footer, *b"conectix");
}

#[test]
fn a_disk_whose_table_went_behind_its_blocks_is_compacted() {
    // Blocks 4096 bytes apart: the grown table begins in what the last one leaves free.
    let data: Vec<_> = (0..8).map(|n| (n * 2 * MIB, n as u8 % 3)).collect();
    let folder = dynamic(&data);
    let expected = disk(&folder).unwrap();
    cut_everywhere(&folder, |folder| resize(folder, 300 * MIB));
    cut_everywhere(&folder, compact);
    assert_eq!(kinds(&folder), []);
    assert!(disk(&folder).unwrap() == expected.resized(300 * MIB));
    // Five blocks of eight, 4096 bytes apart, the table, the footer.
    let len = |folder: &FaultFolder| file(folder).len_bytes().unwrap();
    let compacted = len(&folder);
    assert!(compacted < 5 * (2 * MIB + 4096) + 16384, "{compacted}");

    // Now the table lies between blocks.
    let image = open(&folder, Access::ReadWrite).unwrap();
    for n in 20..26 {
        image.write_at(n * 2 * MIB, &[9; 512]).unwrap();
    }
    image.discard(2 * MIB..6 * MIB).unwrap();
    image.discard(42 * MIB..48 * MIB).unwrap();
    image.flush().unwrap();
    drop(image);
    let expected = disk(&folder).unwrap();
    cut_everywhere(&folder, compact);
    assert_eq!(kinds(&folder), []);
    assert!(disk(&folder).unwrap() == expected);
    assert!(len(&folder) < 8 * (2 * MIB + 4096), "{}", len(&folder));
    folder.take_log();
    compact(&folder).unwrap();
    assert!(folder.take_log().is_empty(), "nothing is left to do");
}

#[test]
fn zeros_in_an_overlay_stay() {
    let folder = overlay();
    let image = open(&folder, Access::ReadWrite).unwrap();
    image.write_zeroes(8 * MIB..10 * MIB).unwrap();
    image.flush().unwrap();
    drop(image);
    cut_everywhere(&folder, compact);
    let image = open(&folder, Access::ReadOnly).unwrap();
    assert_ne!(image.next_extent(8 * MIB).unwrap().kind, ExtentKind::Hole);
}

#[test]
fn the_unique_id_is_set() {
    let uuid = Uuid([0x42; 16]);
    let settings = Settings {
        uuid: Some(uuid),
        ..Settings::default()
    };
    for folder in [fixed(), dynamic(&[(0, 1)]), overlay()] {
        cut_everywhere(&folder, |folder| {
            Vhd.set(args(folder, Access::ReadWrite), &settings)
        });
        let image = open(&folder, Access::ReadOnly).unwrap();
        assert_eq!(image.info().identity, Some(uuid));
    }
    let comment = Settings {
        comment: Some("x".to_owned()),
        ..Settings::default()
    };
    let refused = Vhd.set(args(&fixed(), Access::ReadWrite), &comment);
    assert_eq!(
        refused.err().map(|error: Error| error.kind()),
        Some(ErrorKind::Unsupported)
    );
}

#[test]
fn an_overlay_gets_another_parent_or_none() {
    let mut other = parent();
    other.name = "elsewhere/a longer name than before.vhd".to_owned();
    other.identity = Some(Uuid([3; 16]));
    let folder = overlay();
    cut_everywhere(&folder, |folder| {
        Vhd.relink(args(folder, Access::ReadWrite), Some(&other))
    });
    let link = open(&folder, Access::ReadOnly)
        .unwrap()
        .info()
        .parent
        .clone();
    let link = link.unwrap();
    assert_eq!(
        (link.name, link.identity),
        (other.name.clone(), other.identity)
    );
    cut_everywhere(&folder, |folder| {
        Vhd.relink(args(folder, Access::ReadWrite), None)
    });
    let image = open(&folder, Access::ReadOnly).unwrap();
    assert_eq!(image.info().parent, None);
    assert_eq!(image.info().subformat.as_deref(), Some("dynamic"));
    drop(image);
    Vhd.relink(args(&folder, Access::ReadWrite), Some(&other))
        .unwrap();
    // What was stored stays stored.
    let image = open(&folder, Access::ReadOnly).unwrap();
    let extent = image.next_extent(2 * MIB).unwrap();
    assert_ne!(extent.kind, ExtentKind::Hole);
    assert_eq!(byte(&*image, 2 * MIB + 8192), 8);
    assert!(
        Vhd.relink(args(&fixed(), Access::ReadWrite), Some(&other))
            .is_err()
    );
}

#[test]
fn what_was_never_seen_does_not_show_without_the_parent() {
    let folder = overlay();
    let image = open(&folder, Access::ReadOnly).unwrap();
    let host = image.next_extent(2 * MIB).unwrap().host.unwrap().offset;
    drop(image);
    patch(&folder, host + 4096, &[0xdd; 4096]);
    let before = disk(&folder).unwrap();
    Vhd.relink(args(&folder, Access::ReadWrite), None).unwrap();
    assert!(disk(&folder).unwrap() == before);
}

#[test]
fn damaged_records_are_repaired_and_nothing_else() {
    let sound = dynamic(&[(0, 5), (4 * MIB, 6)]);
    let content = disk(&sound).unwrap();
    let len = file(&sound).len_bytes().unwrap();
    // Front copy, header, footer; a byte of the checksum, or one that nobody needs.
    for places in [
        &[65][..],
        &[300],
        &[512 + 37],
        &[512 + 900],
        &[len - 512 + 66],
        &[65, len - 512 + 66],
        &[66, 512 + 38],
    ] {
        let folder = sound.copy();
        for place in places {
            let mut old = [0];
            file(&folder).read_at(*place, &mut old).unwrap();
            patch(&folder, *place, &[old[0] ^ 1]);
        }
        assert!(!kinds(&folder).is_empty(), "{places:?}");
        let before = folder.files();
        let leaks = Vhd.repair(args(&folder, Access::ReadWrite), Repair::Leaks);
        assert!(leaks.is_err() || leaks.is_ok_and(|done| done.is_empty()));
        assert!(folder.files() == before, "{places:?}");
        assert!(!repair(&folder, Repair::All).is_empty(), "{places:?}");
        assert_eq!(kinds(&folder), [], "{places:?}");
        assert!(disk(&folder).unwrap() == content, "{places:?}");
        assert_eq!(repair(&folder, Repair::All), Vec::<String>::new());
        assert_eq!(file(&folder).len_bytes().unwrap(), len, "{places:?}");
    }
    let folder = fixed();
    patch(&folder, 4 * MIB + 66, &[0xab]);
    assert!(disk(&folder).is_err());
    assert_eq!(repair(&folder, Repair::All).len(), 1);
    assert_eq!(kinds(&folder), []);
}

#[test]
fn a_size_that_does_not_fit_is_not_repaired() {
    let folder = fixed();
    patch(&folder, 4 * MIB + 48 + 6, &[0x01]);
    assert_eq!(repair(&folder, Repair::All), Vec::<String>::new());
    assert!(disk(&folder).is_err());
    let folder = dynamic(&[(0, 5), (4 * MIB, 6)]);
    patch(&folder, 1536, &0x7fff_0000_u32.to_be_bytes());
    let before = folder.files();
    assert_eq!(repair(&folder, Repair::All), Vec::<String>::new());
    assert!(
        folder.files() == before,
        "a leak may be what an entry should name"
    );
}

#[test]
fn leaks_are_given_back() {
    let folder = dynamic(&[(0, 5), (4 * MIB, 6), (8 * MIB, 7)]);
    // The middle block, then the last.
    for at in [1536 + 2 * 4, 1536 + 4 * 4] {
        let mut host = [0; 4];
        file(&folder).read_at(at, &mut host).unwrap();
        assert_ne!(host, [0xff; 4]);
        patch(&folder, at, &[0xff; 4]);
        assert_eq!(kinds(&folder).len(), 1, "{:?}", kinds(&folder));
        cut_everywhere(&folder, |folder| {
            Vhd.repair(args(folder, Access::ReadWrite), Repair::Leaks)
                .map(|_| ())
        });
        assert_eq!(kinds(&folder), []);
    }
    let len = file(&folder).len_bytes().unwrap();
    assert!(len < 3 * MIB, "{len}");
}
