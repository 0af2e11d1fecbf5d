//! Whole images in memory, and qemu-img's reading of them.

mod damage;
mod log;
mod overlay;
mod upkeep;

use std::process::Command;
use std::sync::Arc;

use hako_block::testkit::{FaultFolder, Rng, cut_images};
use hako_block::{
    Access, BlockImage, Error, ErrorKind, ExtentKind, Outputs, ParentLink, Result, Storage,
};

use super::Vhdx;
use super::header::Headers;
use super::layout::MIB;
use super::structure::Structure;
use crate::disk::{Allocation, CreateArgs, CreateOptions, DiskFormat, Findings, OpenArgs};

const NAME: &str = "disk.vhdx";
const BLOCK: usize = 1 << 20;
const N_BLOCKS: usize = 6;
/// The last block is cut off by the end of the disk.
const SIZE: usize = N_BLOCKS * BLOCK - 100 * 4096;

fn args(folder: &FaultFolder, name: &str, access: Access) -> OpenArgs {
    OpenArgs {
        storage: folder.file(name).unwrap(),
        name: name.to_owned(),
        resolver: Arc::new(folder.clone()),
        access,
        salvage: false,
        snapshot: None,
    }
}

fn open(folder: &FaultFolder, name: &str, access: Access) -> Result<Box<dyn BlockImage>> {
    Vhdx.open(args(folder, name, access))
}

fn read_all(image: &dyn BlockImage) -> Vec<u8> {
    let mut bytes = vec![0xee; image.info().virtual_size as usize];
    for (index, piece) in bytes.chunks_mut(700_000).enumerate() {
        image.read_at(index as u64 * 700_000, piece).unwrap();
    }
    bytes
}

/// What the image holds, by itself.
fn content(folder: &FaultFolder) -> Vec<u8> {
    read_all(&*open(folder, NAME, Access::ReadOnly).unwrap())
}

fn check(folder: &FaultFolder) -> Findings {
    Vhdx.check(args(folder, NAME, Access::ReadOnly)).unwrap()
}

fn options(subformat: &str, sector_bytes: u32) -> CreateOptions {
    CreateOptions {
        subformat: Some(subformat.to_owned()),
        unit_bytes: Some(BLOCK as u64),
        sector_bytes: Some(sector_bytes),
        ..CreateOptions::default()
    }
}

/// Creates an image with some data in its even blocks.
fn create(
    folder: &FaultFolder,
    name: &str,
    options: CreateOptions,
    parent: Option<ParentLink>,
) -> Vec<u8> {
    let mut sink = Vhdx
        .stream(CreateArgs {
            storage: folder.create(name).unwrap(),
            name: name.to_owned(),
            outputs: folder,
            virtual_size: SIZE as u64,
            parent,
            options,
        })
        .unwrap();
    let mut content = vec![0; SIZE];
    let mut rng = Rng::new(4);
    for block in (0..N_BLOCKS).step_by(2) {
        let range = block * BLOCK..((block + 1) * BLOCK).min(SIZE);
        content[range.clone()].copy_from_slice(&rng.bytes(range.len()));
        sink.data(range.start as u64, &content[range]).unwrap();
    }
    sink.finish().unwrap();
    content
}

fn image(subformat: &str) -> (FaultFolder, Vec<u8>) {
    let folder = FaultFolder::default();
    let content = create(&folder, NAME, options(subformat, 512), None);
    (folder.copy(), content)
}

fn structure(folder: &FaultFolder) -> Structure {
    let storage: Arc<dyn Storage> = folder.file(NAME).unwrap();
    Structure::open(&storage, Access::ReadOnly).unwrap()
}

/// What qemu-img reads, once it has replayed a log and found nothing wrong.
fn qemu_content(folder: &FaultFolder) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    folder.save(scratch.path());
    let run = |args: &[&str]| {
        let output = Command::new("qemu-img")
            .current_dir(&scratch)
            .args(args)
            .output()
            .expect("qemu-img is installed (tests/run does that)");
        assert!(
            output.status.success(),
            "qemu-img {args:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(&["check", "-f", "vhdx", "-r", "all", NAME]);
    run(&["convert", "-f", "vhdx", "-O", "raw", NAME, "disk.raw"]);
    std::fs::read(scratch.path().join("disk.raw")).unwrap()
}

/// Changes an image, then calls `each` with what a cut at every write of that may leave.
fn cut_everywhere(
    folder: &FaultFolder,
    change: impl FnOnce(&FaultFolder),
    mut each: impl FnMut(&FaultFolder),
) {
    let (before, numbers) = (folder.files(), folder.numbers());
    folder.take_log();
    change(folder);
    let log = folder.take_log();
    assert!(!log.is_empty());
    cut_images(&before, &numbers, &log, 3, &mut Rng::new(6), |cut| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let findings = check(&cut.folder);
            assert_eq!(findings.n_corruptions, 0, "{:#?}", findings.list);
            each(&cut.folder);
        }));
        if let Err(panic) = caught {
            println!("… cut after {} operations, lost: {}", cut.n_ops, cut.lost);
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn fixed_image_is_as_long_as_its_disk_and_stores_only_data() {
    let (folder, content) = image("fixed");
    let storage = folder.file(NAME).unwrap();
    assert_eq!(
        storage.len_bytes().unwrap(),
        (4 + N_BLOCKS as u64) * MIB,
        "header section, log, metadata, BAT, blocks"
    );
    assert!(storage.allocated_bytes().unwrap() < 4 * MIB);
    let image = open(&folder, NAME, Access::ReadOnly).unwrap();
    assert_eq!(image.info().subformat.as_deref(), Some("fixed"));
    let hole = image.next_extent(BLOCK as u64).unwrap();
    assert_eq!((hole.kind, hole.len), (ExtentKind::Zero, BLOCK as u64));
    assert!(qemu_content(&folder) == content);
}

#[test]
fn eager_allocation_writes_every_block() {
    let folder = FaultFolder::default();
    let content = create(
        &folder,
        NAME,
        CreateOptions {
            allocation: Allocation::Eager,
            ..options("dynamic", 512)
        },
        None,
    );
    let allocated = folder.file(NAME).unwrap().allocated_bytes().unwrap();
    assert!(allocated >= SIZE as u64, "{allocated}");
    assert!(qemu_content(&folder) == content);
    assert_eq!(check(&folder).worst(), None);
}

#[test]
fn sectors_of_4096_bytes_are_told_and_the_size_is_a_multiple() {
    let folder = FaultFolder::default();
    let mut content = create(&folder, NAME, options("dynamic", 4096), None);
    let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
    let details = &disk.info().details;
    let sector = details
        .iter()
        .find(|(key, _)| *key == "logical_sector_size");
    assert_eq!(sector.unwrap().1, 4096_u64.into());
    disk.write_at(BLOCK as u64 + 5, &[7; 100]).unwrap();
    content[BLOCK + 5..][..100].fill(7);
    disk.flush().unwrap();
    drop(disk);
    assert!(self::content(&folder) == content);
    let refused = Vhdx.stream(CreateArgs {
        storage: folder.create("odd.vhdx").unwrap(),
        name: "odd.vhdx".to_owned(),
        outputs: &folder,
        virtual_size: SIZE as u64 + 512,
        parent: None,
        options: options("dynamic", 4096),
    });
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::Invalid);
}

