//! What of a disk is in use: at least what others say, hardly more, and enough for everything that is
//! in it. What is free is overwritten with noise in a copy, which must be sound then and have every file.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

mod aged;

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use hako_block::testkit::Rng;
use hako_guest::{Ranges, UsedMap, Volume, Volumes};

use aged::life::Life;
use aged::{FileVolume, Image, all, have, run};

const MIB: u64 = 1 << 20;
/// The first and last MiB of a disk are in, whatever is there.
const ENDS_BYTES: u64 = 2 * MIB;

fn map_of(images: &[&Image], keep_scratch: bool) -> UsedMap {
    let disks = images.iter().map(|image| {
        let disk: Arc<dyn Volume> = FileVolume::open(image.path());
        disk
    });
    let volumes = Volumes::of(disks.collect()).unwrap();
    UsedMap::of(&volumes, keep_scratch).unwrap()
}

fn len_of(image: &Image) -> u64 {
    image.path().metadata().unwrap().len()
}

/// Returns what is in use of a disk, asked in windows of odd lengths.
fn used_of(map: &UsedMap, disk: usize, len: u64) -> Ranges {
    let mut used = Ranges::default();
    let mut at = 0;
    for step in (1..).map(|n: u64| n * 1_234_567) {
        let end = (at + step).min(len);
        let window = at..end;
        let found = map.used(disk, &window).unwrap();
        assert!(found.gaps(&window).within(&window).n_bytes() + found.n_bytes() == end - at);
        used.add_all(&found);
        at = end;
        if at == len {
            break;
        }
    }
    assert_eq!(used, map.used(disk, &(0..len)).unwrap());
    let survey = map.survey(disk, &mut |_| Ok(())).unwrap();
    let bytes: u64 = survey.iter().map(|volume| volume.bytes).sum();
    assert!(bytes >= len, "{survey:?}");
    used
}

fn used(image: &Image) -> Ranges {
    used_of(&map_of(&[image], false), 0, len_of(image))
}

/// Asserts that all of `theirs` is in use, and hardly more.
#[track_caller]
fn assert_agrees(ours: &Ranges, theirs: &Ranges, what: &str) {
    let mut missing = theirs.clone();
    missing.remove(ours);
    let first = missing.iter().next();
    assert!(missing.is_empty(), "{what}: {first:?} is in use");
    let mut more = ours.clone();
    more.remove(theirs);
    let most = theirs.n_bytes() / 50 + ENDS_BYTES + MIB / 4;
    assert!(
        more.n_bytes() <= most,
        "{what}: {} bytes more than {}: {:?}",
        more.n_bytes(),
        theirs.n_bytes(),
        more.iter().max_by_key(|range| range.end - range.start)
    );
}

/// Returns a copy that has noise where nothing is in use.
fn noisy(image: &Image, used: &Ranges) -> Image {
    let copy = image.copy();
    let file = File::options().write(true).open(copy.path()).unwrap();
    let noise = Rng::new(9).bytes(1 << 20);
    let gaps = used.gaps(&(0..len_of(image)));
    assert!(!gaps.is_empty(), "nothing is free");
    for gap in gaps.iter() {
        let mut at = gap.start;
        while at < gap.end {
            let len = (gap.end - at).min(noise.len() as u64);
            file.write_all_at(&noise[..len as usize], at).unwrap();
            at += len;
        }
    }
    copy
}

/// Returns what partclone says is in use.
fn partclone(kind: &str, image: &Image) -> Ranges {
    let domain = image.folder().join("domain");
    let log = image.folder().join("log");
    run(
        &format!("partclone.{kind}"),
        &[
            "-D",
            "-q",
            "-F",
            "-L",
            log.to_str().unwrap(),
            "-s",
            image.text(),
            "-o",
            domain.to_str().unwrap(),
        ],
    );
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let mut used = Ranges::default();
    let text = fs::read_to_string(&domain).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [start, len, "+"] = words[..] {
            let start = number(start);
            used.add(start..start + number(len));
        }
    }
    fs::remove_file(&domain).unwrap();
    used.within(&(0..len_of(image)))
}

/// Returns the lives that a row of a table goes through: all, or one of them in turn.
fn lives(seed: u64) -> &'static [&'static str] {
    const ALL: &[&str] = &["aged", "full", "new"];
    let one = seed as usize % ALL.len();
    if all() { ALL } else { &ALL[one..=one] }
}

