//! Directories: names in the inode, or blocks of names; the blocks of hashes and of free space
//! behind them are not read ("XFS Algorithms & Data Structures", Directories).

use std::ops::ControlFlow;

use hako_block::{Error, ErrorKind, Result};

use super::inode::Inode;
use super::{Xfs, checksum};
use crate::bytes::be::{u16_at, u32_at, u64_at};
use crate::fs::{Entry, NodeId, NodeKind};

/// Hashes begin at this byte of a directory.
const NAMES_END: u64 = 32 << 30;
/// Bytes before the names in a block, version 4 and 5.
const HEADER_BYTES: [usize; 2] = [16, 64];
const CHECKSUM_AT: usize = 4;
const OWNER_AT: usize = 40;
/// In place of an inode's upper 16 bits: not in use.
const UNUSED: u16 = 0xffff;

/// What is called for each name.
pub(super) type Each<'a> = &'a mut dyn FnMut(Entry) -> ControlFlow<()>;

impl Xfs {
    /// Calls `each` for the names in a directory that is in its inode.
    pub(super) fn visit_local(&self, inode: &Inode, bytes: &[u8], each: Each) -> Result<()> {
        let (n, n_long) = (byte_at(bytes, 0), byte_at(bytes, 1));
        let number_bytes = if n_long > 0 { 8 } else { 4 };
        let kind_bytes = usize::from(self.superblock.has_kinds);
        let mut rest = bytes.get(2 + number_bytes..).unwrap_or(&[]);
        for _ in 0..n {
            let name_len = usize::from(byte_at(rest, 0));
            let len = 3 + name_len + kind_bytes + number_bytes;
            let Some((entry, others)) = rest.split_at_checked(len) else {
                return Err(inode.corrupt("an entry does not fit in it"));
            };
            rest = others;
            let number_at = 3 + name_len + kind_bytes;
            let number = match number_bytes {
                8 => u64_at(entry, number_at),
                _ => u64::from(u32_at(entry, number_at)),
            };
            let name = entry.get(3..3 + name_len).unwrap_or(&[]);
            let named = self.named(name, number, byte_at(entry, 3 + name_len));
            if let Some(entry) = named.map_err(|error| error.place(inode.place()))?
                && each(entry).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` for the names in a directory that has blocks.
    pub(super) fn visit_blocks(&self, inode: &Inode, each: Each) -> Result<()> {
        let bytes = u64::from(self.superblock.directory_bytes);
        let block_bytes = u64::from(self.superblock.block_bytes);
        let end = inode.len_bytes().min(NAMES_END);
        let mut n_read = 0;
        let mut at = 0;
        while at < end {
            let run = self.run(inode, at / block_bytes)?;
            if run.at.is_none() {
                let skipped = at.saturating_add(run.n_blocks.saturating_mul(block_bytes));
                at = (skipped / bytes * bytes).max(at + bytes);
                continue;
            }
            n_read += bytes / block_bytes;
            if n_read > self.superblock.n_blocks {
                return Err(inode.corrupt("a directory longer than the file system"));
            }
            let mut block = vec![0; bytes as usize];
            let is_changed = self.read_blocks(inode, at, &mut block)?;
            let in_block = |error: Error| {
                error.place(format!("{}, block {}", inode.place(), at / block_bytes))
            };
            self.check_block(inode, &block, is_changed)
                .map_err(in_block)?;
            if self.visit_block(&block, each).map_err(in_block)?.is_break() {
                break;
            }
            at += bytes;
        }
        Ok(())
    }

    /// Calls `each` for the names in a block. Errors have no place yet.
    fn visit_block(&self, block: &[u8], each: Each) -> Result<ControlFlow<()>> {
        let header = HEADER_BYTES[usize::from(self.superblock.has_sums)];
        let names = block.get(header..names_end(block)?).unwrap_or(&[]);
        let mut rest = names;
        while !rest.is_empty() {
            let is_unused = u16_at(rest, 0) == UNUSED;
            let name_len = usize::from(byte_at(rest, 8));
            let kind_bytes = usize::from(self.superblock.has_kinds);
            let len = match is_unused {
                true => usize::from(u16_at(rest, 2)),
                // The number, the length of the name, the name, the kind, and where it begins.
                false => (8 + 1 + name_len + kind_bytes + 2).next_multiple_of(8),
            };
            let (entry, others) = match rest.split_at_checked(len) {
                Some(parts) if len > 0 && len.is_multiple_of(8) => parts,
                _ => return Err(damaged(format!("an entry of {len} bytes"))),
            };
            rest = others;
            if is_unused {
                continue;
            }
            let name = entry.get(9..9 + name_len).unwrap_or(&[]);
            let kind = byte_at(entry, 9 + name_len);
            if let Some(entry) = self.named(name, u64_at(entry, 0), kind)?
                && each(entry).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns what an entry names; none if it is `.` or `..`.
    fn named(&self, name: &[u8], number: u64, kind: u8) -> Result<Option<Entry>> {
        if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(damaged(format!("a bad name, of inode {number}")));
        }
        if name == b"." || name == b".." {
            return Ok(None);
        }
        Ok(Some(Entry {
            name: name.to_vec(),
            node: NodeId { tree: 0, number },
            kind: Some(kind)
                .filter(|_| self.superblock.has_kinds)
                .and_then(kind_of),
        }))
    }

    fn check_block(&self, inode: &Inode, block: &[u8], is_changed: bool) -> Result<()> {
        if !self.superblock.has_sums {
            return Ok(());
        }
        if !is_changed && !checksum::is_sound(block, CHECKSUM_AT) {
            return Err(damaged("its checksum is wrong"));
        }
        match u64_at(block, OWNER_AT) {
            owner if owner == inode.number => Ok(()),
            owner => Err(damaged(format!("is one of inode {owner}"))),
        }
    }
}

/// Returns where the names in a block end: before the hashes, if it is the only block.
fn names_end(block: &[u8]) -> Result<usize> {
    match block.get(..4) {
        Some(b"XD2D" | b"XDD3") => Ok(block.len()),
        Some(b"XD2B" | b"XDB3") => {
            let tail_at = block.len().saturating_sub(8);
            let hashes = usize::try_from(u32_at(block, tail_at)).ok();
            let end = hashes
                .and_then(|n| n.checked_mul(8))
                .and_then(|bytes| tail_at.checked_sub(bytes));
            end.ok_or_else(|| damaged("more hashes than there is room for"))
        }
        _ => Err(damaged("no names: wrong magic number")),
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

fn byte_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn damaged(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}
