//! Rebuilds the index of a file whose directory is lost, from the markers before its grains.
//!
//! Kept in memory are runs, not entries: where in the file the grains of one grain table stand in
//! a row. A file written in one ascending pass has one run per table, 16 bytes for 32 MiB of disk;
//! the table itself is put together from its markers when it is needed.

use hako_block::{Error, Result, SECTOR_BYTES, Storage};

use super::marker::{self, Marker};
use super::tables::{TABLE_ENTRIES, Table};
use crate::disk::vmdk::header::SparseHeader;

/// Most runs kept: 16 MiB.
const MAX_RUNS: usize = 1 << 20;
/// How many sectors of damage are skipped in search of the next grain: 64 MiB.
const MAX_SKIPPED_SECTORS: u64 = 1 << 17;

/// Grains of one table that stand in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    table: u32,
    grain_sectors: u32,
    start_sector: u32,
    end_sector: u32,
}

/// All the runs of a file, by table and then as they come in the file.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    n_tables: u64,
}

impl Runs {
    /// Returns the runs of a table.
    pub(super) fn of_table(&self, number: u64) -> &[Run] {
        let start = self
            .runs
            .partition_point(|run| u64::from(run.table) < number);
        let end = self
            .runs
            .partition_point(|run| u64::from(run.table) <= number);
        &self.runs[start..end]
    }

    /// Returns the number of tables that the disk has.
    pub(super) fn n_tables(&self) -> u64 {
        self.n_tables
    }

    /// Puts a table together from its runs. Where a grain is there twice, the later one counts.
    pub(super) fn table(storage: &dyn Storage, runs: &[Run]) -> Result<Table> {
        let mut table = [0; TABLE_ENTRIES];
        for run in runs {
            let mut sector = run.start_sector;
            while sector < run.end_sector {
                let byte = u64::from(sector) * SECTOR_BYTES;
                let Marker::Grain { lba, len } = Marker::read(storage, byte)? else {
                    return Err(
                        Error::corrupt("grain marker", "changed since the scan").at_byte(byte)
                    );
                };
                let index = lba / u64::from(run.grain_sectors) % TABLE_ENTRIES as u64;
                table[index as usize] = sector;
                sector = next_sector(sector, len)
                    .ok_or_else(|| Error::corrupt("grain marker", "changed since the scan"))?;
            }
        }
        Ok(table)
    }
}

/// What a scan has found.
pub(super) struct Scan {
    /// The grains.
    pub(super) runs: Runs,
    /// What is missing or odd, a sentence each.
    pub(super) oddities: Vec<String>,
    /// Where the tables stand: the number of the table whose grains come before, and its sector.
    pub(super) tables: Vec<(u32, u32)>,
    /// Sector of the marker of the grain directory, if it comes after everything else: every grain
    /// that the writer had was written then, and none of them is damaged.
    pub(super) directory: Option<u32>,
}

/// Scans the file from its first grain on.
pub(super) fn scan(storage: &dyn Storage, header: &SparseHeader, file_len: u64) -> Result<Scan> {
    let scanner = Scanner {
        storage,
        header,
        file_len,
        runs: Vec::new(),
        open_run: None,
        n_grains: 0,
        last_lba: None,
        n_skipped_sectors: 0,
        tables: Vec::new(),
        n_strange_tables: 0,
        directory: None,
    };
    scanner.run()
}

struct Scanner<'a> {
    storage: &'a dyn Storage,
    header: &'a SparseHeader,
    file_len: u64,
    runs: Vec<Run>,
    /// The run that the next grain may continue.
    open_run: Option<Run>,
    n_grains: u64,
    last_lba: Option<u64>,
    n_skipped_sectors: u64,
    tables: Vec<(u32, u32)>,
    /// Tables that come after no grains of their own.
    n_strange_tables: u64,
    directory: Option<u32>,
}

/// A grain that is wholly in the file.
struct Found {
    sector: u32,
    lba: u64,
    len: u32,
}