/// Lives below `root`: few files, many that come and go, or until nothing fits any more.
fn live(root: &Path, seed: u64, how: &str) {
    let mut life = Life::new(root, seed, 60_000);
    match how {
        "new" => {}
        "aged" => {
            life.oddities().go_on(if all() { 4000 } else { 600 });
        }
        "full" => {
            life.go_on(200);
            // Holes everywhere.
            life.fragmented(&root.join("fragmented"), 300);
            let noise = Rng::new(seed).bytes(1 << 20);
            let fill = File::create(root.join("fill")).unwrap();
            let mut at = 0;
            while fill.write_all_at(&noise, at).is_ok() {
                at += noise.len() as u64;
            }
            life.go_on(200);
        }
        other => panic!("{other}"),
    }
}

/// Returns the free blocks that dumpe2fs lists.
fn dumpe2fs(image: &Image) -> Ranges {
    let text = run("dumpe2fs", &[image.text()]);
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let block = field("Block size:");
    let mut free = Ranges::default();
    for line in text.lines() {
        let Some(list) = line.strip_prefix("  Free blocks: ") else {
            continue;
        };
        for part in list.split(", ").filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u64>().unwrap();
            free.add(number(first) * block..(number(last) + 1) * block);
        }
    }
    free
}

const EXT: &[&str] = &[
    "-t ext2 -b 1024 -I 128",
    "-t ext3",
    "-t ext4",
    "-t ext4 -b 4096",
    "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode",
    "-t ext4 -O bigalloc -C 65536",
    "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode",
    "-t ext4 -O ^metadata_csum,uninit_bg,^64bit",
    "-t ext4 -O ^metadata_csum,^uninit_bg",
    "-t ext4 -b 1024 -g 256 -O ^resize_inode,sparse_super2",
    "-t ext4 -G 4 -g 2048",
    "-t ext4 -E packed_meta_blocks=1 -b 1024",
    "-t ext4 -O ^flex_bg -b 2048",
];

fn make_ext(args: &str, bytes: u64) -> Image {
    let image = Image::empty(bytes);
    let mut all: Vec<&str> = args.split_whitespace().collect();
    all.extend(["-q", "-F", image.text()]);
    run("mke2fs", &all);
    image
}

#[test]
fn the_map_of_ext_is_what_dumpe2fs_and_partclone_say() {
    if !have(&["mke2fs", "mount", "dumpe2fs", "e2fsck", "partclone.ext4"]) {
        return;
    }
    for (args, seed) in EXT.iter().zip(1..) {
        for how in lives(seed) {
            let image = make_ext(args, 64 * MIB);
            let Some(mounted) = image.mount("ext4", "") else {
                return;
            };
            live(mounted.path(), seed, how);
            let there = listing(mounted.path());
            drop(mounted);
            let what = format!("{args}, {how}");
            let ours = used(&image);
            // Of clusters of several blocks dumpe2fs lists the first ones alone.
            if !args.contains("bigalloc") {
                let theirs = dumpe2fs(&image).gaps(&(0..len_of(&image)));
                let inner = ENDS_BYTES / 2..len_of(&image) - ENDS_BYTES / 2;
                assert_eq!(ours.within(&inner), theirs.within(&inner), "{what}");
                assert_agrees(&ours, &partclone("ext4", &image), &what);
            }
            let copy = noisy(&image, &ours);
            run("e2fsck", &["-fn", copy.text()]);
            assert_listed(&there, copy.mount("ext4", "ro").unwrap().path());
        }
    }
}

/// Asserts that what is in two images is the same, as the kernel shows it.
#[track_caller]
fn assert_same_files(image: &Image, copy: &Image, kind: &str, options: &str) {
    let there = listing(image.mount(kind, options).unwrap().path());
    assert_listed(&there, copy.mount(kind, options).unwrap().path());
}

/// Returns all names below a folder, with what they are and sums of their content.
#[track_caller]
fn listing(path: &Path) -> String {
    const LIST: &str = "cd \"$0\"; find . -not -type d -printf '%p %y %m %U %G %s %l\\n' | sort; \
                        find . -type d | sort; find . -type f -print0 | sort -z | xargs -0 cksum";
    run("sh", &["-c", LIST, path.to_str().unwrap()])
}

/// Asserts that a folder has what was listed.
#[track_caller]
fn assert_listed(there: &str, here: &Path) {
    let here = listing(here);
    let differs = there
        .lines()
        .zip(here.lines())
        .find(|(there, here)| there != here);
    assert_eq!(differs, None);
    assert_eq!(there.len(), here.len());
}

