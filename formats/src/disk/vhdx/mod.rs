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

mod bat;
mod bytes;
mod check;
mod header;
mod image;
#[allow(dead_code, reason = "until images are resized and get other parents")]
mod journal;
mod layout;
mod locator;
mod log;
#[allow(dead_code, reason = "until images are resized and get other parents")]
mod metadata;
mod open;
#[allow(dead_code, reason = "until images are resized and get other parents")]
mod region;
mod replay;
mod sink;
mod space;
mod structure;
#[cfg(test)]
mod tests;
mod write;

use hako_block::{BlockImage, Result, Sink};

use super::{CheckArgs, CreateArgs, DiskFormat, Findings, OpenArgs, Subformat};

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
            ..Subformat::NONE
        };
        &[
            Subformat {
                name: "dynamic",
                notes: "log replayed, differencing on a parent, sectors of 512 and 4096 bytes",
                ..ROW
            },
            Subformat {
                name: "fixed",
                notes: "every block allocated, sparse on the host",
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
}
