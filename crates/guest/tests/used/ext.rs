//! ext2–4: dumpe2fs and partclone know what is in use, and the kernel replays what was stopped.

use super::*;

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

pub fn make_ext(args: &str, bytes: u64) -> Image {
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
            let Some(there) = lived(image.mount("ext4", ""), seed, how) else {
                return;
            };
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
