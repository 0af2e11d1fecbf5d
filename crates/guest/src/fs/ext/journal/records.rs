//! What the blocks of a journal hold: pure decoding (kernel documentation, ext4, "Journal (jbd2)").
//! Numbers are big-endian.

use hako_block::{Crc32c, Error, Result};

use crate::bytes::be::{u16_at, u32_at, u64_at};
use crate::bytes::le;
use crate::fs::ext::blocks::JOURNAL_MAGIC;

const COMPAT_CHECKSUM: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// Revocations, 64 bits, asynchronous commits, checksums, fast commits.
const INCOMPAT_READ: u32 = 0x3f;

/// Bytes of the header of every block.
const HEADER_BYTES: usize = 12;
const SUPERBLOCK_BYTES: usize = 1024;
const SUPERBLOCK_SUM_AT: usize = 0xfc;
const COMMIT_SUM_AT: usize = 16;
/// A checksum ends descriptors and revocations.
const TAIL_BYTES: usize = 4;
/// Blocks for fast commits, where the superblock does not say.
const FAST_BLOCKS: u32 = 256;

const FLAG_ESCAPED: u32 = 1;
const FLAG_SAME_UUID: u32 = 2;
const FLAG_LAST: u32 = 8;

/// What a block of the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Says where the blocks behind it belong.
    Descriptor,
    /// Ends a transaction.
    Commit,
    /// Names blocks whose earlier copies are void.
    Revoke,
}

/// Returns what a block is and of which transaction; none if it is none of the three.
pub(super) fn header(block: &[u8]) -> Option<(Kind, u32)> {
    let kind = match u32_at(block, 4) {
        1 => Kind::Descriptor,
        2 => Kind::Commit,
        5 => Kind::Revoke,
        _ => return None,
    };
    block
        .starts_with(&JOURNAL_MAGIC)
        .then(|| (kind, u32_at(block, 8)))
}

/// The journal's superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The block behind the last of the ring.
    pub(super) end: u32,
    /// The first block of the ring.
    pub(super) first: u32,
    /// The block that the log begins with; 0 if there is nothing to replay.
    pub(super) start: u32,
    /// The transaction that the log begins with.
    pub(super) sequence: u32,
    /// Blocks of fast commits, from `end` on.
    pub(super) n_fast_blocks: u32,
    /// Commits have a CRC-32 of the transaction.
    pub(super) has_old_sums: bool,
    is_64bit: bool,
    sums: Sums,
}

/// CRC-32C of descriptors, revocations, commits and copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sums {
    None,
    /// Half of it fits a tag.
    V2 {
        seed: u32,
    },
    V3 {
        seed: u32,
    },
}

/// Where a copy belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) block: u64,
    pub(super) is_escaped: bool,
    sum: u32,
}

impl Head {
    /// Decodes the superblock of a journal of `n_blocks` blocks.
    pub(super) fn decode(block: &[u8], n_blocks: u64) -> Result<Self> {
        let kind = u32_at(block, 4);
        if !block.starts_with(&JOURNAL_MAGIC) || !matches!(kind, 3 | 4) {
            return Err(damaged("no superblock"));
        }
        let feature = |at| if kind == 4 { u32_at(block, at) } else { 0 };
        let incompat = feature(0x28);
        if incompat & !INCOMPAT_READ != 0 {
            let unread = incompat & !INCOMPAT_READ;
            return Err(Error::unsupported(format!(
                "features of the journal that hako does not read: {unread:#x}"
            )));
        }
        if u32_at(block, 0xc) as usize != block.len() {
            return Err(damaged(format!("blocks of {} bytes", u32_at(block, 0xc))));
        }
        let n_fast_blocks = match (incompat & INCOMPAT_FAST_COMMIT, u32_at(block, 0x54)) {
            (0, _) => 0,
            (_, 0) => FAST_BLOCKS,
            (_, n) => n,
        };
        let len = u32_at(block, 0x10);
        let head = Self {
            end: len.saturating_sub(n_fast_blocks),
            first: u32_at(block, 0x14),
            start: u32_at(block, 0x1c),
            sequence: u32_at(block, 0x18),
            n_fast_blocks,
            has_old_sums: feature(0x24) & COMPAT_CHECKSUM != 0,
            is_64bit: incompat & INCOMPAT_64BIT != 0,
            sums: sums(block, incompat),
        };
        let is_inside = head.start == 0 || (head.first..head.end).contains(&head.start);
        if u64::from(len) > n_blocks || head.first == 0 || head.first >= head.end || !is_inside {
            return Err(damaged(format!(
                "blocks {}..{} of {n_blocks}, the log at {}",
                head.first, head.end, head.start
            )));
        }
        if head.sums.seed().is_some()
            && head.superblock_sum(block) != u32_at(block, SUPERBLOCK_SUM_AT)
        {
            return Err(damaged("the checksum of its superblock is wrong"));
        }
        Ok(head)
    }

