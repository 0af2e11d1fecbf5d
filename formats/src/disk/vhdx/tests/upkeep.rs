//! Upkeep, each verb cut off at every write.

use hako_block::{Cancel, NoProgress, Uuid};

use super::overlay::{link_to, partial};
use super::*;
use crate::disk::{Repair, Settings, Task};

fn resize(folder: &FaultFolder, size: usize) {
    Vhdx.resize(args(folder, NAME, Access::ReadWrite), size as u64)
        .unwrap();
}

fn compact(folder: &FaultFolder) {
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    Vhdx.compact(args(folder, NAME, Access::ReadWrite), task)
        .unwrap();
}

fn repair(folder: &FaultFolder, what: Repair) -> Vec<String> {
    Vhdx.repair(args(folder, NAME, Access::ReadWrite), what)
        .unwrap()
}

#[test]
fn disk_grows_and_shrinks_and_survives_a_cut_at_every_write() {
    for subformat in ["dynamic", "fixed"] {
        let (folder, mut content) = image(subformat);
        for size in [9 * BLOCK + 512, 2 * BLOCK + 5 * 512, SIZE, 3 * BLOCK, SIZE] {
            let old = content.clone();
            content.resize(size, 0);
            cut_everywhere(
                &folder,
                |folder| resize(folder, size),
                |cut| {
                    let got = self::super::content(cut);
                    assert!(
                        got == old || got == content,
                        "to {size}: neither old nor new"
                    );
                },
            );
            assert!(self::super::content(&folder) == content, "to {size}");
            assert_eq!(check(&folder).worst(), None, "to {size}");
            assert!(qemu_content(&folder) == content, "to {size}");
        }
        let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
        disk.write_at(0, &vec![8; SIZE]).unwrap();
        disk.flush().unwrap();
        assert!(qemu_content(&folder) == vec![8; SIZE]);
    }
}

/// What a shrink leaves that was cut off right after the new size was written.
#[test]
fn what_lay_beyond_the_end_never_comes_back() {
    let (folder, content) = image("dynamic");
    let structure = structure(&folder);
    let mut journal = structure.journal().unwrap();
    let size = 2 * BLOCK as u64 + 512;
    let patches = structure.metadata.set_virtual_size(size).unwrap();
    journal.patch(&patches).unwrap();
    resize(&folder, SIZE);
    let got = self::super::content(&folder);
    assert!(got[..size as usize] == content[..size as usize]);
    assert!(got[size as usize..].iter().all(|byte| *byte == 0));
    assert_eq!(check(&folder).n_corruptions, 0);
}

