//! Compacting in place, for every format that keeps its units (grain, block, cluster) anywhere in
//! a file and has tables that point at them.
//!
//! Units that are all zeros are given up, units at the file's end are copied into free places
//! nearer to its beginning, the file is cut, and what is free inside it becomes a hole of the host
//! file. A copy is on disk before a table points at it, and a place is never used again before
//! nothing on disk points at it: a cut at any write leaves a whole image, with a leak at worst.

use std::collections::BTreeMap;
use std::ops::Range;

use hako_block::{Error, Result, Storage, StorageExtent, is_zero};

use super::Task;
use super::bits::Bits;

/// Places a file may have: 64 MiB of bits.
const MAX_PLACES: u64 = 512 << 20;
/// Bytes and units copied before the tables are changed.
const MAX_BATCH_BYTES: u64 = 64 << 20;
const MAX_BATCH_UNITS: usize = 4096;
/// Bytes copied at once.
const COPY_BYTES: u64 = 1 << 20;
/// What is read first of a unit that may be all zeros: most are not, and show it soon.
const FIRST_LOOK: u64 = 4096;

/// A unit that is stored in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// What the driver knows it by: the number of its table entry.
    pub key: u64,
    /// File offset of all that the entry points at (a VHD's block begins with its bitmap).
    pub offset: u64,
    /// Its length in bytes, not 0, inside the file.
    pub len: u64,
    /// The file range that, if all its bytes are zeros, lets the unit be given up; `None` if it
    /// must be kept whatever it holds (in an overlay of a format that cannot say zero).
    pub content: Option<Range<u64>>,
}

/// A unit that has been copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    /// The unit, where it was.
    pub unit: Unit,
    /// File offset of the copy.
    pub to: u64,
}

/// Where units may lie: at `base + n * step`. A unit may take several places. One that does not
/// begin at a place is left where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// File offset of the first place; nothing below it is touched.
    pub base: u64,
    /// Bytes from one place to the next, not 0.
    pub step: u64,
}

/// A file of an image that is open for writing and that nobody else uses meanwhile.
pub(crate) trait Compactable {
    /// Returns the file.
    fn storage(&self) -> &dyn Storage;

    /// Returns where units may lie.
    fn grid(&self) -> Grid;

    /// Tells `each` every file range above the grid's base that is in use and is no unit.
    fn fixed(&self, each: &mut dyn FnMut(Range<u64>)) -> Result<()>;

    /// Appends to `units` those stored from key `from` on, in ascending order of their keys, some
    /// thousands at most. Returns the key to go on with, `None` after the last. Takes time by what
    /// is stored, not by the virtual size.
    fn units(&self, from: u64, units: &mut Vec<Unit>) -> Result<Option<u64>>;

    /// Stores these units, which have a content and it is all zeros, no longer. Returns once that
    /// is on disk.
    fn give_up(&mut self, units: &[Unit]) -> Result<()>;

    /// Makes the tables point at the copies, which are on disk. Returns once that is on disk too.
    fn relocate(&mut self, moves: &[Move]) -> Result<()>;

    /// Ends the file at `end`, beyond which nothing is in use. What belongs behind the last unit
    /// (a VHD's footer) is put there first.
    fn cut(&mut self, end: u64) -> Result<()> {
        self.storage().set_len(end)?;
        self.storage().sync()
    }
}

/// Compacts one file. Errors: a unit that overlaps another; cancelled (the image is whole then).
pub(crate) fn compact(image: &mut dyn Compactable, task: Task<'_>) -> Result<()> {
    Map::survey(image)?;
    give_up_zeros(image, task)?;
    close_gaps(image, task)
}

/// Does what compacting does but for looking for zeros.
pub(crate) fn close_gaps(image: &mut dyn Compactable, task: Task<'_>) -> Result<()> {
    let map = Map::survey(image)?;
    if image.storage().is_device() {
        return Ok(());
    }
    let map = Mover::new(map).run(image, task)?;
    let end = map.end();
    if end < image.storage().len_bytes()? {
        image.cut(end)?;
    }
    map.punch_free(image.storage(), end, task)
}

/// Which places of a file are in use.
struct Map {
    grid: Grid,
    used: Bits,
    /// The place behind the last one that holds something that stays.
    fixed_end: u64,
}

impl Map {
    /// Walks all tables. Nothing may move while two units share a place.
    fn survey(image: &dyn Compactable) -> Result<Self> {
        let grid = image.grid();
        let file_len = image.storage().len_bytes()?;
        let n_places = file_len.saturating_sub(grid.base).div_ceil(grid.step);
        if n_places > MAX_PLACES {
            return Err(Error::unsupported(format!(
                "a file of {n_places} units of {} bytes is too large to be compacted in place",
                grid.step
            ))
            .hint("convert it to a new image"));
        }
        let mut map = Self {
            grid,
            used: Bits::new(n_places),
            fixed_end: 0,
        };
        image.fixed(&mut |range| map.fix(range))?;
        each_unit(image, |unit| map.add(unit, file_len))?;
        Ok(map)
    }