    /// Returns whether the sum at the end of a descriptor or revocation is right, or there is none.
    pub(super) fn is_sound(&self, block: &[u8]) -> bool {
        let Some(seed) = self.sums.seed() else {
            return true;
        };
        let (covered, tail) = block.split_at(block.len().saturating_sub(TAIL_BYTES));
        sum(seed, &[covered, &[0; TAIL_BYTES]]) == u32_at(tail, 0)
    }

    /// Returns whether the sum of a commit is right, or it has none.
    pub(super) fn is_sound_commit(&self, block: &[u8]) -> bool {
        let Some(seed) = self.sums.seed() else {
            return true;
        };
        let (head, rest) = block.split_at(COMMIT_SUM_AT.min(block.len()));
        let rest = rest.get(4..).unwrap_or(&[]);
        sum(seed, &[head, &[0; 4], rest]) == u32_at(block, COMMIT_SUM_AT)
    }

    /// Returns whether a copy is what its tag says, or the tag has no sum.
    pub(super) fn is_sound_copy(&self, tag: Tag, sequence: u32, copy: &[u8]) -> bool {
        let Some(seed) = self.sums.seed() else {
            return true;
        };
        let found = sum(seed, &[&sequence.to_be_bytes(), copy]);
        match self.sums {
            Sums::V2 { .. } => found & 0xffff == tag.sum,
            _ => found == tag.sum,
        }
    }

    /// Returns whether copies have sums.
    pub(super) fn has_sums(&self) -> bool {
        self.sums != Sums::None
    }

    /// Returns where the blocks behind a descriptor belong, in their order.
    pub(super) fn tags(&self, block: &[u8]) -> Vec<Tag> {
        let room = block
            .get(..block.len() - self.tail_bytes())
            .unwrap_or(block);
        let len = self.tag_bytes();
        let mut tags = Vec::new();
        let mut at = HEADER_BYTES;
        while let Some(bytes) = at.checked_add(len).and_then(|end| room.get(at..end)) {
            let (tag, flags) = self.tag(bytes);
            tags.push(tag);
            at += len + if flags & FLAG_SAME_UUID == 0 { 16 } else { 0 };
            if flags & FLAG_LAST != 0 {
                break;
            }
        }
        tags
    }

    /// Returns the blocks that a revocation names.
    pub(super) fn revoked(&self, block: &[u8]) -> Vec<u64> {
        let end = usize::try_from(u32_at(block, HEADER_BYTES)).unwrap_or(0);
        let end = end.min(block.len() - self.tail_bytes());
        let entries = block.get(HEADER_BYTES + 4..end).unwrap_or(&[]);
        match self.is_64bit {
            true => entries
                .chunks_exact(8)
                .map(|entry| u64_at(entry, 0))
                .collect(),
            false => entries
                .chunks_exact(4)
                .map(|entry| u64::from(u32_at(entry, 0)))
                .collect(),
        }
    }

    fn tag(&self, bytes: &[u8]) -> (Tag, u32) {
        let low = u64::from(u32_at(bytes, 0));
        let high = if self.is_64bit {
            u64::from(u32_at(bytes, 8))
        } else {
            0
        };
        let (flags, sum) = match self.sums {
            Sums::V3 { .. } => (u32_at(bytes, 4), u32_at(bytes, 12)),
            _ => (u32::from(u16_at(bytes, 6)), u32::from(u16_at(bytes, 4))),
        };
        let tag = Tag {
            block: high << 32 | low,
            is_escaped: flags & FLAG_ESCAPED != 0,
            sum,
        };
        (tag, flags)
    }

    /// With sums of version 2 a tag has two bytes more than it uses.
    fn tag_bytes(&self) -> usize {
        match (self.sums, self.is_64bit) {
            (Sums::V3 { .. }, _) => 16,
            (Sums::V2 { .. }, true) => 14,
            (Sums::V2 { .. }, false) => 10,
            (Sums::None, true) => 12,
            (Sums::None, false) => 8,
        }
    }

    fn tail_bytes(&self) -> usize {
        if self.has_sums() { TAIL_BYTES } else { 0 }
    }

