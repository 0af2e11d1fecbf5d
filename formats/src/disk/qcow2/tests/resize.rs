//! Another virtual size.

use super::cuts::*;
use super::*;

/// Bytes of the disk: no multiple of any cluster.
const SIZE: usize = 1_000_448;

fn resized(files: &hako_block::testkit::FaultFolder, size: u64) {
    Qcow2
        .resize(args_of(files, Access::ReadWrite), size)
        .unwrap();
}

/// Images of every layout, and of two sizes to resize to.
#[test]
fn every_layout_grows_and_shrinks_and_survives_a_cut_at_every_write() {
    for (options, flags) in qemu_variants() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = Random::new(5).disk(SIZE);
        content[SIZE - 70_000..].fill(7);
        make_with_qemu(folder.path(), &content, options, flags);
        let files = load(folder.path());
        for size in [SIZE + 5 * 1024 * 1024, SIZE - 300_032, SIZE + 512] {
            println!("{options} {flags:?}: to {size}");
            let old = content.clone();
            content.resize(size, 0);
            cut_everywhere(
                &files,
                |files| resized(files, size as u64),
                |cut| {
                    let found = content_in(cut);
                    assert!(found == old || found == content, "neither old nor new");
                },
            );
            assert!(content_in(&files) == content, "content");
            assert_sound(&files, true);
            assert_qemu_sound(&files, true);
            assert!(qemu_content_in(&files) == content, "as qemu-img reads it");
        }
    }
}

#[test]
fn a_resized_image_is_written_where_it_grew() {
    let folder = tempfile::tempdir().unwrap();
    for options in [
        "cluster_size=512",
        "compat=0.10",
        "extended_l2=on,cluster_size=16k",
    ] {
        let mut content = Random::new(6).disk(SIZE);
        let path = make_with_qemu(folder.path(), &content, options, &[]);
        let storage = FileStorage::open(&path, Access::ReadWrite, LockMode::None).unwrap();
        let args = OpenArgs {
            storage: Arc::new(storage),
            ..args_of(&load(folder.path()), Access::ReadWrite)
        };
        Qcow2.resize(args, 8 << 20).unwrap();
        content.resize(8 << 20, 0);
        let image = open_file(&path, Access::ReadWrite);
        hammer(&*image, &mut content, 8, 60);
        image.flush().unwrap();
        drop(image);
        check_both(&path);
        assert!(qemu_content(&path) == content, "{options}");
    }
}

#[test]
fn what_lay_beyond_the_end_never_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    for (options, flags) in [
        ("cluster_size=64k", &[] as &[&str]),
        ("cluster_size=64k", &["-c"]),
    ] {
        make_with_qemu(folder.path(), &vec![9; SIZE], options, flags);
        let files = load(folder.path());
        // As a shrink leaves it that was cut off right after the switch.
        let storage = files.file("disk.qcow2").unwrap();
        storage.write_at(24, &100_352_u64.to_be_bytes()).unwrap();
        resized(&files, SIZE as u64);
        let content = content_in(&files);
        assert!(content[..100_352].iter().all(|byte| *byte == 9));
        assert!(is_zero(&content[100_352..]), "{flags:?}");
        assert_qemu_sound(&files, true);
        assert!(qemu_content_in(&files) == content);
    }
}

#[test]
fn shrinking_gives_the_space_back() {
    let folder = tempfile::tempdir().unwrap();
    make_with_qemu(folder.path(), &vec![9; 4 << 20], "compat=1.1", &[]);
    let files = load(folder.path());
    resized(&files, 1 << 20);
    let len = files.file("disk.qcow2").unwrap().len_bytes().unwrap();
    assert!(len < 1_600_000, "{len}");
    assert_qemu_sound(&files, true);
}

#[test]
fn a_snapshot_keeps_its_size_and_content() {
    let folder = tempfile::tempdir().unwrap();
    let content = Random::new(7).disk(SIZE);
    make_with_qemu(folder.path(), &content, "cluster_size=4k", &[]);
    qemu_img(folder.path(), &["snapshot", "-c", "before", "disk.qcow2"]);
    let files = load(folder.path());
    for size in [SIZE as u64 - 500_224, 9 << 20] {
        cut_everywhere(&files, |files| resized(files, size), |_| ());
        assert_sound(&files, true);
        assert_qemu_sound(&files, true);
        let args = OpenArgs {
            snapshot: Some("before".into()),
            ..args_of(&files, Access::ReadOnly)
        };
        assert!(read_all(&*Qcow2.open(args).unwrap()) == content);
    }
    files.save(folder.path());
    qemu_img(folder.path(), &["snapshot", "-a", "before", "disk.qcow2"]);
    assert!(qemu_content(&folder.path().join("disk.qcow2")) == content);
}

#[test]
fn what_a_new_size_would_break_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |then: &[&str], options: &str, size: u64| {
        make_with_qemu(folder.path(), &vec![1; 1 << 20], options, &[]);
        if !then.is_empty() {
            qemu_img(folder.path(), then);
        }
        let files = load(folder.path());
        let before = files.files();
        let error = Qcow2
            .resize(args_of(&files, Access::ReadWrite), size)
            .unwrap_err();
        assert!(files.files() == before, "changed, but refused");
        error
    };
    let error = refused(
        &["bitmap", "--add", "disk.qcow2", "one"],
        "compat=1.1",
        2 << 20,
    );
    assert!(error.hint_text().unwrap().contains("bitmap --remove"));
    // The specification has old images record no size; qemu-img records it all the same.
    let error = refused(&[], "cluster_size=512", 1 << 40);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let error = refused(&[], "cluster_size=512", 1_000_001);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn two_tebibytes_are_resized_by_the_data_not_by_the_size() {
    let files = load_wide(|image, offset| image.write_at(offset, &[3; 4096]).unwrap());
    for size in [3_u64 << 40, 100 << 30, 2 << 40] {
        resized(&files, size);
        // By operations, not by the clock: what is slow is what is written and read.
        let n_ops = files.take_log().len();
        assert!(n_ops < 1000, "{n_ops} operations");
        assert_sound(&files, true);
    }
    assert_qemu_sound(&files, true);
}
