//! Compacting an extent: its grains as the units of [`crate::disk::compact`]. Directories and
//! tables stay where they are.

use std::ops::Range;

use hako_block::{Access, Error, Result, SECTOR_BYTES, Storage};

use super::HostedArgs;
use super::check::check_extent;
use super::geometry::{TABLE_BYTES, TABLE_ENTRIES};
use super::image::HostedImage;
use super::resize::clear_past_capacity;
use super::table::{Found, Grain, Table};
use super::write::Writer;
use crate::disk::compact::{Compactable, Grid, Move, Unit};
use crate::disk::{Findings, Task};

/// Grain tables told of in one call of `units`.
const TABLES_PER_CALL: usize = 8;
const ENTRIES: u64 = TABLE_ENTRIES as u64;

/// Compacts one extent. Errors: it is damaged, or its tables contradict each other.
pub fn compact(args: HostedArgs, task: Task<'_>) -> Result<()> {
    refuse_damaged(&args)?;
    let image = HostedImage::open(HostedArgs {
        access: Access::ReadWrite,
        ..args
    })?;
    clear_past_capacity(&image)?;
    image.flush_all()?;
    // The last grain may be short in the file; here it is moved as a whole.
    let storage = image.storage();
    if !storage.is_device() {
        let len = storage.len_bytes()?;
        let whole = image.geometry().align_up(len).unwrap_or(len);
        if whole > len {
            storage.set_len(whole)?;
        }
    }
    crate::disk::compact::compact(&mut Grains { image }, task)
}

/// Nothing may be moved by tables that may be wrong.
fn refuse_damaged(args: &HostedArgs) -> Result<()> {
    let mut findings = Findings::default();
    let file = args.storage.name();
    let n_differing = check_extent(args.clone(), file, &mut findings, &mut |_| Ok(()))?;
    if findings.n_corruptions == 0 && n_differing == 0 {
        return Ok(());
    }
    let what = match findings.n_corruptions {
        0 => format!("{n_differing} grain tables differ from their redundant copies"),
        n => format!("it is damaged in {n} places"),
    };
    Err(Error::corrupt("grain tables", what)
        .hint("hako disk check tells more; --repair all may mend it"))
}

/// An extent, open for writing and whole.
struct Grains {
    image: HostedImage,
}

impl Grains {
    fn writer(&self) -> Result<&Writer> {
        self.image.writer.as_ref().ok_or_else(Error::read_only)
    }

    /// Appends the grains of one table.
    fn units_of(&self, table: &Table, from: usize, units: &mut Vec<Unit>) -> Result<()> {
        let geometry = self.image.geometry();
        for entry in from..TABLE_ENTRIES {
            let len = geometry.grain_len(table.index, entry);
            if len == 0 {
                break;
            }
            let Grain::At(sector) = self.image.tables.grain(table, entry)? else {
                continue;
            };
            let offset = u64::from(sector) * SECTOR_BYTES;
            let can_say_zero = !self.image.has_parent || geometry.zeroed_grains;
            units.push(Unit {
                key: table.index * ENTRIES + entry as u64,
                offset,
                len: geometry.grain,
                content: can_say_zero.then_some(offset..offset + len),
            });
        }
        Ok(())
    }

    /// Calls `change` for each unit with its table and entry, and flushes.
    fn change<T>(
        &self,
        items: &[T],
        key: impl Fn(&T) -> u64,
        change: impl Fn(&Writer, &std::sync::Arc<Table>, usize, &T) -> Result<()>,
    ) -> Result<()> {
        let writer = self.writer()?;
        for item in items {
            let key = key(item);
            let table = self.image.tables.get_or_new(key / ENTRIES)?;
            change(writer, &table, (key % ENTRIES) as usize, item)?;
            self.image.flush_if_much(writer)?;
        }
        self.image.flush_all()
    }
}

impl Compactable for Grains {
    fn storage(&self) -> &dyn Storage {
        self.image.storage()
    }

    fn grid(&self) -> Grid {
        let geometry = self.image.geometry();
        Grid {
            base: geometry.overhead,
            step: geometry.grain,
        }
    }

    fn fixed(&self, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let tables = &self.image.tables;
        for area in tables.directories.areas() {
            each(area.start.saturating_mul(SECTOR_BYTES)..area.end.saturating_mul(SECTOR_BYTES));
        }
        for directory in &tables.directories.copies {
            for sector in directory.sectors().filter(|sector| *sector != 0) {
                let start = u64::from(sector) * SECTOR_BYTES;
                each(start..start + TABLE_BYTES);
            }
        }
        Ok(())
    }

    fn units(&self, from: u64, units: &mut Vec<Unit>) -> Result<Option<u64>> {
        let tables = &self.image.tables;
        let (mut index, mut entry) = (from / ENTRIES, (from % ENTRIES) as usize);
        let mut n_read = 0;
        while index < tables.geometry.n_tables && n_read < TABLES_PER_CALL {
            index += match tables.find(index)? {
                Found::Empty(n_tables) => n_tables,
                Found::Table(table) => {
                    self.units_of(&table, entry, units)?;
                    n_read += 1;
                    1
                }
            };
            entry = 0;
        }
        Ok((index < tables.geometry.n_tables).then_some(index * ENTRIES))
    }

    fn give_up(&mut self, units: &[Unit]) -> Result<()> {
        let value = if self.image.has_parent {
            Grain::Zero
        } else {
            Grain::Hole
        };
        self.change(
            units,
            |unit| unit.key,
            |writer, table, entry, _| {
                writer.release(&self.image.tables, table, entry..entry + 1, value)
            },
        )
    }

    fn relocate(&mut self, moves: &[Move]) -> Result<()> {
        self.change(
            moves,
            |moved| moved.unit.key,
            |writer, table, entry, moved| {
                let sector = u32::try_from(moved.to / SECTOR_BYTES)
                    .map_err(|_| Error::invalid("a place that cannot be addressed"))?;
                writer.relocate(&self.image.tables, table, entry, sector)
            },
        )
    }
}
