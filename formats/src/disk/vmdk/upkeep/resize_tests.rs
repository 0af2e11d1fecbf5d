//! Disks that grow and shrink, cut at every write.

use hako_block::testkit::{FaultFolder, Op};
use hako_block::{Access, BlockImage, ContentId, ErrorKind, ParentLink, Resolver, Result};

use super::testing::*;
use crate::disk::DiskFormat;
use crate::disk::vmdk::Vmdk;
use crate::disk::vmdk::layout::Text;

const GRAIN: u64 = 65536;
const GIB: u64 = 1 << 30;
const SPLIT: u64 = 4_192_256 * 512;
const DATA: &[(u64, u64)] = &[(0, GRAIN), (3 * MIB, 4 * MIB)];

fn resize(size: u64) -> impl Fn(&FaultFolder) -> Result<()> {
    move |folder| Vmdk.resize(args(folder), size)
}

fn bytes_of(image: &dyn BlockImage, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = vec![1; (range.end - range.start) as usize];
    image.read_at(range.start, &mut bytes).unwrap();
    bytes
}

/// Resizes with cuts everywhere: old size or new, the content as it was as far as it goes.
fn resized(folder: &FaultFolder, size: u64) -> FaultFolder {
    let (old_size, old) = content(&*open(folder).unwrap());
    let old_cid = open(folder).unwrap().info().content_id;
    let kept: Vec<_> = old
        .iter()
        .filter(|(start, _)| *start < size)
        .map(|(start, bytes)| {
            let len = bytes.len().min((size - start) as usize);
            (*start, bytes[..len].to_vec())
        })
        .collect();
    let worked = cuts(folder, resize(size), |cut, done| {
        let image = open(cut).unwrap();
        match content(&*image) {
            (now, runs) if now == size => assert!(runs == kept),
            (now, runs) => assert!(!done && now == old_size && runs == old),
        }
        assert_eq!(image.info().content_id, old_cid);
        assert_sound(cut);
    });
    assert_eq!(content(&*open(&worked).unwrap()), (size, kept));
    worked
}

/// Writes at both ends of the disk and in between.
fn write(folder: &FaultFolder) {
    let image = Vmdk.open(args(folder)).unwrap();
    let size = image.info().virtual_size;
    for offset in [0, size / 2, size - 5000] {
        image.write_at(offset, &[0x77; 5000]).unwrap();
    }
    image.flush().unwrap();
    for offset in [0, size / 2, size - 5000] {
        assert_eq!(bytes_of(&*image, offset..offset + 5000), [0x77; 5000]);
    }
}

#[test]
fn disks_of_every_kind_grow_and_shrink() {
    for (subformat, sizes) in [
        (
            "monolithicSparse",
            [10 * MIB, 100 * MIB, 33 * MIB + 512, 40 * MIB],
        ),
        (
            "monolithicSparse",
            [5 * MIB + 1536, 6 * MIB, 5 * MIB, 300 * MIB],
        ),
        ("monolithicFlat", [5 * MIB, 6 * MIB + 512, 4 * MIB, 9 * MIB]),
        ("vmfs", [5 * MIB, 6 * MIB + 512, 4 * MIB, 9 * MIB]),
        (
            "twoGbMaxExtentSparse",
            [5 * MIB, 2 * SPLIT + 5 * MIB, SPLIT, SPLIT + 4096],
        ),
        (
            "twoGbMaxExtentFlat",
            [5 * MIB, 2 * SPLIT + 5 * MIB, SPLIT, SPLIT + 4096],
        ),
    ] {
        let mut folder = create(subformat, sizes[0], None, DATA);
        for size in &sizes[1..] {
            folder = resized(&folder, *size);
            assert_flawless(&folder);
            assert_qemu_agrees(&folder);
            write(&folder);
            assert_sound(&folder);
            assert_qemu_agrees(&folder);
            folder = folder.copy();
        }
    }
}

#[test]
fn overlay_grows_and_its_new_space_asks_the_parent() {
    let parent = ParentLink {
        name: "base.vmdk".to_owned(),
        content_id: Some(ContentId::Cid(7)),
        ..ParentLink::default()
    };
    for subformat in ["monolithicSparse", "twoGbMaxExtentSparse"] {
        let folder = create(subformat, 5 * MIB, Some(parent.clone()), DATA);
        let worked = resized(&folder, 90 * MIB);
        let image = open(&worked).unwrap();
        let extent = image.next_extent(5 * MIB).unwrap();
        assert_eq!(
            (extent.kind, extent.len),
            (hako_block::ExtentKind::Hole, 85 * MIB)
        );
        assert_eq!(image.info().parent.as_ref().unwrap().name, "base.vmdk");
    }
}

#[test]
fn geometry_follows_the_size_with_the_heads_and_sectors_it_has() {
    let folder = create("monolithicSparse", 10 * MIB, None, &[]);
    resize(100 * MIB)(&folder).unwrap();
    let text = Text::find(&args(&folder)).unwrap().descriptor;
    let value = |key: &str| text.value(&format!("ddb.geometry.{key}")).unwrap();
    assert_eq!(
        [value("cylinders"), value("heads"), value("sectors")],
        ["100", "64", "32"]
    );
}

