//! The whole driver against memory, qemu-img and itself.

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

#[test]
fn what_we_create_passes_qemu_img_check_and_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    for cluster_shift in [9, 12, 14, 16, 18, 21] {
        for compression in [Compression::None, Compression::Zlib, Compression::Zstd] {
            // 512-byte clusters: enough to need many refcount blocks and L2 tables.
            let disk = Random::new(u64::from(cluster_shift)).disk(6_000_128);
            create_file(&path, &disk, options(cluster_shift, compression));
            check_both(&path);
            assert!(
                qemu_content(&path) == disk,
                "2^{cluster_shift} {compression:?}: qemu-img"
            );
            let image = open_file(&path, Access::ReadOnly);
            let content = read_all(&*image);
            assert!(content == disk, "2^{cluster_shift} {compression:?}: hako");
            check_extents(&*image, &disk);
        }
    }
}

#[test]
fn preallocated_images_pass_qemu_img_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let disk = Random::new(3).disk(5_000_192);
    for allocation in [Allocation::Lazy, Allocation::Eager] {
        for cluster_shift in [9, 16] {
            let options = CreateOptions {
                allocation,
                ..options(cluster_shift, Compression::None)
            };
            create_file(&path, &disk, options);
            check_both(&path);
            assert!(qemu_content(&path) == disk);
            let image = open_file(&path, Access::ReadOnly);
            assert!(read_all(&*image) == disk);
            check_extents(&*image, &disk);
            assert!(std::fs::metadata(&path).unwrap().len() > disk.len() as u64);
        }
    }
}

#[test]
fn old_bytes_of_the_target_are_never_seen() {
    let disk = Random::new(11).disk(3_000_320);
    for (shift, compression, allocation) in [
        (12, Compression::None, Allocation::Thin),
        (16, Compression::Zstd, Allocation::Thin),
        (16, Compression::None, Allocation::Lazy),
        (9, Compression::None, Allocation::Eager),
    ] {
        let storage = Arc::new(MemoryStorage::new("device", vec![0x5a; 16 << 20]));
        let options = CreateOptions {
            allocation,
            ..options(shift, compression)
        };
        deliver(
            new_sink(storage.clone(), disk.len() as u64, options).unwrap(),
            &disk,
            false,
        );
        let image = open_memory(storage, Access::ReadOnly).unwrap();
        assert!(
            read_all(&*image) == disk,
            "2^{shift} {compression:?} {allocation:?}"
        );
    }
}

#[test]
fn empty_image_of_two_tebibytes_is_small_and_walked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let size = 2 << 40;
    let file = std::fs::File::create_new(&path).unwrap();
    drop(file);
    let storage = FileStorage::open(&path, Access::ReadWrite, LockMode::None).unwrap();
    let started = std::time::Instant::now();
    new_sink(Arc::new(storage), size, CreateOptions::default())
        .unwrap()
        .finish()
        .unwrap();
    let image = open_file(&path, Access::ReadOnly);
    let mut at = 0;
    while at < size {
        let extent = image.next_extent(at).unwrap();
        assert_eq!(extent.kind, ExtentKind::Hole);
        at = extent.end();
    }
    assert!(
        started.elapsed().as_millis() < 1000,
        "{:?}",
        started.elapsed()
    );
    assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
    drop(image);
    check_both(&path);
}

