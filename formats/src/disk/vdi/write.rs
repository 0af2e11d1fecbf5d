//! Writing in place.
//!
//! A new block is written to its place before its entry says so, and until a flush that entry is
//! in memory only. Order on disk: data and the number of stored blocks, sync, map entries, sync.
//! VirtualBox stores its next block behind the number in the header, which therefore must never be
//! too small: after a cut it may be too large, which is a leak.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hako_block::{Error, ErrorKind, Result, Uuid};

use super::header::{Header, Kind};
use super::image::VdiImage;
use super::map::{Found, HOLE, Map, ZERO};
use super::places::Places;

/// Changed pages of the map kept in memory before they are flushed unasked: 4 MiB.
const MAX_DIRTY: usize = 256;
/// Free places below the last one that are remembered.
const MAX_SPARE: usize = 1 << 16;
/// Writers of different blocks must rarely meet.
const N_STRIPES: u64 = 64;

const DAMAGE_HINT: &str =
    "writing would make the damage worse: open it read-only, or convert it to a new image";

/// What an image open for writing has beside its map.
pub struct Writer {
    /// Held while an entry of one of the stripe's blocks may change.
    stripes: Vec<Mutex<()>>,
    state: Mutex<State>,
    /// How many places for blocks there may be.
    n_places: u64,
    /// Held during a flush.
    flushing: Mutex<()>,
    /// Whether the modification UUID has been changed.
    marked: AtomicBool,
}

struct State {
    header: Header,
    /// The place behind the last one that is, or may be, in use.
    next_place: u64,
    /// Places below that nothing uses.
    spare: Vec<u32>,
    /// Set by a failed sync: what the host has lost cannot be known, so nothing is promised again.
    lost: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Io,
        "an earlier flush failed: what was written since cannot be relied on",
    )
}

impl Writer {
    /// Looks where blocks are. Errors: two share a place, or one is not inside the file.
    pub fn new(map: &Map) -> Result<Self> {
        let places = Places::of(map).map_err(|error| error.hint(DAMAGE_HINT))?;
        let state = State {
            header: map.header.clone(),
            next_place: places.end(),
            spare: places.free(MAX_SPARE),
            lost: false,
        };
        Ok(Self {
            stripes: (0..N_STRIPES).map(|_| Mutex::new(())).collect(),
            state: Mutex::new(state),
            n_places: places.len(),
            flushing: Mutex::new(()),
            marked: AtomicBool::new(false),
        })
    }

