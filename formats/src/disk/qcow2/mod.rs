//! qcow2, versions 2 and 3 (qemu docs/interop/qcow2). Everything but encryption.
//!
//! | file | what is in it |
//! |---|---|
//! | `header` | the header and its extensions |
//! | `layout` | sizes that follow from it; L2 entries |
//! | `tables` | pages of tables in memory |
//! | `map` | L1, L2: from guest offsets to runs |
//! | `codec` | compressed clusters |
//! | `refcounts`, `allocate` | refcounts; finding free clusters |
//! | `image`, `open` | reading, the extent map, `info` |
//! | `write`, `flush` | writing in place, and in which order it reaches the disk |
//! | `sink`, `append` | creating |
//! | `snapshot`, `bitmaps` | tables of internal snapshots and of bitmaps |
//! | `check` | checking |
//! | `extensions` | the first cluster, changed a sector at a time |
//! | `upkeep` | repairing, resizing, compacting, another parent |

mod allocate;
mod append;
mod backing;
mod bitmaps;
mod check;
mod codec;
mod extensions;
mod flush;
mod header;
mod image;
mod layout;
mod map;
mod open;
mod refcounts;
mod sink;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;
mod upkeep;
mod write;

use hako_block::{BlockImage, ParentLink, Result, Sink};

use super::{CheckArgs, CreateArgs, DiskFormat, Findings, OpenArgs, Repair, Subformat, Task};

/// The qcow2 format.
pub struct Qcow2;

impl DiskFormat for Qcow2 {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["qcow2", "qcow", "qc2"]
    }

    fn subformats(&self) -> &'static [Subformat] {
        &[
            Subformat {
                name: "v3",
                read: true,
                create: true,
                write: true,
                pipe: false,
                repair: true,
                resize: true,
                compact: true,
                notes: "compressed with zlib or zstd, overlays, external data file, snapshots read",
            },
            Subformat {
                name: "v2",
                read: true,
                create: false,
                write: true,
                pipe: false,
                repair: true,
                resize: true,
                compact: true,
                notes: "as qemu wrote before 1.7",
            },
        ]
    }

    fn probe(&self, head: &[u8], _tail: &[u8]) -> bool {
        head.starts_with(&header::MAGIC)
    }

    fn open(&self, args: OpenArgs) -> Result<Box<dyn BlockImage>> {
        Ok(Box::new(open::open(&args)?))
    }

    fn stream(&self, args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(sink::Qcow2Sink::new(args)?))
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

    fn relink(&self, args: OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
        upkeep::relink(&args, parent)
    }

    fn check(&self, args: CheckArgs) -> Result<Findings> {
        check::check(&args)
    }
}
