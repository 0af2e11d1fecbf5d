//! A machine on its way in, wherever it comes from.

use std::sync::Arc;

use hako_block::{BlockImage, Error, Extent, ExtentKind, ImageInfo, Opened, Result, SECTOR_BYTES};
use hako_formats::machine::{Machine, Node};
use hako_formats::vmx::Vmx;

use super::arrival::Arrived;
use super::package::Check;
use crate::Held;
use crate::copy::Shape;
use crate::room::compressed_bytes;
use crate::settings::VARIABLES_KEY;

/// A machine that is to be written into a new folder.
pub(crate) struct Incoming {
    /// What describes it.
    pub(crate) text: Text,
    /// Its disks.
    pub(crate) disks: Vec<NewDisk>,
    /// Disks that it has and that are not taken along.
    pub(crate) left_out: Vec<Node>,
    /// Other files that go with it.
    pub(crate) files: Vec<NewFile>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
    /// Whether everything is checked against a manifest.
    pub(crate) is_verified: bool,
    /// Keeps the machine that it is copied from as it is.
    pub(crate) held: Option<Held>,
}

/// What describes a machine.
pub(crate) enum Text {
    /// Its parts: a text is made of them.
    Machine(Box<Machine>),
    /// A text, of which only names of files change.
    Vmx(Vmx),
}

/// A disk on its way in.
pub(crate) struct NewDisk {
    /// Where it is in the machine.
    pub(crate) node: Node,
    /// What is in it.
    pub(crate) content: Content,
    /// The virtual size that it is said to have, in bytes, if anything says so.
    pub(crate) capacity: Option<u64>,
    /// What its files must be.
    pub(crate) checks: Vec<Check>,
    /// What its new image is to be; what the other disks' are if not said.
    pub(crate) shape: Option<Shape>,
}

impl NewDisk {
    /// Returns how many compressed bytes there are of it, if its file is compressed.
    pub(super) fn compressed_bytes(&self) -> Option<u64> {
        match &self.content {
            Content::Image(image) => compressed_bytes(&**image),
            _ => None,
        }
    }
}

/// What is in a disk.
pub(crate) enum Content {
    /// What this image shows.
    Image(Arc<dyn BlockImage>),
    /// What the image in this gzip shows.
    Packed {
        /// The packed file.
        opened: Opened,
        /// Length of what is in it, or of the file itself, if the description says.
        size: Option<u64>,
        /// The virtual size, in bytes.
        capacity: u64,
    },
    /// It is written already: it was converted while it came through a pipe.
    Arrived(Arrived),
    /// Nothing: zeros.
    Empty(u64),
}

/// A file that is copied as it is.
pub(crate) struct NewFile {
    /// Its name in the new folder.
    pub(crate) name: String,
    /// Its content.
    pub(crate) opened: Opened,
    /// What it must be.
    pub(crate) checks: Vec<Check>,
    /// Where the text names it.
    pub(crate) used_by: UsedBy,
}

/// Where a text names a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UsedBy {
    /// The drive at this node.
    Drive(Node),
    /// This key.
    Key(String),
}

impl UsedBy {
    /// Returns whether products name it like the machine, and make it where it is missing when the
    /// machine is first started.
    pub(crate) fn is_made_by_products(&self) -> bool {
        matches!(self, UsedBy::Key(key) if key == VARIABLES_KEY || !key.starts_with("hako."))
    }

    /// Returns whether it is this key.
    pub(crate) fn is_key(&self, wanted: &str) -> bool {
        matches!(self, UsedBy::Key(key) if key == wanted)
    }
}

/// A disk of zeros.
pub(crate) struct Blank(ImageInfo);

impl Blank {
    /// Returns a disk of so many bytes.
    pub(crate) fn new(virtual_size: u64) -> Self {
        Self(ImageInfo {
            format: "raw",
            virtual_size,
            unit_bytes: SECTOR_BYTES,
            ..ImageInfo::default()
        })
    }
}

impl BlockImage for Blank {
    fn info(&self) -> &ImageInfo {
        &self.0
    }

    fn read_at(&self, _offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        let len = self.0.virtual_size.checked_sub(offset);
        let len = len.filter(|len| *len > 0);
        let len = len.ok_or_else(|| Error::invalid("extent past the end"))?;
        Ok(Extent::new(offset, len, ExtentKind::Hole))
    }
}
