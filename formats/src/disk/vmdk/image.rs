//! The disk that the parts make, in their order.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use hako_block::image::check_range;
use hako_block::{
    Access, BlockImage, ContentId, Error, Extent, ImageInfo, ParentLink, Result, SECTOR_BYTES,
};

use super::content_id::ContentMark;
use super::extent_line::{ExtentAccess, ExtentLine};
use super::flat::{FlatArgs, FlatExtent, ZeroExtent};
use super::home::Home;
use super::hosted::{self, HostedArgs};
use super::info::describe;
use super::layout::{Layout, Source};
use super::stream::{self, StreamArgs};
use super::{cowd, sesparse};
use crate::disk::OpenArgs;

/// An open VMDK: one layer.
pub struct VmdkImage {
    parts: Vec<OpenPart>,
    info: ImageInfo,
    content: ContentMark,
}

struct OpenPart {
    /// Guest offset of its first byte.
    start: u64,
    len: u64,
    /// Whether its line allows writes.
    writable: bool,
    image: Box<dyn BlockImage>,
    /// Written since the last flush.
    dirty: AtomicBool,
}

impl OpenPart {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

impl VmdkImage {
    /// Opens the VMDK that `args` names.
    pub fn open(args: &OpenArgs) -> Result<Self> {
        if args.snapshot.is_some() {
            return Err(Error::unsupported("a VMDK has no internal snapshots"));
        }
        Self::from_layout(Layout::find(args)?, args)
    }

    /// Opens the parts of a layout.
    pub fn from_layout(layout: Layout, args: &OpenArgs) -> Result<Self> {
        let Layout {
            descriptor,
            home,
            parts: planned,
            mut oddities,
        } = layout;
        let parent = parent_link(&descriptor)?;
        let mut parts = Vec::with_capacity(planned.len());
        let mut start = 0u64;
        for planned in planned {
            let image = open_source(planned.source, &planned.line, parent.is_some(), args)?;
            check_capacity(&*image, &planned.line, planned.len, &mut oddities)?;
            let alone = matches!(home, Home::Embedded { .. });
            oddities.extend(
                image
                    .info()
                    .oddities
                    .iter()
                    .map(|odd| match &planned.line.file {
                        Some(file) if !alone => format!("{file}: {odd}"),
                        _ => odd.clone(),
                    }),
            );
            parts.push(OpenPart {
                start,
                len: planned.len,
                writable: planned.line.access == ExtentAccess::ReadWrite,
                image,
                dirty: AtomicBool::new(false),
            });
            start = start
                .checked_add(planned.len)
                .filter(|end| *end <= i64::MAX as u64)
                .ok_or_else(|| {
                    Error::corrupt("descriptor", "the extents are too large together")
                })?;
        }
        let images: Vec<&dyn BlockImage> = parts.iter().map(|part| &*part.image).collect();
        let mut info = describe(&descriptor, &images, args)?;
        info.virtual_size = start;
        info.parent = parent;
        info.oddities = oddities;
        if info.parent.is_some() && info.writable {
            refuse_misaligned(&parts, info.unit_bytes)?;
        }
        Ok(Self {
            parts,
            info,
            content: ContentMark::new(descriptor, home),
        })
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.info.virtual_size, offset, len)
    }

    /// Returns the part that holds the byte at `offset`, which must lie inside the disk.
    fn part_at(&self, offset: u64) -> Result<&OpenPart> {
        let after = self.parts.partition_point(|part| part.start <= offset);
        after
            .checked_sub(1)
            .and_then(|index| self.parts.get(index))
            .ok_or_else(|| Error::invalid(format!("no part of the disk at {offset}")))
    }

    /// Calls `work` for each part of a range that is about to change, with the range within the
    /// part and the bytes of the whole range that precede it.
    fn change_parts(
        &self,
        range: Range<u64>,
        work: impl Fn(&OpenPart, Range<u64>, usize) -> Result<()>,
    ) -> Result<()> {
        if !self.info.writable {
            return Err(Error::read_only());
        }
        self.check(range.start, range.end.saturating_sub(range.start))?;
        let mut offset = range.start;
        while offset < range.end {
            let part = self.part_at(offset)?;
            if !part.writable {
                let what = "the descriptor marks this extent read-only";
                return Err(Error::new(hako_block::ErrorKind::ReadOnly, what));
            }
            self.content.change()?;
            let end = range.end.min(part.end());
            part.dirty.store(true, Ordering::Release);
            let before = (offset - range.start) as usize;
            work(part, offset - part.start..end - part.start, before)?;
            offset = end;
        }
        Ok(())
    }
}

