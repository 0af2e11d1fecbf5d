//! VDI: VirtualBox's own disk images.
//!
//! A header, a map of blocks, and the blocks in any order. An overlay ("diff") names no file: it
//! knows its parent by UUID. There is no specification; the source is VirtualBox's own code
//! (`src/VBox/Storage/VDICore.h`, `VDI.cpp`) and images that it made.

mod check;
mod header;
mod image;
mod map;
mod places;
mod sink;
#[cfg(test)]
mod tests;
mod upkeep;
mod write;

use hako_block::{BlockImage, ParentLink, Result, Sink};

use super::{
    CheckArgs, CreateArgs, DiskFormat, Findings, OpenArgs, Repair, Settings, Subformat, Task,
};

/// The VDI format.
pub struct Vdi;

/// What every variant can do.
const ANY: Subformat = Subformat {
    read: true,
    create: true,
    write: true,
    repair: true,
    resize: true,
    compact: true,
    ..Subformat::NONE
};

impl DiskFormat for Vdi {
    fn name(&self) -> &'static str {
        "vdi"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["vdi"]
    }

    fn subformats(&self) -> &'static [Subformat] {
        &[
            Subformat {
                name: "dynamic",
                notes: "QEMU reads blocks of 1 MiB only",
                ..ANY
            },
            Subformat {
                name: "fixed",
                compact: false,
                notes: "every block is stored",
                ..ANY
            },
            Subformat {
                name: "diff",
                notes: "an overlay: needs --parent",
                ..ANY
            },
        ]
    }

    fn probe(&self, head: &[u8], _tail: &[u8]) -> bool {
        header::has_signature(head)
    }

    fn open(&self, args: OpenArgs) -> Result<Box<dyn BlockImage>> {
        Ok(Box::new(image::VdiImage::open(args)?))
    }

    fn stream(&self, args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(sink::VdiSink::new(args)?))
    }

    fn check(&self, args: CheckArgs) -> Result<Findings> {
        check::check(&args)
    }

    fn repair(&self, args: OpenArgs, what: Repair) -> Result<Vec<String>> {
        upkeep::repair(args, what)
    }

    fn resize(&self, args: OpenArgs, virtual_size: u64) -> Result<()> {
        upkeep::resize(&args, virtual_size)
    }

    fn compact(&self, args: OpenArgs, task: Task<'_>) -> Result<()> {
        upkeep::compact(&args, task)
    }

    fn set(&self, args: OpenArgs, settings: &Settings) -> Result<()> {
        settings.refuse_others(self.name(), &["uuid", "comment"])?;
        upkeep::set(&args, settings)
    }

    fn relink(&self, args: OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
        upkeep::relink(&args, parent)
    }
}
