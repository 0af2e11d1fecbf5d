//! The blocks of an image as what can be moved in its file.

use std::ops::Range;
use std::sync::atomic::Ordering;

use hako_block::{Error, Result, Storage};

use crate::disk::compact::{Compactable, Grid, Move, Unit};
use crate::disk::vdi::map::{Map, PAGE_ENTRIES, ZERO};
use crate::disk::vdi::places::Places;

/// An image whose blocks are moved.
pub struct Blocks {
    pub map: Map,
}

impl Blocks {
    /// Makes the header say how many blocks are stored.
    pub fn correct_count(&mut self) -> Result<()> {
        let end = Places::of(&self.map)?.end();
        self.set_count(end)
    }

    fn set_count(&mut self, n_stored: u64) -> Result<()> {
        if self.map.header.n_stored == n_stored {
            return Ok(());
        }
        self.map.header.n_stored = n_stored;
        self.map.header.write(&*self.map.storage)?;
        self.map.storage.sync()
    }

    fn unit(&self, block: u64, place: u32) -> Result<Unit> {
        self.map.decode(block, place)?;
        let header = &self.map.header;
        let offset = header.place_offset(u64::from(place));
        let file_len = self.map.file_len.load(Ordering::Acquire);
        let content = offset + header.extra;
        Ok(Unit {
            key: block,
            offset,
            // The file may end with the disk, inside the last block.
            len: header.stride().min(file_len.saturating_sub(offset)),
            content: Some(content..content + header.block_len(block)),
        })
    }
}

impl Compactable for Blocks {
    fn storage(&self) -> &dyn Storage {
        &*self.map.storage
    }

    fn grid(&self) -> Grid {
        Grid {
            base: self.map.header.data_offset,
            step: self.map.header.stride(),
        }
    }

    fn fixed(&self, _each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        Ok(())
    }

    fn units(&self, from: u64, units: &mut Vec<Unit>) -> Result<Option<u64>> {
        let index = from / PAGE_ENTRIES;
        let page = self.map.page(index)?;
        for (block, entry) in (index * PAGE_ENTRIES..).zip(page.iter()) {
            if *entry < ZERO {
                units.push(self.unit(block, *entry)?);
            }
        }
        let next = index + 1;
        Ok((next < self.map.n_pages()).then_some(next * PAGE_ENTRIES))
    }

    fn give_up(&mut self, units: &[Unit]) -> Result<()> {
        for unit in units {
            self.map.set(unit.key, ZERO)?;
        }
        self.map.write_all()
    }

    fn relocate(&mut self, moves: &[Move]) -> Result<()> {
        let Grid { base, step } = self.grid();
        for Move { unit, to } in moves {
            let place = (to - base) / step;
            let place = u32::try_from(place).map_err(|_| {
                Error::invalid(format!("place {place} cannot be written into the map"))
            })?;
            self.map.set(unit.key, place)?;
        }
        self.map.write_all()
    }

    fn cut(&mut self, end: u64) -> Result<()> {
        let Grid { base, step } = self.grid();
        self.set_count((end - base) / step)?;
        self.map.storage.set_len(end)?;
        self.map.file_len.store(end, Ordering::Release);
        self.map.storage.sync()
    }
}
