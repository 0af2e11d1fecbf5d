//! Tells from its first bytes whether a VMDK can be read while it arrives through a pipe.

use hako_block::SECTOR_BYTES;

use super::descriptor::Descriptor;
use super::extent_line::ExtentAccess;
use super::header::{HEADER_BYTES, SparseHeader};
use super::stream::arriving::{ArrivingImage, Source, arrives_in_order};

/// The beginning of a streamOptimized disk that can be read while it arrives.
pub struct ArrivingHead(SparseHeader);

impl ArrivingHead {
    /// Most bytes that are looked at.
    pub const MAX_BYTES: usize = 256 << 10;

    /// Looks at the first bytes of a file, [`Self::MAX_BYTES`] or all. `None`: it has to be there
    /// as a whole to be read, or is no disk at all.
    pub fn find(head: &[u8]) -> Option<Self> {
        let header = SparseHeader::decode(head.first_chunk::<HEADER_BYTES>()?, "header").ok()?;
        let bytes = |start: u64, n: u64| {
            let start = usize::try_from(start.checked_mul(SECTOR_BYTES)?).ok()?;
            let len = usize::try_from(n.checked_mul(SECTOR_BYTES)?).ok()?;
            head.get(start..start.checked_add(len)?)
        };
        bytes(0, header.overhead_sectors)?;
        let text = bytes(header.descriptor_sector, header.descriptor_sectors)?;
        let end = header.descriptor_sector + header.descriptor_sectors;
        let is_in_front = header.descriptor_sector > 0 && end <= header.overhead_sectors;
        let descriptor = Descriptor::parse(text).ok()?;
        let [line] = descriptor.extents() else {
            return None;
        };
        let is_whole_disk = line.kind.is_sparse()
            && line.access != ExtentAccess::NoAccess
            && line.n_sectors == header.capacity_sectors;
        let is_fit = is_in_front
            && is_whole_disk
            && header.capacity_sectors > 0
            && !header.unclean
            && matches!(descriptor.parent_content_id(), Ok(None))
            && arrives_in_order(&header);
        is_fit.then_some(Self(header))
    }

    /// Returns how many bytes come before the first grain.
    pub fn len_bytes(&self) -> usize {
        // At most as much as was looked at.
        usize::try_from(self.0.overhead_sectors * SECTOR_BYTES).unwrap_or(usize::MAX)
    }

    /// Returns the disk. `source` gives the file from its first grain on.
    pub fn image<'a>(self, name: &str, source: Source<'a>) -> ArrivingImage<'a> {
        ArrivingImage::new(name, self.0, source)
    }
}
