//! Images that qemu-img made, in layouts that hako itself does not create, are read and written
//! in place as safely as its own.

use std::path::Path;
use std::process::Command;

use hako_block::testkit::{
    FaultFolder, Rng, SparseBytes, Subject, conformance_of_existing, qemu_name,
};
use hako_block::{Access, BlockImage, Result};
use hako_formats::{OpenArgs, format_named};

use super::variant::Variant;
use super::{effort, run_each};

/// Bytes of the disk: no multiple of any unit.
const SIZE: usize = (1 << 20) + 3 * 512;

/// Format, subformat, and the options of `qemu-img convert`.
const LAYOUTS: &[(&str, &str, &[&str])] = &[
    ("qcow2", "v2", &["-o", "compat=0.10"]),
    ("qcow2", "v3", &["-o", "lazy_refcounts=on"]),
    ("qcow2", "v3", &["-o", "cluster_size=512"]),
    ("qcow2", "v3", &["-o", "cluster_size=2M"]),
    ("qcow2", "v3", &["-o", "extended_l2=on,cluster_size=16k"]),
    (
        "qcow2",
        "v3",
        &[
            "-o",
            "extended_l2=on,cluster_size=64k,preallocation=metadata",
        ],
    ),
    ("qcow2", "v3", &["-o", "refcount_bits=1"]),
    ("qcow2", "v3", &["-o", "refcount_bits=64,cluster_size=4k"]),
    ("qcow2", "v3", &["-o", "preallocation=metadata"]),
    ("qcow2", "v3", &["-c"]),
    ("qcow2", "v2", &["-c", "-o", "compat=0.10,cluster_size=4k"]),
    ("qcow2", "v3", &["-c", "-o", "compression_type=zstd"]),
    (
        "qcow2",
        "v3",
        &["-c", "-o", "extended_l2=on,cluster_size=16k"],
    ),
    ("qcow2", "v3", &["-o", "data_file=data.bin"]),
    (
        "qcow2",
        "v3",
        &["-o", "data_file=data.bin,data_file_raw=on"],
    ),
    ("vhd", "dynamic", &["-o", "force_size=on"]),
    ("vhd", "fixed", &["-o", "subformat=fixed,force_size=on"]),
    ("vmdk", "monolithicSparse", &[]),
    ("vmdk", "monolithicSparse", &["-o", "zeroed_grain=on"]),
    ("vmdk", "monolithicSparse", &["-o", "compat6=on"]),
    (
        "vmdk",
        "twoGbMaxExtentSparse",
        &["-o", "subformat=twoGbMaxExtentSparse"],
    ),
    (
        "vmdk",
        "monolithicFlat",
        &["-o", "subformat=monolithicFlat"],
    ),
    (
        "vmdk",
        "streamOptimized",
        &["-o", "subformat=streamOptimized"],
    ),
    ("vhdx", "dynamic", &["-o", "block_size=1M"]),
    ("vhdx", "dynamic", &["-o", "block_state_zero=off"]),
    ("vhdx", "fixed", &["-o", "subformat=fixed,block_size=1M"]),
    ("vdi", "dynamic", &[]),
    ("vdi", "fixed", &["-o", "static=on"]),
];

#[track_caller]
fn qemu_img(folder: &Path, args: &[&str]) {
    let output = Command::new("qemu-img")
        .current_dir(folder)
        .args(args)
        .output()
        .expect("qemu-img is installed (tests/run does that)");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {text}");
}

/// A disk with data, zeros and holes.
fn content() -> Vec<u8> {
    let mut rng = Rng::new(17);
    let mut bytes = vec![0; SIZE];
    let mut offset = 0;
    while offset < SIZE {
        let len = (rng.below(1..120_000) as usize).min(SIZE - offset);
        if rng.one_in(2) {
            bytes[offset..offset + len].copy_from_slice(&rng.bytes(len));
        }
        offset += len;
    }
    bytes
}

