//! Where the blocks of a file are: a list of extents in the inode, or a B+tree of them ("XFS
//! Algorithms & Data Structures", Data Extents).

use std::ops::Range;

use crate::bytes::be::{u16_at, u64_at};

const EXTENT_BYTES: usize = 16;
/// Bytes before the entries of a node in version 4 and 5, and of the root in the inode.
const HEADER_BYTES: [usize; 2] = [24, 72];
const ROOT_HEADER_BYTES: usize = 4;
/// Levels of a tree, as Linux has them at most.
pub(super) const MOST_LEVELS: u16 = 16;

/// The extents of an inode.
pub(super) enum Fork {
    /// All of them.
    List(List),
    /// The root of their tree.
    Tree(Node),
}

/// Blocks of a file that are stored one after the other, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first block, as extents have it; none if all are zeros.
    pub(super) at: Option<u64>,
    /// How many, at least 1.
    pub(super) n_blocks: u64,
}

/// Extents in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct List(Vec<Extent>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    first: u64,
    n_blocks: u64,
    at: u64,
    is_written: bool,
}

/// A node of a tree: which node below, or which extents.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// The level, from 1; the first block that each node below is about, and where that node is.
    Inner(u16, Vec<(u64, u64)>),
    /// Level 0.
    Leaf(List),
}

impl List {
    /// Decodes `n` extents, which may hold only blocks of `holds`. Errors say what is wrong.
    pub(super) fn decode(bytes: &[u8], n: u64, holds: &Range<u64>) -> Result<Self, String> {
        let room = bytes.len() / EXTENT_BYTES;
        let n = usize::try_from(n).ok().filter(|n| *n <= room);
        let n = n.ok_or_else(|| format!("more than there is room for, {room}"))?;
        let extents: Vec<Extent> = bytes
            .chunks_exact(EXTENT_BYTES)
            .take(n)
            .map(Extent::decode)
            .collect();
        let mut from = holds.start;
        for extent in &extents {
            let end = extent.first + extent.n_blocks;
            if extent.first < from || extent.n_blocks == 0 || end > holds.end {
                return Err(format!("blocks {}..{end} out of place", extent.first));
            }
            from = end;
        }
        Ok(Self(extents))
    }

    /// Returns the run at a block; a hole behind the last extent ends at `end`.
    pub(super) fn run(&self, logical: u64, end: u64) -> Run {
        let next = self.0.partition_point(|extent| extent.first <= logical);
        let end = self.0.get(next).map_or(end, |extent| extent.first);
        let extent = next.checked_sub(1).and_then(|index| self.0.get(index));
        if let Some(extent) = extent
            && logical - extent.first < extent.n_blocks
        {
            let skipped = logical - extent.first;
            return Run {
                at: extent.is_written.then_some(extent.at + skipped),
                n_blocks: extent.n_blocks - skipped,
            };
        }
        Run {
            at: None,
            n_blocks: end.saturating_sub(logical).max(1),
        }
    }
}

impl Extent {
    /// 1 bit "not written", 54 bits of the file's block, 52 bits of the block, 21 bits of length.
    fn decode(bytes: &[u8]) -> Self {
        let (high, low) = (u64_at(bytes, 0), u64_at(bytes, 8));
        Self {
            first: high >> 9 & ((1 << 54) - 1),
            n_blocks: low & ((1 << 21) - 1),
            at: (high & 0x1ff) << 43 | low >> 21,
            is_written: high >> 63 == 0,
        }
    }
}

impl Node {
    /// Decodes the root, which is in an inode and has at least one level below it.
    pub(super) fn decode_root(bytes: &[u8]) -> Result<Self, String> {
        let entries = bytes.get(ROOT_HEADER_BYTES..).unwrap_or(&[]);
        let (level, n) = (u16_at(bytes, 0), u16_at(bytes, 2));
        if level == 0 || level > MOST_LEVELS || n == 0 {
            return Err(format!("a root of {n} entries, level {level}"));
        }
        inner(entries, level, n, &(0..u64::MAX))
    }

