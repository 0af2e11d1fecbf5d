//! An open dynamic or differencing disk: reading, the extent map.
//!
//! The sector bitmap before each block is honoured in a differencing disk, where a clear bit means
//! that the sector is the parent's. In a dynamic disk it is not: sectors that it calls unused are
//! zeros in the file where Virtual PC wrote it, and there are writers (qemu's old ones among them)
//! that store data without setting bits. What is stored is never hidden.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use hako_block::image::check_range;
use hako_block::{
    Access, BlockImage, Error, Extent, ExtentKind, ImageInfo, Result, SECTOR_BYTES, Storage,
};

use super::layout::{Layout, UNUSED};
use super::open::Dynamic;
use super::pages::Pages;
use super::write::Writer;
use crate::disk::OpenArgs;

/// Bytes of the BAT kept as one page.
const PAGE_BYTES: u64 = 16 << 10;
/// Guest bytes planned under one hold of the lock.
const PLAN_BYTES: u64 = 64 << 20;
/// Pages of the BAT, or bitmaps, that one call of `next_extent` looks at.
const MAP_STEPS: u32 = 256;

/// An open disk.
pub struct Image {
    /// The file.
    pub storage: Arc<dyn Storage>,
    /// Its name in extents.
    host_name: Arc<str>,
    /// The sizes.
    pub layout: Layout,
    /// What is known of the image.
    pub info: ImageInfo,
    /// Held for reading by each operation while it uses offsets that it looked up, for writing by
    /// a flush: freed blocks are used again only when nobody can still reach them.
    pub gate: RwLock<()>,
    /// Tables, and the state of writing.
    pub meta: Mutex<Meta>,
    /// Told when a block is no longer being filled.
    pub idle: Condvar,
}

/// What the lock of an image protects.
pub struct Meta {
    /// Pieces of the BAT, and bitmaps.
    pub pages: Pages,
    /// Length of the file as far as blocks may lie in it.
    pub file_len: u64,
    /// What is being written; `None` if the image is open for reading only.
    pub writer: Option<Writer>,
}

/// A run of guest bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Length in bytes.
    pub len: u64,
    /// File offset of its bytes; `None` for a hole.
    pub host: Option<u64>,
}

impl Image {
    /// Opens a disk whose header has been read.
    pub fn open(args: &OpenArgs, dynamic: Dynamic) -> Result<Self> {
        let info = dynamic.info(args)?;
        let mut meta = Meta {
            pages: Pages::new(Arc::clone(&args.storage)),
            file_len: dynamic.found.blocks_end(),
            writer: None,
        };
        if args.access == Access::ReadWrite {
            meta.writer = Some(Writer::new(&*args.storage, &dynamic)?);
        }
        Ok(Self {
            storage: Arc::clone(&args.storage),
            host_name: args.storage.name().into(),
            layout: dynamic.layout,
            info,
            gate: RwLock::new(()),
            meta: Mutex::new(meta),
            idle: Condvar::new(),
        })
    }

    /// Locks the tables.
    pub fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.info.virtual_size, offset, len)
            .map_err(|error| error.in_file(self.storage.name()))
    }

    fn named(&self, error: Error) -> Error {
        error.in_file(self.storage.name())
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let end = offset + buf.len() as u64;
        let (mut offset, mut buf) = (offset, buf);
        while offset < end {
            let plan_end = end.min(offset.saturating_add(PLAN_BYTES));
            for run in self.plan(offset, plan_end)? {
                let (now, rest) = buf.split_at_mut(run.len as usize);
                match run.host {
                    Some(host) => self.storage.read_at(host, now)?,
                    None => now.fill(0),
                }
                buf = rest;
                offset += run.len;
            }
        }
        Ok(())
    }

    fn plan(&self, offset: u64, end: u64) -> Result<Vec<Run>> {
        let mut meta = self.meta();
        let mut runs: Vec<Run> = Vec::new();
        let mut at = offset;
        while at < end {
            let run = meta.run(&self.layout, at, end)?;
            at += run.len;
            match runs.last_mut() {
                Some(last) if last.continues(&run) => last.len += run.len,
                _ => runs.push(run),
            }
        }
        Ok(runs)
    }

    fn find_extent(&self, offset: u64) -> Result<Run> {
        let size = self.info.virtual_size;
        let mut meta = self.meta();
        let mut found = meta.run(&self.layout, offset, size)?;
        for _ in 0..MAP_STEPS {
            let next = offset + found.len;
            if next >= size {
                break;
            }
            // Damage further on is reported when somebody asks for it.
            match meta.run(&self.layout, next, size) {
                Ok(run) if found.continues(&run) => found.len += run.len,
                _ => break,
            }
        }
        Ok(found)
    }

    /// Returns the extent of a run. Where the host stores nothing for a block, it is zeros.
    fn extent(&self, offset: u64, run: &Run) -> Result<Extent> {
        let Some(host) = run.host else {
            return Ok(Extent::new(offset, run.len, ExtentKind::Hole));
        };
        let stored = self.storage.next_extent(host)?;
        let extent = Extent::data(offset, run.len.min(stored.len), &self.host_name, host);
        let kind = if stored.data {
            ExtentKind::Data
        } else {
            ExtentKind::Zero
        };
        Ok(Extent { kind, ..extent })
    }
}

impl Run {
    fn continues(&self, next: &Run) -> bool {
        match (self.host, next.host) {
            (None, None) => true,
            (Some(host), Some(next)) => host + self.len == next,
            _ => false,
        }
    }
}