#[test]
fn sizes_that_cannot_be_addressed_are_refused() {
    for (shift, size, fits) in [
        (9, 64_u64 << 30, true),
        (9, 128 << 30, false),
        (12, 4 << 40, true),
        (12, 9 << 40, false),
        (16, 1 << 50, true),
        (16, 1 << 60, false),
    ] {
        let storage = Arc::new(MemoryStorage::new("disk", Vec::new()));
        let sink = new_sink(storage, size, options(shift, Compression::None));
        assert_eq!(sink.is_ok(), fits, "2^{shift}, {size} bytes");
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

#[test]
fn images_of_qemu_img_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Random::new(21).disk(4_000_768);
    for (options, flags) in qemu_variants() {
        let path = make_with_qemu(folder.path(), &disk, options, flags);
        let image = open_file(&path, Access::ReadOnly);
        assert!(read_all(&*image) == disk, "{options} {flags:?}");
        check_extents(&*image, &disk);
    }
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

#[test]
fn random_writes_from_several_threads_leave_an_image_that_qemu_img_accepts() {
    let folder = tempfile::tempdir().unwrap();
    for (seed, (options, flags)) in qemu_variants().into_iter().enumerate() {
        let mut model = Random::new(seed as u64).disk(4_000_768);
        let path = make_with_qemu(folder.path(), &model, options, flags);
        for round in 0..3 {
            let image = open_file(&path, Access::ReadWrite);
            hammer(&*image, &mut model, seed as u64 * 10 + round, 60);
            for whole in [0..1_000_000, 2_500_000..4_000_768] {
                if round == 1 {
                    image.write_zeroes(whole.clone()).unwrap();
                    model[whole.start as usize..whole.end as usize].fill(0);
                }
            }
            assert!(
                read_all(&*image) == model,
                "{options} {flags:?}: before the flush"
            );
            image.flush().unwrap();
            assert!(
                read_all(&*image) == model,
                "{options} {flags:?}: after the flush"
            );
            check_extents(&*image, &model);
            drop(image);
            check_both(&path);
            assert!(
                qemu_content(&path) == model,
                "{options} {flags:?}: qemu-img"
            );
        }
    }
}

#[test]
fn snapshots_are_listed_readable_and_survive_writes() {
    let folder = tempfile::tempdir().unwrap();
    for options in [
        "compat=0.10",
        "cluster_size=4k",
        "extended_l2=on",
        "refcount_bits=2",
        "compression_type=zstd",
    ] {
        let flags: &[&str] = if options.contains("zstd") {
            &["-c"]
        } else {
            &[]
        };
        let old = Random::new(31).disk(3_000_320);
        let path = make_with_qemu(folder.path(), &old, options, flags);
        qemu_img(folder.path(), &["snapshot", "-c", "before", "disk.qcow2"]);
        let mut model = old.clone();
        for round in 0..2 {
            let image = open_file(&path, Access::ReadWrite);
            hammer(&*image, &mut model, 77 + round, 80);
            image.flush().unwrap();
            drop(image);
            check_both(&path);
            assert!(qemu_content(&path) == model, "{options}");
        }
        for name in ["before", "1"] {
            let snapshot = try_open(&path, Access::ReadOnly, Some(name)).unwrap();
            assert!(read_all(&*snapshot) == old, "{options}: snapshot {name}");
        }
        let info = open_file(&path, Access::ReadOnly).info().clone();
        assert!(format!("{:?}", info.details).contains("before"), "{info:?}");
        let error = try_open(&path, Access::ReadOnly, Some("other"))
            .err()
            .unwrap();
        assert!(error.hint_text().unwrap().contains("before"));
        qemu_img(folder.path(), &["snapshot", "-a", "before", "disk.qcow2"]);
        check_both(&path);
        assert!(read_all(&*open_file(&path, Access::ReadOnly)) == old);
        qemu_img(folder.path(), &["snapshot", "-d", "before", "disk.qcow2"]);
        check_both(&path);
    }
}

#[test]
fn overlays_show_their_parent_and_hide_it_where_they_say_zero() {
    let folder = tempfile::tempdir().unwrap();
    let base = Random::new(41).disk(2_000_384);
    make_with_qemu(folder.path(), &base, "compat=1.1", &[]);
    std::fs::rename(
        folder.path().join("disk.qcow2"),
        folder.path().join("base.qcow2"),
    )
    .unwrap();
    for (options, format) in [
        ("compat=0.10", "qcow2"),
        ("compat=1.1", "qcow2"),
        ("extended_l2=on,cluster_size=32k", "qcow2"),
    ] {
        let path = folder.path().join("top.qcow2");
        qemu_img(
            folder.path(),
            &[
                "create",
                "-f",
                "qcow2",
                "-o",
                options,
                "-b",
                "base.qcow2",
                "-F",
                format,
                "top.qcow2",
            ],
        );
        let mut model = base.clone();
        let open_options = OpenOptions {
            access: Access::ReadWrite,
            rules: no_lock(),
            ..OpenOptions::default()
        };
        for round in 0..2 {
            let opened = open_chain(&path, &open_options).unwrap();
            hammer(&opened.chain, &mut model, 50 + round, 50);
            assert!(read_all(&opened.chain) == model, "{options}");
            opened.chain.flush().unwrap();
            drop(opened);
            check_both(&path);
            assert!(qemu_content(&path) == model, "{options}: qemu-img");
        }
    }
}

#[test]
fn overlays_that_we_create_name_their_parent_and_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let base = Random::new(43).disk(2_000_384);
    make_with_qemu(folder.path(), &base, "compat=1.1", &[]);
    std::fs::rename(
        folder.path().join("disk.qcow2"),
        folder.path().join("ba:se.qcow2"),
    )
    .unwrap();
    let path = folder.path().join("top.qcow2");
    let staged = StagedFolder::new(&path, false).unwrap();
    let mut sink = Qcow2
        .stream(CreateArgs {
            storage: staged.create_main().unwrap(),
            name: "top.qcow2".into(),
            outputs: &staged,
            virtual_size: base.len() as u64,
            parent: Some(ParentLink {
                name: "ba:se.qcow2".into(),
                format: Some("qcow2".into()),
                ..ParentLink::default()
            }),
            options: CreateOptions::default(),
        })
        .unwrap();
    sink.data(65536, &[7; 65536]).unwrap();
    sink.zero(196_608..327_680).unwrap();
    sink.finish().unwrap();
    staged.commit().unwrap();
    let mut model = base;
    model[65536..131_072].fill(7);
    model[196_608..327_680].fill(0);
    check_both(&path);
    assert!(qemu_content(&path) == model);
    let opened = open_chain(
        &path,
        &OpenOptions {
            rules: no_lock(),
            ..OpenOptions::default()
        },
    )
    .unwrap();
    assert!(read_all(&opened.chain) == model);
}

#[test]
fn parents_behind_a_protocol_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "nbd://localhost/x",
        "json:{\"driver\":\"null-co\"}",
        "nbd:unix:/tmp/x",
    ] {
        let path = folder.path().join("top.qcow2");
        qemu_img(
            folder.path(),
            &[
                "create",
                "-f",
                "qcow2",
                "-u",
                "-b",
                name,
                "-F",
                "raw",
                "top.qcow2",
                "1M",
            ],
        );
        let error = open_chain(
            &path,
            &OpenOptions {
                rules: no_lock(),
                ..OpenOptions::default()
            },
        )
        .err()
        .unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("protocol"), "{error}");
    }
}