#[test]
fn bat_moves_when_the_disk_outgrows_it() {
    let (folder, mut content) = image("dynamic");
    content.resize(4 * BLOCK, 0);
    resize(&folder, 4 * BLOCK);
    // 1 MiB of entries is 128 GiB of blocks of 1 MiB.
    let size: u64 = 200 << 30;
    let before = structure(&folder).bat;
    let head = |folder: &FaultFolder| {
        let disk = open(folder, NAME, Access::ReadOnly).unwrap();
        let mut bytes = vec![0; 4 * BLOCK];
        disk.read_at(0, &mut bytes).unwrap();
        (disk.info().virtual_size, bytes)
    };
    cut_everywhere(
        &folder,
        |folder| resize(folder, size as usize),
        |cut| {
            let (found, bytes) = head(cut);
            assert!(found == size || found == 4 * MIB, "{found}");
            assert!(bytes == content);
        },
    );
    assert_ne!(structure(&folder).bat, before);
    let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
    disk.write_at(size - 5000, &[6; 5000]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    assert_eq!(check(&folder).worst(), None);
    let disk = open(&folder, NAME, Access::ReadOnly).unwrap();
    let mut end = [0; 5000];
    disk.read_at(size - 5000, &mut end).unwrap();
    assert_eq!(end, [6; 5000]);
    resize(&folder, 4 * BLOCK);
    assert!(qemu_content(&folder) == content);
}

#[test]
fn compacting_gives_up_zeros_and_fills_the_holes_of_the_file() {
    let (folder, mut content) = image("dynamic");
    let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
    disk.write_at(BLOCK as u64, &[2; BLOCK]).unwrap();
    disk.write_at(0, &[0; BLOCK]).unwrap();
    disk.discard(2 * BLOCK as u64..3 * BLOCK as u64).unwrap();
    disk.flush().unwrap();
    drop(disk);
    content[BLOCK..2 * BLOCK].fill(2);
    content[..BLOCK].fill(0);
    content[2 * BLOCK..3 * BLOCK].fill(0);
    let folder = folder.copy();
    let id = open(&folder, NAME, Access::ReadOnly)
        .unwrap()
        .info()
        .content_id;
    cut_everywhere(&folder, compact, |cut| {
        assert!(self::super::content(cut) == content);
    });
    let after = open(&folder, NAME, Access::ReadOnly).unwrap();
    assert_eq!(after.info().content_id, id);
    let file = folder.file(NAME).unwrap();
    // Two blocks hold data: 1 and 4.
    assert_eq!(file.len_bytes().unwrap(), 6 * MIB);
    assert_eq!(check(&folder).worst(), None);
    assert!(qemu_content(&folder) == content);
}

#[test]
fn compacting_an_overlay_moves_its_bitmaps_and_hides_what_it_hid() {
    let (folder, _, own) = partial();
    let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
    disk.write_at(0, &[0; BLOCK]).unwrap();
    disk.write_zeroes(2 * BLOCK as u64..3 * BLOCK as u64)
        .unwrap();
    disk.flush().unwrap();
    drop(disk);
    let mut content = own;
    content[..BLOCK].fill(0);
    content[2 * BLOCK..3 * BLOCK].fill(0);
    let kinds = |folder: &FaultFolder| -> Vec<bool> {
        let disk = open(folder, NAME, Access::ReadOnly).unwrap();
        let is_hole = |at: usize| disk.next_extent(at as u64).unwrap().kind == ExtentKind::Hole;
        (0..SIZE).step_by(128 << 10).map(is_hole).collect()
    };
    let before = kinds(&folder);
    let folder = folder.copy();
    cut_everywhere(&folder, compact, |cut| {
        assert!(self::super::content(cut) == content);
        assert_eq!(kinds(cut), before);
    });
    assert_eq!(check(&folder).worst(), None);
}

#[test]
fn identity_changes_and_the_content_id_does_not() {
    let (folder, content) = image("dynamic");
    let id = Uuid([3; 16]);
    let settings = Settings {
        uuid: Some(id),
        ..Settings::default()
    };
    let info = |folder: &FaultFolder| {
        let disk = open(folder, NAME, Access::ReadOnly).unwrap();
        (disk.info().identity, disk.info().content_id)
    };
    let before = info(&folder);
    cut_everywhere(
        &folder,
        |folder| {
            Vhdx.set(args(folder, NAME, Access::ReadWrite), &settings)
                .unwrap();
        },
        |cut| {
            let now = info(cut);
            assert!(now.0 == before.0 || now.0 == Some(id));
            assert_eq!(now.1, before.1);
            assert!(self::super::content(cut) == content);
        },
    );
    assert_eq!(info(&folder).0, Some(id));
    let comment = Settings {
        comment: Some("no".to_owned()),
        ..Settings::default()
    };
    assert!(
        Vhdx.set(args(&folder, NAME, Access::ReadWrite), &comment)
            .is_err()
    );
}

#[test]
fn parent_changes_and_a_cut_leaves_the_old_one_or_the_new_one() {
    let (folder, _, own) = partial();
    let name = |folder: &FaultFolder| {
        let disk = open(folder, NAME, Access::ReadOnly).unwrap();
        disk.info().parent.clone().map(|parent| parent.name)
    };
    let long = format!("{}/base.vhdx", "sub".repeat(80));
    for new in [
        Some(long.as_str()),
        Some("b.vhdx"),
        None,
        Some("parent.vhdx"),
    ] {
        let before = name(&folder);
        let link = new.map(|new| ParentLink {
            name: new.to_owned(),
            ..link_to(&folder)
        });
        cut_everywhere(
            &folder,
            |folder| {
                Vhdx.relink(args(folder, NAME, Access::ReadWrite), link.as_ref())
                    .unwrap();
            },
            |cut| {
                let now = name(cut);
                assert!(now == before || now.as_deref() == new, "{now:?}");
                assert!(self::super::content(cut) == own);
            },
        );
        assert_eq!(name(&folder).as_deref(), new);
        assert_eq!(check(&folder).n_corruptions, 0);
        if new.is_none() {
            assert!(qemu_content(&folder) == own);
        }
    }
}

#[test]
fn repair_mends_copies_replays_the_log_and_gives_leaks_back() {
    let (folder, content) = image("dynamic");
    let file = folder.file(NAME).unwrap();
    file.write_at((64 << 10) + 9, &[0xff]).unwrap();
    file.write_at((256 << 10) + 9, &[0xff]).unwrap();
    file.write_at(file.len_bytes().unwrap() + MIB, &vec![7; 2 * BLOCK])
        .unwrap();
    assert_eq!(check(&folder).n_oddities, 2);
    assert_eq!(check(&folder).n_leaks, 1);
    let folder = folder.copy();
    let done = std::cell::RefCell::new(Vec::new());
    cut_everywhere(
        &folder,
        |folder| *done.borrow_mut() = repair(folder, Repair::All),
        |cut| assert!(self::super::content(cut) == content),
    );
    assert_eq!(done.borrow().len(), 3, "{done:?}");
    assert_eq!(check(&folder).worst(), None);
    assert!(repair(&folder, Repair::All).is_empty());
}

#[test]
fn repair_of_leaks_leaves_copies_alone() {
    let (folder, _) = image("dynamic");
    let file = folder.file(NAME).unwrap();
    file.write_at((64 << 10) + 9, &[0xff]).unwrap();
    let before = folder.files();
    assert!(repair(&folder, Repair::Leaks).is_empty());
    assert!(folder.files() == before);
}

#[test]
fn two_tebibytes_are_kept_up_by_the_data_not_by_the_size() {
    let folder = FaultFolder::default();
    let sink = Vhdx
        .stream(CreateArgs {
            storage: folder.create(NAME).unwrap(),
            name: NAME.to_owned(),
            outputs: &folder,
            virtual_size: 2 << 40,
            parent: None,
            options: CreateOptions::default(),
        })
        .unwrap();
    sink.finish().unwrap();
    let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
    for index in 0..64 {
        disk.write_at(index << 35, &[3; 4096]).unwrap();
    }
    disk.flush().unwrap();
    drop(disk);
    for size in [3_u64 << 40, 100 << 30, 2 << 40] {
        folder.set_fault(None);
        resize(&folder, size as usize);
        compact(&folder);
        assert_eq!(check(&folder).worst(), None);
        // By operations, not by the clock: what is slow is what is written and read.
        let (n_changes, n_reads) = folder.counts();
        assert!(n_changes < 500 && n_reads < 2000, "{n_changes}, {n_reads}");
    }
}
