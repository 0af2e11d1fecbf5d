//! Which places for grains of an extent file are in use: grains used twice, and space that nothing
//! refers to.

use std::ops::Range;

use hako_block::{Result, SECTOR_BYTES, Storage};

use super::check::Check;
use super::copies::{Copies, Runs};
use super::geometry::{N_ADDRESSABLE_SECTORS, TABLE_BYTES, TABLE_ENTRIES};
use super::table::{Grain, Table};
use crate::disk::Severity;

/// Places for grains looked at in one pass over the tables: 16 MiB of bits, enough for any file
/// with grains of 8 KiB or more.
const WINDOW: u64 = 1 << 27;

impl Check<'_> {
    /// Returns which place for a grain begins at a file offset. Place 0 begins below the overhead,
    /// by less than a grain.
    pub(super) fn slot(&self, offset: u64) -> Option<u64> {
        let geometry = &self.tables.geometry;
        let base = geometry.overhead % geometry.grain;
        let distance = offset.checked_sub(base)?;
        distance
            .is_multiple_of(geometry.grain)
            .then_some(distance / geometry.grain)
    }

    fn slots_touched(&self, bytes: Range<u64>) -> Range<u64> {
        let geometry = &self.tables.geometry;
        let base = geometry.overhead % geometry.grain;
        let (start, end) = (
            bytes.start.saturating_sub(base),
            bytes.end.saturating_sub(base),
        );
        start / geometry.grain..end.div_ceil(geometry.grain)
    }

    /// Grains used twice, and places that nothing uses.
    pub(super) fn grain_places(&mut self) -> Result<()> {
        let file_len = self.file_len.min(N_ADDRESSABLE_SECTORS * SECTOR_BYTES);
        let slots = self.slots_touched(self.tables.geometry.overhead..file_len);
        let mut start = slots.start;
        while start < slots.end {
            let end = slots.end.min(start + WINDOW);
            self.window(start..end)?;
            start = end;
        }
        Ok(())
    }

    fn window(&mut self, slots: Range<u64>) -> Result<()> {
        let mut used = Slots::new(slots);
        self.mark_tables(&mut used);
        let mut runs = Runs::default();
        for index in 0..self.tables.geometry.n_tables {
            if self.unread.binary_search(&index).is_ok() {
                continue;
            }
            if let Some(table) = Copies::read(self.tables, &mut runs, index)?.believed() {
                self.mark_grains(&mut used, table);
            }
        }
        self.mark_misaligned(&mut used);
        self.mark_of_other_copies(&mut used)?;
        self.leaks(&used)
    }

    fn mark_tables(&self, used: &mut Slots) {
        for area in self.tables.directories.areas() {
            let bytes =
                area.start.saturating_mul(SECTOR_BYTES)..area.end.saturating_mul(SECTOR_BYTES);
            used.set_all(self.slots_touched(bytes));
        }
        for directory in &self.tables.directories.copies {
            for table in 0..self.tables.geometry.n_tables {
                if let Some(sector) = self.tables.sector(directory, table) {
                    let start = u64::from(sector) * SECTOR_BYTES;
                    for slot in self.slots_touched(start..start + TABLE_BYTES) {
                        used.set(slot);
                    }
                }
            }
        }
    }

    fn mark_grains(&mut self, used: &mut Slots, table: &Table) {
        for entry in 0..TABLE_ENTRIES {
            let is_of_disk = self.tables.geometry.grain_len(table.index, entry) > 0;
            let Ok(Grain::At(sector)) = self.tables.grain(table, entry) else {
                continue;
            };
            if !is_of_disk {
                continue;
            }
            let offset = u64::from(sector) * SECTOR_BYTES;
            if self.slot(offset).is_some_and(|slot| used.set(slot)) {
                let text = format!(
                    "grain table {}, entry {entry}: sector {sector} is used already",
                    table.index
                );
                self.add(Severity::Corruption, text, Some(offset));
            }
        }
    }

    /// What only the copy that is not believed refers to is no leak: it may be the one that is
    /// right.
    fn mark_of_other_copies(&self, used: &mut Slots) -> Result<()> {
        let mut runs = Runs::default();
        for index in self.differing.iter().copied() {
            let copies = Copies::read(self.tables, &mut runs, index)?;
            for (_, first, other) in copies.differences() {
                for sector in [first, other] {
                    let start = u64::from(sector) * SECTOR_BYTES;
                    let bytes = start..start + self.tables.geometry.grain;
                    used.set_all(self.slots_touched(bytes));
                }
            }
        }
        Ok(())
    }

    /// Grains out of line touch two places each; two of them may share one without overlapping.
    fn mark_misaligned(&mut self, used: &mut Slots) {
        let grain = self.tables.geometry.grain;
        self.misaligned.sort_unstable();
        let offsets = std::mem::take(&mut self.misaligned);
        let mut overlapping = Vec::new();
        for (at, offset) in offsets.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|before| offsets.get(before));
            let mine = used.covers(self.slots_touched(*offset..offset + 1).start);
            let on_other = mine && before.is_some_and(|before| offset - before < grain);
            let on_used = self
                .slots_touched(*offset..offset + grain)
                .any(|slot| used.get(slot));
            if on_other || on_used {
                overlapping.push(*offset);
            }
        }
        for offset in overlapping {
            let text = format!(
                "the grain at sector {} overlaps another",
                offset / SECTOR_BYTES
            );
            self.add(Severity::Corruption, text, Some(offset));
        }
        for offset in &offsets {
            for slot in self.slots_touched(*offset..offset + grain) {
                used.set(slot);
            }
        }
        self.misaligned = offsets;
    }

    /// One finding for each run of unused places for which the host stores anything.
    fn leaks(&mut self, used: &Slots) -> Result<()> {
        if self.tables.storage.is_device() {
            return Ok(());
        }
        let geometry = self.tables.geometry.clone();
        let base = geometry.overhead % geometry.grain;
        let mut slot = used.slots.start;
        while let Some(start) = used.next(slot, false) {
            let end = used.next(start, true).unwrap_or(used.slots.end);
            let bytes =
                start * geometry.grain + base..(end * geometry.grain + base).min(self.file_len);
            let leaked = stored_bytes(&*self.tables.storage, bytes.clone())?;
            if leaked > 0 {
                self.findings.leaked_bytes += leaked;
                let text = format!(
                    "{leaked} bytes at sector {} are used by nothing",
                    bytes.start / SECTOR_BYTES
                );
                self.add(Severity::Leak, text, Some(bytes.start));
                (self.on_leak)(bytes)?;
            }
            slot = end;
        }
        Ok(())
    }
}

