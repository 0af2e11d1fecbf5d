//! Sizes that follow from the metadata; BAT entries (MS-VHDX, section 2.5).

use std::ops::Range;

use hako_block::{Error, Result};

/// What everything but the header section is aligned to.
pub const MIB: u64 = 1 << 20;
/// Largest disk (MS-VHDX, section 2.6.2.2).
pub const MAX_VIRTUAL_BYTES: u64 = 64 << 40;
/// Longest file: the largest disk, its tables, and some waste. Bounds the memory that a map of
/// its places takes.
pub const MAX_FILE_BYTES: u64 = 96 << 40;
/// Smallest and largest block.
pub const BLOCK_BYTES: std::ops::RangeInclusive<u64> = MIB..=256 * MIB;
/// Bytes of a BAT entry.
pub const ENTRY_BYTES: u64 = 8;
/// Sectors that a sector bitmap block describes, as a power of two.
const BITMAP_SECTORS_SHIFT: u32 = 23;

/// The sizes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Size of the disk in bytes, 1 to 64 TiB.
    pub virtual_size: u64,
    /// Bytes of a block, as a power of two: 20 to 28.
    pub block_shift: u32,
    /// Bytes of a logical sector, as a power of two: 9 or 12.
    pub sector_shift: u32,
    /// Whether the image is an overlay.
    pub has_parent: bool,
}

impl Layout {
    /// Returns the bytes of a block.
    pub fn block_bytes(&self) -> u64 {
        1 << self.block_shift
    }

    /// Returns how many blocks the disk has; the last one may reach past its end.
    pub fn n_blocks(&self) -> u64 {
        self.virtual_size.div_ceil(self.block_bytes())
    }

    /// Returns the payload blocks that share a sector bitmap block, as a power of two.
    pub fn chunk_shift(&self) -> u32 {
        BITMAP_SECTORS_SHIFT + self.sector_shift - self.block_shift
    }

    /// Returns the number of chunks that the disk touches.
    pub fn n_chunks(&self) -> u64 {
        self.n_blocks().div_ceil(1 << self.chunk_shift())
    }

    /// Returns how many BAT entries the disk needs.
    pub fn n_entries(&self) -> u64 {
        if self.has_parent {
            self.n_chunks() * ((1 << self.chunk_shift()) + 1)
        } else {
            self.n_blocks() + ((self.n_blocks().max(1) - 1) >> self.chunk_shift())
        }
    }

    /// Returns the BAT entry of a block.
    pub fn entry_of(&self, block: u64) -> u64 {
        block + (block >> self.chunk_shift())
    }

    /// Returns the BAT entry of the sector bitmap block that a block's sectors are in.
    pub fn bitmap_entry_of(&self, block: u64) -> u64 {
        let chunk = block >> self.chunk_shift();
        (chunk << self.chunk_shift()) + chunk + (1 << self.chunk_shift())
    }

    /// Returns the block of a BAT entry; `None` if it is that of a sector bitmap block.
    pub fn block_of(&self, entry: u64) -> Option<u64> {
        let per_chunk = (1 << self.chunk_shift()) + 1;
        let (chunk, within) = (entry / per_chunk, entry % per_chunk);
        (within + 1 < per_chunk).then(|| entry - chunk)
    }

    /// Returns where the bits of a block's sectors are in their sector bitmap block, in bytes.
    pub fn bits_of(&self, block: u64) -> Range<u64> {
        let len = self.block_bytes() >> self.sector_shift >> 3;
        let within = block & ((1 << self.chunk_shift()) - 1);
        within * len..(within + 1) * len
    }

    /// Returns the guest offset of a block.
    pub fn start_of(&self, block: u64) -> u64 {
        block << self.block_shift
    }
}

/// What a BAT entry says of a payload block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// PAYLOAD_BLOCK_NOT_PRESENT.
    Hole,
    /// PAYLOAD_BLOCK_ZERO, and PAYLOAD_BLOCK_UNDEFINED and _UNMAPPED, of which nothing is known:
    /// the parent must not show through.
    Zero,
    /// PAYLOAD_BLOCK_FULLY_PRESENT, with its file offset.
    Full(u64),
    /// PAYLOAD_BLOCK_PARTIALLY_PRESENT, with its file offset: a sector bitmap tells which sectors.
    Partial(u64),
}

