//! The whole driver against memory, qemu-img and itself: what the tests share.

mod check;
mod compact;
mod create;
mod cuts;
mod overlay;
mod read;
mod relink;
mod repair;
mod resize;
mod snapshot;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hako_block::{
    Access, BlockImage, ErrorKind, ExtentKind, FileStorage, Gate, GateRules, LockMode,
    MemoryFolder, MemoryStorage, ParentLink, Sink, StagedFolder, Storage, is_zero,
};

use super::Qcow2;
use crate::disk::{
    Allocation, Compression, CreateArgs, CreateOptions, DiskFormat, Findings, OpenArgs, Severity,
};
use crate::{OpenOptions, open_chain};

/// A small generator of numbers, the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 20) % end.max(1)
    }

    /// Bytes that compress somewhat.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            let word = self.below(1 << 40);
            let n = 1 + (word % 5) as usize;
            for _ in 0..n {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        bytes.truncate(len);
        bytes
    }

    /// A disk with data, zeros and noise in pieces of all sizes.
    pub fn disk(&mut self, len: usize) -> Vec<u8> {
        let mut disk = Vec::with_capacity(len);
        while disk.len() < len {
            let n = 1 << (9 + self.below(9));
            match self.below(4) {
                0 | 1 => disk.resize(disk.len() + n, 0),
                2 => disk.extend(self.bytes(n)),
                _ => disk.extend((0..n).map(|_| self.below(256) as u8)),
            }
        }
        disk.truncate(len);
        disk
    }
}

fn qemu_img(folder: &Path, args: &[&str]) -> String {
    run(folder, "qemu-img", args)
}

fn run(folder: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program} is part of the test machine (qemu-utils): {error}")
        });
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Passes if qemu-img finds neither errors nor leaks.
fn qemu_check(path: &Path) {
    let folder = path.parent().unwrap();
    qemu_img(folder, &["check", "-f", "qcow2", path.to_str().unwrap()]);
}

/// Passes if qemu-img and hako find neither errors nor leaks.
fn check_both(path: &Path) {
    qemu_check(path);
    let findings = check_file(path);
    assert!(findings.worst().is_none(), "{findings:?}");
}

fn check_file(path: &Path) -> Findings {
    let opened = Gate::open_user(path, Access::ReadOnly, &no_lock()).unwrap();
    Qcow2
        .check(OpenArgs {
            storage: opened.storage,
            name: opened.name,
            resolver: opened.resolver,
            access: Access::ReadOnly,
            salvage: false,
            snapshot: None,
        })
        .unwrap()
}

/// What qemu-img reads.
fn qemu_content(path: &Path) -> Vec<u8> {
    let folder = path.parent().unwrap();
    qemu_img(
        folder,
        &[
            "convert",
            "-f",
            "qcow2",
            "-O",
            "raw",
            path.to_str().unwrap(),
            "content.raw",
        ],
    );
    std::fs::read(folder.join("content.raw")).unwrap()
}

fn read_all(image: &dyn BlockImage) -> Vec<u8> {
    let mut bytes = vec![0xee; image.info().virtual_size as usize];
    // Odd pieces, so that runs begin and end anywhere.
    let mut at = 0;
    let mut step = 12345;
    while at < bytes.len() {
        let end = (at + step).min(bytes.len());
        image.read_at(at as u64, &mut bytes[at..end]).unwrap();
        at = end;
        step = step * 7 % 1_000_003 + 1;
    }
    bytes
}

/// The extent map must agree with the content, and cover the disk without gaps.
fn check_extents(image: &dyn BlockImage, content: &[u8]) {
    let mut at = 0;
    while at < content.len() as u64 {
        let extent = image.next_extent(at).unwrap();
        assert_eq!(extent.offset, at);
        assert!(extent.len > 0 && extent.end() <= content.len() as u64);
        if extent.kind != ExtentKind::Data {
            assert!(is_zero(&content[at as usize..extent.end() as usize]));
        }
        at = extent.end();
    }
}

/// Without locks: a program that another test starts inherits the file until it runs, and the
/// lock with it.
fn no_lock() -> GateRules {
    GateRules {
        no_lock: true,
        ..GateRules::default()
    }
}

fn open_file(path: &Path, access: Access) -> Box<dyn BlockImage> {
    try_open(path, access, None).unwrap()
}

fn try_open(
    path: &Path,
    access: Access,
    snapshot: Option<&str>,
) -> hako_block::Result<Box<dyn BlockImage>> {
    let opened = Gate::open_user(path, access, &no_lock())?;
    Qcow2.open(OpenArgs {
        storage: opened.storage,
        name: opened.name,
        resolver: opened.resolver,
        access,
        salvage: false,
        snapshot: snapshot.map(str::to_owned),
    })
}

fn open_memory(
    storage: Arc<dyn Storage>,
    access: Access,
) -> hako_block::Result<Box<dyn BlockImage>> {
    Qcow2.open(OpenArgs {
        storage,
        name: "disk.qcow2".into(),
        resolver: Arc::new(MemoryFolder::default()),
        access,
        salvage: false,
        snapshot: None,
    })
}

fn new_sink(
    storage: Arc<dyn Storage>,
    virtual_size: u64,
    options: CreateOptions,
) -> hako_block::Result<Box<dyn Sink>> {
    Qcow2.stream(CreateArgs {
        storage,
        name: "disk.qcow2".into(),
        outputs: &MemoryFolder::default(),
        virtual_size,
        parent: None,
        options,
    })
}