    fn lock_block(&self, block: u64) -> Option<MutexGuard<'_, ()>> {
        let stripe = self.stripes.get((block % N_STRIPES) as usize);
        stripe.map(locked)
    }

    /// Changes the modification UUID on disk, before anything else changes, so that an overlay
    /// made on the old content can tell.
    fn mark(&self, map: &Map) -> Result<()> {
        if self.marked.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = locked(&self.state);
        if state.lost {
            return Err(lost());
        }
        if !self.marked.load(Ordering::Acquire) {
            let mut header = state.header.clone();
            header.modification = Uuid::random();
            header.write(&*map.storage)?;
            map.storage.sync()?;
            state.header = header;
            self.marked.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Returns a place that nothing uses, inside the file, its bytes zeros.
    fn take_place(&self, map: &Map) -> Result<u32> {
        let mut state = locked(&self.state);
        if state.lost {
            return Err(lost());
        }
        let place = match state.spare.last() {
            Some(place) => u64::from(*place),
            None => state.next_place,
        };
        if place >= self.n_places {
            let what = format!("all {} places are in use", self.n_places);
            return Err(Error::corrupt("block map", what).hint("hako disk compact makes room"));
        }
        let bytes = map.header.place_offset(place)..map.header.place_offset(place + 1);
        let file_len = map.file_len.load(Ordering::Acquire);
        if bytes.start < file_len {
            map.storage
                .punch_hole(bytes.start..bytes.end.min(file_len))?;
        }
        if bytes.end > file_len {
            map.storage.set_len(bytes.end)?;
            map.file_len.store(bytes.end, Ordering::Release);
        }
        if state.spare.pop().is_none() {
            state.next_place += 1;
        }
        Ok(place as u32)
    }

    fn return_place(&self, place: u32) {
        locked(&self.state).spare.push(place);
    }

    fn flush(&self, map: &Map) -> Result<()> {
        let _one = locked(&self.flushing);
        let snapshot = map.snapshot();
        let mut state = locked(&self.state);
        if state.lost {
            return Err(lost());
        }
        let next_place = state.next_place;
        if self.marked.load(Ordering::Acquire) && state.header.n_stored != next_place {
            let mut header = state.header.clone();
            header.n_stored = next_place;
            header.write(&*map.storage)?;
            state.header = header;
        }
        drop(state);
        self.sync(map)?;
        if snapshot.is_empty() {
            return Ok(());
        }
        map.write(&snapshot)?;
        self.sync(map)?;
        map.written(&snapshot);
        Ok(())
    }

    fn sync(&self, map: &Map) -> Result<()> {
        let synced = map.storage.sync();
        if synced.is_err() {
            locked(&self.state).lost = true;
        }
        synced
    }
}

impl VdiImage {
    fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(Error::read_only)
    }

    /// Checks a range and marks the image as changed.
    fn begin(&self, offset: u64, len: u64) -> Result<&Writer> {
        let writer = self.writer()?;
        self.check(offset, len)?;
        if len > 0 {
            writer.mark(&self.map)?;
        }
        Ok(writer)
    }

    pub(super) fn write(&self, mut offset: u64, mut buf: &[u8]) -> Result<()> {
        let writer = self.begin(offset, buf.len() as u64)?;
        let size = self.header().block;
        while !buf.is_empty() {
            let block = offset / size;
            let end = offset + buf.len() as u64;
            let (found, n_blocks) = self.map.run(block, end.div_ceil(size) - block)?;
            let run_end = match found {
                Found::At(_) => end.min((block + n_blocks) * size),
                Found::Hole | Found::Zero => end.min((block + 1) * size),
            };
            let (now, rest) = buf.split_at((run_end - offset) as usize);
            match found {
                Found::At(start) => self.map.storage.write_at(start + offset % size, now)?,
                Found::Hole | Found::Zero => self.write_new(writer, offset, now)?,
            }
            buf = rest;
            offset = run_end;
        }
        if self.map.n_dirty() > MAX_DIRTY {
            writer.flush(&self.map)?;
        }
        Ok(())
    }

    /// Writes within one block that was not stored a moment ago.
    fn write_new(&self, writer: &Writer, offset: u64, bytes: &[u8]) -> Result<()> {
        let size = self.header().block;
        let (block, inside) = (offset / size, offset % size);
        let _lock = writer.lock_block(block);
        if let (Found::At(start), _) = self.map.run(block, 1)? {
            return self.map.storage.write_at(start + inside, bytes);
        }
        let place = writer.take_place(&self.map)?;
        let start = self.header().place_offset(u64::from(place)) + self.header().extra;
        let stored = self.map.storage.write_at(start + inside, bytes);
        let stored = stored.and_then(|()| self.map.set(block, place));
        if stored.is_err() {
            writer.return_place(place);
        }
        stored
    }

    /// Makes a range read as zeros. What an overlay does not store it says is zero, block by
    /// block; a fixed image keeps its space.
    pub(super) fn zero(&self, range: Range<u64>) -> Result<()> {
        let writer = self.begin(range.start, range.end.saturating_sub(range.start))?;
        self.each_run(range, |found, bytes| match found {
            Found::At(start) if self.header().kind == Kind::Fixed => {
                write_zeros(&self.map, start, bytes.end - bytes.start)
            }
            Found::At(start) => {
                let len = bytes.end - bytes.start;
                self.map.storage.punch_hole(start..start + len)
            }
            Found::Hole if self.header().kind.is_overlay() => self.zero_holes(writer, bytes),
            Found::Hole | Found::Zero => Ok(()),
        })?;
        if self.map.n_dirty() > MAX_DIRTY {
            writer.flush(&self.map)?;
        }
        Ok(())
    }

    fn zero_holes(&self, writer: &Writer, bytes: Range<u64>) -> Result<()> {
        let size = self.header().block;
        for block in bytes.start / size..bytes.end.div_ceil(size) {
            let _lock = writer.lock_block(block);
            let entry = self.map.entry(block)?;
            if entry == HOLE {
                self.map.set(block, ZERO)?;
            } else if let Found::At(start) = self.map.decode(block, entry)? {
                // Somebody has just stored it: only what was asked for becomes zeros.
                let from = bytes.start.max(block * size);
                let len = bytes.end.min((block + 1) * size) - from;
                let start = start + from % size;
                self.map.storage.punch_hole(start..start + len)?;
            }
        }
        Ok(())
    }

    /// Gives the space of a range back to the host, where it is stored at all.
    pub(super) fn give_back(&self, range: Range<u64>) -> Result<()> {
        if self.header().kind == Kind::Fixed {
            return self
                .writer()
                .and_then(|_| self.check(range.start, range.end.saturating_sub(range.start)));
        }
        self.begin(range.start, range.end.saturating_sub(range.start))?;
        self.each_run(range, |found, bytes| match found {
            Found::At(start) => {
                let len = bytes.end - bytes.start;
                self.map.storage.punch_hole(start..start + len)
            }
            Found::Hole | Found::Zero => Ok(()),
        })
    }

    /// Calls `each` with what the map says of every run of `range`: for one that is stored, the
    /// file offset of its first byte.
    fn each_run(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(Found, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let size = self.header().block;
        let mut offset = range.start;
        while offset < range.end {
            let block = offset / size;
            let (found, n_blocks) = self.map.run(block, range.end.div_ceil(size) - block)?;
            let end = range.end.min((block + n_blocks) * size);
            let found = match found {
                Found::At(start) => Found::At(start + offset % size),
                other => other,
            };
            each(found, offset..end)?;
            offset = end;
        }
        Ok(())
    }

    pub(super) fn flush_all(&self) -> Result<()> {
        match &self.writer {
            Some(writer) => writer.flush(&self.map),
            None => Ok(()),
        }
    }
}

/// Writes zeros that take space.
pub fn write_zeros(map: &Map, start: u64, len: u64) -> Result<()> {
    const CHUNK: u64 = 1 << 20;
    let zeros = vec![0; len.min(CHUNK) as usize];
    let mut done = 0;
    while done < len {
        let now = (len - done).min(CHUNK);
        map.storage.write_at(start + done, &zeros[..now as usize])?;
        done += now;
    }
    Ok(())
}