#[test]
fn what_the_format_does_not_have_is_refused() {
    let folder = FaultFolder::default();
    let refused = |virtual_size: u64, options: CreateOptions| {
        let sink = Vhdx.stream(CreateArgs {
            storage: folder.create("x").unwrap(),
            name: "x".to_owned(),
            outputs: &folder,
            virtual_size,
            parent: None,
            options,
        });
        sink.err().unwrap().kind()
    };
    let unit = |unit_bytes| CreateOptions {
        unit_bytes: Some(unit_bytes),
        ..CreateOptions::default()
    };
    assert_eq!(refused(1 << 30, unit(512 << 10)), ErrorKind::Invalid);
    assert_eq!(refused(1 << 30, unit(512 << 20)), ErrorKind::Invalid);
    assert_eq!(refused(1 << 30, unit(3 << 20)), ErrorKind::Invalid);
    assert_eq!(refused(0, CreateOptions::default()), ErrorKind::Invalid);
    assert_eq!(
        refused((64 << 40) + 512, CreateOptions::default()),
        ErrorKind::Invalid
    );
    assert_eq!(refused(1 << 30, options("sparse", 512)), ErrorKind::Invalid);
    assert_eq!(
        refused(1 << 30, options("differencing", 512)),
        ErrorKind::Invalid
    );
    assert_eq!(
        refused(1 << 30, options("dynamic", 1024)),
        ErrorKind::Invalid
    );
}

/// Extents are found by what is stored, not by the size of the disk.
#[test]
fn empty_disk_of_64_tebibytes_is_walked_in_few_steps() {
    let folder = FaultFolder::default();
    let sink = Vhdx
        .stream(CreateArgs {
            storage: folder.create(NAME).unwrap(),
            name: NAME.to_owned(),
            outputs: &folder,
            virtual_size: 64 << 40,
            parent: None,
            options: CreateOptions::default(),
        })
        .unwrap();
    sink.finish().unwrap();
    let image = open(&folder, NAME, Access::ReadOnly).unwrap();
    folder.set_fault(None);
    let mut offset = 0;
    while offset < 64 << 40 {
        offset = image.next_extent(offset).unwrap().end();
    }
    let (_, n_reads) = folder.counts();
    assert!(n_reads < 50, "{n_reads} reads");
    assert_eq!(check(&folder).worst(), None);
}

#[test]
fn first_write_changes_the_guids_and_a_read_changes_nothing() {
    let (folder, _) = image("dynamic");
    let ids = || {
        let header = Headers::read(&*folder.file(NAME).unwrap()).unwrap().current;
        (header.file_write, header.data_write)
    };
    let before = ids();
    let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
    read_all(&*disk);
    disk.flush().unwrap();
    assert_eq!(ids(), before);
    disk.write_at(0, &[1]).unwrap();
    let after = ids();
    assert_ne!(after.0, before.0);
    assert_ne!(after.1, before.1);
    disk.write_at(9, &[1]).unwrap();
    disk.flush().unwrap();
    assert_eq!(ids(), after);
}

#[test]
fn discarded_blocks_are_used_again_after_a_flush() {
    let (folder, mut content) = image("dynamic");
    let len = || folder.file(NAME).unwrap().len_bytes().unwrap();
    let before = len();
    let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
    disk.discard(0..BLOCK as u64).unwrap();
    let extent = disk.next_extent(0).unwrap();
    assert_eq!(extent.kind, ExtentKind::Zero);
    disk.flush().unwrap();
    disk.write_at(BLOCK as u64, &[3; BLOCK]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    assert_eq!(len(), before);
    content[..BLOCK].fill(0);
    content[BLOCK..2 * BLOCK].fill(3);
    assert!(self::content(&folder) == content);
    assert!(qemu_content(&folder) == content);
}

fn finding(error: Option<Error>) -> String {
    error.expect("refused").to_string()
}
