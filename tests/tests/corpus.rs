//! Real images that other people's software made: what they hold is known by its checksum.

use std::path::Path;
use std::time::Instant;

use hako_tests::corpus::{Corpus, Entry};
use hako_tests::{convert, disk, disk_verb, hash, measure, run, run_program, variants};

/// The formats of the corpus, as its index names them, that hako reads.
const FORMATS: &[&str] = &["vmdk", "qcow2", "raw", "vdi", "vhdx", "vpc"];

/// Disks larger than this are compared extent by extent instead of hashed again and again.
const LARGE: u64 = 1 << 30;

/// Returns the options to open an entry: a raw disk may be named like anything.
fn from(entry: &Entry) -> Vec<&str> {
    if entry.format == "raw" {
        vec!["--from", "raw"]
    } else {
        Vec::new()
    }
}

#[test]
fn every_disk_hashes_as_the_index_says() {
    let Some(corpus) = Corpus::open() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut n = 0;
    for entry in corpus.disks(FORMATS) {
        let path = corpus.unpack(entry, scratch.path());
        assert_eq!(
            Some(hash(&path, &from(entry))),
            entry.disk_sha256,
            "{}",
            entry.file
        );
        let info = disk_verb("info", &[&path], &[&from(entry)[..], &["--json"]].concat()).json();
        let size = info["virtual_size"].as_u64();
        assert_eq!(size, entry.virtual_size, "{}", entry.file);
        n += 1;
    }
    assert!(n >= 10, "only {n} disks in the corpus");
}

#[test]
fn every_disk_survives_each_format_and_the_way_back() {
    let Some(corpus) = Corpus::open() else { return };
    let scratch = tempfile::tempdir().unwrap();
    for entry in corpus.disks(FORMATS) {
        let source = corpus.unpack(entry, scratch.path());
        let large = entry.virtual_size.is_some_and(|size| size > LARGE);
        for variant in variants() {
            let folder = tempfile::tempdir_in(scratch.path()).unwrap();
            let there = folder.path().join(variant.file_name("there"));
            let back = folder.path().join("back.raw");
            convert(
                &source,
                &there,
                &[&from(entry)[..], &variant.options()].concat(),
            );
            convert(&there, &back, &["--from", &variant.format]);
            let what = format!("{} through {variant:?}", entry.file);
            if large {
                let options = [&from(entry)[..], &["--from-b", "raw"]].concat();
                disk_verb("compare", &[&source, &back], &options).ok();
            } else {
                assert_eq!(Some(disk::sha256(&back)), entry.disk_sha256, "{what}");
            }
            let checked = disk_verb("check", &[&there], &["--from", &variant.format]);
            assert!(
                checked.code == Some(0) || variant.format == "raw",
                "{what}: {}{}",
                checked.stdout,
                checked.stderr
            );
        }
    }
}

/// The fuzzed image that made other readers allocate gigabytes.
#[test]
fn fuzzed_image_is_refused_at_once_in_little_memory() {
    let Some(corpus) = Corpus::open() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let entry = corpus
        .entries
        .iter()
        .find(|entry| entry.file.contains("afl9"))
        .expect("afl9 is in the corpus");
    let path = corpus.unpack(entry, scratch.path());
    refused_quickly(&path);
}

fn refused_quickly(path: &Path) {
    for verb in ["info", "hash", "check", "map"] {
        let start = Instant::now();
        let (run, peak) = measure(&["disk".as_ref(), verb.as_ref(), path.as_os_str()]);
        run.expect_code(4);
        assert!(start.elapsed().as_secs() < 5, "{verb} took long");
        assert!(peak < 64 << 20, "{verb} took {peak} bytes of memory");
    }
}

/// What Disk2vhd wrote is an image like others: it is converted, captured and looked at, and qemu-img
/// finds the same bytes in all of it.
#[test]
fn a_disk_of_disk2vhd_is_imported() {
    let Some(corpus) = Corpus::open() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let is_it = |entry: &&Entry| entry.file.contains("disk2vhd");
    let entry = corpus.disks(FORMATS).find(is_it).expect("Disk2vhd's image");
    let source = corpus.unpack(entry, scratch.path());
    let path = |name: &str| scratch.path().join(name);
    convert(&source, &path("converted.vmdk"), &[]);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (source, captured) = (text(&source), text(&path("captured.vmdk")));
    let report = run(&["p2v", "capture", &source, "-o", &captured, "--json"]).json();
    assert_eq!(report["verified"], true, "{report}");
    for copy in ["converted.vmdk", "captured.vmdk"] {
        let copy = text(&path(copy));
        run_program(
            "qemu-img",
            &["compare", "-f", "vhdx", "-F", "vmdk", &source, &copy],
        )
        .ok();
    }
    let found = run(&["p2v", "inventory", &source, "--json"]);
    let inventory: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(inventory["disks"][0]["bytes"].as_u64(), entry.virtual_size);
    let disk = &inventory["disks"][0];
    assert_eq!(
        (&disk["table"], &disk["table_uuid"]),
        (&"dos".into(), &"192a32ad".into())
    );
    let partition = &inventory["volumes"][0]["partition"];
    assert_eq!(
        (&partition["start"], &partition["kind"]),
        (&65_536.into(), &"6".into())
    );
}
