//! Images that Linux made, used and mounts: what hako reads of them is what the kernel shows, name by
//! name, field by field, byte by byte. Needs root and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // A helper of tests.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod life;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hako_block::{Error, Result};
use hako_guest::volume::{Volume, check_range};
use hako_guest::{Entry, FileSystem, NodeId, NodeKind, Stat};

/// Says that a test does not run, and why. In CI that is a failure: the machine has everything.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "in CI nothing may be skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Returns whether the long effort runs too.
pub fn all() -> bool {
    std::env::var_os("HAKO_ALL").is_some()
}

/// A file of the host as a volume.
pub struct FileVolume {
    file: File,
    len: u64,
}

impl FileVolume {
    pub fn open(path: &Path) -> Arc<Self> {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Arc::new(Self { file, len })
    }
}

impl Volume for FileVolume {
    fn len_bytes(&self) -> u64 {
        self.len
    }

    fn sector_bytes(&self) -> u32 {
        512
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        let read = self.file.read_exact_at(buf, offset);
        read.map_err(|error| Error::io("read", error))
    }
}

/// Runs a program to its end; it must succeed. Returns what it printed.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Returns whether all programs are there; says so if not.
pub fn have(programs: &[&str]) -> bool {
    let is_there = |program: &&&str| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        found.is_ok_and(|output| output.status.success())
    };
    match programs.iter().find(|program| !is_there(program)) {
        None => true,
        Some(missing) => {
            skip(&format!("{missing} is not installed: tests/run does that"));
            false
        }
    }
}

/// Returns a new folder: in memory, if the machine has that, for every umount waits for the disk.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// An image in a folder of its own.
pub struct Image {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    /// Returns an image of so many bytes, all of them holes.
    pub fn empty(bytes: u64) -> Self {
        let folder = folder();
        let path = folder.path().join("image");
        File::create(&path).unwrap().set_len(bytes).unwrap();
        Self { folder, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a copy, of a mounted one as it is on the disk at the moment.
    pub fn copy(&self) -> Self {
        let folder = folder();
        let path = folder.path().join("image");
        run(
            "cp",
            &["--sparse=always", self.text(), path.to_str().unwrap()],
        );
        Self { folder, path }
    }

    /// Opens the file system in it.
    #[track_caller]
    pub fn open(&self) -> Arc<dyn FileSystem> {
        self.try_open().unwrap().expect("a known file system")
    }

    pub fn try_open(&self) -> Result<Option<Arc<dyn FileSystem>>> {
        hako_guest::fs::open(FileVolume::open(&self.path))
    }

    /// Mounts it. None, with a word about it, where nothing can be mounted.
    #[track_caller]
    pub fn mount(&self, kind: &str, options: &str) -> Option<Mounted> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            skip("no root, or no loop devices: nothing can be mounted");
            return None;
        }
        let at = self.folder.path().join("mounted");
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("loop,{options}");
        let options = options.trim_end_matches(',');
        run(
            "mount",
            &["-t", kind, "-o", options, self.text(), at.to_str().unwrap()],
        );
        Some(Mounted { at, server: None })
    }

