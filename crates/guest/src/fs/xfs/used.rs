//! What is in use: what is not in the tree of free space of its allocation group ("XFS Algorithms &
//! Data Structures", AG Free Space Management).
//!
//! A file system that was not unmounted has two states: its trees as they are, of which the log may
//! have changed any block, and as the log leaves them. Free is what both say is free, and what the log
//! does not write to.
//!
//! | header of a group (sector 1 of it) | |
//! |---|---|
//! | 0 | `XAGF`, 4 version, 8 number of the group, 12 its blocks |
//! | 16 | root of the tree of free space by place, 28 its levels |
//!
//! | block of the tree | |
//! |---|---|
//! | 0 | `ABTB` (version 5: `AB3B`), 4 level, 6 number of entries |
//! | 16, 56 | (version 4, 5) entries: first block and how many; above leaves keys of that form, and behind the room for them blocks |

use std::ops::Range;

use hako_block::{Error, ErrorKind, Result};

use super::Xfs;
use super::checksum;
use super::superblock::Superblock;
use crate::bytes::be::{u16_at, u32_at};
use crate::used::Ranges;
use crate::volume::read_vec;

/// Levels of a tree, as Linux has them.
const MOST_LEVELS: u32 = 9;
const ENTRY_BYTES: usize = 8;
const POINTER_BYTES: usize = 4;
const HEADER_CHECKSUM_AT: usize = 216;
const BLOCK_CHECKSUM_AT: usize = 52;

/// Returns why the trees of a file system are not to be believed, if they are not.
pub(super) fn doubt(superblock: &Superblock) -> Option<&'static str> {
    match superblock {
        one if one.needs_repair => Some("it was being repaired"),
        one if one.is_damaged => Some("the checksum of its superblock is wrong"),
        _ => None,
    }
}

impl Xfs {
    /// Returns what of a window is in use.
    pub(super) fn used_in(&self, window: &Range<u64>) -> Result<Ranges> {
        if let Some(doubt) = self.doubt {
            return Err(Error::unsupported(doubt));
        }
        let touched = self.touched.get_or_init(|| self.touched_by_log());
        let mut used = touched.within(window);
        let group_bytes = self.group_bytes();
        let len = self.info.len_bytes;
        let first = window.start / group_bytes;
        let last = window.end.saturating_sub(1) / group_bytes;
        for group in first..=last.min(u64::from(self.superblock.n_groups).saturating_sub(1)) {
            let start = group * group_bytes;
            let end = start.saturating_add(group_bytes).min(len);
            let asked = window.start.max(start)..window.end.min(end);
            let blocks = self.blocks_of(&(asked.start - start..asked.end.max(asked.start) - start));
            let mut free = self.free(group, &blocks, State::Replayed)?;
            if !touched.is_empty() {
                let before = self.free(group, &blocks, State::Stored)?;
                free.remove(&before.gaps(&(0..u64::MAX)));
            }
            let block_bytes = u64::from(self.superblock.block_bytes);
            for gap in free.gaps(&blocks).iter() {
                let place = |block: u64| start.saturating_add(block.saturating_mul(block_bytes));
                used.add(place(gap.start)..place(gap.end).min(end));
            }
        }
        // Behind the end there may be anything.
        used.add(len..u64::MAX);
        Ok(used)
    }

    fn group_bytes(&self) -> u64 {
        u64::from(self.superblock.blocks_per_group) * u64::from(self.superblock.block_bytes)
    }

    fn blocks_of(&self, bytes: &Range<u64>) -> Range<u64> {
        let block_bytes = u64::from(self.superblock.block_bytes);
        bytes.start / block_bytes..bytes.end.div_ceil(block_bytes)
    }

    /// Returns the blocks that the log writes to: it may change pieces of them, for which all of them
    /// must be there.
    fn touched_by_log(&self) -> Ranges {
        let block_bytes = u64::from(self.superblock.block_bytes);
        let mut touched = Ranges::default();
        let mut add = |at: u64| {
            let start = at / block_bytes * block_bytes;
            touched.add(start..start.saturating_add(block_bytes));
        };
        self.store.pieces().for_each(&mut add);
        let shift = self.superblock.inode_shift;
        let blocks = self.patches.keys().map(|number| number >> shift);
        let places = blocks.filter_map(|block| self.superblock.position(block, 1).ok());
        let mut places: Vec<u64> = places.collect();
        places.sort_unstable();
        places.into_iter().for_each(add);
        touched
    }

    /// Returns the free blocks of a group, those that touch a range of its blocks.
    fn free(&self, group: u64, blocks: &Range<u64>, state: State) -> Result<Ranges> {
        let mut free = Ranges::default();
        let Some(tree) = self.tree(group, state)? else {
            return Ok(free);
        };
        let per_group = u64::from(self.superblock.blocks_per_group);
        let before = group.saturating_mul(per_group);
        let all = 0..self
            .superblock
            .n_blocks
            .saturating_sub(before)
            .min(per_group);
        tree.walk((tree.root, tree.levels), all, blocks, &mut free)?;
        Ok(free)
    }

