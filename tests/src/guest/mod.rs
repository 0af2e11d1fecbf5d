//! Guests' file systems as others make and read them, compared with what hako reads.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::Result;
use hako_guest::volume::check_range;
use hako_guest::{Entry, FileSystem, NodeId, NodeKind, Stat, Time, Volume};

use crate::{Run, run_program, skip};

/// A file as a volume.
pub struct FileVolume {
    file: File,
    len: u64,
}

impl FileVolume {
    /// Opens it.
    pub fn open(path: &Path) -> Arc<dyn Volume> {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
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
        self.file.read_exact_at(buf, offset).unwrap();
        Ok(())
    }
}

/// Opens the file system in a file.
#[track_caller]
pub fn open(path: &Path) -> Arc<dyn FileSystem> {
    let fs = hako_guest::fs::open(FileVolume::open(path));
    fs.unwrap().expect("a file system that is known")
}

/// Runs a program of a peer; none, loudly, if it is not installed.
pub fn peer<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Option<Run> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.exists());
    match found {
        Some(path) => Some(run_program(path, args)),
        None => {
            skip(&format!("{program} is not installed: tests/run does that"));
            None
        }
    }
}

/// What is compared of files.
#[derive(Debug, Clone, Copy)]
pub struct Same {
    /// Permissions, owners, devices, as Unix has them.
    pub unix: bool,
    /// The number of names of directories too; of files they always are.
    pub directory_links: bool,
    /// When contents changed.
    pub times: bool,
}

/// Asserts that the directory at `node` and all below holds the same as `folder`: names, what is
/// known of each, contents, links. Returns how many names there are.
#[track_caller]
pub fn assert_same(fs: &dyn FileSystem, node: NodeId, folder: &Path, same: Same) -> usize {
    let mut n_names = 0;
    let mut todo = vec![(node, folder.to_path_buf())];
    while let Some((node, folder)) = todo.pop() {
        let mut theirs: Vec<OsString> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().file_name())
            .collect();
        theirs.sort();
        let ours = names(fs, node, &folder);
        let listed: Vec<OsString> = ours
            .keys()
            .map(|name| OsString::from_vec(name.clone()))
            .collect();
        assert_eq!(listed, theirs, "{}", folder.display());
        n_names += ours.len();
        for (name, entry) in ours {
            let path = folder.join(OsStr::from_bytes(&name));
            let looked_up = fs.lookup(node, &name).unwrap();
            assert_eq!(looked_up, Some(entry.node), "{}", path.display());
            assert_same_node(fs, &entry, &path, same);
            if path.symlink_metadata().unwrap().is_dir() {
                todo.push((entry.node, path));
            }
        }
    }
    n_names
}

#[track_caller]
fn names(fs: &dyn FileSystem, node: NodeId, folder: &Path) -> BTreeMap<Vec<u8>, Entry> {
    let mut names = BTreeMap::new();
    let done = fs.visit(node, &mut |entry| {
        let twice = names.insert(entry.name.clone(), entry);
        assert!(twice.is_none(), "{}: {twice:?} twice", folder.display());
        ControlFlow::Continue(())
    });
    done.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    names
}

