//! btrfs: subvolumes and snapshots, all its checksums and compressions, on one device or several
//! (single, DUP, RAID0, RAID1, RAID1C3, RAID1C4, RAID10).
//!
//! The layout is that of <https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html>. Nodes and
//! data are checked before they are believed, and other copies are tried. RAID5 and RAID6, zoned
//! devices, encryption and what is newer are refused by name. The log is not replayed: what is read
//! is the last commit.

mod checksum;
mod chunk;
mod compress;
mod file;
mod item;
mod node;
mod store;
mod superblock;
mod used;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hako_block::crc32c::Crc32c;
use hako_block::{Error, Result, Uuid};

use super::{
    Driver, Entry, FileSystem, FsInfo, LONGEST_LINK, NodeId, NodeKind, Opened, Stat, Time,
    wrong_kind,
};
use crate::bytes::le;
use crate::used::Ranges;
use crate::volume::Volume;
use file::Files;
use item::{
    CSUM_TREE, DIR_INDEX, DIR_ITEM, INODE_ITEM, Inode, Name, ROOT_ITEM, ROOT_REF, Root,
    TOP_SUBVOLUME, is_subvolume,
};
use node::{Key, NodeAt};
use store::Store;
use superblock::Superblock;

/// btrfs, on one device. See [`open_devices`] for several.
pub const DRIVER: Driver = Driver {
    name: "btrfs",
    probe: superblock::probe,
    open: |volume| open_devices(vec![volume]),
};

/// The inode that stands for a subvolume which a snapshot does not hold
/// (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`).
const EMPTY_DIRECTORY: u64 = 2;

/// Which device of which file system a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The file system.
    pub fsid: [u8; 16],
    /// The device's number in it.
    pub device: u64,
    /// How many devices it has.
    pub n_devices: u64,
}

/// Returns which device the volume is; none if it is of no btrfs. Errors: those of its superblock.
pub fn member(volume: &dyn Volume) -> Result<Option<Member>> {
    if !superblock::probe(volume)? {
        return Ok(None);
    }
    let (superblock, _) = superblock::read(volume)?;
    Ok(Some(Member {
        fsid: superblock.fsid,
        device: superblock.device,
        n_devices: superblock.n_devices,
    }))
}

/// Opens the file system that is on these devices. Not all need be given: what has a copy on those
/// that are is read. Errors: [`hako_block::ErrorKind::Invalid`] if they do not belong together.
pub fn open_devices(volumes: Vec<Arc<dyn Volume>>) -> Opened {
    let mut devices: BTreeMap<u64, Arc<dyn Volume>> = BTreeMap::new();
    let mut newest: Option<Superblock> = None;
    let mut remarks = Vec::new();
    for volume in volumes {
        let (superblock, is_first) = superblock::read(&*volume)?;
        if !is_first {
            remarks.push("its first superblock is damaged, a copy was used".to_owned());
        }
        if superblock.device_bytes > volume.len_bytes() {
            let (said, is) = (superblock.device_bytes, volume.len_bytes());
            remarks.push(format!("the volume is cut short: {is} bytes of {said}"));
        }
        if newest
            .as_ref()
            .is_some_and(|one| one.fsid != superblock.fsid)
        {
            return Err(Error::invalid("devices of different btrfs file systems"));
        }
        if devices.insert(superblock.device, volume).is_some() {
            let what = format!("two volumes are device {} of one btrfs", superblock.device);
            return Err(Error::invalid(what));
        }
        if newest
            .as_ref()
            .is_none_or(|one| one.generation < superblock.generation)
        {
            newest = Some(superblock);
        }
    }
    let superblock = newest.ok_or_else(|| Error::invalid("no device of btrfs"))?;
    let fs = Btrfs::open(superblock, devices, remarks)?;
    Ok(Arc::new(fs))
}

struct Btrfs {
    store: Arc<Store>,
    used: used::Used,
    files: Files,
    info: FsInfo,
    root: NodeId,
}

