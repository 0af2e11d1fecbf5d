//! The files of the host as a file system of the guest's kind, so that the same code looks at a system
//! that runs and at one on disks. Links are never followed by the host: all paths stay below the root.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, ErrorKind, Result};
use hako_guest::fs::{FsInfo, LONGEST_LINK};
use hako_guest::{Entry, FileSystem, NodeId, NodeKind, Stat};
use rustix::fs::OFlags;

/// Names that are known at most, and bytes of a file that does not say its length.
const MOST_NODES: usize = 2_000_000;
const MOST_UNTOLD_BYTES: usize = 16 << 20;

/// A folder of the host, and what is below it.
pub(super) struct HostFs {
    info: FsInfo,
    known: Mutex<Known>,
    /// The file that was read last.
    open: Mutex<Option<(u64, Arc<File>)>>,
}

/// Paths by their numbers, and back.
#[derive(Default)]
struct Known {
    paths: Vec<PathBuf>,
    numbers: HashMap<PathBuf, u64>,
}

impl HostFs {
    /// Returns what is below a folder.
    pub(super) fn below(root: &Path) -> Self {
        let mut known = Known::default();
        known.paths.push(root.to_path_buf());
        Self {
            info: FsInfo {
                kind: "host",
                label: String::new(),
                uuid: String::new(),
                len_bytes: 0,
                block_bytes: 4096,
                remarks: Vec::new(),
            },
            known: Mutex::new(known),
            open: Mutex::default(),
        }
    }

    fn path(&self, node: NodeId) -> Result<PathBuf> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(node.number).unwrap_or(usize::MAX);
        let path = known.paths.get(place).cloned();
        path.ok_or_else(|| Error::corrupt("host", "a node that nobody named"))
    }

    fn node(&self, path: PathBuf) -> Result<NodeId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(&path) {
            return Ok(NodeId {
                tree: 0,
                number: *number,
            });
        }
        if known.paths.len() >= MOST_NODES {
            return Err(Error::unsupported("too many names"));
        }
        let number = known.paths.len() as u64;
        known.numbers.insert(path.clone(), number);
        known.paths.push(path);
        Ok(NodeId { tree: 0, number })
    }

    fn file(&self, node: NodeId) -> Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, file)) = &*open
            && *number == node.number
        {
            return Ok(Arc::clone(file));
        }
        let path = self.path(node)?;
        let failed = |error| Error::io("open", error).in_file(&path);
        // A pipe or a device that took the file's place is not waited for.
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(failed)?;
        let file = Arc::new(file);
        *open = Some((node.number, Arc::clone(&file)));
        Ok(file)
    }

    /// Returns the length of a file that says it has none, as those of procfs do.
    fn untold_len(&self, node: NodeId) -> u64 {
        let mut len = 0;
        let mut buf = vec![0; 64 << 10];
        while len < MOST_UNTOLD_BYTES {
            match self.read_at(node, len as u64, &mut buf) {
                Ok(more) if more > 0 => len += more,
                _ => break,
            }
        }
        len as u64
    }
}

fn kind_of(metadata: &Metadata) -> NodeKind {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => NodeKind::Directory,
        () if kind.is_symlink() => NodeKind::Link,
        () if kind.is_block_device() => NodeKind::BlockDevice,
        () if kind.is_char_device() => NodeKind::CharDevice,
        () if kind.is_fifo() => NodeKind::Fifo,
        () if kind.is_socket() => NodeKind::Socket,
        () => NodeKind::File,
    }
}

impl FileSystem for HostFs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        NodeId { tree: 0, number: 0 }
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        let path = self.path(node)?;
        // The root itself may be a link of the user's.
        let metadata = match node == self.root() {
            true => std::fs::metadata(&path),
            false => std::fs::symlink_metadata(&path),
        };
        let metadata = metadata.map_err(|error| Error::io("look at", error).in_file(&path))?;
        let kind = kind_of(&metadata);
        Ok(Stat {
            kind,
            len_bytes: match (kind, metadata.len()) {
                (NodeKind::File, 0) => self.untold_len(node),
                (_, len) => len,
            },
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            links: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
            modified: hako_guest::Time {
                seconds: metadata.mtime(),
                nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            },
            device: None,
        })
    }

    fn visit(
        &self,
        directory: NodeId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let path = self.path(directory)?;
        let failed = |error| Error::io("list", error).in_file(&path);
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let node = self.node(entry.path())?;
            let name = entry.file_name().into_vec();
            if each(Entry {
                name,
                node,
                kind: None,
            })
            .is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let path = self.path(directory)?.join(OsStr::from_bytes(name));
        match std::fs::symlink_metadata(&path) {
            Ok(_) => self.node(path).map(Some),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(Error::io("look at", error).in_file(&path)),
        }
    }

    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let open = self.file(file)?;
        let mut have = 0;
        while let Some(rest) = buf.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match open.read_at(rest, offset + have as u64) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", error).in_file(self.path(file)?)),
            }
        }
        Ok(have)
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let path = self.path(link)?;
        let target =
            std::fs::read_link(&path).map_err(|error| Error::io("read", error).in_file(&path))?;
        let target = target.into_os_string().into_vec();
        match target.len() > LONGEST_LINK {
            true => Err(Error::new(ErrorKind::Invalid, "too long a link").in_file(&path)),
            false => Ok(target),
        }
    }
}

/// Whether nothing is there; a process that ends while it is looked at is gone, too.
fn is_absence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

#[cfg(test)]
mod tests {
    use hako_guest::Tree;

    use super::*;

    #[test]
    fn links_lead_nowhere_but_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("root/etc")).unwrap();
        std::fs::write(path("secret"), "no").unwrap();
        std::fs::write(path("root/etc/name"), "yes").unwrap();
        for (target, link) in [
            ("/etc/name", "absolute"),
            ("../../../secret", "out"),
            ("../../../etc/name", "in"),
        ] {
            std::os::unix::fs::symlink(target, path("root").join(link)).unwrap();
        }
        let tree = Tree::new(Arc::new(HostFs::below(&path("root"))));
        assert_eq!(tree.read(b"/absolute", 100).unwrap(), b"yes");
        assert_eq!(tree.read(b"/in", 100).unwrap(), b"yes");
        assert!(tree.find(b"/out").is_err());
        assert_eq!(tree.entries(b"/etc", 10).unwrap().len(), 1);
        let proc = Tree::new(Arc::new(HostFs::below(Path::new("/"))));
        let version = proc.read(b"/proc/version", 10_000).unwrap();
        assert!(version.starts_with(b"Linux"));
    }
}
