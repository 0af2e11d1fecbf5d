//! VHDX, Hyper-V's format (MS-VHDX 8.0): fixed, dynamic and differencing.
//!
//! | file | what is in it |
//! |---|---|
//! | `bytes` | numbers in records, CRC-32C |
//! | `header`, `region`, `metadata`, `locator` | the records before the blocks |
//! | `layout` | sizes that follow from them; BAT entries |
//! | `log`, `replay` | the log: what counts of it, shown over the file or written into it |
//! | `journal` | changing tables through the log |
//! | `structure` | all of these of one file, read and checked |
//! | `bat` | the BAT in memory |
//! | `image`, `open` | reading, the extent map, `info` |
//! | `space`, `write` | writing in place |
//! | `sink` | creating |
//! | `check` | checking |
//! | `upkeep` | repair, resize, compact, set, relink |

mod bat;
mod bytes;
mod check;
mod header;
mod image;
mod journal;
mod layout;
mod locator;
mod log;
mod metadata;
mod open;
mod region;
mod replay;
mod sink;
mod space;
mod structure;
#[cfg(test)]
mod tests;
mod upkeep;
mod write;

use hako_block::{BlockImage, ParentLink, Result, Sink};

use super::{
    CheckArgs, CreateArgs, DiskFormat, Findings, OpenArgs, Repair, Settings, Subformat, Task,
};

/// The VHDX format.
pub struct Vhdx;

impl DiskFormat for Vhdx {
    fn name(&self) -> &'static str {
        "vhdx"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["vhdx", "avhdx"]
    }

    fn subformats(&self) -> &'static [Subformat] {
        const ROW: Subformat = Subformat {
            read: true,
            create: true,
            write: true,
            repair: true,
            resize: true,
            compact: true,
            ..Subformat::NONE
        };
        &[
            Subformat {
                name: "dynamic",
                notes: "log replayed, sectors of 512 and 4096 bytes",
                ..ROW
            },
            Subformat {
                name: "fixed",
                notes: "every block allocated, sparse on the host",
                ..ROW
            },
            Subformat {
                name: "differencing",
                notes: "an overlay: needs --parent",
                ..ROW
            },
        ]
    }

    fn probe(&self, head: &[u8], _tail: &[u8]) -> bool {
        head.starts_with(header::MAGIC)
    }

    fn open(&self, args: OpenArgs) -> Result<Box<dyn BlockImage>> {
        Ok(Box::new(open::open(&args)?))
    }

    fn stream(&self, args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(sink::VhdxSink::new(args)?))
    }

    fn check(&self, args: CheckArgs) -> Result<Findings> {
        check::check(&args)
    }

    fn repair(&self, args: OpenArgs, what: Repair) -> Result<Vec<String>> {
        upkeep::repair(&args, what)
    }

    fn resize(&self, args: OpenArgs, virtual_size: u64) -> Result<()> {
        upkeep::resize(&args, virtual_size)
    }

    fn compact(&self, args: OpenArgs, task: Task<'_>) -> Result<()> {
        upkeep::compact(&args, task)
    }

    fn set(&self, args: OpenArgs, settings: &Settings) -> Result<()> {
        upkeep::set(&args, settings)
    }

    fn relink(&self, args: OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
        upkeep::relink(&args, parent)
    }
}
