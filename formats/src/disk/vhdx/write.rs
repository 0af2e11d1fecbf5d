//! Writing in place.
//!
//! Data goes to its place at once; the BAT changes in memory only, until a flush has the data on
//! disk and brings the changes through the log ([`super::journal`]). So the BAT on disk names only
//! blocks whose content is there. A block that was freed is used again only after the flush that
//! took it off the BAT on disk.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hako_block::{Error, ErrorKind, ExtentKind, Result, Storage};

use super::image::Image;
use super::journal::Journal;
use super::layout::{Block, MIB, STATE_PRESENT};
use super::space::Space;
use super::structure::Structure;

/// Freed blocks kept before the flush that makes their places usable.
const MAX_FREED: usize = 4096;

/// What an image open for writing has beside its BAT.
pub struct Writer {
    /// Held for reading while blocks are read or written, for writing once between freeing blocks
    /// and using their places again.
    blocks: RwLock<()>,
    /// Blocks that are being stored or given up, each by one thread.
    busy: Mutex<Vec<u64>>,
    /// Tells that one of them is done.
    released: Condvar,
    space: Mutex<Space>,
    /// Places that the BAT on disk may still name. Changes with the BAT, under its lock.
    freed: Mutex<Vec<Range<u64>>>,
    /// Held during a flush.
    journal: Mutex<Journal>,
    /// Whether the GUIDs on disk tell of this writer.
    begun: AtomicBool,
    /// Whether there is anything to flush.
    changed: AtomicBool,
    /// Set by a failed sync: what the host has lost cannot be known, so nothing is promised again.
    lost: AtomicBool,
}

/// A block that one thread is changing the state of.
struct Claim<'a> {
    writer: &'a Writer,
    block: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        locked(&self.writer.busy).retain(|busy| *busy != self.block);
        self.writer.released.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Prepares an image for writing. Writes nothing yet.
    pub fn new(structure: &Structure) -> Result<Self> {
        Ok(Self {
            blocks: RwLock::new(()),
            busy: Mutex::default(),
            released: Condvar::new(),
            space: Mutex::new(Space::survey(structure)?),
            freed: Mutex::default(),
            journal: Mutex::new(structure.journal()?),
            begun: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        })
    }

    /// Keeps blocks where they are while the guard lives.
    pub fn use_blocks(&self) -> RwLockReadGuard<'_, ()> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the GUIDs before the first change of the content.
    fn begin(&self) -> Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(lost());
        }
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut journal = locked(&self.journal);
        if !self.begun.load(Ordering::Acquire) {
            let changed = journal.change_ids(true);
            self.noting(changed, journal.sync_failed())?;
            self.begun.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Takes note of a failure after which the disk may have lost what was written.
    fn noting(&self, result: Result<()>, sync_failed: bool) -> Result<()> {
        if sync_failed {
            self.lost.store(true, Ordering::Release);
        }
        result
    }

    /// Keeps other threads from changing the state of this block while the guard lives.
    fn claim(&self, block: u64) -> Claim<'_> {
        let mut busy = self
            .released
            .wait_while(locked(&self.busy), |busy| busy.contains(&block))
            .unwrap_or_else(PoisonError::into_inner);
        busy.push(block);
        Claim {
            writer: self,
            block,
        }
    }

    /// Takes a place that reads as zeros.
    fn take(&self, storage: &dyn Storage, len: u64) -> Result<Range<u64>> {
        // Held to the end: another thread's longer file must not be cut.
        let mut space = locked(&self.space);
        let file_len = storage.len_bytes()?;
        let offset = space.take(len)?;
        let range = offset..offset + len;
        let cleared = if offset < file_len {
            storage.punch_hole(offset..range.end.min(file_len))
        } else {
            Ok(())
        };
        let ready = cleared.and_then(|()| match range.end > file_len {
            true => storage.set_len(range.end),
            false => Ok(()),
        });
        ready.inspect_err(|_| space.give_back(&range))?;
        Ok(range)
    }

    /// Lets places be used again that the BAT on disk no longer names.
    fn reuse(&self, storage: &dyn Storage, freed: &[Range<u64>]) -> Result<()> {
        if freed.is_empty() {
            return Ok(());
        }
        // Whoever found such a block before it was freed is done with it after this.
        drop(self.blocks.write().unwrap_or_else(PoisonError::into_inner));
        let punched = freed
            .iter()
            .try_for_each(|range| storage.punch_hole(range.clone()));
        let mut space = locked(&self.space);
        freed.iter().for_each(|range| space.give_back(range));
        punched
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Io,
        "an earlier sync failed: what was written since the last flush may be lost",
    )
    .hint("open the image again")
}