/// Returns the folder that qemu-img wrote, in memory; `then` may do more to the image.
fn made_by_qemu(format: &str, options: &[&str], then: &[&str]) -> (FaultFolder, Vec<u8>) {
    let scratch = tempfile::tempdir().unwrap();
    let content = content();
    std::fs::write(scratch.path().join("source.bin"), &content).unwrap();
    let name = format!("disk.{format}");
    let mut args = vec!["convert", "-f", "raw", "-O", qemu_name(format)];
    args.extend(options);
    args.extend(["source.bin", &name]);
    qemu_img(scratch.path(), &args);
    if !then.is_empty() {
        qemu_img(scratch.path(), &[then, &[&name]].concat());
    }
    let folder = FaultFolder::default();
    for entry in std::fs::read_dir(&scratch).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name != "source.bin" {
            let bytes = std::fs::read(entry.path()).unwrap();
            folder.insert(&name, SparseBytes::from_bytes(&bytes));
        }
    }
    (folder, content)
}

fn variant(format: &str, subformat: &str, label: String) -> Variant {
    let format = format_named(format).expect("in the registry");
    let subformat = format
        .subformats()
        .iter()
        .find(|known| known.name == subformat)
        .expect("a subformat of it");
    let mut variant = Variant::new(format, subformat);
    variant.label = label;
    variant
}

/// `HAKO_SUBJECT=part-of-a-name` runs only the layouts so named.
#[test]
fn every_layout_that_qemu_makes_conforms() {
    let wanted = std::env::var("HAKO_SUBJECT").unwrap_or_default();
    let name = |(format, subformat, options): &(&str, &str, &[&str])| {
        format!("{format} {subformat} by qemu-img {}", options.join(" "))
    };
    let layouts: Vec<_> = LAYOUTS
        .iter()
        .filter(|layout| name(layout).contains(&wanted))
        .collect();
    run_each(
        &layouts,
        |(format, subformat, options)| format!("{format} {subformat} {options:?}"),
        |layout| {
            let (format, subformat, options) = layout;
            let (folder, content) = made_by_qemu(format, options, &[]);
            let subject = variant(format, subformat, name(layout));
            conformance_of_existing(&subject, &folder, &content, effort());
        },
    );
}

/// Clusters that a snapshot shares are copied before they are written.
#[test]
fn writes_leave_an_internal_snapshot_alone() {
    for options in [
        &["-o", "cluster_size=4k"][..],
        &["-c"],
        &["-o", "extended_l2=on,cluster_size=16k"],
    ] {
        let (folder, content) = made_by_qemu("qcow2", options, &["snapshot", "-c", "before"]);
        let subject = variant("qcow2", "v3", format!("qcow2 with a snapshot, {options:?}"));
        conformance_of_existing(&subject, &folder, &content, effort());
        let image = subject
            .open(&folder, "disk.qcow2", Access::ReadWrite)
            .expect("opens");
        let mut rng = Rng::new(3);
        for _ in 0..100 {
            let offset = rng.below(0..SIZE as u64 - 40_000);
            let len = rng.below(1..40_000);
            if rng.one_in(4) {
                image.discard(offset..offset + len).expect("discards");
            } else {
                let bytes = rng.bytes(len as usize);
                image.write_at(offset, &bytes).expect("writes");
            }
        }
        image.flush().expect("flushes");
        drop(image);
        let report = subject.check(&folder, "disk.qcow2").expect("checks");
        assert_eq!(report.map(|report| report.corruptions), Some(Vec::new()));
        let mut got = vec![0; SIZE];
        let snapshot = open_snapshot(&subject, &folder, "before").expect("opens the snapshot");
        snapshot.read_at(0, &mut got).expect("reads the snapshot");
        assert!(got == content, "{options:?}: the snapshot changed");
    }
}

fn open_snapshot(
    subject: &Variant,
    folder: &FaultFolder,
    name: &str,
) -> Result<Box<dyn BlockImage>> {
    let args = Variant::open_args(folder, "disk.qcow2", Access::ReadOnly)?;
    subject.format.open(OpenArgs {
        snapshot: Some(name.to_owned()),
        ..args
    })
}
