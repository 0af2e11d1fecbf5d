//! The BAT in memory: a bounded number of its sectors, changed ones until they are on disk.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, Result, Storage};

use super::bytes::{put, u64_at};
use super::journal::Sector;
use super::layout::ENTRY_BYTES;
use super::log::SECTOR;

/// Entries in a sector.
pub const PER_SECTOR: u64 = SECTOR / ENTRY_BYTES;
/// Sectors kept in memory: 8 MiB, the entries of 2 TiB in blocks of 2 MiB.
const MAX_SECTORS: usize = 2048;
/// Changed ones kept before a flush is due.
pub const MAX_DIRTY: usize = MAX_SECTORS / 4;

/// The BAT of an image.
pub struct Bat {
    storage: Arc<dyn Storage>,
    /// Where its region begins in the file.
    offset: u64,
    n_entries: u64,
    sectors: HashMap<u64, Cached>,
    clock: u64,
    /// Counts changes.
    n_changes: u64,
    n_dirty: usize,
}

struct Cached {
    bytes: Vec<u8>,
    used: u64,
    /// The number of its last change that is not on disk.
    change: Option<u64>,
}

/// A changed sector as it is to be written.
pub struct Dirty {
    /// The sector's number in the BAT.
    pub index: u64,
    /// The number of its last change.
    pub change: u64,
    /// What to write where.
    pub sector: Sector,
}

impl Bat {
    /// Returns the BAT in `region`, of which the first `n_entries` are used. Errors: it does not
    /// lie in its region, or that not in the file.
    pub fn new(storage: Arc<dyn Storage>, region: Range<u64>, n_entries: u64) -> Result<Self> {
        let file_len = storage.len_bytes()?;
        if region.end > file_len {
            return Err(Error::corrupt(
                "BAT",
                format!("ends at {:#x}, the file at {file_len:#x}", region.end),
            ));
        }
        if n_entries * ENTRY_BYTES > region.end - region.start {
            return Err(Error::corrupt(
                "BAT",
                format!(
                    "{n_entries} entries are needed, its region of {} bytes is too small",
                    region.end - region.start
                ),
            )
            .at_byte(region.start));
        }
        Ok(Self {
            storage,
            offset: region.start,
            n_entries,
            sectors: HashMap::new(),
            clock: 0,
            n_changes: 0,
            n_dirty: 0,
        })
    }

    /// Returns how many entries are used.
    pub fn n_entries(&self) -> u64 {
        self.n_entries
    }

    /// Returns the file offset of an entry.
    pub fn entry_offset(&self, entry: u64) -> u64 {
        self.offset + entry * ENTRY_BYTES
    }

    /// Returns an entry.
    pub fn get(&mut self, entry: u64) -> Result<u64> {
        let at = (entry % PER_SECTOR * ENTRY_BYTES) as usize;
        Ok(u64_at(&self.sector(entry / PER_SECTOR)?.bytes, at))
    }

    /// Changes an entry, in memory.
    pub fn set(&mut self, entry: u64, word: u64) -> Result<()> {
        let at = (entry % PER_SECTOR * ENTRY_BYTES) as usize;
        self.n_changes += 1;
        let change = self.n_changes;
        let sector = self.sector(entry / PER_SECTOR)?;
        put(&mut sector.bytes, at, &word.to_le_bytes());
        if sector.change.replace(change).is_none() {
            self.n_dirty += 1;
        }
        Ok(())
    }

    /// Returns the entry before which all entries from `entry` on are 0 because the host stores
    /// nothing for them; `entry` itself if it must be looked at.
    pub fn hole_end(&self, entry: u64) -> Result<u64> {
        let (index, offset) = (entry / PER_SECTOR, self.entry_offset(entry));
        if self.sectors.contains_key(&index) {
            return Ok(entry);
        }
        let extent = self.storage.next_extent(offset)?;
        if extent.data || extent.len < SECTOR {
            return Ok(entry);
        }
        let end = (entry + extent.len / ENTRY_BYTES).min(self.n_entries);
        // A sector in memory may say more than the host has.
        let first_changed = self
            .sectors
            .iter()
            .filter(|(at, sector)| **at > index && sector.change.is_some())
            .map(|(at, _)| at * PER_SECTOR)
            .min();
        Ok(first_changed.map_or(end, |changed| end.min(changed)))
    }

    /// Returns whether so much has changed that it should be flushed.
    pub fn is_full(&self) -> bool {
        self.n_dirty >= MAX_DIRTY
    }

