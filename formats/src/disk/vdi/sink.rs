//! A new image, filled in one ascending pass.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, Result, SECTOR_BYTES, Sink, Storage, write_zeros};

use super::header::{Header, Kind, MAX_BLOCK, NewHeader};
use super::map::{HOLE, ZERO};
use crate::disk::delivery::skipped_before;
use crate::disk::{Allocation, CreateArgs};

/// What VirtualBox uses, and all that QEMU reads.
const DEFAULT_BLOCK: u64 = 1 << 20;
/// Smallest block that is made.
const MIN_BLOCK: u64 = 4096;
/// VDICore.h, VDI_DATA_ALIGN: the map and the data begin at multiples of it.
const ALIGN: u64 = 1 << 20;
/// Map entries written at once.
const MAX_ENTRIES: usize = 1 << 16;

/// Writes a new image. Blocks lie in the order of delivery; in a fixed image, in the order of the
/// disk. The header comes last.
pub struct VdiSink {
    storage: Arc<dyn Storage>,
    header: Header,
    allocation: Allocation,
    /// Whether what is not written reads as zeros.
    blank: bool,
    /// Guest offset below which everything has been delivered or skipped.
    position: u64,
    /// Entries that are not written yet, and the block of the first one.
    entries: Vec<u32>,
    first_block: u64,
}

impl VdiSink {
    /// Begins an image. Errors: options that the format does not have, a parent that is no VDI.
    pub fn new(args: CreateArgs<'_>) -> Result<Self> {
        args.options.refuse_others("vdi", &["allocation", "unit"])?;
        let kind = kind_of(&args)?;
        let allocation = args.options.allocation;
        if kind != Kind::Fixed && allocation != Allocation::Thin {
            return Err(Error::invalid(
                "a VDI whose space is allocated at once is the subformat \"fixed\"",
            ));
        }
        let block = args.options.unit_bytes.unwrap_or(DEFAULT_BLOCK);
        if !block.is_power_of_two() || !(MIN_BLOCK..=MAX_BLOCK).contains(&block) {
            return Err(Error::invalid(format!(
                "a block of {block} bytes: it must be a power of two from {MIN_BLOCK} to {MAX_BLOCK}"
            )));
        }
        let disk_size = args.virtual_size;
        if disk_size == 0 || !disk_size.is_multiple_of(SECTOR_BYTES) {
            return Err(Error::invalid(format!(
                "a VDI of {disk_size} bytes: it must be a multiple of {SECTOR_BYTES}, not 0"
            )));
        }
        let new = NewHeader {
            kind,
            disk_size,
            block,
        };
        let mut header = Header::new(&new, ALIGN.min(block))?;
        if let Some(parent) = &args.parent {
            header.set_parent(parent)?;
        }
        let sink = Self {
            blank: args.storage.is_blank(),
            storage: args.storage,
            header,
            allocation,
            position: 0,
            entries: Vec::new(),
            first_block: 0,
        };
        sink.prepare()?;
        Ok(sink)
    }

    fn prepare(&self) -> Result<()> {
        if !self.blank {
            // What was there before must not be taken for an image while its parts are replaced.
            self.storage.write_at(0, &[0; SECTOR_BYTES as usize])?;
            self.storage
                .punch_hole(SECTOR_BYTES..self.header.data_offset)?;
        }
        if self.header.kind == Kind::Fixed {
            let data = self.header.data_offset..self.header.place_offset(self.header.n_blocks);
            self.storage.set_len(data.end)?;
            if self.allocation != Allocation::Thin {
                self.storage.reserve(data)?;
            }
        }
        Ok(())
    }

    /// Checks a delivery and makes up for what was skipped before it.
    fn advance(&mut self, range: &Range<u64>) -> Result<()> {
        let (unit, size) = (self.header.block, self.header.virtual_size());
        let gap = skipped_before(self.position, range, unit, size)?;
        self.position = range.end;
        self.skip(gap, HOLE)
    }

