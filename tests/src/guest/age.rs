//! Years of use in seconds.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hako_block::testkit::Rng;
use rustix::fs::{CWD, FileType, Mode, chown, makedev, mknodat};

/// How a file system is aged.
#[derive(Debug, Clone, Copy)]
pub struct Age {
    /// Same seed, same tree.
    pub seed: u64,
    /// How often a file is made, changed, renamed or deleted.
    pub n_steps: usize,
    /// Names in the large directory.
    pub n_names: usize,
    /// Whether it knows links, devices, owners and permissions.
    pub unix: bool,
}

/// Makes, changes, renames and deletes files and folders below `root`.
pub fn age(root: &Path, how: Age) {
    let mut rng = Rng::new(how.seed);
    let work = root.join("work");
    let mut folders = vec![work.clone()];
    fs::create_dir_all(&work).unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    for step in 0..how.n_steps {
        match rng.below(0..20) {
            0 if folders.len() < 60 => folders.push(make_folder(&folders, &mut rng, step)),
            1..=7 => files.push(make_file(&folders, &mut rng, step)),
            8..=12 if !files.is_empty() => change(&files, &mut rng),
            13..=15 if files.len() > 20 => {
                let at = rng.below(0..files.len() as u64) as usize;
                fs::remove_file(files.swap_remove(at)).unwrap();
            }
            16..=17 if !files.is_empty() => {
                let at = rng.below(0..files.len() as u64) as usize;
                let new = pick(&folders, &mut rng).join(name(&mut rng, step));
                fs::rename(&files[at], &new).unwrap();
                files[at] = new;
            }
            18 if !files.is_empty() => {
                let new = pick(&folders, &mut rng).join(name(&mut rng, step));
                fs::hard_link(pick(&files, &mut rng), &new).unwrap();
                files.push(new);
            }
            19 if how.unix => make_unix(&folders, &mut rng, step),
            _ => {}
        }
    }
    large_directory(&root.join("large"), how.n_names);
    names_and_depths(root);
    shapes(root, &mut rng);
    times(&files);
}

fn pick<'a>(from: &'a [PathBuf], rng: &mut Rng) -> &'a Path {
    &from[rng.below(0..from.len() as u64) as usize]
}

fn name(rng: &mut Rng, step: usize) -> String {
    match rng.below(0..6) {
        0 => format!("Übergrößenträger {step} – 東京"),
        1 => format!("{step}-{}", "a-very-long-name-".repeat(8)),
        2 => format!("{step}.TXT"),
        _ => format!("file{step}"),
    }
}

fn make_folder(folders: &[PathBuf], rng: &mut Rng, step: usize) -> PathBuf {
    let folder = pick(folders, rng).join(format!("folder{step}"));
    fs::create_dir(&folder).unwrap();
    folder
}

/// Content of some length: none, a little, a lot; of noise, text or mostly zeros.
fn content(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(0..8) {
        0 => 0,
        1..=3 => rng.below(1..2000),
        4..=6 => rng.below(2000..60_000),
        _ => rng.below(60_000..600_000),
    };
    let len = len as usize;
    match rng.below(0..3) {
        0 => rng.bytes(len),
        1 => {
            let mut text = String::new();
            while text.len() < len {
                text += &format!("line {} of some text that compresses\n", rng.below(0..5000));
            }
            text.into_bytes()[..len].to_vec()
        }
        _ => {
            let mut bytes = vec![0; len];
            for _ in 0..len / 5000 {
                let at = rng.below(0..len as u64) as usize;
                bytes[at] = 1;
            }
            bytes
        }
    }
}

fn make_file(folders: &[PathBuf], rng: &mut Rng, step: usize) -> PathBuf {
    let file = pick(folders, rng).join(name(rng, step));
    fs::write(&file, content(rng)).unwrap();
    file
}

/// Writes somewhere into a file, behind its end too, or cuts it.
fn change(files: &[PathBuf], rng: &mut Rng) {
    let file = OpenOptions::new()
        .write(true)
        .open(pick(files, rng))
        .unwrap();
    let len = file.metadata().unwrap().len();
    match rng.below(0..6) {
        0 => file.set_len(rng.below(0..len + 1)).unwrap(),
        1 => file.set_len(len + rng.below(1..300_000)).unwrap(),
        2 => file
            .write_all_at(&rng.bytes(5000), len + rng.below(0..500_000))
            .unwrap(),
        _ => {
            for _ in 0..rng.below(1..6) {
                let piece = rng.below(1..9000) as usize;
                let at = rng.below(0..len + 1);
                file.write_all_at(&rng.bytes(piece), at).unwrap();
            }
        }
    }
    if rng.one_in(8) {
        file.sync_data().unwrap();
    }
}

