//! Writing in place.

use super::*;

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
