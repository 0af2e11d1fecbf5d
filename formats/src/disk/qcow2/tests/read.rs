//! Reading what others wrote.

use super::*;

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
