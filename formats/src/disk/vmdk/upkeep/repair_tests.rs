//! Damage that is mended, damage that is left, and space that is given back.

use hako_block::testkit::{FaultFolder, Rng, SparseBytes};
use hako_block::{Access, Cancel, NoProgress};

use super::testing::*;
use crate::disk::vmdk::Vmdk;
use crate::disk::{DiskFormat, Repair, Settings, Severity, Task};

const GRAIN: u64 = 65536;
/// The layout of a single-file disk of 10 MiB, in bytes.
const RGD: u64 = 21 * 512;
const RGT: u64 = 22 * 512;
const GD: u64 = 26 * 512;
const GT: u64 = 27 * 512;
const OVERHEAD: u64 = 128 * 512;
const FLAG: u64 = 72;
const DATA: &[(u64, u64)] = &[(0, 2 * GRAIN), (4 * GRAIN, 5 * GRAIN), (9 * MIB, 10 * MIB)];

fn disk() -> FaultFolder {
    create("monolithicSparse", 10 * MIB, None, DATA)
}

fn patch(folder: &FaultFolder, changes: &[(u64, &[u8])]) -> FaultFolder {
    let mut content = folder.files()[NAME].clone();
    for (offset, bytes) in changes {
        content.write(*offset, bytes);
    }
    FaultFolder::with_files([(NAME.to_owned(), content)])
}

fn file(folder: &FaultFolder) -> Vec<u8> {
    folder.files()[NAME].to_vec()
}

/// Repairs with cuts everywhere: whatever opens then has the right content.
fn repaired(damaged: &FaultFolder, what: Repair, whole: &FaultFolder) -> FaultFolder {
    let wanted = content(&*open(whole).unwrap());
    cuts(
        damaged,
        |folder| Vmdk.repair(args(folder), what).map(drop),
        |cut, done| match open(cut).and_then(|image| try_content(&*image)) {
            Ok(now) => assert!(now == wanted || !done),
            Err(error) => assert!(!done, "{error}"),
        },
    )
}

fn assert_all_mended(damaged: &FaultFolder, whole: &FaultFolder) -> FaultFolder {
    assert!(check(damaged).worst().is_some(), "it is damaged");
    let mended = repaired(damaged, Repair::All, whole);
    assert_flawless(&mended);
    assert_qemu_agrees(&mended);
    let again = mended.copy();
    let done = Vmdk.repair(args(&again), Repair::All).unwrap();
    assert_eq!(done, [""; 0], "nothing is left to do");
    assert_eq!(again.log_len(), 0);
    mended
}

fn assert_left(damaged: &FaultFolder, what: Repair, worst: Severity) {
    let before = damaged.files();
    let done = Vmdk.repair(args(damaged), what).unwrap();
    assert_eq!(done, [""; 0]);
    assert!(damaged.files() == before);
    assert_eq!(check(damaged).worst(), Some(worst));
}

#[test]
fn bad_entry_of_either_directory_is_restored_to_the_byte() {
    let whole = disk();
    for directory in [GD, RGD] {
        for bad in [0u32, 0x7fff_ffff, 3] {
            let damaged = patch(&whole, &[(directory, &bad.to_le_bytes())]);
            let mended = assert_all_mended(&damaged, &whole);
            assert!(file(&mended) == file(&whole), "{bad} at {directory}");
        }
    }
}

#[test]
fn table_whose_place_something_else_uses_gets_a_new_one() {
    let whole = disk();
    let in_a_grain = (OVERHEAD / 512 + 8) as u32;
    for (directory, bad) in [
        (GD, in_a_grain),
        (RGD, in_a_grain),
        (GD, (RGT / 512) as u32),
        (GD, (RGT / 512) as u32 + 2),
        (RGD, (GT / 512) as u32 - 1),
    ] {
        let damaged = patch(&whole, &[(directory, &bad.to_le_bytes())]);
        let mended = repaired(&damaged, Repair::All, &whole);
        assert!(file(&mended) == file(&whole), "{bad} at {directory}");
    }
    // Its copy was not intact either.
    let damaged = patch(
        &whole,
        &[(GD, &u32::MAX.to_le_bytes()), (GT, &[0xff; 2048])],
    );
    let mended = assert_all_mended(&damaged, &whole);
    assert!(mended.files()[NAME].len() > whole.files()[NAME].len());
}