impl Image {
    /// Returns the writer, ready, if the image is open for writing and the range on the disk.
    fn writer_for(&self, range: &Range<u64>) -> Result<&Writer> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        let writer = self.writer.as_ref().ok_or_else(Error::read_only)?;
        if !range.is_empty() {
            writer.begin()?;
        }
        Ok(writer)
    }

    /// Writes guest bytes.
    pub fn write(&self, mut offset: u64, mut buf: &[u8]) -> Result<()> {
        let writer = self.writer_for(&(offset..offset.saturating_add(buf.len() as u64)))?;
        while !buf.is_empty() {
            let written = {
                let _in_use = writer.use_blocks();
                self.write_run(writer, offset, buf)
            };
            writer.changed.store(true, Ordering::Release);
            let n = written?;
            offset += n;
            buf = &buf[n as usize..];
            self.make_room(writer)?;
        }
        Ok(())
    }

    /// Writes as much of `buf` as is contiguous in the file. Returns how much that was.
    fn write_run(&self, writer: &Writer, offset: u64, buf: &[u8]) -> Result<u64> {
        let run = self.run(offset, offset + buf.len() as u64)?;
        let block = offset >> self.layout.block_shift;
        let block_end = self.layout.start_of(block + 1);
        let end = match run.host {
            Some(_) => run.end,
            None => block_end.min(offset + buf.len() as u64),
        };
        let buf = &buf[..(end - offset) as usize];
        match run.host {
            Some(host) => self.storage.write_at(host, buf)?,
            None if !self.store(writer, block, offset, buf)? => return Ok(0),
            None => {}
        }
        Ok(buf.len() as u64)
    }

    /// Stores a block that is not, or only partially, stored yet; what `buf` does not fill reads
    /// as zeros, unless it is stored. Returns whether it did: not if another thread was faster,
    /// and then the block is to be looked at again.
    fn store(&self, writer: &Writer, block: u64, offset: u64, buf: &[u8]) -> Result<bool> {
        let _claim = writer.claim(block);
        let found = self.block(&mut self.bat(), block)?;
        let host = match found {
            Block::Full(_) => return Ok(false),
            Block::Partial(host) => {
                self.fill_holes(block, host)?;
                host..host + self.layout.block_bytes()
            }
            Block::Hole | Block::Zero => writer.take(&*self.storage, self.layout.block_bytes())?,
        };
        let within = offset - self.layout.start_of(block);
        let written = if buf.is_empty() {
            Ok(())
        } else {
            self.storage.write_at(host.start + within, buf)
        };
        let entry = self.layout.entry_of(block);
        written
            .and_then(|()| self.bat().set(entry, host.start | STATE_PRESENT))
            .inspect_err(|_| {
                if found.offset().is_none() {
                    locked(&writer.space).give_back(&host);
                }
            })?;
        Ok(true)
    }

    /// Makes the sectors of a partially present block that are not stored read as zeros, for when
    /// it is fully present. Until then the sector bitmap hides them.
    pub fn fill_holes(&self, block: u64, host: u64) -> Result<()> {
        let start = self.layout.start_of(block);
        let end = self
            .layout
            .start_of(block + 1)
            .min(self.layout.virtual_size);
        let mut offset = start;
        while offset < end {
            let run = self.run(offset, end)?;
            if run.host.is_none() {
                let at = host + (offset - start);
                self.storage.punch_hole(at..at + (run.end - offset))?;
            }
            offset = run.end;
        }
        Ok(())
    }

    /// Makes a range read as zeros, in an overlay too.
    pub fn zero(&self, range: Range<u64>) -> Result<()> {
        let state = super::layout::STATE_ZERO;
        self.clear(range, self.layout.has_parent, state)
    }

    /// Gives back what a range is stored in.
    pub fn trim(&self, range: Range<u64>) -> Result<()> {
        let state = if self.layout.has_parent {
            super::layout::STATE_ZERO
        } else {
            super::layout::STATE_UNMAPPED
        };
        self.clear(range, false, state)
    }

    /// Makes what is stored of a range read as zeros, and its holes too if `fill_holes`. Whole
    /// blocks get this state and are stored no more.
    fn clear(&self, range: Range<u64>, fill_holes: bool, state: u64) -> Result<()> {
        let writer = self.writer_for(&range)?;
        let mut offset = range.start;
        while offset < range.end {
            let in_use = writer.use_blocks();
            let run = self.run(offset, range.end)?;
            let is_done = match run.kind {
                ExtentKind::Zero => true,
                ExtentKind::Hole => !fill_holes,
                ExtentKind::Data => false,
            };
            if is_done {
                offset = run.end;
                continue;
            }
            let block = offset >> self.layout.block_shift;
            let start = self.layout.start_of(block);
            let block_end = self
                .layout
                .start_of(block + 1)
                .min(self.layout.virtual_size);
            let end = range.end.min(block_end);
            let is_whole = offset == start && end == block_end;
            let cleared = if is_whole && !self.leave_allocated {
                self.release(writer, block, state).map(|()| end)
            } else {
                self.clear_part(writer, block, offset..end.min(run.end), run.host)
            };
            drop(in_use);
            writer.changed.store(true, Ordering::Release);
            offset = cleared?;
            self.make_room(writer)?;
        }
        Ok(())
    }

    /// Zeroes a run inside a block. Returns where it ends.
    fn clear_part(
        &self,
        writer: &Writer,
        block: u64,
        range: Range<u64>,
        host: Option<u64>,
    ) -> Result<u64> {
        let found = self.block(&mut self.bat(), block)?;
        match (found, host) {
            (_, Some(host)) => {
                let len = range.end - range.start;
                self.storage.punch_hole(host..host + len)?;
            }
            (Block::Hole, None) => {
                self.release(writer, block, super::layout::STATE_ZERO)?;
            }
            // If another thread was faster, it is to be looked at again.
            (_, None) if !self.store(writer, block, range.start, &[])? => return Ok(range.start),
            (_, None) => {}
        }
        Ok(range.end)
    }

    /// Gives a block this state, and its place back with the next flush.
    fn release(&self, writer: &Writer, block: u64, state: u64) -> Result<()> {
        let _claim = writer.claim(block);
        let mut bat = self.bat();
        let found = self.block(&mut bat, block)?;
        bat.set(self.layout.entry_of(block), state)?;
        if let Some(offset) = found.offset() {
            locked(&writer.freed).push(offset..offset + self.layout.block_bytes());
        }
        Ok(())
    }

    /// Flushes if so much has changed that memory would not be bounded otherwise.
    fn make_room(&self, writer: &Writer) -> Result<()> {
        let is_due = self.bat().is_full() || locked(&writer.freed).len() >= MAX_FREED;
        if is_due { self.flush_all() } else { Ok(()) }
    }

    /// Brings everything written before to stable storage.
    pub fn flush_all(&self) -> Result<()> {
        let Some(writer) = &self.writer else {
            return Ok(());
        };
        let mut journal = locked(&writer.journal);
        if writer.lost.load(Ordering::Acquire) {
            return Err(lost());
        }
        if !writer.changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let (dirty, freed) = {
            let bat = self.bat();
            let freed = std::mem::take(&mut *locked(&writer.freed));
            (bat.dirty(), freed)
        };
        let sectors: Vec<_> = dirty.iter().map(|dirty| &dirty.sector).collect();
        let written = journal.commit(&sectors);
        if let Err(error) = writer.noting(written, journal.sync_failed()) {
            writer.changed.store(true, Ordering::Release);
            locked(&writer.freed).extend(freed);
            return Err(error);
        }
        self.bat().settle(&dirty);
        writer.reuse(&*self.storage, &freed)
    }
}

/// Blocks are whole places.
const _: () = assert!((*super::layout::BLOCK_BYTES.start()).is_multiple_of(MIB));
