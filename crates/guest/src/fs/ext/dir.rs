//! Directories: blocks of entries. The index of a hashed directory looks to a reader like blocks
//! without names, and is passed over (kernel documentation, ext4, "Directory Entries").

use std::ops::ControlFlow;

use hako_block::{Error, Result};

use super::Ext;
use super::features::INCOMPAT_FILETYPE;
use super::inode::Inode;
use super::superblock::sum;
use crate::bytes::le::{u16_at, u32_at};
use crate::fs::{Entry, NodeId, NodeKind};

/// Bytes of an entry before its name.
const HEAD_BYTES: usize = 8;
/// The entry without a name that ends a block with a checksum.
const TAIL_BYTES: usize = 12;
const TAIL_KIND: u8 = 0xde;
/// Bytes of a directory that are read at once.
const PIECE_BYTES: u64 = 64 << 10;

/// What is called for each name.
pub(super) type Each<'a> = &'a mut dyn FnMut(Entry) -> ControlFlow<()>;

impl Ext {
    /// Calls `each` for the names in a directory that has blocks.
    pub(super) fn visit_blocks(&self, inode: &Inode, len_bytes: u64, each: Each) -> Result<()> {
        let block_bytes = u64::from(self.blocks.block_bytes());
        let n_blocks = len_bytes.div_ceil(block_bytes);
        let mut n_read = 0;
        let mut logical = 0;
        while logical < n_blocks {
            let run = self.run(inode, logical, n_blocks - logical)?;
            let Some(at) = run.at else {
                logical += run.n_blocks;
                continue;
            };
            let wanted = run.n_blocks.min((PIECE_BYTES / block_bytes).max(1));
            n_read += wanted;
            if n_read > self.blocks.n_blocks() {
                return Err(inode.corrupt("a directory longer than the file system"));
            }
            let mut bytes = vec![0; (wanted * block_bytes) as usize];
            self.blocks.read(at, 0, &mut bytes)?;
            for block in bytes.chunks(block_bytes as usize) {
                if self.visit_block(inode, logical, block, each)?.is_break() {
                    return Ok(());
                }
                logical += 1;
            }
        }
        Ok(())
    }

    fn visit_block(
        &self,
        inode: &Inode,
        logical: u64,
        block: &[u8],
        each: Each,
    ) -> Result<ControlFlow<()>> {
        let in_block = |error: Error| error.place(format!("{}, block {logical}", inode.place()));
        if !self.is_sound_block(inode, logical, block) {
            return Err(in_block(Error::new(
                hako_block::ErrorKind::Corrupt,
                "its checksum is wrong",
            )));
        }
        self.visit_entries(block, each).map_err(in_block)
    }

    /// Calls `each` for the names in a run of entries. Errors have no place yet.
    pub(super) fn visit_entries(&self, bytes: &[u8], each: Each) -> Result<ControlFlow<()>> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = self.entry_len(rest);
            let (entry, others) = match rest.split_at_checked(len) {
                Some(parts) if len >= HEAD_BYTES && len.is_multiple_of(4) => parts,
                _ => return Err(damaged(format!("an entry of {len} bytes"))),
            };
            rest = others;
            if let Some(entry) = self.named(entry)?
                && each(entry).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The length of the first entry. 64 KiB do not fit in its 16 bits, and are 0 or 65535.
    fn entry_len(&self, bytes: &[u8]) -> usize {
        let stored = usize::from(u16_at(bytes, 4));
        match self.blocks.block_bytes() {
            65536 if stored == 0 || stored == 65535 => 65536,
            65536 => stored & 0xfffc | (stored & 3) << 16,
            _ => stored,
        }
    }

    /// Returns what an entry names; none if it is empty, or `.` or `..`.
    fn named(&self, entry: &[u8]) -> Result<Option<Entry>> {
        let number = u32_at(entry, 0);
        if number == 0 {
            return Ok(None);
        }
        let len = entry.get(6).copied().unwrap_or(0);
        // Without the feature the byte is whatever was there before.
        let has_kind = self.superblock.features.incompat(INCOMPAT_FILETYPE);
        let kind = entry.get(7).filter(|_| has_kind).copied();
        let end = HEAD_BYTES + usize::from(len);
        let name = entry.get(HEAD_BYTES..end).filter(|name| !name.is_empty());
        let Some(name) = name.filter(|name| !name.iter().any(|byte| matches!(byte, 0 | b'/')))
        else {
            return Err(damaged(format!(
                "a bad name, {len} bytes, of inode {number}"
            )));
        };
        if name == b"." || name == b".." {
            return Ok(None);
        }
        Ok(Some(Entry {
            name: name.to_vec(),
            node: NodeId {
                tree: 0,
                number: u64::from(number),
            },
            kind: kind.and_then(kind_of),
        }))
    }

    /// Checks the sum at the end of a block of names. Blocks of the index hold no names: in them the
    /// first entry fills all of the block, or with `..` all but the first 12 bytes.
    fn is_sound_block(&self, inode: &Inode, logical: u64, block: &[u8]) -> bool {
        let Some(seed) = self.superblock.checksum_seed() else {
            return true;
        };
        let fills = |at: usize| {
            block
                .get(at..)
                .is_some_and(|rest| self.entry_len(rest) == rest.len())
        };
        let is_index = match logical {
            0 => u16_at(block, 4) == 12 && fills(12),
            _ => u32_at(block, 0) == 0 && fills(0),
        };
        let (covered, tail) = block.split_at(block.len().saturating_sub(TAIL_BYTES));
        let has_tail = u32_at(tail, 0) == 0
            && usize::from(u16_at(tail, 4)) == TAIL_BYTES
            && tail.get(6..8) == Some(&[0, TAIL_KIND]);
        is_index || has_tail && sum(inode.seed(seed), &[covered]) == u32_at(tail, 8)
    }
}

/// The kinds that a directory entry stores.
fn kind_of(stored: u8) -> Option<NodeKind> {
    Some(match stored {
        1 => NodeKind::File,
        2 => NodeKind::Directory,
        3 => NodeKind::CharDevice,
        4 => NodeKind::BlockDevice,
        5 => NodeKind::Fifo,
        6 => NodeKind::Socket,
        7 => NodeKind::Link,
        _ => return None,
    })
}

fn damaged(what: String) -> Error {
    Error::new(hako_block::ErrorKind::Corrupt, what)
}
