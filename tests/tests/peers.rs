//! What hako writes is read identically by other implementations, and the other way round.

use std::path::{Path, PathBuf};

use hako_block::testkit::{qemu_checks, qemu_name};
use hako_block::{Access, BlockImage};
use hako_formats::{OpenOptions, open_chain};
use hako_tests::peers::{QemuImg, Reader};
use hako_tests::{Variant, convert, disk, disk_verb, hash, variants};

/// A folder with a raw disk whose size is no multiple of any unit.
struct World {
    folder: tempfile::TempDir,
    raw: PathBuf,
    content: String,
}

impl World {
    fn new() -> Self {
        Self::of_size((24 << 20) + 5 * 512)
    }

    fn of_size(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("disk.raw");
        disk::make_raw(&raw, size, 11);
        let content = disk::sha256(&raw);
        Self {
            folder,
            raw,
            content,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Options of convert that change how a variant stores data.
fn storing_options(variant: &Variant) -> Vec<Vec<&'static str>> {
    let mut options: Vec<Vec<&str>> = vec![vec![]];
    match (variant.format.as_str(), variant.subformat.as_str()) {
        ("qcow2", _) => {
            options.push(vec!["--compression", "zlib"]);
            options.push(vec!["--compression", "zstd"]);
            options.push(vec!["--cluster-size", "4K"]);
            options.push(vec!["--cluster-size", "2M"]);
            options.push(vec!["--allocation", "lazy"]);
        }
        ("vmdk", "streamOptimized") => {
            options.push(vec!["--level", "1"]);
            options.push(vec!["--level", "9"]);
        }
        ("vhdx", "dynamic") => {
            options.push(vec!["--allocation", "eager"]);
            options.push(vec!["--cluster-size", "1M"]);
            options.push(vec!["--cluster-size", "256M"]);
        }
        ("vmdk", "monolithicSparse" | "monolithicFlat") => {
            options.push(vec!["--allocation", "eager"]);
        }
        _ => {}
    }
    options
}

#[test]
fn every_qemu_img_reads_what_hako_writes() {
    let world = World::new();
    for variant in variants() {
        for options in storing_options(&variant) {
            let image = world.path(&variant.file_name("image"));
            let all = [&variant.options()[..], &options, &["--force"]].concat();
            convert(&world.raw, &image, &all);
            for qemu in QemuImg::every() {
                let what = format!("{variant:?} {options:?} by qemu-img {}", qemu.version);
                let content = qemu.hash(&image, &variant.format);
                assert_eq!(content, world.content, "{what}");
                if qemu_checks(&variant.format) {
                    qemu.ok(&["check", "-f", &variant.format, image.to_str().unwrap()]);
                }
            }
        }
    }
}

#[test]
fn readers_in_python_read_what_hako_writes() {
    // dissect fails at the end of a flat disk whose size is no multiple of 8 KiB.
    let world = World::of_size(24 << 20);
    for variant in variants() {
        let image = world.path(&variant.file_name("image"));
        convert(&world.raw, &image, &variant.options());
        for reader in Reader::ALL {
            let knows = match reader {
                Reader::Pyvmdk => variant.format == "vmdk",
                Reader::Pyvhdi => matches!(variant.format.as_str(), "vhd" | "vhdx"),
                Reader::Dissect => variant.format != "raw",
            };
            if let Some(content) = knows.then(|| reader.hash(&image)).flatten() {
                assert_eq!(content, world.content, "{variant:?} by {reader:?}");
            }
        }
    }
}

/// A differencing disk with blocks that are its own, zeros, and the parent's.
#[test]
fn pyvhdi_reads_a_differencing_chain_as_hako_does() {
    let world = World::of_size(24 << 20);
    let (base, top) = (world.path("base.vhd"), world.path("top.vhd"));
    convert(&world.raw, &base, &[]);
    disk_verb("create", &[&top], &["--parent", base.to_str().unwrap()]).ok();
    if let Some(content) = Reader::Pyvhdi.hash_chain(&[&top, &base]) {
        assert_eq!(content, world.content, "an empty overlay");
    }
    let options = OpenOptions {
        access: Access::ReadWrite,
        ..OpenOptions::default()
    };
    let opened = open_chain(&top, &options).unwrap();
    for (offset, len) in [(100, 5000), (7 << 20, 3 << 20), ((24 << 20) - 512, 512)] {
        opened.chain.write_at(offset, &vec![0x5a; len]).unwrap();
    }
    opened.chain.write_zeroes(12 << 20..15 << 20).unwrap();
    opened.chain.flush().unwrap();
    drop(opened);
    let ours = hash(&top, &[]);
    assert_ne!(ours, world.content);
    if let Some(content) = Reader::Pyvhdi.hash_chain(&[&top, &base]) {
        assert_eq!(content, ours);
    }
}

/// What qemu-img is told, and the file name that goes with it.
const MADE_BY_QEMU: &[(&str, &str, &[&str])] = &[
    ("vmdk", "", &["-o", "subformat=monolithicSparse"]),
    ("vmdk", "", &["-o", "subformat=monolithicFlat"]),
    ("vmdk", "", &["-o", "subformat=twoGbMaxExtentSparse"]),
    ("vmdk", "", &["-o", "subformat=twoGbMaxExtentFlat"]),
    ("vmdk", "", &["-o", "subformat=streamOptimized"]),
    ("vmdk", "", &["-o", "compat6,adapter_type=lsilogic"]),
    ("vmdk", "", &["-o", "zeroed_grain=on"]),
    ("qcow2", "", &["-o", "compat=0.10"]),
    ("qcow2", "", &["-o", "compat=1.1,lazy_refcounts=on"]),
    ("qcow2", "", &["-o", "cluster_size=512"]),
    ("qcow2", "", &["-o", "cluster_size=2M"]),
    ("qcow2", "", &["-o", "extended_l2=on,cluster_size=128k"]),
    ("qcow2", "", &["-o", "refcount_bits=1"]),
    ("qcow2", "", &["-o", "refcount_bits=64"]),
    ("qcow2", "", &["-o", "preallocation=metadata"]),
    ("qcow2", "", &["-c"]),
    ("qcow2", "", &["-c", "-o", "compression_type=zstd"]),
    ("qcow2", "", &["-c", "-o", "cluster_size=4k"]),
    ("qcow2", "data_file=", &[]),
    ("vdi", "", &[]),
    ("vdi", "", &["-o", "static=on"]),
    ("vhd", "", &["-o", "force_size=on"]),
    ("vhd", "", &["-o", "subformat=fixed,force_size=on"]),
    ("vhdx", "", &[]),
    ("vhdx", "", &["-o", "block_size=1M,log_size=2M"]),
    ("vhdx", "", &["-o", "block_state_zero=off"]),
    ("vhdx", "", &["-o", "subformat=fixed"]),
];

#[test]
fn hako_reads_what_every_qemu_img_writes() {
    let world = World::new();
    for qemu in QemuImg::every() {
        for (index, (format, extra, options)) in MADE_BY_QEMU.iter().enumerate() {
            let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
            let image = folder.path().join(format!("image-{index}.{format}"));
            let data = folder.path().join("data.bin");
            let data_option = format!("data_file={}", data.display());
            let mut args = vec!["convert", "-f", "raw", "-O", qemu_name(format)];
            args.extend(*options);
            if !extra.is_empty() {
                args.extend(["-o", &data_option]);
            }
            args.extend([world.raw.to_str().unwrap(), image.to_str().unwrap()]);
            qemu.ok(&args);
            let what = format!("{args:?} by qemu-img {}", qemu.version);
            assert_eq!(size_of(&image), (24 << 20) + 5 * 512, "{what}");
            assert_eq!(hash(&image, &[]), world.content, "{what}");
            disk_verb("check", &[&image], &["--data"]).ok();
            same_map(&qemu, &image, format);
        }
    }
}

fn size_of(image: &Path) -> u64 {
    let info = disk_verb("info", &[image], &["--json"]).json();
    info["virtual_size"].as_u64().unwrap()
}

/// What hako maps as data, qemu-img does too. (It is not so the other way round: hako sees the
/// holes of a flat extent's file.)
fn same_map(qemu: &QemuImg, image: &Path, format: &str) {
    let text = qemu.ok(&[
        "map",
        "-f",
        qemu_name(format),
        "--output=json",
        image.to_str().unwrap(),
    ]);
    let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ours = disk_verb("map", &[image], &["--json"]).json();
    let data = |map: &serde_json::Value| -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for extent in map.as_array().unwrap() {
            if extent["data"] != true {
                continue;
            }
            let start = extent["start"].as_u64().unwrap();
            let end = start + extent["length"].as_u64().unwrap();
            match runs.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => runs.push((start, end)),
            }
        }
        runs
    };
    let (theirs, ours) = (data(&theirs), data(&ours));
    let covered = |own: &(u64, u64)| theirs.iter().any(|run| run.0 <= own.0 && own.1 <= run.1);
    assert!(
        ours.iter().all(covered),
        "{}: qemu-img maps data {theirs:?}, hako {ours:?}",
        image.display()
    );
}

