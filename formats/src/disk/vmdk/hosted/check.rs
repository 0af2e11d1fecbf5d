//! Checks the structure of an extent: directories and tables against each other and the file,
//! grains used twice, and space that nothing refers to. Reads no grains.

use std::ops::Range;

use hako_block::{Error, ErrorKind, Result, SECTOR_BYTES, Storage};

use super::HostedArgs;
use super::copies::{Copies, Runs};
use super::directory::{Copy, Directories};
use super::geometry::{Geometry, N_ADDRESSABLE_SECTORS, TABLE_BYTES, TABLE_ENTRIES, TABLE_SECTORS};
use super::table::{Grain, Table, Tables};
use crate::disk::{Findings, Severity};

/// Places for grains looked at in one pass over the tables: 16 MiB of bits, enough for any file
/// with grains of 8 KiB or more.
const WINDOW: u64 = 1 << 27;
/// Grains out of line that are remembered, 8 MiB of them.
const MAX_MISALIGNED: usize = 1 << 20;

/// Checks one extent. Damage goes into `findings`; an error means that the check could not be
/// done.
pub fn check(args: HostedArgs, findings: &mut Findings) -> Result<()> {
    let file = args.storage.name().to_owned();
    match check_extent(args, &file, findings) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.add_error(&file, &error);
            Ok(())
        }
        result => result.map_err(|error| error.in_file(&file)),
    }
}

fn check_extent(args: HostedArgs, file: &str, findings: &mut Findings) -> Result<()> {
    let geometry = Geometry::of(&args.header)?;
    findings.n_units += geometry.capacity.div_ceil(geometry.grain);
    if args.header.unclean {
        let text = "header: unclean shutdown flag is set: it was not closed properly";
        findings.add(Severity::Oddity, file, text, Some(72));
    }
    let directories = Directories::read(&*args.storage, &args.header, &geometry)?;
    let tables = Tables::new(args.storage, geometry, directories, args.header.unclean)?;
    let mut check = Check {
        file,
        findings,
        file_len: tables.storage.len_bytes()?,
        tables: &tables,
        unread: Vec::new(),
        misaligned: Vec::new(),
    };
    if let Some(error) = tables.geometry.overhead_past(check.file_len) {
        check.findings.add_error(file, &error);
    }
    check.directories();
    check.table_places();
    check.tables()?;
    check.grain_places()
}

struct Check<'a> {
    file: &'a str,
    findings: &'a mut Findings,
    file_len: u64,
    tables: &'a Tables,
    /// Tables that overlap others, ascending: reading them would take unbounded time.
    unread: Vec<u64>,
    /// File offsets of grains that are not in line with the others.
    misaligned: Vec<u64>,
}

