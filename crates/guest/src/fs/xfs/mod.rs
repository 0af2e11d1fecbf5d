//! XFS of version 4 and 5, by "XFS Algorithms & Data Structures" (3rd edition) and what Linux writes.
//!
//! A file system that was not unmounted is read as the next mount would show it: its log is replayed
//! in memory, and nothing is written. Checksums (version 5) are verified: a wrong one is a corrupt
//! error of what it covers. Files on a realtime device are refused, extended attributes are not read.

mod checksum;
mod dir;
mod extents;
mod inode;
mod log;
mod store;
mod superblock;
mod used;

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, OnceLock};

use hako_block::{Error, ErrorKind, Result};

use self::extents::{Fork, MOST_LEVELS, Node, Run, below};
use self::inode::{Content, Inode};
use self::log::Replay;
use self::store::Store;
use self::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::bytes::be::{u32_at, u64_at};
use crate::check::Audit;
use crate::fs::cache::Cache;
use crate::fs::{
    Driver, Entry, FileSystem, FsInfo, LONGEST_LINK, NodeId, NodeKind, Opened, Stat, wrong_kind,
};
use crate::used::Ranges;
use crate::volume::{Volume, read_vec};

/// XFS.
pub(super) const DRIVER: Driver = Driver {
    name: "xfs",
    probe,
    open,
};

const NODE_CHECKSUM_AT: usize = 64;
/// Bytes before each piece of a link in version 5, and where they say how long it is.
const LINK_HEADER_BYTES: u64 = 56;
const LINK_LEN_AT: usize = 8;

fn probe(volume: &dyn Volume) -> Result<bool> {
    if volume.len_bytes() < SUPERBLOCK_BYTES as u64 {
        return Ok(false);
    }
    Ok(superblock::is_superblock(&read_vec(
        volume,
        0,
        SUPERBLOCK_BYTES,
    )?))
}

fn open(volume: Arc<dyn Volume>) -> Opened {
    let sector = read_vec(&*volume, 0, SUPERBLOCK_BYTES)?;
    let sector = read_vec(&*volume, 0, Superblock::sector_bytes(&sector)?)?;
    let superblock = Superblock::decode(&sector)?;
    let mut remarks = Vec::new();
    let mut doubt = used::doubt(&superblock);
    let replay = match log::replay(&*volume, &superblock) {
        Ok(replay) => replay,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            remarks.push(format!(
                "it was not unmounted, and its log is damaged ({error}): what was written last is \
                 missing, and files that were written to may be damaged"
            ));
            doubt = Some("its log is damaged");
            Replay::default()
        }
        Err(error) => return Err(error),
    };
    if replay.is_partial {
        doubt = Some("its log cannot be replayed as a whole");
    }
    remarks.extend(replay.remarks);
    let store = Store::new(volume).replayed(replay.pieces);
    let superblock = replayed_superblock(&store, superblock, sector.len())?;
    let mut info = info(&store, &superblock);
    info.remarks.extend(remarks);
    Ok(Arc::new(Xfs {
        store,
        superblock,
        info,
        patches: replay.inodes,
        doubt,
        touched: OnceLock::new(),
        inodes: Cache::new(256),
        nodes: Cache::new(64),
    }))
}

/// Returns the superblock as the log left it: the file system may have grown.
fn replayed_superblock(store: &Store, before: Superblock, len: usize) -> Result<Superblock> {
    if !store.is_changed(0, len as u64) {
        return Ok(before);
    }
    let mut sector = vec![0; len];
    store.read(0, &mut sector)?;
    let after = Superblock::decode(&sector)?;
    if after.block_bytes != before.block_bytes || after.group_shift != before.group_shift {
        return Err(Error::corrupt(
            "log",
            "changes what a superblock never changes",
        ));
    }
    Ok(Superblock {
        is_damaged: before.is_damaged,
        ..after
    })
}

struct Xfs {
    store: Store,
    superblock: Superblock,
    info: FsInfo,
    /// What the log says of inodes.
    patches: log::Patches,
    /// Why its trees of free space are not to be believed, if they are not.
    doubt: Option<&'static str>,
    /// What the log writes to.
    touched: OnceLock<Ranges>,
    inodes: Cache<u64, Inode>,
    /// By their block, and the first of the file's blocks that they are about.
    nodes: Cache<(u64, u64), Node>,
}

impl Xfs {
    fn node(&self, node: NodeId) -> Result<Arc<Inode>> {
        if node.tree != 0 {
            return Err(Error::corrupt(
                format!("inode {}", node.number),
                "is no file's",
            ));
        }
        self.inodes.get_or(node.number, || self.load(node.number))
    }