/// Delivers a disk as the pipeline does: zero units as zeros, the rest as data or encoded.
fn deliver(mut sink: Box<dyn Sink>, disk: &[u8], overlay_zeros: bool) {
    let unit = sink.unit_bytes() as usize;
    let encoder = sink.encoder();
    let mut at = 0;
    let mut random = Random::new(7);
    while at < disk.len() {
        let end = (at + unit).min(disk.len());
        if is_zero(&disk[at..end]) {
            // Every other hole is not delivered at all.
            if overlay_zeros || random.below(2) == 0 {
                sink.zero(at as u64..end as u64).unwrap();
            }
        } else if let Some(encoder) = &encoder {
            let mut out = Vec::new();
            encoder.encode(at as u64, &disk[at..end], &mut out).unwrap();
            sink.encoded(at as u64, &out).unwrap();
        } else {
            sink.data(at as u64, &disk[at..end]).unwrap();
        }
        at = end;
    }
    sink.finish().unwrap();
}

fn create_file(path: &Path, disk: &[u8], options: CreateOptions) {
    let staged = StagedFolder::new(path, true).unwrap();
    let sink = Qcow2
        .stream(CreateArgs {
            storage: staged.create_main().unwrap(),
            name: staged.main_name().to_owned(),
            outputs: &staged,
            virtual_size: disk.len() as u64,
            parent: None,
            options,
        })
        .unwrap();
    deliver(sink, disk, false);
    staged.commit().unwrap();
}

fn options(cluster_shift: u32, compression: Compression) -> CreateOptions {
    CreateOptions {
        unit_bytes: Some(1 << cluster_shift),
        compression: Some(compression),
        ..CreateOptions::default()
    }
}

/// Images as qemu-img makes them.
fn qemu_variants() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("compat=0.10", &[]),
        ("compat=0.10,cluster_size=512", &[]),
        ("compat=0.10,cluster_size=4k", &["-c"]),
        ("cluster_size=512,refcount_bits=1", &[]),
        ("cluster_size=1k,refcount_bits=2", &[]),
        ("cluster_size=4k,refcount_bits=4", &["-c"]),
        ("cluster_size=8k,refcount_bits=8", &["-c"]),
        ("cluster_size=64k,refcount_bits=32", &["-c"]),
        ("cluster_size=64k,refcount_bits=64", &[]),
        ("cluster_size=2M", &["-c"]),
        ("cluster_size=2M", &[]),
        ("compression_type=zstd", &["-c"]),
        ("compression_type=zstd,cluster_size=2M", &["-c"]),
        ("compression_type=zstd,cluster_size=512", &["-c"]),
        ("extended_l2=on", &[]),
        ("extended_l2=on,cluster_size=16k", &[]),
        ("extended_l2=on,cluster_size=128k", &["-c"]),
        ("lazy_refcounts=on", &[]),
        ("preallocation=metadata", &[]),
        ("preallocation=falloc", &[]),
        ("preallocation=full", &[]),
        ("data_file=data.bin", &[]),
        ("data_file=data.bin,data_file_raw=on", &[]),
    ]
}

fn make_with_qemu(folder: &Path, disk: &[u8], options: &str, flags: &[&str]) -> PathBuf {
    for name in ["disk.qcow2", "data.bin"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    std::fs::write(folder.join("disk.raw"), disk).unwrap();
    let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
    args.extend(flags);
    args.extend(["disk.raw", "disk.qcow2"]);
    qemu_img(folder, &args);
    folder.join("disk.qcow2")
}

/// Writes, zeroes and discards at random from several threads, each in its own stripes, and
/// keeps a model.
fn hammer(image: &dyn BlockImage, model: &mut [u8], seed: u64, n_steps: u64) {
    const STRIPE: usize = 10_752;
    let n_threads = 3;
    let mut lanes: Vec<Vec<(usize, &mut [u8])>> = (0..n_threads).map(|_| Vec::new()).collect();
    for (index, stripe) in model.chunks_mut(STRIPE).enumerate() {
        lanes[index % n_threads].push((index * STRIPE, stripe));
    }
    std::thread::scope(|scope| {
        for (thread, mut lane) in lanes.into_iter().enumerate() {
            scope.spawn(move || {
                let mut random = Random::new(seed * 100 + thread as u64);
                for _ in 0..n_steps {
                    let n_stripes = lane.len() as u64;
                    let (base, stripe) = &mut lane[random.below(n_stripes) as usize];
                    let start = random.below(stripe.len() as u64) as usize;
                    let len = 1 + random.below((stripe.len() - start) as u64) as usize;
                    let range = (*base + start) as u64..(*base + start + len) as u64;
                    step(image, &mut random, range, &mut stripe[start..start + len]);
                }
            });
        }
    });
}

fn step(image: &dyn BlockImage, random: &mut Random, range: Range<u64>, model: &mut [u8]) {
    match random.below(12) {
        0 => {
            image.write_zeroes(range).unwrap();
            model.fill(0);
        }
        1 => {
            image.discard(range.clone()).unwrap();
            // Reads as before or as zeros: what it is now is what it must stay.
            let before = model.to_vec();
            image.read_at(range.start, model).unwrap();
            for (now, before) in model.iter().zip(before) {
                assert!(*now == 0 || *now == before);
            }
        }
        2 => image.flush().unwrap(),
        3..=5 => {
            let mut bytes = vec![0; model.len()];
            image.read_at(range.start, &mut bytes).unwrap();
            assert!(bytes == model, "{range:?}");
        }
        _ => {
            let bytes = random.bytes(model.len());
            image.write_at(range.start, &bytes).unwrap();
            model.copy_from_slice(&bytes);
        }
    }
}
