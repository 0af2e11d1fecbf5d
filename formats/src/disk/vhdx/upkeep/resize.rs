//! Another virtual size.
//!
//! Growing: what may be left of an earlier shrink is cleared first, so that new space is a hole;
//! the BAT moves if it must, which changes nothing; then the size is written. Shrinking: the size
//! first, then blocks beyond it are given up. Either way one log entry makes the new size.

use std::ops::Range;

use hako_block::{Error, ErrorKind, Result};

use super::super::bytes::u64_at;
use super::super::layout::{Block, ENTRY_BYTES, Layout};
use super::super::metadata;
use super::super::space::Space;
use super::super::structure::Structure;
use super::bat::{clear_beyond, make_room};
use super::open_sound;
use crate::disk::OpenArgs;

/// Changes the virtual size.
pub fn resize(args: &OpenArgs, virtual_size: u64) -> Result<()> {
    let (mut structure, mut space) = open_sound(args)?;
    let old = *structure.layout();
    if virtual_size == old.virtual_size {
        return Ok(());
    }
    let new = metadata::layout(
        virtual_size,
        old.block_bytes(),
        1 << old.sector_shift,
        old.has_parent,
    )
    .map_err(|error| Error::new(ErrorKind::Invalid, error.finding()))?;
    let mut journal = structure.journal()?;
    journal.change_ids(true)?;
    let mut freed = Vec::new();
    if virtual_size > old.virtual_size {
        clear_beyond(&structure, &mut journal, &old, new.n_entries())?;
        clear_tail(&structure, &old)?;
        freed.extend(make_room(&mut structure, &mut space, new.n_entries())?);
    }
    journal.patch(&structure.metadata.set_virtual_size(virtual_size)?)?;
    structure.metadata.layout = new;
    if virtual_size < old.virtual_size {
        clear_tail(&structure, &new)?;
        freed = clear_beyond(&structure, &mut journal, &new, old.n_entries())?;
    }
    give_back(&structure, &freed)
}

/// Makes what is stored behind the disk's end, in its last block, read as zeros.
fn clear_tail(structure: &Structure, layout: &Layout) -> Result<()> {
    let last = layout.n_blocks() - 1;
    let at = structure.bat.start + layout.entry_of(last) * ENTRY_BYTES;
    let mut word = [0; 8];
    structure.storage.read_at(at, &mut word)?;
    let Some(offset) = Block::decode(u64_at(&word, 0), layout)?.offset() else {
        return Ok(());
    };
    let used = layout.virtual_size - layout.start_of(last);
    let tail = offset + used..offset + layout.block_bytes();
    if tail.is_empty() {
        return Ok(());
    }
    structure.storage.punch_hole(tail)?;
    structure.storage.sync()
}

/// Gives places back to the host that nothing on disk refers to, and cuts the file behind the
/// last one in use.
fn give_back(structure: &Structure, freed: &[Range<u64>]) -> Result<()> {
    let storage = &*structure.storage;
    for range in freed {
        storage.punch_hole(range.clone())?;
    }
    let end = Space::survey(structure)?.used_end();
    if end < storage.len_bytes()? {
        // The log says how long the file was: first it must be known to be empty.
        storage.sync()?;
        storage.set_len(end)?;
    }
    storage.sync()
}