#[test]
fn bitmaps_are_listed_and_marked_stale_by_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = make_with_qemu(folder.path(), &vec![1; 1 << 20], "compat=1.1", &[]);
    qemu_img(folder.path(), &["bitmap", "--add", "disk.qcow2", "changed"]);
    let image = open_file(&path, Access::ReadWrite);
    assert!(format!("{:?}", image.info().details).contains("changed"));
    image.write_at(5, b"x").unwrap();
    image.flush().unwrap();
    drop(image);
    assert_eq!(std::fs::read(&path).unwrap()[88..96], [0; 8]);
    let oddities = open_file(&path, Access::ReadOnly).info().oddities.clone();
    assert!(
        oddities.iter().any(|text| text.contains("stale")),
        "{oddities:?}"
    );
}

#[test]
fn refcount_table_grows() {
    let folder = tempfile::tempdir().unwrap();
    // 512-byte clusters with 64-bit refcounts: a table cluster counts 2 MiB.
    qemu_img(
        folder.path(),
        &[
            "create",
            "-f",
            "qcow2",
            "-o",
            "cluster_size=512,refcount_bits=64",
            "disk.qcow2",
            "20M",
        ],
    );
    let path = folder.path().join("disk.qcow2");
    let model = Random::new(61).bytes(20 << 20);
    let image = open_file(&path, Access::ReadWrite);
    for (index, piece) in model.chunks(1 << 20).enumerate() {
        image.write_at((index as u64) << 20, piece).unwrap();
    }
    image.flush().unwrap();
    drop(image);
    check_both(&path);
    assert!(qemu_content(&path) == model);
}

