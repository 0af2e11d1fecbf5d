//! Creating.

use super::*;

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