/// How a file system is stopped: in the middle of its life, half of it synced.
fn stopped(image: &Image, kind: &str, options: &str, seed: u64) -> Option<Image> {
    let mounted = image.mount(kind, options)?;
    let mut life = Life::new(mounted.path(), seed, 30_000);
    life.oddities().go_on(200);
    mounted.sync();
    life.go_on(200);
    mounted.sync();
    life.go_on(100);
    for n in 0..20 {
        let path = mounted.path().join(format!("synced{n}"));
        fs::write(&path, vec![n; 20_000]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        if n % 3 == 0 {
            fs::remove_file(&path).unwrap();
        }
    }
    Some(image.copy())
}

#[test]
fn of_a_stopped_ext_both_states_are_in() {
    if !have(&["mke2fs", "mount", "e2fsck", "partclone.ext4"]) {
        return;
    }
    for (args, options, seed) in [
        ("-t ext4", "", 1),
        ("-t ext4 -b 1024 -J size=2", "", 2),
        ("-t ext4 -b 4096", "data=journal", 3),
        ("-t ext4 -O bigalloc,inline_data,orphan_file", "", 4),
        ("-t ext3 -b 1024 -J size=2", "", 5),
    ] {
        let image = make_ext(args, 64 * MIB);
        let Some(stopped) = stopped(&image, "ext4", options, seed) else {
            return;
        };
        let ours = used(&stopped);
        let copy = noisy(&stopped, &ours);
        // Before: what the journal is not asked about.
        let is_listed = !args.contains("bigalloc");
        if is_listed {
            let old = dumpe2fs(&stopped).gaps(&(0..len_of(&stopped)));
            assert_agrees_stopped(&ours, &old, args);
        }
        // After: the kernel replays.
        assert_same_files(&stopped, &copy, "ext4", "");
        run("e2fsck", &["-fn", copy.text()]);
        if is_listed {
            let new = dumpe2fs(&stopped).gaps(&(0..len_of(&stopped)));
            assert_agrees_stopped(&ours, &new, args);
        }
    }
}

/// Like [`assert_agrees`] of one of two states: what only the other has is more.
#[track_caller]
fn assert_agrees_stopped(ours: &Ranges, theirs: &Ranges, what: &str) {
    let mut missing = theirs.clone();
    missing.remove(ours);
    let first = missing.iter().next();
    assert!(missing.is_empty(), "{what}: {first:?} is in use");
    assert!(ours.n_bytes() < theirs.n_bytes() * 2, "{what}");
}

#[test]
fn an_ext_that_nobody_can_vouch_for_is_in_use_as_a_whole() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    for (args, change) in [
        ("-t ext4 -b 1024", "ssv state 3"),
        ("-t ext2 -b 1024", "ssv state 0"),
        ("-t ext4 -b 1024", "set_bg 0 block_bitmap 9"),
    ] {
        let image = make_ext(args, 16 * MIB);
        run("debugfs", &["-w", "-R", change, image.text()]);
        let map = map_of(&[&image], false);
        let whole = map.used(0, &(0..len_of(&image))).unwrap();
        assert_eq!(whole.n_bytes(), 16 * MIB, "{args} {change}");
        let survey = map.survey(0, &mut |_| Ok(())).unwrap();
        assert!(
            survey[0].is_whole && !survey[0].notes.is_empty(),
            "{survey:?}"
        );
    }
}

const XFS: &[&str] = &[
    "",
    "-b size=1024",
    "-m rmapbt=1",
    "-m finobt=0,reflink=0,rmapbt=0",
    "-s size=4096",
    "-d agcount=3",
];

fn make_xfs(args: &str, bytes: u64) -> Image {
    let image = Image::empty(bytes);
    let mut all: Vec<&str> = args.split_whitespace().collect();
    all.extend(["-q", "-f", image.text()]);
    run("mkfs.xfs", &all);
    image
}

/// Returns what xfs_db does not list as free.
fn xfs_db(image: &Image) -> Ranges {
    let text = run(
        "xfs_db",
        &[
            "-r",
            "-c",
            "sb 0",
            "-c",
            "p blocksize agblocks",
            "-c",
            "freesp -d",
            image.text(),
        ],
    );
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (block, group) = (field("blocksize"), field("agblocks"));
    let mut free = Vec::new();
    for line in text.lines() {
        let words: Vec<u64> = line
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        if let [number, start, len] = words[..] {
            let start = (number * group + start) * block;
            free.push(start..start + len * block);
        }
    }
    free.sort_by_key(|range: &Range<u64>| range.start);
    let mut ranges = Ranges::default();
    free.into_iter().for_each(|range| ranges.add(range));
    ranges.gaps(&(0..len_of(image)))
}