#[test]
fn corpus_image_reads_as_its_index_says() {
    let Some(corpus) = std::env::var_os("HAKO_CORPUS") else {
        println!("SKIPPED: HAKO_CORPUS is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ext2.qcow2");
    std::fs::copy(Path::new(&corpus).join("dfvfs/ext2.qcow2"), &path).unwrap();
    let content = read_all(&*open_file(&path, Access::ReadOnly));
    assert!(content == qemu_content(&path));
    assert_eq!(content.len(), 4_194_304);
}

/// Changes bytes of a file in memory and checks it.
fn check_changed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Findings {
    let mut changed = bytes.to_vec();
    change(&mut changed);
    Qcow2
        .check(OpenArgs {
            storage: Arc::new(MemoryStorage::new("disk.qcow2", changed)),
            name: "disk.qcow2".into(),
            resolver: Arc::new(MemoryFolder::default()),
            access: Access::ReadOnly,
            salvage: false,
            snapshot: None,
        })
        .unwrap()
}

#[test]
fn check_counts_what_is_stored_and_finds_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Random::new(71).disk(4_000_768);
    let path = make_with_qemu(folder.path(), &disk, "cluster_size=4k", &["-c"]);
    let findings = check_file(&path);
    let json = qemu_img(folder.path(), &["check", "--output=json", "disk.qcow2"]);
    for (key, number) in [
        ("total-clusters", findings.n_units),
        ("allocated-clusters", findings.n_allocated_units),
        ("compressed-clusters", findings.n_compressed_units),
    ] {
        assert!(
            json.contains(&format!("\"{key}\": {number},")),
            "{key} {number}: {json}"
        );
    }
    assert!(findings.n_compressed_units > 0);

    let path = make_with_qemu(folder.path(), &disk, "cluster_size=4k", &[]);
    let bytes = std::fs::read(&path).unwrap();
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let block = number(number(48));
    let l1 = number(40);
    let l2 = number(l1) & 0xff_ffff_fe00;
    let entry = (0..512)
        .map(|index| l2 + index * 8)
        .find(|at| number(*at) != 0)
        .unwrap();
    let host = (number(entry) & 0xff_ffff_fe00) >> 12;

    let too_low = check_changed(&bytes, |bytes| bytes[block + host * 2 + 1] = 0);
    assert_eq!(too_low.worst(), Some(Severity::Corruption), "{too_low:?}");
    let too_high = check_changed(&bytes, |bytes| bytes[block + host * 2 + 1] = 2);
    assert_eq!(too_high.n_leaks, 1);
    let lost = check_changed(&bytes, |bytes| bytes[entry..entry + 8].fill(0));
    assert_eq!(
        (lost.worst(), lost.leaked_bytes),
        (Some(Severity::Leak), 4096),
        "{lost:?}"
    );
    let unaligned = check_changed(&bytes, |bytes| bytes[entry + 6] |= 2);
    assert_eq!(unaligned.worst(), Some(Severity::Corruption));
    let far = check_changed(&bytes, |bytes| bytes[entry + 2] = 0x70);
    assert!(
        far.list
            .iter()
            .any(|finding| finding.text.contains("past the end")),
        "{far:?}"
    );
    let crossed = check_changed(&bytes, |bytes| {
        bytes.copy_within(entry..entry + 8, entry + 8)
    });
    assert_eq!(crossed.worst(), Some(Severity::Corruption), "{crossed:?}");
    let marked = check_changed(&bytes, |bytes| bytes[79] |= 1);
    assert_eq!(marked.worst(), Some(Severity::Oddity));
}