    /// Mounts it by ntfs-3g. That runs beside us, or nobody would know when it has written all.
    #[track_caller]
    pub fn mount_ntfs(&self, options: &str) -> Option<Mounted> {
        if !have(&["ntfs-3g"]) {
            return None;
        }
        let at = self.folder.path().join("mounted");
        std::fs::create_dir_all(&at).unwrap();
        let outside = at.metadata().unwrap().dev();
        let options = format!("no_detach,{options}");
        let mut server = Command::new("ntfs-3g")
            .args(["-o", options.trim_end_matches(','), self.text()])
            .arg(&at)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while at.metadata().map(|about| about.dev()).ok() == Some(outside) {
            if let Some(status) = server.try_wait().unwrap() {
                skip(&format!("ntfs-3g cannot mount: {status}"));
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let server = Some(server);
        Some(Mounted { at, server })
    }
}

/// A mounted image, until it is dropped.
pub struct Mounted {
    at: PathBuf,
    /// What serves it, if the kernel does not.
    server: Option<Child>,
}

impl Mounted {
    /// Returns what was mounted by other means.
    pub fn at(path: &Path) -> Self {
        Self {
            at: path.to_path_buf(),
            server: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    pub fn sync(&self) {
        run("sync", &["-f", self.at.to_str().unwrap()]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmount = || {
            let ended = Command::new("umount").arg(&self.at).status();
            ended.is_ok_and(|status| status.success())
        };
        // A program that another test is about to start holds for a moment what was open here.
        let gone = (0..50).any(|_| {
            let gone = unmount();
            if !gone {
                std::thread::sleep(Duration::from_millis(100));
            }
            gone
        });
        if !gone {
            let _ = Command::new("umount").arg("-l").arg(&self.at).status();
            assert!(std::thread::panicking(), "umount failed");
        }
        if let Some(server) = &mut self.server {
            let _ = server.wait();
        }
    }
}

/// What is compared of two trees.
#[derive(Clone, Copy)]
pub struct Compare {
    /// Numbers of inodes, lengths of directories: what differs if the tree was only copied.
    pub is_same: bool,
    /// Numbers of names: those of fast commits are not always what the kernel makes of them.
    pub links: bool,
    /// Owners and permissions, which not all have.
    pub owners: bool,
    /// When contents changed.
    pub times: bool,
    /// Each name is looked up too, where that takes no walk through the directory.
    pub lookups: bool,
}

impl Compare {
    pub const MOUNTED: Self = Self {
        is_same: true,
        links: true,
        owners: true,
        times: true,
        lookups: false,
    };
    pub const COPIED: Self = Self {
        is_same: false,
        links: false,
        owners: true,
        times: false,
        lookups: false,
    };
}

/// Compares all of a file system with a folder of the host. Returns how many names there are.
#[track_caller]
pub fn assert_same(fs: &dyn FileSystem, folder: &Path, compare: Compare) -> usize {
    assert_same_below(fs, fs.root(), folder, compare)
}

/// Like [`assert_same`], of a directory and all below it.
#[track_caller]
pub fn assert_same_below(
    fs: &dyn FileSystem,
    top: NodeId,
    folder: &Path,
    compare: Compare,
) -> usize {
    let mut n_names = 0;
    let mut todo = vec![(top, folder.to_path_buf())];
    while let Some((node, path)) = todo.pop() {
        let ours = entries(fs, node, &path);
        let theirs: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| compare.is_same || entry.file_name() != "lost+found")
            .collect();
        for name in ours.keys() {
            let is_there = std::fs::symlink_metadata(path.join(OsStr::from_bytes(name))).is_ok();
            let may_differ = !compare.is_same && name == b"lost+found";
            assert!(
                is_there || may_differ,
                "{}: only we have {}",
                path.display(),
                name.escape_ascii()
            );
        }
        for entry in theirs {
            n_names += 1;
            let path = entry.path();
            let name = entry.file_name().into_vec();
            let ours = ours.get(&name);
            let ours = ours.unwrap_or_else(|| panic!("{}: not found", path.display()));
            assert_node(fs, ours, &path, compare);
            if compare.lookups {
                let found = fs.lookup(node, &name).unwrap();
                assert_eq!(found, Some(ours.node), "{}: looked up", path.display());
            }
            if fs.stat(ours.node).unwrap().kind == NodeKind::Directory {
                todo.push((ours.node, path));
            }
        }
    }
    n_names
}

/// Returns the names in a directory.
#[track_caller]
pub fn entries(fs: &dyn FileSystem, node: NodeId, path: &Path) -> BTreeMap<Vec<u8>, Entry> {
    let mut entries = BTreeMap::new();
    let visited = fs.visit(node, &mut |entry| {
        let twice = entries.insert(entry.name.clone(), entry);
        assert!(twice.is_none(), "{}: {twice:?} twice", path.display());
        ControlFlow::Continue(())
    });
    visited.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries
}

#[track_caller]
fn assert_node(fs: &dyn FileSystem, entry: &Entry, path: &Path, compare: Compare) {
    let shown = path.display();
    let theirs = std::fs::symlink_metadata(path).unwrap();
    let ours = fs
        .stat(entry.node)
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    if compare.is_same {
        assert_eq!(entry.node.number, theirs.ino(), "{shown}: inode");
    }
    assert!(
        entry.kind.is_none_or(|kind| kind == ours.kind),
        "{shown}: kind in the directory"
    );
    assert_stat(&ours, &theirs, path, compare);
    match ours.kind {
        NodeKind::File => assert_content(fs, entry.node, path, ours.len_bytes),
        NodeKind::Link => {
            let target = std::fs::read_link(path).unwrap();
            let ours = fs.read_link(entry.node);
            let ours = ours.unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(ours, target.as_os_str().as_bytes(), "{shown}: target");
        }
        _ => {}
    }
}

#[track_caller]
fn assert_stat(ours: &Stat, theirs: &Metadata, path: &Path, compare: Compare) {
    let shown = path.display();
    let kind = theirs.file_type();
    let is_kind = match ours.kind {
        NodeKind::File => kind.is_file(),
        NodeKind::Directory => kind.is_dir(),
        NodeKind::Link => kind.is_symlink(),
        NodeKind::CharDevice => kind.is_char_device(),
        NodeKind::BlockDevice => kind.is_block_device(),
        NodeKind::Fifo => kind.is_fifo(),
        NodeKind::Socket => kind.is_socket(),
    };
    assert!(is_kind, "{shown}: {:?}", ours.kind);
    if compare.owners {
        assert_eq!(
            (ours.uid, ours.gid, ours.mode),
            (theirs.uid(), theirs.gid(), theirs.mode() & 0o7777),
            "{shown}: owner, group, mode"
        );
    }
    if compare.is_same || ours.kind != NodeKind::Directory {
        assert_eq!(ours.len_bytes, theirs.len(), "{shown}: length");
    }
    // ntfs-3g knows no parts of seconds before 1970.
    if compare.times && (compare.is_same || ours.modified.seconds >= 0) {
        let modified = (ours.modified.seconds, i64::from(ours.modified.nanoseconds));
        assert_eq!(
            modified,
            (theirs.mtime(), theirs.mtime_nsec()),
            "{shown}: modified"
        );
    }
    if compare.links {
        assert_eq!(u64::from(ours.links), theirs.nlink(), "{shown}: links");
    }
    if let Some(device) = ours.device {
        let rdev = theirs.rdev();
        assert_eq!(
            device,
            (rustix::fs::major(rdev), rustix::fs::minor(rdev)),
            "{shown}: device"
        );
    }
}

#[track_caller]
fn assert_content(fs: &dyn FileSystem, node: NodeId, path: &Path, len: u64) {
    const PIECE: usize = 1 << 20;
    let shown = path.display();
    let file = File::open(path).unwrap();
    let mut ours = vec![0xaa; PIECE.min(len as usize + 1)];
    let mut theirs = vec![0x55; ours.len()];
    let mut at = 0;
    while at < len {
        let n = fs
            .read_at(node, at, &mut ours)
            .unwrap_or_else(|error| panic!("{shown} at {at}: {error}"));
        let wanted = (len - at).min(ours.len() as u64) as usize;
        assert_eq!(n, wanted, "{shown} at {at}: bytes read");
        file.read_exact_at(&mut theirs[..n], at).unwrap();
        let differs = ours[..n].iter().zip(&theirs[..n]).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{shown} differs behind byte {at}");
        at += n as u64;
    }
    assert_eq!(
        fs.read_at(node, len, &mut ours).unwrap(),
        0,
        "{shown}: past the end"
    );
    // A piece at an odd place.
    if len > 5000 {
        let (from, n) = (len / 3 + 1, 3333.min(len as usize / 2));
        assert_eq!(fs.read_at(node, from, &mut ours[..n]).unwrap(), n);
        file.read_exact_at(&mut theirs[..n], from).unwrap();
        assert!(ours[..n] == theirs[..n], "{shown} differs at {from}");
    }
}

/// Reads all of a file system that is damaged, as far as it lets: bounded, and without a panic.
/// Returns how many nodes there were.
pub fn read_all(fs: &dyn FileSystem) -> usize {
    const MOST_NODES: usize = 2000;
    let mut todo = vec![fs.root()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(node) = todo.pop() {
        if seen.len() >= MOST_NODES || !seen.insert(node) {
            continue;
        }
        let _ = fs.visit(node, &mut |entry| {
            todo.push(entry.node);
            match todo.len() > MOST_NODES {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let len = fs.stat(node).map_or(0, |stat| stat.len_bytes);
        let mut piece = vec![0; 70_000];
        for offset in [0, 1, len / 2, len.saturating_sub(10), len, u64::MAX - 5] {
            let _ = fs.read_at(node, offset, &mut piece);
        }
        let _ = fs.read_link(node);
        let _ = fs.lookup(node, b"no such name");
    }
    seen.len()
}

/// Damages `image` in so many ways and reads all that can be read each time. Only pieces that are
/// not zeros are touched. `within` is the time that one reading may take.
pub fn torture(image: &[u8], n_ways: u64, within: std::time::Duration) {
    use hako_block::testkit::Rng;
    const PIECE: usize = 512;
    let is_used = |piece: &[u8]| piece.iter().any(|byte| *byte != 0);
    let used: Vec<usize> = image
        .chunks(PIECE)
        .enumerate()
        .filter(|(_, piece)| is_used(piece))
        .map(|(index, _)| index * PIECE)
        .collect();
    let mut n_opened = 0;
    for seed in 0..n_ways {
        let mut rng = Rng::new(seed);
        let mut damaged = image.to_vec();
        for _ in 0..rng.below(1..6) {
            // Often in the first ones, where the whole is described.
            let among = if rng.one_in(2) {
                used.len()
            } else {
                used.len().min(40)
            };
            let piece = used[rng.below(0..among as u64) as usize];
            let at = (piece + rng.below(0..PIECE as u64) as usize).min(image.len() - 9);
            match rng.below(0..6) {
                0 => damaged[at] ^= 1 << rng.below(0..8),
                1 => damaged[at..at + 4].fill(0xff),
                2 => damaged[at..at + 8].fill(0),
                3 => damaged[at] = rng.next_u64() as u8,
                4 => {
                    let other = used[rng.below(0..used.len() as u64) as usize];
                    let len = PIECE.min(image.len() - piece.max(other));
                    damaged.copy_within(other..other + len, piece);
                }
                _ if rng.one_in(4) => damaged.truncate(at.max(10_000)),
                _ => damaged[at..at + 4].copy_from_slice(&[0, 0, 0, 0x80]),
            }
            if damaged.len() < image.len() {
                break;
            }
        }
        let began = std::time::Instant::now();
        if let Ok(Some(fs)) = hako_guest::fs::open(Arc::new(damaged)) {
            n_opened += 1;
            read_all(&*fs);
        }
        assert!(
            began.elapsed() < within,
            "way {seed} took {:?}",
            began.elapsed()
        );
    }
    assert!(
        n_opened * 4 > n_ways,
        "only {n_opened} of {n_ways} could be opened"
    );
}
