//! Nodes of the extent tree (kernel documentation, ext4, "Extent Tree").

use std::ops::Range;

use crate::bytes::le::{u16_at, u32_at};

const MAGIC: u16 = 0xf30a;
/// Header and entries have the same length.
const ENTRY_BYTES: usize = 12;
/// ee_len: longer ones are not written yet, and so much shorter.
const MOST_WRITTEN: u32 = 0x8000;
/// Levels below the root, as Linux has them.
pub(super) const MOST_LEVELS: u16 = 5;
/// Logical blocks of a file.
pub(super) const ALL_BLOCKS: Range<u64> = 0..1 << 32;

/// A node whose entries are in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Levels below this one; 0 if its entries are extents.
    pub(super) level: u16,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first: u64,
    /// Blocks of an extent; 0 of an index.
    pub(super) n_blocks: u64,
    is_written: bool,
    pub(super) at: u64,
}

/// What a node says of a logical block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The node in block `at` knows; it holds only blocks of the range.
    Down { at: u64, holds: Range<u64> },
    /// Nothing is stored from here to this block.
    Hole { end: u64 },
    /// So many blocks are stored at `at`; none if they are not written yet.
    Extent { at: Option<u64>, end: u64 },
}

impl Node {
    /// Decodes a node that may hold only blocks of `holds`. Errors say what is wrong.
    pub(super) fn decode(bytes: &[u8], holds: &Range<u64>) -> Result<Self, String> {
        let n_entries = u16_at(bytes, 2);
        let most = u16_at(bytes, 4);
        let level = u16_at(bytes, 6);
        if u16_at(bytes, 0) != MAGIC {
            return Err(format!("magic number {:#06x}", u16_at(bytes, 0)));
        }
        let room = (bytes.len() / ENTRY_BYTES).saturating_sub(1);
        if usize::from(most) > room || n_entries > most || level > MOST_LEVELS {
            return Err(format!(
                "{n_entries} entries of {most} (room for {room}), level {level}"
            ));
        }
        let entries: Vec<Entry> = bytes
            .chunks_exact(ENTRY_BYTES)
            .skip(1)
            .take(usize::from(n_entries))
            .map(|entry| Entry::decode(entry, level))
            .collect();
        let node = Self { level, entries };
        node.check(holds)?;
        Ok(node)
    }

    /// Returns its entries, in order.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns where the checksum is in a node of so many bytes: behind the room for entries.
    pub(super) fn checksum_at(bytes: &[u8]) -> usize {
        (usize::from(u16_at(bytes, 4)) + 1) * ENTRY_BYTES
    }

    /// Looks a logical block up, which `holds` has.
    pub(super) fn find(&self, logical: u64, holds: &Range<u64>) -> Step {
        let next = self.entries.partition_point(|entry| entry.first <= logical);
        let end = self
            .entries
            .get(next)
            .map_or(holds.end, |entry| entry.first);
        let Some(entry) = next
            .checked_sub(1)
            .and_then(|index| self.entries.get(index))
        else {
            return Step::Hole { end };
        };
        if self.level > 0 {
            return Step::Down {
                at: entry.at,
                holds: entry.first..end,
            };
        }
        let skipped = logical - entry.first;
        if skipped >= entry.n_blocks {
            return Step::Hole { end };
        }
        Step::Extent {
            at: entry.is_written.then_some(entry.at + skipped),
            end: entry.first + entry.n_blocks,
        }
    }

    fn check(&self, holds: &Range<u64>) -> Result<(), String> {
        let mut from = holds.start;
        for entry in &self.entries {
            let end = entry.first + entry.n_blocks.max(1);
            if entry.first < from || end > holds.end {
                return Err(format!(
                    "blocks {}..{end} out of place ({from}..{})",
                    entry.first, holds.end
                ));
            }
            if self.level == 0 && entry.n_blocks == 0 {
                return Err(format!("an empty extent at block {}", entry.first));
            }
            from = end;
        }
        Ok(())
    }
}

impl Entry {
    fn decode(bytes: &[u8], level: u16) -> Self {
        let (len, high_at, low_at) = match level {
            0 => (u32::from(u16_at(bytes, 4)), 6, 8),
            _ => (0, 8, 4),
        };
        let is_written = len <= MOST_WRITTEN;
        let n_blocks = if is_written { len } else { len - MOST_WRITTEN };
        Self {
            first: u64::from(u32_at(bytes, 0)),
            n_blocks: u64::from(n_blocks),
            is_written,
            at: u64::from(u16_at(bytes, high_at)) << 32 | u64::from(u32_at(bytes, low_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(level: u8, entries: &[[u32; 3]]) -> Vec<u8> {
        let n = entries.len() as u8;
        let mut bytes = vec![0x0a, 0xf3, n, 0, 4, 0, level, 0, 0, 0, 0, 0];
        for entry in entries {
            bytes.extend(entry.iter().flat_map(|word| word.to_le_bytes()));
        }
        bytes.resize(60, 0);
        bytes
    }

    #[test]
    fn extents_holes_and_unwritten_blocks_are_told_apart() {
        let bytes = node(0, &[[5, 3, 100], [10, 0x8002 | 1 << 16, 7]]);
        let node = Node::decode(&bytes, &ALL_BLOCKS).unwrap();
        let find = |logical| node.find(logical, &ALL_BLOCKS);
        assert_eq!(find(0), Step::Hole { end: 5 });
        assert_eq!(
            find(7),
            Step::Extent {
                at: Some(102),
                end: 8
            }
        );
        assert_eq!(find(8), Step::Hole { end: 10 });
        assert_eq!(find(11), Step::Extent { at: None, end: 12 });
        assert_eq!(find(12), Step::Hole { end: 1 << 32 });
    }

    #[test]
    fn nodes_that_overlap_or_leave_their_place_are_refused() {
        let refused = |level, entries: &[[u32; 3]], holds: Range<u64>| {
            Node::decode(&node(level, entries), &holds).is_err()
        };
        assert!(refused(0, &[[5, 3, 100], [7, 1, 7]], ALL_BLOCKS));
        assert!(refused(0, &[[5, 3, 100]], 6..100));
        assert!(refused(0, &[[5, 3, 100]], 0..7));
        assert!(refused(0, &[[5, 0, 100]], ALL_BLOCKS));
        assert!(refused(1, &[[5, 0, 0], [5, 0, 0]], ALL_BLOCKS));
        assert!(refused(6, &[], ALL_BLOCKS));
        let down = Node::decode(&node(1, &[[5, 9, 1], [50, 8, 0]]), &ALL_BLOCKS).unwrap();
        let step = down.find(49, &ALL_BLOCKS);
        assert_eq!(
            step,
            Step::Down {
                at: 1 << 32 | 9,
                holds: 5..50
            }
        );
    }
}