/// A file with its bytes changed.
fn patched(folder: &FaultFolder, name: &str, offset: u64, bytes: &[u8]) -> FaultFolder {
    let mut content = folder.files()[name].clone();
    content.write(offset, bytes);
    let patched = folder.copy();
    patched.insert(name, content);
    patched.copy()
}

#[test]
fn what_a_file_has_beyond_its_capacity_never_shows() {
    // A last grain whose rest is not zeros, and entries of grains that the disk does not have.
    let size = 4 * MIB + 3 * 512;
    let folder = create("monolithicSparse", size, None, &[(4 * MIB, size)]);
    let header = &folder.files()[NAME];
    let sector = |at: u64| {
        let mut bytes = [0; 8];
        assert!(header.read(at, &mut bytes));
        u64::from_le_bytes(bytes)
    };
    let grain = sector(64) * 512;
    let dirty = patched(&folder, NAME, grain + 3 * 512, &vec![0xee; 65536 - 3 * 512]);
    let mut table = [0; 4];
    assert!(header.read(sector(56) * 512, &mut table));
    let entry = u64::from(u32::from_le_bytes(table)) * 512 + 4 * 65;
    let stale = (sector(64) as u32).to_le_bytes();
    let dirty = patched(&dirty, NAME, entry, &stale);
    let worked = resized(&dirty, 8 * MIB);
    let rest = bytes_of(&*open(&worked).unwrap(), size..8 * MIB);
    assert!(rest.iter().all(|byte| *byte == 0));
    assert_flawless(&worked);
}

#[test]
fn data_in_an_extent_file_beyond_its_line_never_shows() {
    for (subformat, file) in [
        ("twoGbMaxExtentSparse", "SPARSE"),
        ("monolithicFlat", "FLAT"),
    ] {
        let folder = create(subformat, 8 * MIB, None, &[(0, GRAIN), (5 * MIB, 6 * MIB)]);
        let text = Text::find(&args(&folder)).unwrap().descriptor;
        let text = String::from_utf8(text.text().to_vec()).unwrap();
        let short = text.replace(&format!("RW 16384 {file}"), &format!("RW 8192 {file}"));
        folder.replace(NAME, short.as_bytes()).unwrap();
        let folder = folder.copy();
        let worked = resized(&folder, 8 * MIB);
        let rest = bytes_of(&*open(&worked).unwrap(), 4 * MIB..8 * MIB);
        assert!(rest.iter().all(|byte| *byte == 0), "{subformat}");
    }
}

#[test]
fn growth_that_was_cut_is_done_by_the_next() {
    let folder = create("twoGbMaxExtentSparse", 5 * MIB, None, DATA);
    let size = SPLIT + 5 * MIB;
    cuts(&folder, resize(size), |cut, _| {
        let cut = cut.copy();
        resize(size)(&cut).unwrap();
        assert_eq!(open(&cut).unwrap().info().virtual_size, size);
        assert_sound(&cut);
    });
}

#[test]
fn terabytes_take_time_by_the_data() {
    for subformat in ["monolithicSparse", "twoGbMaxExtentSparse"] {
        let folder = create(subformat, GIB, None, DATA);
        for size in [1900 * GIB, GIB] {
            resize(size)(&folder).unwrap();
            let written: usize = folder
                .take_log()
                .iter()
                .map(|op| match op {
                    Op::Write { bytes, .. } | Op::Replace { bytes, .. } => bytes.len(),
                    _ => 0,
                })
                .sum();
            assert!(written < 8 << 20, "{written} bytes for {subformat}");
            let (now, runs) = content(&*open(&folder).unwrap());
            assert_eq!((now, runs.len()), (size, 2));
        }
    }
}

#[test]
fn disk_that_cannot_grow_is_refused_and_left_alone() {
    let stream = create("streamOptimized", MIB, None, &[]);
    let zero = create("monolithicFlat", MIB, None, &[]);
    let text = Text::find(&args(&zero)).unwrap().descriptor;
    let text = String::from_utf8(text.text().to_vec()).unwrap();
    let line = "RW 2048 FLAT \"disk-flat.vmdk\" 0\n";
    for more in ["RW 8 ZERO\n", "RDONLY 8 FLAT \"disk-flat.vmdk\" 0\n", line] {
        let text = text.replace(line, &format!("{line}{more}"));
        zero.replace(NAME, text.as_bytes()).unwrap();
        let before = zero.files();
        assert!(resize(3 * MIB)(&zero).is_err(), "{more}");
        assert_eq!(zero.files(), before);
    }
    let before = stream.files();
    let error = resize(2 * MIB)(&stream).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let sparse = create("monolithicSparse", MIB, None, &[]);
    for bad in [3 << 40, 0, 513] {
        assert!(resize(bad)(&sparse).is_err(), "{bad}");
    }
    assert_eq!(stream.files(), before);
}

#[test]
fn flat_file_shorter_than_its_line_is_not_filled_up() {
    let folder = create("monolithicFlat", MIB, None, &[]);
    let file = folder.open("disk-flat.vmdk", Access::ReadWrite).unwrap();
    file.storage.set_len(MIB / 2).unwrap();
    let error = resize(2 * MIB)(&folder).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
