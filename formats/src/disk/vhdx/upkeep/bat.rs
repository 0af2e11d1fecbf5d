//! Changing many BAT entries of an image that nobody else uses; a larger BAT.

use std::collections::BTreeMap;
use std::ops::Range;

use hako_block::{Error, ErrorKind, Result, Storage};

use super::super::bat::each_entry;
use super::super::bytes::put;
use super::super::journal::{Journal, MAX_SECTORS, Sector};
use super::super::layout::{Block, ENTRY_BYTES, Layout, MAX_FILE_BYTES, MIB, decode_bitmap_entry};
use super::super::log::SECTOR;
use super::super::space::Space;
use super::super::structure::Structure;

/// Changes entries, as many as the log takes at a time; `words` in the order of the BAT. On disk
/// when it returns.
pub fn set_entries(
    structure: &Structure,
    journal: &mut Journal,
    words: impl IntoIterator<Item = (u64, u64)>,
) -> Result<()> {
    let mut sectors: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (entry, word) in words {
        let at = structure.bat.start + entry * ENTRY_BYTES;
        let start = at / SECTOR * SECTOR;
        if !sectors.contains_key(&start) {
            if sectors.len() == MAX_SECTORS {
                commit(journal, &mut sectors)?;
            }
            let mut bytes = vec![0; SECTOR as usize];
            structure.storage.read_at(start, &mut bytes)?;
            sectors.insert(start, bytes);
        }
        if let Some(bytes) = sectors.get_mut(&start) {
            put(bytes, (at - start) as usize, &word.to_le_bytes());
        }
    }
    commit(journal, &mut sectors)
}

fn commit(journal: &mut Journal, sectors: &mut BTreeMap<u64, Vec<u8>>) -> Result<()> {
    let sectors: Vec<Sector> = std::mem::take(sectors).into_iter().collect();
    if sectors.is_empty() {
        return Ok(());
    }
    journal.commit(&sectors.iter().collect::<Vec<_>>())
}

/// Clears the entries of the first `n_entries` that are of blocks beyond the end of a disk of
/// this layout. Returns where those blocks were.
pub fn clear_beyond(
    structure: &Structure,
    journal: &mut Journal,
    layout: &Layout,
    n_entries: u64,
) -> Result<Vec<Range<u64>>> {
    let room = (structure.bat.end - structure.bat.start) / ENTRY_BYTES;
    let mut beyond = Vec::new();
    let mut freed: Vec<Range<u64>> = Vec::new();
    let storage = &*structure.storage;
    each_entry(
        storage,
        &structure.bat,
        n_entries.min(room),
        |entry, word| {
            let (is_beyond, place) = match layout.block_of(entry) {
                Some(block) => {
                    let offset = Block::decode(word, layout).ok().and_then(Block::offset);
                    let place = offset.map(|offset| offset..offset + layout.block_bytes());
                    (block >= layout.n_blocks(), place)
                }
                None => {
                    let offset = decode_bitmap_entry(word).ok().flatten();
                    let is_beyond = entry > layout.bitmap_entry_of(layout.n_blocks() - 1);
                    (is_beyond, offset.map(|offset| offset..offset + MIB))
                }
            };
            if is_beyond {
                beyond.push(entry);
                freed.extend(place);
            }
            Ok(())
        },
    )?;
    set_entries(
        structure,
        journal,
        beyond.into_iter().map(|entry| (entry, 0)),
    )?;
    Ok(freed)
}

/// Makes room for `n_entries`, which may take moving the BAT to another place. Returns the place
/// where it was, if it moved: to be given back when nothing needs it any more.
pub fn make_room(
    structure: &mut Structure,
    space: &mut Space,
    n_entries: u64,
) -> Result<Option<Range<u64>>> {
    let old = structure.bat.clone();
    let needed = (n_entries * ENTRY_BYTES).next_multiple_of(MIB);
    if needed <= old.end - old.start {
        return Ok(None);
    }
    let offset = space.take(needed)?;
    let new = offset..offset + needed;
    if new.end > MAX_FILE_BYTES {
        return Err(Error::new(
            ErrorKind::NoSpace,
            "the file cannot grow any more",
        ));
    }
    let storage = &*structure.storage;
    let file_len = storage.len_bytes()?;
    if new.start < file_len {
        storage.punch_hole(new.start..new.end.min(file_len))?;
    }
    if new.end > file_len {
        storage.set_len(new.end)?;
    }
    copy(storage, &old, new.start)?;
    storage.sync()?;
    structure.regions.current = structure.regions.current.with_bat(&new);
    structure.write_region_tables()?;
    structure.bat = new;
    Ok(Some(old))
}

/// Copies what is stored of a range.
fn copy(storage: &dyn Storage, from: &Range<u64>, to: u64) -> Result<()> {
    const CHUNK: u64 = 1 << 20;
    let mut buf = Vec::new();
    let mut at = from.start;
    while at < from.end {
        let extent = storage.next_extent(at)?;
        let mut len = extent.len.min(from.end - at);
        if extent.data {
            len = len.min(CHUNK);
            buf.resize(len as usize, 0);
            storage.read_at(at, &mut buf)?;
            storage.write_at(to + (at - from.start), &buf)?;
        }
        at += len;
    }
    Ok(())
}
