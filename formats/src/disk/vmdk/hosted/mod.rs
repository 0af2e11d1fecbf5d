//! Hosted sparse extents ("KDMV") without compression: read, created, written in place, checked
//! (VMware Virtual Disk Format 5.0, "Hosted Sparse Extents").
//!
//! | where | what |
//! |---|---|
//! | sector 0 | header, see [`super::header`] |
//! | descriptor sector | the embedded descriptor, not read here |
//! | RGD sector | redundant grain directory: one little-endian u32 per grain table, its sector |
//! | behind it | the redundant grain tables |
//! | GD sector | grain directory, the same shape |
//! | behind it | the grain tables: 512 little-endian u32 each; 0 hole, 1 zeros (by flag), else the grain's sector |
//! | from overhead | grains, in the order they were first written |
//!
//! This is one extent file: offsets are relative to the extent. Descriptors and the composition of
//! several extents are the caller's, and so are compressed extents.

mod alloc;
mod check;
mod compact;
mod copies;
mod directory;
mod geometry;
mod image;
mod mend;
mod places;
mod repair;
mod resize;
mod sink;
mod table;
mod trust;
mod write;
mod zero;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod peer_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hako_block::{Access, BlockImage, Result, SECTOR_BYTES, Storage};

use super::header::SparseHeader;
use directory::Directories;
use geometry::Geometry;

pub use check::check;
pub use compact::compact;
pub use mend::repair;
pub use resize::{grow, shrink};
pub use sink::{HostedCreate, HostedSink};

/// What is needed to open or check one extent file.
#[derive(Clone)]
pub struct HostedArgs {
    /// The extent file.
    pub storage: Arc<dyn Storage>,
    /// Its header, decoded.
    pub header: SparseHeader,
    /// Reading only, or writing too.
    pub access: Access,
    /// Whether a hole shows a parent: zeros must then be stored, or said by zeroed grains.
    pub has_parent: bool,
}

/// Opens one extent. Errors: tables that cannot be found, a compressed extent, a damaged one for
/// writing.
pub fn open(args: HostedArgs) -> Result<Box<dyn BlockImage>> {
    let name = args.storage.name().to_owned();
    let image = image::HostedImage::open(args).map_err(|error| error.in_file(name))?;
    Ok(Box::new(image))
}

/// Returns the first sector that holds a directory, a table or grains. `None`: they cannot be
/// found.
pub fn first_after_descriptor(storage: &dyn Storage, header: &SparseHeader) -> Option<u64> {
    let geometry = Geometry::of(header).ok()?;
    let directories = Directories::read(storage, header, &geometry).ok()?;
    let first = directories.first_sector()?;
    Some(first.min(geometry.overhead / SECTOR_BYTES))
}

/// Returns the file offset behind the last grain of a file of that length, and of every grain it
/// may be completed to.
pub fn end_of_grains(header: &SparseHeader, file_len: u64) -> u64 {
    Geometry::of(header)
        .ok()
        .and_then(|geometry| geometry.align_up(file_len))
        .unwrap_or(file_len.next_multiple_of(SECTOR_BYTES))
}
