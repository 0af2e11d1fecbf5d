//! An open image: reading, the extent map. Writing is in [`super::write`].

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hako_block::image::check_range;
use hako_block::{BlockImage, Error, Extent, ExtentKind, ImageInfo, Result, Storage};

use super::bat::{Bat, PER_SECTOR};
use super::layout::{Block, Layout, decode_bitmap_entry};
use super::write::Writer;
use crate::disk::cache::Cache;

/// Entries of the BAT that one call of `next_extent` looks at.
const MAX_WALK: u64 = 256 * PER_SECTOR;
/// Sector bitmaps kept in memory: up to 64 KiB each.
const MAX_BITMAPS: usize = 64;

/// An open image.
pub struct Image {
    /// The file.
    pub storage: Arc<dyn Storage>,
    /// Sizes.
    pub layout: Layout,
    /// Whether blocks are never given up: a fixed disk.
    pub leave_allocated: bool,
    /// The BAT.
    pub bat: Mutex<Bat>,
    /// Bits of partially present blocks, by block. They never change: a write makes the block
    /// fully present.
    pub bitmaps: Cache<Vec<u8>>,
    /// What is being written, if the image was opened for that.
    pub writer: Option<Writer>,
    /// The file's name, for extents.
    pub host_name: Arc<str>,
    /// What is known of the image.
    pub info: ImageInfo,
}

/// A run of guest bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where it ends.
    pub end: u64,
    /// What it is.
    pub kind: ExtentKind,
    /// Where it is stored.
    pub host: Option<u64>,
}

impl Image {
    /// Returns an empty cache of bitmaps.
    pub fn bitmaps() -> Cache<Vec<u8>> {
        Cache::new(MAX_BITMAPS)
    }

