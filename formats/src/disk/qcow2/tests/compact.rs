//! Giving space back.

use hako_block::testkit::FaultFolder;
use hako_block::{Cancel, NoProgress};

use super::cuts::*;
use super::*;
use crate::disk::Task;

const SIZE: usize = 1_200_128;

fn compacted(files: &FaultFolder) {
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    Qcow2
        .compact(args_of(files, Access::ReadWrite), task)
        .unwrap();
}

fn len_of(files: &FaultFolder) -> u64 {
    files.file("disk.qcow2").unwrap().len_bytes().unwrap()
}

/// Gives up and zeroes ranges at random; keeps a model.
fn make_holes(image: &dyn BlockImage, content: &mut [u8], seed: u64) {
    let mut random = Random::new(seed);
    let size = content.len() as u64;
    for _ in 0..12 {
        let start = random.below(size);
        let len = (1 + random.below(150_000)).min(size - start);
        let range = start as usize..(start + len) as usize;
        if random.below(2) == 0 {
            image.discard(start..start + len).unwrap();
            image.read_at(start, &mut content[range]).unwrap();
        } else {
            content[range.clone()].fill(0);
            image.write_at(start, &content[range]).unwrap();
        }
    }
    image.flush().unwrap();
}

#[test]
fn every_layout_gets_smaller_and_survives_a_cut_at_every_write() {
    for (seed, (options, flags)) in qemu_variants().into_iter().enumerate() {
        println!("{options} {flags:?}");
        let folder = tempfile::tempdir().unwrap();
        let mut content = Random::new(seed as u64).bytes(SIZE);
        make_with_qemu(folder.path(), &content, options, flags);
        let files = load(folder.path());
        make_holes(
            &*open_in(&files, Access::ReadWrite),
            &mut content,
            seed as u64,
        );
        assert!(content_in(&files) == content);
        let before = len_of(&files);
        cut_everywhere(&files, compacted, |cut| {
            assert!(content_in(cut) == content, "after a cut");
        });
        assert!(content_in(&files) == content);
        assert_sound(&files, true);
        assert_qemu_sound(&files, true);
        assert!(qemu_content_in(&files) == content);
        let plain = flags.is_empty() && !options.contains("data_file");
        if plain && !options.contains("2M") {
            assert!(len_of(&files) < before, "{before} bytes");
            let unused = unused_clusters(&files);
            assert!(unused == 0, "{unused} free clusters inside the file");
        }
        let once = files.files();
        compacted(&files);
        assert!(files.files()["disk.qcow2"].len() == once["disk.qcow2"].len());
        let image = open_in(&files, Access::ReadWrite);
        hammer(&*image, &mut content, 5, 30);
        image.flush().unwrap();
        drop(image);
        assert!(qemu_content_in(&files) == content);
        assert_qemu_sound(&files, true);
    }
}

/// How many clusters of the file the refcounts say are free.
fn unused_clusters(files: &FaultFolder) -> u64 {
    let args = args_of(files, Access::ReadWrite);
    let image = super::super::open::open(&args).unwrap();
    let n_used = image
        .with_allocator(|allocator, tables| allocator.n_used(tables))
        .unwrap();
    len_of(files).div_ceil(image.layout().cluster_bytes()) - n_used
}

#[test]
fn an_overlay_keeps_hiding_its_parent() {
    for options in [
        "compat=1.1,cluster_size=4k",
        "compat=0.10,cluster_size=4k",
        "extended_l2=on,cluster_size=16k",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let base = Random::new(1).bytes(SIZE);
        make_with_qemu(folder.path(), &base, "compat=1.1", &[]);
        let path = folder.path().join("disk.qcow2");
        std::fs::rename(&path, folder.path().join("base.qcow2")).unwrap();
        let parent = ["-b", "base.qcow2", "-F", "qcow2", "disk.qcow2"];
        qemu_img(
            folder.path(),
            &[&["create", "-f", "qcow2", "-o", options][..], &parent].concat(),
        );
        let mut content = base;
        let opened = open_chain(
            &path,
            &OpenOptions {
                access: Access::ReadWrite,
                rules: no_lock(),
                ..OpenOptions::default()
            },
        )
        .unwrap();
        hammer(&opened.chain, &mut content, 3, 100);
        content[500_000..700_000].fill(0);
        opened
            .chain
            .write_at(500_000, &content[500_000..700_000])
            .unwrap();
        opened.chain.flush().unwrap();
        drop(opened);
        let files = load(folder.path());
        let holes = |files: &FaultFolder| {
            let image = open_in(files, Access::ReadOnly);
            let mut at = 0;
            let mut holes = Vec::new();
            while at < SIZE as u64 {
                let extent = image.next_extent(at).unwrap();
                if extent.kind == ExtentKind::Hole {
                    holes.extend(extent.offset / 512..extent.end() / 512);
                }
                at = extent.end();
            }
            holes
        };
        let (before, n_holes) = (len_of(&files), holes(&files));
        let alone = content_in(&files);
        cut_everywhere(&files, compacted, |cut| {
            assert!(
                content_in(cut) == alone && holes(cut) == n_holes,
                "after a cut"
            );
        });
        assert!(qemu_content_in(&files) == content, "{options}");
        assert_qemu_sound(&files, true);
        assert!(
            len_of(&files) < before || options.contains("0.10"),
            "{options}"
        );
    }
}

