//! Writing in place.
//!
//! Order on disk: a new footer behind the space that is needed, sync, then data and bitmap of new
//! blocks (over the old footer), sync, then BAT and changed bitmaps, sync, then the footer at the
//! exact end, sync, and the file is cut there. Until a flush BAT and bitmaps change in memory
//! only: after a cut those on disk name only what is there, and a footer lies at the file's end.
//! Blocks that were freed are used again only after the flush that took them out of the BAT.

use std::ops::Range;
use std::sync::{MutexGuard, PoisonError};

use hako_block::{Error, Result, SECTOR_BYTES, Storage};

use super::allocate::Allocator;
use super::image::{Image, Meta, bit_run};
use super::layout::{UNUSED, entry_of};
use super::open::Dynamic;

/// The state of writing.
pub struct Writer {
    /// Gives out space for blocks.
    allocator: Allocator,
    /// Blocks that one thread is filling or whose bitmap it changes.
    busy: Vec<u64>,
    /// Whether something was written since the last flush.
    unsynced: bool,
}

/// What is written to a block.
#[derive(Clone, Copy)]
enum Content<'a> {
    Bytes(&'a [u8]),
    Zeros(u64),
}

impl Content<'_> {
    fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeros(len) => *len,
        }
    }

    fn write(&self, storage: &dyn Storage, host: u64) -> Result<()> {
        match self {
            Content::Bytes(bytes) => storage.write_at(host, bytes),
            Content::Zeros(len) => storage.punch_hole(host..host + len),
        }
    }
}

impl Writer {
    /// Prepares to write. Errors: the file is a block device, which has no end to move.
    pub fn new(storage: &dyn Storage, dynamic: &Dynamic) -> Result<Self> {
        if storage.is_device() {
            return Err(Error::unsupported(
                "a VHD on a block device cannot be written in place: its footer follows its end",
            ));
        }
        Ok(Self {
            allocator: Allocator::new(dynamic),
            busy: Vec::new(),
            unsynced: false,
        })
    }
}

impl Image {
    /// Writes guest bytes.
    pub fn write_guest(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.begin()?;
        let (mut offset, mut buf) = (offset, buf);
        while !buf.is_empty() {
            let len = self.in_block(offset, offset + buf.len() as u64);
            let (now, rest) = buf.split_at(len as usize);
            self.write_part(offset, Content::Bytes(now))?;
            offset += len;
            buf = rest;
        }
        Ok(())
    }

    /// Makes a guest range read as zeros: blocks are given up where no parent would show.
    pub fn zero_guest(&self, range: Range<u64>) -> Result<()> {
        self.begin()?;
        let mut offset = range.start;
        while offset < range.end {
            let run = self.meta().run(&self.layout, offset, range.end)?;
            if run.host.is_none() && !self.layout.differencing {
                offset += run.len;
                continue;
            }
            let len = self.in_block(offset, range.end);
            let block = offset >> self.layout.block_shift;
            if !self.layout.differencing && self.layout.guest_range(block) == (offset..offset + len)
            {
                self.give_up(block)?;
            } else {
                self.write_part(offset, Content::Zeros(len))?;
            }
            offset += len;
        }
        Ok(())
    }

    /// Refuses a read-only image, and one whose host has lost writes.
    fn begin(&self) -> Result<()> {
        let mut meta = self.meta();
        let writer = meta.writer.as_mut().ok_or_else(Error::read_only)?;
        if writer.allocator.has_failed() {
            return writer.allocator.sync(&*self.storage);
        }
        writer.allocator.mend_front(&*self.storage)
    }

    /// Returns how many bytes from `offset` to `end` are in its block.
    fn in_block(&self, offset: u64, end: u64) -> u64 {
        let block = offset >> self.layout.block_shift;
        self.layout.guest_range(block).end.min(end) - offset
    }

    /// Writes within one block.
    fn write_part(&self, offset: u64, content: Content<'_>) -> Result<()> {
        self.make_room()?;
        let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let block = offset >> self.layout.block_shift;
        let mut meta = self.idle_meta(block);
        let within = offset - self.layout.guest_range(block).start;
        let Some(slot) = meta.slot(&self.layout, block)? else {
            let slot = self.allocate(&mut meta, block)?;
            drop(meta);
            let filled = self.fill(slot, within, content);
            return self.finish(block, |meta| self.publish(meta, block, slot, filled));
        };
        let host = slot + self.layout.bitmap_bytes() + within;
        let sectors = within / SECTOR_BYTES..(within + content.len()).div_ceil(SECTOR_BYTES);
        if self.all_set(&mut meta, slot, sectors.clone())? {
            drop(meta);
            return content.write(&*self.storage, host);
        }
        self.claim(&mut meta, block);
        drop(meta);
        let written = self.write_unset(slot, within, content);
        self.finish(block, |meta| {
            written.and_then(|()| self.set_bits(meta, slot, sectors))
        })
    }