fn make_unix(folders: &[PathBuf], rng: &mut Rng, step: usize) {
    let path = pick(folders, rng).join(format!("unix{step}"));
    let device = |kind, path: &Path, rng: &mut Rng| {
        let number = makedev(rng.below(0..500) as u32, rng.below(0..70_000) as u32);
        mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), number).unwrap();
    };
    match rng.below(0..7) {
        0 => symlink("../file1", &path).unwrap(),
        1 => symlink(format!("/{}", "long/".repeat(200)), &path).unwrap(),
        2 => device(FileType::CharacterDevice, &path, rng),
        3 => device(FileType::BlockDevice, &path, rng),
        4 => device(FileType::Fifo, &path, rng),
        5 => {
            // A socket's path may have only 108 bytes: it is made in place of where we are deep.
            let short = folders[0].join(format!("s{step}"));
            if let Ok(socket) = UnixListener::bind(&short) {
                drop(socket);
                fs::rename(&short, &path).unwrap();
            }
        }
        _ => {
            fs::write(&path, "owned").unwrap();
            let owner = |id| Some(rustix::fs::Uid::from_raw(id));
            let group = rustix::fs::Gid::from_raw(rng.below(0..70_000) as u32);
            chown(&path, owner(rng.below(0..70_000) as u32), Some(group)).unwrap();
            let mode = rng.below(0..0o10000) as u32;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// Many names, a third of them deleted again.
fn large_directory(folder: &Path, n_names: usize) {
    fs::create_dir(folder).unwrap();
    for number in 0..n_names {
        File::create(folder.join(format!("entry number {number}"))).unwrap();
    }
    for number in (0..n_names).step_by(7) {
        fs::remove_file(folder.join(format!("entry number {number}"))).unwrap();
    }
}

fn names_and_depths(root: &Path) {
    let mut deep = root.join("deep");
    for level in 0..60 {
        deep = deep.join(format!("level{level}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "here").unwrap();
    let names = root.join("names");
    fs::create_dir(&names).unwrap();
    let long = "n".repeat(255);
    for name in [
        &long,
        "é",
        "日本語のファイル名",
        "🦀",
        "UPPER",
        "with  blanks",
        "semi;colon",
        "straße",
    ] {
        fs::write(names.join(name), name).unwrap();
    }
}

/// Files of odd shapes: sparse, far out, full of holes, of many pieces.
fn shapes(root: &Path, rng: &mut Rng) {
    let folder = root.join("shapes");
    fs::create_dir(&folder).unwrap();
    let make = |name: &str| File::create(folder.join(name)).unwrap();
    make("all hole").set_len(3_000_001).unwrap();
    let far = make("far out");
    far.write_all_at(b"begin", 0).unwrap();
    far.write_all_at(b"end", 40 << 20).unwrap();
    let holes = make("full of holes");
    for piece in 0..200 {
        holes
            .write_all_at(&rng.bytes(4096), piece * 12_288)
            .unwrap();
    }
    let (one, other) = (make("pieces one"), make("pieces other"));
    for piece in 0..150_u64 {
        let at = (piece * 37 % 150) * 8192;
        one.write_all_at(&rng.bytes(8192), at).unwrap();
        other.write_all_at(&[piece as u8; 8192], at).unwrap();
        if piece % 10 == 0 {
            one.sync_data().unwrap();
            other.sync_data().unwrap();
        }
    }
    make("exact").write_all_at(&rng.bytes(65_536), 0).unwrap();
}

/// Sets times of files: long ago, far in the future, before 1970 is left out where it is not known.
fn times(files: &[PathBuf]) {
    for (file, seconds) in files.iter().zip([1, 1_000_000_000, 2_500_000_000]) {
        let time = UNIX_EPOCH + Duration::new(seconds, 123_456_700);
        let file = OpenOptions::new().write(true).open(file).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}