impl Check<'_> {
    fn add(&mut self, severity: Severity, text: String, byte: Option<u64>) {
        self.findings.add(severity, self.file, text, byte);
    }

    fn add_error(&mut self, copy: Copy, error: &Error) {
        match copy {
            Copy::First => self.findings.add_error(self.file, error),
            // Nothing is lost while the first is good.
            Copy::Redundant => self.add(Severity::Oddity, error.finding(), error.byte()),
        }
    }

    /// Each directory for itself, then one against the other.
    fn directories(&mut self) {
        let directories = &self.tables.directories;
        if let Some((copy, error)) = &directories.lost {
            self.add_error(*copy, error);
        }
        for directory in &directories.copies {
            for error in directories.bad_entries(directory, self.file_len) {
                self.add_error(directory.copy, &error);
            }
        }
        let [first, redundant] = directories.copies.as_slice() else {
            return;
        };
        for table in 0..self.tables.geometry.n_tables {
            let (one, other) = (first.sector(table), redundant.sector(table));
            if (one == 0) != (other == 0) {
                let text = format!(
                    "{}, entry {table}: sector {other}, but the {} says {one}",
                    redundant.copy.directory(),
                    first.copy.directory()
                );
                self.add(Severity::Oddity, text, Some(redundant.entry_offset(table)));
            }
        }
    }

    /// No table may overlap another or a directory.
    fn table_places(&mut self) {
        let n_tables = self.tables.geometry.n_tables;
        // Start sector, and which table: kept small, for there may be two millions.
        let mut places: Vec<(u32, u32)> = Vec::new();
        for directory in &self.tables.directories.copies {
            for table in 0..n_tables {
                places.extend(
                    self.tables
                        .sector(directory, table)
                        .map(|sector| (sector, table as u32)),
                );
            }
        }
        places.sort_unstable();
        let mut last: Option<(u32, u32)> = None;
        for (sector, table) in places {
            let overlapped = last
                .filter(|(before, _)| u64::from(sector - before) < TABLE_SECTORS)
                .map(|(_, other)| format!("grain table {other}"));
            let start = u64::from(sector);
            let on_directory = self
                .tables
                .directories
                .copies
                .iter()
                .find(|directory| directory.overlaps(start..start + TABLE_SECTORS))
                .map(|directory| directory.copy.directory().to_owned());
            last = Some((sector, table));
            if let Some(other) = overlapped.or(on_directory) {
                self.unread.push(u64::from(table));
                let text = format!("grain table {table}: sector {sector} overlaps the {other}");
                self.add(Severity::Corruption, text, Some(start * SECTOR_BYTES));
            }
        }
        self.unread.sort_unstable();
        self.unread.dedup();
    }

    /// Every entry for itself, then the copies against each other.
    fn tables(&mut self) -> Result<()> {
        let mut runs = Runs::default();
        for index in 0..self.tables.geometry.n_tables {
            if self.unread.binary_search(&index).is_ok() {
                continue;
            }
            let copies = Copies::read(self.tables, &mut runs, index)?;
            if let Some(table) = copies.believed() {
                self.entries(table);
            }
            self.compare(index, &copies);
        }
        Ok(())
    }

    fn entries(&mut self, table: &Table) {
        let geometry = &self.tables.geometry;
        for entry in 0..TABLE_ENTRIES {
            if table.entry(entry) == 0 {
                continue;
            }
            if geometry.grain_len(table.index, entry) == 0 {
                let text = format!(
                    "grain table {}, entry {entry}: sector {} beyond the capacity",
                    table.index,
                    table.entry(entry)
                );
                self.add(Severity::Oddity, text, None);
                continue;
            }
            match self.tables.grain(table, entry) {
                Ok(Grain::At(sector)) => self.stored(table, entry, sector),
                Ok(Grain::Hole | Grain::Zero) => {}
                Err(error) => self.findings.add_error(self.file, &error),
            }
        }
    }

    fn stored(&mut self, table: &Table, entry: usize, sector: u32) {
        self.findings.n_allocated_units += 1;
        let offset = u64::from(sector) * SECTOR_BYTES;
        if self.slot(offset).is_none() {
            let text = format!(
                "grain table {}, entry {entry}: sector {sector} is not aligned to the grains",
                table.index
            );
            self.add(Severity::Oddity, text, None);
            if self.misaligned.len() < MAX_MISALIGNED {
                self.misaligned.push(offset);
            }
        }
    }

    /// Tells the first difference, and how many there are.
    fn compare(&mut self, index: u64, copies: &Copies) {
        let mut differences = copies.differences();
        let Some((entry, first, other)) = differences.next() else {
            return;
        };
        let text = format!(
            "{} {index}, entry {entry}: {other}, but the {} says {first} ({} entries differ)",
            Copy::Redundant.table(),
            Copy::First.table(),
            1 + differences.count()
        );
        self.add(Severity::Oddity, text, None);
    }

    /// Returns which place for a grain begins at a file offset. Place 0 begins below the overhead,
    /// by less than a grain.
    fn slot(&self, offset: u64) -> Option<u64> {
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
    fn grain_places(&mut self) -> Result<()> {
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
        self.leaks(&used)
    }

    fn mark_tables(&self, used: &mut Slots) {
        for area in self.tables.directories.areas() {
            let bytes =
                area.start.saturating_mul(SECTOR_BYTES)..area.end.saturating_mul(SECTOR_BYTES);
            let slots = self.slots_touched(bytes);
            for slot in slots.start.max(used.slots.start)..slots.end.min(used.slots.end) {
                used.set(slot);
            }
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