#[test]
fn the_map_of_xfs_is_what_xfs_db_and_partclone_say() {
    if !have(&["mkfs.xfs", "mount", "xfs_db", "xfs_repair", "partclone.xfs"]) {
        return;
    }
    for (args, seed) in XFS.iter().zip(1..) {
        for how in lives(seed) {
            let image = make_xfs(args, 320 * MIB);
            let Some(mounted) = image.mount("xfs", "nouuid") else {
                return;
            };
            live(mounted.path(), seed, how);
            let there = listing(mounted.path());
            drop(mounted);
            let what = format!("{args}, {how}");
            let ours = used(&image);
            assert_agrees(&ours, &xfs_db(&image), &what);
            assert_agrees(&ours, &partclone("xfs", &image), &what);
            let copy = noisy(&image, &ours);
            run("xfs_repair", &["-n", copy.text()]);
            let options = "ro,nouuid,norecovery";
            assert_listed(&there, copy.mount("xfs", options).unwrap().path());
        }
    }
}

#[test]
fn of_a_stopped_xfs_both_states_are_in() {
    if !have(&["mkfs.xfs", "mount", "xfs_repair", "xfs_db"]) {
        return;
    }
    let n_rows = if all() { XFS.len() } else { 3 };
    for (args, seed) in XFS.iter().zip(1..).take(n_rows) {
        let image = make_xfs(args, 320 * MIB);
        let Some(stopped) = stopped(&image, "xfs", "nouuid", seed) else {
            return;
        };
        drop(image);
        let ours = used(&stopped);
        let copy = noisy(&stopped, &ours);
        assert_same_files(&stopped, &copy, "xfs", "nouuid");
        run("xfs_repair", &["-n", copy.text()]);
        let new = xfs_db(&stopped);
        assert_agrees_stopped(&ours, &new, args);
    }
}

const BTRFS: &[&str] = &[
    "",
    "-m dup -d single",
    "-m single -d dup",
    "-M -n 4096",
    "-O ^no-holes -R ^free-space-tree",
    "-n 65536",
];

fn make_btrfs(args: &str, images: &[&Image]) {
    let mut all: Vec<&str> = args.split_whitespace().collect();
    all.extend(["-q", "-f"]);
    all.extend(images.iter().map(|image| image.text()));
    run("mkfs.btrfs", &all);
}