/// Returns how many bytes of a range the host stores, in blocks of its own that are wholly inside.
fn stored_bytes(storage: &dyn Storage, range: Range<u64>) -> Result<u64> {
    const HOST_BLOCK: u64 = 4096;
    let end = match range.end {
        end if end == storage.len_bytes()? => end,
        end => end - end % HOST_BLOCK,
    };
    let mut offset = range.start.next_multiple_of(HOST_BLOCK);
    let mut stored = 0;
    while offset < end {
        let run = storage.next_extent(offset)?;
        let run_end = (offset + run.len).min(end);
        if run.data {
            stored += run_end - offset;
        }
        offset = run_end;
    }
    Ok(stored)
}

/// One bit for each place of a window.
struct Slots {
    slots: Range<u64>,
    words: Vec<u64>,
}

impl Slots {
    fn new(slots: Range<u64>) -> Self {
        let n_words = (slots.end - slots.start).div_ceil(64) as usize;
        Self {
            slots,
            words: vec![0; n_words],
        }
    }

    fn covers(&self, slot: u64) -> bool {
        self.slots.contains(&slot)
    }

    fn bit(&self, slot: u64) -> Option<(usize, u64)> {
        let at = slot.checked_sub(self.slots.start)?;
        self.covers(slot)
            .then_some(((at / 64) as usize, 1 << (at % 64)))
    }

    fn get(&self, slot: u64) -> bool {
        let word = self
            .bit(slot)
            .and_then(|(word, bit)| Some((self.words.get(word)?, bit)));
        word.is_some_and(|(word, bit)| word & bit != 0)
    }

    /// Marks a place of this window. Returns whether it was marked before.
    fn set(&mut self, slot: u64) -> bool {
        let was = self.get(slot);
        if let Some((word, bit)) = self.bit(slot)
            && let Some(word) = self.words.get_mut(word)
        {
            *word |= bit;
        }
        was
    }

    /// Marks those of these places that are in this window.
    fn set_all(&mut self, slots: Range<u64>) {
        for slot in slots.start.max(self.slots.start)..slots.end.min(self.slots.end) {
            self.set(slot);
        }
    }

    /// Returns the first place at or after `slot` that is marked, or is not.
    fn next(&self, slot: u64, marked: bool) -> Option<u64> {
        let mut slot = slot;
        while slot < self.slots.end {
            let (at, bit) = self.bit(slot)?;
            let word = self.words.get(at)?;
            let word = if marked { *word } else { !*word };
            let rest = word & !(bit - 1);
            if rest != 0 {
                let found =
                    slot - u64::from(bit.trailing_zeros()) + u64::from(rest.trailing_zeros());
                return (found < self.slots.end).then_some(found);
            }
            slot += 64 - u64::from(bit.trailing_zeros());
        }
        None
    }
}
