//! What every verb begins with: headers, log, region tables, metadata, read and checked.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Access, Error, Result, Storage};

use super::header::Headers;
use super::journal::Journal;
use super::layout::{Layout, MAX_FILE_BYTES, MIB};
use super::metadata::Metadata;
use super::region::{RegionTables, TABLE_OFFSETS};
use super::replay::{Changes, Replayed};

/// The structure of a file.
pub struct Structure {
    /// The file as it is with its log replayed.
    pub storage: Arc<dyn Storage>,
    /// The headers.
    pub headers: Headers,
    /// The region tables.
    pub regions: RegionTables,
    /// The metadata.
    pub metadata: Metadata,
    /// The BAT's region.
    pub bat: Range<u64>,
    /// Entries of the log that are shown over the file and not in it.
    pub n_replayed: Option<usize>,
}

/// Refuses a file that is too long for any VHDX: what is kept of its places would be too.
pub fn check_len(len: u64) -> Result<()> {
    if len > MAX_FILE_BYTES {
        return Err(Error::unsupported(format!(
            "a file of {len} bytes; a VHDX of 64 TiB needs less than {MAX_FILE_BYTES}"
        )));
    }
    Ok(())
}

impl Structure {
    /// Reads it. For writing, replays the log into the file first, and mends a region table that
    /// is not like the other one.
    pub fn open(storage: &Arc<dyn Storage>, access: Access) -> Result<Self> {
        let len = storage.len_bytes()?;
        check_len(len)?;
        let mut structure = Self::read(storage)?;
        if access == Access::ReadOnly {
            return Ok(structure);
        }
        let log = structure.headers.current.log_area()?;
        if log.end > len {
            // What is written goes through the log first: it would make the file as long as that.
            let what = format!("lies at {:#x}, past the end of the file", log.start);
            return Err(Error::corrupt("header, log", what));
        }
        if structure.n_replayed.is_some() {
            replay(storage, &structure.headers)?;
            structure = Self::read(storage)?;
        }
        if structure.regions.need_mending() {
            structure.write_region_tables()?;
            structure.regions.bad.clear();
            structure.regions.differ = false;
        }
        Ok(structure)
    }

    fn read(storage: &Arc<dyn Storage>) -> Result<Self> {
        let headers = Headers::read(&**storage)?;
        let changes = Changes::read(&**storage, &headers.current)?;
        let n_replayed = changes.as_ref().map(|changes| changes.n_entries);
        let storage: Arc<dyn Storage> = match changes {
            Some(changes) => Arc::new(Replayed::new(
                Arc::clone(storage),
                headers.current.clone(),
                changes,
            )?),
            None => Arc::clone(storage),
        };
        let regions = RegionTables::read(&*storage)?;
        let metadata = Metadata::read(&*storage, regions.current.metadata()?)?;
        let bat = regions.current.bat()?;
        let structure = Self {
            storage,
            headers,
            regions,
            metadata,
            bat,
            n_replayed,
        };
        structure.check_log_place()?;
        Ok(structure)
    }

    /// Returns the sizes.
    pub fn layout(&self) -> &Layout {
        &self.metadata.layout
    }

    /// Returns a writer of headers and log. The structure was opened for writing.
    pub fn journal(&self) -> Result<Journal> {
        Journal::new(Arc::clone(&self.storage), &self.headers)
    }

    /// Returns the parts of the file that are never blocks: header section, log, regions.
    pub fn reserved(&self) -> Vec<Range<u64>> {
        let header_section = std::iter::once(0..MIB);
        let regions = self.regions.current.regions.iter();
        header_section
            .chain(self.headers.current.log_area())
            .chain(regions.map(|region| region.range()))
            .collect()
    }

    /// Returns what is odd about the file.
    pub fn oddities(&self) -> Vec<String> {
        let log = match self.n_replayed {
            Some(0) => {
                Some("was not closed: the log is marked used, but has no whole entry".to_owned())
            }
            Some(n) => Some(format!(
                "was not closed: {n} log entries are replayed in memory; opening it for writing \
                 writes them"
            )),
            None => None,
        };
        let headers = self.headers.oddities();
        headers.chain(self.regions.oddities()).chain(log).collect()
    }

    /// Writes the region table that counts over the other one.
    pub fn write_region_tables(&self) -> Result<()> {
        let bytes = self.regions.current.encode();
        // The second first: as long as the first is whole, it counts.
        for offset in TABLE_OFFSETS.into_iter().rev() {
            self.storage.write_at(offset, &bytes)?;
            self.storage.sync()?;
        }
        Ok(())
    }

    /// Refuses a log that overlaps a region.
    fn check_log_place(&self) -> Result<()> {
        let Ok(log) = self.headers.current.log_area() else {
            return Ok(());
        };
        for region in &self.regions.current.regions {
            let range = region.range();
            if range.start < log.end && log.start < range.end {
                return Err(Error::corrupt(
                    "header, log",
                    format!("overlaps the region at {:#x}", range.start),
                )
                .at_byte(log.start));
            }
        }
        Ok(())
    }
}

/// Writes what the log says into the file and empties the log.
fn replay(storage: &Arc<dyn Storage>, headers: &Headers) -> Result<()> {
    if let Some(changes) = Changes::read(&**storage, &headers.current)? {
        changes.apply(&**storage, &headers.current)?;
    }
    Journal::new(Arc::clone(storage), headers)?.close()?;
    storage.sync()
}
