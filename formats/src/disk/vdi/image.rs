//! An open VDI: reading and its extent map. Writing is in [`super::write`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hako_block::image::check_range;
use hako_block::{
    Access, BlockImage, ContentId, Error, ErrorKind, Extent, ExtentKind, ImageInfo, ParentLink,
    Result,
};

use super::header::Header;
use super::map::{Found, Map};
use super::write::Writer;
use crate::disk::OpenArgs;

/// Blocks of which one `next_extent` looks at the entries: 4 MiB of them.
const MAX_WALK: u64 = 1 << 20;

/// An open image.
pub struct VdiImage {
    pub(super) map: Map,
    pub(super) writer: Option<Writer>,
    host_name: Arc<str>,
    info: ImageInfo,
}

impl VdiImage {
    /// Opens an image. For writing: errors if two blocks share a place.
    pub fn open(args: OpenArgs) -> Result<Self> {
        if args.snapshot.is_some() {
            return Err(Error::unsupported("a VDI has no internal snapshots"));
        }
        let header = Header::read(&*args.storage)?;
        let mut info = describe(&args, &header)?;
        let map = Map::open(Arc::clone(&args.storage), header, args.salvage)?;
        if args.salvage {
            info.oddities.extend(missing(&map)?);
        }
        let writer = match args.access {
            Access::ReadOnly => None,
            Access::ReadWrite => Some(Writer::new(&map)?),
        };
        Ok(Self {
            host_name: args.storage.name().into(),
            map,
            writer,
            info,
        })
    }

    pub(super) fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.info.virtual_size, offset, len).map_err(|error| self.named(error))
    }

    pub(super) fn named(&self, error: Error) -> Error {
        error.in_file(&*self.host_name)
    }

    pub(super) fn header(&self) -> &Header {
        &self.map.header
    }

    fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        let size = self.header().block;
        while !buf.is_empty() {
            let block = offset / size;
            let end = offset + buf.len() as u64;
            let (found, n_blocks) = self.map.run(block, end.div_ceil(size) - block)?;
            let run_end = end.min((block + n_blocks) * size);
            let (now, rest) = buf.split_at_mut((run_end - offset) as usize);
            match found {
                Found::Hole | Found::Zero => now.fill(0),
                Found::At(start) => self.map.storage.read_at(start + offset % size, now)?,
            }
            buf = rest;
            offset = run_end;
        }
        Ok(())
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        let size = self.header().block;
        let (block, inside) = (offset / size, offset % size);
        let len = |n_blocks: u64| n_blocks * size - inside;
        let (found, _) = self.map.run(block, 1)?;
        let Found::At(start) = found else {
            let (_, n_blocks) = self.map.run(block, MAX_WALK)?;
            let kind = match found {
                Found::Hole => ExtentKind::Hole,
                _ => ExtentKind::Zero,
            };
            return Ok(Extent::new(offset, len(n_blocks), kind));
        };
        let host = self.map.storage.next_extent(start + inside)?;
        let wanted = (inside + host.len).div_ceil(size).min(MAX_WALK);
        let (_, n_blocks) = self.map.run(block, wanted)?;
        let len = len(n_blocks).min(host.len);
        let extent = Extent::data(offset, len, &self.host_name, start + inside);
        // A hole of the host file is zeros of the disk.
        let kind = if host.data {
            ExtentKind::Data
        } else {
            ExtentKind::Zero
        };
        Ok(Extent { kind, ..extent })
    }
}

impl BlockImage for VdiImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.read(offset, buf).map_err(|error| self.named(error))
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.check(offset, 1)?;
        let extent = self.extent(offset).map_err(|error| self.named(error))?;
        Ok(extent.clipped(self.info.virtual_size))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.write(offset, buf).map_err(|error| self.named(error))
    }

    fn write_zeroes(&self, range: std::ops::Range<u64>) -> Result<()> {
        self.zero(range).map_err(|error| self.named(error))
    }

    fn discard(&self, range: std::ops::Range<u64>) -> Result<()> {
        self.give_back(range).map_err(|error| self.named(error))
    }

    fn flush(&self) -> Result<()> {
        self.flush_all().map_err(|error| self.named(error))
    }
}

fn describe(args: &OpenArgs, header: &Header) -> Result<ImageInfo> {
    let content_id = (!header.modification.is_nil()).then_some(header.modification);
    let mut details = vec![
        ("version", header.version().into()),
        ("block_size_bytes", header.block.into()),
        ("n_blocks", header.n_blocks.into()),
        ("n_blocks_stored", header.n_stored.into()),
        ("uuid", header.uuid.to_string().into()),
    ];
    if header.extra > 0 {
        details.push(("block_extra_bytes", header.extra.into()));
    }
    if header.flags != 0 {
        details.push(("flags", u64::from(header.flags).into()));
    }
    if !header.comment.is_empty() {
        let comment = String::from_utf8_lossy(&header.comment).into_owned();
        details.push(("comment", comment.into()));
    }
    Ok(ImageInfo {
        format: "vdi",
        subformat: Some(header.kind.name().to_owned()),
        virtual_size: header.virtual_size(),
        unit_bytes: header.block,
        has_zero_extents: true,
        writable: args.access == Access::ReadWrite,
        identity: (!header.uuid.is_nil()).then_some(header.uuid),
        content_id: content_id.map(ContentId::Uuid),
        parent: parent_link(header),
        files: vec![args.storage.name().to_owned()],
        allocated_size: args.storage.allocated_bytes()?,
        details,
        oddities: header.oddities(),
    })
}

/// A VDI names no file: the parent is known by its UUID only.
fn parent_link(header: &Header) -> Option<ParentLink> {
    let modification = (!header.parent_modification.is_nil()).then_some(header.parent_modification);
    header.kind.is_overlay().then(|| ParentLink {
        format: Some("vdi".to_owned()),
        identity: (!header.parent.is_nil()).then_some(header.parent),
        content_id: modification.map(ContentId::Uuid),
        ..ParentLink::default()
    })
}

/// Returns what a damaged file lacks.
fn missing(map: &Map) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let file_len = map.file_len.load(Ordering::Acquire);
    if map.header.map_end() > file_len {
        missing.push("the file ends inside the block map: the blocks beyond read as zeros".into());
    }
    let mut n_lost = 0_u64;
    map.each_stored(|block, place| {
        n_lost += u64::from(map.decode(block, place)? == Found::Zero);
        Ok(())
    })
    .or_else(|error| match error.kind() {
        ErrorKind::Corrupt => Ok(()),
        _ => Err(error),
    })?;
    if n_lost > 0 {
        missing.push(format!(
            "{n_lost} blocks lie past the end of the file: they read as zeros"
        ));
    }
    Ok(missing)
}
