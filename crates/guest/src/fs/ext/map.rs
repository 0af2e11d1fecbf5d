//! Where the blocks of a file are: by extents, or by tables of block numbers.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, Result};

use super::Ext;
use super::extents::{ALL_BLOCKS, MOST_LEVELS, Node, Step};
use super::inode::Inode;
use super::superblock::sum;
use crate::bytes::le::u32_at;

/// Block numbers in the inode itself; three more lead to tables.
pub(super) const N_DIRECT: u64 = 12;

/// Blocks of a file that are stored one after the other, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first block; none if all are zeros.
    pub(super) at: Option<u64>,
    /// How many, at least 1.
    pub(super) n_blocks: u64,
}

impl Ext {
    /// Returns the run at block `logical` of a file, at most `most` blocks (at least 1).
    pub(super) fn run(&self, inode: &Inode, logical: u64, most: u64) -> Result<Run> {
        if logical >= ALL_BLOCKS.end {
            return Err(inode.corrupt(format!("has no block {logical}")));
        }
        let run = match inode.has_extents() {
            true => self.run_of_extents(inode, logical)?,
            false => self.run_of_tables(inode, logical, most)?,
        };
        Ok(Run {
            n_blocks: run.n_blocks.clamp(1, most),
            ..run
        })
    }

    fn run_of_extents(&self, inode: &Inode, logical: u64) -> Result<Run> {
        let mut holds = ALL_BLOCKS;
        let mut node = Arc::new(
            Node::decode(inode.block_field(), &holds)
                .map_err(|what| Error::corrupt(format!("{}, extents", inode.place()), what))?,
        );
        for _ in 0..=MOST_LEVELS {
            match node.find(logical, &holds) {
                Step::Down { at, holds: below } => {
                    node = self.extent_node(inode, at, node.level, &below)?;
                    holds = below;
                }
                Step::Hole { end } => return Ok(run(None, end, logical)),
                Step::Extent { at, end } => return Ok(run(at, end, logical)),
            }
        }
        Err(inode.corrupt("its extent tree has no leaves"))
    }

    /// Reads the node in block `at`, which must be one level below `above`.
    pub(super) fn extent_node(
        &self,
        inode: &Inode,
        at: u64,
        above: u16,
        holds: &Range<u64>,
    ) -> Result<Arc<Node>> {
        let corrupt = |what: String| {
            let place = format!("{}, extents in block {at}", inode.place());
            Error::corrupt(place, what)
        };
        let node = self.extents.get_or((inode.number, at, holds.start), || {
            let bytes = self.blocks.block(at)?;
            if !self.is_sound_node(inode, &bytes) {
                return Err(corrupt("its checksum is wrong".to_owned()));
            }
            Node::decode(&bytes, holds).map_err(corrupt)
        })?;
        if node.level + 1 != above {
            return Err(corrupt(format!("level {} below level {above}", node.level)));
        }
        Ok(node)
    }

    fn is_sound_node(&self, inode: &Inode, bytes: &[u8]) -> bool {
        let Some(seed) = self.superblock.checksum_seed() else {
            return true;
        };
        let at = Node::checksum_at(bytes);
        let covered = bytes.get(..at).unwrap_or(&[]);
        sum(inode.seed(seed), &[covered]) == u32_at(bytes, at)
    }

    fn run_of_tables(&self, inode: &Inode, logical: u64, most: u64) -> Result<Run> {
        let root = inode.block_field();
        let Some(mut index) = logical.checked_sub(N_DIRECT) else {
            let direct = root.get(..N_DIRECT as usize * 4).unwrap_or(&[]);
            return Ok(run_in(direct, logical, most));
        };
        let per_table = u64::from(self.blocks.block_bytes() / 4);
        // Blocks below one number of the table that is looked at.
        let mut span = 1;
        let mut level = 0;
        while index >= span * per_table {
            index -= span * per_table;
            span *= per_table;
            level += 1;
        }
        if level > 2 {
            return Err(inode.corrupt(format!("has no block {logical}")));
        }
        let mut table = u32_at(root, (N_DIRECT as usize + level) * 4);
        loop {
            if table == 0 {
                return Ok(run(None, span * per_table, index));
            }
            let numbers = self
                .tables
                .get_or(table, || self.blocks.block(u64::from(table)))?;
            if span == 1 {
                return Ok(run_in(&numbers, index, most));
            }
            table = u32_at(&numbers, usize::try_from(index / span).unwrap_or(0) * 4);
            index %= span;
            span /= per_table;
        }
    }
}

fn run(at: Option<u64>, end: u64, logical: u64) -> Run {
    Run {
        at,
        n_blocks: end - logical,
    }
}

/// Returns the run that begins with number `index` of a table.
fn run_in(table: &[u8], index: u64, most: u64) -> Run {
    let from = usize::try_from(index)
        .unwrap_or(usize::MAX)
        .saturating_mul(4);
    let mut numbers = table
        .get(from..)
        .unwrap_or(&[])
        .chunks_exact(4)
        .map(|number| u32_at(number, 0));
    let first = numbers.next().unwrap_or(0);
    let is_next = |(number, distance): &(u32, u32)| match first {
        0 => *number == 0,
        _ => first.checked_add(*distance) == Some(*number),
    };
    let more = numbers.zip(1..).take_while(is_next);
    Run {
        at: (first != 0).then_some(u64::from(first)),
        n_blocks: 1 + more
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_in_a_table_end_where_the_numbers_jump() {
        let table: Vec<u8> = [7_u32, 8, 9, 11, 0, 0, u32::MAX, 0]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let found = |index| run_in(&table, index, 100);
        assert_eq!(
            found(0),
            Run {
                at: Some(7),
                n_blocks: 3
            }
        );
        assert_eq!(
            found(3),
            Run {
                at: Some(11),
                n_blocks: 1
            }
        );
        assert_eq!(
            found(4),
            Run {
                at: None,
                n_blocks: 2
            }
        );
        assert_eq!(
            found(6),
            Run {
                at: Some(u64::from(u32::MAX)),
                n_blocks: 1
            }
        );
    }
}