impl Btrfs {
    fn open(
        superblock: Superblock,
        devices: BTreeMap<u64, Arc<dyn Volume>>,
        mut remarks: Vec<String>,
    ) -> Result<Self> {
        let n_devices = devices.len() as u64;
        if n_devices < superblock.n_devices {
            let all = superblock.n_devices;
            remarks.push(format!("{n_devices} of its {all} devices are there"));
        }
        if superblock.log.is_some() {
            let what = "it was not unmounted; what was synced since its last commit is in its log, \
                        which was not replayed";
            remarks.push(what.to_owned());
        }
        let info = FsInfo {
            kind: "btrfs",
            label: superblock.label.clone(),
            uuid: Uuid(superblock.fsid).to_string(),
            len_bytes: superblock.total_bytes,
            block_bytes: superblock.sector_bytes,
            remarks,
        };
        let store = Arc::new(Store::new(superblock, devices)?);
        let sums = root_of_tree(&store, CSUM_TREE)?.node;
        let mut fs = Self {
            files: Files::new(Arc::clone(&store), sums),
            used: used::Used::default(),
            store,
            info,
            root: NodeId { tree: 0, number: 0 },
        };
        fs.root = fs.top_of(fs.default_subvolume()?)?;
        Ok(fs)
    }

    /// Returns the subvolume that mount shows: the one named "default", else the topmost.
    fn default_subvolume(&self) -> Result<u64> {
        let superblock = self.store.superblock();
        let key = Key::new(superblock.root_dir, DIR_ITEM, hash(b"default"));
        let Some(item) = self.store.item(&superblock.roots, key)? else {
            return Ok(TOP_SUBVOLUME);
        };
        let names = Name::decode_all(&item)?;
        let default = names.iter().find(|name| name.name == b"default");
        Ok(default.map_or(TOP_SUBVOLUME, |name| name.location.object))
    }

    /// Returns the topmost directory of a subvolume.
    fn top_of(&self, tree: u64) -> Result<NodeId> {
        let number = self.subvolume(tree)?.directory;
        Ok(NodeId { tree, number })
    }

    fn subvolume(&self, tree: u64) -> Result<Root> {
        match is_subvolume(tree) {
            true => root_of_tree(&self.store, tree),
            false => Err(bad_tree(tree, "it holds no files")),
        }
    }

    fn inode(&self, node: NodeId) -> Result<(NodeAt, Inode)> {
        let tree = self.subvolume(node.tree)?.node;
        let key = Key::new(node.number, INODE_ITEM, 0);
        let item = self.store.item(&tree, key)?;
        let item = item.ok_or_else(|| {
            let place = format!("btrfs tree {}, inode {}", node.tree, node.number);
            Error::corrupt(place, "not there")
        })?;
        Ok((tree, Inode::decode(&item)?))
    }

    /// Returns the tree of a directory.
    fn directory(&self, node: NodeId) -> Result<NodeAt> {
        let (tree, inode) = self.inode(node)?;
        match inode.stat.kind {
            NodeKind::Directory => Ok(tree),
            _ => Err(wrong_kind(node, "directory")),
        }
    }

    /// Returns what a name in `directory` names.
    fn named(&self, directory: NodeId, name: &Name) -> Result<NodeId> {
        let (location, tree) = (name.location, directory.tree);
        match location.kind {
            INODE_ITEM => Ok(NodeId {
                tree,
                number: location.object,
            }),
            ROOT_ITEM if self.refers(directory, name)? => self.top_of(location.object),
            ROOT_ITEM => Ok(NodeId {
                tree,
                number: EMPTY_DIRECTORY,
            }),
            kind => {
                let what = format!("{} names a thing of kind {kind}", name.name.escape_ascii());
                Err(bad_tree(tree, what))
            }
        }
    }

