//! Mending what can be mended without guessing. What a block held whose map entry is wrong cannot
//! be known: such entries stay, for the check to tell.

use std::sync::atomic::Ordering;

use hako_block::{ErrorKind, Result, Uuid};

use super::{close_all_gaps, open_map};
use crate::disk::vdi::header::Header;
use crate::disk::vdi::map::Map;
use crate::disk::vdi::places::Places;
use crate::disk::{OpenArgs, Repair};

/// Mends an image; returns what was done.
pub fn repair(args: OpenArgs, what: Repair) -> Result<Vec<String>> {
    let mut done = Vec::new();
    if what == Repair::All {
        mend_header(&args, &mut done)?;
    }
    let map = open_map(&args)?;
    match Places::of(&map) {
        Ok(places) => give_back(map, &places, &mut done)?,
        Err(error) if error.kind() == ErrorKind::Corrupt => {}
        Err(error) => return Err(error),
    }
    Ok(done)
}

/// The size, UUIDs that are missing, a number of stored blocks that would have VirtualBox
/// overwrite one.
fn mend_header(args: &OpenArgs, done: &mut Vec<String>) -> Result<()> {
    let map = open_map(args)?;
    let mut header = map.header.clone();
    if header.disk_size != header.virtual_size() {
        header.disk_size = header.virtual_size();
        done.push(format!("header: size set to {}", header.disk_size));
    }
    for (uuid, what) in [
        (&mut header.uuid, "image"),
        (&mut header.modification, "modification"),
    ] {
        if uuid.is_nil() {
            *uuid = Uuid::random();
            done.push(format!("header: {what} UUID set to {uuid}"));
        }
    }
    let end = end_of_stored(&map)?;
    if header.n_stored < end {
        header.n_stored = end;
        done.push(format!("header: number of stored blocks set to {end}"));
    }
    write_changed(args, &map.header, &header)
}

fn write_changed(args: &OpenArgs, old: &Header, new: &Header) -> Result<()> {
    if old == new {
        return Ok(());
    }
    new.write(&*args.storage)?;
    args.storage.sync()
}

/// Returns the place behind the last one that can be in use, whatever else is wrong.
fn end_of_stored(map: &Map) -> Result<u64> {
    let mut end = 0;
    map.each_stored(|block, place| {
        let place = u64::from(place);
        if place < map.header.n_blocks && map.decode(block, place as u32).is_ok() {
            end = end.max(place + 1);
        }
        Ok(())
    })?;
    Ok(end)
}

/// Closes gaps and cuts the file behind the last block.
fn give_back(map: Map, places: &Places, done: &mut Vec<String>) -> Result<()> {
    let n_stored = map.header.n_stored;
    let (end, n_used) = (places.end(), places.n_used());
    let file_len = map.file_len.load(Ordering::Acquire);
    let needed = map.header.place_offset(n_used);
    let leaked = file_len.saturating_sub(needed);
    let is_tight = end == n_used && (leaked == 0 || map.storage.is_device());
    if is_tight && n_stored == n_used {
        return Ok(());
    }
    let is_device = map.storage.is_device();
    close_all_gaps(map)?;
    if !is_tight && !is_device {
        done.push(format!("{leaked} bytes that nothing used given back"));
    }
    if n_stored > n_used && !is_device {
        done.push(format!("header: number of stored blocks set to {n_used}"));
    }
    Ok(())
}