    /// Gives what holds no data its entries: `entry`, or places of zeros in a fixed image.
    fn skip(&mut self, range: Range<u64>, entry: u32) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let block = self.header.block;
        let n_blocks = range.end.div_ceil(block) - range.start / block;
        if self.header.kind != Kind::Fixed {
            return self.add_entries(n_blocks, |_| entry);
        }
        let first = range.start / block;
        let host = self.header.place_offset(first)..self.header.place_offset(first + n_blocks);
        if self.allocation == Allocation::Eager {
            write_zeros(&*self.storage, host)?;
        } else if !self.blank {
            self.storage.punch_hole(host)?;
        }
        self.add_entries(n_blocks, |block| block as u32)
    }

    /// Appends the entries of the next blocks, given by the blocks' numbers.
    fn add_entries(&mut self, n_blocks: u64, entry: impl Fn(u64) -> u32) -> Result<()> {
        for _ in 0..n_blocks {
            let block = self.first_block + self.entries.len() as u64;
            self.entries.push(entry(block));
            if self.entries.len() == MAX_ENTRIES {
                self.write_entries()?;
            }
        }
        Ok(())
    }

    fn write_entries(&mut self) -> Result<()> {
        let entries = self.entries.iter();
        let bytes: Vec<u8> = entries.flat_map(|entry| entry.to_le_bytes()).collect();
        let offset = self.header.entry_offset(self.first_block);
        self.storage.write_at(offset, &bytes)?;
        self.first_block += self.entries.len() as u64;
        self.entries.clear();
        Ok(())
    }
}

impl Sink for VdiSink {
    fn unit_bytes(&self) -> u64 {
        self.header.block
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let range = offset..offset.saturating_add(bytes.len() as u64);
        self.advance(&range)?;
        let block = self.header.block;
        let place = match self.header.kind {
            Kind::Fixed => offset / block,
            _ => self.header.n_stored,
        };
        let start = self.header.place_offset(place);
        self.storage.write_at(start, bytes)?;
        let n_blocks = (bytes.len() as u64).div_ceil(block);
        let (end, block_end) = (start + bytes.len() as u64, start + n_blocks * block);
        if end < block_end && !self.blank {
            write_zeros(&*self.storage, end..block_end)?;
        }
        self.header.n_stored = self.header.n_stored.max(place + n_blocks);
        let first = offset / block;
        self.add_entries(n_blocks, |block| (place + block - first) as u32)
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.advance(&range)?;
        self.skip(range, ZERO)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let rest = self.position..self.header.virtual_size();
        self.skip(rest, HOLE)?;
        self.write_entries()?;
        if self.header.kind == Kind::Fixed {
            self.header.n_stored = self.header.n_blocks;
        }
        let end = self.header.place_offset(self.header.n_stored);
        self.storage.set_len(end)?;
        if !self.blank {
            self.storage.sync()?;
        }
        self.header.write(&*self.storage)?;
        self.storage.sync()
    }
}

/// Returns which variant is to be made: the one that the user named, a diff over a parent.
fn kind_of(args: &CreateArgs<'_>) -> Result<Kind> {
    let named = args.options.subformat.as_deref().unwrap_or_default();
    let named = named.to_lowercase();
    match (&args.parent, named.as_str()) {
        (Some(_), "" | "dynamic" | "diff") => Ok(Kind::Diff),
        (Some(_), "fixed") => Err(Error::invalid("a fixed VDI can have no parent")),
        (None, "" | "dynamic") => Ok(Kind::Dynamic),
        (None, "fixed") => Ok(Kind::Fixed),
        (None, "diff") => Err(Error::invalid("a diff VDI needs a parent")),
        (_, other) => {
            Err(Error::invalid(format!("vdi has no subformat {other:?}"))
                .hint("one of dynamic, fixed"))
        }
    }
}