    /// Returns whether a subvolume is where `name` says: a snapshot has the names of the subvolumes
    /// in what it was taken of, but they are not in it.
    fn refers(&self, directory: NodeId, name: &Name) -> Result<bool> {
        let key = Key::new(directory.tree, ROOT_REF, name.location.object);
        let Some(item) = self.store.item(&self.store.superblock().roots, key)? else {
            return Ok(false);
        };
        // Root reference: dirid 0, sequence 8, name_len 0x10, name 0x12.
        let len = usize::from(le::u16_at(item.data(), 0x10));
        let stored = item.data().get(0x12..0x12 + len);
        Ok(le::u64_at(item.data(), 0) == directory.number && stored == Some(&name.name[..]))
    }
}

impl FileSystem for Btrfs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        if node.number == EMPTY_DIRECTORY {
            return Ok(EMPTY_STAT);
        }
        Ok(self.inode(node)?.1.stat)
    }

    fn visit(
        &self,
        directory: NodeId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        if directory.number == EMPTY_DIRECTORY {
            return Ok(());
        }
        let tree = self.directory(directory)?;
        let first = Key::new(directory.number, DIR_INDEX, 0);
        let mut items = self.store.from(&tree, first);
        while let Some(item) = items.next_like(first)? {
            for name in Name::decode_all(&item)? {
                let entry = Entry {
                    node: self.named(directory, &name)?,
                    kind: name.kind,
                    name: name.name,
                };
                if each(entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        if directory.number == EMPTY_DIRECTORY {
            return Ok(None);
        }
        let tree = self.directory(directory)?;
        let key = Key::new(directory.number, DIR_ITEM, hash(name));
        let Some(item) = self.store.item(&tree, key)? else {
            return Ok(None);
        };
        let names = Name::decode_all(&item)?;
        let found = names.iter().find(|one| one.name == name);
        found.map(|name| self.named(directory, name)).transpose()
    }

    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if file.number == EMPTY_DIRECTORY {
            return Err(wrong_kind(file, "file"));
        }
        let (tree, inode) = self.inode(file)?;
        match inode.stat.kind {
            NodeKind::File => self.files.read(&tree, (file.number, &inode), offset, buf),
            _ => Err(wrong_kind(file, "file")),
        }
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        if link.number == EMPTY_DIRECTORY {
            return Err(wrong_kind(link, "link"));
        }
        let (tree, inode) = self.inode(link)?;
        if inode.stat.kind != NodeKind::Link {
            return Err(wrong_kind(link, "link"));
        }
        let len = usize::try_from(inode.stat.len_bytes).ok();
        let len = len.filter(|len| *len <= LONGEST_LINK).ok_or_else(|| {
            let what = format!("a link of {} bytes", inode.stat.len_bytes);
            bad_tree(link.tree, what)
        })?;
        let mut path = vec![0; len];
        self.files
            .read(&tree, (link.number, &inode), 0, &mut path)?;
        Ok(path)
    }

    fn used(&self, device: u64, window: &Range<u64>) -> Result<Ranges> {
        self.used.find(&self.store, device, window)
    }
}

/// What Linux says of the directory that stands for a subvolume which is not there.
const EMPTY_STAT: Stat = Stat {
    kind: NodeKind::Directory,
    len_bytes: 0,
    mode: 0o755,
    uid: 0,
    gid: 0,
    links: 1,
    modified: Time {
        seconds: 0,
        nanoseconds: 0,
    },
    device: None,
};

/// Returns the root of a tree, the newest if there are several.
fn root_of_tree(store: &Store, tree: u64) -> Result<Root> {
    let key = Key::new(tree, ROOT_ITEM, u64::MAX);
    let item = store.floor(&store.superblock().roots, key)?;
    let item = item.filter(|item| item.key.is_like(key));
    Root::decode(&item.ok_or_else(|| bad_tree(tree, "not there"))?)
}

/// Returns the hash that names are sorted by.
fn hash(name: &[u8]) -> u64 {
    const SEED: u32 = !1;
    let mut crc = Crc32c::from_state(SEED);
    crc.update(name);
    u64::from(crc.state())
}

fn bad_tree(tree: u64, what: impl Into<String>) -> Error {
    Error::corrupt(format!("btrfs tree {tree}"), what)
}