#[test]
fn directory_that_the_header_has_lost_is_made_anew() {
    let whole = create("monolithicSparse", 200 * MIB, None, DATA);
    for field in [48, 56] {
        for bad in [u64::from(u32::MAX) / 2, 1] {
            let damaged = patch(&whole, &[(field, &bad.to_le_bytes())]);
            let mended = repaired(&damaged, Repair::All, &whole);
            assert_flawless(&mended);
            assert_qemu_agrees(&mended);
        }
    }
}

#[test]
fn sane_entry_wins_over_one_beyond_the_file() {
    let whole = disk();
    for table in [GT, RGT] {
        let bad: Vec<u8> = [0xffff_0000u32, 5, 0x1000_0000]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let damaged = patch(&whole, &[(table, &bad[..8]), (table + 16, &bad[8..])]);
        let mended = assert_all_mended(&damaged, &whole);
        assert!(file(&mended) == file(&whole));
    }
}

#[test]
fn redundant_hole_is_filled_and_a_hole_that_may_be_the_damage_is_told() {
    let whole = disk();
    let damaged = patch(&whole, &[(RGT, &[0; 2048])]);
    let mended = assert_all_mended(&damaged, &whole);
    assert!(file(&mended) == file(&whole));
    let unsure = patch(&whole, &[(GT, &[0; 8])]);
    for what in [Repair::All, Repair::Leaks] {
        assert_left(&unsure, what, Severity::Oddity);
    }
    let unsure = patch(&whole, &[(GT, &384u32.to_le_bytes())]);
    assert_left(&unsure, Repair::All, Severity::Corruption);
}

#[test]
fn entry_bad_in_both_copies_is_left() {
    let bad = &u32::MAX.to_le_bytes();
    let damaged = patch(&disk(), &[(GT, bad), (RGT, bad)]);
    assert_left(&damaged, Repair::All, Severity::Corruption);
}

#[test]
fn grain_used_twice_is_told_and_nothing_is_given_back() {
    let whole = disk();
    let same = &128u32.to_le_bytes();
    // The third grain names the first one's place; a fourth is used by nothing.
    let damaged = patch(
        &whole,
        &[
            (GT + 8, same),
            (RGT + 8, same),
            (GT + 16, &[0; 4]),
            (RGT + 16, &[0; 4]),
        ],
    );
    for what in [Repair::All, Repair::Leaks] {
        assert_left(&damaged, what, Severity::Corruption);
    }
}

#[test]
fn leaked_space_is_punched_and_cut() {
    let whole = disk();
    let len = whole.files()[NAME].len();
    let end = vec![0xaa; 3 * GRAIN as usize];
    // Grain 1 is given up, and something was written behind the last one.
    let lost = [0; 4];
    let leaky = patch(&whole, &[(GT + 4, &lost), (RGT + 4, &lost), (len, &end)]);
    assert_eq!(check(&leaky).leaked_bytes, 4 * GRAIN);
    let mended = repaired(&leaky, Repair::Leaks, &leaky);
    assert_flawless(&mended);
    assert_qemu_agrees(&mended);
    let content = &mended.files()[NAME];
    assert_eq!(content.len(), len);
    assert_eq!(content.run_at(OVERHEAD + GRAIN), (GRAIN, false));
}

