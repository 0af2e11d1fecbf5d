//! From grain to sector: the grain directory in memory, its grain tables in a bounded cache.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, Result, SECTOR_BYTES, Storage};

use super::layout::cut;
use super::salvage::Runs;
use crate::disk::cache::Cache;
use crate::disk::vmdk::header::{N_GTES, SparseHeader};

/// Entries of a grain table.
pub(super) const TABLE_ENTRIES: usize = N_GTES as usize;
/// Bytes of a grain table.
pub(super) const TABLE_BYTES: usize = TABLE_ENTRIES * 4;
/// Tables kept in memory: 2 MiB.
const MAX_CACHED_TABLES: usize = 1024;

/// A grain table: 512 sectors of the file; 0 hole, 1 zeros if the header's flag says so.
pub(super) type Table = [u32; TABLE_ENTRIES];

/// What the tables say of a grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// Not in this file.
    Hole,
    /// All zeros.
    Zero,
    /// Stored, its marker at this sector of the file.
    Stored(u64),
}

/// Where the tables come from.
pub(super) enum Index {
    /// The grain directory: one sector of the file per grain table, 0 none.
    Directory(Vec<u32>),
    /// The markers, found by a scan of a damaged file.
    Scanned(Runs),
}

/// The tables of one extent file.
pub(super) struct Tables {
    storage: Arc<dyn Storage>,
    file_len: u64,
    has_zeroed_grains: bool,
    index: Index,
    cache: Cache<Table>,
    /// A hole of the host file, in which every table is empty and none need be read.
    host_hole: Mutex<Range<u64>>,
}

impl Tables {
    /// Reads the grain directory that `header` names.
    pub(super) fn load(
        storage: Arc<dyn Storage>,
        header: &SparseHeader,
        file_len: u64,
    ) -> Result<Self> {
        let n_bytes = header.n_grain_tables() * 4;
        let start = header.gd_sector.checked_mul(SECTOR_BYTES);
        let start = start
            .filter(|start| {
                start
                    .checked_add(n_bytes)
                    .is_some_and(|end| end <= file_len)
            })
            .ok_or_else(|| {
                cut(format!(
                    "{n_bytes} bytes at sector {} reach past end of file ({file_len} bytes)",
                    header.gd_sector
                ))
                .place("grain directory")
            })?;
        let mut bytes = vec![0; usize::try_from(n_bytes).map_err(|_| Error::invalid("capacity"))?];
        storage.read_at(start, &mut bytes)?;
        Ok(Self::new(
            storage,
            header,
            file_len,
            Index::Directory(words(&bytes).collect()),
        ))
    }

    /// Fills the struct.
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        header: &SparseHeader,
        file_len: u64,
        index: Index,
    ) -> Self {
        Self {
            storage,
            file_len,
            has_zeroed_grains: header.has_zeroed_grains(),
            index,
            cache: Cache::new(MAX_CACHED_TABLES),
            host_hole: Mutex::new(0..0),
        }
    }

    /// Returns the table with this number, or `None` if all its grains are holes.
    pub(super) fn table(&self, number: u64) -> Result<Option<Arc<Table>>> {
        if let Index::Scanned(runs) = &self.index {
            let runs = runs.of_table(number);
            if runs.is_empty() {
                return Ok(None);
            }
            let load = || Runs::table(&*self.storage, runs);
            return self.cache.get_or_load(number, load).map(Some);
        }
        let Some(byte) = self.table_byte(number)? else {
            return Ok(None);
        };
        if let Some(table) = self.cache.get(number) {
            return Ok(Some(table));
        }
        if self.in_host_hole(byte)? {
            return Ok(None);
        }
        self.cache
            .get_or_load(number, || read_table(&*self.storage, byte))
            .map(Some)
    }

    /// Returns the file offset of a table, or `None` if the directory has none. A table that a
    /// scan has put together has no offset.
    pub(super) fn table_byte(&self, number: u64) -> Result<Option<u64>> {
        let Index::Directory(entries) = &self.index else {
            return Ok(None);
        };
        let entry = usize::try_from(number).ok().and_then(|at| entries.get(at));
        let sector = u64::from(*entry.ok_or_else(|| Error::invalid("no such grain table"))?);
        let byte = sector * SECTOR_BYTES;
        if sector != 0 && byte + TABLE_BYTES as u64 > self.file_len {
            let place = format!("grain directory, entry {number}");
            return Err(self.past_end(sector).place(place));
        }
        Ok((sector != 0).then_some(byte))
    }

    /// Decodes entry `at` of table `number`.
    pub(super) fn grain(&self, number: u64, table: &Table, at: usize) -> Result<Grain> {
        let sector = table.get(at).copied().unwrap_or(0);
        match sector {
            0 => Ok(Grain::Hole),
            1 if self.has_zeroed_grains => Ok(Grain::Zero),
            _ if u64::from(sector) * SECTOR_BYTES >= self.file_len => {
                let place = format!("grain table {number}, entry {at}");
                Err(self.past_end(u64::from(sector)).place(place))
            }
            _ => Ok(Grain::Stored(u64::from(sector))),
        }
    }

    /// Returns the number of tables.
    pub(super) fn n_tables(&self) -> u64 {
        match &self.index {
            Index::Directory(entries) => entries.len() as u64,
            Index::Scanned(runs) => runs.n_tables(),
        }
    }

    fn past_end(&self, sector: u64) -> Error {
        cut(format!(
            "sector {sector} past end of file ({} sectors)",
            self.file_len / SECTOR_BYTES
        ))
    }

    fn in_host_hole(&self, byte: u64) -> Result<bool> {
        let end = byte + TABLE_BYTES as u64;
        let mut hole = self
            .host_hole
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !(hole.start <= byte && end <= hole.end) {
            let run = self.storage.next_extent(byte)?;
            if run.data || run.len < TABLE_BYTES as u64 {
                return Ok(false);
            }
            *hole = byte..byte + run.len;
        }
        Ok(true)
    }
}

/// Reads the table at file offset `byte`.
fn read_table(storage: &dyn Storage, byte: u64) -> Result<Table> {
    let mut bytes = [0; TABLE_BYTES];
    storage.read_at(byte, &mut bytes)?;
    let mut table = [0; TABLE_ENTRIES];
    for (entry, word) in table.iter_mut().zip(words(&bytes)) {
        *entry = word;
    }
    Ok(table)
}

/// Returns the little-endian numbers in `bytes`.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
}