    /// Locks the tables for a change, once nobody is filling the block. The caller holds the gate,
    /// so that a flush comes before or after the change.
    fn idle_meta(&self, block: u64) -> MutexGuard<'_, Meta> {
        let busy = |meta: &mut Meta| {
            let writer = meta.writer.as_ref();
            writer.is_some_and(|writer| writer.busy.contains(&block))
        };
        let mut meta = self
            .idle
            .wait_while(self.meta(), busy)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = meta.writer.as_mut() {
            writer.unsynced = true;
        }
        meta
    }

    fn claim(&self, meta: &mut Meta, block: u64) {
        if let Some(writer) = meta.writer.as_mut() {
            writer.busy.push(block);
        }
    }

    /// Ends a claim with a change of the tables.
    fn finish(&self, block: u64, change: impl FnOnce(&mut Meta) -> Result<()>) -> Result<()> {
        let mut meta = self.meta();
        if let Some(writer) = meta.writer.as_mut() {
            writer.busy.retain(|busy| *busy != block);
        }
        let result = change(&mut meta);
        drop(meta);
        self.idle.notify_all();
        result
    }

    /// Takes space for a block, which is claimed.
    fn allocate(&self, meta: &mut Meta, block: u64) -> Result<u64> {
        let Meta {
            pages,
            file_len,
            writer,
        } = meta;
        let writer = writer.as_mut().ok_or_else(Error::read_only)?;
        let slot = writer.allocator.take(&*self.storage)?;
        pages.forget(slot);
        *file_len = (*file_len).max(writer.allocator.file_end());
        writer.busy.push(block);
        Ok(slot)
    }

    /// Writes the bitmap of a new block, all ones, and its content; the rest of it is zeros.
    fn fill(&self, slot: u64, within: u64, content: Content<'_>) -> Result<()> {
        let bitmap = vec![0xff; self.layout.bitmap_bytes() as usize];
        self.storage.write_at(slot, &bitmap)?;
        match content {
            Content::Bytes(bytes) => self
                .storage
                .write_at(slot + self.layout.bitmap_bytes() + within, bytes),
            Content::Zeros(_) => Ok(()),
        }
    }

    fn publish(&self, meta: &mut Meta, block: u64, slot: u64, filled: Result<()>) -> Result<()> {
        let published = filled
            .and_then(|()| entry_of(slot))
            .and_then(|entry| meta.set_entry(&self.layout, block, entry));
        if let (Err(_), Some(writer)) = (&published, meta.writer.as_mut()) {
            writer.allocator.give_back(slot);
        }
        published
    }

    fn all_set(&self, meta: &mut Meta, slot: u64, sectors: Range<u64>) -> Result<bool> {
        let bitmap = meta.pages.read(slot, self.layout.bitmap_bytes())?;
        let (is_set, len) = bit_run(bitmap, sectors.start);
        Ok(is_set && sectors.start + len >= sectors.end)
    }

    /// Writes where bits are clear: in a differencing disk what is stored there is nothing, so
    /// what the content leaves of such a sector becomes zeros.
    fn write_unset(&self, slot: u64, within: u64, content: Content<'_>) -> Result<()> {
        let host = slot + self.layout.bitmap_bytes();
        if self.layout.differencing {
            let end = within + content.len();
            for sector in [within / SECTOR_BYTES, (end - 1) / SECTOR_BYTES] {
                let start = sector * SECTOR_BYTES;
                let is_whole = within <= start && start + SECTOR_BYTES <= end;
                let mut meta = self.meta();
                if !is_whole && !self.all_set(&mut meta, slot, sector..sector + 1)? {
                    self.storage
                        .write_at(host + start, &[0; SECTOR_BYTES as usize])?;
                }
            }
        }
        content.write(&*self.storage, host + within)
    }

    fn set_bits(&self, meta: &mut Meta, slot: u64, sectors: Range<u64>) -> Result<()> {
        let bitmap = meta.pages.change(slot, self.layout.bitmap_bytes())?;
        for sector in sectors {
            if let Some(byte) = bitmap.get_mut((sector / 8) as usize) {
                *byte |= 0x80 >> (sector % 8);
            }
        }
        Ok(())
    }

    /// Stores a block no longer.
    fn give_up(&self, block: u64) -> Result<()> {
        self.make_room()?;
        let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut meta = self.idle_meta(block);
        let Some(slot) = meta.slot(&self.layout, block)? else {
            return Ok(());
        };
        meta.set_entry(&self.layout, block, UNUSED)?;
        meta.pages.forget(slot);
        if let Some(writer) = meta.writer.as_mut() {
            writer.allocator.release(slot);
        }
        Ok(())
    }

    /// Flushes if so much has changed that memory would not be bounded otherwise.
    fn make_room(&self) -> Result<()> {
        let is_due = {
            let meta = self.meta();
            let writer = meta.writer.as_ref();
            meta.pages.is_full() || writer.is_some_and(|writer| writer.allocator.is_full())
        };
        if is_due { self.flush_all() } else { Ok(()) }
    }

    /// Brings everything written so far to stable storage.
    pub fn flush_all(&self) -> Result<()> {
        // Waits for all who use offsets they looked up: freed blocks may be reused afterwards.
        let _closed = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut meta = self.meta();
        let Meta {
            pages,
            file_len,
            writer,
        } = &mut *meta;
        let Some(writer) = writer else {
            return Ok(());
        };
        if !writer.unsynced {
            return Ok(());
        }
        let (storage, allocator) = (&*self.storage, &mut writer.allocator);
        allocator.sync(storage)?;
        if pages.write_back()? {
            allocator.sync(storage)?;
        }
        allocator.reuse_released();
        if allocator.write_footer(storage)? {
            allocator.sync(storage)?;
            allocator.cut(storage)?;
        }
        *file_len = allocator.file_end();
        writer.unsynced = false;
        Ok(())
    }
}
