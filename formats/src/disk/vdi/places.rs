//! Which places for blocks in the file are in use.

use std::ops::Range;

use hako_block::{Error, Result};

use super::header::MAX_BLOCKS;
use super::map::Map;
use crate::disk::bits::Bits;

/// One bit for each place that a block may have: VirtualBox never uses more than there are blocks,
/// and a resize that was cut off no more than the header says.
pub struct Places {
    used: Bits,
    n_used: u64,
}

impl Places {
    /// Walks the map. Errors: two blocks share a place, a place is not inside the file.
    pub fn of(map: &Map) -> Result<Self> {
        let mut places = Self::none(map);
        map.each_stored(|block, place| {
            map.decode(block, place)?;
            match places.add(place) {
                None => Ok(()),
                Some(what) => Err(Error::corrupt(format!("block {block}"), what)
                    .at_byte(map.header.entry_offset(block))),
            }
        })?;
        Ok(places)
    }

    /// Returns none used, to be filled by [`Places::add`].
    pub fn none(map: &Map) -> Self {
        let n_stored = map.header.n_stored.min(MAX_BLOCKS);
        Self {
            used: Bits::new(map.header.n_blocks.max(n_stored)),
            n_used: 0,
        }
    }

    /// Takes a block's place; returns what is wrong with it.
    pub fn add(&mut self, place: u32) -> Option<String> {
        let place = u64::from(place);
        let n_blocks = self.used.len();
        if place >= n_blocks {
            return Some(format!(
                "place {place}, but there are only {n_blocks} blocks"
            ));
        }
        self.n_used += 1;
        let was_used = self.used.mark(place..place + 1);
        was_used.then(|| format!("place {place} is used already"))
    }

    /// Returns how many there are.
    pub fn len(&self) -> u64 {
        self.used.len()
    }

    /// Returns the place behind the last one in use.
    pub fn end(&self) -> u64 {
        self.used.end()
    }

    /// Returns how many are in use.
    pub fn n_used(&self) -> u64 {
        self.n_used
    }

    /// Returns the first run of places at or after `from` that are not in use, to the end of it or
    /// to the last place that could be.
    pub fn next_free(&self, from: u64) -> Option<Range<u64>> {
        self.used.next_free(from)
    }

    /// Returns up to `max` places below the end that are not in use, the lowest last.
    pub fn free(&self, max: usize) -> Vec<u32> {
        let end = self.end();
        let mut free = Vec::new();
        let mut from = 0;
        while let Some(run) = self.next_free(from).filter(|run| run.start < end) {
            let room = max - free.len();
            free.extend(run.clone().take(room).map(|place| place as u32));
            if free.len() == max {
                break;
            }
            from = run.end;
        }
        free.reverse();
        free
    }
}
