//! XFS as mkfs.xfs makes it and Linux uses it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

mod aged;

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aged::life::Life;
use aged::{Compare, Image, assert_same, have, run};

const MIB: u64 = 1 << 20;
const UUID: &str = "2dc27766-f623-4200-9d64-115e9bfd4a08";

/// Arguments of mkfs.xfs for what Linux mounts here: version 5.
const MOUNTED: &[&str] = &[
    "",
    "-b size=1024",
    "-b size=2048",
    "-b size=1024 -n size=8192",
    "-n size=16384",
    "-n size=65536",
    "-i size=1024",
    "-i size=2048",
    "-i sparse=0",
    "-i nrext64=1",
    "-m reflink=0,rmapbt=1 -l size=16m",
    "-m rmapbt=1 -l size=16m",
    "-m finobt=0,reflink=0,rmapbt=0",
    "-m bigtime=0",
    "-m inobtcount=0",
    "-s size=4096",
    "-d agcount=5",
    "-d sunit=64,swidth=128",
    "-l sunit=512",
];

/// For what it does not: version 4, blocks above a page, made by mkfs.xfs from a folder.
const COPIED: &[&str] = &[
    "-m crc=0,finobt=0,rmapbt=0,reflink=0 -b size=512 -i size=256",
    "-m crc=0,finobt=0,rmapbt=0,reflink=0",
    "-m crc=0,finobt=0,rmapbt=0,reflink=0 -n ftype=0 -i projid32bit=0 -l lazy-count=0",
    "-m crc=0,finobt=0,rmapbt=0,reflink=0 -b size=1024 -n size=4096 -l version=1",
    "-m crc=0,finobt=0,rmapbt=0,reflink=0 -n version=ci -s size=4096",
    "-m crc=0,finobt=0,rmapbt=0,reflink=0 -b size=65536",
    "-m crc=0 -i attr=1,size=2048",
    "-b size=1024",
    "-b size=8192",
    "-b size=16384 -s size=4096",
    "-b size=32768",
    "-b size=65536",
    "-n version=ci",
];

fn make(args: &str, bytes: u64, from: Option<&Path>) -> Image {
    let image = Image::empty(bytes);
    let mut mkfs = Command::new("mkfs.xfs");
    mkfs.args(args.split_whitespace());
    mkfs.args(["-q", "-f", "-L", "a label", "-m", &format!("uuid={UUID}")]);
    // Its own tests make small ones, and so do we.
    mkfs.envs([("TEST_DIR", "x"), ("TEST_DEV", "x"), ("QA_CHECK_FS", "x")]);
    if let Some(folder) = from {
        let mut text = "none\n0 0\nd--755 0 0\n".to_owned();
        // It writes the longer links of version 5 as those of version 4.
        let longest = if args.contains("crc=0") { 1023 } else { 156 };
        describe(folder, longest, &mut text);
        let path = image.folder().join("prototype");
        std::fs::write(&path, text).unwrap();
        mkfs.arg("-p").arg(path);
    }
    let output = mkfs.arg(image.text()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{mkfs:?}: {said}");
    image
}

/// Describes a folder as mkfs.xfs reads it. What it cannot say is removed from the folder.
fn describe(folder: &Path, longest_link: u64, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let kind = meta.file_type();
        let is_odd = name
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control());
        let is_long = kind.is_symlink() && meta.len() > longest_link;
        if is_odd || is_long || kind.is_socket() || meta.len() > 10 * MIB {
            std::fs::remove_file(&path).unwrap();
            continue;
        }
        let letter = match () {
            () if kind.is_dir() => 'd',
            () if kind.is_symlink() => 'l',
            () if kind.is_char_device() => 'c',
            () if kind.is_block_device() => 'b',
            () if kind.is_fifo() => 'p',
            () => '-',
        };
        let set = |bit, letter| if meta.mode() & bit != 0 { letter } else { '-' };
        let (set_user, set_group) = (set(0o4000, 'u'), set(0o2000, 'g'));
        let (mode, uid, gid) = (meta.mode() & 0o777, meta.uid(), meta.gid());
        write!(
            text,
            "{name} {letter}{set_user}{set_group}{mode:03o} {uid} {gid}"
        )
        .unwrap();
        match letter {
            'd' => {
                text.push('\n');
                describe(&path, longest_link, text);
            }
            'l' => {
                let target = std::fs::read_link(&path).unwrap();
                let target = std::str::from_utf8(target.as_os_str().as_bytes()).unwrap();
                writeln!(text, " {target}").unwrap();
            }
            'c' | 'b' => {
                let (major, minor) = (
                    rustix::fs::major(meta.rdev()),
                    rustix::fs::minor(meta.rdev()),
                );
                writeln!(text, " {major} {minor}").unwrap();
            }
            '-' => writeln!(text, " {}", path.display()).unwrap(),
            _ => text.push('\n'),
        }
    }
    text.push_str("$\n");
}

