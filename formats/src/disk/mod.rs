//! The contract of a disk format and the registry of all of them.
//!
//! To add a format: write a module here with an `impl DiskFormat`, add one line to [`FORMATS`].

pub(crate) mod bits;
pub(crate) mod bytes;
pub(crate) mod cache;
pub(crate) mod claims;
pub(crate) mod compact;
pub(crate) mod delivery;
mod findings;
mod options;
pub mod qcow2;
pub mod raw;
mod upkeep;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

use std::sync::Arc;

use hako_block::{Access, BlockImage, Error, Outputs, ParentLink, Resolver, Result, Sink, Storage};

pub use findings::{Finding, Findings, Severity};
pub use options::{Adapter, Allocation, Compression, CreateOptions};
pub use upkeep::{Renaming, Repair, Settings, Task};

/// Every disk format, in the order to show them.
pub static FORMATS: &[&dyn DiskFormat] = &[
    &raw::Raw,
    &qcow2::Qcow2,
    &vmdk::Vmdk,
    &vhdx::Vhdx,
    &vhd::Vhd,
    &vdi::Vdi,
];

/// Returns the format of that name.
pub fn format_named(name: &str) -> Result<&'static dyn DiskFormat> {
    FORMATS
        .iter()
        .copied()
        .find(|format| format.name() == name)
        .ok_or_else(|| {
            let names: Vec<_> = FORMATS.iter().map(|format| format.name()).collect();
            Error::invalid(format!("no disk format {name:?}"))
                .hint(format!("one of {}", names.join(", ")))
        })
}

/// One variant of a format: a row of `hako disk formats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subformat {
    /// Its name, as `--subformat` takes it; empty for a format without variants.
    pub name: &'static str,
    /// Whether it can be read.
    pub read: bool,
    /// Whether it can be created.
    pub create: bool,
    /// Whether it can be written in place.
    pub write: bool,
    /// Whether it can be written to a pipe.
    pub pipe: bool,
    /// Whether `check --repair` can mend it.
    pub repair: bool,
    /// Whether its virtual size can be changed in place.
    pub resize: bool,
    /// Whether it can give space back in place.
    pub compact: bool,
    /// What else there is to know, in a few words.
    pub notes: &'static str,
}

impl Subformat {
    /// A row that can do nothing, to state only what one can.
    pub const NONE: Subformat = Subformat {
        name: "",
        read: false,
        create: false,
        write: false,
        pipe: false,
        repair: false,
        resize: false,
        compact: false,
        notes: "",
    };
}

/// A disk format: stateless, one `static` each. What changes an image in place (from
/// [`DiskFormat::repair`] on) is given the image's main file open for writing and leaves, cut off
/// anywhere, the image as it was, or as it shall be, or one that is refused.
pub trait DiskFormat: Sync {
    /// Returns the name that options take ("vmdk").
    fn name(&self) -> &'static str;

    /// Returns usual file name extensions, lower case, without the dot.
    fn extensions(&self) -> &'static [&'static str];

    /// Returns the variants, the default for creation first.
    fn subformats(&self) -> &'static [Subformat];

    /// Returns whether a file that begins with `head` (up to 64 KiB) and ends with `tail` (up to
    /// 4 KiB) is, or was before it was damaged, of this format. Pure.
    fn probe(&self, head: &[u8], tail: &[u8]) -> bool;

    /// Opens one layer. Opens no parent.
    fn open(&self, args: OpenArgs) -> Result<Box<dyn BlockImage>>;

    /// Creates an image, to be filled in one ascending pass. What is not delivered is a hole.
    fn stream(&self, args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
        let _ = args;
        Err(Error::unsupported(format!(
            "{} cannot be created",
            self.name()
        )))
    }

    /// Checks the structure of one layer without reading its data. Damage goes into the findings;
    /// an error means that the check itself could not be done.
    fn check(&self, args: CheckArgs) -> Result<Findings> {
        let _ = args;
        Err(Error::unsupported(format!(
            "{} has no structure to check",
            self.name()
        )))
    }

    /// Mends one layer and returns what was done, one sentence each; nothing if nothing was to be
    /// done. Damage that would take guessing is left, for the check that follows to tell. Writes
    /// only through the storages of `args` and what its resolver opens: the caller keeps a copy
    /// of what is overwritten.
    fn repair(&self, args: OpenArgs, what: Repair) -> Result<Vec<String>> {
        let _ = (args, what);
        Err(self.cannot("be repaired"))
    }

    /// Changes the virtual size of one layer. New space is a hole. What lies beyond a smaller
    /// size is lost: the caller has made sure that it may be.
    fn resize(&self, args: OpenArgs, virtual_size: u64) -> Result<()> {
        let _ = (args, virtual_size);
        Err(self.cannot("be resized"))
    }

    /// Gives space back to the host: units that are all zeros are no longer stored (unless that
    /// would show a parent's bytes), holes in the file are filled from its end, the file is cut.
    /// Takes time by what is stored, not by the virtual size.
    fn compact(&self, args: OpenArgs, task: Task<'_>) -> Result<()> {
        let _ = (args, task);
        Err(self.cannot("be compacted"))
    }

    /// Changes what the image says of itself. Content and content ID stay.
    fn set(&self, args: OpenArgs, settings: &Settings) -> Result<()> {
        let _ = args;
        settings.refuse_others(self.name(), &[])
    }

    /// Makes the layer an overlay on another parent, or on none; its content stays as it is, and
    /// what it does not store is the new parent's.
    fn relink(&self, args: OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
        let _ = (args, parent);
        Err(self.cannot("be an overlay"))
    }

    /// Returns what must change for the main file to be named `new_name`. Changes nothing.
    fn renaming(&self, args: OpenArgs, new_name: &str) -> Result<Renaming> {
        let _ = (args, new_name);
        Ok(Renaming::default())
    }

    /// Called once the image has got another name: mends what a single-file image says of its own
    /// name inside. A cut before this leaves an image that opens all the same.
    fn renamed(&self, args: OpenArgs) -> Result<()> {
        let _ = args;
        Ok(())
    }

    /// Returns the error of a format that cannot do something.
    fn cannot(&self, what: &str) -> Error {
        Error::unsupported(format!("a {} image cannot {what}", self.name()))
    }
}

/// What a driver is given to open one layer.
#[derive(Clone)]
pub struct OpenArgs {
    /// The file that the user (or the layer above) named.
    pub storage: Arc<dyn Storage>,
    /// Its name in its own folder.
    pub name: String,
    /// Opens the names found inside it.
    pub resolver: Arc<dyn Resolver>,
    /// Reading only, or writing too.
    pub access: Access,
    /// Open a damaged file as far as it goes; what is missing is listed in the oddities.
    pub salvage: bool,
    /// Show this internal snapshot (by ID or name) instead of the current state.
    pub snapshot: Option<String>,
}

/// What a driver is given to check one layer: the same as for opening it.
pub type CheckArgs = OpenArgs;

/// What a driver is given to create an image.
pub struct CreateArgs<'a> {
    /// The new main file: empty, or a block device, or a pipe.
    pub storage: Arc<dyn Storage>,
    /// Its final name, for names derived from it (`NAME-flat.vmdk`).
    pub name: String,
    /// Creates further files beside it.
    pub outputs: &'a dyn Outputs,
    /// Size of the disk that the guest will see, in bytes: a multiple of 512.
    pub virtual_size: u64,
    /// The parent, for an overlay; its name as it is to be written into the image.
    pub parent: Option<ParentLink>,
    /// What the user chose.
    pub options: CreateOptions,
}
