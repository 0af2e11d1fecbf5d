//! Where new blocks go: into space that was freed, else to the end of the file; and the footer,
//! which always follows the last of them.

use std::collections::BTreeSet;

use hako_block::{Error, ErrorKind, Result, SECTOR_BYTES, Storage};

use super::footer::{FOOTER_BYTES, Footer};
use super::layout::{entry_of, slot_at, stride};
use super::open::Dynamic;

/// Bytes by which the file grows at most at once.
const MAX_GROWTH: u64 = 64 << 20;
/// Freed blocks kept before a flush is due.
const MAX_RELEASED: usize = 1 << 14;
/// Freed blocks remembered for being used again; what is beyond is leaked.
const MAX_FREE: usize = 1 << 20;

/// What is free in the file, and its footer.
pub struct Allocator {
    block_shift: u32,
    slot_bytes: u64,
    footer: Footer,
    /// Behind the last block: where the footer belongs.
    end: u64,
    /// Where the footer lies now; `None` if none lies at the file's end.
    tail: Option<u64>,
    /// Whether the copy at the beginning is as it should be.
    front_ok: bool,
    /// Blocks for which the file grows next.
    n_grow: u64,
    /// Space that nothing on disk refers to. May hold anything.
    free: BTreeSet<u64>,
    /// Space that the BAT on disk still refers to.
    released: Vec<u64>,
    /// Whether the host failed to sync: what it has lost is not known.
    failed: bool,
}

impl Allocator {
    /// Prepares the file of a disk for growing. Nothing that lies in it is used again.
    pub fn new(dynamic: &Dynamic) -> Self {
        let found = &dynamic.found;
        Self {
            block_shift: dynamic.layout.block_shift,
            slot_bytes: dynamic.layout.slot_bytes(),
            footer: found.footer.clone(),
            end: found
                .tail
                .unwrap_or(found.file_len)
                .next_multiple_of(SECTOR_BYTES),
            tail: found.tail.filter(|at| at + FOOTER_BYTES == found.file_len),
            front_ok: found.front_ok,
            n_grow: 1,
            free: BTreeSet::new(),
            released: Vec::new(),
            failed: false,
        }
    }

    /// Syncs. After a failure the host may have dropped what it could not write: nothing that
    /// refers to it may follow.
    pub fn sync(&mut self, storage: &dyn Storage) -> Result<()> {
        if self.failed {
            return Err(Error::new(
                ErrorKind::Io,
                "an earlier sync failed: what was written since the last flush is lost",
            )
            .hint("open the image again"));
        }
        storage.sync().inspect_err(|_| self.failed = true)
    }

    /// Returns whether a sync has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Brings the copy of the footer at the beginning in order, before anything else is changed.
    pub fn mend_front(&mut self, storage: &dyn Storage) -> Result<()> {
        if !self.front_ok {
            storage.write_at(0, &self.footer.encode())?;
            self.sync(storage)?;
            self.front_ok = true;
        }
        Ok(())
    }

    /// Takes space for a block with its bitmap, whose data reads as zeros.
    pub fn take(&mut self, storage: &dyn Storage) -> Result<u64> {
        if let Some(slot) = self.free.pop_first() {
            storage
                .punch_hole(slot..slot + self.slot_bytes)
                .inspect_err(|_| {
                    self.free.insert(slot);
                })?;
            return Ok(slot);
        }
        let slot = slot_at(self.block_shift, self.end);
        entry_of(slot)?;
        let end = slot + self.slot_bytes;
        if self.tail.is_none_or(|tail| tail < end) {
            self.grow(storage, end)?;
        }
        self.end = end;
        Ok(slot)
    }

    /// Puts a footer behind at least `end`; what lies between reads as zeros.
    fn grow(&mut self, storage: &dyn Storage, end: u64) -> Result<()> {
        // Exactly where a block ends: the footer will be overwritten by the bitmap of the next one.
        let tail = end + (self.n_grow - 1) * stride(self.block_shift);
        // Once the file is longer, its old footer is none.
        self.tail = None;
        storage.write_at(tail, &self.footer.encode())?;
        self.sync(storage)?;
        self.tail = Some(tail);
        self.n_grow = (self.n_grow * 2).min((MAX_GROWTH / self.slot_bytes).max(1));
        Ok(())
    }

    /// Returns the length that the file has at least.
    pub fn file_end(&self) -> u64 {
        self.tail.unwrap_or(self.end)
    }

    /// Takes back space that nothing on disk refers to.
    pub fn give_back(&mut self, slot: u64) {
        if self.free.len() < MAX_FREE {
            self.free.insert(slot);
        }
    }

    /// Takes back space that the BAT on disk still refers to.
    pub fn release(&mut self, slot: u64) {
        self.released.push(slot);
    }

    /// Returns whether so much was released that a flush is due.
    pub fn is_full(&self) -> bool {
        self.released.len() >= MAX_RELEASED
    }

    /// Lets space be used again that the BAT on disk no longer refers to, and draws the end of the
    /// file down to the last block in use.
    pub fn reuse_released(&mut self) {
        for slot in std::mem::take(&mut self.released) {
            self.give_back(slot);
        }
        while let Some(slot) = self.free.last().copied() {
            if slot + self.slot_bytes != self.end {
                break;
            }
            self.free.remove(&slot);
            self.end = slot;
        }
    }

    /// Writes the footer behind the last block, unless it lies there. Returns whether it wrote.
    pub fn write_footer(&mut self, storage: &dyn Storage) -> Result<bool> {
        if self.tail == Some(self.end) {
            return Ok(false);
        }
        storage.write_at(self.end, &self.footer.encode())?;
        Ok(true)
    }

    /// Cuts the file behind the footer, which has been written and synced.
    pub fn cut(&mut self, storage: &dyn Storage) -> Result<()> {
        self.tail = None;
        storage.set_len(self.end + FOOTER_BYTES)?;
        self.tail = Some(self.end);
        self.n_grow = 1;
        Ok(())
    }
}
