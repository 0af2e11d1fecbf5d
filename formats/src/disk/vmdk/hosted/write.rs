//! Writing in place.
//!
//! Order on disk: data and the unclean flag, sync, grain tables and directory entries, sync, the
//! flag cleared, sync. Until a flush the changed tables are in memory only, so that after a cut
//! the tables on disk name only grains whose content is there. Grains that were freed are used
//! again only after the flush that took their last reference off the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hako_block::{Error, ErrorKind, Result, SECTOR_BYTES};

use super::alloc::{Allocator, Space};
use super::geometry::TABLE_BYTES;
use super::image::HostedImage;
use super::repair::Repair;
use super::table::{Grain, Table, Tables};

/// Changed tables kept in memory before they are flushed unasked: 2 MiB.
const MAX_DIRTY: usize = 1024;
/// Freed grains kept before the flush that makes them usable.
const MAX_FREED: usize = 1 << 16;
/// Bytes of consecutive tables written at once.
const MAX_TABLE_WRITE: usize = 1 << 18;
/// Hosted sparse header, field uncleanShutdown.
const UNCLEAN_OFFSET: u64 = 72;

/// What an extent open for writing has beside its tables.
pub struct Writer {
    /// Held for reading while grains are read or written, for writing once between freeing grains
    /// and using them again.
    grains: RwLock<()>,
    /// Held during a flush. What is left of an unclean shutdown before this writer, if any.
    flushing: Mutex<Option<Repair>>,
    dirty: Mutex<Dirty>,
    /// Grains that are being stored, each range by one thread.
    busy: Mutex<Vec<Range<u64>>>,
    /// Tells that one of them is done.
    released: Condvar,
    allocator: Mutex<Allocator>,
}

/// What is in memory only. Entries of tables change under this lock.
struct Dirty {
    tables: BTreeMap<u64, DirtyTable>,
    /// Tables whose directory entries are new.
    new_tables: BTreeSet<u64>,
    /// Sectors of grains that the tables on disk may still name.
    freed: Vec<u32>,
    /// Whether the flag is set on disk.
    unclean: bool,
    /// Set by a failed sync: what the host has lost cannot be known, so nothing is promised again.
    lost: bool,
    n_changes: u64,
}

struct DirtyTable {
    table: Arc<Table>,
    /// The number of its last change.
    change: u64,
}

/// What one flush writes.
struct Snapshot {
    tables: Vec<(u64, u64, Vec<u8>)>,
    new_tables: BTreeSet<u64>,
    freed: Vec<u32>,
}

impl Dirty {
    fn mark(&mut self, table: &Arc<Table>) {
        self.n_changes += 1;
        let dirty = DirtyTable {
            table: Arc::clone(table),
            change: self.n_changes,
        };
        self.tables.insert(table.index, dirty);
    }

    fn snapshot(&mut self) -> Snapshot {
        let tables = self.tables.iter().map(|(index, dirty)| {
            let mut bytes = Vec::with_capacity(TABLE_BYTES as usize);
            dirty.table.encode(&mut bytes);
            (*index, dirty.change, bytes)
        });
        Snapshot {
            tables: tables.collect(),
            new_tables: std::mem::take(&mut self.new_tables),
            freed: std::mem::take(&mut self.freed),
        }
    }
}

