//! Descriptors that other readers get wrong (silently, most of them): what the disk holds is
//! computed here by hand.

use std::path::PathBuf;

use hako_tests::{disk, disk_verb, hash};
use sha2::{Digest, Sha256};

/// Bytes of an extent file of the tests: 64 KiB.
const EXTENT: usize = 128 * 512;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// Makes a folder with extent files a, b and c, each full of its letter.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for letter in [b'a', b'b', b'c'] {
            let path = folder.path().join(format!("{}.bin", letter as char));
            std::fs::write(path, [letter; EXTENT]).unwrap();
        }
        Self { folder }
    }

    fn write(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join("disk.vmdk");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The disk must hold the letters, 64 KiB each; 0 stands for zeros.
    #[track_caller]
    fn holds(&self, text: impl AsRef<[u8]>, letters: &[u8]) {
        let path = self.write(text);
        let mut digest = Sha256::new();
        for letter in letters {
            digest.update([*letter; EXTENT]);
        }
        assert_eq!(hash(&path, &[]), disk::hex(&digest.finalize()));
    }

    /// The disk must be refused, and the message say `why`.
    #[track_caller]
    fn refuses(&self, text: impl AsRef<[u8]>, why: &str) {
        let path = self.write(text);
        let run = disk_verb("hash", &[&path], &[]).refused();
        assert!(run.stderr.contains(why), "{}", run.stderr);
    }
}

fn descriptor(create_type: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\n\n# Extent description\n{extents}\n\n\
         # The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n"
    )
}

const FLAT_A: &str = "RW 128 FLAT \"a.bin\" 0\n";

#[test]
fn blank_line_before_an_extent_does_not_count_it_twice() {
    let text = "RW 128 FLAT \"a.bin\" 0\n\nRW 128 FLAT \"b.bin\" 0";
    World::new().holds(descriptor("twoGbMaxExtentFlat", text), b"ab");
}

#[test]
fn zero_extent_keeps_its_place() {
    let text = "RW 128 FLAT \"a.bin\" 0\nRW 128 ZERO\nRW 128 FLAT \"c.bin\" 0";
    World::new().holds(descriptor("twoGbMaxExtentFlat", text), b"a\0c");
}

#[test]
fn read_only_extent_keeps_its_place() {
    let text = "RW 128 FLAT \"a.bin\" 0\nRDONLY 128 FLAT \"b.bin\" 0\nRW 128 FLAT \"c.bin\" 0";
    World::new().holds(descriptor("twoGbMaxExtentFlat", text), b"abc");
}

#[test]
fn disk_of_read_only_extents_opens() {
    let text = "RDONLY 128 FLAT \"a.bin\" 0";
    World::new().holds(descriptor("monolithicFlat", text), b"a");
}

#[test]
fn extent_words_may_be_in_any_case() {
    let text = "rw 128 flat \"a.bin\" 0\nRw 128 Flat \"b.bin\" 0";
    World::new().holds(descriptor("twoGbMaxExtentFlat", text), b"ab");
}

#[test]
fn encoding_may_come_before_version() {
    let text = descriptor("monolithicFlat", FLAT_A);
    let text = text.replace("version=1\n", "encoding=\"windows-1252\"\nversion=1\n");
    World::new().holds(text, b"a");
}

#[test]
fn byte_order_mark_is_skipped() {
    let text = descriptor("monolithicFlat", FLAT_A);
    World::new().holds([b"\xef\xbb\xbf", text.as_bytes()].concat(), b"a");
}

#[test]
fn spaces_around_the_equals_sign_are_allowed() {
    let text = descriptor("monolithicFlat", FLAT_A).replace('=', " = ");
    World::new().holds(text, b"a");
}

#[test]
fn lines_may_end_in_cr_lf() {
    let text = descriptor("monolithicFlat", FLAT_A).replace('\n', "\r\n");
    World::new().holds(text, b"a");
}

