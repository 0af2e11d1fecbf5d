//! Compacting: blocks of zeros are given up, gaps between blocks closed.

use std::ops::Range;

use hako_block::{Error, Result, SECTOR_BYTES, Storage};

use super::super::check::{PAGE_BYTES, each_entry_from, tables};
use super::super::image::check_slot;
use super::super::layout::{UNUSED, entry_of, stride};
use super::{Disk, is_fixed, open};
use crate::disk::compact::{Compactable, Grid, Move, Unit, close_gaps, give_up_zeros};
use crate::disk::{OpenArgs, Task};

/// Blocks told of at once.
const MAX_UNITS: usize = 4096;

/// Compacts a disk in place.
pub fn compact(args: &OpenArgs, task: Task<'_>) -> Result<()> {
    let found = open(args)?;
    if is_fixed(&found) {
        return Err(Error::unsupported("a fixed VHD cannot be compacted"));
    }
    let (disk, _) = Disk::settle(&*args.storage, found, false)?;
    let mut blocks = Blocks::new(disk)?;
    give_up_zeros(&mut blocks, task)?;
    if blocks.is_bat_in_the_way()? {
        blocks.disk.move_bat_behind()?;
        blocks.has_bat_behind = true;
    }
    close_gaps(&mut blocks, task)
}

/// A disk whose blocks may be moved.
struct Blocks<'a> {
    disk: Disk<'a>,
    grid: Grid,
    /// Whether the BAT lies behind all blocks, so that it can be moved down to the last of them.
    has_bat_behind: bool,
}

impl<'a> Blocks<'a> {
    /// Finds out how the blocks lie: one after another, as qemu and others write them, or aligned,
    /// as hako does, or at least in pages, where a table came between; else at any sector.
    fn new(disk: Disk<'a>) -> Result<Self> {
        let layout = disk.dynamic.layout;
        let all = |each: &mut dyn FnMut(u64)| {
            each_entry_from(disk.storage, &layout, 0, &mut |_, entry| {
                each(u64::from(entry) * SECTOR_BYTES);
                true
            })
        };
        let mut base = u64::MAX;
        all(&mut |slot| base = base.min(slot))?;
        if base == u64::MAX {
            base = disk.tail;
        }
        let mut steps = vec![layout.slot_bytes(), stride(layout.block_shift), PAGE_BYTES];
        all(&mut |slot| steps.retain(|step| (slot - base).is_multiple_of(*step)))?;
        let step = steps.first().copied().unwrap_or(SECTOR_BYTES);
        let mut blocks = Self {
            disk,
            grid: Grid { base, step },
            has_bat_behind: false,
        };
        blocks.has_bat_behind = blocks.ends()?.0 <= blocks.disk.bat().start;
        Ok(blocks)
    }

    /// Returns where that ends which is not the BAT, and how many bytes of it are no block's.
    fn ends(&self) -> Result<(u64, u64)> {
        let layout = self.disk.dynamic.layout;
        let mut end = 0;
        for table in tables(&self.disk.dynamic) {
            if table.start != layout.bat_offset {
                end = end.max(table.end);
            }
        }
        let mut n_blocks = 0;
        each_entry_from(self.disk.storage, &layout, 0, &mut |_, entry| {
            n_blocks += 1;
            end = end.max(u64::from(entry) * SECTOR_BYTES + layout.slot_bytes());
            true
        })?;
        let blocks = n_blocks * layout.slot_bytes().next_multiple_of(self.grid.step);
        let free = end.saturating_sub(self.grid.base).saturating_sub(blocks);
        Ok((end, free))
    }

    /// Returns whether the BAT keeps blocks from moving into room that there is: a resize put it
    /// behind those that there were.
    fn is_bat_in_the_way(&self) -> Result<bool> {
        let bat = self.disk.bat();
        let (end, free) = self.ends()?;
        let has_room = free >= self.disk.dynamic.layout.slot_bytes() + (bat.end - bat.start);
        Ok((self.grid.base..end).contains(&bat.start) && has_room)
    }
}

impl Compactable for Blocks<'_> {
    fn storage(&self) -> &dyn Storage {
        self.disk.storage
    }

    fn grid(&self) -> Grid {
        self.grid
    }

    fn fixed(&self, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let bat = self.disk.bat();
        for table in tables(&self.disk.dynamic) {
            let is_behind = self.has_bat_behind && table.start == bat.start;
            if table.end > self.grid.base && !is_behind {
                each(table);
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<u64> {
        if self.has_bat_behind {
            return Ok(self.disk.bat().start);
        }
        self.disk.storage.len_bytes()
    }

    fn units(&self, from: u64, units: &mut Vec<Unit>) -> Result<Option<u64>> {
        let layout = self.disk.dynamic.layout;
        let mut next = None;
        let mut failed = Ok(());
        each_entry_from(self.disk.storage, &layout, from, &mut |block, entry| {
            if units.len() >= MAX_UNITS {
                next = Some(block);
                return false;
            }
            match check_slot(&layout, block, entry, self.disk.tail) {
                Ok(slot) => {
                    let data = slot + layout.bitmap_bytes();
                    let end = slot + layout.slot_bytes();
                    units.push(Unit {
                        key: block,
                        offset: slot,
                        len: layout.slot_bytes(),
                        // In an overlay a block of zeros hides the parent.
                        content: (!layout.differencing).then_some(data..end.min(self.disk.tail)),
                    });
                }
                Err(error) => failed = Err(error),
            }
            failed.is_ok()
        })?;
        failed.map(|()| next)
    }

    fn give_up(&mut self, units: &[Unit]) -> Result<()> {
        self.disk
            .write_entries(units.iter().map(|unit| (unit.key, UNUSED)))
    }

    fn relocate(&mut self, moves: &[Move]) -> Result<()> {
        let entries = moves
            .iter()
            .map(|it| Ok((it.unit.key, entry_of(it.to)?)))
            .collect::<Result<Vec<_>>>()?;
        self.disk.write_entries(entries)
    }

    fn cut(&mut self, end: u64) -> Result<()> {
        if self.has_bat_behind {
            self.disk.move_bat_down(end)
        } else if end < self.disk.tail {
            self.disk.end_at(end)
        } else {
            Ok(())
        }
    }
}