/// State of a block that reads as zeros, PAYLOAD_BLOCK_ZERO.
pub const STATE_ZERO: u64 = 2;
/// State of a block that the guest discarded, PAYLOAD_BLOCK_UNMAPPED.
pub const STATE_UNMAPPED: u64 = 3;
/// State of a block that is stored, PAYLOAD_BLOCK_FULLY_PRESENT, and of a sector bitmap block that
/// is, SB_BLOCK_PRESENT.
pub const STATE_PRESENT: u64 = 6;
/// State of a block some sectors of which are stored, PAYLOAD_BLOCK_PARTIALLY_PRESENT.
pub const STATE_PARTIAL: u64 = 7;
const STATE_MASK: u64 = 7;
const OFFSET_MASK: u64 = !(MIB - 1);

impl Block {
    /// Decodes the BAT entry of a payload block. Pure.
    pub fn decode(word: u64, layout: &Layout) -> Result<Self> {
        let offset = word & OFFSET_MASK;
        match word & STATE_MASK {
            0 => Ok(Block::Hole),
            1..=STATE_UNMAPPED => Ok(Block::Zero),
            STATE_PRESENT => check_offset(offset, layout.block_bytes()).map(Block::Full),
            STATE_PARTIAL if layout.has_parent => {
                check_offset(offset, layout.block_bytes()).map(Block::Partial)
            }
            STATE_PARTIAL => Err(corrupt(
                "a block is partially present, but the image has no parent".to_owned(),
            )),
            state => Err(corrupt(format!("block state {state} does not exist"))),
        }
    }

    /// Returns where the block is stored.
    pub fn offset(self) -> Option<u64> {
        match self {
            Block::Full(offset) | Block::Partial(offset) => Some(offset),
            Block::Hole | Block::Zero => None,
        }
    }
}

/// Decodes the BAT entry of a sector bitmap block: its file offset, if it is there. Pure.
pub fn decode_bitmap_entry(word: u64) -> Result<Option<u64>> {
    match word & STATE_MASK {
        0 => Ok(None),
        STATE_PRESENT => check_offset(word & OFFSET_MASK, MIB).map(Some),
        state => Err(corrupt(format!(
            "sector bitmap state {state} does not exist"
        ))),
    }
}

fn check_offset(offset: u64, len: u64) -> Result<u64> {
    if offset < MIB || offset.saturating_add(len) > MAX_FILE_BYTES {
        return Err(corrupt(format!(
            "stored at {offset:#x}, where no block can be"
        )));
    }
    Ok(offset)
}

fn corrupt(what: String) -> Error {
    Error::new(hako_block::ErrorKind::Corrupt, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(virtual_size: u64, block_shift: u32, sector_shift: u32) -> Layout {
        Layout {
            virtual_size,
            block_shift,
            sector_shift,
            has_parent: false,
        }
    }

    #[test]
    fn payload_and_bitmap_entries_interleave() {
        // 128 blocks of 32 MiB share a sector bitmap block of 4 GiB.
        let small = layout(4 << 30, 25, 9);
        assert_eq!(small.chunk_shift(), 7);
        assert_eq!(small.n_entries(), 128);
        let large = layout((4 << 30) + 1, 25, 9);
        assert_eq!(large.n_entries(), 130);
        assert_eq!(large.entry_of(127), 127);
        assert_eq!(large.entry_of(128), 129);
        assert_eq!(large.bitmap_entry_of(127), 128);
        assert_eq!(large.bitmap_entry_of(128), 257);
        for block in [0, 1, 127, 128, 255, 256, 1000] {
            assert_eq!(large.block_of(large.entry_of(block)), Some(block));
            assert_eq!(large.block_of(large.bitmap_entry_of(block)), None);
        }
        let overlay = Layout {
            has_parent: true,
            ..large
        };
        assert_eq!(overlay.n_entries(), 258);
        assert_eq!(overlay.bits_of(129), 8192..16384);
        assert_eq!(layout(1 << 40, 28, 12).bits_of(1), 8192..16384);
    }

    #[test]
    fn entries_that_cannot_be_are_refused() {
        let plain = layout(1 << 30, 21, 9);
        let overlay = Layout {
            has_parent: true,
            ..plain
        };
        assert_eq!(
            Block::decode(5 << 20 | 6, &plain).unwrap(),
            Block::Full(5 << 20)
        );
        assert_eq!(
            Block::decode(5 << 20 | 7, &overlay).unwrap(),
            Block::Partial(5 << 20)
        );
        assert_eq!(Block::decode(9 << 20 | 3, &plain).unwrap(), Block::Zero);
        for word in [4, 5, 6, 7, 5 << 20 | 7, u64::MAX, u64::MAX - 1] {
            assert!(Block::decode(word, &plain).is_err(), "{word:#x}");
        }
        for word in [1, 6, 7, 5 << 20 | 2] {
            assert!(decode_bitmap_entry(word).is_err(), "{word:#x}");
        }
    }
}
