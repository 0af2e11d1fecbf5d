//! Changing the virtual size.
//!
//! The header, in one sector, decides which size counts: what a larger disk needs is on disk
//! before it, what a smaller one no longer needs is given back after it. If the map needs more
//! room than there is before the data, blocks at its end move to the end of the file, a new map is
//! written in their place, and the header changes to it.

use std::ops::Range;
use std::sync::atomic::Ordering;

use hako_block::{Error, Result, SECTOR_BYTES};

use super::{close_all_gaps, open_map, open_sound};
use crate::disk::OpenArgs;
use crate::disk::vdi::header::{Header, Kind, MAX_BLOCKS};
use crate::disk::vdi::map::{Found, HOLE, Map, ZERO, write_entries};
use crate::disk::vdi::places::Places;
use crate::disk::vdi::write::write_zeros;

/// Bytes copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// Changes the virtual size. Errors: a size that the format cannot have, a damaged image.
pub fn resize(args: &OpenArgs, virtual_size: u64) -> Result<()> {
    let (map, places) = open_sound(args)?;
    let n_blocks = virtual_size.div_ceil(map.header.block);
    if virtual_size == 0 || !virtual_size.is_multiple_of(SECTOR_BYTES) || n_blocks > MAX_BLOCKS {
        return Err(Error::invalid(format!(
            "a VDI in blocks of {} bytes cannot have {virtual_size} bytes",
            map.header.block
        )));
    }
    if map.header.is_old() {
        return Err(Error::unsupported(format!(
            "a VDI of version {} cannot be resized in place",
            map.header.version()
        ))
        .hint("convert it to a new image"));
    }
    if virtual_size < map.header.virtual_size() {
        shrink(args, &map, virtual_size)
    } else {
        grow(map, &places, virtual_size)
    }
}

fn shrink(args: &OpenArgs, map: &Map, virtual_size: u64) -> Result<()> {
    let mut header = map.header.clone();
    header.disk_size = virtual_size;
    header.n_blocks = virtual_size.div_ceil(header.block);
    header.write(&*map.storage)?;
    map.storage.sync()?;
    let map = open_map(args)?;
    clear_tail(&map)?;
    close_all_gaps(map)
}

/// Fills the last block with zeros beyond the end of the disk: what lay there must not show when
/// the disk grows.
fn clear_tail(map: &Map) -> Result<()> {
    let header = &map.header;
    let size = header.virtual_size();
    let inside = size % header.block;
    let block = size / header.block;
    if inside == 0 {
        return Ok(());
    }
    if let Found::At(start) = map.decode(block, map.entry(block)?)? {
        write_zeros(map, start + inside, header.block - inside)?;
        let file_len = map.storage.len_bytes()?;
        map.file_len.store(file_len, Ordering::Release);
    }
    Ok(())
}

fn grow(map: Map, places: &Places, virtual_size: u64) -> Result<()> {
    clear_tail(&map)?;
    let mut header = map.header.clone();
    header.disk_size = virtual_size;
    // The map may have had more entries than the disk had blocks: those are new, too.
    let old_blocks = map.header.virtual_size().div_ceil(header.block);
    header.n_blocks = virtual_size.div_ceil(header.block);
    let added = old_blocks..header.n_blocks;
    if header.map_end() > header.data_offset {
        let mut map = map;
        return Growth::new(&map, header, added)?.move_map(&mut map, places);
    }
    let end = add_places(&map, &header, places.end(), added.end - added.start)?;
    let first = places.end();
    let entries = added
        .clone()
        .map(|block| Ok(new_entry(&header, first, block - added.start)));
    let offset = header.entry_offset(added.start);
    write_entries(&*map.storage, offset, entries)?;
    map.storage.sync()?;
    header.n_stored = header.n_stored.max(end);
    header.write(&*map.storage)?;
    map.storage.sync()
}

/// Returns the entry of the `nth` block that is added: a hole, or its place behind the others.
fn new_entry(header: &Header, first_place: u64, nth: u64) -> u32 {
    match header.kind {
        Kind::Fixed => (first_place + nth) as u32,
        _ => HOLE,
    }
}