impl Meta {
    /// Returns the file offset of a block's bitmap; `None` if the block is not stored. Errors: the
    /// block is not in the file.
    pub fn slot(&mut self, layout: &Layout, block: u64) -> Result<Option<u64>> {
        let (page, at) = self.bat_tail(layout, block)?;
        let entry = page.get(at..).and_then(|tail| tail.first_chunk());
        let entry = entry.map_or(UNUSED, |bytes| u32::from_be_bytes(*bytes));
        if entry == UNUSED {
            return Ok(None);
        }
        check_slot(layout, block, entry, self.file_len).map(Some)
    }

    /// Returns the page of the BAT with a block's entry, and where in it the entry is.
    fn bat_tail(&mut self, layout: &Layout, block: u64) -> Result<(&[u8], usize)> {
        let (offset, len, at) = bat_page(layout, block);
        Ok((self.pages.read(offset, len)?, at))
    }

    /// Changes the BAT entry of a block.
    pub fn set_entry(&mut self, layout: &Layout, block: u64, entry: u32) -> Result<()> {
        let (offset, len, at) = bat_page(layout, block);
        let page = self.pages.change(offset, len)?;
        if let Some(slot) = page.get_mut(at..at + 4) {
            slot.copy_from_slice(&entry.to_be_bytes());
        }
        Ok(())
    }

    /// Returns the run that begins at guest `offset`, at most up to `end`: within one block, or
    /// blocks that are not stored of one page of the BAT.
    pub fn run(&mut self, layout: &Layout, offset: u64, end: u64) -> Result<Run> {
        let block = offset >> layout.block_shift;
        let range = layout.guest_range(block);
        let Some(slot) = self.slot(layout, block)? else {
            let (page, at) = self.bat_tail(layout, block)?;
            let n_unused = page
                .get(at..)
                .unwrap_or(&[])
                .chunks_exact(4)
                .take_while(|entry| **entry == UNUSED.to_be_bytes())
                .count() as u64;
            let hole_end = (block + n_unused.max(1)) << layout.block_shift;
            return Ok(Run {
                len: hole_end.min(end) - offset,
                host: None,
            });
        };
        let within = offset - range.start;
        let host = slot + layout.bitmap_bytes() + within;
        let len = range.end.min(end) - offset;
        if !layout.differencing {
            let host = Some(host);
            return Ok(Run { len, host });
        }
        let bitmap = self.pages.read(slot, layout.bitmap_bytes())?;
        let (is_stored, n_sectors) = bit_run(bitmap, within / SECTOR_BYTES);
        let run_end = (within / SECTOR_BYTES + n_sectors) * SECTOR_BYTES;
        Ok(Run {
            len: (run_end - within).min(len),
            host: is_stored.then_some(host),
        })
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
        let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.find_extent(offset)
            .and_then(|run| self.extent(offset, &run))
            .map_err(|error| self.named(error))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.write_guest(offset, buf)
            .map_err(|error| self.named(error))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        self.zero_guest(range).map_err(|error| self.named(error))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        if self.layout.differencing {
            // A hole would show the parent's old bytes.
            return Ok(());
        }
        self.zero_guest(range).map_err(|error| self.named(error))
    }

    fn flush(&self) -> Result<()> {
        self.flush_all().map_err(|error| self.named(error))
    }
}

/// Returns the file offset of the bitmap of a block with that BAT entry. Errors: the block is not
/// in a file of `file_len` bytes; the last block of a disk may be cut off where the disk ends.
pub fn check_slot(layout: &Layout, block: u64, entry: u32, file_len: u64) -> Result<u64> {
    let slot = u64::from(entry) * SECTOR_BYTES;
    let range = layout.guest_range(block);
    let end = slot + layout.bitmap_bytes() + (range.end - range.start);
    if end <= file_len && slot >= SECTOR_BYTES {
        return Ok(slot);
    }
    Err(Error::corrupt(
        format!("BAT, entry {block}"),
        format!("a block at sector {entry} is not in the file of {file_len} bytes"),
    )
    .at_byte(layout.bat_offset + block * 4))
}

/// Returns offset and length of the page with a block's entry, and where in it the entry is.
fn bat_page(layout: &Layout, block: u64) -> (u64, u64, usize) {
    let start = block * 4 / PAGE_BYTES * PAGE_BYTES;
    let len = (layout.n_entries * 4 - start).min(PAGE_BYTES);
    (layout.bat_offset + start, len, (block * 4 - start) as usize)
}

/// Returns whether the bit of a sector is set, and how many sectors from it on have such a bit.
pub fn bit_run(bitmap: &[u8], sector: u64) -> (bool, u64) {
    let is_set = |index: u64| {
        let byte = bitmap.get((index / 8) as usize).copied().unwrap_or(0);
        byte & (0x80 >> (index % 8)) != 0
    };
    let n_sectors = bitmap.len() as u64 * 8;
    let first = is_set(sector);
    let whole = if first { 0xff } else { 0 };
    let mut at = sector;
    while at < n_sectors {
        if at.is_multiple_of(8) && bitmap.get((at / 8) as usize) == Some(&whole) {
            at += 8;
        } else if is_set(at) == first {
            at += 1;
        } else {
            break;
        }
    }
    (first, (at - sector).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bits_are_found() {
        let bitmap = [0xff, 0xff, 0xf0, 0x00, 0x01];
        assert_eq!(bit_run(&bitmap, 0), (true, 20));
        assert_eq!(bit_run(&bitmap, 3), (true, 17));
        assert_eq!(bit_run(&bitmap, 20), (false, 19));
        assert_eq!(bit_run(&bitmap, 39), (true, 1));
    }
}