    fn fix(&mut self, range: Range<u64>) {
        let places = self.places(range);
        self.fixed_end = self.fixed_end.max(places.end);
        self.used.mark(places);
    }

    fn add(&mut self, unit: &Unit, file_len: u64) -> Result<()> {
        let place = || format!("unit {}", unit.key);
        match unit.offset.checked_add(unit.len) {
            Some(end) if end <= file_len && unit.offset >= self.grid.base && unit.len > 0 => {}
            _ => {
                let what = format!("{} bytes are not inside the file", unit.len);
                return Err(Error::corrupt(place(), what).at_byte(unit.offset));
            }
        }
        let bytes = unit.offset..unit.offset + unit.len;
        if !self.is_aligned(unit) {
            self.fix(bytes);
            return Ok(());
        }
        let places = self.places(bytes);
        if self.used.mark(places) {
            return Err(Error::corrupt(
                place(),
                "its place in the file is used by something else too",
            )
            .at_byte(unit.offset)
            .hint("hako disk check tells more"));
        }
        Ok(())
    }

    fn is_aligned(&self, unit: &Unit) -> bool {
        let distance = unit.offset.checked_sub(self.grid.base);
        distance.is_some_and(|distance| distance.is_multiple_of(self.grid.step))
    }

    /// Returns the places that a file range touches.
    fn places(&self, bytes: Range<u64>) -> Range<u64> {
        let Grid { base, step } = self.grid;
        let start = bytes.start.saturating_sub(base) / step;
        start..bytes.end.saturating_sub(base).div_ceil(step)
    }

    fn offset(&self, place: u64) -> u64 {
        self.grid.base + place * self.grid.step
    }

    /// Returns the file offset behind the last place in use.
    fn end(&self) -> u64 {
        self.offset(self.used.end())
    }

    /// Gives the space of free places below `end` back to the host.
    fn punch_free(&self, storage: &dyn Storage, end: u64, task: Task<'_>) -> Result<()> {
        let mut place = 0;
        while let Some(free) = self.used.next_free(place) {
            task.cancel.check()?;
            place = free.end;
            let bytes = self.offset(free.start)..self.offset(free.end).min(end);
            if bytes.is_empty() {
                break;
            }
            punch_data(storage, bytes)?;
        }
        Ok(())
    }
}

/// Punches what of `bytes` is no hole yet.
pub(crate) fn punch_data(storage: &dyn Storage, bytes: Range<u64>) -> Result<()> {
    let mut offset = bytes.start;
    while offset < bytes.end {
        let run = storage.next_extent(offset)?;
        let run_end = (offset + run.len).min(bytes.end);
        if run.data {
            storage.punch_hole(offset..run_end)?;
        }
        offset = run_end;
    }
    Ok(())
}

/// Calls `each` with every stored unit.
fn each_unit(image: &dyn Compactable, mut each: impl FnMut(&Unit) -> Result<()>) -> Result<()> {
    let mut units = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        units.clear();
        next = image.units(from, &mut units)?;
        units.iter().try_for_each(&mut each)?;
    }
    Ok(())
}

fn give_up_zeros(image: &mut dyn Compactable, task: Task<'_>) -> Result<()> {
    task.progress.phase("look for zeros");
    task.progress.total(image.storage().len_bytes()?);
    let mut look = Look::default();
    let mut units = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        units.clear();
        next = image.units(from, &mut units)?;
        let mut zeros = Vec::new();
        for unit in units.drain(..) {
            task.cancel.check()?;
            task.progress.advance(unit.len);
            if let Some(content) = unit.content.clone()
                && look.is_zero(image.storage(), content)?
            {
                zeros.push(unit);
            }
        }
        if !zeros.is_empty() {
            image.give_up(&zeros)?;
        }
    }
    Ok(())
}

/// Looks at the content of units; remembers the run of the host file it saw last.
#[derive(Default)]
pub(crate) struct Look {
    run: Option<StorageExtent>,
    buf: Vec<u8>,
}

