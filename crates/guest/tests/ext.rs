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

/// Arguments of mke2fs, and options of the mount that stops without an end.
const STOPPED: &[(&str, &str)] = &[
    ("-t ext4", ""),
    ("-t ext4 -b 1024 -J size=2", ""),
    ("-t ext4 -b 4096", "data=journal"),
    ("-t ext4 -b 1024 -O ^metadata_csum", "journal_checksum"),
    (
        "-t ext4 -O ^metadata_csum",
        "data=writeback,journal_async_commit",
    ),
    ("-t ext4 -b 1024 -O ^metadata_csum,^64bit", "data=writeback"),
    ("-t ext4 -O bigalloc,inline_data,orphan_file", ""),
    ("-t ext3", "data=journal"),
    ("-t ext3 -b 1024 -J size=2", ""),
];

#[test]
fn a_stopped_file_system_reads_as_the_next_mount_shows_it() {
    if !have(&["mke2fs", "mount", "dumpe2fs"]) {
        return;
    }
    for ((args, options), seed) in STOPPED.iter().zip(100..) {
        eprintln!("{args} {options}");
        let image = make(args, 48 * MIB, None);
        let Some(mounted) = image.mount("ext4", options) else {
            return;
        };
        let mut life = Life::new(mounted.path(), seed, 30_000);
        life.oddities().go_on(150);
        mounted.sync();
        life.go_on(150);
        // A block that begins with the magic number of the journal.
        let magic = [0xc0, 0x3b, 0x39, 0x98].repeat(5000);
        std::fs::write(mounted.path().join("magic"), magic).unwrap();
        mounted.sync();
        life.go_on(100);
        let stopped = image.copy();
        drop(mounted);
        assert_replayed(&stopped);
    }
}

/// Compares what is read of an image with what a mount of a copy, which replays, shows.
fn assert_replayed(stopped: &Image) {
    let about = run("dumpe2fs", &["-h", stopped.text()]);
    assert!(about.contains("needs_recovery"), "{about}");
    let mended = stopped.copy();
    let mounted = mended.mount("ext4", "").unwrap();
    let fs = stopped.open();
    assert_eq!(fs.info().remarks, [""; 0]);
    let n_names = assert_same(&*fs, mounted.path(), Compare::MOUNTED);
    assert!(n_names > 150, "{n_names} names");
}

#[test]
fn crowds_and_deep_trees_are_read_whole_stopped_or_not() {
    if !have(&["mke2fs", "mount", "dumpe2fs"]) {
        return;
    }
    for args in ["-t ext4 -b 1024", "-t ext4", "-t ext3 -b 1024"] {
        eprintln!("{args}");
        let image = make(&format!("{args} -N 40000"), 160 * MIB, None);
        let Some(mounted) = image.mount("ext4", "") else {
            return;
        };
        let mut life = Life::new(mounted.path(), 3, 30_000);
        life.crowd("crowd", 20_000);
        life.fragmented(&mounted.path().join("deep"), 6000);
        mounted.sync();
        life.crowd("late", 3000).go_on(100);
        mounted.sync();
        let stopped = image.copy();
        drop(mounted);
        assert_replayed(&stopped);
        let mounted = image.mount("ext4", "ro").unwrap();
        let n_names = assert_same(&*image.open(), mounted.path(), Compare::MOUNTED);
        assert!(n_names > 19_000, "{n_names} names");
    }
}

#[test]
fn fast_commits_are_said_to_be_missing() {
    if !have(&["mke2fs", "mount"]) {
        return;
    }
    let image = make("-t ext4 -O fast_commit", 48 * MIB, None);
    let Some(mounted) = image.mount("ext4", "") else {
        return;
    };
    Life::new(mounted.path(), 9, 30_000).go_on(50);
    mounted.sync();
    assert_eq!(image.copy().open().info().remarks, [""; 0]);
    let path = mounted.path().join("late");
    std::fs::write(&path, "late").unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let stopped = image.copy();
    drop(mounted);
    let remarks = stopped.open().info().remarks.join(" ");
    assert!(remarks.contains("fast commits"), "{remarks}");
}

/// What debugfs is told when it opens the journal, and the features of the file system.
const WRITTEN: &[(&str, &str)] = &[
    ("", "^metadata_csum,^64bit"),
    ("", "metadata_csum,64bit"),
    ("-c -v 2", "metadata_csum,64bit"),
    ("-c -v 2", "metadata_csum,^64bit"),
    ("-c -v 3", "metadata_csum,64bit"),
    ("-c -v 3", "metadata_csum,^64bit"),
];

#[test]
fn a_journal_that_debugfs_wrote_is_replayed() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    for (how, features) in WRITTEN {
        let image = make(&format!("-t ext4 -b 1024 -O {features}"), 32 * MIB, None);
        let blocks = logged_file(&image, how);
        let fs = image.open();
        let root = aged::entries(&*fs, fs.root(), image.path());
        let mut content = vec![0; 4096];
        fs.read_at(root[&b"file"[..]].node, 0, &mut content)
            .unwrap();
        let found: Vec<&[u8]> = content.chunks(1024).map(|block| &block[..5]).collect();
        // The first is escaped, the second as it was written, the third revoked, the fourth not logged.
        let wanted: [&[u8]; 4] = [b"\xc0\x3b\x39\x98n", b"mmmmm", b"aaaaa", b"aaaaa"];
        assert_eq!(found, wanted, "{how} {features} {blocks}");
        assert_eq!(fs.info().remarks, [""; 0]);
    }
}

