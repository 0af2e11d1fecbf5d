//! What is done to an image beyond its content, with nobody else using it.

mod bat;
mod compact;
mod relink;
mod repair;
mod resize;

use hako_block::{Access, Result};

use super::space::Space;
use super::structure::Structure;
use crate::disk::{OpenArgs, Settings};

pub use compact::compact;
pub use relink::relink;
pub use repair::repair;
pub use resize::resize;

/// Changes what the disk is known by.
pub fn set(args: &OpenArgs, settings: &Settings) -> Result<()> {
    settings.refuse_others("vhdx", &["uuid"])?;
    let Some(id) = settings.uuid else {
        return Ok(());
    };
    let structure = Structure::open(&args.storage, Access::ReadWrite)?;
    let patches = structure.metadata.set_disk_id(id)?;
    let mut journal = structure.journal()?;
    journal.change_ids(false)?;
    journal.patch(&patches)?;
    structure.storage.sync()
}

/// Opens an image for a change that moves or frees blocks. Errors: two of them share a place, or
/// one lies where none can be.
fn open_sound(args: &OpenArgs) -> Result<(Structure, Space)> {
    let structure = Structure::open(&args.storage, Access::ReadWrite)?;
    let space = Space::survey(&structure)?;
    Ok((structure, space))
}
