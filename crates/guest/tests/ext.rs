//! ext2, ext3 and ext4 as mke2fs makes them and Linux uses them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

mod aged;

use aged::life::Life;
use aged::{Compare, Image, assert_same, have, run};

const MIB: u64 = 1 << 20;

/// Arguments of mke2fs, the kind that blkid has for the result, and changes it goes through.
struct Row {
    args: &'static str,
    kind: &'static str,
}

const fn row(kind: &'static str, args: &'static str) -> Row {
    Row { args, kind }
}

/// What Linux mounts here: blocks up to a page, no casefold.
const MOUNTED: &[Row] = &[
    row("ext2", "-t ext2"),
    row("ext2", "-t ext2 -b 1024 -I 128"),
    row(
        "ext2",
        "-t ext2 -b 2048 -O ^dir_index,^filetype,^sparse_super,^resize_inode",
    ),
    row("ext2", "-t ext2 -r 0"),
    row("ext3", "-t ext3"),
    row("ext3", "-t ext3 -b 1024"),
    row("ext4", "-t ext4"),
    row("ext4", "-t ext4 -b 1024"),
    row("ext4", "-t ext4 -b 2048"),
    row("ext4", "-t ext4 -b 4096 -I 1024"),
    row("ext4", "-t ext4 -O ^has_journal"),
    row("ext4", "-t ext4 -O ^extent,^64bit"),
    row("ext4", "-t ext4 -b 1024 -O ^extent,^64bit,^flex_bg"),
    row("ext4", "-t ext4 -O ^64bit"),
    row("ext4", "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode"),
    row(
        "ext4",
        "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode,^64bit,^flex_bg",
    ),
    row(
        "ext4",
        "-t ext4 -b 1024 -g 256 -O ^resize_inode,sparse_super2",
    ),
    row("ext4", "-t ext4 -O bigalloc"),
    row("ext4", "-t ext4 -O bigalloc -C 65536"),
    row("ext4", "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode"),
    row("ext4", "-t ext4 -O inline_data"),
    row("ext4", "-t ext4 -b 1024 -I 1024 -O inline_data"),
    row("ext4", "-t ext4 -O inline_data,^metadata_csum"),
    row("ext4", "-t ext4 -O sparse_super2"),
    row("ext4", "-t ext4 -O ^metadata_csum,uninit_bg"),
    row("ext4", "-t ext4 -O ^metadata_csum,uninit_bg,^64bit"),
    row("ext4", "-t ext4 -O ^metadata_csum,^uninit_bg"),
    row("ext4", "-t ext4 -O metadata_csum_seed"),
    row("ext4", "-t ext4 -O ^flex_bg"),
    row("ext4", "-t ext4 -G 4 -g 2048"),
    row("ext4", "-t ext4 -O large_dir,ea_inode"),
    row("ext4", "-t ext4 -O ^dir_index"),
    row("ext4", "-t ext4 -O ^filetype"),
    row("ext4", "-t ext4 -O ^huge_file,^dir_nlink,^extra_isize"),
    row("ext4", "-t ext4 -I 128"),
    row("ext4", "-t ext4 -O mmp"),
    row("ext4", "-t ext4 -O orphan_file"),
    row("ext4", "-t ext4 -O fast_commit"),
    row("ext4", "-t ext4 -O verity,encrypt,stable_inodes"),
    row("ext4", "-t ext4 -E packed_meta_blocks=1"),
];

/// What it does not: made by mke2fs from a folder.
const COPIED: &[Row] = &[
    row("ext4", "-t ext4 -b 8192"),
    row("ext4", "-t ext4 -b 16384 -O meta_bg,^resize_inode"),
    row("ext4", "-t ext4 -b 32768 -O ^extent,^64bit"),
    row("ext4", "-t ext4 -b 65536"),
    row(
        "ext4",
        "-t ext4 -b 65536 -N 8192 -O ^metadata_csum,bigalloc",
    ),
    row("ext4", "-t ext4 -O casefold -E encoding=utf8"),
    row("ext4", "-t ext4 -O quota,project"),
    row("ext2", "-t ext2 -b 65536 -N 8192"),
    row("ext3", "-t ext3 -b 16384"),
];

fn make(args: &str, bytes: u64, from: Option<&str>) -> Image {
    let image = Image::empty(bytes);
    let mut all: Vec<&str> = args.split_whitespace().collect();
    all.extend([
        "-q",
        "-F",
        "-L",
        "a label",
        "-U",
        "2dc27766-f623-4200-9d64-115e9bfd4a08",
    ]);
    if let Some(folder) = from {
        all.extend(["-d", folder]);
    }
    all.push(image.text());
    run("mke2fs", &all);
    image
}

fn assert_info(image: &Image, kind: &str, bytes: u64) {
    let fs = image.open();
    let info = fs.info();
    assert_eq!(info.kind, kind);
    assert_eq!(info.label, "a label");
    assert_eq!(info.uuid, "2dc27766-f623-4200-9d64-115e9bfd4a08");
    assert_eq!(info.len_bytes, bytes);
    assert_eq!(info.remarks, [""; 0]);
}

#[test]
fn every_feature_that_linux_mounts_reads_as_it_shows_it() {
    if !have(&["mke2fs", "mount", "e2fsck"]) {
        return;
    }
    for (row, seed) in MOUNTED.iter().zip(1..) {
        eprintln!("{}", row.args);
        let image = make(row.args, 48 * MIB, None);
        let Some(mounted) = image.mount("ext4", "") else {
            return;
        };
        let mut life = Life::new(mounted.path(), seed, 60_000);
        life.oddities().go_on(200);
        drop(mounted);
        let mounted = image.mount("ext4", "ro").unwrap();
        assert_info(&image, row.kind, 48 * MIB);
        let n_names = assert_same(&*image.open(), mounted.path(), Compare::MOUNTED);
        assert!(n_names > 100, "{n_names} names");
    }
}

#[test]
fn what_mke2fs_makes_of_a_folder_is_that_folder() {
    if !have(&["mke2fs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    std::fs::create_dir(&from).unwrap();
    Life::new(&from, 7, 60_000)
        .oddities()
        .go_on(300)
        .crowd("crowd", 2000);
    for row in COPIED {
        eprintln!("{}", row.args);
        let image = make(row.args, 256 * MIB, Some(from.to_str().unwrap()));
        assert_info(&image, row.kind, 256 * MIB);
        assert_same(&*image.open(), &from, Compare::COPIED);
    }
}