#[test]
fn unclean_flag_is_cleared_after_a_clean_check_only() {
    let whole = disk();
    let unclean = patch(&whole, &[(FLAG, &[1]), (RGT, &[0; 2048])]);
    let mended = assert_all_mended(&unclean, &whole);
    assert!(file(&mended) == file(&whole));
    // After an unclean shutdown the first table counts, holes and all.
    let newer = patch(&whole, &[(FLAG, &[1]), (GT + 4, &[0; 4])]);
    let shown = patch(&whole, &[(GT + 4, &[0; 4]), (RGT + 4, &[0; 4])]);
    let mended = repaired(&newer, Repair::All, &shown);
    assert_flawless(&mended);
    let bad = &u32::MAX.to_le_bytes();
    let damaged = patch(&whole, &[(FLAG, &[1]), (GT, bad)]);
    assert_left(&damaged, Repair::All, Severity::Corruption);
}

#[test]
fn extents_of_a_split_disk_are_mended_by_name() {
    let whole = create("twoGbMaxExtentSparse", 10 * MIB, None, DATA);
    let damaged = whole.copy();
    let mut part = whole.files()["disk-s001.vmdk"].clone();
    part.write(6 * 512, &[0xff; 4]);
    damaged.insert("disk-s001.vmdk", part);
    let done = Vmdk.repair(args(&damaged), Repair::All).unwrap();
    assert_eq!(
        done,
        ["disk-s001.vmdk: grain directory: 1 entries restored from the redundant grain directory"]
    );
    assert!(damaged.files() == whole.files());
}

fn stream() -> FaultFolder {
    create(
        "streamOptimized",
        200 * MIB,
        None,
        &[(0, 2 * GRAIN), (40 * MIB, 41 * MIB), (199 * MIB, 200 * MIB)],
    )
}

fn cut_to(folder: &FaultFolder, len: u64) -> FaultFolder {
    let mut content: SparseBytes = folder.files()[NAME].clone();
    content.set_len(len);
    FaultFolder::with_files([(NAME.to_owned(), content)])
}

/// Damaged, it is refused or has the right content; mended, it is as it was.
fn assert_stream_mended(damaged: &FaultFolder, whole: &FaultFolder) {
    let wanted = content(&*open(whole).unwrap());
    let mended = cuts(
        damaged,
        |folder| Vmdk.repair(args(folder), Repair::All).map(drop),
        |cut, done| match open(cut).and_then(|image| try_content(&*image)) {
            Ok(now) => assert!(now == wanted),
            Err(error) => assert!(!done, "{error}"),
        },
    );
    assert!(file(&mended) == file(whole));
}

#[test]
fn end_of_a_stream_is_made_anew_to_the_byte() {
    let whole = stream();
    let len = whole.files()[NAME].len();
    // Directory, footer marker, footer, end of stream: one sector each.
    for cut in [1, 512, 600, 1024, 1100, 1536, 1700, 2048] {
        assert_stream_mended(&cut_to(&whole, len - cut), &whole);
    }
    for (at, bytes) in [
        (len - 1024, [0u8; 512]),
        (len - 1536, [0xaa; 512]),
        (len - 2048, [0xff; 512]),
    ] {
        assert_stream_mended(&patch(&whole, &[(at, &bytes)]), &whole);
    }
    // A table in the midst whose entries are out of the file.
    let gd = len - 2048;
    let mut entry = [0; 4];
    assert!(whole.files()[NAME].read(gd + 4, &mut entry));
    let table = u64::from(u32::from_le_bytes(entry)) * 512;
    let bad = patch(&whole, &[(table + 4 * 128, &[0xff; 64])]);
    assert_stream_mended(&bad, &whole);
}

#[test]
fn stream_that_may_lack_content_is_not_made_to_look_whole() {
    let whole = stream();
    let len = whole.files()[NAME].len();
    for cut in [2049, 2560, 2561, 5000, 70_000, 1 << 20] {
        let cut = cut_to(&whole, len - cut);
        let before = cut.files();
        let done = Vmdk.repair(args(&cut), Repair::All).unwrap();
        assert_eq!(done, [""; 0]);
        assert!(cut.files() == before);
        assert!(Vmdk.open(args_of(&cut, NAME, Access::ReadOnly)).is_err());
    }
}