    /// Returns the changed sectors, in the order of the file.
    pub fn dirty(&self) -> Vec<Dirty> {
        let mut dirty: Vec<Dirty> = self
            .sectors
            .iter()
            .filter_map(|(index, sector)| {
                Some(Dirty {
                    index: *index,
                    change: sector.change?,
                    sector: (self.offset + index * SECTOR, sector.bytes.clone()),
                })
            })
            .collect();
        dirty.sort_unstable_by_key(|dirty| dirty.index);
        dirty
    }

    /// Takes note that sectors are on disk, as far as they have not changed since.
    pub fn settle(&mut self, written: &[Dirty]) {
        for dirty in written {
            if let Some(sector) = self.sectors.get_mut(&dirty.index)
                && sector.change == Some(dirty.change)
            {
                sector.change = None;
                self.n_dirty -= 1;
            }
        }
    }

    fn sector(&mut self, index: u64) -> Result<&mut Cached> {
        self.clock += 1;
        let clock = self.clock;
        if !self.sectors.contains_key(&index) {
            let offset = self.offset + index * SECTOR;
            let mut bytes = vec![0; SECTOR as usize];
            self.storage.read_at(offset, &mut bytes)?;
            self.make_room();
            let sector = Cached {
                bytes,
                used: clock,
                change: None,
            };
            self.sectors.insert(index, sector);
        }
        let sector = self
            .sectors
            .get_mut(&index)
            .ok_or_else(|| Error::corrupt("BAT", "past its end"))?;
        sector.used = clock;
        Ok(sector)
    }

    /// Drops the older half of the unchanged sectors when there are too many.
    fn make_room(&mut self) {
        if self.sectors.len() < MAX_SECTORS {
            return;
        }
        let clean = self
            .sectors
            .values()
            .filter(|sector| sector.change.is_none());
        let mut used: Vec<u64> = clean.map(|sector| sector.used).collect();
        if used.is_empty() {
            return;
        }
        let middle = used.len() / 2;
        let (_, median, _) = used.select_nth_unstable(middle);
        let median = *median;
        self.sectors
            .retain(|_, sector| sector.change.is_some() || sector.used > median);
    }
}

/// Calls `each` with the number and the word of every entry that is not 0, in order. Takes time by
/// what the host stores of the BAT.
pub fn each_entry(
    storage: &dyn Storage,
    region: &Range<u64>,
    n_entries: u64,
    mut each: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    const CHUNK: u64 = 256 << 10;
    let end = region.end.min(region.start + n_entries * ENTRY_BYTES);
    let mut buf = Vec::new();
    let mut at = region.start;
    while at < end {
        let extent = storage.next_extent(at)?;
        // An entry that begins in a hole may end behind it.
        let n_empty = extent.len / ENTRY_BYTES;
        if !extent.data && n_empty > 0 {
            at += n_empty * ENTRY_BYTES;
            continue;
        }
        let len = CHUNK.min(end - at);
        buf.resize(len as usize, 0);
        storage.read_at(at, &mut buf)?;
        let first = (at - region.start) / ENTRY_BYTES;
        for (index, word) in buf.as_chunks::<8>().0.iter().enumerate() {
            if *word != [0; 8] {
                each(first + index as u64, u64::from_le_bytes(*word))?;
            }
        }
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::MemoryStorage;

    #[test]
    fn memory_stays_bounded_and_changes_survive() {
        let len = 4 * MAX_SECTORS as u64 * SECTOR;
        let storage = Arc::new(MemoryStorage::new("t", vec![0; len as usize]));
        let mut bat = Bat::new(storage, 0..len, len / 8).unwrap();
        bat.set(5, 77).unwrap();
        for sector in 0..len / SECTOR {
            bat.get(sector * PER_SECTOR).unwrap();
            assert!(bat.sectors.len() <= MAX_SECTORS);
        }
        assert_eq!(bat.get(5).unwrap(), 77);
        let dirty = bat.dirty();
        assert_eq!((dirty.len(), dirty[0].sector.0), (1, 0));
        bat.set(6, 1).unwrap();
        bat.settle(&dirty);
        assert_eq!(bat.n_dirty, 1, "changed again meanwhile");
        bat.settle(&bat.dirty());
        assert_eq!(bat.n_dirty, 0);
    }

    #[test]
    fn bat_that_is_too_small_is_refused() {
        let storage = || Arc::new(MemoryStorage::new("t", vec![0; 8192]));
        assert!(Bat::new(storage(), 0..8192, 1024).is_ok());
        assert!(Bat::new(storage(), 0..8192, 1025).is_err());
        assert!(Bat::new(storage(), 0..16384, 1).is_err());
    }
}
