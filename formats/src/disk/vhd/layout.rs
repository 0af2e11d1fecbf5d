//! The sizes of a dynamic disk, and where its blocks may lie.

use std::ops::Range;

use hako_block::{Error, Result, SECTOR_BYTES};

use super::footer::{DiskType, Footer};
use super::header::Header;

/// BAT entry of a block that is not stored.
pub const UNUSED: u32 = u32::MAX;
/// Where data of larger blocks is aligned to in new files: the page of a host.
const ALIGNMENT: u64 = 4096;
/// Blocks smaller than this are not aligned: the file of a large disk would outgrow its 32-bit
/// sector numbers.
const MIN_ALIGNED_BLOCK: u64 = 2 << 20;

/// The sizes. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a block as a power of two.
    pub block_shift: u32,
    /// File offset of the BAT.
    pub bat_offset: u64,
    /// Entries of the BAT.
    pub n_entries: u64,
    /// Blocks of the disk, at most the entries of the BAT.
    pub n_blocks: u64,
    /// Virtual size.
    pub virtual_size: u64,
    /// Whether the bitmap says what is the parent's.
    pub differencing: bool,
}

impl Layout {
    /// Returns the sizes of a disk. Errors: the BAT is not in the file, or too short for the disk.
    pub fn of(footer: &Footer, header: &Header, file_len: u64) -> Result<Self> {
        let layout = Self {
            block_shift: header.block_shift,
            bat_offset: header.bat_offset,
            n_entries: u64::from(header.n_entries),
            n_blocks: footer.virtual_size().div_ceil(1 << header.block_shift),
            virtual_size: footer.virtual_size(),
            differencing: footer.disk_type == DiskType::Differencing,
        };
        let bat_end = layout.bat_offset.checked_add(layout.n_entries * 4);
        if bat_end.is_none_or(|end| end > file_len) {
            return Err(Error::corrupt(
                "dynamic header",
                format!(
                    "a BAT of {} entries at {:#x} is not in the file of {file_len} bytes",
                    layout.n_entries, layout.bat_offset
                ),
            ));
        }
        if layout.n_blocks > layout.n_entries {
            return Err(Error::corrupt(
                "dynamic header",
                format!(
                    "a BAT of {} entries is too short for {} blocks",
                    layout.n_entries, layout.n_blocks
                ),
            ));
        }
        Ok(layout)
    }

    /// Returns the bytes of a block.
    pub fn block_bytes(&self) -> u64 {
        1 << self.block_shift
    }

    /// Returns the bytes of a block's sector bitmap, which lies before it: whole sectors.
    pub fn bitmap_bytes(&self) -> u64 {
        bitmap_bytes(self.block_shift)
    }

    /// Returns the bytes of a block with its bitmap.
    pub fn slot_bytes(&self) -> u64 {
        self.block_bytes() + self.bitmap_bytes()
    }

    /// Returns the guest bytes of a block: less than a block at the end of the disk.
    pub fn guest_range(&self, block: u64) -> Range<u64> {
        let start = block << self.block_shift;
        let end = (start + self.block_bytes()).min(self.virtual_size);
        start..end.max(start)
    }

    /// Returns the file offset of the BAT's end, rounded up to sectors.
    pub fn bat_end(&self) -> u64 {
        (self.bat_offset + self.n_entries * 4).next_multiple_of(SECTOR_BYTES)
    }
}

/// Returns the bytes of a sector bitmap: a bit for each sector of the block, whole sectors.
pub fn bitmap_bytes(block_shift: u32) -> u64 {
    ((1_u64 << block_shift) / SECTOR_BYTES)
        .div_ceil(8)
        .next_multiple_of(SECTOR_BYTES)
}

/// Returns where a new block's bitmap begins, at or after file offset `end`.
pub fn slot_at(block_shift: u32, end: u64) -> u64 {
    let end = end.next_multiple_of(SECTOR_BYTES);
    if 1 << block_shift < MIN_ALIGNED_BLOCK {
        return end;
    }
    let bitmap = bitmap_bytes(block_shift);
    (end + bitmap).next_multiple_of(ALIGNMENT) - bitmap
}

/// Returns the distance of new blocks that follow one another.
pub fn stride(block_shift: u32) -> u64 {
    let slot = (1 << block_shift) + bitmap_bytes(block_shift);
    if 1 << block_shift < MIN_ALIGNED_BLOCK {
        slot
    } else {
        slot.next_multiple_of(ALIGNMENT)
    }
}

/// Returns a block's BAT entry.
pub fn entry_of(slot: u64) -> Result<u32> {
    u32::try_from(slot / SECTOR_BYTES)
        .ok()
        .filter(|entry| *entry != UNUSED)
        .ok_or_else(|| {
            Error::new(
                hako_block::ErrorKind::NoSpace,
                "the file is full: its blocks are addressed by 32-bit sector numbers",
            )
        })
}
