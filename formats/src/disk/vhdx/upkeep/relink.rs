//! Another parent, or none.

use hako_block::{Error, ParentLink, Result};

use super::super::bat::each_entry;
use super::super::layout::{Block, ENTRY_BYTES, Layout, STATE_PRESENT};
use super::super::locator::Locator;
use super::super::metadata::Patch;
use super::super::open;
use super::super::structure::Structure;
use super::bat::{clear_beyond, make_room};
use super::open_sound;
use crate::disk::OpenArgs;

/// Changes the parent. One log entry does it.
pub fn relink(args: &OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
    let locator = parent.map(Locator::of).transpose()?;
    let (mut structure, mut space) = open_sound(args)?;
    let old = *structure.layout();
    let mut journal = structure.journal()?;
    journal.change_ids(false)?;
    let mut freed = None;
    let mut patches = structure.metadata.set_locator(locator.as_ref())?;
    if locator.is_none() && old.has_parent {
        patches.extend(fill_partial_blocks(args, &structure)?);
    } else if locator.is_some() && !old.has_parent {
        // An overlay's BAT has entries to the end of its last chunk.
        let new = Layout {
            has_parent: true,
            ..old
        };
        clear_beyond(&structure, &mut journal, &old, new.n_entries())?;
        freed = make_room(&mut structure, &mut space, new.n_entries())?;
    }
    journal.patch(&patches)?;
    if let Some(range) = freed {
        structure.storage.punch_hole(range)?;
    }
    structure.storage.sync()
}

/// Fills what partially present blocks do not store with zeros, which the sector bitmap hides
/// for now. Returns the changes that make them fully present and drop the sector bitmaps: an
/// image without a parent has neither.
fn fill_partial_blocks(args: &OpenArgs, structure: &Structure) -> Result<Vec<Patch>> {
    const MAX_CHANGES: usize = 1 << 16;
    let image = open::open(&OpenArgs {
        access: hako_block::Access::ReadWrite,
        ..args.clone()
    })?;
    let layout = structure.layout();
    let mut patches: Vec<Patch> = Vec::new();
    let storage = &*structure.storage;
    each_entry(
        storage,
        &structure.bat,
        layout.n_entries(),
        |entry, word| {
            let at = structure.bat.start + entry * ENTRY_BYTES;
            match layout.block_of(entry) {
                None => patches.push((at, vec![0; ENTRY_BYTES as usize])),
                Some(block) => {
                    if let Block::Partial(host) = Block::decode(word, layout)? {
                        image.fill_holes(block, host)?;
                        patches.push((at, (host | STATE_PRESENT).to_le_bytes().to_vec()));
                    }
                }
            }
            if patches.len() > MAX_CHANGES {
                return Err(Error::unsupported(
                    "too many partially present blocks to change at once",
                )
                .hint("convert it to a new image"));
            }
            Ok(())
        },
    )?;
    storage.sync()?;
    Ok(patches)
}
