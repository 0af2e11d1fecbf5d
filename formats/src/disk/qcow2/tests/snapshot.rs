//! Internal snapshots.

use super::*;

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
