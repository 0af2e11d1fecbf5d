//! Large disks: little memory, little space, no work for what is not there; sizes that a format
//! cannot hold are refused.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hako_block::testkit::Rng;
use hako_tests::{Variant, all, disk, disk_verb, measure, names, run, variants};

/// The most memory that any command may take.
const MAX_MEMORY: u64 = 100 << 20;

fn measured_convert(from: &Path, to: &Path, options: &[&str]) {
    let mut args = vec!["disk".as_ref(), "convert".as_ref()];
    args.extend([from.as_os_str(), to.as_os_str()]);
    args.extend(options.iter().map(std::ffi::OsStr::new));
    let (run, peak) = measure(&args);
    let line = run.line.clone();
    run.ok();
    assert!(peak < MAX_MEMORY, "{line} took {peak} bytes of memory");
}

/// A huge disk with a little data all over it, so that every table of a format has entries.
fn make_scattered(path: &Path, size: u64, n: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut rng = Rng::new(4);
    for index in 0..n {
        let offset = size / n * index + rng.below(0..size / n - 8192) / 4096 * 4096;
        file.write_all_at(&rng.bytes(4096), offset).unwrap();
    }
}

#[test]
fn memory_does_not_grow_with_the_disk() {
    let world = tempfile::tempdir().unwrap();
    let scattered = world.path().join("scattered.raw");
    let dense = world.path().join("dense.raw");
    make_scattered(&scattered, if all() { 1 << 40 } else { 64 << 30 }, 2000);
    disk::make_dense(&dense, if all() { 1 << 30 } else { 110 << 20 }, 5);
    for variant in variants() {
        for source in [&scattered, &dense] {
            let folder = tempfile::tempdir_in(world.path()).unwrap();
            let there = folder.path().join(variant.file_name("there"));
            let back = folder.path().join("back.raw");
            measured_convert(source, &there, &variant.options());
            measured_convert(&there, &back, &["--from", &variant.format]);
            let options = ["--from", "raw", "--from-b", "raw"];
            disk_verb("compare", &[source, &back], &options).ok();
        }
    }
}

fn space_in(folder: &Path) -> u64 {
    names(folder)
        .iter()
        .map(|name| disk::allocated(&folder.join(name)))
        .sum()
}

/// The time is the bench's business; here: no space is taken, so nothing was written.
#[test]
fn empty_disk_of_two_tebibytes_converts_to_anything_and_takes_no_space() {
    const SIZE: &str = "1.9T";
    let is_split = |variant: &Variant| variant.subformat.starts_with("twoGb");
    let variants: Vec<_> = variants()
        .into_iter()
        .filter(|form| !is_split(form))
        .collect();
    for from in &variants {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join(from.file_name("source"));
        let args = ["disk", "create", source.to_str().unwrap(), SIZE];
        run(&[&args[..], &from.options()].concat()).ok();
        for to in &variants {
            if !all() && from.format != "raw" && to.format != "raw" {
                continue;
            }
            let inner = tempfile::tempdir().unwrap();
            let target = inner.path().join(to.file_name("target"));
            let options = [&to.options()[..], &["--from", &from.format]].concat();
            measured_convert(&source, &target, &options);
            let space = space_in(inner.path());
            // The tables of VHD and VDI say in so many words that there is nothing: 4 and 8 MiB.
            assert!(space < 10 << 20, "{from:?} to {to:?}: {space} bytes");
            let options = ["--from", &from.format, "--from-b", &to.format];
            disk_verb("compare", &[&source, &target], &options).ok();
        }
    }
}

/// Split formats, and the places where offsets outgrow 31 and 32 bits.
#[test]
fn disk_of_five_gibibytes_survives_every_format() {
    let world = tempfile::tempdir().unwrap();
    let source = world.path().join("source.raw");
    let file = File::create(&source).unwrap();
    file.set_len((5 << 30) + 512).unwrap();
    let mut rng = Rng::new(6);
    for middle in [0, 2047 << 20, 2 << 30, 4094 << 20, 4 << 30] {
        let start = u64::saturating_sub(middle, 100_000);
        file.write_all_at(&rng.bytes(200_000), start).unwrap();
    }
    file.write_all_at(&rng.bytes(512), 5 << 30).unwrap();
    for variant in variants() {
        let folder = tempfile::tempdir_in(world.path()).unwrap();
        let there = folder.path().join(variant.file_name("there"));
        let back = folder.path().join("back.raw");
        measured_convert(&source, &there, &variant.options());
        measured_convert(&there, &back, &["--from", &variant.format]);
        let options = ["--from", "raw", "--from-b", "raw"];
        disk_verb("compare", &[&source, &back], &options).ok();
        let space = space_in(folder.path());
        assert!(space < 32 << 20, "{variant:?}: {space} bytes");
    }
}

/// Sizes whose full content the format could not address, and sizes that are none.
#[test]
fn size_that_a_format_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cases: &[(&str, &str, &[&str])] = &[
        ("a.vmdk", "3T", &["--subformat", "monolithicSparse"]),
        ("b.vmdk", "3T", &["--subformat", "streamOptimized"]),
        ("c.vmdk", "100T", &["--subformat", "monolithicFlat"]),
        ("d.qcow2", "1024T", &["--unit", "512"]),
        ("e.raw", "9000000T", &[]),
        ("f.vmdk", "1000", &[]),
        ("g.qcow2", "513", &[]),
    ];
    for (name, size, options) in cases {
        let path = folder.path().join(name);
        let args = ["disk", "create", path.to_str().unwrap(), size];
        run(&[&args[..], options].concat()).refused();
        assert!(names(folder.path()).is_empty(), "{name}");
    }
}
