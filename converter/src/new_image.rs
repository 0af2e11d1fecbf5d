//! A new image that a copy goes into.

use std::path::Path;
use std::sync::Arc;

use hako_block::{BlockImage, Error, Outputs, ParentLink, Result, SECTOR_BYTES, Sink, Storage};
use hako_disk::Guarded;
use hako_formats::{CreateArgs, CreateOptions, DiskFormat, OpenedChain};

/// Returns the new image's virtual size: the source's, in whole sectors.
pub(crate) fn rounded_size(source: &dyn BlockImage, warnings: &mut Vec<String>) -> Result<u64> {
    let size = source.info().virtual_size;
    let rounded = size
        .checked_next_multiple_of(SECTOR_BYTES)
        .ok_or_else(|| Error::invalid(format!("a disk of {size} bytes is too large")))?;
    if rounded != size {
        warnings.push(format!(
            "virtual size {size} rounded up to {rounded}, a multiple of 512; the rest is zeros"
        ));
    }
    Ok(rounded)
}

/// What the format is told of the image it writes.
pub(crate) struct NewImage<'a> {
    pub(crate) format: &'static dyn DiskFormat,
    pub(crate) name: String,
    pub(crate) folder: Option<&'a Path>,
    /// Images of which no file may be replaced.
    pub(crate) keep: Vec<&'a OpenedChain>,
    pub(crate) virtual_size: u64,
    pub(crate) parent: Option<ParentLink>,
    pub(crate) options: CreateOptions,
}

impl NewImage<'_> {
    /// Returns the sink that writes it.
    pub(crate) fn sink(
        self,
        storage: Arc<dyn Storage>,
        outputs: &dyn Outputs,
    ) -> Result<Box<dyn Sink>> {
        let guarded = Guarded {
            outputs,
            folder: self.folder,
            keep: &self.keep,
        };
        self.format.stream(CreateArgs {
            storage,
            name: self.name,
            outputs: &guarded,
            virtual_size: self.virtual_size,
            parent: self.parent,
            options: self.options,
        })
    }
}
