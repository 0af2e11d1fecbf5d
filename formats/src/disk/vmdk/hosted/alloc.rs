//! Where new grains and grain tables go: grains that were freed, else the end of the file.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering;

use hako_block::{Error, ErrorKind, Result, SECTOR_BYTES};

use super::geometry::{N_ADDRESSABLE_SECTORS, TABLE_BYTES};
use super::table::{Found, Grain, Tables};

/// Freed grains remembered; those beyond are leaked, their space given back to the host.
const MAX_FREE: usize = 1 << 16;

/// Consecutive new grains. They read as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Sector of the first.
    pub sector: u32,
    /// How many.
    pub n_grains: u64,
}

/// What is free in an extent.
pub struct Allocator {
    /// File offset of the next grain at the end of the file.
    end: u64,
    /// Grains that nothing refers to, on disk either, and that read as zeros.
    free: BTreeSet<u32>,
    /// File offsets of what is left of the space last taken for grain tables.
    table_space: Range<u64>,
}

impl Allocator {
    /// Finds the end of what is used.
    pub fn new(tables: &Tables) -> Result<Self> {
        let used = if tables.storage.is_device() {
            last_used_on_device(tables)?
        } else {
            tables.file_len.load(Ordering::Acquire)
        };
        let end = tables.geometry.align_up(used).ok_or_else(full)?;
        Ok(Self {
            end,
            free: BTreeSet::new(),
            table_space: 0..0,
        })
    }

    /// Takes up to `n_grains` consecutive grains, at least one.
    pub fn take(&mut self, tables: &Tables, n_grains: u64) -> Result<Space> {
        let grain_sectors = tables.geometry.grain / SECTOR_BYTES;
        let Some(sector) = self.free.pop_first() else {
            return self.extend(tables, n_grains);
        };
        let mut space = Space {
            sector,
            n_grains: 1,
        };
        while space.n_grains < n_grains {
            let next = u64::from(sector) + space.n_grains * grain_sectors;
            match u32::try_from(next) {
                Ok(next) if self.free.remove(&next) => space.n_grains += 1,
                _ => break,
            }
        }
        Ok(space)
    }

    /// Remembers grains that nothing refers to, and gives their space back to the host. One that
    /// cannot be made to read as zeros is leaked.
    pub fn give_back(&mut self, tables: &Tables, sectors: impl IntoIterator<Item = u32>) {
        for sector in sectors {
            let start = u64::from(sector) * SECTOR_BYTES;
            let punched = tables
                .storage
                .punch_hole(start..start + tables.geometry.grain);
            if punched.is_ok() && self.free.len() < MAX_FREE {
                self.free.insert(sector);
            }
        }
    }

    /// Takes the place of a grain table, filled with zeros.
    pub fn take_table(&mut self, tables: &Tables) -> Result<u32> {
        if self.table_space.is_empty() {
            let n_grains = (2 * TABLE_BYTES).div_ceil(tables.geometry.grain);
            let space = self.extend(tables, n_grains)?;
            let start = u64::from(space.sector) * SECTOR_BYTES;
            self.table_space = start..start + n_grains * tables.geometry.grain;
        }
        let offset = self.table_space.start;
        // Written, so that the host has the space and the file its length.
        tables
            .storage
            .write_at(offset, &[0; TABLE_BYTES as usize])?;
        self.table_space.start += TABLE_BYTES;
        u32::try_from(offset / SECTOR_BYTES).map_err(|_| full())
    }

    /// Takes grains at the end of the file, which grows.
    fn extend(&mut self, tables: &Tables, n_grains: u64) -> Result<Space> {
        let (start, end) = (self.end, self.end + n_grains * tables.geometry.grain);
        if end > N_ADDRESSABLE_SECTORS * SECTOR_BYTES {
            return Err(full());
        }
        // Under the allocator's lock, hence always longer than before.
        tables.storage.set_len(end)?;
        if tables.storage.is_device() {
            tables.storage.punch_hole(start..end)?;
        }
        self.end = end;
        tables.file_len.fetch_max(end, Ordering::AcqRel);
        let sector = u32::try_from(start / SECTOR_BYTES).map_err(|_| full())?;
        Ok(Space { sector, n_grains })
    }
}

fn full() -> Error {
    Error::new(
        ErrorKind::NoSpace,
        "the extent is full: its grains are addressed by 32-bit sector numbers",
    )
}

/// A device has no end of file that tells: the last grain or table does.
fn last_used_on_device(tables: &Tables) -> Result<u64> {
    let mut last = 0;
    let geometry = &tables.geometry;
    for directory in &tables.directories.copies {
        for table in 0..geometry.n_tables {
            let start = u64::from(directory.sector(table)) * SECTOR_BYTES;
            last = last.max(start + TABLE_BYTES);
        }
    }
    let mut index = 0;
    while index < geometry.n_tables {
        let table = match tables.find(index)? {
            Found::Empty(n_tables) => {
                index += n_tables;
                continue;
            }
            Found::Table(table) => table,
        };
        for entry in 0..super::geometry::TABLE_ENTRIES {
            if let Grain::At(sector) = tables.grain(&table, entry)? {
                last = last.max(u64::from(sector) * SECTOR_BYTES + geometry.grain);
            }
        }
        index += 1;
    }
    Ok(last)
}
