//! ext2, ext3 and ext4, by the kernel's documentation ("ext4 Data Structures and Algorithms").
//!
//! A file system that was not unmounted is read as the next mount would show it: its journal is
//! replayed in memory, and nothing is written. Where structures have checksums, a wrong one is a
//! corrupt error of what it covers; the rest stays readable. Encrypted content is refused, names are
//! compared as they are stored (casefold too), extended attributes are not read.

mod audit;
mod blocks;
mod dir;
mod extents;
mod features;
mod group;
mod inline;
mod inode;
mod journal;
mod map;
mod superblock;
mod used;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

use self::blocks::Blocks;
use self::features::INCOMPAT_LARGEDIR;
use self::inode::Inode;
use self::superblock::{SUPERBLOCK_AT, SUPERBLOCK_BYTES, Superblock};
use crate::check::Audit;
use crate::fs::cache::Cache;
use crate::fs::{
    Driver, Entry, FileSystem, FsInfo, LONGEST_LINK, NodeId, NodeKind, Opened, Stat, wrong_kind,
};
use crate::used::Ranges;
use crate::volume::Volume;

/// ext2, ext3 and ext4.
pub(super) const DRIVER: Driver = Driver {
    name: "ext4",
    probe,
    open,
};

const ROOT_INODE: u32 = 2;
/// Bytes of a link that fit in its inode, one less than there is room for.
const SHORT_LINK: u64 = 59;

fn probe(volume: &dyn Volume) -> Result<bool> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    if volume.len_bytes() < SUPERBLOCK_AT + SUPERBLOCK_BYTES as u64 {
        return Ok(false);
    }
    volume.read_at(SUPERBLOCK_AT, &mut bytes)?;
    Ok(superblock::is_superblock(&bytes))
}

fn open(volume: Arc<dyn Volume>) -> Opened {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    volume.read_at(SUPERBLOCK_AT, &mut bytes)?;
    let superblock = Superblock::decode(&bytes)?;
    let blocks = Blocks::new(volume, superblock.block_bytes, superblock.n_blocks);
    let stopped = Ext::new(blocks, superblock);
    Ok(Arc::new(stopped.replayed()?))
}

struct Ext {
    blocks: Blocks,
    superblock: Superblock,
    /// Both as they are without the journal, if that was replayed.
    before: Option<(Blocks, Superblock)>,
    /// Why its bitmaps are not to be believed, if they are not.
    doubt: Option<&'static str>,
    info: FsInfo,
    inodes: Cache<u32, Inode>,
    /// By inode, block, and the first of the file's blocks that the node is about.
    extents: Cache<(u32, u64, u64), extents::Node>,
    /// Blocks of block numbers.
    tables: Cache<u32, Vec<u8>>,
}

impl Ext {
    fn new(blocks: Blocks, superblock: Superblock) -> Self {
        let info = info(&blocks, &superblock);
        let doubt = used::doubt(&superblock);
        Self {
            blocks,
            superblock,
            before: None,
            doubt,
            info,
            inodes: Cache::new(256),
            extents: Cache::new(64),
            tables: Cache::new(64),
        }
    }

