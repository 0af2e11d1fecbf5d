//! File systems: what each can be asked, and the list of those that are known, one module each.

pub mod btrfs;
mod cache;
mod ext;
mod fat;
mod iso9660;
pub mod ntfs;
mod xfs;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

use crate::check::Audit;
use crate::used::Ranges;
use crate::volume::Volume;

/// What opening a file system gives.
pub type Opened = Result<Arc<dyn FileSystem>>;

/// A file system that hako reads. To add one: a module here and a line in [`FILE_SYSTEMS`].
pub struct Driver {
    /// Its name as mount(8) says it: "ext4", "xfs", "vfat".
    pub name: &'static str,
    /// Says whether the volume holds one, by its magic numbers alone. A volume that is too short
    /// holds none; errors are those of reading.
    pub probe: fn(&dyn Volume) -> Result<bool>,
    /// Opens it. Errors: [`ErrorKind::Corrupt`], or [`ErrorKind::Unsupported`] for a feature that
    /// cannot be passed over.
    pub open: fn(Arc<dyn Volume>) -> Opened,
}

/// The file systems that are known, in the order in which they are looked for.
pub static FILE_SYSTEMS: &[Driver] = &[
    xfs::DRIVER,
    ext::DRIVER,
    ntfs::DRIVER,
    fat::DRIVER,
    // Its magic number is so far behind the beginning that others made over it leave it alone;
    // mkfs.btrfs wipes theirs.
    btrfs::DRIVER,
    iso9660::DRIVER,
];

/// Opens the file system in `volume`; none if it holds none that is known.
pub fn open(volume: Arc<dyn Volume>) -> Result<Option<Arc<dyn FileSystem>>> {
    for driver in FILE_SYSTEMS {
        if (driver.probe)(&*volume)? {
            return (driver.open)(volume).map(Some);
        }
    }
    Ok(None)
}

/// What is known of a file system as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsInfo {
    /// Its name as mount(8) says it; ext2, ext3 and ext4 are told apart.
    pub kind: &'static str,
    /// Its label; empty if it has none.
    pub label: String,
    /// Its identity as blkid(8) writes it (`0a1b…-…`, FAT `12AB-34CD`, NTFS 16 digits); empty if it
    /// has none.
    pub uuid: String,
    /// Its length in bytes; the volume may be longer.
    pub len_bytes: u64,
    /// The bytes of its unit of allocation.
    pub block_bytes: u32,
    /// What the reader should know: a log that was not replayed, a hibernated system.
    pub remarks: Vec<String>,
}

/// A file, directory or other thing of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// The tree it is in, where a file system has several (subvolumes of btrfs); else 0.
    pub tree: u64,
    /// Its number: the inode, the record of the MFT, the place of the directory entry.
    pub number: u64,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Bytes.
    File,
    /// Names.
    Directory,
    /// A path.
    Link,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A point in time: since 1970-01-01 00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// And so many nanoseconds more, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: NodeKind,
    /// The length of its content in bytes; of a link, that of its path.
    pub len_bytes: u64,
    /// Permissions with set-id and sticky bits (`0o7777`). File systems without them say 0o755 of a
    /// directory and 0o644 of a file.
    pub mode: u32,
    /// Its owner; 0 where there is none.
    pub uid: u32,
    /// Its group; 0 where there is none.
    pub gid: u32,
    /// How many names it has.
    pub links: u32,
    /// When its content changed last.
    pub modified: Time,
    /// Major and minor number, of a device.
    pub device: Option<(u32, u32)>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as it is stored: any bytes but `/` and NUL. NTFS and FAT names are UTF-8 here.
    pub name: Vec<u8>,
    /// What it names.
    pub node: NodeId,
    /// What that is, where the directory tells.
    pub kind: Option<NodeKind>,
}

/// A file system that is open. Errors of all: [`ErrorKind::Corrupt`] with the place in its
/// structure, [`ErrorKind::Unsupported`] for what cannot be read (encryption, an unknown
/// compression). A node's number that no directory gave is refused as corrupt, never trusted.
pub trait FileSystem: Send + Sync {
    /// Returns what is known of the whole.
    fn info(&self) -> &FsInfo;

    /// Returns the directory that mounting it shows.
    fn root(&self) -> NodeId;

    /// Returns what is known of `node`.
    fn stat(&self, node: NodeId) -> Result<Stat>;

    /// Calls `each` for every name in the directory but `.` and `..`, in the order they are stored,
    /// until it breaks.
    fn visit(
        &self,
        directory: NodeId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()>;

    /// Looks a name up. NTFS and FAT do so whatever its case.
    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let mut found = None;
        self.visit(directory, &mut |entry| {
            if entry.name == name {
                found = Some(entry.node);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Reads from `offset` of a file's content, and returns how many bytes were there: fewer than
    /// `buf.len()` only at its end. Holes read as zeros.
    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// Returns where a link leads, as it is stored, at most [`LONGEST_LINK`] bytes.
    fn read_link(&self, link: NodeId) -> Result<Vec<u8>>;

    /// Returns what of a window of its volume is in use, or may be: what is not among it is free for
    /// sure, whether a log is replayed or thrown away. `device` is the number of the volume in a file
    /// system on several ([`btrfs::Member`]), else 0. Ranges may reach out of the window.
    ///
    /// Errors: [`ErrorKind::Corrupt`] and [`ErrorKind::Unsupported`] if nobody knows; then all of the
    /// window is in use.
    fn used(&self, device: u64, window: &Range<u64>) -> Result<Ranges> {
        let _ = (device, window);
        let kind = self.info().kind;
        Err(Error::unsupported(format!("hako has no map of {kind}")))
    }

    /// Calls `each` with the runs of its volume that hold a node's content. Errors:
    /// [`ErrorKind::Unsupported`] if that is not known.
    fn runs(&self, node: NodeId, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let _ = (node, each);
        let kind = self.info().kind;
        let what = format!("where the files of {kind} lie");
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    /// Looks at what no name leads to, for [`check`](crate::check::check). `tick` is called now and
    /// then; its error ends it. Errors are else those of reading the volume.
    fn audit(&self, audit: &mut Audit, tick: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let _ = (audit, tick);
        Ok(())
    }

    /// Returns what is in use, but holds nothing that anybody will ask for once the system is started
    /// anew: what Windows swaps to.
    fn scratch(&self) -> Result<Ranges> {
        Ok(Ranges::default())
    }
}

/// The longest path in a link, as Linux has it.
pub const LONGEST_LINK: usize = 4095;

/// Returns the error for a node that is not of the kind that an operation needs.
pub fn wrong_kind(node: NodeId, wanted: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("node {} is no {wanted}", node.number),
    )
}
