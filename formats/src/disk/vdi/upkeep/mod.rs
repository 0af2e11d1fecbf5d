//! What is done to an image beyond its content, with nobody else using it.

mod blocks;
mod repair;
mod resize;
mod settings;

use std::sync::Arc;

use hako_block::{Cancel, Error, NoProgress, Result};

use super::header::{Header, Kind};
use super::map::Map;
use super::places::Places;
use crate::disk::compact::{close_gaps, compact as compact_units};
use crate::disk::{OpenArgs, Task};
use blocks::Blocks;

pub use repair::repair;
pub use resize::resize;
pub use settings::{relink, set};

/// Gives space back to the host. Errors: a fixed image, which keeps its space; a damaged one.
pub fn compact(args: &OpenArgs, task: Task<'_>) -> Result<()> {
    let map = open_map(args)?;
    if map.header.kind == Kind::Fixed {
        return Err(
            Error::unsupported("a fixed VDI stores every block: it cannot be compacted")
                .hint("convert it to a dynamic one"),
        );
    }
    let mut blocks = Blocks { map };
    compact_units(&mut blocks, task)?;
    blocks.correct_count()
}

fn open_map(args: &OpenArgs) -> Result<Map> {
    let header = Header::read(&*args.storage)?;
    Map::open(Arc::clone(&args.storage), header, false)
}

/// Opens the map of an image and looks where its blocks are. Errors: it is damaged.
fn open_sound(args: &OpenArgs) -> Result<(Map, Places)> {
    let map = open_map(args)?;
    let places = Places::of(&map)
        .map_err(|error| error.hint("hako disk check tells all that is damaged"))?;
    Ok((map, places))
}

/// Moves the last blocks into places that nothing uses, and cuts the file.
fn close_all_gaps(map: Map) -> Result<()> {
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    let mut blocks = Blocks { map };
    close_gaps(&mut blocks, task)?;
    blocks.correct_count()
}
