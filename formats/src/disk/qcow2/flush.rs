//! In which order changes reach the disk, so that a cut at any point leaves each entry old or
//! new, and no cluster in use with a refcount too low:
//!
//! 1. data, new tables (empty), refcount blocks with the counts of new clusters;
//! 2. the refcount table's entries of new blocks;
//! 3. L1 and L2 entries;
//! 4. the lower counts of clusters that nothing refers to any more.

use std::sync::PoisonError;

use hako_block::{Error, ErrorKind, Result};

use super::image::{Image, Meta};
use super::tables::Class;

/// Released references kept before a flush is due.
pub const MAX_RELEASED: usize = 1 << 16;

impl Image {
    /// Brings everything written so far to stable storage.
    pub fn flush_all(&self) -> Result<()> {
        // Waits for all who use offsets they looked up: freed clusters may be reused afterwards.
        let _closed = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut meta = self.meta();
        let Some(writer) = &meta.writer else {
            return Ok(());
        };
        if writer.failed {
            return Err(failed_before());
        }
        if !writer.unsynced {
            return Ok(());
        }
        self.write_out(&mut meta)?;
        if let Some(writer) = meta.writer.as_mut() {
            writer.unsynced = false;
        }
        Ok(())
    }

    /// Flushes if so much has changed that memory would not be bounded otherwise.
    pub fn make_room(&self) -> Result<()> {
        let is_due = {
            let meta = self.meta();
            let released = meta
                .writer
                .as_ref()
                .map_or(0, |writer| writer.allocator.n_released());
            meta.tables.is_full() || released > MAX_RELEASED
        };
        if is_due { self.flush_all() } else { Ok(()) }
    }

    fn write_out(&self, meta: &mut Meta) -> Result<()> {
        meta.tables.write_back(Class::Refcounts)?;
        if self.layout().has_data_file {
            let synced = self.data.sync();
            note_failure(meta, synced)?;
        }
        self.sync(meta)?;
        for class in [Class::RefcountTable, Class::Mapping] {
            if meta.tables.write_back(class)? {
                self.sync(meta)?;
            }
        }
        let Meta { tables, writer } = meta;
        let Some(writer) = writer else {
            return Ok(());
        };
        let free = writer.allocator.free_released(tables)?;
        for range in free {
            self.storage.punch_hole(range)?;
        }
        if meta.tables.write_back(Class::Refcounts)? {
            self.sync(meta)?;
        }
        Ok(())
    }

    fn sync(&self, meta: &mut Meta) -> Result<()> {
        let synced = self.storage.sync();
        note_failure(meta, synced)
    }
}

/// After a failed sync the host may have dropped what it could not write: nothing that refers to
/// it may follow.
fn note_failure(meta: &mut Meta, synced: Result<()>) -> Result<()> {
    if let (Err(_), Some(writer)) = (&synced, meta.writer.as_mut()) {
        writer.failed = true;
    }
    synced
}

/// The error of every operation after a failed sync.
pub fn failed_before() -> Error {
    Error::new(
        ErrorKind::Io,
        "an earlier sync failed: what was written since the last flush is lost",
    )
    .hint("open the image again")
}