    /// Decodes a node in a block, which may hold only blocks of `holds`.
    pub(super) fn decode(bytes: &[u8], has_sums: bool, holds: &Range<u64>) -> Result<Self, String> {
        let magic: &[u8] = if has_sums { b"BMA3" } else { b"BMAP" };
        if !bytes.starts_with(magic) {
            return Err("no node: wrong magic number".to_owned());
        }
        let entries = bytes
            .get(HEADER_BYTES[usize::from(has_sums)]..)
            .unwrap_or(&[]);
        match (u16_at(bytes, 4), u16_at(bytes, 6)) {
            (0, n) => Ok(Node::Leaf(List::decode(entries, u64::from(n), holds)?)),
            (level, n) if level <= MOST_LEVELS => inner(entries, level, n, holds),
            (level, _) => Err(format!("level {level}")),
        }
    }

    /// Returns its level.
    pub(super) fn level(&self) -> u16 {
        match self {
            Node::Inner(level, _) => *level,
            Node::Leaf(_) => 0,
        }
    }
}

/// Returns the entry that a block is below, and the blocks that it holds; none if it begins later.
pub(super) fn below(
    entries: &[(u64, u64)],
    logical: u64,
    holds: &Range<u64>,
) -> (Option<u64>, Range<u64>) {
    let next = entries.partition_point(|(first, _)| *first <= logical);
    let end = entries.get(next).map_or(holds.end, |(first, _)| *first);
    match next.checked_sub(1).and_then(|index| entries.get(index)) {
        Some((first, at)) => (Some(*at), *first..end),
        None => (None, holds.start..end),
    }
}

/// All keys come first, then all pointers, each with room for as many as fit.
fn inner(entries: &[u8], level: u16, n: u16, holds: &Range<u64>) -> Result<Node, String> {
    let room = entries.len() / EXTENT_BYTES;
    let n = usize::from(n);
    if n > room {
        return Err(format!("{n} entries where {room} fit"));
    }
    let (keys, pointers) = entries.split_at(room * 8);
    let numbers = |bytes: &[u8]| -> Vec<u64> {
        bytes
            .chunks_exact(8)
            .take(n)
            .map(|number| u64_at(number, 0))
            .collect()
    };
    let pairs: Vec<(u64, u64)> = numbers(keys).into_iter().zip(numbers(pointers)).collect();
    let mut from = holds.start;
    for (first, _) in &pairs {
        if *first < from || *first >= holds.end {
            return Err(format!("block {first} out of place"));
        }
        from = first + 1;
    }
    Ok(Node::Inner(level, pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first: u64, at: u64, n_blocks: u64, is_unwritten: bool) -> Vec<u8> {
        let high = u64::from(is_unwritten) << 63 | first << 9 | at >> 43;
        let low = at << 21 | n_blocks;
        [high.to_be_bytes(), low.to_be_bytes()].concat()
    }

    #[test]
    fn extents_holes_and_unwritten_blocks_are_told_apart() {
        let far = (1 << 52) - 7;
        let bytes = [extent(5, far, 3, false), extent(8, 9, 2, true)].concat();
        let list = List::decode(&bytes, 2, &(0..u64::MAX)).unwrap();
        let run = |logical| list.run(logical, 100);
        let is = |at, n_blocks| Run { at, n_blocks };
        assert_eq!(run(0), is(None, 5));
        assert_eq!(run(6), is(Some(far + 1), 2));
        assert_eq!(run(9), is(None, 1));
        assert_eq!(run(10), is(None, 90));
        assert_eq!(run(200), is(None, 1));
    }

    #[test]
    fn extents_that_overlap_or_leave_their_place_are_refused() {
        let bytes = [extent(5, 1, 3, false), extent(7, 9, 2, false)].concat();
        assert!(List::decode(&bytes, 2, &(0..u64::MAX)).is_err());
        assert!(List::decode(&bytes, 1, &(0..7)).is_err());
        assert!(List::decode(&bytes, 3, &(0..u64::MAX)).is_err());
        assert!(List::decode(&extent(5, 1, 0, false), 1, &(0..u64::MAX)).is_err());
    }

    #[test]
    fn a_root_leads_down_by_its_keys() {
        let mut bytes = vec![0; 4 + 48];
        bytes[1] = 1;
        bytes[3] = 2;
        bytes[4 + 15] = 40;
        bytes[4 + 24 + 7] = 11;
        bytes[4 + 24 + 15] = 12;
        let Node::Inner(1, entries) = Node::decode_root(&bytes).unwrap() else {
            panic!("an inner node");
        };
        assert_eq!(below(&entries, 39, &(0..100)), (Some(11), 0..40));
        assert_eq!(below(&entries, 40, &(0..100)), (Some(12), 40..100));
        bytes[4 + 15] = 0;
        assert!(Node::decode_root(&bytes).is_err());
    }
}