#[test]
fn text_that_a_cut_left_at_the_end_is_brought_home() {
    for whole in [disk(), stream()] {
        let settings = Settings {
            comment: Some("new".to_owned()),
            ..Settings::default()
        };
        let set = |folder: &FaultFolder| Vmdk.set(args(folder), &settings);
        let mut n_moved = 0;
        cuts(&whole, set, |cut, _| {
            let header = &cut.files()[NAME];
            let mut sector = [0; 8];
            assert!(header.read(28, &mut sector));
            if u64::from_le_bytes(sector) == 1 {
                return;
            }
            n_moved += 1;
            let done = Vmdk.repair(args(cut), Repair::All).unwrap();
            assert!(done[0].contains("usual place"), "{done:?}");
            assert_flawless(cut);
            assert_eq!(cut.files()[NAME].len(), whole.files()[NAME].len());
            if n_moved == 1 {
                assert_qemu_agrees(cut);
            }
        });
        assert!(n_moved > 3);
    }
}

/// Whatever is broken, no verb panics, and a repair leaves what could be read as it was, or makes
/// it right.
#[test]
fn broken_structures_break_nothing_more() {
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    let mut n_mended = 0;
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let whole = if seed % 4 == 0 { stream() } else { disk() };
        let mut content = whole.files()[NAME].clone();
        let n_bytes = content.len().min(60 << 10);
        for _ in 0..1 + rng.below(0..6) {
            // The tail of a stream, or the tables in front.
            let at = match seed % 4 {
                0 => content.len() - 1 - rng.below(0..8000),
                _ => rng.below(0..n_bytes),
            };
            let bytes = match rng.below(0..3) {
                0 => vec![0; 512],
                1 => vec![0xff; 4],
                _ => (rng.next_u64() as u32 & 0xfff).to_le_bytes().to_vec(),
            };
            let len = bytes.len().min((content.len() - at) as usize);
            content.write(at, &bytes[..len]);
        }
        let broken = FaultFolder::with_files([(NAME.to_owned(), content)]);
        let mended = broken.copy();
        let done = Vmdk.repair(args(&mended), Repair::All);
        n_mended += usize::from(done.is_ok_and(|done| !done.is_empty()));
        let (before, after, right) = (grains(&broken), grains(&mended), grains(&whole));
        for (index, before) in before
            .iter()
            .enumerate()
            .filter(|(_, grain)| grain.is_some())
        {
            let after = &after[index];
            assert!(
                after == before || *after == right[index],
                "seed {seed}, grain {index}"
            );
        }
        let _ = Vmdk.repair(args(&broken.copy()), Repair::Leaks);
        let _ = Vmdk.resize(args(&broken.copy()), 20 * MIB);
        let _ = Vmdk.resize(args(&broken.copy()), 5 * MIB);
        let _ = Vmdk.compact(args(&broken.copy()), task);
        let _ = Vmdk.renaming(args(&broken), "x.vmdk");
        let settings = Settings {
            comment: Some("x".to_owned()),
            ..Settings::default()
        };
        let _ = Vmdk.set(args(&broken.copy()), &settings);
        let _ = Vmdk.relink(args(&broken.copy()), None);
    }
    assert!(n_mended > 20, "{n_mended}");
}

/// The first 160 grains of a disk; `None` for one that cannot be read.
fn grains(folder: &FaultFolder) -> Vec<Option<Vec<u8>>> {
    let Ok(image) = open(folder) else {
        return vec![None; 160];
    };
    let read = |index: u64| {
        let mut bytes = vec![0; GRAIN as usize];
        image.read_at(index * GRAIN, &mut bytes).ok()?;
        Some(bytes)
    };
    (0..160).map(read).collect()
}

#[test]
fn flat_disks_have_nothing_to_mend() {
    let folder = create("monolithicFlat", MIB, None, &[]);
    let before = folder.files();
    assert_eq!(Vmdk.repair(args(&folder), Repair::All).unwrap(), [""; 0]);
    assert!(folder.files() == before);
}