    /// Returns the tree of a group; none if its header is damaged, of the state that may be so.
    fn tree(&self, group: u64, state: State) -> Result<Option<Tree<'_>>> {
        let tree = Tree {
            fs: self,
            group,
            state,
            root: 0,
            levels: 0,
        };
        let sector_bytes = u64::from(self.superblock.sector_bytes);
        let at = group * self.group_bytes() + sector_bytes;
        let header = tree.read(at, sector_bytes, HEADER_CHECKSUM_AT);
        let header = match (header, state) {
            (Ok(header), _) => header,
            (Err(error), State::Stored) if error.kind() == ErrorKind::Corrupt => return Ok(None),
            (Err(error), _) => return Err(error),
        };
        let levels = u32_at(&header, 28);
        let is_sound = header.starts_with(b"XAGF")
            && u64::from(u32_at(&header, 8)) == group
            && (1..=MOST_LEVELS).contains(&levels);
        match (is_sound, state) {
            (true, _) => Ok(Some(Tree {
                root: u32_at(&header, 16),
                levels,
                ..tree
            })),
            (false, State::Stored) => Ok(None),
            (false, State::Replayed) => Err(tree.corrupt("its header is none")),
        }
    }
}

/// Which state of the file system is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As it is on the disk: of a tree that was being written, parts may be missing.
    Stored,
    /// As the log leaves it.
    Replayed,
}

/// The tree of a group's free space.
struct Tree<'a> {
    fs: &'a Xfs,
    group: u64,
    state: State,
    root: u32,
    levels: u32,
}

impl Tree<'_> {
    /// Adds the free blocks below a block that touch `asked`. It may hold only those that begin in
    /// `holds`; `levels`: its own and those below.
    fn walk(
        &self,
        (block, levels): (u32, u32),
        holds: Range<u64>,
        asked: &Range<u64>,
        free: &mut Ranges,
    ) -> Result<()> {
        let bytes = match self.node(block, levels - 1) {
            Ok(bytes) => bytes,
            // What is not known to be free is in use.
            Err(error) if self.state == State::Stored && error.kind() == ErrorKind::Corrupt => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let header = if self.fs.superblock.has_sums { 56 } else { 16 };
        let n_entries = usize::from(u16_at(&bytes, 6));
        let entries = bytes.get(header..).unwrap_or_default();
        let entry = |index: usize| {
            let at = index * ENTRY_BYTES;
            (
                u64::from(u32_at(entries, at)),
                u64::from(u32_at(entries, at + 4)),
            )
        };
        let most = match levels {
            1 => entries.len() / ENTRY_BYTES,
            _ => entries.len() / (ENTRY_BYTES + POINTER_BYTES),
        };
        if n_entries > most || (n_entries == 0 && levels > 1) {
            return self.damaged(&format!("{n_entries} entries in block {block}"));
        }
        let mut at = holds.start;
        for index in 0..n_entries {
            let (start, len) = entry(index);
            let behind = match index + 1 {
                next if next < n_entries => entry(next).0,
                _ => holds.end,
            };
            let end = if levels == 1 { start + len } else { behind };
            if start < at || end > behind || start >= end || behind > holds.end {
                return self.damaged(&format!("block {block}: {len} blocks from {start}"));
            }
            at = end;
            if end <= asked.start || start >= asked.end {
                continue;
            }
            if levels == 1 {
                free.add(start..end);
            } else {
                let pointer = u32_at(entries, most * ENTRY_BYTES + index * POINTER_BYTES);
                self.walk((pointer, levels - 1), start..end, asked, free)?;
            }
        }
        Ok(())
    }

    /// Reads a block of the tree.
    fn node(&self, block: u32, level: u32) -> Result<Vec<u8>> {
        let superblock = &self.fs.superblock;
        let number = self.group << superblock.group_shift | u64::from(block);
        let at = superblock.position(number, 1)?;
        let bytes = self.read(at, superblock.block_bytes.into(), BLOCK_CHECKSUM_AT)?;
        let magic = if superblock.has_sums {
            b"AB3B"
        } else {
            b"ABTB"
        };
        if !bytes.starts_with(magic) || u32::from(u16_at(&bytes, 4)) != level {
            return Err(self.corrupt(&format!("block {block} is none of level {level}")));
        }
        Ok(bytes)
    }

    /// Reads a structure in the state that is asked, and checks its sum.
    fn read(&self, at: u64, len: u64, checksum_at: usize) -> Result<Vec<u8>> {
        let store = &self.fs.store;
        // At most a block or sector: 64 KiB.
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let is_changed = match self.state {
            State::Stored => {
                bytes = read_vec(&**store.volume(), at, bytes.len())?;
                false
            }
            State::Replayed => {
                store.read(at, &mut bytes)?;
                store.is_changed(at, len)
            }
        };
        let is_sealed = self.fs.superblock.has_sums && !is_changed;
        if is_sealed && !checksum::is_sound(&bytes, checksum_at) {
            return Err(self.corrupt("a checksum is wrong").at_byte(at));
        }
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> Result<()> {
        match self.state {
            State::Stored => Ok(()),
            State::Replayed => Err(self.corrupt(what)),
        }
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::corrupt(format!("free space of group {}", self.group), what)
    }
}
