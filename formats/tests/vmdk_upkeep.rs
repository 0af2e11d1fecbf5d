//! VMDKs of other makers, changed in place: their content stays, and qemu-img reads the result.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use hako_block::{Access, Cancel, Gate, GateRules, NoProgress, Result, Uuid};
use hako_formats::{
    Adapter, DiskFormat, OpenArgs, OpenOptions, Repair, Settings, Task, format_named,
};

const MIB: u64 = 1 << 20;

fn vmdk() -> &'static dyn DiskFormat {
    format_named("vmdk").unwrap()
}

fn args(path: &Path) -> OpenArgs {
    let options = OpenOptions {
        access: Access::ReadWrite,
        ..OpenOptions::default()
    };
    options.args(Gate::open_user(path, Access::ReadWrite, &GateRules::default()).unwrap())
}

fn size(path: &Path) -> u64 {
    let options = OpenOptions::default();
    let opened = Gate::open_user(path, Access::ReadOnly, &GateRules::default()).unwrap();
    let image = vmdk().open(options.args(opened)).unwrap();
    image.info().virtual_size
}

fn qemu_img(args: &[&str]) -> String {
    let output = Command::new("qemu-img").args(args).output();
    let output = output.expect("qemu-img is part of the test machine: apt install qemu-utils");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {said}");
    said
}

/// Copies every file beside an image, as one of several files has them there.
fn copy(image: &Path, folder: &Path) -> PathBuf {
    let stem = image.file_stem().unwrap().to_str().unwrap();
    for entry in std::fs::read_dir(image.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with(stem) {
            std::fs::copy(&path, folder.join(name)).unwrap();
        }
    }
    folder.join(image.file_name().unwrap())
}

/// The real images that are small, and what qemu-img makes.
fn images(folder: &Path) -> Vec<PathBuf> {
    let mut images = Vec::new();
    match std::env::var_os("HAKO_CORPUS").map(PathBuf::from) {
        Some(corpus) => {
            for name in [
                "vmdk-rs/monolithicSparse.vmdk",
                "vmdk-rs/twoGbMaxExtentSparse.vmdk",
                "vmdk-rs/streamOptimized.vmdk",
                "vmdk-rs/vmfs_thick.vmdk",
                "virtualbox-made/std.vmdk",
                "virtualbox-made/stream.vmdk",
                "dfvfs/ext2.vmdk",
            ] {
                images.push(corpus.join(name));
            }
        }
        None => eprintln!("skipped: HAKO_CORPUS is not set, real images are NOT tested"),
    }
    let raw = folder.join("content.raw");
    let mut content = vec![0; 5 << 20];
    for (at, byte) in content
        .iter_mut()
        .enumerate()
        .skip(MIB as usize)
        .take(1 << 20)
    {
        *byte = (at % 251) as u8;
    }
    std::fs::write(&raw, content).unwrap();
    for subformat in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        let target = folder.join(format!("{subformat}-by-qemu.vmdk"));
        let option = format!("subformat={subformat}");
        let (raw, made) = (raw.to_str().unwrap(), target.to_str().unwrap());
        qemu_img(&[
            "convert", "-f", "raw", "-O", "vmdk", "-o", &option, raw, made,
        ]);
        images.push(target);
    }
    images
}

/// qemu reads the same from both, as far as the smaller one goes, and zeros beyond.
fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (one.to_str().unwrap(), other.to_str().unwrap());
    qemu_img(&["compare", "-f", "vmdk", "-F", "vmdk", one, other]);
}

fn assert_sound(path: &Path) {
    let check = qemu_img(&["check", "-f", "vmdk", path.to_str().unwrap()]);
    assert!(check.contains("No errors"), "{}: {check}", path.display());
    let findings = vmdk().check(args(path)).unwrap();
    let list = &findings.list;
    assert_eq!(findings.n_corruptions, 0, "{}: {list:#?}", path.display());
}

/// A program that one test starts holds, until it runs, the locks on the files of all others.
static ONE: Mutex<()> = Mutex::new(());

fn each(change: impl Fn(&Path, bool) -> Result<()>) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    for original in images(folder.path()) {
        let place = tempfile::tempdir().unwrap();
        let image = copy(&original, place.path());
        let name = original.file_name().unwrap().to_str().unwrap();
        let is_stream = name.starts_with("stream");
        change(&image, is_stream).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_sound(&image);
        assert_same(&original, &image);
    }
}

#[test]
fn settings_change_and_the_content_stays() {
    each(|image, _| {
        let settings = Settings {
            adapter: Some(Adapter::BusLogic),
            hw_version: Some(13),
            tools_version: Some(10_000),
            uuid: Some(Uuid::random()),
            comment: Some("by hako, and not too long".to_owned()),
        };
        vmdk().set(args(image), &settings)
    });
}

#[test]
fn compact_and_repair_keep_the_content() {
    each(|image, is_stream| {
        let done = vmdk().repair(args(image), Repair::All)?;
        assert!(!is_stream || done.is_empty(), "{done:?}");
        if is_stream {
            return Ok(());
        }
        let task = Task {
            progress: &NoProgress,
            cancel: &Cancel::default(),
        };
        vmdk().compact(args(image), task)?;
        vmdk().compact(args(image), task)
    });
}

#[test]
fn disks_grow_and_shrink_and_the_content_stays() {
    each(|image, is_stream| {
        if is_stream {
            return Ok(());
        }
        let old = size(image);
        for new in [old + 512, old + 100 * MIB, old + 3000 * MIB, old] {
            vmdk().resize(args(image), new)?;
            assert_eq!(size(image), new);
            assert_sound(image);
        }
        Ok(())
    });
}

#[test]
fn end_of_a_stream_that_was_cut_off_is_made_anew() {
    let Some(corpus) = std::env::var_os("HAKO_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: HAKO_CORPUS is not set, real images are NOT tested");
        return;
    };
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let original = corpus.join("virtualbox-made/stream.vmdk");
    for lost in [512, 1024, 1536] {
        let place = tempfile::tempdir().unwrap();
        let image = copy(&original, place.path());
        let bytes = std::fs::read(&original).unwrap();
        std::fs::write(&image, &bytes[..bytes.len() - lost]).unwrap();
        let done = vmdk().repair(args(&image), Repair::All).unwrap();
        assert!(!done.is_empty(), "{lost}");
        assert!(std::fs::read(&image).unwrap() == bytes, "{lost}");
    }
}
