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
mod write;

use hako_block::{BlockImage, Result, Sink};

use super::{CheckArgs, CreateArgs, DiskFormat, Findings, OpenArgs, Subformat};

/// The VDI format.
pub struct Vdi;

/// What every variant can do.
const ANY: Subformat = Subformat {
    read: true,
    write: true,
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
                create: true,
                notes: "QEMU reads blocks of 1 MiB only",
                ..ANY
            },
            Subformat {
                name: "fixed",
                create: true,
                notes: "every block has its place",
                ..ANY
            },
            Subformat {
                name: "diff",
                create: true,
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
}