    fn superblock_sum(&self, block: &[u8]) -> u32 {
        let (head, rest) = block.split_at(SUPERBLOCK_SUM_AT.min(block.len()));
        let rest = rest
            .get(4..SUPERBLOCK_BYTES - SUPERBLOCK_SUM_AT)
            .unwrap_or(&[]);
        sum(!0, &[head, &[0; 4], rest])
    }
}

impl Sums {
    fn seed(self) -> Option<u32> {
        match self {
            Sums::None => None,
            Sums::V2 { seed } | Sums::V3 { seed } => Some(seed),
        }
    }
}

fn sums(block: &[u8], incompat: u32) -> Sums {
    let seed = sum(!0, &[block.get(0x30..0x40).unwrap_or(&[])]);
    if incompat & INCOMPAT_CSUM_V3 != 0 {
        Sums::V3 { seed }
    } else if incompat & INCOMPAT_CSUM_V2 != 0 {
        Sums::V2 { seed }
    } else {
        Sums::None
    }
}

/// Returns whether a block begins the fast commits before transaction `sequence`. Its numbers are
/// little-endian: tag, length, features, transaction.
pub(super) fn is_fast_commit(block: &[u8], sequence: u32) -> bool {
    const TAG_HEAD: u16 = 9;
    le::u16_at(block, 0) == TAG_HEAD && le::u32_at(block, 8) == sequence
}

/// Returns when a transaction was committed: seconds and nanoseconds.
pub(super) fn commit_time(block: &[u8]) -> (u64, u32) {
    (u64_at(block, 0x30), u32_at(block, 0x38))
}

/// Returns whether a commit's CRC-32 is that of its transaction, or it says that it has none.
pub(super) fn is_old_sum(block: &[u8], found: u32) -> bool {
    let (kind, len) = (block.get(12), block.get(13));
    let stored = u32_at(block, COMMIT_SUM_AT);
    (kind, len, stored) == (Some(&1), Some(&4), found)
        || (kind, len, stored) == (Some(&0), Some(&0), 0)
}

/// CRC-32 (polynomial 04c11db7), its most significant bit first.
pub(super) fn crc32_be(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            (crc << 1) ^ (0x04c1_1db7 & (crc >> 31).wrapping_neg())
        })
    })
}

fn sum(seed: u32, pieces: &[&[u8]]) -> u32 {
    let mut crc = Crc32c::from_state(seed);
    for piece in pieces {
        crc.update(piece);
    }
    crc.state()
}

fn damaged(what: impl Into<String>) -> Error {
    Error::corrupt("journal", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sums: Sums, is_64bit: bool) -> Head {
        Head {
            end: 100,
            first: 1,
            start: 1,
            sequence: 1,
            n_fast_blocks: 0,
            has_old_sums: false,
            is_64bit,
            sums,
        }
    }

    #[test]
    fn tags_have_five_lengths() {
        let seed = 0;
        for (sums, is_64bit, len) in [
            (Sums::None, false, 8),
            (Sums::None, true, 12),
            (Sums::V2 { seed }, false, 10),
            (Sums::V2 { seed }, true, 14),
            (Sums::V3 { seed }, true, 16),
        ] {
            let head = head(sums, is_64bit);
            let mut block = vec![0; 1024];
            // Both kinds of flags have their lowest byte there.
            let flags_at = |tag: usize| tag + 7;
            // The first has a UUID behind it, the second not, and is the last.
            block[15] = 5;
            block[flags_at(12)] = 1;
            let second = 12 + len + 16;
            block[second + 3] = 6;
            block[flags_at(second)] = 2 | 8;
            if is_64bit {
                block[second + 11] = 1;
            }
            let tags = head.tags(&block);
            let found: Vec<_> = tags.iter().map(|tag| (tag.block, tag.is_escaped)).collect();
            let high = u64::from(is_64bit) << 32;
            assert_eq!(found, [(5, true), (high | 6, false)], "{sums:?} {is_64bit}");
        }
    }

    #[test]
    fn a_descriptor_without_an_end_ends_with_its_block() {
        let head = head(Sums::None, false);
        let mut block = vec![0; 1024];
        for tag in block[12..].chunks_mut(8) {
            *tag.last_mut().unwrap() = 2;
        }
        assert_eq!(head.tags(&block).len(), (1024 - 12) / 8);
        assert!(head.revoked(&[0xff; 1024]).len() <= 1024 / 4);
        assert!(head.revoked(&[0; 1024]).is_empty());
    }

    #[test]
    fn crc32_is_that_of_the_standard() {
        // CRC-32/BZIP2 is its complement.
        assert_eq!(!crc32_be(!0, b"123456789"), 0xfc89_1918);
    }
}