    /// Returns the file system as it is once its journal is replayed.
    fn replayed(self) -> Result<Self> {
        let replay = match journal::replay(&self) {
            Ok(Some(replay)) => replay,
            Ok(None) => return Ok(self),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let mut left = self;
                left.doubt = Some("its journal is damaged");
                left.info.remarks.push(format!(
                    "it was not unmounted, and its journal is damaged ({error}): what was written \
                     last is missing, and files that were written to may be damaged"
                ));
                return Ok(left);
            }
            Err(error) => return Err(error),
        };
        let blocks = self.blocks.replayed(replay.copies);
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let block_bytes = u64::from(blocks.block_bytes());
        blocks.read(
            SUPERBLOCK_AT / block_bytes,
            SUPERBLOCK_AT % block_bytes,
            &mut bytes,
        )?;
        let superblock = Superblock::decode(&bytes)?;
        if superblock.block_bytes != self.superblock.block_bytes {
            return Err(Error::corrupt("journal", "changes the length of blocks"));
        }
        let blocks = blocks.with_length(superblock.n_blocks);
        let mut replayed = Self::new(blocks, superblock);
        if !replay.remarks.is_empty() {
            replayed.doubt = Some("its journal cannot be replayed as a whole");
        }
        replayed.info.remarks.extend(replay.remarks);
        replayed.before = Some((self.blocks, self.superblock));
        Ok(replayed)
    }

    /// Returns the inode of a node.
    fn node(&self, node: NodeId) -> Result<Arc<Inode>> {
        let number = u32::try_from(node.number).unwrap_or(0);
        let is_reserved = number < self.superblock.first_inode && number != ROOT_INODE;
        if node.tree != 0 || number == 0 || is_reserved {
            return Err(Error::corrupt(
                format!("inode {}", node.number),
                "is no file's",
            ));
        }
        self.inode(number)
    }

    /// Returns an inode by its number.
    fn inode(&self, number: u32) -> Result<Arc<Inode>> {
        if number == 0 || number > self.superblock.n_inodes {
            return Err(Error::corrupt(
                format!("inode {number}"),
                format!("there are {}", self.superblock.n_inodes),
            ));
        }
        self.inodes.get_or(number, || {
            let per_group = self.superblock.inodes_per_group;
            let group = (number - 1) / per_group;
            let table = group::read(&self.blocks, &self.superblock, group)?.inode_table;
            let bytes = self.superblock.inode_bytes;
            let from = u64::from((number - 1) % per_group) * u64::from(bytes);
            let mut raw = vec![0; usize::from(bytes)];
            self.blocks.read(table, from, &mut raw)?;
            Inode::decode(number, raw, self.superblock.checksum_seed())
        })
    }

    fn len_bytes(&self, inode: &Inode) -> Result<u64> {
        let len = inode.len_bytes(self.superblock.features.incompat(INCOMPAT_LARGEDIR))?;
        let most = extents::ALL_BLOCKS.end * u64::from(self.blocks.block_bytes());
        match len <= most {
            true => Ok(len),
            false => Err(inode.corrupt(format!("a length of {len} bytes"))),
        }
    }

    /// Reads from `offset` of the content of `inode`, of which there are `len_bytes`.
    fn read(&self, inode: &Inode, len_bytes: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        inode.check_readable()?;
        let wanted = len_bytes.saturating_sub(offset).min(buf.len() as u64);
        let Some(buf) = buf.get_mut(..wanted as usize) else {
            return Ok(0);
        };
        if inode.is_inline() {
            let content = self.inline_content(inode)?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let stored = content.get(from..).unwrap_or(&[]);
            let bytes = stored.iter().copied().chain(std::iter::repeat(0));
            buf.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        } else {
            self.read_blocks(inode, offset, buf)?;
        }
        Ok(buf.len())
    }

    fn read_blocks(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<()> {
        let block_bytes = u64::from(self.blocks.block_bytes());
        let mut offset = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let skipped = offset % block_bytes;
            let most = (skipped + rest.len() as u64).div_ceil(block_bytes);
            let run = self.run(inode, offset / block_bytes, most)?;
            let len = (run.n_blocks * block_bytes - skipped).min(rest.len() as u64);
            let (piece, others) = rest.split_at_mut(len as usize);
            match run.at {
                Some(at) => self
                    .blocks
                    .read(at, skipped, piece)
                    .map_err(|error| error.place(inode.place()))?,
                None => piece.fill(0),
            }
            offset += len;
            rest = others;
        }
        Ok(())
    }
}

impl FileSystem for Ext {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        NodeId {
            tree: 0,
            number: u64::from(ROOT_INODE),
        }
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        let inode = self.node(node)?;
        inode.stat(self.len_bytes(&inode)?)
    }

    fn visit(
        &self,
        directory: NodeId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let inode = self.node(directory)?;
        if inode.kind()? != NodeKind::Directory {
            return Err(wrong_kind(directory, "directory"));
        }
        inode.check_readable()?;
        match inode.is_inline() {
            true => self.visit_inline(&inode, each),
            false => self.visit_blocks(&inode, self.len_bytes(&inode)?, each),
        }
    }

    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.node(file)?;
        if inode.kind()? != NodeKind::File {
            return Err(wrong_kind(file, "file"));
        }
        self.read(&inode, self.len_bytes(&inode)?, offset, buf)
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let inode = self.node(link)?;
        if inode.kind()? != NodeKind::Link {
            return Err(wrong_kind(link, "link"));
        }
        inode.check_readable()?;
        let len = self.len_bytes(&inode)?;
        if len > LONGEST_LINK as u64 {
            return Err(inode.corrupt(format!("a link of {len} bytes")));
        }
        let mut target = vec![0; len as usize];
        if len <= SHORT_LINK && !inode.has_extents() && !inode.is_inline() {
            target.copy_from_slice(inode.block_field().get(..len as usize).unwrap_or(&[]));
        } else {
            self.read(&inode, len, 0, &mut target)?;
        }
        Ok(target)
    }

    fn used(&self, _device: u64, window: &Range<u64>) -> Result<Ranges> {
        self.used_in(window)
    }

    fn audit(&self, audit: &mut Audit, tick: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.look_at_all(audit, tick)
    }
}

fn info(blocks: &Blocks, superblock: &Superblock) -> FsInfo {
    let len_bytes = superblock
        .n_blocks
        .saturating_mul(u64::from(superblock.block_bytes));
    let mut remarks = Vec::new();
    if superblock.is_damaged {
        remarks.push("the checksum of its superblock is wrong".to_owned());
    }
    if superblock.has_errors {
        remarks.push("Linux found errors in it, which nobody has repaired: e2fsck does".to_owned());
    }
    let there = blocks.volume().len_bytes();
    if len_bytes > there {
        remarks.push(format!(
            "it has {len_bytes} bytes, of which its volume holds {there}: the rest cannot be read"
        ));
    }
    let is_nil = superblock.uuid.is_nil();
    FsInfo {
        kind: superblock.features.kind(),
        label: superblock.label.clone(),
        uuid: if is_nil {
            String::new()
        } else {
            superblock.uuid.to_string()
        },
        len_bytes,
        block_bytes: superblock.block_bytes,
        remarks,
    }
}