impl BlockImage for VmdkImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        let (mut offset, mut buf) = (offset, buf);
        while !buf.is_empty() {
            let part = self.part_at(offset)?;
            let len = (part.end() - offset).min(buf.len() as u64);
            let (now, rest) = buf.split_at_mut(len as usize);
            part.image.read_at(offset - part.start, now)?;
            buf = rest;
            offset += len;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.check(offset, 1)?;
        let part = self.part_at(offset)?;
        let mut extent = part
            .image
            .next_extent(offset - part.start)?
            .clipped(part.len);
        extent.offset = offset;
        Ok(extent)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        self.change_parts(range, |part, range, before| {
            let len = (range.end - range.start) as usize;
            part.image.write_at(range.start, &buf[before..before + len])
        })
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.change_parts(range, |part, range, _| part.image.write_zeroes(range))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.change_parts(range, |part, range, _| part.image.discard(range))
    }

    fn flush(&self) -> Result<()> {
        for part in &self.parts {
            if part.dirty.swap(false, Ordering::AcqRel) {
                part.image
                    .flush()
                    .inspect_err(|_| part.dirty.store(true, Ordering::Release))?;
            }
        }
        Ok(())
    }
}

fn open_source(
    source: Source,
    line: &ExtentLine,
    has_parent: bool,
    args: &OpenArgs,
) -> Result<Box<dyn BlockImage>> {
    let len = line.n_sectors * SECTOR_BYTES;
    let access = match line.access {
        ExtentAccess::ReadWrite => args.access,
        _ => Access::ReadOnly,
    };
    Ok(match source {
        Source::Zeros => Box::new(ZeroExtent::new(len)),
        Source::Flat { storage, offset } => Box::new(FlatExtent::open(FlatArgs {
            storage,
            offset,
            len,
            access,
            salvage: args.salvage,
        })?),
        Source::Stream(storage, header) => stream::open(StreamArgs {
            storage,
            header,
            salvage: args.salvage,
        })?,
        Source::Hosted(storage, header) => hosted::open(HostedArgs {
            storage,
            header,
            access,
            has_parent,
        })?,
        Source::Cowd(storage) => cowd::open(storage)?,
        Source::SeSparse(storage) => sesparse::open(storage)?,
    })
}

/// The line says how long the extent is; a sparse file says it too.
fn check_capacity(
    image: &dyn BlockImage,
    line: &ExtentLine,
    len: u64,
    oddities: &mut Vec<String>,
) -> Result<()> {
    let capacity = image.info().virtual_size;
    let file = line.file.as_deref().unwrap_or_default();
    let what = format!(
        "the file has a capacity of {} sectors, its extent line says {}",
        capacity / SECTOR_BYTES,
        line.n_sectors
    );
    if capacity < len {
        return Err(Error::corrupt("extent", what).in_file(file));
    }
    if capacity > len {
        oddities.push(format!("{file}: {what}; the line counts"));
    }
    Ok(())
}

fn parent_link(descriptor: &super::descriptor::Descriptor) -> Result<Option<ParentLink>> {
    let Some(content_id) = descriptor.parent_content_id()? else {
        return Ok(None);
    };
    let name = descriptor
        .value("parentfilenamehint")
        .filter(|name| !name.is_empty())
        .ok_or_else(|| {
            let what =
                format!("parentCID is {content_id:08x}, but no parentFileNameHint says where");
            Error::corrupt("descriptor", what)
        })?;
    Ok(Some(ParentLink {
        name,
        format: Some("vmdk".to_owned()),
        content_id: Some(ContentId::Cid(content_id)),
        ..ParentLink::default()
    }))
}

/// A partial write into a hole is completed from the parent by units counted from the disk's
/// start; a part whose own units begin elsewhere would fill the rest with zeros.
fn refuse_misaligned(parts: &[OpenPart], unit_bytes: u64) -> Result<()> {
    let fits = |part: &OpenPart| part.start.is_multiple_of(unit_bytes);
    if unit_bytes == 0 || parts.iter().all(fits) {
        return Ok(());
    }
    Err(Error::unsupported(
        "an overlay whose extents do not begin on grains cannot be written",
    ))
}
