//! Space given back, cut at every write.

use hako_block::testkit::{FaultFolder, Op};
use hako_block::{
    BlockImage, Cancel, ContentId, ErrorKind, ExtentKind, NoProgress, ParentLink, Result,
};

use super::testing::*;
use crate::disk::vmdk::Vmdk;
use crate::disk::{DiskFormat, Task};

const GRAIN: u64 = 65536;
const OVERHEAD: u64 = 128 * 512;

fn compact(folder: &FaultFolder) -> Result<()> {
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    Vmdk.compact(args(folder), task)
}

/// Data, grains of zeros that are stored, and grains given up in between.
fn used(subformat: &str, size: u64, parent: Option<ParentLink>) -> FaultFolder {
    let folder = create(
        subformat,
        size,
        parent,
        &[(0, 20 * GRAIN), (size - MIB, size)],
    );
    let image = Vmdk.open(args(&folder)).unwrap();
    image
        .write_at(2 * GRAIN, &vec![0; 3 * GRAIN as usize])
        .unwrap();
    image.write_at(9 * GRAIN, &vec![0; GRAIN as usize]).unwrap();
    image.flush().unwrap();
    image.discard(11 * GRAIN..14 * GRAIN).unwrap();
    image.flush().unwrap();
    image.write_at(40 * GRAIN + 5, b"late").unwrap();
    image.flush().unwrap();
    drop(image);
    folder.copy()
}

/// Compacts with cuts everywhere: the content and its ID never change.
fn compacted(folder: &FaultFolder) -> FaultFolder {
    let image = open(folder).unwrap();
    let (wanted, cid) = (content(&*image), image.info().content_id);
    let worked = cuts(folder, compact, |cut, _| {
        let image = open(cut).unwrap();
        assert!(content(&*image) == wanted);
        assert_eq!(image.info().content_id, cid);
        assert_sound(cut);
    });
    assert_flawless(&worked);
    worked
}

#[test]
fn sparse_disks_give_back_zeros_and_holes() {
    for (subformat, file) in [
        ("monolithicSparse", NAME),
        ("twoGbMaxExtentSparse", "disk-s001.vmdk"),
    ] {
        let folder = used(subformat, 8 * MIB, None);
        let worked = compacted(&folder);
        assert_qemu_agrees(&worked);
        // 20 grains less 4 of zeros and 3 given up, one written late, 16 at the end.
        let len = worked.files()[file].len();
        assert_eq!(len, OVERHEAD + (20 - 7 + 1 + 16) * GRAIN);
        let again = worked.copy();
        compact(&again).unwrap();
        assert!(again.files() == worked.files());
        // It is written to as ever.
        let image = Vmdk.open(args(&again)).unwrap();
        image.write_at(3 * GRAIN, &[7; 200_000]).unwrap();
        image.flush().unwrap();
        drop(image);
        assert_flawless(&again);
    }
}

#[test]
fn zeros_of_an_overlay_go_on_hiding_its_parent() {
    let parent = ParentLink {
        name: "base.vmdk".to_owned(),
        content_id: Some(ContentId::Cid(7)),
        ..ParentLink::default()
    };
    let folder = used("monolithicSparse", 8 * MIB, Some(parent));
    let worked = compacted(&folder);
    let kind = |image: &dyn BlockImage, grain: u64| image.next_extent(grain * GRAIN).unwrap().kind;
    let image = open(&worked).unwrap();
    assert_eq!(kind(&*image, 2), ExtentKind::Zero);
    assert_eq!(kind(&*image, 12), ExtentKind::Zero);
    assert_eq!(kind(&*image, 30), ExtentKind::Hole);
    // Without zeroed grains, zeros stay stored.
    let alone = used("monolithicSparse", 8 * MIB, None);
    let base = create("monolithicSparse", MIB, None, &[]);
    let link = ParentLink {
        name: "base.vmdk".to_owned(),
        content_id: open(&base).unwrap().info().content_id,
        ..ParentLink::default()
    };
    Vmdk.relink(args(&alone), Some(&link)).unwrap();
    let worked = compacted(&alone.copy());
    let image = open(&worked).unwrap();
    assert_eq!(kind(&*image, 2), ExtentKind::Data);
    assert_eq!(kind(&*image, 12), ExtentKind::Hole);
}

#[test]
fn flat_disks_become_thin() {
    for subformat in ["monolithicFlat", "vmfs", "twoGbMaxExtentFlat"] {
        let folder = used(subformat, 8 * MIB, None);
        let allocated = |folder: &FaultFolder| open(folder).unwrap().info().allocated_size;
        let worked = compacted(&folder);
        assert_qemu_agrees(&worked);
        assert_eq!(allocated(&folder) - allocated(&worked), 4 * GRAIN);
    }
}

#[test]
fn disk_that_was_resized_with_its_text_moved_is_compacted() {
    let folder = used("monolithicSparse", 8 * MIB, None);
    Vmdk.resize(args(&folder), 300 * MIB).unwrap();
    let settings = crate::disk::Settings {
        comment: Some("x".repeat(12_000)),
        ..crate::disk::Settings::default()
    };
    Vmdk.set(args(&folder), &settings).unwrap();
    let worked = compacted(&folder.copy());
    assert_qemu_agrees_but_for_the_text(&worked);
}

/// qemu reads the text of a single file from its fixed place only.
fn assert_qemu_agrees_but_for_the_text(folder: &FaultFolder) {
    let short = crate::disk::Settings {
        comment: Some(String::new()),
        ..crate::disk::Settings::default()
    };
    Vmdk.set(args(folder), &short).unwrap();
    assert_qemu_agrees(folder);
}

#[test]
fn terabytes_take_time_by_the_data() {
    let folder = used("monolithicSparse", 1900 << 30, None);
    compact(&folder).unwrap();
    let written: usize = folder
        .take_log()
        .iter()
        .map(|op| match op {
            Op::Write { bytes, .. } => bytes.len(),
            _ => 0,
        })
        .sum();
    assert!(written < 4 << 20, "{written}");
    assert_flawless(&folder);
}

#[test]
fn damaged_disk_is_refused_and_left_alone() {
    let folder = used("monolithicSparse", 8 * MIB, None);
    let mut file = folder.files()[NAME].clone();
    // The redundant table is all holes.
    file.write(22 * 512, &[0; 2048]);
    folder.insert(NAME, file);
    let before = folder.files();
    let error = compact(&folder).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error
            .hint_text()
            .is_some_and(|hint| hint.contains("--repair"))
    );
    assert!(folder.files() == before);
}

#[test]
fn cancelled_it_is_whole() {
    let folder = used("monolithicSparse", 8 * MIB, None);
    let wanted = content(&*open(&folder).unwrap());
    let cancel = Cancel::default();
    cancel.cancel();
    let task = Task {
        progress: &NoProgress,
        cancel: &cancel,
    };
    let error = Vmdk.compact(args(&folder), task).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(content(&*open(&folder).unwrap()) == wanted);
    assert_flawless(&folder);
}