fn assert_info(image: &Image, bytes: u64) {
    let fs = image.open();
    let info = fs.info();
    assert_eq!(
        (info.kind, info.label.as_str(), info.uuid.as_str()),
        ("xfs", "a label", UUID)
    );
    // Groups have all the same length, but the last.
    assert!(info.len_bytes <= bytes && info.len_bytes > bytes - MIB);
    assert_eq!(info.remarks, [""; 0]);
}

#[test]
fn every_feature_that_linux_mounts_reads_as_it_shows_it() {
    if !have(&["mkfs.xfs", "mount"]) {
        return;
    }
    for (args, seed) in MOUNTED.iter().zip(1..) {
        eprintln!("{args}");
        let image = make(args, 96 * MIB, None);
        let Some(mounted) = image.mount("xfs", "nouuid") else {
            return;
        };
        Life::new(mounted.path(), seed, 60_000)
            .oddities()
            .go_on(200);
        drop(mounted);
        assert_info(&image, 96 * MIB);
        let mounted = image.mount("xfs", "ro,nouuid").unwrap();
        let n_names = assert_same(&*image.open(), mounted.path(), Compare::MOUNTED);
        assert!(n_names > 100, "{n_names} names");
    }
}

#[test]
fn what_mkfs_makes_of_a_folder_is_that_folder() {
    if !have(&["mkfs.xfs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    std::fs::create_dir(&from).unwrap();
    Life::new(&from, 7, 60_000)
        .oddities()
        .go_on(300)
        .crowd("crowd", 2000);
    for args in COPIED {
        eprintln!("{args}");
        let image = make(args, 256 * MIB, Some(&from));
        assert_info(&image, 256 * MIB);
        assert_same(&*image.open(), &from, Compare::COPIED);
    }
}

/// Arguments of mkfs.xfs for what stops without an end.
const STOPPED: &[&str] = &[
    "",
    "-b size=1024 -l size=4m",
    "-m bigtime=0,reflink=0 -i sparse=0",
    "-m rmapbt=1 -i nrext64=1 -n size=8192 -l size=16m",
    "-l sunit=512 -s size=4096",
];

#[test]
fn a_stopped_file_system_reads_as_the_next_mount_shows_it() {
    if !have(&["mkfs.xfs", "mount", "xfs_logprint"]) {
        return;
    }
    for (args, seed) in STOPPED.iter().zip(100..) {
        eprintln!("{args}");
        let image = make(args, 96 * MIB, None);
        let Some(mounted) = image.mount("xfs", "nouuid") else {
            return;
        };
        let mut life = Life::new(mounted.path(), seed, 30_000);
        life.oddities().go_on(150);
        mounted.sync();
        life.go_on(150).crowd("crowd", 300);
        mounted.sync();
        life.go_on(100);
        let stopped = image.copy();
        drop(mounted);
        assert_replayed(&stopped);
    }
}

#[test]
fn a_log_that_went_round_several_times_is_replayed() {
    if !have(&["mkfs.xfs", "mount", "xfs_logprint"]) {
        return;
    }
    let image = make("-b size=1024 -l size=4m", 96 * MIB, None);
    let Some(mounted) = image.mount("xfs", "nouuid") else {
        return;
    };
    let mut life = Life::new(mounted.path(), 21, 9000);
    for round in 0..12 {
        life.crowd(&format!("crowd{round}"), 1500);
        for _ in 0..8 {
            life.go_on(30);
            mounted.sync();
        }
        if round % 3 == 2 {
            assert_replayed(&image.copy());
        }
    }
    let about = run("xfs_logprint", &["-t", image.text()]);
    let cycle = about.rsplit("LSN cycle ").next().unwrap();
    assert!(
        !cycle.starts_with("1 "),
        "the log did not go round: {}",
        &cycle[..20]
    );
}

/// Compares what is read of an image with what a mount of a copy, which replays, shows.
fn assert_replayed(stopped: &Image) {
    let about = run("xfs_logprint", &["-t", stopped.text()]);
    assert!(about.contains("<DIRTY>"), "{about}");
    let mended = stopped.copy();
    let mounted = mended.mount("xfs", "nouuid").unwrap();
    let fs = stopped.open();
    assert_eq!(fs.info().remarks, [""; 0]);
    let n_names = assert_same(&*fs, mounted.path(), Compare::MOUNTED);
    assert!(n_names > 150, "{n_names} names");
}

#[test]
fn crowds_and_deep_trees_are_read_whole_stopped_or_not() {
    if !have(&["mkfs.xfs", "mount", "xfs_logprint", "cp"]) {
        return;
    }
    for args in ["-b size=1024", "-n size=8192"] {
        eprintln!("{args}");
        let image = make(args, 160 * MIB, None);
        let Some(mounted) = image.mount("xfs", "nouuid") else {
            return;
        };
        let at = |name: &str| mounted.path().join(name).to_str().unwrap().to_owned();
        let mut life = Life::new(mounted.path(), 3, 30_000);
        life.crowd("crowd", 20_000);
        life.fragmented(at("deep").as_ref(), 6000);
        run("cp", &["--reflink=always", &at("deep"), &at("shared")]);
        life.fragmented(at("shared").as_ref(), 100);
        mounted.sync();
        life.crowd("late", 3000).go_on(100);
        run("cp", &["--reflink=always", &at("deep"), &at("shared-late")]);
        mounted.sync();
        let stopped = image.copy();
        drop(mounted);
        assert_replayed(&stopped);
        let mounted = image.mount("xfs", "ro,nouuid").unwrap();
        let n_names = assert_same(&*image.open(), mounted.path(), Compare::MOUNTED);
        assert!(n_names > 19_000, "{n_names} names");
    }
}

#[test]
fn what_the_log_cannot_tell_is_said() {
    if !have(&["mkfs.xfs", "mount", "xfs_logprint"]) {
        return;
    }
    let image = make("-b size=1024 -l size=4m", 64 * MIB, None);
    let Some(mounted) = image.mount("xfs", "nouuid") else {
        return;
    };
    let mut life = Life::new(mounted.path(), 5, 30_000);
    for _ in 0..5 {
        life.go_on(100);
        mounted.sync();
    }
    let stopped = image.copy();
    drop(mounted);
    let about = run("xfs_logprint", &["-t", stopped.text()]);
    let mut numbers = about
        .split_whitespace()
        .filter_map(|word| word.parse::<u64>().ok());
    // Where the log is, in blocks of 512 bytes, how long it is, and where its tail is.
    let (at, _, tail) = (numbers.next(), numbers.next(), numbers.next());
    let (at, tail) = (at.unwrap() as usize * 512, tail.unwrap() as usize * 512);
    let whole = std::fs::read(stopped.path()).unwrap();
    let remarks = |damage: &dyn Fn(&mut [u8])| {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        let fs = hako_guest::fs::open(std::sync::Arc::new(bytes))
            .unwrap()
            .unwrap();
        aged::read_all(&*fs);
        fs.info().remarks.join(" ")
    };
    assert_eq!(remarks(&|_| ()), "");
    let said = remarks(&|bytes| bytes[at + tail + 700] ^= 1);
    assert!(said.contains("its log is damaged"), "{said}");
    let said = remarks(&|bytes| bytes[at..at + (4 << 20)].fill(0x11));
    assert!(said.contains("its log is damaged"), "{said}");
}

#[test]
fn damaged_ones_end_in_errors() {
    if !have(&["mkfs.xfs"]) {
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
        "-m crc=0,finobt=0,rmapbt=0,reflink=0 -b size=512 -i size=256",
        "-b size=1024",
    ] {
        let image = make(args, 24 * MIB, Some(&from));
        let bytes = std::fs::read(image.path()).unwrap();
        aged::torture(&bytes, n_ways, Duration::from_secs(20));
    }
}

#[test]
fn damaged_logs_end_in_errors() {
    if !have(&["mkfs.xfs", "mount"]) {
        return;
    }
    let image = make("-b size=1024 -l size=4m -d agcount=1", 24 * MIB, None);
    let Some(mounted) = image.mount("xfs", "nouuid") else {
        return;
    };
    Life::new(mounted.path(), 31, 3000).go_on(150);
    mounted.sync();
    let stopped = image.copy();
    drop(mounted);
    let mut bytes = std::fs::read(stopped.path()).unwrap();
    // Records without a checksum are believed: behind a wrong one nothing would be looked at.
    for block in bytes.chunks_mut(512) {
        if block.starts_with(&[0xfe, 0xed, 0xba, 0xbe]) {
            block[32..36].fill(0);
        }
    }
    let n_ways = if aged::all() { 3000 } else { 60 };
    aged::torture(&bytes, n_ways, Duration::from_secs(20));
}
