//! Checks of file systems beside the checkers of their makers: what those find sound is sound here, and of
//! damage that they see hardly any is missed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // A test fails by a panic.

mod aged;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aged::life::Life;
use aged::{FileVolume, Image, all, have, run};
use hako_block::testkit::Rng;
use hako_guest::check::{Checkup, check};

const MIB: u64 = 1 << 20;

/// One test at a time: a process that is about to become another program has our files open for a
/// moment, and nothing that they are on could be unmounted.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn checkup(image: &Image) -> Result<Checkup, String> {
    let volume = FileVolume::open(image.path());
    let fs = match hako_guest::fs::open(volume) {
        Ok(Some(fs)) => fs,
        Ok(None) => return Err("no file system".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let len = image.path().metadata().unwrap().len();
    Ok(check(&*fs, (0, len), &mut || Ok(())).unwrap())
}

#[track_caller]
fn assert_sound(image: &Image, what: &str) -> Checkup {
    let report = checkup(image).unwrap();
    assert!(report.is_sound(), "{what}: {report:#?}");
    assert!(report.n_files > 10 && report.n_directories > 3, "{what}");
    report
}

fn make(program: &str, args: &str, bytes: u64) -> Image {
    let image = Image::empty(bytes);
    let mut all: Vec<&str> = args.split_whitespace().collect();
    all.push(image.text());
    run(program, &all);
    image
}

fn make_ext(args: &str, bytes: u64) -> Image {
    make("mke2fs", &format!("{args} -q -F"), bytes)
}

/// Ages an image. None where nothing can be mounted.
fn aged(image: &Image, kind: &str, seed: u64, n_changes: usize) -> Option<()> {
    let mounted = image.mount(kind, "")?;
    let mut life = Life::new(mounted.path(), seed, 200_000);
    life.go_on(n_changes).oddities().go_on(n_changes / 2);
    Some(())
}

#[test]
fn what_linux_leaves_of_ext_is_sound_and_nothing_of_it_is_nobodys() {
    let _alone = alone();
    if !have(&["mke2fs", "mount", "e2fsck"]) {
        return;
    }
    for (args, seed) in [
        "-t ext2 -b 1024 -I 128",
        "-t ext2 -O ^dir_index,^filetype,^sparse_super,^resize_inode",
        "-t ext3 -b 1024",
        "-t ext4",
        "-t ext4 -b 1024",
        "-t ext4 -O ^extent,^64bit",
        "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode",
        "-t ext4 -O bigalloc -C 65536",
        "-t ext4 -O inline_data",
        "-t ext4 -O ^metadata_csum,uninit_bg,^64bit",
        "-t ext4 -O ^flex_bg -b 2048",
        "-t ext4 -b 1024 -g 256 -O ^resize_inode,sparse_super2",
        "-t ext4 -O large_dir,ea_inode",
        "-t ext4 -O orphan_file -E packed_meta_blocks=1",
    ]
    .iter()
    .zip(1..)
    {
        let image = make_ext(args, 64 * MIB);
        if aged(&image, "ext4", seed, 600).is_none() {
            return;
        }
        run("e2fsck", &["-fn", image.text()]);
        let report = assert_sound(&image, args);
        assert!(report.remarks.is_empty(), "{args}: {:?}", report.remarks);
    }
}

#[test]
fn an_ext_that_was_not_unmounted_is_sound_with_its_journal() {
    let _alone = alone();
    if !have(&["mke2fs", "mount", "e2fsck"]) {
        return;
    }
    for (args, seed) in [("-t ext4", 1), ("-t ext3 -b 1024 -J size=2", 2)] {
        let image = make_ext(args, 64 * MIB);
        let Some(mounted) = image.mount("ext4", "") else {
            return;
        };
        let mut life = Life::new(mounted.path(), seed, 200_000);
        life.go_on(600).oddities();
        let open = std::fs::File::create(mounted.path().join("gone")).unwrap();
        open.write_all_at(&[7; 100_000], 0).unwrap();
        std::fs::remove_file(mounted.path().join("gone")).unwrap();
        rustix::fs::syncfs(&open).unwrap();
        life.go_on(200);
        let stopped = image.copy();
        let report = assert_sound(&stopped, args);
        assert!(
            report
                .remarks
                .iter()
                .any(|one| one.contains("deleted while")),
            "{report:#?}"
        );
    }
}

/// Whether the kernel refuses some of the names in an ext4: it looks at what e2fsck passes over, such as
/// the flag of an extended attribute's inode on a folder (Linux 6.18 does).
fn kernel_refuses(image: &Image) -> bool {
    let mounted = image.mount("ext4", "ro").unwrap();
    let mut walk = Command::new("find");
    let walk = walk.arg(mounted.path()).arg("-ls");
    !walk.output().unwrap().status.success()
}

/// Flips a byte of one in use at a time, and compares with a program that says by its exit code
/// whether it finds damage; `overlooks` says whether it is there though it does not. Returns how often
/// it does and we do not, and of how many.
fn misses(
    image: &Image,
    seed: u64,
    n: u64,
    within: u64,
    finds: &dyn Fn(&Image) -> bool,
    overlooks: &dyn Fn(&Image) -> bool,
) -> [u64; 2] {
    let mut rng = Rng::new(seed);
    let whole = std::fs::read(image.path()).unwrap();
    let (mut missed, mut found) = (0, 0);
    for _ in 0..n {
        let at = loop {
            let at = rng.below(0..within.min(whole.len() as u64)) as usize;
            if whole[at / 64 * 64..][..64].iter().any(|byte| *byte != 0) {
                break at;
            }
        };
        let copy = image.copy();
        let file = OpenOptions::new().write(true).open(copy.path()).unwrap();
        let flipped = whole[at] ^ (1 << rng.below(0..8));
        file.write_all_at(&[flipped], at as u64).unwrap();
        drop(file);
        let ours = checkup(&copy).map(|report| report.is_sound());
        let is_found = finds(&copy);
        let was = whole[at];
        match (is_found, ours) {
            (false, Ok(false)) if overlooks(&copy) => {}
            (false, Ok(false)) => {
                let report = checkup(&copy).unwrap();
                panic!("byte {at:#x} {was:#x} to {flipped:#x}: only we find {report:#?}")
            }
            (true, Ok(true)) => {
                eprintln!("missed: byte {at:#x} {was:#x} to {flipped:#x}");
                missed += 1;
                found += 1;
            }
            (true, _) => found += 1,
            (false, _) => {}
        }
    }
    [missed, found]
}

fn fails(program: &str, args: &[&str], image: &Image) -> bool {
    let mut command = Command::new(program);
    let output = command.args(args).arg(image.path()).output().unwrap();
    !output.status.success()
}

#[test]
fn damage_that_e2fsck_finds_in_ext_is_found() {
    let _alone = alone();
    if !have(&["mke2fs", "mount", "e2fsck"]) {
        return;
    }
    let n = if all() { 1000 } else { 80 };
    for (args, most) in [
        ("-t ext4 -b 1024 -N 256 -J size=1", 20),
        ("-t ext2 -b 1024 -N 256", 35),
    ] {
        let image = make_ext(args, 8 * MIB);
        if aged(&image, "ext4", 5, 150).is_none() {
            return;
        }
        let e2fsck = |image: &Image| fails("e2fsck", &["-fn"], image);
        assert!(!e2fsck(&image));
        let [missed, found] = misses(&image, 3, n, MIB, &e2fsck, &kernel_refuses);
        eprintln!("{args}: {missed} of {found} missed");
        assert!(found > n / 10, "{args}: e2fsck itself finds only {found}");
        assert!(missed * 100 <= found * most, "{args}: {missed} of {found}");
    }
}

#[test]
fn damage_of_every_kind_is_named() {
    let _alone = alone();
    if !have(&["mke2fs", "mount", "debugfs", "e2fsck"]) {
        return;
    }
    let image = make_ext("-t ext4 -b 1024 -O ^metadata_csum", 16 * MIB);
    if aged(&image, "ext4", 9, 200).is_none() {
        return;
    }
    {
        let mounted = image.mount("ext4", "").unwrap();
        std::fs::write(mounted.path().join("one"), vec![1; 20_000]).unwrap();
        std::fs::write(mounted.path().join("two"), vec![2; 20_000]).unwrap();
        std::fs::create_dir(mounted.path().join("folder")).unwrap();
    }
    let text = run("debugfs", &["-R", "bmap two 0", image.text()]);
    let block = text.trim().to_owned();
    for (changes, named) in [
        (vec!["sif one links_count 7".to_owned()], "counts 7 links"),
        (vec![format!("freeb {block} 1")], "free in the map"),
        (vec!["unlink one".to_owned()], "no directory names it"),
        (vec!["freei one".to_owned()], "free in the bitmap"),
        (vec!["sif one blocks 9".to_owned()], "counts 4 blocks"),
        (vec!["clri one".to_owned()], "not in use"),
        (
            vec!["set_bg 0 free_inodes_count 3".to_owned()],
            "counts 3 free inodes",
        ),
        (
            vec!["set_bg 0 free_blocks_count 3".to_owned()],
            "counts 3 free blocks",
        ),
        (vec!["sif folder mode 0100644".to_owned()], "by its name"),
        (
            vec![
                "sif one flags 0".to_owned(),
                format!("sif one block[0] {block}"),
            ],
            "and so has node",
        ),
    ] {
        let copy = image.copy();
        for change in &changes {
            run("debugfs", &["-w", "-R", change, copy.text()]);
        }
        assert!(fails("e2fsck", &["-fn"], &copy), "{changes:?}");
        let report = checkup(&copy).unwrap();
        assert!(
            report.damage.iter().any(|damage| damage.contains(named)),
            "{changes:?}: {report:#?}"
        );
    }
}

#[test]
fn xfs_is_sound_and_damage_that_xfs_repair_finds_is_found() {
    let _alone = alone();
    if !have(&["mkfs.xfs", "mount", "xfs_repair"]) {
        return;
    }
    let image = make("mkfs.xfs", "-q -l size=64m", 320 * MIB);
    if aged(&image, "xfs", 4, 800).is_none() {
        return;
    }
    let repair = |image: &Image| fails("xfs_repair", &["-n"], image);
    assert!(!repair(&image));
    let report = assert_sound(&image, "xfs");
    assert!(report.remarks.is_empty(), "{report:#?}");
    let n = if all() { 300 } else { 12 };
    // The first group's headers, trees and inodes.
    let [missed, found] = misses(&image, 6, n, 512 << 10, &repair, &|_| false);
    eprintln!("xfs: {missed} of {found} missed");
    assert!(missed * 100 <= found * 60, "{missed} of {found}");
}

#[test]
fn fat_is_sound_and_damage_that_fsck_finds_is_found() {
    let _alone = alone();
    if !have(&["mkfs.vfat", "fsck.vfat", "mcopy"]) {
        return;
    }
    let image = make("mkfs.vfat", "-F 16", 16 * MIB);
    let tree = image.folder().join("tree");
    std::fs::create_dir(&tree).unwrap();
    Life::new(&tree, 8, 60_000).go_on(30);
    for folder in ["a", "b/c", "b/d", "e/f/g"] {
        std::fs::create_dir_all(tree.join(folder)).unwrap();
        for n in 0..6 {
            std::fs::write(
                tree.join(folder).join(format!("a long name {n}")),
                [n; 5000],
            )
            .unwrap();
        }
    }
    let folders = ["a", "b", "e"].map(|name| tree.join(name).to_str().unwrap().to_owned());
    let mut args = vec!["-s", "-i", image.text()];
    args.extend(folders.iter().map(String::as_str));
    args.push("::/");
    run("mcopy", &args);
    let fsck = |image: &Image| fails("fsck.vfat", &["-n"], image);
    assert!(!fsck(&image));
    let report = assert_sound(&image, "fat");
    assert!(report.remarks.is_empty(), "{report:#?}");
    let n = if all() { 1000 } else { 100 };
    let [missed, found] = misses(&image, 2, n, 64 << 10, &fsck, &|_| false);
    eprintln!("fat: {missed} of {found} missed");
    assert!(missed * 100 <= found * 40, "{missed} of {found}");
}

#[test]
fn what_fat16_keeps_in_place_of_the_upper_half_of_a_cluster_is_no_cluster() {
    let _alone = alone();
    if !have(&["mkfs.vfat", "fsck.vfat", "mcopy"]) {
        return;
    }
    let image = make("mkfs.vfat", "-F 16", 16 * MIB);
    let file = image.folder().join("plain.txt");
    std::fs::write(&file, "what is in it").unwrap();
    run(
        "mcopy",
        &["-i", image.text(), file.to_str().unwrap(), "::/"],
    );
    let bytes = std::fs::read(image.path()).unwrap();
    let name = b"PLAIN   TXT";
    let at = bytes.windows(11).position(|found| found == name).unwrap();
    let file = OpenOptions::new().write(true).open(image.path()).unwrap();
    file.write_all_at(&[0x40], at as u64 + 20).unwrap();
    drop(file);
    assert!(!fails("fsck.vfat", &["-n"], &image));
    let report = checkup(&image).unwrap();
    assert!(report.is_sound(), "{report:#?}");
    let tree = hako_guest::Tree::new(image.open());
    assert_eq!(tree.read(b"/plain.txt", 100).unwrap(), b"what is in it");
}
