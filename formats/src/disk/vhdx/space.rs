//! Which places of the file are in use, in units of 1 MiB.

use std::ops::Range;

use hako_block::{Error, Result, Storage};

use super::bat::each_entry;
use super::layout::{Block, MAX_FILE_BYTES, MIB, decode_bitmap_entry};
use super::structure::{Structure, check_len};
use crate::disk::bits::Bits;

/// The places of a file.
pub struct Space {
    used: Bits,
    /// Where the file ends, in places.
    end: u64,
    /// No place below is free.
    hint: u64,
}

impl Space {
    /// Walks the BAT. Errors: a block that overlaps another or a table, or lies past the end of
    /// the file: where to write safely is not known.
    pub fn survey(structure: &Structure) -> Result<Self> {
        let layout = structure.layout();
        let file_len = structure.storage.len_bytes()?;
        check_len(file_len)?;
        let end = file_len.div_ceil(MIB);
        let mut space = Self {
            used: Bits::new(end),
            end,
            hint: 0,
        };
        for range in structure.reserved() {
            space.used.mark(places(&range));
        }
        let storage: &dyn Storage = &*structure.storage;
        each_entry(
            storage,
            &structure.bat,
            layout.n_entries(),
            |entry, word| {
                let offset = match layout.block_of(entry) {
                    Some(_) => Block::decode(word, layout).map(Block::offset),
                    None => decode_bitmap_entry(word),
                };
                let damaged = |error: Error| {
                    error
                        .place(format!("BAT entry {entry}"))
                        .at_byte(structure.bat.start + entry * 8)
                        .hint("writing would make the damage worse: see hako disk check")
                };
                let Some(offset) = offset.map_err(damaged)? else {
                    return Ok(());
                };
                let len = match layout.block_of(entry) {
                    Some(_) => layout.block_bytes(),
                    None => MIB,
                };
                let wrong = if offset >= file_len {
                    "lies past the end of the file"
                } else if space.claim(offset..offset + len) {
                    "lies where something else is"
                } else {
                    return Ok(());
                };
                let what = format!("its block at {offset:#x} {wrong}");
                Err(damaged(Error::new(hako_block::ErrorKind::Corrupt, what)))
            },
        )?;
        Ok(space)
    }

    /// Marks a range as used. Returns whether a part of it was before.
    fn claim(&mut self, range: Range<u64>) -> bool {
        let places = places(&range);
        self.grow(places.end);
        self.used.mark(places)
    }

    /// Takes a place of `len` bytes, a multiple of 1 MiB. Returns its file offset. It may hold
    /// anything, and may lie behind the end of the file.
    pub fn take(&mut self, len: u64) -> Result<u64> {
        let n = len / MIB;
        let mut from = self.hint;
        self.hint = self.end;
        while let Some(free) = self.used.next_free(from) {
            if free.start >= self.end {
                break;
            }
            self.hint = self.hint.min(free.start);
            if free.start + n <= free.end.min(self.end) {
                self.used.mark(free.start..free.start + n);
                return Ok(free.start * MIB);
            }
            from = free.end;
        }
        let start = self.end;
        if start * MIB + len > MAX_FILE_BYTES {
            return Err(Error::new(
                hako_block::ErrorKind::NoSpace,
                "the file cannot grow any more",
            ));
        }
        self.grow(start + n);
        self.used.mark(start..start + n);
        Ok(start * MIB)
    }

    /// Returns the file offset behind the last place in use.
    pub fn used_end(&self) -> u64 {
        self.used.end() * MIB
    }

    /// Returns the places that are not in use, in the order of the file.
    pub fn free(&self) -> impl Iterator<Item = Range<u64>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let free = self
                .used
                .next_free(from)
                .filter(|free| free.start < self.end)?;
            from = free.end;
            Some(free.start * MIB..free.end.min(self.end) * MIB)
        })
    }

    /// Gives a place back.
    pub fn give_back(&mut self, range: &Range<u64>) {
        let places = places(range);
        self.hint = self.hint.min(places.start);
        self.used.clear(places);
    }

    fn grow(&mut self, end: u64) {
        if end > self.used.len() {
            self.used.grow(end.next_multiple_of(1024));
        }
        self.end = self.end.max(end);
    }
}

/// Returns the places that a file range touches.
fn places(range: &Range<u64>) -> Range<u64> {
    range.start / MIB..range.end.div_ceil(MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_places_are_taken_before_the_file_grows() {
        let mut space = Space {
            used: Bits::new(10),
            end: 10,
            hint: 0,
        };
        space.used.mark(0..8);
        let take = |space: &mut Space, n| space.take(n * MIB).unwrap() / MIB;
        assert_eq!(take(&mut space, 2), 8);
        assert_eq!(take(&mut space, 4), 10);
        space.give_back(&(3 * MIB..4 * MIB));
        space.give_back(&(6 * MIB..8 * MIB));
        assert_eq!(take(&mut space, 2), 6);
        assert_eq!(take(&mut space, 2), 14);
        assert_eq!(take(&mut space, 1), 3);
        assert_eq!(take(&mut space, 1), 16);
    }
}
