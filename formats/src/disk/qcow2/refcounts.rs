//! The refcount table and its blocks: how often each cluster of the file is used.

use hako_block::{Error, Result};

use super::layout::{Layout, OFFSET_MASK};
use super::tables::{Class, Tables};

/// Where the refcounts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refcounts {
    /// Sizes.
    pub layout: Layout,
    /// File offset of the refcount table.
    pub table_offset: u64,
    /// Entries of the refcount table.
    pub n_blocks: u64,
}

impl Refcounts {
    /// Returns where the entry of refcount block `index` is in the refcount table.
    pub fn entry_offset(&self, index: u64) -> u64 {
        self.table_offset + index * 8
    }

    /// Returns the file offset of the block that counts `cluster`; `None` if there is none, which
    /// means that its clusters are free.
    pub fn block(&self, tables: &mut Tables, cluster: u64) -> Result<Option<u64>> {
        let index = cluster >> self.layout.block_shift();
        if index >= self.n_blocks {
            return Ok(None);
        }
        let entry_offset = self.entry_offset(index);
        let offset = tables.read_u64(entry_offset)? & OFFSET_MASK;
        if self.layout.in_cluster(offset) != 0 {
            return Err(Error::corrupt(
                format!("refcount table, entry {index}"),
                format!("block at {offset:#x}, not at a cluster"),
            )
            .at_byte(entry_offset));
        }
        Ok((offset != 0).then_some(offset))
    }

    /// Returns the refcount of `cluster`.
    pub fn count(&self, tables: &mut Tables, cluster: u64) -> Result<u64> {
        let Some(block) = self.block(tables, cluster)? else {
            return Ok(0);
        };
        let (byte, bit) = self.position(cluster);
        let stored = tables.tail(block + byte)?;
        stored_count(stored, bit, self.layout.refcount_order).ok_or_else(|| {
            Error::corrupt("refcount block", "past the end of the file").at_byte(block + byte)
        })
    }

    /// Sets the refcount of `cluster`, which must have a block.
    pub fn set(&self, tables: &mut Tables, cluster: u64, count: u64) -> Result<()> {
        let order = self.layout.refcount_order;
        let block = self.block(tables, cluster)?.ok_or_else(|| {
            Error::corrupt(
                "refcount table",
                format!("no block counts cluster {cluster}"),
            )
        })?;
        let (byte, bit) = self.position(cluster);
        if order >= 3 {
            let bytes = count.to_be_bytes();
            return tables.write(
                block + byte,
                &bytes[8 - (1 << (order - 3))..],
                Class::Refcounts,
            );
        }
        let old = tables.tail(block + byte)?.first().copied().unwrap_or(0);
        let mask = ((1_u16 << (1 << order)) - 1) as u8;
        let new = old & !(mask << bit) | (count as u8 & mask) << bit;
        tables.write(block + byte, &[new], Class::Refcounts)
    }

    /// Returns where in its block the count of `cluster` is: byte, and bit within it.
    pub fn position(&self, cluster: u64) -> (u64, u32) {
        let index = cluster & ((1 << self.layout.block_shift()) - 1);
        let bits = index << self.layout.refcount_order;
        (bits / 8, (bits % 8) as u32)
    }
}

/// Stores the count of a block's cluster number `slot`. What does not fit is cut off.
pub fn store_count(block: &mut [u8], slot: u64, count: u64, order: u32) {
    let bits = slot << order;
    let at = (bits / 8) as usize;
    if order >= 3 {
        let bytes = count.to_be_bytes();
        let len = 1 << (order - 3);
        if let Some(stored) = block.get_mut(at..at + len) {
            stored.copy_from_slice(&bytes[8 - len..]);
        }
    } else if let Some(stored) = block.get_mut(at) {
        let mask = ((1_u16 << (1 << order)) - 1) as u8;
        let bit = bits % 8;
        *stored = *stored & !(mask << bit) | (count as u8 & mask) << bit;
    }
}

/// Reads the count that begins at the first of `bytes`, `bit` bits into it (for counts below a
/// byte). `None`: too few bytes.
pub fn stored_count(bytes: &[u8], bit: u32, order: u32) -> Option<u64> {
    if order < 3 {
        let mask = (1_u64 << (1 << order)) - 1;
        return Some(u64::from(*bytes.first()?) >> bit & mask);
    }
    let stored = bytes.get(..1 << (order - 3))?;
    Some(
        stored
            .iter()
            .fold(0, |count, byte| count << 8 | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::MemoryStorage;
    use std::sync::Arc;

    #[test]
    fn counts_of_every_width_are_kept_apart() {
        for order in 0..=6 {
            let mut bytes = vec![0; 3 << 16];
            bytes[5..8].copy_from_slice(&[1, 0, 0]);
            let storage = Arc::new(MemoryStorage::new("t", bytes));
            let mut tables = Tables::new(storage, 16);
            let layout = Layout {
                version: 3,
                cluster_shift: 16,
                refcount_order: order,
                extended: false,
                has_data_file: false,
            };
            let counts = Refcounts {
                layout,
                table_offset: 0,
                n_blocks: 1,
            };
            for cluster in 0..64 {
                counts.set(&mut tables, cluster, 1).unwrap();
            }
            for cluster in (0..64).step_by(3) {
                counts.set(&mut tables, cluster, 0).unwrap();
            }
            for cluster in 0..64 {
                let expected = u64::from(cluster % 3 != 0);
                assert_eq!(
                    counts.count(&mut tables, cluster).unwrap(),
                    expected,
                    "order {order}"
                );
            }
        }
    }
}