fn assert_same_node(fs: &dyn FileSystem, entry: &Entry, path: &Path, same: Same) {
    let theirs = path.symlink_metadata().unwrap();
    let kind = match theirs.file_type() {
        kind if kind.is_dir() => NodeKind::Directory,
        kind if kind.is_symlink() => NodeKind::Link,
        kind if kind.is_char_device() => NodeKind::CharDevice,
        kind if kind.is_block_device() => NodeKind::BlockDevice,
        kind if kind.is_fifo() => NodeKind::Fifo,
        kind if kind.is_socket() => NodeKind::Socket,
        _ => NodeKind::File,
    };
    let stat = fs.stat(entry.node);
    let stat = stat.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let told = |what: &str| format!("{what} of {}: {stat:?}", path.display());
    assert_eq!(stat.kind, kind, "{}", told("kind"));
    if let Some(listed) = entry.kind {
        assert_eq!(listed, kind, "{}", told("listed kind"));
    }
    if same.unix {
        assert_eq!(stat.mode, theirs.mode() & 0o7777, "{}", told("mode"));
        let owners = (theirs.uid(), theirs.gid());
        assert_eq!((stat.uid, stat.gid), owners, "{}", told("owners"));
        let major_minor = |number: u64| {
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            (major, minor)
        };
        let is_device = matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice);
        let device = is_device.then(|| major_minor(theirs.rdev()));
        assert_eq!(stat.device, device, "{}", told("device"));
    }
    if kind != NodeKind::Directory || same.directory_links {
        assert_eq!(u64::from(stat.links), theirs.nlink(), "{}", told("links"));
    }
    if same.times {
        let Time {
            seconds,
            nanoseconds,
        } = stat.modified;
        let modified = (theirs.mtime(), theirs.mtime_nsec());
        let ours = (seconds, i64::from(nanoseconds));
        assert_eq!(ours, modified, "{}", told("time"));
    }
    match kind {
        NodeKind::File => {
            assert_eq!(stat.len_bytes, theirs.len(), "{}", told("length"));
            assert_same_content(fs, entry.node, &stat, path);
        }
        NodeKind::Link => {
            let target = fs.read_link(entry.node).unwrap();
            let theirs = std::fs::read_link(path).unwrap();
            assert_eq!(target, theirs.as_os_str().as_bytes(), "{}", told("target"));
        }
        _ => {}
    }
}

/// Compares a file's content in pieces of a few sizes: those that readers use, and an odd one.
fn assert_same_content(fs: &dyn FileSystem, node: NodeId, stat: &Stat, path: &Path) {
    let theirs = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let piece = [1 << 20, 65_536, 100_003][(stat.len_bytes % 3) as usize];
    let mut ours = vec![0x55; piece];
    let mut expected = vec![0xaa; piece];
    let mut offset = 0;
    loop {
        let read = fs.read_at(node, offset, &mut ours);
        let len = read.unwrap_or_else(|error| panic!("{} at {offset}: {error}", path.display()));
        let left = stat.len_bytes.saturating_sub(offset);
        assert_eq!(len as u64, left.min(piece as u64), "{}", path.display());
        if len == 0 {
            return;
        }
        let told = format!("{} from {offset}", path.display());
        let read = theirs.read_exact_at(&mut expected[..len], offset);
        read.unwrap_or_else(|error| panic!("{told}: {error}"));
        if let Some(at) = (0..len).find(|at| ours[*at] != expected[*at]) {
            panic!("{told}: byte {at} is {}, not {}", ours[at], expected[at]);
        }
        offset += len as u64;
    }
}

/// Asks a file system everything, as far as it answers; the most nodes and bytes are bounded. For
/// damaged ones: what it says does not matter, but that it ends does.
pub fn ask_everything(fs: &dyn FileSystem, most_nodes: usize) {
    let mut todo = vec![fs.root()];
    let mut n_nodes = 0;
    let mut buf = vec![0; 70_000];
    while let Some(node) = todo.pop() {
        n_nodes += 1;
        if n_nodes > most_nodes {
            return;
        }
        let Ok(stat) = fs.stat(node) else { continue };
        let _ = fs.lookup(node, b"name");
        let _ = fs.read_link(node);
        for offset in [
            0,
            4095,
            stat.len_bytes / 2,
            stat.len_bytes.saturating_sub(5000),
        ] {
            if let Ok(len) = fs.read_at(node, offset, &mut buf) {
                assert!(len <= buf.len());
            }
        }
        let mut room = most_nodes;
        let _ = fs.visit(node, &mut |entry| {
            assert!(!entry.name.is_empty() && !entry.name.contains(&b'/'));
            todo.push(entry.node);
            room -= 1;
            match room {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        todo.truncate(most_nodes);
    }
}