#[test]
fn damaged_files_are_refused_or_read_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Random::new(73).disk(600_064);
    let mut random = Random::new(74);
    for (options, flags) in [
        ("cluster_size=512", &[] as &[&str]),
        ("cluster_size=1k", &["-c"]),
        ("extended_l2=on,cluster_size=16k", &[]),
    ] {
        let path = make_with_qemu(folder.path(), &disk, options, flags);
        qemu_img(folder.path(), &["snapshot", "-c", "one", "disk.qcow2"]);
        let bytes = std::fs::read(&path).unwrap();
        for round in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(4) {
                let at = if round % 2 == 0 {
                    random.below(112)
                } else {
                    random.below(bytes.len() as u64)
                };
                let at = at as usize;
                damaged[at] =
                    [0, 1, 0x40, 0x80, 0xff, random.below(256) as u8][random.below(6) as usize];
            }
            if round % 5 == 0 {
                damaged.truncate(random.below(bytes.len() as u64) as usize);
            }
            exercise(damaged, &mut random);
        }
    }
}

/// Opens, maps, reads, writes and checks whatever it is.
fn exercise(bytes: Vec<u8>, random: &mut Random) {
    let storage = Arc::new(MemoryStorage::new("disk.qcow2", bytes));
    let args = OpenArgs {
        storage: storage.clone(),
        name: "disk.qcow2".into(),
        resolver: Arc::new(MemoryFolder::default()),
        access: Access::ReadOnly,
        salvage: false,
        snapshot: None,
    };
    let _ = Qcow2.check(args.clone());
    let _ = Qcow2.open(OpenArgs {
        snapshot: Some("one".into()),
        ..args.clone()
    });
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let Ok(image) = Qcow2.open(OpenArgs {
            access,
            ..args.clone()
        }) else {
            continue;
        };
        let size = image.info().virtual_size;
        let mut buf = vec![0; 3000];
        for _ in 0..20 {
            let at = random.below(size.saturating_sub(3000));
            if size > at {
                let _ = image.next_extent(at);
            }
            let _ = image.read_at(at, &mut buf);
            let _ = image.write_at(at, &buf);
            let _ = image.write_zeroes(at..at + 2000);
            let _ = image.discard(at..at + 3000);
        }
        let _ = image.flush();
    }
    assert!(storage.len_bytes().unwrap() < 1 << 30);
}

#[test]
fn dirty_and_corrupt_images_are_read_but_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Random::new(81).disk(600_064);
    for (bit, word) in [(1, "cleanly"), (2, "corrupt")] {
        let path = make_with_qemu(folder.path(), &disk, "cluster_size=4k", &[]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[79] |= bit;
        std::fs::write(&path, bytes).unwrap();
        let image = open_file(&path, Access::ReadOnly);
        assert!(image.info().oddities.iter().any(|text| text.contains(word)));
        assert!(read_all(&*image) == disk);
        drop(image);
        let error = try_open(&path, Access::ReadWrite, None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint_text().unwrap().contains("qemu-img check -r all"));
    }
}

#[test]
fn external_data_file_is_opened_only_through_the_gate() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("vm");
    std::fs::create_dir(&inner).unwrap();
    let outside = folder.path().join("secret.bin");
    std::fs::write(&outside, vec![9; 1 << 20]).unwrap();
    let options = format!("data_file={}", outside.display());
    qemu_img(
        &inner,
        &["create", "-f", "qcow2", "-o", &options, "disk.qcow2", "1M"],
    );
    let error = try_open(&inner.join("disk.qcow2"), Access::ReadOnly, None)
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Gate, "{error}");
}
