//! Every pair of formats: a real disk goes through each variant into each other one, hash for
//! hash.

use std::path::{Path, PathBuf};

use hako_tests::corpus::Corpus;
use hako_tests::{convert, disk, hash, variants};

/// The disk that goes round: a file system of ten MiB, by VMware's own software.
const DISK: &str = "vmdk-rs/monolithicSparse.vmdk";

/// A disk, and its content's hash.
fn source(scratch: &Path) -> (PathBuf, String) {
    match Corpus::open() {
        Some(corpus) => {
            let entry = corpus.entries.iter().find(|entry| entry.file == DISK);
            let entry = entry.expect("it is in the corpus");
            let path = corpus.unpack(entry, scratch);
            let wanted = entry.disk_sha256.clone().expect("its hash is known");
            (path, wanted)
        }
        None => {
            let path = scratch.join("disk.raw");
            disk::make_raw(&path, 10 << 20, 3);
            let wanted = disk::sha256(&path);
            (path, wanted)
        }
    }
}

#[test]
fn every_variant_becomes_every_other_one() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, wanted) = source(scratch.path());
    let variants = variants();
    for from in &variants {
        let folder = tempfile::tempdir_in(scratch.path()).unwrap();
        let first = folder.path().join(from.file_name("first"));
        convert(&source, &first, &from.options());
        for to in &variants {
            let inner = tempfile::tempdir_in(folder.path()).unwrap();
            let second = inner.path().join(to.file_name("second"));
            let what = format!("{from:?} to {to:?}");
            let options = [&["--from", &from.format][..], &to.options()].concat();
            convert(&first, &second, &options);
            assert_eq!(hash(&second, &["--from", &to.format]), wanted, "{what}");
        }
    }
}
