//! VDI against the world: qemu-img reads what we write in place, VirtualBox's image is written in
//! place, an overlay finds its parent by UUID in the folder, large images cost little.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hako_block::{
    Access, BlockImage, Cancel, ErrorKind, ExtentKind, NoProgress, ParentLink, Result,
    StagedFolder, Uuid,
};
use hako_formats::{
    CreateArgs, CreateOptions, DiskFormat, OpenArgs, OpenOptions, OpenedChain, Settings, Task,
    format_named, open_chain,
};

/// More than one block, and a short one.
const SIZE: usize = (5 << 20) + 3 * 512;

fn open(path: &Path, access: Access) -> Result<OpenedChain> {
    let options = OpenOptions {
        access,
        ..OpenOptions::default()
    };
    open_chain(path, &options)
}

/// Keeps the tests of this file apart: a program that one of them starts holds the files that are
/// open just then in another, and their locks, until it has begun to run.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create(path: &Path, size: u64, parent: Option<ParentLink>) {
    let staged = StagedFolder::new(path, true).unwrap();
    let args = CreateArgs {
        storage: staged.create_main().unwrap(),
        name: staged.main_name().to_owned(),
        outputs: &staged,
        virtual_size: size,
        parent,
        options: CreateOptions::default(),
    };
    let sink = format_named("vdi").unwrap().stream(args).unwrap();
    sink.finish().unwrap();
    staged.commit().unwrap();
}

fn link(parent: &Path) -> ParentLink {
    let opened = open(parent, Access::ReadOnly).unwrap();
    let info = opened.chain.info();
    ParentLink {
        format: Some("vdi".to_owned()),
        identity: info.identity,
        content_id: info.content_id,
        ..ParentLink::default()
    }
}

fn write(path: &Path, offset: u64, bytes: &[u8]) {
    let opened = open(path, Access::ReadWrite).unwrap();
    opened.chain.write_at(offset, bytes).unwrap();
    opened.chain.flush().unwrap();
}

fn read_all(path: &Path) -> Vec<u8> {
    let opened = open(path, Access::ReadOnly).unwrap();
    let mut disk = vec![0x55; opened.chain.info().virtual_size as usize];
    opened.chain.read_at(0, &mut disk).unwrap();
    disk
}

#[track_caller]
fn qemu_img(args: &[&str], folder: &Path) {
    let output = Command::new("qemu-img")
        .args(args)
        .current_dir(folder)
        .output()
        .expect("qemu-img is part of the test machine: apt install qemu-utils");
    assert!(
        output.status.success(),
        "qemu-img {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn qemu_img_finds_no_fault_in_what_was_written_in_place() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let raw = vec![0x11; SIZE];
    std::fs::write(folder.path().join("disk.raw"), &raw).unwrap();
    for options in [&["-O", "vdi"][..], &["-O", "vdi", "-o", "static=on"]] {
        let path = folder.path().join("disk.vdi");
        let args = [
            &["convert", "-f", "raw"],
            options,
            &["disk.raw", "disk.vdi"],
        ]
        .concat();
        qemu_img(&args, folder.path());
        let mut disk = read_all(&path);
        assert!(disk[..SIZE] == raw, "{options:?}");
        for at in [1000, (2 << 20) - 100, SIZE - 512] {
            disk[at..at + 512].fill(at as u8);
            write(&path, at as u64, &disk[at..at + 512]);
        }
        std::fs::write(folder.path().join("new.raw"), &disk).unwrap();
        qemu_img(&["check", "-f", "vdi", "disk.vdi"], folder.path());
        let compare = ["compare", "-f", "vdi", "-F", "raw", "disk.vdi", "new.raw"];
        qemu_img(&compare, folder.path());
    }
}

#[test]
fn image_that_virtualbox_made_is_sound_and_is_written_in_place() {
    let _alone = alone();
    let Some(corpus) = std::env::var_os("HAKO_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: HAKO_CORPUS is not set, NO REAL IMAGE IS TESTED");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("std.vdi");
    std::fs::write(
        &path,
        std::fs::read(corpus.join("virtualbox-made/std.vdi")).unwrap(),
    )
    .unwrap();
    let opened = open(&path, Access::ReadOnly).unwrap();
    let layer = &opened.layers[0];
    assert_eq!(
        layer.image.info().identity.unwrap().to_string(),
        "f2e6079a-5897-4f2e-83c9-50f76f236f76"
    );
    let findings = layer.format.check(layer.args.clone()).unwrap();
    assert_eq!(findings.worst(), None, "{findings:?}");
    drop(opened);
    let mut disk = read_all(&path);
    for at in [0, 5 << 20, disk.len() - 1000] {
        disk[at..at + 1000].fill(0x77);
        write(&path, at as u64, &disk[at..at + 1000]);
    }
    assert!(read_all(&path) == disk);
    std::fs::write(folder.path().join("new.raw"), &disk).unwrap();
    qemu_img(&["check", "-f", "vdi", "std.vdi"], folder.path());
    let compare = ["compare", "-f", "vdi", "-F", "raw", "std.vdi", "new.raw"];
    qemu_img(&compare, folder.path());
}

fn top_args(path: &Path) -> (&'static dyn DiskFormat, OpenArgs) {
    let layer = open(path, Access::ReadWrite).unwrap().layers.remove(0);
    (layer.format, layer.args)
}

/// Has qemu-img look whether an image is sound and holds `content`.
#[track_caller]
fn qemu_agrees(path: &Path, content: &[u8]) {
    let folder = path.parent().unwrap();
    std::fs::write(folder.join("expected.raw"), content).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    qemu_img(&["check", "-f", "vdi", name], folder);
    let compare = ["compare", "-f", "vdi", "-F", "raw", name, "expected.raw"];
    qemu_img(&compare, folder);
}

#[test]
fn qemu_img_agrees_after_each_verb_of_upkeep() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vdi");
    let mut disk = vec![0; SIZE];
    for (block, bytes) in disk.chunks_mut(1 << 20).enumerate() {
        bytes.fill(block as u8 + 1);
    }
    std::fs::write(folder.path().join("disk.raw"), &disk).unwrap();
    let convert = ["convert", "-f", "raw", "-O", "vdi", "disk.raw", "disk.vdi"];
    qemu_img(&convert, folder.path());

    // The map that qemu-img made has room for 128 blocks: this takes places from the data.
    let (format, args) = top_args(&path);
    disk.resize(300 << 20, 0);
    format.resize(args, disk.len() as u64).unwrap();
    qemu_agrees(&path, &disk);

    disk[1 << 20..3 << 20].fill(0);
    write(&path, 1 << 20, &[0; 2 << 20]);
    disk[299 << 20] = 7;
    write(&path, 299 << 20, &[7]);
    let (format, args) = top_args(&path);
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    format.compact(args, task).unwrap();
    qemu_agrees(&path, &disk);

    let (format, args) = top_args(&path);
    disk.truncate((4 << 20) + 512);
    format.resize(args, disk.len() as u64).unwrap();
    qemu_agrees(&path, &disk);

    let (format, args) = top_args(&path);
    let settings = Settings {
        uuid: Some(Uuid::random()),
        comment: Some("after all that".to_owned()),
        ..Settings::default()
    };
    format.set(args, &settings).unwrap();
    qemu_agrees(&path, &disk);
}

