//! Giving space back: what [`crate::disk::compact`] needs to know of an image.

use std::ops::Range;

use hako_block::{Result, Storage};

use super::super::bat::each_entry;
use super::super::journal::Journal;
use super::super::layout::{Block, ENTRY_BYTES, MIB, STATE_ZERO, decode_bitmap_entry};
use super::super::structure::Structure;
use super::bat::set_entries;
use super::open_sound;
use crate::disk::compact::{self, Compactable, Grid, Move, Unit};
use crate::disk::{OpenArgs, Task};

/// Entries of the BAT looked at before it is seen whether there are units enough.
const WINDOW: u64 = 1 << 16;
/// Units told of at once.
const MAX_UNITS: usize = 4096;

/// Gives space back to the host.
pub fn compact(args: &OpenArgs, task: Task<'_>) -> Result<()> {
    let (structure, _) = open_sound(args)?;
    let mut journal = structure.journal()?;
    journal.change_ids(false)?;
    let mut blocks = Blocks { structure, journal };
    compact::compact(&mut blocks, task)?;
    blocks.structure.storage.sync()
}

/// Blocks and sector bitmap blocks; a unit's key is its BAT entry.
struct Blocks {
    structure: Structure,
    journal: Journal,
}

impl Blocks {
    fn unit(&self, entry: u64, word: u64) -> Result<Option<Unit>> {
        let layout = self.structure.layout();
        if layout.block_of(entry).is_none() {
            let offset = decode_bitmap_entry(word)?;
            return Ok(offset.map(|offset| Unit {
                key: entry,
                offset,
                len: MIB,
                content: None,
            }));
        }
        let found = Block::decode(word, layout)?;
        let len = layout.block_bytes();
        Ok(found.offset().map(|offset| Unit {
            key: entry,
            offset,
            len,
            content: match found {
                Block::Full(_) if !self.structure.metadata.leave_allocated => {
                    Some(offset..offset + len)
                }
                _ => None,
            },
        }))
    }

    /// Returns the state bits of an entry.
    fn state(&self, entry: u64) -> Result<u64> {
        let mut word = [0; 8];
        let at = self.structure.bat.start + entry * ENTRY_BYTES;
        self.structure.storage.read_at(at, &mut word)?;
        Ok(u64::from_le_bytes(word) & (MIB - 1))
    }
}

impl Compactable for Blocks {
    fn storage(&self) -> &dyn Storage {
        &*self.structure.storage
    }

    fn grid(&self) -> Grid {
        Grid {
            base: MIB,
            step: MIB,
        }
    }

    fn fixed(&self, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let reserved = self.structure.reserved().into_iter();
        reserved.filter(|range| range.start >= MIB).for_each(each);
        Ok(())
    }

    fn units(&self, from: u64, units: &mut Vec<Unit>) -> Result<Option<u64>> {
        let n_entries = self.structure.layout().n_entries();
        let mut from = from;
        while from < n_entries && units.len() < MAX_UNITS {
            let window = WINDOW.min(n_entries - from);
            let bat = &self.structure.bat;
            let part = bat.start + from * ENTRY_BYTES..bat.end;
            each_entry(self.storage(), &part, window, |entry, word| {
                units.extend(self.unit(from + entry, word)?);
                Ok(())
            })?;
            from += window;
        }
        Ok((from < n_entries).then_some(from))
    }

    fn cut(&mut self, end: u64) -> Result<()> {
        // The log says how long the file was: first it must be known to be empty.
        self.storage().sync()?;
        self.storage().set_len(end)?;
        self.storage().sync()
    }

    fn give_up(&mut self, units: &[Unit]) -> Result<()> {
        let state = if self.structure.layout().has_parent {
            STATE_ZERO
        } else {
            0
        };
        let words = units.iter().map(|unit| (unit.key, state));
        set_entries(&self.structure, &mut self.journal, words)
    }

    fn relocate(&mut self, moves: &[Move]) -> Result<()> {
        let mut words = Vec::with_capacity(moves.len());
        for moved in moves {
            let key = moved.unit.key;
            words.push((key, moved.to | self.state(key)?));
        }
        words.sort_unstable();
        set_entries(&self.structure, &mut self.journal, words)
    }
}
