//! Grain tables: their cache, which copy is believed, what an entry says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hako_block::{Error, Result, SECTOR_BYTES, Storage, StorageExtent};

use super::directory::{Copy, Directories, Directory, decode};
use super::geometry::{Geometry, TABLE_BYTES, TABLE_ENTRIES};

/// Grain tables kept in memory: 4 MiB, which cover 64 GiB of disk in grains of 64 KiB.
const MAX_CACHED: usize = 2048;
/// Grain tables read at once where they follow each other in the file.
const MAX_READ_AHEAD: u64 = 16;

/// What a grain table entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Nothing.
    Hole,
    /// Zeros.
    Zero,
    /// Stored at this sector.
    At(u32),
}

/// One grain table in memory. Entries change only under the lock of the extent's dirty state.
#[derive(Debug)]
pub struct Table {
    /// Its index, that is, its place in the directory.
    pub index: u64,
    /// Which copy it was read from.
    copy: Copy,
    /// File offset it was read from; 0 if it is new.
    offset: u64,
    entries: Vec<AtomicU32>,
}

impl Table {
    fn empty(index: u64) -> Self {
        Self {
            index,
            copy: Copy::First,
            offset: 0,
            entries: (0..TABLE_ENTRIES).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Takes a table from its bytes.
    pub fn decode(copy: Copy, index: u64, offset: u64, bytes: &[u8]) -> Self {
        Self {
            index,
            copy,
            offset,
            entries: decode(bytes).map(AtomicU32::new).collect(),
        }
    }

    /// Appends the table's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for entry in &self.entries {
            out.extend_from_slice(&entry.load(Ordering::Acquire).to_le_bytes());
        }
    }

    /// Returns an entry; 0 past the end.
    pub fn entry(&self, entry: usize) -> u32 {
        self.entries
            .get(entry)
            .map_or(0, |slot| slot.load(Ordering::Acquire))
    }

    /// Sets an entry.
    pub fn set_entry(&self, entry: usize, value: u32) {
        if let Some(slot) = self.entries.get(entry) {
            slot.store(value, Ordering::Release);
        }
    }
}

/// What there is at a place in the directory.
pub enum Found {
    /// A grain table.
    Table(Arc<Table>),
    /// So many grain tables, from this one on, in which nothing is allocated.
    Empty(u64),
}

/// The grain tables of one extent.
pub struct Tables {
    /// The extent file.
    pub storage: Arc<dyn Storage>,
    /// Its numbers.
    pub geometry: Geometry,
    /// Where the tables are.
    pub directories: Directories,
    /// Bytes in the file, as far as this driver knows: grows with what it allocates.
    pub file_len: AtomicU64,
    /// Whether the redundant tables may be stale: the file was not closed properly.
    unclean: bool,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    tables: HashMap<u64, Cached>,
    clock: u64,
}

struct Cached {
    table: Arc<Table>,
    used: u64,
}

impl Cache {
    fn hit(&mut self, index: u64) -> Option<Arc<Table>> {
        self.clock += 1;
        let cached = self.tables.get_mut(&index)?;
        cached.used = self.clock;
        Some(Arc::clone(&cached.table))
    }

    /// Adds a table that is not cached yet. Evicts those not used for longest, but never one that
    /// somebody holds: there must not be two copies of a table.
    fn insert(&mut self, table: Table) -> Arc<Table> {
        if self.tables.len() >= MAX_CACHED {
            let mut ages: Vec<u64> = self.tables.values().map(|cached| cached.used).collect();
            let (_, limit, _) = ages.select_nth_unstable(MAX_CACHED / 4);
            let limit = *limit;
            self.tables
                .retain(|_, cached| cached.used > limit || Arc::strong_count(&cached.table) > 1);
        }
        let table = Arc::new(table);
        let cached = Cached {
            table: Arc::clone(&table),
            used: self.clock,
        };
        self.tables.insert(table.index, cached);
        table
    }
}