impl Look {
    /// Returns whether all bytes of a file range are zeros.
    pub(crate) fn is_zero(&mut self, storage: &dyn Storage, content: Range<u64>) -> Result<bool> {
        let mut offset = content.start;
        let mut len = FIRST_LOOK;
        while offset < content.end {
            let run = self.run_at(storage, offset)?;
            let run_end = content.end.min(run.offset + run.len);
            if !run.data {
                offset = run_end;
                continue;
            }
            let now = len.min(run_end - offset);
            self.buf.resize(now as usize, 0);
            storage.read_at(offset, &mut self.buf)?;
            if !is_zero(&self.buf) {
                return Ok(false);
            }
            offset += now;
            len = COPY_BYTES;
        }
        Ok(true)
    }

    fn run_at(&mut self, storage: &dyn Storage, offset: u64) -> Result<StorageExtent> {
        let known = self.run;
        match known.filter(|run| (run.offset..run.offset + run.len).contains(&offset)) {
            Some(run) => Ok(run),
            None => Ok(*self.run.insert(storage.next_extent(offset)?)),
        }
    }
}

/// Moves units from the file's end to free places before it.
struct Mover {
    map: Map,
    /// The place at which the file could end if every unit beyond it found room.
    goal: u64,
    /// Where to look for so many places in a row: there is no room for them before.
    searched: BTreeMap<u64, u64>,
    batch: Vec<Move>,
    batch_bytes: u64,
}

impl Mover {
    fn new(map: Map) -> Self {
        // As many places as are in use, if what lies beyond can move below.
        let goal = map.used.n_marked().max(map.fixed_end);
        Self {
            map,
            goal,
            searched: BTreeMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    fn run(mut self, image: &mut dyn Compactable, task: Task<'_>) -> Result<Map> {
        task.progress.phase("move");
        task.progress.total(self.bytes_beyond());
        let mut units = Vec::new();
        let mut next = (self.bytes_beyond() > 0).then_some(0);
        while let Some(from) = next {
            units.clear();
            next = image.units(from, &mut units)?;
            for unit in units.drain(..) {
                self.consider(image, unit, task)?;
            }
        }
        self.finish_batch(image)?;
        Ok(self.map)
    }

    fn bytes_beyond(&self) -> u64 {
        let mut n_places = 0;
        let mut place = self.goal;
        while let Some(start) = self.map.used.next(place, true) {
            let end = self.map.used.next(start, false);
            place = end.unwrap_or(self.map.used.len());
            n_places += place - start;
        }
        n_places * self.map.grid.step
    }

    fn consider(&mut self, image: &mut dyn Compactable, unit: Unit, task: Task<'_>) -> Result<()> {
        let places = self.map.places(unit.offset..unit.offset + unit.len);
        if places.end <= self.goal || !self.map.is_aligned(&unit) {
            return Ok(());
        }
        let Some(free) = self.find_room(places.end - places.start) else {
            return Ok(());
        };
        task.cancel.check()?;
        let to = self.map.offset(free.start);
        copy(image.storage(), unit.offset, to, unit.len)?;
        task.progress.advance(unit.len);
        self.map.used.mark(free);
        self.batch_bytes += unit.len;
        self.batch.push(Move { unit, to });
        if self.batch_bytes >= MAX_BATCH_BYTES || self.batch.len() >= MAX_BATCH_UNITS {
            self.finish_batch(image)?;
        }
        Ok(())
    }

    /// Returns the lowest `n` free places in a row below the goal. They are never freed again, so
    /// each search goes on where the one before ended.
    fn find_room(&mut self, n: u64) -> Option<Range<u64>> {
        let from = self.searched.entry(n).or_insert(0);
        loop {
            let free = self.map.used.next_free(*from)?;
            *from = free.start;
            if free.start + n > self.goal {
                return None;
            }
            if free.end - free.start >= n {
                return Some(free.start..free.start + n);
            }
            *from = free.end;
        }
    }

    fn finish_batch(&mut self, image: &mut dyn Compactable) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        image.storage().sync()?;
        image.relocate(&self.batch)?;
        for Move { unit, .. } in self.batch.drain(..) {
            let places = self.map.places(unit.offset..unit.offset + unit.len);
            self.map.used.clear(places);
        }
        self.batch_bytes = 0;
        Ok(())
    }
}

/// Copies bytes inside a file; its holes become holes.
pub(crate) fn copy(storage: &dyn Storage, from: u64, to: u64, len: u64) -> Result<()> {
    let mut buf = Vec::new();
    let mut at = 0;
    while at < len {
        let run = storage.next_extent(from + at)?;
        let run_len = run.len.min(len - at);
        if !run.data {
            storage.punch_hole(to + at..to + at + run_len)?;
            at += run_len;
            continue;
        }
        let now = run_len.min(COPY_BYTES);
        buf.resize(now as usize, 0);
        storage.read_at(from + at, &mut buf)?;
        storage.write_at(to + at, &buf)?;
        at += now;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