    /// An inode's number is that of its block, and its place in it.
    fn load(&self, number: u64) -> Result<Inode> {
        let superblock = &self.superblock;
        let shift = superblock.inode_shift;
        let block = superblock
            .position(number >> shift, 1)
            .map_err(|error| error.place(format!("inode {number}")))?;
        let len = u64::from(superblock.inode_bytes);
        let at = block + (number & ((1 << shift) - 1)) * len;
        let mut raw = vec![0; len as usize];
        self.store.read(at, &mut raw)?;
        let patch = self.patches.get(&number);
        if let Some(patch) = patch {
            patch.apply(&mut raw);
        }
        let is_sealed = superblock.has_sums && patch.is_none() && !self.store.is_changed(at, len);
        Inode::decode(number, raw, is_sealed.then_some(superblock.block_uuid))
    }

    /// Returns the run at block `logical` of a file.
    fn run(&self, inode: &Inode, logical: u64) -> Result<Run> {
        let mut holds = 0..u64::MAX;
        let Content::Blocks(fork) = &inode.content else {
            return Err(inode.corrupt("has no blocks"));
        };
        let mut node = match fork {
            Fork::List(list) => return Ok(list.run(logical, holds.end)),
            Fork::Tree(root) => match self.step(inode, root, logical, &mut holds)? {
                Ok(run) => return Ok(run),
                Err(node) => node,
            },
        };
        for _ in 0..MOST_LEVELS {
            node = match self.step(inode, &node, logical, &mut holds)? {
                Ok(run) => return Ok(run),
                Err(node) => node,
            };
        }
        Err(inode.corrupt("its extent tree has no leaves"))
    }

    /// Asks a node: returns the run, or the node below that knows it.
    fn step(
        &self,
        inode: &Inode,
        node: &Node,
        logical: u64,
        holds: &mut Range<u64>,
    ) -> Result<std::result::Result<Run, Arc<Node>>> {
        let (level, entries) = match node {
            Node::Leaf(list) => return Ok(Ok(list.run(logical, holds.end))),
            Node::Inner(level, entries) => (*level, entries),
        };
        let (at, narrowed) = below(entries, logical, holds);
        let Some(at) = at else {
            let n_blocks = (narrowed.end - logical).max(1);
            return Ok(Ok(Run { at: None, n_blocks }));
        };
        *holds = narrowed;
        let corrupt = |what: String| {
            Error::corrupt(format!("{}, extents in block {at:#x}", inode.place()), what)
        };
        let node = self.nodes.get_or((at, holds.start), || {
            let len = self.superblock.block_bytes;
            let position = self.superblock.position(at, 1)?;
            let mut bytes = vec![0; len as usize];
            self.store.read(position, &mut bytes)?;
            let is_sealed =
                self.superblock.has_sums && !self.store.is_changed(position, u64::from(len));
            if is_sealed && !checksum::is_sound(&bytes, NODE_CHECKSUM_AT) {
                return Err(corrupt("its checksum is wrong".to_owned()));
            }
            Node::decode(&bytes, self.superblock.has_sums, holds).map_err(corrupt)
        })?;
        match node.level() + 1 == level {
            true => Ok(Err(node)),
            false => Err(corrupt(format!(
                "level {} below level {level}",
                node.level()
            ))),
        }
    }

    /// Calls `each` with the runs of a file that were written.
    fn runs_of(&self, inode: &Inode, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let is_on_it = inode.check_readable().is_ok();
        if !is_on_it || !matches!(inode.content, Content::Blocks(_)) {
            return Ok(());
        }
        let block_bytes = u64::from(self.superblock.block_bytes);
        let mut logical = 0_u64;
        while logical < u64::MAX {
            let run = self.run(inode, logical)?;
            if let Some(block) = run.at {
                let position = self.superblock.position(block, run.n_blocks);
                let at = position.map_err(|error| error.place(inode.place()))?;
                each(at..at.saturating_add(run.n_blocks.saturating_mul(block_bytes)));
            }
            logical = logical.saturating_add(run.n_blocks);
        }
        Ok(())
    }

