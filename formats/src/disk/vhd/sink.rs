//! A new dynamic or differencing disk, filled in one ascending pass. Blocks lie in the order of
//! the disk; what nobody delivered of a block is a hole in the host file, and of an overlay's
//! block it is the parent's.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, Result, SECTOR_BYTES, Sink, Storage};

use super::footer::{DiskType, FOOTER_BYTES, Footer, put};
use super::header::{HEADER_BYTES, Header};
use super::layout::{UNUSED, bitmap_bytes, entry_of, slot_at};
use super::parent::NewNames;
use crate::disk::delivery::skipped_before;
use crate::disk::{Allocation, CreateArgs};

/// Dynamic disk header, field Block Size: what everybody uses.
const DEFAULT_BLOCK_BYTES: u64 = 2 << 20;
/// Blocks that can be chosen. With smaller ones the largest disk would not fit into its file.
const BLOCK_SHIFTS: std::ops::RangeInclusive<u32> = 19..=28;
/// Granularity of delivery.
const UNIT_BYTES: u64 = 4096;
/// Bytes of the BAT written at once.
const BAT_BUFFER: usize = 64 << 10;

/// Writes a new disk.
pub struct DynamicSink {
    storage: Arc<dyn Storage>,
    footer: Footer,
    header: Header,
    /// The block being filled, and where its bitmap is to be.
    block: Option<(u64, u64)>,
    bitmap: Vec<u8>,
    /// Behind the last block.
    end: u64,
    /// Guest offset below which everything has been delivered or skipped.
    position: u64,
    /// Entries of the BAT that are not written yet, from this one on.
    bat_start: u64,
    bat: Vec<u8>,
}

impl DynamicSink {
    /// Writes everything but the footer at the end. Errors: options or a parent that a VHD cannot
    /// have, a block device.
    pub fn new(args: &CreateArgs<'_>) -> Result<Self> {
        let block_shift = block_shift(args)?;
        if args.options.allocation != Allocation::Thin {
            return Err(
                Error::invalid("the blocks of a dynamic VHD are not allocated in advance")
                    .hint("--subformat fixed takes all space at once"),
            );
        }
        let names = args.parent.as_ref().map(NewNames::of).transpose()?;
        let n_entries = u32::try_from(args.virtual_size.div_ceil(1 << block_shift))
            .map_err(|_| Error::invalid("too many blocks"))?;
        let mut header = Header::new(FOOTER_BYTES + HEADER_BYTES, n_entries, block_shift);
        let bat_end = header.bat_offset + header.bat_bytes();
        let mut end = bat_end;
        let disk_type = match (&names, &args.parent) {
            (Some(names), Some(parent)) => {
                header.parent_name.clone_from(&names.plain);
                header.parent_uuid = parent.identity.unwrap_or_default();
                header.locators[0] = names.locator(bat_end);
                end += names.sectors().len() as u64;
                DiskType::Differencing
            }
            _ => DiskType::Dynamic,
        };
        let storage = Arc::clone(&args.storage);
        if !storage.is_blank() {
            // What was there must not show where nothing is written.
            storage.set_len(0)?;
        }
        if let Some(names) = &names {
            storage.write_at(bat_end, &names.sectors())?;
        }
        Ok(Self {
            storage,
            footer: Footer::new(disk_type, args.virtual_size, Some(FOOTER_BYTES)),
            header,
            block: None,
            bitmap: vec![0; bitmap_bytes(block_shift) as usize],
            end,
            position: 0,
            bat_start: 0,
            bat: Vec::new(),
        })
    }

    fn is_overlay(&self) -> bool {
        self.footer.disk_type == DiskType::Differencing
    }

    /// Checks a delivery.
    fn advance(&mut self, range: &Range<u64>) -> Result<()> {
        let (unit, size) = (UNIT_BYTES, self.footer.current_size);
        skipped_before(self.position, range, unit, size)?;
        self.position = range.end;
        Ok(())
    }

    /// Stores a range, whose bytes are zeros if there are none.
    fn store(&mut self, range: Range<u64>, bytes: Option<&[u8]>) -> Result<()> {
        let shift = self.header.block_shift;
        let mut offset = range.start;
        while offset < range.end {
            let block = offset >> shift;
            let end = ((block + 1) << shift).min(range.end);
            let slot = self.slot(block)?;
            let within = offset - (block << shift);
            if let Some(bytes) = bytes {
                let bytes = &bytes[(offset - range.start) as usize..(end - range.start) as usize];
                let host = slot + bitmap_bytes(shift) + within;
                self.storage.write_at(host, bytes)?;
            }
            self.mark(within..within + (end - offset));
            offset = end;
        }
        Ok(())
    }

