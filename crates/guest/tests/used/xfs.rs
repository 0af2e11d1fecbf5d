//! XFS: xfs_db and partclone know what is in use.

use super::*;

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
            let Some(there) = lived(image.mount("xfs", "nouuid"), seed, how) else {
                return;
            };
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