impl Tables {
    /// Wraps the tables of an extent.
    pub fn new(
        storage: Arc<dyn Storage>,
        geometry: Geometry,
        directories: Directories,
        unclean: bool,
    ) -> Result<Self> {
        Ok(Self {
            file_len: AtomicU64::new(storage.len_bytes()?),
            storage,
            geometry,
            directories,
            unclean,
            cache: Mutex::default(),
        })
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the grain table at `index`, or how many there are, from there on, that have no
    /// entries. Tables in holes of the host file are not read.
    pub fn find(&self, index: u64) -> Result<Found> {
        // Held while reading, so that no table is ever loaded twice.
        let mut cache = self.cache();
        if let Some(table) = cache.hit(index) {
            return Ok(Found::Table(table));
        }
        let n_empty = self.count_empty(&cache, index)?;
        if n_empty > 0 {
            return Ok(Found::Empty(n_empty));
        }
        self.load(&mut cache, index).map(Found::Table)
    }

    /// Returns the grain table at `index`, for changing it: one that isn't there is made.
    pub fn get_or_new(&self, index: u64) -> Result<Arc<Table>> {
        let mut cache = self.cache();
        match cache.hit(index) {
            Some(table) => Ok(table),
            None => self.load(&mut cache, index),
        }
    }

    /// Returns what an entry of a grain table says. Errors: it names a sector where no grain can
    /// be. A grain at the end of the disk may be short in the file.
    pub fn grain(&self, table: &Table, entry: usize) -> Result<Grain> {
        let sector = table.entry(entry);
        if let Some(what) = self.entry_fault(table.index, entry, sector) {
            let place = format!("{} {}, entry {entry}", table.copy.table(), table.index);
            return Err(Error::corrupt(place, what).at_byte(table.offset + 4 * entry as u64));
        }
        Ok(match sector {
            0 => Grain::Hole,
            1 if self.geometry.zeroed_grains => Grain::Zero,
            _ => Grain::At(sector),
        })
    }

    /// Returns what is wrong with a value of an entry: no grain can be at that sector.
    pub fn entry_fault(&self, index: u64, entry: usize, sector: u32) -> Option<String> {
        let start = u64::from(sector) * SECTOR_BYTES;
        let file_len = self.file_len.load(Ordering::Acquire);
        match sector {
            0 => None,
            1 if self.geometry.zeroed_grains => None,
            _ if start < self.geometry.overhead => Some(format!(
                "sector {sector} lies before the first grain (sector {})",
                self.geometry.overhead / SECTOR_BYTES
            )),
            _ if start + self.geometry.grain_len(index, entry) > file_len => Some(format!(
                "sector {sector} past end of file ({} sectors)",
                file_len / SECTOR_BYTES
            )),
            _ => None,
        }
    }

    /// Returns the sector of a table in one directory, if its entry is good.
    pub fn sector(&self, directory: &Directory, index: u64) -> Option<u32> {
        let file_len = self.file_len.load(Ordering::Acquire);
        self.directories
            .check_entry(directory, index, file_len)
            .ok()?
    }

    /// Returns the directory and file offset to read a grain table from: the first copy that
    /// has it.
    fn position(&self, index: u64) -> Result<Option<(&Directory, u64)>> {
        let file_len = self.file_len.load(Ordering::Acquire);
        let mut failed = None;
        for directory in &self.directories.copies {
            match self.directories.check_entry(directory, index, file_len) {
                Ok(Some(sector)) => return Ok(Some((directory, u64::from(sector) * SECTOR_BYTES))),
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Returns how many tables from `index` on are not there or in holes of the host file. One
    /// that is cached may have entries that are not in the file yet.
    fn count_empty(&self, cache: &Cache, index: u64) -> Result<u64> {
        let mut run = None;
        for table in index..self.geometry.n_tables {
            let is_empty = match self.position(table) {
                _ if cache.tables.contains_key(&table) => false,
                Ok(None) => true,
                Ok(Some((_, offset))) => self.is_in_hole(&mut run, offset)?,
                Err(error) if table == index => return Err(error),
                Err(_) => false,
            };
            if !is_empty {
                return Ok(table - index);
            }
        }
        Ok(self.geometry.n_tables - index)
    }

    /// Returns whether the table at a file offset lies in a hole of the host file. `run` is the
    /// run that was looked at last.
    pub fn is_in_hole(&self, run: &mut Option<StorageExtent>, offset: u64) -> Result<bool> {
        let known = run.filter(|run| (run.offset..run.offset + run.len).contains(&offset));
        let run = match known {
            Some(run) => run,
            None => *run.insert(self.storage.next_extent(offset)?),
        };
        Ok(!run.data && offset + TABLE_BYTES <= run.offset + run.len)
    }

    fn load(&self, cache: &mut Cache, index: u64) -> Result<Arc<Table>> {
        let Some((directory, offset)) = self.position(index)? else {
            return Ok(cache.insert(Table::empty(index)));
        };
        let (table, fault) = match self.read_run(directory, index, offset) {
            Ok((table, behind)) => {
                for table in behind {
                    let is_new = !cache.tables.contains_key(&table.index);
                    if is_new && self.first_fault(&table).is_none() {
                        cache.insert(table);
                    }
                }
                let fault = self.first_fault(&table);
                (Some(table), fault)
            }
            Err(error) => (None, Some(error)),
        };
        let table = match fault {
            Some(fault) => match self.other_copy(directory.copy, index) {
                Some(other) => other,
                None => table.ok_or(fault)?,
            },
            None => table.unwrap_or_else(|| Table::empty(index)),
        };
        Ok(cache.insert(table))
    }

    /// Reads a table and those behind it that are contiguous with it.
    fn read_run(
        &self,
        directory: &Directory,
        index: u64,
        offset: u64,
    ) -> Result<(Table, Vec<Table>)> {
        let file_len = self.file_len.load(Ordering::Acquire);
        let follows = |n: &u64| {
            let expected = offset + n * TABLE_BYTES;
            index + n < self.geometry.n_tables
                && u64::from(directory.sector(index + n)) * SECTOR_BYTES == expected
                && expected + TABLE_BYTES <= file_len
        };
        let n_tables = 1 + (1..MAX_READ_AHEAD).take_while(follows).count();
        let mut bytes = vec![0; n_tables * TABLE_BYTES as usize];
        if self.storage.read_at(offset, &mut bytes).is_err() {
            bytes.truncate(TABLE_BYTES as usize);
            self.storage.read_at(offset, &mut bytes)?;
        }
        let mut tables = (0..)
            .zip(bytes.chunks_exact(TABLE_BYTES as usize))
            .map(|(n, bytes)| {
                Table::decode(directory.copy, index + n, offset + n * TABLE_BYTES, bytes)
            });
        let first = tables.next().unwrap_or_else(|| Table::empty(index));
        Ok((first, tables.collect()))
    }

    /// Returns the error of the first entry that cannot be right.
    pub fn first_fault(&self, table: &Table) -> Option<Error> {
        (0..TABLE_ENTRIES).find_map(|entry| self.grain(table, entry).err())
    }

    /// Returns a table's other copy, if all of it can be right. Not after an unclean shutdown,
    /// when it may be older than the first.
    fn other_copy(&self, copy: Copy, index: u64) -> Option<Table> {
        let directory = self
            .directories
            .copies
            .iter()
            .find(|other| other.copy != copy)?;
        let sector = self.sector(directory, index)?;
        let offset = u64::from(sector) * SECTOR_BYTES;
        let mut bytes = vec![0; TABLE_BYTES as usize];
        self.storage.read_at(offset, &mut bytes).ok()?;
        let table = Table::decode(directory.copy, index, offset, &bytes);
        (!self.unclean && self.first_fault(&table).is_none()).then_some(table)
    }
}
