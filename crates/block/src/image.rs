//! A disk as the guest sees it.

use std::ops::Range;

use crate::{ContentId, Error, Extent, Result, Uuid};

/// One value of an image's details, for people and for JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number; its unit is in the key's name (`grain_size_bytes`).
    Int(u64),
    /// A yes or no.
    Bool(bool),
    /// A list.
    List(Vec<Value>),
    /// Named values, in the order to show them.
    Map(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Int(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Value::Bool(flag)
    }
}

/// How an overlay names its parent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParentLink {
    /// The file name as the image gives it, decoded; untrusted. Empty if the format records none
    /// (VDI): the parent is then the file beside the image that has the identity below.
    pub name: String,
    /// Where it may be besides, as the image gives it, the best guess first (VHD and VHDX record
    /// several paths); untrusted.
    pub other_names: Vec<String>,
    /// The parent's format, if the image records it (qcow2 does, a VMDK's parent is a VMDK).
    pub format: Option<String>,
    /// Which disk the parent must be (VHD, VDI).
    pub identity: Option<Uuid>,
    /// The content ID that the parent must have (VMDK's parentCID, VHDX's parent_linkage).
    pub content_id: Option<ContentId>,
    /// Another one that will do as well (VHDX's parent_linkage2).
    pub other_content_id: Option<ContentId>,
}

/// What there is to know of one layer without reading its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// Name of the format, as in the registry ("vmdk").
    pub format: &'static str,
    /// Name of the variant ("streamOptimized"), if the format has variants.
    pub subformat: Option<String>,
    /// Size of the disk that the guest sees, in bytes.
    pub virtual_size: u64,
    /// Allocation unit in bytes (grain, cluster, block); 512 for formats without one.
    /// A partial write into a hole of an overlay copies up one such unit.
    pub unit_bytes: u64,
    /// Whether the layer can say Zero as distinct from Hole. A layer that cannot may be an
    /// overlay only if it stores real zeros.
    pub has_zero_extents: bool,
    /// Whether the image was opened for writing.
    pub writable: bool,
    /// What an overlay knows this disk by, whatever its content (VHD, VDI).
    pub identity: Option<Uuid>,
    /// This layer's content ID (VMDK's CID).
    pub content_id: Option<ContentId>,
    /// The parent, if this layer is an overlay.
    pub parent: Option<ParentLink>,
    /// Names of the host files of this layer, the one the user named first.
    pub files: Vec<String>,
    /// Bytes allocated on the host by those files.
    pub allocated_size: u64,
    /// Format detail for `info`, keys in snake_case.
    pub details: Vec<(&'static str, Value)>,
    /// What is odd about the file, one sentence each: damage worked around, flags left set.
    pub oddities: Vec<String>,
}

/// A disk as the guest sees it. Offsets are guest bytes. Positional, `&self`, usable from many
/// threads at once. A layer of a chain answers for itself alone: a hole reads as zeros here, and
/// `Chain` asks the parent.
pub trait BlockImage: Send + Sync {
    /// Returns what is known of the image. It does not change while the image is open.
    fn info(&self) -> &ImageInfo;

    /// Reads exactly `buf.len()` bytes; the range must lie inside the virtual size.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Returns an extent that begins exactly at `offset`, which must be below the virtual size.
    /// It may be shorter than the run it belongs to, never longer than the disk.
    fn next_extent(&self, offset: u64) -> Result<Extent>;

    /// Writes all of `buf`; the range must lie inside the virtual size. A partial write into a
    /// unit that this layer does not store fills the rest of the unit with zeros (the parent's
    /// bytes are copied up by `Chain`).
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let _ = (offset, buf);
        Err(Error::read_only())
    }

    /// Makes `range` read as zeros. In an overlay the layer says Zero (or stores zeros)
    /// afterwards, never Hole.
    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        const CHUNK: usize = 1 << 20;
        let zeros = vec![0; CHUNK.min(usize::try_from(range.end - range.start).unwrap_or(CHUNK))];
        let mut offset = range.start;
        while offset < range.end {
            let len = zeros
                .len()
                .min(usize::try_from(range.end - offset).unwrap_or(CHUNK));
            self.write_at(offset, &zeros[..len])?;
            offset += len as u64;
        }
        Ok(())
    }

    /// Tells that the guest no longer needs `range`. It may read as zeros or as before.
    fn discard(&self, range: Range<u64>) -> Result<()> {
        let _ = range;
        Ok(())
    }

    /// Returns once everything written before is on stable storage and the image on disk is
    /// consistent, its dirty mark (if the format has one) cleared.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Walks the extents of an image from its first byte to its last; an error is the last.
pub fn extents(image: &dyn BlockImage) -> impl Iterator<Item = Result<Extent>> + '_ {
    let size = image.info().virtual_size;
    let mut offset = 0;
    std::iter::from_fn(move || {
        if offset >= size {
            return None;
        }
        let extent = image.next_extent(offset);
        offset = extent.as_ref().map_or(size, Extent::end);
        Some(extent)
    })
}

/// Checks that `offset..offset + len` lies inside `virtual_size`; every driver calls it first.
pub fn check_range(virtual_size: u64, offset: u64, len: u64) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= virtual_size => Ok(()),
        _ => Err(Error::invalid(format!(
            "guest range {offset}+{len} reaches past the virtual size of {virtual_size} bytes"
        ))),
    }
}