/// Takes the space of blocks that are added to a fixed image. Returns the place behind the last.
fn add_places(map: &Map, header: &Header, first: u64, n_blocks: u64) -> Result<u64> {
    if header.kind != Kind::Fixed {
        return Ok(first);
    }
    let bytes = header.place_offset(first)..header.place_offset(first + n_blocks);
    let file_len = map.storage.len_bytes()?;
    if bytes.start < file_len {
        map.storage
            .punch_hole(bytes.start..bytes.end.min(file_len))?;
    }
    if bytes.end > file_len {
        map.storage.set_len(bytes.end)?;
    }
    map.storage.reserve(bytes)?;
    Ok(first + n_blocks)
}

/// A disk that grows so much that its map has no room.
struct Growth {
    header: Header,
    /// The blocks that are new.
    added: Range<u64>,
    /// How many places the new map takes from the blocks.
    n_taken: u64,
}

impl Growth {
    fn new(map: &Map, mut header: Header, added: Range<u64>) -> Result<Self> {
        let old_data = map.header.data_offset;
        header.map_offset = old_data.next_multiple_of(SECTOR_BYTES);
        let n_taken = (header.map_end() - old_data).div_ceil(header.stride());
        header.data_offset = old_data + n_taken * header.stride();
        if header.data_offset > u64::from(u32::MAX) {
            return Err(Error::unsupported(format!(
                "the map of {} blocks has no room before the data",
                header.n_blocks
            ))
            .hint("convert it to a new image"));
        }
        Ok(Self {
            header,
            added,
            n_taken,
        })
    }

    fn move_map(mut self, map: &mut Map, places: &Places) -> Result<()> {
        let end = self.clear_room(map, places)?;
        let end = add_places(map, &map.header, end, self.n_added(map))?;
        self.write_map(map, end)?;
        self.header.n_stored = end - self.n_taken;
        self.header.write(&*map.storage)?;
        map.storage.sync()
    }

    /// Returns how many places the added blocks take.
    fn n_added(&self, map: &Map) -> u64 {
        match map.header.kind {
            Kind::Fixed => self.added.end - self.added.start,
            _ => 0,
        }
    }

    /// Moves the blocks in the way behind all others. Returns the place behind the last one.
    fn clear_room(&self, map: &mut Map, places: &Places) -> Result<u64> {
        let mut in_the_way = Vec::new();
        map.each_stored(|block, place| {
            if u64::from(place) < self.n_taken {
                in_the_way.push((block, place));
            }
            Ok(())
        })?;
        let first = places.end().max(self.n_taken);
        let end = first + in_the_way.len() as u64;
        if in_the_way.is_empty() {
            return Ok(end);
        }
        for ((_, place), to) in in_the_way.iter().zip(first..) {
            copy_block(map, u64::from(*place), to)?;
        }
        // VirtualBox must not store anything where they are now. (It may refuse more places than
        // blocks, which is as well while this lasts.)
        map.header.n_stored = map.header.n_stored.max(end);
        map.header.write(&*map.storage)?;
        map.storage.sync()?;
        for ((block, _), to) in in_the_way.into_iter().zip(first..) {
            map.set(block, to as u32)?;
        }
        map.write_all()?;
        Ok(end)
    }

    /// Writes the new map, whose places are counted from the new beginning of the data.
    fn write_map(&self, map: &Map, end: u64) -> Result<()> {
        let old = (0..self.added.start).map(|block| {
            let entry = map.entry(block)?;
            Ok(if entry < ZERO {
                entry.saturating_sub(self.n_taken as u32)
            } else {
                entry
            })
        });
        let first = (end - self.n_added(map)).saturating_sub(self.n_taken);
        let new = self.added.clone();
        let new = new.map(|block| Ok(new_entry(&self.header, first, block - self.added.start)));
        write_entries(&*map.storage, self.header.map_offset, old.chain(new))?;
        map.storage.sync()
    }
}

fn copy_block(map: &Map, from: u64, to: u64) -> Result<()> {
    let header = &map.header;
    let (from, to) = (header.place_offset(from), header.place_offset(to));
    let file_len = map.storage.len_bytes()?;
    if to + header.stride() > file_len {
        map.storage.set_len(to + header.stride())?;
        map.file_len.store(to + header.stride(), Ordering::Release);
    }
    // The last place of the file may be short.
    let len = header.stride().min(file_len - from);
    let mut bytes = vec![0; len.min(COPY_BYTES) as usize];
    let mut at = 0;
    while at < len {
        let now = (len - at).min(COPY_BYTES) as usize;
        let piece = bytes.get_mut(..now).unwrap_or_default();
        map.storage.read_at(from + at, piece)?;
        map.storage.write_at(to + at, piece)?;
        at += now as u64;
    }
    Ok(())
}
