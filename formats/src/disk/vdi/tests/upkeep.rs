//! Upkeep, each verb cut off at every write.

use hako_block::testkit::{FaultFolder, Rng, cut_images};
use hako_block::{
    Access, BlockImage, Cancel, Error, ErrorKind, ExtentKind, NoProgress, Result, Storage, Uuid,
    is_zero,
};

use super::damage::{set_entry, stored};
use super::{
    BLOCK, N_BLOCKS, SIZE, Vdi, args, build, chain, check, content, header, image, open, overlay,
    parent_link, patch, read_all,
};
use crate::disk::vdi::header::Kind;
use crate::disk::vdi::map::ZERO;
use crate::disk::{DiskFormat, Repair, Settings, Task};

/// Runs a verb on `disk.vdi`, then looks at what a cut at every write of it may leave: damage is
/// never found, and `look` may find more.
fn cut_everywhere(
    folder: &FaultFolder,
    verb: impl Fn(&FaultFolder) -> Result<()>,
    look: impl Fn(&FaultFolder),
) {
    let (before, numbers) = (folder.files(), folder.numbers());
    folder.take_log();
    verb(folder).unwrap();
    let log = folder.take_log();
    assert!(!log.is_empty());
    let mut n = 0;
    cut_images(&before, &numbers, &log, 6, &mut Rng::new(3), |cut| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let findings = check(&cut.folder, "disk.vdi");
            assert_eq!(findings.n_corruptions, 0, "{findings:?}");
            look(&cut.folder);
            // The verb can be run again.
            if n % 5 == 0 {
                verb(&cut.folder).unwrap();
                let findings = check(&cut.folder, "disk.vdi");
                assert_eq!(findings.n_corruptions, 0, "{findings:?}");
                look(&cut.folder);
            }
        }));
        n += 1;
        if let Err(panic) = caught {
            println!("… cut after {} operations, lost: {}", cut.n_ops, cut.lost);
            std::panic::resume_unwind(panic);
        }
    });
    assert!(n > 3);
}

fn disk(folder: &FaultFolder) -> Vec<u8> {
    read_all(&*open(folder, "disk.vdi", Access::ReadOnly).unwrap())
}

fn compact(folder: &FaultFolder) -> Result<()> {
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    Vdi.compact(args(folder, "disk.vdi", Access::ReadWrite), task)
}

fn resize(folder: &FaultFolder, size: usize) -> Result<()> {
    Vdi.resize(args(folder, "disk.vdi", Access::ReadWrite), size as u64)
}

fn repair(folder: &FaultFolder, what: Repair) -> Vec<String> {
    let args = args(folder, "disk.vdi", Access::ReadWrite);
    Vdi.repair(args, what).unwrap()
}

/// An image with blocks in random order, blocks of zeros, and space that nothing uses.
fn worn() -> (FaultFolder, Vec<u8>) {
    let (folder, mut content) = image("dynamic");
    let disk = open(&folder, "disk.vdi", Access::ReadWrite).unwrap();
    let mut rng = Rng::new(9);
    for _ in 0..40 {
        let block = rng.below(0..N_BLOCKS as u64 - 1) as usize;
        let bytes = if rng.one_in(2) {
            vec![0; BLOCK]
        } else {
            rng.bytes(BLOCK)
        };
        content[block * BLOCK..][..BLOCK].copy_from_slice(&bytes);
        disk.write_at((block * BLOCK) as u64, &bytes).unwrap();
    }
    disk.flush().unwrap();
    drop(disk);
    let (lost, _) = stored(&folder)[3];
    set_entry(&folder, lost, ZERO);
    content[lost as usize * BLOCK..][..BLOCK].fill(0);
    let file = folder.file("disk.vdi").unwrap();
    file.write_at(file.len_bytes().unwrap(), &[3; 700]).unwrap();
    (folder.copy(), content)
}