/// Returns what the trees of a btrfs on one device, as btrfs-progs print them, say is in use: on the
/// device; and where partclone marks more than that: all chunks for nodes, and the addresses of extents
/// in the chunks, in whole nodes, as if they were on the device.
fn dump_tree(image: &Image) -> (Ranges, Ranges) {
    let dump = |tree: &str| {
        let args = ["inspect-internal", "dump-tree", "-t", tree, image.text()];
        run("btrfs", &args)
    };
    let node: u64 = {
        let text = run("btrfs", &["inspect-internal", "dump-super", image.text()]);
        let line = text
            .lines()
            .find(|line| line.starts_with("nodesize"))
            .unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    let key = |line: &str, kind: &str| -> Option<(u64, u64)> {
        let (_, rest) = line.split_once("key (")?;
        let words: Vec<&str> = rest.split([' ', ')']).collect();
        let number = |index: usize| words.get(index)?.parse::<u64>().ok();
        (words.get(1) == Some(&kind)).then_some((number(0).unwrap_or(0), number(2)?))
    };
    let text = dump("chunk");
    let mut stripes: Vec<(u64, u64, u64)> = Vec::new();
    let (mut chunk, mut is_for_nodes) = ((0, 0), false);
    let (mut used, mut doubtful) = (Ranges::default(), Ranges::default());
    for line in text.lines() {
        if let Some((_, start)) = key(line, "CHUNK_ITEM") {
            chunk.0 = start;
        } else if let Some(rest) = line.trim().strip_prefix("length ") {
            chunk.1 = rest.split(' ').next().unwrap().parse().unwrap();
            is_for_nodes = !rest.contains("type DATA|") || rest.contains("METADATA");
        } else if let Some((_, offset)) = line.split_once(" offset ")
            && line.trim().starts_with("stripe ")
        {
            let offset: u64 = offset.trim().parse().unwrap();
            stripes.push((chunk.0, chunk.1, offset));
            if is_for_nodes {
                doubtful.add(offset..offset + chunk.1);
            }
        }
    }
    // partclone's unit is a node.
    let whole = |at: u64, len: u64| at / node * node..(at + len).next_multiple_of(node);
    for line in dump("extent").lines() {
        let extent = key(line, "EXTENT_ITEM")
            .or_else(|| key(line, "METADATA_ITEM").map(|(start, _)| (start, node)));
        let Some((start, len)) = extent else {
            continue;
        };
        let holds = |stripe: &&(u64, u64, u64)| (stripe.0..stripe.0 + stripe.1).contains(&start);
        for (chunk, _, offset) in stripes.iter().filter(holds) {
            let at = offset + start - chunk;
            used.add(at..at + len);
            doubtful.add(whole(at, len));
        }
        doubtful.add(whole(start, len));
    }
    (used, doubtful)
}

#[test]
fn the_map_of_btrfs_is_what_its_trees_and_partclone_say() {
    if !have(&["mkfs.btrfs", "mount", "btrfs", "partclone.btrfs"]) {
        return;
    }
    for (args, seed) in BTRFS.iter().zip(1..) {
        for how in lives(seed) {
            let image = Image::empty(256 * MIB);
            make_btrfs(args, &[&image]);
            let Some(mounted) = image.mount("btrfs", "") else {
                return;
            };
            live(mounted.path(), seed, how);
            drop(mounted);
            let what = format!("{args}, {how}");
            let ours = used(&image);
            let (mapped, doubtful) = dump_tree(&image);
            assert_agrees(&ours, &mapped, &what);
            // partclone.btrfs (0.3.23) marks more: data extents by their address in the chunks, too,
            // as if that were one on the device (set_bitmap of the disk_bytenr in its
            // dump_file_extent_item); and free parts of chunks for nodes (of an empty file system with
            // `-m single` it says that 9 blocks are used, and marks 12 MiB). Of chunks for data nothing
            // else may be missing. Nothing that is allowed here is in the extent tree: all of that is
            // in ours, as was asserted above. And below, in a copy without it, all checksums are right.
            let mut theirs = partclone("btrfs", &image);
            let most = theirs.n_bytes() / 50 + ENDS_BYTES + MIB / 4;
            assert!(ours.n_bytes() <= theirs.n_bytes() + most, "{what}");
            theirs.remove(&ours);
            theirs.remove(&doubtful);
            assert!(theirs.is_empty(), "{what}: {theirs:?}");
            let copy = noisy(&image, &ours);
            run("btrfs", &["check", "--check-data-csum", copy.text()]);
            // Against the image itself: when the disk is full, the mounted one had shown what it could
            // not write any more.
            assert_same_files(&image, &copy, "btrfs", "ro");
        }
    }
}

#[test]
fn of_a_stopped_btrfs_what_only_its_log_knows_is_in() {
    if !have(&["mkfs.btrfs", "mount", "btrfs"]) {
        return;
    }
    for (args, seed) in [("", 1), ("-M -n 4096", 2)] {
        let image = Image::empty(256 * MIB);
        make_btrfs(args, &[&image]);
        let Some(stopped) = stopped(&image, "btrfs", "commit=300", seed) else {
            return;
        };
        let text = run("btrfs", &["inspect-internal", "dump-super", stopped.text()]);
        let log = text
            .lines()
            .find(|line| line.starts_with("log_root\t"))
            .unwrap();
        assert!(!log.trim().ends_with("\t0"), "nothing is in the log: {log}");
        drop(image);
        let copy = noisy(&stopped, &used(&stopped));
        // A mount for writing, which replays; then all is read.
        for image in [&stopped, &copy] {
            drop(image.mount("btrfs", "").unwrap());
            run("btrfs", &["check", "--check-data-csum", image.text()]);
        }
        // One after the other: the kernel takes them for one.
        assert_same_files(&stopped, &copy, "btrfs", "ro");
    }
}

#[test]
fn a_btrfs_on_several_devices_has_a_map_of_each() {
    if !have(&["mkfs.btrfs", "losetup", "btrfs"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    for (n, args) in [
        (2, "-m raid1 -d raid0"),
        (3, "-m raid1c3 -d single"),
        (4, "-m raid10 -d raid10"),
    ] {
        let images: Vec<Image> = (0..n).map(|_| Image::empty(300 * MIB)).collect();
        let images: Vec<&Image> = images.iter().collect();
        make_btrfs(args, &images);
        with_loops(&images, |loops| {
            let at = images[0].folder().join("mounted");
            fs::create_dir_all(&at).unwrap();
            let devices: Vec<String> = loops.iter().map(|one| format!("device={one}")).collect();
            let (options, text) = (devices.join(","), at.to_str().unwrap());
            run("mount", &["-t", "btrfs", "-o", &options, &loops[0], text]);
            live(&at, 5, "aged");
            run("umount", &[text]);
        });
        let map = map_of(&images, false);
        let copies: Vec<Image> = images
            .iter()
            .enumerate()
            .map(|(disk, image)| {
                let used = used_of(&map, disk, len_of(image));
                assert!(
                    used.n_bytes() < len_of(image) / 2,
                    "{args}: {}",
                    used.n_bytes()
                );
                noisy(image, &used)
            })
            .collect();
        let copies: Vec<&Image> = copies.iter().collect();
        with_loops(&copies, |loops| {
            run("btrfs", &["check", "--check-data-csum", &loops[0]]);
        });
    }
}

/// Has loop devices over images while `work` is done.
fn with_loops(images: &[&Image], work: impl FnOnce(&[String])) {
    let loops: Vec<String> = images
        .iter()
        .map(|image| {
            run("losetup", &["-f", "--show", image.text()])
                .trim()
                .to_owned()
        })
        .collect();
    // These alone: other devices come and go beside us.
    run(
        "btrfs",
        &["device", "scan"]
            .into_iter()
            .chain(loops.iter().map(String::as_str))
            .collect::<Vec<_>>(),
    );
    work(&loops);
    for one in &loops {
        run(
            "sh",
            &[
                "-c",
                &format!("btrfs device scan --forget {one}; losetup -d {one}"),
            ],
        );
    }
}

fn make_ntfs(args: &str, bytes: u64) -> Image {
    let image = Image::empty(bytes);
    let mut all: Vec<&str> = args.split_whitespace().collect();
    all.extend(["-q", "-F", "-Q", image.text()]);
    run("mkntfs", &all);
    image
}

#[test]
fn the_map_of_ntfs_is_its_bitmap_but_for_what_windows_swaps_to() {
    if !have(&["mkntfs", "ntfs-3g", "ntfscat", "ntfsfix", "partclone.ntfs"]) {
        return;
    }
    for (args, cluster, seed) in [
        ("", 4096_u64, 1),
        ("-c 512", 512, 2),
        ("-c 65536", 65536, 3),
    ] {
        for how in lives(seed) {
            let image = make_ntfs(args, 128 * MIB);
            let Some(mounted) = image.mount_ntfs("") else {
                return;
            };
            live(mounted.path(), seed, how);
            let there = listing(mounted.path());
            drop(mounted);
            let what = format!("{args}, {how}");
            let bitmap = std::process::Command::new("ntfscat")
                .args(["-i", "6", image.text()])
                .output()
                .unwrap();
            let mut theirs = Ranges::default();
            theirs.add_bits(&bitmap.stdout, len_of(&image) / cluster, 0, cluster);
            let ours = used(&image);
            assert_agrees(&ours, &theirs.within(&(0..len_of(&image))), &what);
            assert_agrees(&ours, &partclone("ntfs", &image), &what);
            let copy = noisy(&image, &ours);
            run("ntfsfix", &["-n", copy.text()]);
            assert_listed(&there, copy.mount_ntfs("ro").unwrap().path());
        }
    }
}

#[test]
fn page_files_are_passed_over_unless_windows_is_hibernated() {
    if !have(&["mkntfs", "ntfs-3g"]) {
        return;
    }
    for (begins, hiberfil_is_kept) in [("wake", false), ("hibr", true)] {
        let image = make_ntfs("", 128 * MIB);
        let Some(mounted) = image.mount_ntfs("") else {
            return;
        };
        let at = mounted.path();
        fs::write(at.join("pagefile.sys"), vec![1; 20 << 20]).unwrap();
        let hiberfil = [begins.as_bytes(), &vec![2; 10 << 20]].concat();
        fs::write(at.join("hiberfil.sys"), hiberfil).unwrap();
        fs::create_dir(at.join("folder")).unwrap();
        fs::write(at.join("folder/pagefile.sys"), vec![3; 5 << 20]).unwrap();
        drop(mounted);
        let all = used_of(&map_of(&[&image], true), 0, len_of(&image));
        let map = map_of(&[&image], false);
        let less = used_of(&map, 0, len_of(&image));
        let survey = map.survey(0, &mut |_| Ok(())).unwrap();
        let skipped = all.n_bytes() - less.n_bytes();
        assert_eq!(skipped, survey[0].scratch_bytes);
        match hiberfil_is_kept {
            true => assert_eq!(skipped, 0),
            false => assert!((30 << 20..31 << 20).contains(&skipped), "{skipped}"),
        }
    }
}

#[test]
fn a_dirty_ntfs_is_in_use_as_a_whole() {
    if !have(&["mkntfs", "ntfs-3g"]) {
        return;
    }
    let image = make_ntfs("", 64 * MIB);
    // The flags of the volume are in its record; mkntfs writes that to the copy of the table, too.
    let bytes = fs::read(image.path()).unwrap();
    let file = File::options().write(true).open(image.path()).unwrap();
    let mark = [3_u8, 1, 0, 0];
    let mut found = 0;
    for record in (0..bytes.len() - 1024).step_by(1024) {
        let number = u32::from_le_bytes(bytes[record + 0x2c..record + 0x30].try_into().unwrap());
        if bytes[record..].starts_with(b"FILE") && number == 3 {
            let place = bytes[record..record + 1024]
                .windows(4)
                .position(|at| at == mark);
            file.write_all_at(&[1], (record + place.unwrap() + 2) as u64)
                .unwrap();
            found += 1;
        }
    }
    assert!(found > 0);
    let map = map_of(&[&image], false);
    let whole = map.used(0, &(0..len_of(&image))).unwrap();
    assert_eq!(whole.n_bytes(), len_of(&image));
    let survey = map.survey(0, &mut |_| Ok(())).unwrap();
    assert!(survey[0].notes[0].contains("dirty"), "{survey:?}");
}

#[test]
fn the_map_of_fat_is_what_partclone_says() {
    if !have(&["mkfs.vfat", "mcopy", "fsck.vfat", "partclone.vfat"]) {
        return;
    }
    for (args, mib) in [
        ("-F 12", 3),
        ("-F 16 -s 4", 64),
        ("-F 32 -s 1", 64),
        ("-F 32 -f 1", 300),
    ] {
        let image = Image::empty(mib * MIB);
        let mut words: Vec<&str> = args.split_whitespace().collect();
        words.push(image.text());
        run("mkfs.vfat", &words);
        let from = aged::folder();
        let mut rng = Rng::new(mib);
        let file = |n: u64| format!("file{n}");
        for n in 0..60 {
            let len = rng.below(0..mib * MIB / 120) as usize;
            fs::write(from.path().join(file(n)), rng.bytes(len)).unwrap();
        }
        let disk = ["-i", image.text()];
        for n in 0..60 {
            let path = from.path().join(file(n));
            run("mcopy", &[disk[0], disk[1], path.to_str().unwrap(), "::"]);
            if n % 3 == 2 {
                run("mdel", &[disk[0], disk[1], &format!("::{}", file(n - 1))]);
            }
        }
        let ours = used(&image);
        assert_agrees(&ours, &partclone("vfat", &image), args);
        if args.contains("12") {
            continue;
        }
        let copy = noisy(&image, &ours);
        run("fsck.vfat", &["-n", copy.text()]);
        let (there, here) = (aged::folder(), aged::folder());
        for (image, to) in [(&image, &there), (&copy, &here)] {
            run(
                "mcopy",
                &[
                    "-i",
                    image.text(),
                    "-s",
                    "-n",
                    "::",
                    to.path().to_str().unwrap(),
                ],
            );
        }
        assert_listed(&listing(there.path()), here.path());
    }
}

#[test]
fn the_map_of_exfat_is_what_partclone_says() {
    if !have(&[
        "mkfs.exfat",
        "mount.exfat-fuse",
        "fsck.exfat",
        "partclone.exfat",
    ]) {
        return;
    }
    for args in ["", "-c 512", "-c 131072"] {
        let image = Image::empty(96 * MIB);
        let mut words: Vec<&str> = args.split_whitespace().collect();
        words.push(image.text());
        run("mkfs.exfat", &words);
        let at = image.folder().join("mounted");
        fs::create_dir_all(&at).unwrap();
        let device = run("losetup", &["-f", "--show", image.text()]);
        run("mount.exfat-fuse", &[device.trim(), at.to_str().unwrap()]);
        for n in 0..200 {
            fs::write(at.join(format!("file{n}")), vec![7; n * 997]).unwrap();
            if n % 3 == 2 {
                fs::remove_file(at.join(format!("file{}", n - 1))).unwrap();
            }
        }
        run("umount", &[at.to_str().unwrap()]);
        run("losetup", &["-d", device.trim()]);
        let ours = used(&image);
        assert_agrees(&ours, &partclone("exfat", &image), args);
        let copy = noisy(&image, &ours);
        run("fsck.exfat", &["-n", copy.text()]);
    }
}

#[test]
fn of_a_swap_area_only_the_header_is_in_use() {
    if !have(&["mkswap"]) {
        return;
    }
    let image = Image::empty(32 * MIB);
    run("mkswap", &["-q", image.text()]);
    let ours = used(&image);
    assert_eq!(ours.n_bytes(), ENDS_BYTES);
    // Suspended: all of it.
    let file = File::options().write(true).open(image.path()).unwrap();
    file.write_all_at(b"S1SUSPEND\0", 4086).unwrap();
    let map = map_of(&[&image], false);
    assert_eq!(map.used(0, &(0..32 * MIB)).unwrap().n_bytes(), 32 * MIB);
}

/// Runs a command of LVM on one device only, without the kernel's device-mapper.
fn lvm(line: &str, device: &str) {
    let line = format!(
        "LVM_SUPPRESS_FD_WARNINGS=1 lvm {line} --driverloaded n --config 'devices {{ \
         use_devicesfile=0 filter=[\"a|^{device}$|\",\"r|.*|\"] }} global {{ locking_type=0 }}' \
         2>/dev/null"
    );
    run("sh", &["-c", &line]);
}

#[test]
fn of_a_disk_gaps_are_in_and_free_extents_of_a_group_are_not() {
    if !have(&["sfdisk", "lvm", "mke2fs", "losetup"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    let image = Image::empty(256 * MIB);
    let script = "label: gpt\nstart=4M, size=16M, type=L\nstart=24M, size=200M, type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n";
    let path = image.folder().join("script");
    fs::write(&path, script).unwrap();
    let sfdisk = format!("sfdisk -q {} < {}", image.text(), path.display());
    run("sh", &["-c", &sfdisk]);
    let offset = format!("offset={}", 4 * MIB);
    run(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "1024",
            "-E",
            &offset,
            image.text(),
            "16384",
        ],
    );
    let device = run(
        "losetup",
        &[
            "-f",
            "--show",
            "-o",
            "24M",
            "--sizelimit",
            "200M",
            image.text(),
        ],
    );
    let device = device.trim();
    lvm(
        &format!("pvcreate -q -y --metadatacopies 2 {device}"),
        device,
    );
    lvm(&format!("vgcreate -q -s 1m hako-vg {device}"), device);
    for (name, len) in [("a", 20), ("gone", 10), ("swap", 8), ("raw", 4)] {
        lvm(
            &format!("lvcreate -q -y -an -Zn -Wn -l {len} -n {name} hako-vg"),
            device,
        );
    }
    lvm("lvremove -q -y hako-vg/gone", device);
    run("sh", &["-c", &format!("sync; losetup -d {device}")]);
    let file = File::options().write(true).open(image.path()).unwrap();
    let put = |made: &Image, at: u64| {
        let bytes = fs::read(made.path()).unwrap();
        file.write_all_at(&bytes, at).unwrap();
    };
    put(&make_ext("-t ext4 -b 1024", 20 * MIB), 25 * MIB);
    let swap = Image::empty(8 * MIB);
    run("mkswap", &["-q", swap.text()]);
    put(&swap, 55 * MIB);
    let map = map_of(&[&image], false);
    let survey = map.survey(0, &mut |_| Ok(())).unwrap();
    let of = |name: &str| survey.iter().find(|one| one.name == name).unwrap();
    assert_eq!(of("hako-vg/raw").used_bytes, 4 * MIB);
    assert!(of("hako-vg/raw").is_whole && !of("hako-vg/a").is_whole);
    assert_eq!(of("hako-vg/a").bytes, 20 * MIB);
    assert!(of("hako-vg/a").used_bytes < 8 * MIB, "{survey:?}");
    assert_eq!(
        (of("hako-vg/swap").bytes, of("hako-vg/swap").used_bytes),
        (8 * MIB, 4096)
    );
    let ours = used_of(&map, 0, len_of(&image));
    assert!(ours.within(&(45 * MIB..55 * MIB)).is_empty(), "{survey:?}");
    assert!(ours.within(&(67 * MIB..222 * MIB)).is_empty(), "{survey:?}");
    // Gaps, and what LVM keeps for itself.
    for range in [MIB..4 * MIB, 20 * MIB..25 * MIB, 223 * MIB..256 * MIB] {
        assert_eq!(ours.within(&range), Ranges::of(range.clone()), "{range:?}");
    }
}