/// Grains that one thread is storing.
struct Claim<'a> {
    writer: &'a Writer,
    grains: Range<u64>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        locked(&self.writer.busy).retain(|busy| *busy != self.grains);
        self.writer.released.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Prepares an extent for writing. Writes nothing yet.
    pub fn new(tables: &Tables, unclean: bool) -> Result<Self> {
        Ok(Self {
            grains: RwLock::new(()),
            flushing: Mutex::new(unclean.then(Repair::default)),
            busy: Mutex::default(),
            released: Condvar::new(),
            dirty: Mutex::new(Dirty {
                tables: BTreeMap::new(),
                new_tables: BTreeSet::new(),
                freed: Vec::new(),
                unclean,
                lost: false,
                n_changes: 0,
            }),
            allocator: Mutex::new(Allocator::new(tables)?),
        })
    }

    /// Keeps grains where they are while the guard lives.
    pub fn use_grains(&self) -> RwLockReadGuard<'_, ()> {
        self.grains.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the dirty state for changing a table, which has a place in the file afterwards.
    fn change(&self, tables: &Tables, index: u64) -> Result<MutexGuard<'_, Dirty>> {
        let mut dirty = locked(&self.dirty);
        if dirty.lost {
            return Err(lost());
        }
        if !dirty.unclean {
            // On disk before any table is: the flush syncs it with the data.
            tables.storage.write_at(UNCLEAN_OFFSET, &[1])?;
            dirty.unclean = true;
        }
        for directory in &tables.directories.copies {
            if directory.sector(index) == 0 {
                let sector = locked(&self.allocator).take_table(tables)?;
                directory.set_sector(index, sector);
                dirty.new_tables.insert(index);
            }
        }
        Ok(dirty)
    }

    /// Keeps other threads from storing these grains while the guard lives.
    fn claim(&self, grains: Range<u64>) -> Claim<'_> {
        let overlaps = |busy: &mut Vec<Range<u64>>| {
            busy.iter()
                .any(|other| grains.start < other.end && other.start < grains.end)
        };
        let mut busy = self
            .released
            .wait_while(locked(&self.busy), overlaps)
            .unwrap_or_else(PoisonError::into_inner);
        busy.push(grains.clone());
        Claim {
            writer: self,
            grains,
        }
    }

    /// Makes entries, which are claimed, name new grains whose content is written.
    fn publish(
        &self,
        tables: &Tables,
        table: &Arc<Table>,
        entry: usize,
        space: Space,
    ) -> Result<()> {
        let mut dirty = self.change(tables, table.index)?;
        for (entry, sector) in (entry..).zip(sectors_of(tables, space)) {
            table.set_entry(entry, sector);
        }
        dirty.mark(table);
        Ok(())
    }

    /// Makes entries say hole or zeros, and frees their grains.
    pub fn release(
        &self,
        tables: &Tables,
        table: &Arc<Table>,
        entries: Range<usize>,
        value: Grain,
    ) -> Result<()> {
        let value = u32::from(value == Grain::Zero);
        if entries.clone().all(|entry| table.entry(entry) == value) {
            return Ok(());
        }
        let mut dirty = self.change(tables, table.index)?;
        // Marked first: a bad entry midway leaves those before it changed.
        dirty.mark(table);
        for entry in entries {
            if let Grain::At(sector) = tables.grain(table, entry)? {
                dirty.freed.push(sector);
            }
            table.set_entry(entry, value);
        }
        Ok(())
    }

    /// Makes an entry name a copy of its grain, which is on disk. Where it was is not used again
    /// while this extent is open.
    pub fn relocate(
        &self,
        tables: &Tables,
        table: &Arc<Table>,
        entry: usize,
        sector: u32,
    ) -> Result<()> {
        let mut dirty = self.change(tables, table.index)?;
        table.set_entry(entry, sector);
        dirty.mark(table);
        Ok(())
    }

    /// Makes entries beyond the capacity say hole; what they name may be anything and is let be.
    pub fn forget(&self, tables: &Tables, table: &Arc<Table>, entries: Range<usize>) -> Result<()> {
        let mut dirty = self.change(tables, table.index)?;
        dirty.mark(table);
        for entry in entries {
            table.set_entry(entry, 0);
        }
        Ok(())
    }

    /// Marks a table as changed, so that the next flush writes both copies.
    pub fn touch(&self, tables: &Tables, table: &Arc<Table>) -> Result<()> {
        self.change(tables, table.index)?.mark(table);
        Ok(())
    }

    /// Returns whether so much is in memory only that it is to be flushed unasked.
    pub fn has_much_to_flush(&self) -> bool {
        let dirty = locked(&self.dirty);
        dirty.tables.len() > MAX_DIRTY || dirty.freed.len() > MAX_FREED
    }

    /// Brings everything written before to stable storage.
    pub fn flush(&self, tables: &Tables) -> Result<()> {
        let mut repair = locked(&self.flushing);
        if let Some(repair) = &mut *repair
            && !locked(&self.dirty).tables.is_empty()
        {
            repair.go_on(self, tables);
        }
        let snapshot = locked(&self.dirty).snapshot();
        let written = self.sync(tables).and_then(|()| {
            if snapshot.tables.is_empty() && snapshot.new_tables.is_empty() {
                return Ok(());
            }
            write_snapshot(tables, &snapshot)?;
            self.sync(tables)
        });
        if let Err(error) = written {
            let mut dirty = locked(&self.dirty);
            dirty.new_tables.extend(snapshot.new_tables);
            dirty.freed.extend(snapshot.freed);
            return Err(error);
        }
        self.reuse(tables, &snapshot.freed);
        let is_repaired = repair.as_ref().is_none_or(|repair| repair.is_done(tables));
        self.settle(tables, &snapshot, is_repaired)
    }

    fn sync(&self, tables: &Tables) -> Result<()> {
        if locked(&self.dirty).lost {
            return Err(lost());
        }
        tables.storage.sync().inspect_err(|_| {
            locked(&self.dirty).lost = true;
        })
    }

    /// Lets grains be used again that the tables on disk no longer name.
    fn reuse(&self, tables: &Tables, freed: &[u32]) {
        if freed.is_empty() {
            return;
        }
        // Whoever found such a grain before it was freed is done with it after this.
        drop(self.grains.write().unwrap_or_else(PoisonError::into_inner));
        locked(&self.allocator).give_back(tables, freed.iter().copied());
    }

    /// Forgets what the flush has written; clears the flag if nothing came in meanwhile.
    fn settle(&self, tables: &Tables, snapshot: &Snapshot, is_repaired: bool) -> Result<()> {
        let mut dirty = locked(&self.dirty);
        for (index, change, _) in &snapshot.tables {
            if dirty
                .tables
                .get(index)
                .is_some_and(|now| now.change == *change)
            {
                dirty.tables.remove(index);
            }
        }
        let is_clean = dirty.tables.is_empty() && dirty.new_tables.is_empty();
        if !is_clean || !dirty.unclean || !is_repaired {
            return Ok(());
        }
        tables.storage.write_at(UNCLEAN_OFFSET, &[0])?;
        dirty.unclean = false;
        drop(dirty);
        self.sync(tables)
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Io,
        "an earlier sync failed: what was written before it may be lost",
    )
}