/// Makes `file` and a transaction that changes its first three blocks, and one that revokes the third.
fn logged_file(image: &Image, how: &str) -> String {
    let at = |name: &str| image.folder().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("old"), [b'a'; 8192]).unwrap();
    let mut new = [[b'n'; 1024], [b'm'; 1024], [b'r'; 1024]].concat();
    new[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
    std::fs::write(at("new"), new).unwrap();
    run(
        "debugfs",
        &[
            "-w",
            "-R",
            &format!("write {} file", at("old")),
            image.text(),
        ],
    );
    let blocks = run("debugfs", &["-R", "blocks file", image.text()]);
    let numbers: Vec<&str> = blocks.split_whitespace().collect();
    let commands = format!(
        "jo {how}\njw -b {} {}\njw -r {}\njc\n",
        numbers[..3].join(","),
        at("new"),
        numbers[2]
    );
    std::fs::write(at("commands"), commands).unwrap();
    run("debugfs", &["-w", "-f", &at("commands"), image.text()]);
    blocks
}

#[test]
fn what_cannot_be_replayed_is_said() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    let image = make("-t ext4 -b 1024 -O metadata_csum", 32 * MIB, None);
    logged_file(&image, "-c -v 3");
    let whole = std::fs::read(image.path()).unwrap();
    let remarks = |damage: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        let fs = hako_guest::fs::open(std::sync::Arc::new(bytes))
            .unwrap()
            .unwrap();
        fs.info().remarks.join(" ")
    };
    let find =
        |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|found| found == what);
    // The copy of the second block in the journal, and the journal's superblock.
    let copy = |bytes: &mut Vec<u8>| {
        let at = find(bytes, b"mmmm").unwrap();
        bytes[at] = b'x';
    };
    assert!(remarks(&copy).contains("1 of its blocks are damaged"));
    let head = |bytes: &mut Vec<u8>| {
        let at = find(bytes, &[0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4]).unwrap();
        bytes[at + 0x14] ^= 1;
    };
    assert!(remarks(&head).contains("its journal is damaged"));
}

#[test]
fn what_is_encrypted_or_unknown_or_elsewhere_is_refused_by_name() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    let image = make("-t ext4 -O encrypt", 32 * MIB, None);
    std::fs::write(image.folder().join("old"), "secret").unwrap();
    let old = image.folder().join("old");
    let debugfs = |command: &str| run("debugfs", &["-w", "-R", command, image.text()]);
    debugfs(&format!("write {} file", old.display()));
    debugfs("sif file flags 0x80800");
    let fs = image.open();
    let root = aged::entries(&*fs, fs.root(), image.path());
    let refused = fs
        .read_at(root[&b"file"[..]].node, 0, &mut [0; 6])
        .unwrap_err();
    assert!(
        refused.to_string().contains("encrypted (fscrypt)"),
        "{refused}"
    );
    let refused = |command: &str| {
        debugfs(command);
        image.try_open().map(|_| ()).unwrap_err().to_string()
    };
    // Needs recovery, and the journal is on another disk.
    debugfs("ssv journal_inum 0");
    let said = refused("feature needs_recovery");
    assert!(said.contains("on another disk"), "{said}");
    let said = refused("feature FEATURE_I20");
    assert!(said.contains("0x100000"), "{said}");
}

#[test]
fn damaged_ones_end_in_errors() {
    if !have(&["mke2fs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    std::fs::create_dir(&from).unwrap();
    Life::new(&from, 11, 20_000)
        .oddities()
        .go_on(100)
        .crowd("crowd", 500);
    let n_ways = if aged::all() { 3000 } else { 60 };
    for args in [
        "-t ext4 -b 1024 -O ^metadata_csum",
        "-t ext4 -b 1024 -O inline_data -I 512",
        "-t ext2 -b 1024",
    ] {
        let image = make(args, 8 * MIB, from.to_str());
        let bytes = std::fs::read(image.path()).unwrap();
        aged::torture(&bytes, n_ways, std::time::Duration::from_secs(20));
    }
}

#[test]
fn damaged_journals_end_in_errors() {
    if !have(&["mke2fs", "mount"]) {
        return;
    }
    let image = make("-t ext4 -b 1024 -J size=1 -O ^metadata_csum", 8 * MIB, None);
    let Some(mounted) = image.mount("ext4", "") else {
        return;
    };
    Life::new(mounted.path(), 31, 3000).go_on(150);
    mounted.sync();
    let stopped = image.copy();
    drop(mounted);
    let bytes = std::fs::read(stopped.path()).unwrap();
    let n_ways = if aged::all() { 3000 } else { 60 };
    aged::torture(&bytes, n_ways, std::time::Duration::from_secs(20));
}