#[test]
fn every_create_type_of_plain_extents_opens_in_any_case() {
    let types = [
        "custom",
        "2GbMaxExtentFlat",
        "vmfsPreallocated",
        "vmfsEagerZeroedThick",
        "vmfsThin",
        "vmfsThick",
        "vmfs",
        "MONOLITHICFLAT",
        "monolithicflat",
    ];
    for create_type in types {
        World::new().holds(descriptor(create_type, FLAT_A), b"a");
    }
}

#[test]
fn vmfs_extent_without_an_offset_opens() {
    World::new().holds(descriptor("vmfs", "RW 128 VMFS \"a.bin\""), b"a");
}

#[test]
fn devices_are_refused_whatever_the_type() {
    for create_type in ["fullDevice", "partitionedDevice", "vmfsRawDeviceMap"] {
        let text = descriptor(create_type, "RW 128 FLAT \"/dev/null\" 0");
        World::new().refuses(text, "refused");
    }
}

#[test]
fn extent_line_may_have_a_partition_and_a_device_behind_it() {
    let text = "RW 128 FLAT \"a.bin\" 0 partitionUUID 1234-ABCD";
    World::new().holds(descriptor("monolithicFlat", text), b"a");
    let text = "RW 128 FLAT \"a.bin\" 0 partitionUUID d:0123 device{5}";
    World::new().holds(descriptor("monolithicFlat", text), b"a");
}

#[test]
fn extent_longer_than_its_file_is_refused() {
    let text = "RW 256 FLAT \"a.bin\" 0";
    World::new().refuses(descriptor("monolithicFlat", text), "a.bin");
}

#[test]
fn content_id_may_have_a_prefix() {
    let text = descriptor("monolithicFlat", FLAT_A);
    World::new().holds(text.replace("CID=fffffffe", "CID=0x12345678"), b"a");
}

#[test]
fn damaged_descriptor_never_becomes_a_raw_disk() {
    let world = World::new();
    for text in [
        "version=1\ncreateType=monolithicFlat\n",
        "# Disk DescriptorFile\n",
        "no descriptor at all\n",
    ] {
        let path = world.write(text);
        disk_verb("hash", &[&path], &[]).refused();
    }
}

#[test]
fn virtual_size_of_a_descriptor_is_the_sum_of_its_extents() {
    let world = World::new();
    let text = "RW 128 FLAT \"a.bin\" 0\nRW 128 ZERO\nNOACCESS 128 ZERO";
    let path = world.write(descriptor("custom", text));
    let info = disk_verb("info", &[&path], &["--json"]).json();
    assert_eq!(info["virtual_size"], 3 * EXTENT as u64);
}

/// A flipped byte inside a compressed grain: others find no errors.
#[test]
fn check_of_the_data_finds_a_flipped_byte_in_a_compressed_grain() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    let image = folder.path().join("disk.vmdk");
    disk::make_raw(&raw, 4 << 20, 1);
    let options = ["--subformat", "streamOptimized"];
    hako_tests::convert(&raw, &image, &options);
    disk_verb("check", &[&image], &["--data"]).ok();
    let mut bytes = std::fs::read(&image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&image, bytes).unwrap();
    let found = disk_verb("check", &[&image], &["--data"]);
    assert_eq!(found.code, Some(4), "{}{}", found.stdout, found.stderr);
    disk_verb("hash", &[&image], &[]).expect_code(4);
}

/// A parent that changed since its overlay was made: others say "Invalid argument" at best.
#[test]
fn parent_with_another_content_id_is_refused_with_a_hint() {
    let world = World::new();
    let base = descriptor("monolithicFlat", FLAT_A);
    std::fs::write(world.folder.path().join("base.vmdk"), &base).unwrap();
    let overlay = |cid: &str| {
        descriptor("twoGbMaxExtentFlat", "RW 128 ZERO")
            .replace("CID=ffffffff", &format!("CID={cid}"))
            .replace("createType", "parentFileNameHint=\"base.vmdk\"\ncreateType")
    };
    let path = world.write(overlay("deadbeef"));
    let run = disk_verb("hash", &[&path], &[]).refused();
    assert!(run.stderr.contains("deadbeef"), "{}", run.stderr);
    let path = world.write(overlay("fffffffe"));
    hash(&path, &[]);
}