#[test]
fn compacting_keeps_the_content_and_leaves_nothing_unused() {
    let (folder, content) = worn();
    let before = header(&folder, "disk.vdi");
    cut_everywhere(&folder, compact, |folder| assert!(disk(folder) == content));
    assert_eq!(check(&folder, "disk.vdi").worst(), None);
    let n_data = content
        .chunks(BLOCK)
        .filter(|block| block.iter().any(|byte| *byte != 0));
    let after = header(&folder, "disk.vdi");
    assert_eq!(after.n_stored, n_data.count() as u64);
    assert_eq!(after.modification, before.modification);
    let len = folder.file("disk.vdi").unwrap().len_bytes().unwrap();
    assert_eq!(len, after.place_offset(after.n_stored));
}

#[test]
fn compacting_an_overlay_never_shows_the_parent() {
    let (folder, shown) = overlay();
    let top = chain(&folder, Access::ReadWrite);
    top.write_at(5 * BLOCK as u64, &[0; 3 * BLOCK]).unwrap();
    top.flush().unwrap();
    drop(top);
    let mut expected = shown;
    expected[5 * BLOCK..8 * BLOCK].fill(0);
    let folder = folder.copy();
    cut_everywhere(&folder, compact, |folder| {
        assert!(read_all(&chain(folder, Access::ReadOnly)) == expected);
    });
    assert_eq!(check(&folder, "disk.vdi").worst(), None);
}