/// A chain: parent by hako, overlay by hako, written to by qemu-io, read by all.
#[test]
fn overlay_that_qemu_wrote_to_reads_the_same() {
    let world = World::new();
    let Some(qemu) = QemuImg::any() else { return };
    for (format, options) in [
        ("vmdk", &["--subformat", "monolithicSparse"][..]),
        ("qcow2", &[]),
    ] {
        let base = world.path(&format!("base.{format}"));
        let top = world.path(&format!("top.{format}"));
        convert(&world.raw, &base, options);
        disk_verb("create", &[&top], &["--parent", base.to_str().unwrap()]).ok();
        assert_eq!(hash(&top, &[]), world.content, "empty overlay, {format}");
        let io = hako_tests::run_program(
            "qemu-io",
            &[
                "-f",
                format,
                "-c",
                "write -P 0x5a 100k 300k",
                "-c",
                "write -z 2M 1M",
                "-c",
                "write -P 0x11 24117248 512",
                top.to_str().unwrap(),
            ],
        );
        assert_eq!(io.code, Some(0), "{}{}", io.stdout, io.stderr);
        let content = qemu.hash(&top, format);
        assert_ne!(content, world.content);
        assert_eq!(hash(&top, &[]), content, "overlay of {format}");
        let flat = world.path(&format!("flat-{format}.raw"));
        convert(&top, &flat, &[]);
        assert_eq!(disk::sha256(&flat), content, "flattened {format}");
        disk_verb("check", &[&top], &[]).ok();
    }
}

/// Split at 2047 MiB: extents in order, each as long as its line says.
#[test]
fn qemu_reads_a_disk_split_into_many_files() {
    let world = tempfile::tempdir().unwrap();
    let raw = world.path().join("disk.raw");
    let file = std::fs::File::create(&raw).unwrap();
    file.set_len(5 << 30).unwrap();
    let mut rng = hako_block::testkit::Rng::new(12);
    for offset in [
        0,
        (2047 << 20) - 70_000,
        (4094u64 << 20) - 70_000,
        (5 << 30) - 70_000,
    ] {
        let bytes = rng.bytes(if offset == 0 { 140_000 } else { 70_000 });
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, offset).unwrap();
    }
    for variant in variants() {
        if !variant.subformat.starts_with("twoGb") {
            continue;
        }
        let image = world.path().join(variant.file_name("image"));
        convert(&raw, &image, &variant.options());
        for qemu in QemuImg::every() {
            let (raw, image) = (raw.to_str().unwrap(), image.to_str().unwrap());
            qemu.ok(&["compare", "-f", "raw", "-F", "vmdk", raw, image]);
        }
    }
}
