//! What of a disk is in use: at least what others say, hardly more, and enough for everything that is
//! in it. What is free is overwritten with noise in a copy, which must be sound then and have every file.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

#[path = "../aged/mod.rs"]
mod aged;
mod btrfs;
mod disk;
mod ext;
mod fat;
mod ntfs;
mod xfs;

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use hako_block::testkit::Rng;
use hako_guest::{Ranges, UsedMap, Volume, Volumes};

use aged::life::Life;
use aged::{FileVolume, Image, Mounted, all, have, run};

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

/// Lives in what is mounted, and unmounts it. Returns what was there; none if nothing was mounted.
fn lived(mounted: Option<Mounted>, seed: u64, how: &str) -> Option<String> {
    let mounted = mounted?;
    live(mounted.path(), seed, how);
    Some(listing(mounted.path()))
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

/// Like [`assert_agrees`] of one of two states: what only the other has is more.
#[track_caller]
fn assert_agrees_stopped(ours: &Ranges, theirs: &Ranges, what: &str) {
    let mut missing = theirs.clone();
    missing.remove(ours);
    let first = missing.iter().next();
    assert!(missing.is_empty(), "{what}: {first:?} is in use");
    assert!(ours.n_bytes() < theirs.n_bytes() * 2, "{what}");
}