impl Scanner<'_> {
    fn run(mut self) -> Result<Scan> {
        let mut sector = self.first_sector();
        while let Some(next) = self.step(sector)? {
            sector = next;
        }
        self.close_run()?;
        self.runs.sort_by_key(|run| run.table);
        let oddities = self.oddities(sector);
        let n_tables = self.header.n_grain_tables();
        let runs = self.runs;
        let is_whole = self.n_skipped_sectors == 0 && self.n_strange_tables == 0;
        Ok(Scan {
            runs: Runs { runs, n_tables },
            oddities,
            tables: self.tables,
            directory: self.directory.filter(|_| is_whole),
        })
    }

    fn first_sector(&self) -> u32 {
        let overhead = u32::try_from(self.header.overhead_sectors).unwrap_or(0);
        if u64::from(overhead) * SECTOR_BYTES < self.file_len {
            overhead.max(1)
        } else {
            1
        }
    }

    /// Takes in what stands at `sector`. Returns the sector after it, or `None` at the end.
    fn step(&mut self, sector: u32) -> Result<Option<u32>> {
        if let Some(found) = self.grain_at(sector)? {
            return self.take(&found).map(Some);
        }
        let before = self.open_run;
        self.close_run()?;
        if let Some((kind, n_sectors)) = self.index_at(sector)? {
            self.note(kind, sector, before);
            return Ok(sector.checked_add(1 + n_sectors));
        }
        let Some(found) = self.search(sector)? else {
            return Ok(None);
        };
        self.n_skipped_sectors += u64::from(found.sector - sector);
        self.take(&found).map(Some)
    }

    /// Returns the grain at `sector`, if a believable one is there to its end.
    fn grain_at(&self, sector: u32) -> Result<Option<Found>> {
        let byte = u64::from(sector) * SECTOR_BYTES;
        if byte + SECTOR_BYTES > self.file_len {
            return Ok(None);
        }
        let Marker::Grain { lba, len } = Marker::read(self.storage, byte)? else {
            return Ok(None);
        };
        let believable = lba < self.header.capacity_sectors
            && lba % self.header.grain_sectors == 0
            && u64::from(len) <= marker::max_compressed(self.header.grain_bytes())
            && byte + marker::GRAIN_MARKER_BYTES as u64 + u64::from(len) <= self.file_len;
        Ok(believable.then_some(Found { sector, lba, len }))
    }

    /// Remembers where a table or the directory is, for those who make the rest anew.
    fn note(&mut self, kind: u32, sector: u32, before: Option<Run>) {
        match (kind, before) {
            (marker::GRAIN_TABLE, Some(run)) if self.tables.len() < MAX_RUNS => {
                self.tables.push((run.table, sector.saturating_add(1)));
            }
            (marker::GRAIN_TABLE, _) => self.n_strange_tables += 1,
            (marker::GRAIN_DIRECTORY, _) => self.directory = Some(sector),
            _ => {}
        }
    }

    /// Returns the kind and the length of the table, directory or footer that a marker at `sector`
    /// announces.
    fn index_at(&self, sector: u32) -> Result<Option<(u32, u32)>> {
        let byte = u64::from(sector) * SECTOR_BYTES;
        if byte + SECTOR_BYTES > self.file_len {
            return Ok(None);
        }
        let Marker::Other { kind, n_sectors } = Marker::read(self.storage, byte)? else {
            return Ok(None);
        };
        let n_sectors = u32::try_from(n_sectors).unwrap_or(u32::MAX);
        let most = match kind {
            marker::GRAIN_TABLE => 4,
            marker::GRAIN_DIRECTORY => self.header.n_grain_tables().div_ceil(128),
            marker::FOOTER => 1,
            _ => 0,
        };
        let fits = n_sectors > 0 && u64::from(n_sectors) <= most;
        Ok(fits.then_some((kind, n_sectors)))
    }

    /// Looks past damage for a grain further into the disk than those before.
    fn search(&self, sector: u32) -> Result<Option<Found>> {
        let file_sectors = u32::try_from(self.file_len / SECTOR_BYTES).unwrap_or(u32::MAX);
        let limit = u64::from(sector) + MAX_SKIPPED_SECTORS;
        let limit = u32::try_from(limit).unwrap_or(u32::MAX).min(file_sectors);
        for sector in sector.saturating_add(1)..limit {
            if let Some(found) = self.grain_at(sector)?
                && self.last_lba.is_none_or(|last| found.lba > last)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Takes in a grain. Returns the sector after it.
    fn take(&mut self, found: &Found) -> Result<u32> {
        let grain = found.lba / self.header.grain_sectors;
        let end_sector = next_sector(found.sector, found.len)
            .ok_or_else(|| Error::corrupt("grain marker", "past what 32 bits can address"))?;
        let to_u32 =
            |number: u64| u32::try_from(number).map_err(|_| Error::invalid("grain number"));
        let table = to_u32(grain / TABLE_ENTRIES as u64)?;
        match &mut self.open_run {
            Some(run) if run.table == table => run.end_sector = end_sector,
            _ => {
                self.close_run()?;
                self.open_run = Some(Run {
                    table,
                    grain_sectors: to_u32(self.header.grain_sectors)?,
                    start_sector: found.sector,
                    end_sector,
                });
            }
        }
        // What comes after a directory was not in it.
        self.directory = None;
        self.n_grains += 1;
        self.last_lba = Some(found.lba);
        Ok(end_sector)
    }

    fn close_run(&mut self) -> Result<()> {
        if self.runs.len() >= MAX_RUNS {
            return Err(Error::unsupported(format!(
                "grains are in no order: more than {MAX_RUNS} runs"
            )));
        }
        self.runs.extend(self.open_run.take());
        Ok(())
    }

    fn oddities(&self, end_sector: u32) -> Vec<String> {
        let end = u64::from(end_sector) * SECTOR_BYTES;
        let mut oddities = vec![match self.last_lba {
            Some(lba) => format!(
                "salvaged: {} grains up to byte {end} of the file, the last at LBA {lba}; what \
                 the disk had after guest offset {} is missing and reads as zeros",
                self.n_grains,
                (lba + self.header.grain_sectors).min(self.header.capacity_sectors) * SECTOR_BYTES
            ),
            None => "salvaged: no grain was found; the whole disk reads as zeros".to_owned(),
        }];
        if self.n_skipped_sectors > 0 {
            oddities.push(format!(
                "salvaged: {} bytes in the midst of the file are damaged; grains in them are \
                 missing and read as zeros",
                self.n_skipped_sectors * SECTOR_BYTES
            ));
        }
        if end < self.file_len {
            oddities.push(format!(
                "salvaged: nothing of use in the last {} bytes of the file",
                self.file_len - end
            ));
        }
        oddities
    }
}

/// Returns the sector after a grain at `sector` with `len` compressed bytes.
fn next_sector(sector: u32, len: u32) -> Option<u32> {
    let n_sectors = marker::stored_bytes(len) / SECTOR_BYTES;
    sector.checked_add(u32::try_from(n_sectors).ok()?)
}