fn sectors_of(tables: &Tables, space: Space) -> impl Iterator<Item = u32> {
    let grain_sectors = tables.geometry.grain / SECTOR_BYTES;
    // The allocator checked that the end can be addressed.
    (0..space.n_grains).map(move |n| space.sector + (n * grain_sectors) as u32)
}

/// Writes tables, both copies, and the directory entries of new ones.
fn write_snapshot(tables: &Tables, snapshot: &Snapshot) -> Result<()> {
    for directory in &tables.directories.copies {
        let (mut start, mut bytes) = (0, Vec::new());
        for (index, _, table) in &snapshot.tables {
            let offset = u64::from(directory.sector(*index)) * SECTOR_BYTES;
            if offset != start + bytes.len() as u64 || bytes.len() >= MAX_TABLE_WRITE {
                write_some(tables, start, &bytes)?;
                (start, bytes) = (offset, Vec::new());
            }
            bytes.extend_from_slice(table);
        }
        write_some(tables, start, &bytes)?;
        for index in &snapshot.new_tables {
            let entry = directory.sector(*index).to_le_bytes();
            tables
                .storage
                .write_at(directory.entry_offset(*index), &entry)?;
        }
    }
    Ok(())
}

fn write_some(tables: &Tables, offset: u64, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    tables.storage.write_at(offset, bytes)
}

impl HostedImage {
    /// Returns the writer, if the extent is open for writing and the range inside the disk.
    pub(super) fn writer_for(&self, range: &Range<u64>) -> Result<&Writer> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        self.writer.as_ref().ok_or_else(Error::read_only)
    }

    pub(super) fn write(&self, mut offset: u64, mut buf: &[u8]) -> Result<()> {
        let writer = self.writer_for(&(offset..offset.saturating_add(buf.len() as u64)))?;
        while !buf.is_empty() {
            let n = {
                let _in_use = writer.use_grains();
                self.write_run(writer, offset, buf)?
            };
            offset += n;
            buf = &buf[n as usize..];
            self.flush_if_much(writer)?;
        }
        Ok(())
    }

    pub(super) fn flush_if_much(&self, writer: &Writer) -> Result<()> {
        if writer.has_much_to_flush() {
            writer.flush(&self.tables)?;
        }
        Ok(())
    }

    /// Writes as much of `buf` as is contiguous in the file. Returns how much that was.
    fn write_run(&self, writer: &Writer, offset: u64, buf: &[u8]) -> Result<u64> {
        let table = self
            .tables
            .get_or_new(self.geometry().place(offset).table)?;
        let run = self.run_of(&table, offset, offset + buf.len() as u64)?;
        let buf = &buf[..run.len as usize];
        match &run.host {
            Some(host) => self.storage().write_at(host.offset, buf)?,
            None => return self.store(writer, &table, offset..run.end(), buf),
        }
        Ok(run.len)
    }

    /// Stores grains of one table that are not stored yet. What `buf` does not fill of `range`,
    /// and of the grains around it, reads as zeros. Returns for how many bytes of `range` it did:
    /// none if another thread was faster, and then it is to be looked at again.
    pub(super) fn store(
        &self,
        writer: &Writer,
        table: &Arc<Table>,
        range: Range<u64>,
        buf: &[u8],
    ) -> Result<u64> {
        let grain = self.geometry().grain;
        let _claim = writer.claim(range.start / grain..range.end.div_ceil(grain));
        let run = self.run_of(table, range.start, range.end)?;
        if run.host.is_some() {
            return Ok(0);
        }
        let place = self.geometry().place(range.start);
        let wanted = (place.within + run.len).div_ceil(grain);
        let space = locked(&writer.allocator).take(&self.tables, wanted)?;
        let len = (space.n_grains * grain - place.within).min(run.len);
        let buf = &buf[..buf.len().min(len as usize)];
        let host = u64::from(space.sector) * SECTOR_BYTES + place.within;
        let written = if buf.is_empty() {
            Ok(())
        } else {
            self.storage().write_at(host, buf)
        };
        written
            .and_then(|()| writer.publish(&self.tables, table, place.entry, space))
            .inspect_err(|_| {
                let sectors = sectors_of(&self.tables, space);
                locked(&writer.allocator).give_back(&self.tables, sectors);
            })?;
        Ok(len)
    }
}