#[test]
fn snapshots_and_bitmaps_stay() {
    let folder = tempfile::tempdir().unwrap();
    let old = Random::new(2).bytes(SIZE);
    make_with_qemu(folder.path(), &old, "cluster_size=4k", &[]);
    qemu_img(folder.path(), &["snapshot", "-c", "before", "disk.qcow2"]);
    let files = load(folder.path());
    let mut content = old.clone();
    make_holes(&*open_in(&files, Access::ReadWrite), &mut content, 9);
    files.save(folder.path());
    qemu_img(folder.path(), &["bitmap", "--add", "disk.qcow2", "changed"]);
    let files = load(folder.path());
    let snapshot = |files: &FaultFolder| {
        let args = OpenArgs {
            snapshot: Some("before".into()),
            ..args_of(files, Access::ReadOnly)
        };
        read_all(&*Qcow2.open(args).unwrap())
    };
    cut_everywhere(&files, compacted, |cut| {
        assert!(content_in(cut) == content && snapshot(cut) == old);
    });
    assert_sound(&files, true);
    assert_qemu_sound(&files, true);
    assert!(qemu_content_in(&files) == content);
    let info = open_in(&files, Access::ReadOnly).info().clone();
    assert!(!info.oddities.iter().any(|text| text.contains("stale")));
    assert!(format!("{:?}", info.details).contains("changed"));
}

#[test]
fn tables_behind_the_end_move_too() {
    let folder = tempfile::tempdir().unwrap();
    // Small blocks: many refcount blocks, and a refcount table that has grown.
    for options in ["cluster_size=512,refcount_bits=64", "cluster_size=512"] {
        qemu_img(
            folder.path(),
            &["create", "-f", "qcow2", "-o", options, "disk.qcow2", "8M"],
        );
        let files = load(folder.path());
        let mut content = Random::new(3).bytes(8 << 20);
        let image = open_in(&files, Access::ReadWrite);
        image.write_at(0, &content).unwrap();
        image.flush().unwrap();
        drop(image);
        Qcow2
            .resize(args_of(&files, Access::ReadWrite), 64 << 20)
            .unwrap();
        content.resize(64 << 20, 0);
        let image = open_in(&files, Access::ReadWrite);
        content[..7 << 20].fill(0);
        image.discard(0..7 << 20).unwrap();
        image.flush().unwrap();
        drop(image);
        compacted(&files);
        assert_sound(&files, true);
        assert_qemu_sound(&files, true);
        assert!(len_of(&files) < 1_300_000, "{} bytes", len_of(&files));
        assert!(content_in(&files) == content, "{options}");
    }
}

#[test]
fn leaks_are_given_back_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let content = Random::new(3).bytes(SIZE);
    make_with_qemu(folder.path(), &content, "cluster_size=4k", &[]);
    let files = load(folder.path());
    let storage = files.file("disk.qcow2").unwrap();
    let number = |at: u64| {
        let mut bytes = [0; 8];
        storage.read_at(at, &mut bytes).unwrap();
        u64::from_be_bytes(bytes)
    };
    let entry = number(number(40)) & 0xff_ffff_f000;
    storage.write_at(entry, &[0; 800]).unwrap();
    compacted(&files);
    assert_sound(&files, true);
    assert_eq!(unused_clusters(&files), 0);
    let l2 = number(number(40)) & 0xff_ffff_f000;
    storage
        .write_at(l2 + 8, &(1_u64 << 40).to_be_bytes())
        .unwrap();
    let before = files.files();
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    let error = Qcow2
        .compact(args_of(&files, Access::ReadWrite), task)
        .unwrap_err();
    assert!(error.hint_text().unwrap().contains("--repair"), "{error}");
    assert!(files.files() == before);
}

#[test]
fn cancelling_leaves_the_image_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = Random::new(3).bytes(SIZE);
    make_with_qemu(folder.path(), &content, "cluster_size=4k", &[]);
    let files = load(folder.path());
    make_holes(&*open_in(&files, Access::ReadWrite), &mut content, 4);
    let cancel = Cancel::default();
    cancel.cancel();
    let task = Task {
        progress: &NoProgress,
        cancel: &cancel,
    };
    let error = Qcow2
        .compact(args_of(&files, Access::ReadWrite), task)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_sound(&files, false);
    assert!(content_in(&files) == content);
}

#[test]
fn two_tebibytes_are_compacted_by_the_data_not_by_the_size() {
    let files = load_wide(|image, offset| {
        image.write_at(offset, &[3; 4096]).unwrap();
        image.write_at(offset + (1 << 30), &[0; 4096]).unwrap();
    });
    files.set_fault(None);
    compacted(&files);
    let (n_changes, n_reads) = files.counts();
    assert!(n_changes < 1000 && n_reads < 3000, "{n_changes}, {n_reads}");
    assert_sound(&files, true);
    assert_qemu_sound(&files, true);
    // Header, L1, refcount table and block; 64 tables, 64 clusters.
    assert!(len_of(&files) <= 132 << 16, "{}", len_of(&files) >> 16);
}
