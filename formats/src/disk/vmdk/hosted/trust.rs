//! Which of the grain tables that the directories name can be trusted to be tables: those whose
//! place nothing else uses.

use std::ops::Range;

use hako_block::{Error, Result, SECTOR_BYTES};

use super::copies::{Copies, Runs};
use super::directory::Directory;
use super::geometry::{TABLE_ENTRIES, TABLE_SECTORS};
use super::table::Tables;
use crate::disk::bits::Bits;

/// Most places for grains of a file that is mended: 64 MiB of bits.
const MAX_PLACES: u64 = 512 << 20;

/// Which tables are where nothing else is.
pub struct Places {
    /// For each copy the sectors of its tables; 0 for one that is not there or not to be trusted.
    sectors: [Vec<u32>; 2],
    /// All of them, ascending.
    all: Vec<u32>,
}

impl Places {
    /// Looks at the places of all tables and of the grains that sane tables refer to.
    pub fn of(tables: &Tables) -> Result<Self> {
        // Sector, which copy, which table.
        let mut found: Vec<(u32, u8, u32)> = Vec::new();
        for (copy, directory) in (0..).zip(&tables.directories.copies) {
            for index in 0..tables.geometry.n_tables {
                let sector = tables.sector(directory, index);
                found.extend(sector.map(|sector| (sector, copy, index as u32)));
            }
        }
        found.sort_unstable();
        let grains = used_by_grains(tables)?;
        let n_tables = tables.geometry.n_tables as usize;
        let mut places = Self {
            sectors: [vec![0; n_tables], vec![0; n_tables]],
            all: Vec::new(),
        };
        for (at, (sector, copy, index)) in found.iter().copied().enumerate() {
            let start = u64::from(sector);
            let near = |other: Option<&(u32, u8, u32)>| {
                other.is_some_and(|other| u64::from(sector.abs_diff(other.0)) < TABLE_SECTORS)
            };
            let before = at.checked_sub(1).and_then(|before| found.get(before));
            let shares = near(before) || near(found.get(at + 1));
            let directory = tables.directories.copies.get(usize::from(copy));
            let usual = directory.map(|directory| usual_sector(directory, u64::from(index)));
            // Of two in one place the one that belongs there is believed.
            let is_bad = shares && usual != Some(start)
                || is_on_directory(tables, start)
                || is_on_grain(tables, &grains, start);
            if !is_bad {
                places.all.push(sector);
                let slot = places.sectors.get_mut(usize::from(copy));
                if let Some(slot) = slot.and_then(|sectors| sectors.get_mut(index as usize)) {
                    *slot = sector;
                }
            }
        }
        Ok(places)
    }

    /// Returns the sector of a table if it is where nothing else is.
    pub fn sector(&self, tables: &Tables, directory: &Directory, index: u64) -> Option<u32> {
        let copies = &tables.directories.copies;
        let copy = copies.iter().position(|copy| copy.copy == directory.copy)?;
        let sector = self.sectors.get(copy)?.get(usize::try_from(index).ok()?)?;
        (*sector != 0).then_some(*sector)
    }

    /// Returns whether a table could be at a sector in front of the grains.
    pub fn is_unused(&self, tables: &Tables, start: u64) -> bool {
        let after = self
            .all
            .partition_point(|sector| u64::from(*sector) + TABLE_SECTORS <= start);
        let next = self.all.get(after).copied().map_or(u64::MAX, u64::from);
        next >= start + TABLE_SECTORS && !is_on_directory(tables, start)
    }
}

/// Returns where a table is in the usual layout: behind its directory, in order.
pub fn usual_sector(directory: &Directory, index: u64) -> u64 {
    directory.area().end + index * TABLE_SECTORS
}

fn is_on_grain(tables: &Tables, grains: &Bits, start: u64) -> bool {
    let bytes = start * SECTOR_BYTES..(start + TABLE_SECTORS) * SECTOR_BYTES;
    let places = places_of(tables, bytes);
    let found = grains.next(places.start, true);
    found.is_some_and(|found| found < places.end)
}

/// Returns which places for grains a file range touches; place 0 begins below the overhead, by
/// less than a grain.
fn places_of(tables: &Tables, bytes: Range<u64>) -> Range<u64> {
    let grain = tables.geometry.grain;
    let base = tables.geometry.overhead % grain;
    bytes.start.saturating_sub(base) / grain..bytes.end.saturating_sub(base).div_ceil(grain)
}

fn is_on_directory(tables: &Tables, start: u64) -> bool {
    let mut areas = tables.directories.areas();
    areas.any(|area| start < area.end && start + TABLE_SECTORS > area.start)
}

/// Marks every place that a table without a fault refers to.
fn used_by_grains(tables: &Tables) -> Result<Bits> {
    let grain = tables.geometry.grain;
    let n_places = tables.storage.len_bytes()?.div_ceil(grain);
    if n_places > MAX_PLACES {
        return Err(Error::unsupported(format!(
            "a file of {n_places} grains of {grain} bytes is too large to be mended in place"
        )));
    }
    let mut used = Bits::new(n_places);
    let mut runs = Runs::default();
    for index in 0..tables.geometry.n_tables {
        let copies = Copies::read(tables, &mut runs, index)?;
        for table in copies
            .tables()
            .filter(|table| tables.first_fault(table).is_none())
        {
            for entry in 0..TABLE_ENTRIES {
                let sector = u64::from(table.entry(entry));
                if sector > 1 {
                    let start = sector * SECTOR_BYTES;
                    used.mark(places_of(tables, start..start + grain));
                }
            }
        }
    }
    Ok(used)
}