#[test]
fn upkeep_of_two_tebibytes_takes_time_by_the_data() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vdi");
    create(&path, 2 << 40, None);
    let opened = open(&path, Access::ReadWrite).unwrap();
    for index in 0..64_u64 {
        let bytes = vec![if index % 2 == 0 { 0 } else { 9 }; 1 << 20];
        opened.chain.write_at(index << 35, &bytes).unwrap();
    }
    opened.chain.flush().unwrap();
    drop(opened);
    let start = Instant::now();
    let (format, args) = top_args(&path);
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    format.compact(args, task).unwrap();
    let compacted = start.elapsed();
    let (format, args) = top_args(&path);
    format.resize(args, 3 << 40).unwrap();
    let grown = start.elapsed();
    let (format, args) = top_args(&path);
    format.resize(args, 1 << 40).unwrap();
    eprintln!(
        "2 TiB: compacted in {compacted:?}, grown after {grown:?}, shrunk after {:?}",
        start.elapsed()
    );
    let (format, args) = top_args(&path);
    assert_eq!(format.check(args).unwrap().worst(), None);
    // The old map's room, the new one's, 16 blocks.
    let len = std::fs::metadata(&path).unwrap().len();
    assert_eq!(len >> 20, 9 + 12 + 16);
    qemu_img(&["check", "-f", "vdi", "disk.vdi"], folder.path());
}

#[test]
fn overlay_finds_its_parent_among_the_files_of_its_folder() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    create(&path("another.vdi"), SIZE as u64, None);
    create(&path("base.vdi"), SIZE as u64, None);
    std::fs::write(path("aaa-broken.vdi"), b"no image").unwrap();
    write(&path("base.vdi"), 100, &[1; 3 << 20]);
    create(&path("top.vdi"), SIZE as u64, Some(link(&path("base.vdi"))));
    create(
        &path("upper.vdi"),
        SIZE as u64,
        Some(link(&path("top.vdi"))),
    );
    assert_eq!(
        open(&path("upper.vdi"), Access::ReadOnly)
            .unwrap()
            .layers
            .len(),
        3
    );
    assert!(read_all(&path("upper.vdi")) == read_all(&path("base.vdi")));
    write(&path("upper.vdi"), 1 << 20, &[2; 10]);
    let mut expected = read_all(&path("base.vdi"));
    expected[1 << 20..(1 << 20) + 10].fill(2);
    assert!(read_all(&path("upper.vdi")) == expected);

    // An older copy of the parent has the same identity and another content: the right one counts.
    std::fs::copy(path("base.vdi"), path("zzz-right.vdi")).unwrap();
    write(&path("base.vdi"), 0, &[9]);
    assert!(read_all(&path("upper.vdi")) == expected);
    std::fs::remove_file(path("zzz-right.vdi")).unwrap();
    let error = open(&path("upper.vdi"), Access::ReadOnly).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.hint_text().unwrap().contains("changed"), "{error}");

    std::fs::remove_file(path("base.vdi")).unwrap();
    let error = open(&path("upper.vdi"), Access::ReadOnly).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hint_text().is_some(), "{error}");
}

#[test]
fn two_tebibytes_are_opened_walked_and_checked_at_once() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vdi");
    create(&path, 2 << 40, None);
    write(&path, (1 << 40) + 5, &[1; 100]);
    let start = Instant::now();
    let opened = open(&path, Access::ReadOnly).unwrap();
    let (mut offset, mut n_data) = (0, 0);
    while offset < 2 << 40 {
        let extent = opened.chain.next_extent(offset).unwrap();
        n_data += u64::from(extent.kind == ExtentKind::Data);
        offset = extent.end();
    }
    assert!(n_data >= 1);
    let layer = &opened.layers[0];
    let findings = layer.format.check(layer.args.clone()).unwrap();
    assert_eq!(findings.worst(), None, "{findings:?}");
    eprintln!("2 TiB walked and checked in {:?}", start.elapsed());
    qemu_img(&["check", "-f", "vdi", "disk.vdi"], folder.path());
}