    /// Sets the bits of bytes of the block being filled.
    fn mark(&mut self, within: Range<u64>) {
        for sector in within.start / SECTOR_BYTES..within.end.div_ceil(SECTOR_BYTES) {
            if let Some(byte) = self.bitmap.get_mut((sector / 8) as usize) {
                *byte |= 0x80 >> (sector % 8);
            }
        }
    }

    /// Returns where a block's bitmap is to be, which is the one being filled afterwards.
    fn slot(&mut self, block: u64) -> Result<u64> {
        if let Some((current, slot)) = self.block
            && current == block
        {
            return Ok(slot);
        }
        self.close_block()?;
        let shift = self.header.block_shift;
        let slot = slot_at(shift, self.end);
        self.set_entry(block, entry_of(slot)?)?;
        self.end = slot + bitmap_bytes(shift) + (1 << shift);
        self.block = Some((block, slot));
        Ok(slot)
    }

    /// Writes the bitmap of the block being filled. Without a parent all bits are set: what was
    /// not delivered is zeros.
    fn close_block(&mut self) -> Result<()> {
        let Some((_, slot)) = self.block.take() else {
            return Ok(());
        };
        if !self.is_overlay() {
            self.bitmap.fill(0xff);
        }
        self.storage.write_at(slot, &self.bitmap)?;
        self.bitmap.fill(0);
        Ok(())
    }

    /// Sets the entry of a block, which is behind all that were set; those between are unused.
    fn set_entry(&mut self, block: u64, entry: u32) -> Result<()> {
        self.skip_entries(block)?;
        self.bat.extend_from_slice(&entry.to_be_bytes());
        Ok(())
    }

    /// Makes the entries below `block` unused that are not set.
    fn skip_entries(&mut self, block: u64) -> Result<()> {
        while self.bat_start + (self.bat.len() as u64) / 4 < block {
            let n_left = (block - self.bat_start) as usize * 4;
            self.bat
                .resize(n_left.min(BAT_BUFFER), UNUSED.to_be_bytes()[0]);
            if self.bat.len() >= BAT_BUFFER {
                self.write_bat()?;
            }
        }
        if self.bat.len() >= BAT_BUFFER {
            self.write_bat()?;
        }
        Ok(())
    }

    fn write_bat(&mut self) -> Result<()> {
        let offset = self.header.bat_offset + self.bat_start * 4;
        self.storage.write_at(offset, &self.bat)?;
        self.bat_start += (self.bat.len() / 4) as u64;
        self.bat.clear();
        Ok(())
    }
}

impl Sink for DynamicSink {
    fn unit_bytes(&self) -> u64 {
        UNIT_BYTES
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let range = offset..offset.saturating_add(bytes.len() as u64);
        self.advance(&range)?;
        self.store(range, Some(bytes))
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.advance(&range)?;
        if self.is_overlay() {
            // A hole would be the parent's: zeros are stored, as a hole of the host file.
            self.store(range, None)
        } else {
            Ok(())
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.close_block()?;
        self.skip_entries(u64::from(self.header.n_entries))?;
        // Up to a whole sector, as the specification has it.
        let padded = (self.header.bat_bytes() - self.bat_start * 4) as usize;
        self.bat.resize(padded, UNUSED.to_be_bytes()[0]);
        self.write_bat()?;
        let mut front = vec![0; (FOOTER_BYTES + HEADER_BYTES) as usize];
        put(&mut front, 0, &self.footer.encode());
        put(&mut front, FOOTER_BYTES as usize, &self.header.encode());
        self.storage.write_at(0, &front)?;
        self.storage.write_at(self.end, &self.footer.encode())?;
        self.storage.sync()
    }
}

/// Returns the block size that was chosen.
fn block_shift(args: &CreateArgs<'_>) -> Result<u32> {
    let bytes = args.options.unit_bytes.unwrap_or(DEFAULT_BLOCK_BYTES);
    if !bytes.is_power_of_two() || !BLOCK_SHIFTS.contains(&bytes.ilog2()) {
        return Err(Error::invalid(format!(
            "a block of {bytes} bytes: a power of two from 524288 to 268435456 is needed"
        )));
    }
    Ok(bytes.ilog2())
}