    /// Locks the BAT.
    pub fn bat(&self) -> MutexGuard<'_, Bat> {
        self.bat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that a guest range lies on the disk.
    pub fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.info.virtual_size, offset, len).map_err(|error| self.named(error))
    }

    /// Names the image's file in an error.
    pub fn named(&self, error: Error) -> Error {
        error.in_file(self.storage.name())
    }

    /// Returns what the BAT says of a block.
    pub fn block(&self, bat: &mut Bat, block: u64) -> Result<Block> {
        let entry = self.layout.entry_of(block);
        Block::decode(bat.get(entry)?, &self.layout).map_err(|error| {
            error
                .place(format!("BAT entry {entry}"))
                .at_byte(bat.entry_offset(entry))
        })
    }

    /// Returns the run that begins at `offset`, up to `end`, merged over blocks.
    pub fn run(&self, offset: u64, end: u64) -> Result<Run> {
        let block = offset >> self.layout.block_shift;
        let within = offset - self.layout.start_of(block);
        let mut bat = self.bat();
        let first = self.block(&mut bat, block)?;
        let (kind, host) = match first {
            Block::Hole => (ExtentKind::Hole, None),
            Block::Zero => (ExtentKind::Zero, None),
            Block::Full(host) => (ExtentKind::Data, Some(host)),
            Block::Partial(host) => {
                drop(bat);
                return self.run_in_partial(block, host, offset, end);
            }
        };
        let n_blocks = end.div_ceil(self.layout.block_bytes());
        let limit = n_blocks.min(block.saturating_add(MAX_WALK));
        let mut next = block + 1;
        while next < limit {
            if kind == ExtentKind::Hole {
                let skipped = self.skip_holes(&bat, next)?;
                if skipped > next {
                    next = skipped.min(n_blocks);
                    continue;
                }
            }
            let continues = match (first, self.block(&mut bat, next)) {
                (Block::Full(a), Ok(Block::Full(b))) => {
                    a.checked_add((next - block) << self.layout.block_shift) == Some(b)
                }
                (a, Ok(b)) => a == b,
                // What precedes the damage is still good.
                (_, Err(_)) => false,
            };
            if !continues {
                break;
            }
            next += 1;
        }
        Ok(Run {
            end: self.layout.start_of(next).min(end),
            kind,
            host: host.map(|host| host + within),
        })
    }

    /// Returns the block before which the host stores no BAT entries from `block` on.
    fn skip_holes(&self, bat: &Bat, block: u64) -> Result<u64> {
        let entry = self.layout.entry_of(block);
        if !entry.is_multiple_of(PER_SECTOR) {
            return Ok(block);
        }
        let end = bat.hole_end(entry)?;
        if end == bat.n_entries() {
            return Ok(self.layout.n_blocks());
        }
        // An end at a sector bitmap's entry is as good as the block after it.
        Ok(self
            .layout
            .block_of(end)
            .unwrap_or_else(|| self.layout.block_of(end.saturating_sub(1)).unwrap_or(block)))
    }

    fn run_in_partial(&self, block: u64, host: u64, offset: u64, end: u64) -> Result<Run> {
        let start = self.layout.start_of(block);
        let bits = self.bits(block)?;
        let shift = self.layout.sector_shift;
        let first = (offset - start) >> shift;
        let is_set = |sector: u64| {
            let byte = bits.get((sector / 8) as usize).copied().unwrap_or(0);
            byte >> (sector % 8) & 1 == 1
        };
        let present = is_set(first);
        let n_sectors = self.layout.block_bytes() >> shift;
        let mut next = first + 1;
        while next < n_sectors && is_set(next) == present {
            next += 1;
        }
        let (kind, host) = if present {
            (ExtentKind::Data, Some(host + (offset - start)))
        } else {
            (ExtentKind::Hole, None)
        };
        Ok(Run {
            end: (start + (next << shift)).min(end),
            kind,
            host,
        })
    }

    /// Returns the bits of a partially present block, one for each sector.
    fn bits(&self, block: u64) -> Result<Arc<Vec<u8>>> {
        self.bitmaps.get_or_load(block, || {
            let entry = self.layout.bitmap_entry_of(block);
            let mut bat = self.bat();
            let (word, at) = (bat.get(entry)?, bat.entry_offset(entry));
            drop(bat);
            let damaged = |error: Error| error.place(format!("BAT entry {entry}")).at_byte(at);
            let Some(bitmap) = decode_bitmap_entry(word).map_err(damaged)? else {
                return Err(damaged(Error::new(
                    hako_block::ErrorKind::Corrupt,
                    format!("block {block} is partially present, but its sector bitmap is not"),
                )));
            };
            let range = self.layout.bits_of(block);
            let mut bits = vec![0; (range.end - range.start) as usize];
            self.storage.read_at(bitmap + range.start, &mut bits)?;
            Ok(bits)
        })
    }

    /// Reads guest bytes; blocks stay where they are meanwhile.
    pub fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        let _in_use = self.writer.as_ref().map(Writer::use_blocks);
        while !buf.is_empty() {
            let run = self.run(offset, offset + buf.len() as u64)?;
            let (now, rest) = buf.split_at_mut((run.end - offset) as usize);
            match run.host {
                Some(host) => self.storage.read_at(host, now)?,
                None => now.fill(0),
            }
            offset = run.end;
            buf = rest;
        }
        Ok(())
    }

    /// Returns the extent at `offset`. Within blocks, what is a hole of the host file is zeros.
    fn extent(&self, offset: u64) -> Result<Extent> {
        let _in_use = self.writer.as_ref().map(Writer::use_blocks);
        let run = self.run(offset, self.info.virtual_size)?;
        let len = run.end - offset;
        let Some(host) = run.host else {
            return Ok(Extent::new(offset, len, run.kind));
        };
        if host >= self.storage.len_bytes()? {
            return Err(
                Error::corrupt("BAT", "a block lies past the end of the file").at_byte(host),
            );
        }
        let stored = self.storage.next_extent(host)?;
        let extent = if stored.data {
            Extent::data(offset, len, &self.host_name, host)
        } else {
            Extent::new(offset, len, ExtentKind::Zero)
        };
        Ok(extent.clipped(offset.saturating_add(stored.len)))
    }
}

impl BlockImage for Image {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.read(offset, buf).map_err(|error| self.named(error))
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.check(offset, 1)?;
        self.extent(offset).map_err(|error| self.named(error))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.write(offset, buf).map_err(|error| self.named(error))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.zero(range).map_err(|error| self.named(error))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.trim(range).map_err(|error| self.named(error))
    }

    fn flush(&self) -> Result<()> {
        self.flush_all().map_err(|error| self.named(error))
    }
}