#[test]
fn compacting_stops_when_told_and_fixed_images_are_not_compacted() {
    let (folder, content) = worn();
    let cancel = Cancel::default();
    cancel.cancel();
    let task = Task {
        progress: &NoProgress,
        cancel: &cancel,
    };
    let error = Vdi.compact(args(&folder, "disk.vdi", Access::ReadWrite), task);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(disk(&folder) == content);
    let (folder, _) = image("fixed");
    assert_eq!(compact(&folder).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// What the disk may show after a resize that was cut: as it was, or as it shall be.
fn old_or_new(folder: &FaultFolder, old: &[u8], size: usize) {
    let image = open(folder, "disk.vdi", Access::ReadOnly).unwrap();
    let len = image.info().virtual_size as usize;
    assert!(len == old.len() || len == size, "{len}");
    let mut found = vec![0x55; len.min(old.len())];
    image.read_at(0, &mut found).unwrap();
    assert!(found[..] == old[..found.len()]);
    let mut offset = found.len() as u64;
    while offset < len as u64 {
        let extent = image.next_extent(offset).unwrap();
        if extent.kind == ExtentKind::Data {
            let mut bytes = vec![0x55; extent.len as usize];
            image.read_at(offset, &mut bytes).unwrap();
            assert!(is_zero(&bytes), "new space is zeros");
        }
        offset = extent.end();
    }
}

#[test]
fn growing_keeps_the_content_and_adds_zeros() {
    for (subformat, new_blocks) in [
        // The first fits into the room before the data, the others do not.
        ("dynamic", 40),
        ("dynamic", 3000),
        ("dynamic", 20_000),
        ("fixed", 40),
        ("fixed", 1500),
    ] {
        let (folder, content) = image(subformat);
        // What lies behind the disk's end in its last block must not show.
        let end = header(&folder, "disk.vdi").place_offset(0);
        let last = stored(&folder).last().copied();
        if let Some((block, place)) = last.filter(|(block, _)| *block == N_BLOCKS as u64 - 1) {
            let inside = (SIZE - block as usize * BLOCK) as u64;
            let at = end + u64::from(place) * BLOCK as u64 + inside;
            patch(&folder, "disk.vdi", at, &[9; 3 * 512]);
        }
        let folder = folder.copy();
        let size = new_blocks * BLOCK - 512;
        let grow = |folder: &FaultFolder| resize(folder, size);
        cut_everywhere(&folder, grow, |folder| old_or_new(folder, &content, size));
        let what = format!("{subformat}, {new_blocks} blocks");
        assert_eq!(check(&folder, "disk.vdi").worst(), None, "{what}");
        let after = header(&folder, "disk.vdi");
        assert_eq!(after.n_blocks, new_blocks as u64);
        assert!(subformat == "dynamic" || after.n_stored == after.n_blocks);
        let disk = open(&folder, "disk.vdi", Access::ReadWrite).unwrap();
        disk.write_at(size as u64 - 5000, &[4; 5000]).unwrap();
        disk.flush().unwrap();
        assert_eq!(check(&folder, "disk.vdi").worst(), None, "{what}");
    }
}

#[test]
fn growing_a_full_image_moves_blocks_out_of_the_way() {
    let folder = FaultFolder::default();
    let content = vec![5; 1024 * BLOCK];
    build(&folder, "disk.vdi", "dynamic", &content, None);
    assert_eq!(header(&folder, "disk.vdi").data_offset, 2 * BLOCK as u64);
    let folder = folder.copy();
    let size = 5000 * BLOCK;
    let grow = |folder: &FaultFolder| resize(folder, size);
    cut_everywhere(&folder, grow, |folder| old_or_new(folder, &content, size));
    assert_eq!(check(&folder, "disk.vdi").worst(), None);
    let after = header(&folder, "disk.vdi");
    assert_eq!((after.n_stored, after.n_blocks), (1024, 5000));
}

#[test]
fn shrinking_cuts_the_end_and_growing_again_shows_zeros() {
    for subformat in ["dynamic", "fixed"] {
        let (folder, content) = image(subformat);
        let size = 9 * BLOCK + 512;
        let shrink = |folder: &FaultFolder| resize(folder, size);
        cut_everywhere(&folder, shrink, |folder| old_or_new(folder, &content, size));
        assert!(disk(&folder) == content[..size], "{subformat}");
        assert_eq!(check(&folder, "disk.vdi").worst(), None, "{subformat}");
        resize(&folder, SIZE).unwrap();
        old_or_new(&folder, &content[..size], SIZE);
        assert_eq!(check(&folder, "disk.vdi").worst(), None, "{subformat}");
    }
}

#[test]
fn overlay_grows_and_shrinks() {
    let (folder, shown) = overlay();
    let size = 2000 * BLOCK;
    let shows = |folder: &FaultFolder| {
        let found = read_all(&chain(folder, Access::ReadOnly));
        let both = found.len().min(SIZE);
        assert!(found[..both] == shown[..both]);
        assert!(found[both..].iter().all(|byte| *byte == 0));
    };
    cut_everywhere(&folder, |folder| resize(folder, size), shows);
    cut_everywhere(&folder, |folder| resize(folder, 12 * BLOCK), shows);
    assert_eq!(check(&folder, "disk.vdi").worst(), None);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let (folder, content) = image("dynamic");
    folder.take_log();
    for size in [0, 513, 1 << 41] {
        assert!(resize(&folder, size).is_err(), "{size}");
    }
    assert!(folder.take_log().is_empty());
    assert!(disk(&folder) == content);
}

#[test]
fn leaks_are_given_back_and_the_number_of_stored_blocks_is_corrected() {
    let (folder, content) = worn();
    assert!(check(&folder, "disk.vdi").n_leaks > 0);
    let mend = |folder: &FaultFolder| {
        repair(folder, Repair::Leaks);
        Ok::<(), Error>(())
    };
    cut_everywhere(&folder, mend, |folder| assert!(disk(folder) == content));
    assert_eq!(check(&folder, "disk.vdi").worst(), None);
    assert!(
        repair(&folder, Repair::All).is_empty(),
        "nothing is left to do"
    );
    for number in [0_u32, 20_000] {
        patch(&folder, "disk.vdi", 0x184, &number.to_le_bytes());
        assert_eq!(repair(&folder, Repair::All).len(), 1, "{number}");
        assert_eq!(check(&folder, "disk.vdi").worst(), None, "{number}");
    }
}

#[test]
fn header_that_virtualbox_refuses_is_mended() {
    let (folder, content) = image("dynamic");
    patch(&folder, "disk.vdi", 0x170, &[1]);
    patch(&folder, "disk.vdi", 0x188, &[0; 32]);
    assert!(repair(&folder, Repair::Leaks).is_empty());
    assert_eq!(repair(&folder, Repair::All).len(), 3);
    assert_eq!(check(&folder, "disk.vdi").worst(), None);
    assert!(disk(&folder)[..SIZE - 512] == content[..SIZE - 512]);
}

#[test]
fn entries_that_are_wrong_are_left_for_the_check_to_tell() {
    for double in [false, true] {
        let (folder, _) = worn();
        let places = stored(&folder);
        let wrong = if double { places[1].1 } else { 0xffff_0000 };
        set_entry(&folder, places[0].0, wrong);
        patch(&folder, "disk.vdi", 0x184, &0_u32.to_le_bytes());
        let before = folder.files()["disk.vdi"].to_vec();
        let done = repair(&folder, Repair::All);
        assert_eq!(done.len(), 1, "{done:?}");
        let after = folder.files()["disk.vdi"].to_vec();
        assert!(before[0x200..] == after[0x200..], "only the header changed");
        assert_eq!(check(&folder, "disk.vdi").n_corruptions, 1);
        assert!(compact(&folder).is_err());
        assert!(resize(&folder, 100 * BLOCK).is_err());
    }
}

#[test]
fn uuid_and_comment_change_and_nothing_else() {
    let (folder, content) = image("dynamic");
    let before = header(&folder, "disk.vdi");
    let uuid = Uuid::random();
    let settings = Settings {
        uuid: Some(uuid),
        comment: Some("the web server's disk".to_owned()),
        ..Settings::default()
    };
    let set =
        |folder: &FaultFolder| Vdi.set(args(folder, "disk.vdi", Access::ReadWrite), &settings);
    cut_everywhere(&folder, set, |folder| assert!(disk(folder) == content));
    let mut expected = before;
    expected.uuid = uuid;
    expected.comment = b"the web server's disk".to_vec();
    assert_eq!(header(&folder, "disk.vdi").encode(), expected.encode());
    let opened = open(&folder, "disk.vdi", Access::ReadOnly).unwrap();
    assert_eq!(opened.info().identity, Some(uuid));
    let refused = |settings: Settings| {
        let args = args(&folder, "disk.vdi", Access::ReadWrite);
        assert!(Vdi.set(args, &settings).is_err(), "{settings:?}");
    };
    refused(Settings {
        comment: Some("x".repeat(256)),
        ..Settings::default()
    });
    refused(Settings {
        uuid: Some(Uuid::default()),
        ..Settings::default()
    });
    refused(Settings {
        hw_version: Some(7),
        ..Settings::default()
    });
}

#[test]
fn overlay_gets_another_parent_or_none() {
    let (folder, _) = overlay();
    build(&folder, "other.vdi", "dynamic", &content(2, SIZE), None);
    let link = parent_link(&folder, "other.vdi");
    let own = disk(&folder);
    let relink =
        |folder: &FaultFolder| Vdi.relink(args(folder, "disk.vdi", Access::ReadWrite), Some(&link));
    cut_everywhere(&folder, relink, |folder| {
        assert!(disk(folder) == own);
        let found = open(folder, "disk.vdi", Access::ReadOnly).unwrap();
        assert!(found.info().parent.is_some());
    });
    let found = open(&folder, "disk.vdi", Access::ReadOnly).unwrap();
    let parent = found.info().parent.clone().unwrap();
    assert_eq!(
        (parent.identity, parent.content_id),
        (link.identity, link.content_id)
    );

    let args = || args(&folder, "disk.vdi", Access::ReadWrite);
    Vdi.relink(args(), None).unwrap();
    let alone = header(&folder, "disk.vdi");
    assert_eq!(alone.kind, Kind::Dynamic);
    assert!(alone.parent.is_nil() && alone.parent_modification.is_nil());
    Vdi.relink(args(), Some(&link)).unwrap();
    assert_eq!(header(&folder, "disk.vdi").kind, Kind::Diff);
    let elsewhere = hako_block::ParentLink {
        name: "../other.vdi".to_owned(),
        ..link
    };
    let error = Vdi.relink(args(), Some(&elsewhere)).unwrap_err();
    assert!(error.hint_text().is_some(), "{error}");
}
