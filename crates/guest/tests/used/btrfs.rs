//! btrfs: its trees as btrfs-progs print them, and partclone, on one device and several.

use super::*;

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
            // It leaves out second copies, too. Where it has less than the trees for that, they alone say
            // how much ours may be.
            let mut theirs = partclone("btrfs", &image);
            let most = theirs.n_bytes() / 50 + ENDS_BYTES + MIB / 4;
            let is_short = theirs.n_bytes() < mapped.n_bytes();
            assert!(
                is_short || ours.n_bytes() <= theirs.n_bytes() + most,
                "{what}"
            );
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