    /// Fills `buf` with the blocks of a file from `offset`. Returns whether the log changed any.
    fn read_blocks(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let block_bytes = u64::from(self.superblock.block_bytes);
        let mut is_changed = false;
        let mut offset = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let skipped = offset % block_bytes;
            let run = self.run(inode, offset / block_bytes)?;
            let most = run
                .n_blocks
                .saturating_mul(block_bytes)
                .saturating_sub(skipped);
            let len = most.min(rest.len() as u64);
            let (piece, others) = rest.split_at_mut(len as usize);
            match run.at {
                Some(block) => {
                    let n_blocks = (skipped + len).div_ceil(block_bytes);
                    let position = self.superblock.position(block, n_blocks);
                    let at = position.map_err(|error| error.place(inode.place()))? + skipped;
                    self.store.read(at, piece)?;
                    is_changed |= self.store.is_changed(at, len);
                }
                None => piece.fill(0),
            }
            offset += len;
            rest = others;
        }
        Ok(is_changed)
    }

    /// Reads a link that is in blocks: in version 5 each run of them begins with a header.
    fn remote_link(&self, inode: &Inode, len: u64) -> Result<Vec<u8>> {
        let mut target = vec![0; len as usize];
        if !self.superblock.has_sums {
            self.read_blocks(inode, 0, &mut target)?;
            return Ok(target);
        }
        let block_bytes = u64::from(self.superblock.block_bytes);
        let mut have = 0;
        let mut logical = 0;
        while have < len {
            let run = self.run(inode, logical)?;
            let mut header = [0; LINK_HEADER_BYTES as usize];
            self.read_blocks(inode, logical * block_bytes, &mut header)?;
            let stored = u64::from(u32_at(&header, LINK_LEN_AT));
            let room = run.n_blocks.saturating_mul(block_bytes) - LINK_HEADER_BYTES;
            let is_ours = header.starts_with(b"XSLM") && u64_at(&header, 32) == inode.number;
            if run.at.is_none() || !is_ours || stored == 0 || stored > room.min(len - have) {
                return Err(inode.corrupt(format!("a piece of {stored} bytes of its path")));
            }
            let piece = target.get_mut(have as usize..(have + stored) as usize);
            let from = logical * block_bytes + LINK_HEADER_BYTES;
            self.read_blocks(inode, from, piece.unwrap_or(&mut []))?;
            have += stored;
            logical += run.n_blocks;
        }
        Ok(target)
    }
}

impl FileSystem for Xfs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        NodeId {
            tree: 0,
            number: self.superblock.root,
        }
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        self.node(node)?.stat()
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
        match &inode.content {
            Content::Local(bytes) => self.visit_local(&inode, bytes, each),
            _ => self.visit_blocks(&inode, each),
        }
    }

    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.node(file)?;
        if inode.kind()? != NodeKind::File {
            return Err(wrong_kind(file, "file"));
        }
        let wanted = inode
            .len_bytes()
            .saturating_sub(offset)
            .min(buf.len() as u64);
        let Some(buf) = buf.get_mut(..wanted as usize).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        inode.check_readable()?;
        self.read_blocks(&inode, offset, buf)?;
        Ok(buf.len())
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let inode = self.node(link)?;
        if inode.kind()? != NodeKind::Link {
            return Err(wrong_kind(link, "link"));
        }
        match &inode.content {
            Content::Local(target) => Ok(target.clone()),
            _ if inode.len_bytes() > LONGEST_LINK as u64 => {
                Err(inode.corrupt(format!("a link of {} bytes", inode.len_bytes())))
            }
            _ => self.remote_link(&inode, inode.len_bytes()),
        }
    }

    fn used(&self, _device: u64, window: &Range<u64>) -> Result<Ranges> {
        self.used_in(window)
    }

    fn runs(&self, node: NodeId, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let inode = self.node(node)?;
        self.runs_of(&inode, each)
    }

    fn audit(&self, audit: &mut Audit, _tick: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if let Some(doubt) = self.doubt {
            audit.damaged("the file system", doubt);
        }
        if self.superblock.has_shared_blocks {
            audit.shares_runs();
        }
        audit.checked("the superblock, the log, trees of free space by place, inodes, extents");
        audit.unknown(
            "trees of inodes, of owners, of shared blocks and of free space by length; attributes; \
             inodes that no directory names",
        );
        Ok(())
    }
}

fn info(store: &Store, superblock: &Superblock) -> FsInfo {
    let len_bytes = superblock
        .n_blocks
        .saturating_mul(u64::from(superblock.block_bytes));
    let mut remarks = Vec::new();
    if superblock.is_damaged {
        remarks.push("the checksum of its superblock is wrong".to_owned());
    }
    if superblock.needs_repair {
        remarks.push("it was being repaired, and must be again: xfs_repair does".to_owned());
    }
    let there = store.volume().len_bytes();
    if len_bytes > there {
        remarks.push(format!(
            "it has {len_bytes} bytes, of which its volume holds {there}: the rest cannot be read"
        ));
    }
    FsInfo {
        kind: "xfs",
        label: superblock.label.clone(),
        uuid: superblock.uuid.to_string(),
        len_bytes,
        block_bytes: superblock.block_bytes,
        remarks,
    }
}
