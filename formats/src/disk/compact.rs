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
use super::claims::Claims;

/// Places a file may have: twice 64 MiB of bits.
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

    /// Returns where the part of the file ends that units may lie in.
    fn end(&self) -> Result<u64> {
        self.storage().len_bytes()
    }

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

    /// Ends that part of the file at `end`, beyond which nothing in it is in use. What belongs
    /// behind the last unit (a VHD's footer) is put there first.
    fn cut(&mut self, end: u64) -> Result<()> {
        self.storage().set_len(end)?;
        self.storage().sync()
    }
}

/// Compacts one file. Errors: a unit that overlaps another; cancelled (the image is whole then).
pub(crate) fn compact(image: &mut dyn Compactable, task: Task<'_>) -> Result<()> {
    give_up_zeros(image, task)?;
    close_gaps(image, task)
}

/// Does what compacting does but for looking for zeros.
pub(crate) fn close_gaps(image: &mut dyn Compactable, task: Task<'_>) -> Result<()> {
    let map = Map::survey(image)?;
    if image.storage().is_device() {
        return Ok(());
    }
    let map = move_down(image, map, task)?;
    let end = map.end();
    if end < image.end()? {
        image.cut(end)?;
    }
    map.punch_free(image.storage(), end, task)
}

/// Moves units down as far as there is room: to where the file would end without gaps, then, if
/// places that are no multiple of the units' keep some from fitting, to a little farther on.
fn move_down(image: &mut dyn Compactable, mut map: Map, task: Task<'_>) -> Result<Map> {
    let mut slack = 0;
    loop {
        let goal = (map.used.n_marked() + slack).max(map.fixed.end());
        if goal >= map.used.end() {
            return Ok(map);
        }
        let mut mover = Mover::new(map, goal);
        mover.run(image, task)?;
        if mover.largest_left == 0 {
            return Ok(mover.map);
        }
        slack = (2 * slack).max(mover.largest_left);
        map = mover.map;
    }
}

/// Which places of a file are in use.
struct Map {
    grid: Grid,
    /// Places that anything lies in.
    used: Bits,
    /// Places that something lies in that stays; a unit beside it stays, too.
    fixed: Bits,
}

impl Map {
    /// Walks all tables. Nothing may move while a unit shares bytes with anything.
    fn survey(image: &dyn Compactable) -> Result<Self> {
        let grid = image.grid();
        let file_end = image.end()?;
        let n_places = file_end.saturating_sub(grid.base).div_ceil(grid.step);
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
            fixed: Bits::new(n_places),
        };
        let mut claims = Claims::default();
        image.fixed(&mut |range| {
            map.fixed.mark(map.places(range.clone()));
            claims.claim(range);
        })?;
        // First the units out of line, whatever their keys: they stay, and others are held
        // against them.
        each_unit(image, |unit| {
            let bytes = bytes_of(unit, grid, file_end)?;
            if !map.is_aligned(unit) {
                map.fixed.mark(map.places(bytes.clone()));
                if !claims.claim(bytes) {
                    return Err(used_twice(unit));
                }
            }
            Ok(())
        })?;
        each_unit(image, |unit| {
            let bytes = unit.offset..unit.offset + unit.len;
            if map.is_aligned(unit) && (claims.touches(&bytes) || map.used.mark(map.places(bytes)))
            {
                return Err(used_twice(unit));
            }
            Ok(())
        })?;
        map.used.mark_all(&map.fixed);
        Ok(map)
    }

    /// Returns whether a unit may be moved: its places are its own.
    fn is_movable(&self, unit: &Unit) -> bool {
        let places = self.places(unit.offset..unit.offset + unit.len);
        let shared = self.fixed.next(places.start, true);
        self.is_aligned(unit) && shared.is_none_or(|place| place >= places.end)
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

/// Returns the bytes of a unit. Errors: they are not all inside the file.
fn bytes_of(unit: &Unit, grid: Grid, file_end: u64) -> Result<Range<u64>> {
    match unit.offset.checked_add(unit.len) {
        Some(end) if end <= file_end && unit.offset >= grid.base && unit.len > 0 => {
            Ok(unit.offset..end)
        }
        _ => {
            let what = format!("{} bytes are not inside the file", unit.len);
            Err(Error::corrupt(format!("unit {}", unit.key), what).at_byte(unit.offset))
        }
    }
}

fn used_twice(unit: &Unit) -> Error {
    let what = "its place in the file is used by something else too";
    Error::corrupt(format!("unit {}", unit.key), what)
        .at_byte(unit.offset)
        .hint("hako disk check tells more")
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

/// Does the first half of compacting. Errors: as there; nothing is changed then.
pub(crate) fn give_up_zeros(image: &mut dyn Compactable, task: Task<'_>) -> Result<()> {
    Map::survey(image)?;
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
    /// The place at which the file can end if every unit beyond it finds room.
    goal: u64,
    /// The most places of a unit beyond it that found none.
    largest_left: u64,
    /// Where to look for so many places in a row: there is no room for them before.
    searched: BTreeMap<u64, u64>,
    batch: Vec<Move>,
    batch_bytes: u64,
}

impl Mover {
    fn new(map: Map, goal: u64) -> Self {
        Self {
            map,
            goal,
            largest_left: 0,
            searched: BTreeMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    fn run(&mut self, image: &mut dyn Compactable, task: Task<'_>) -> Result<()> {
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
        self.finish_batch(image)
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
        if places.end <= self.goal || !self.map.is_movable(&unit) {
            return Ok(());
        }
        let n = places.end - places.start;
        let Some(free) = self.find_room(n) else {
            self.largest_left = self.largest_left.max(n);
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
