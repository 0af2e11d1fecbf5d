//! Extents without tables: FLAT and VMFS files and devices, ZERO, NOACCESS.

use std::ops::Range;
use std::sync::Arc;

use hako_block::image::check_range;
use hako_block::{
    Access, BlockImage, Error, Extent, ExtentKind, ImageInfo, Result, SECTOR_BYTES, Storage,
    is_zero,
};

/// What a flat extent is opened from.
pub struct FlatArgs {
    /// The file or device.
    pub storage: Arc<dyn Storage>,
    /// Where in it the extent begins, in bytes.
    pub offset: u64,
    /// The extent's length in bytes.
    pub len: u64,
    /// Reading only, or writing too.
    pub access: Access,
    /// Read what the file lacks as zeros.
    pub salvage: bool,
}

/// Plain bytes in a file or on a device. Holes of the file are zeros of the disk.
pub struct FlatExtent {
    storage: Arc<dyn Storage>,
    host_name: Arc<str>,
    start: u64,
    /// Bytes of the extent that the file has; all of them but when salvaging.
    stored: u64,
    info: ImageInfo,
}

impl FlatExtent {
    /// Opens the extent. Errors: the file is shorter than the extent.
    pub fn open(args: FlatArgs) -> Result<Self> {
        let found = args.storage.len_bytes()?;
        let stored = found.saturating_sub(args.offset).min(args.len);
        let mut info = ImageInfo {
            virtual_size: args.len,
            unit_bytes: SECTOR_BYTES,
            has_zero_extents: true,
            writable: args.access == Access::ReadWrite,
            files: vec![args.storage.name().to_owned()],
            allocated_size: args.storage.allocated_bytes()?,
            ..ImageInfo::default()
        };
        if stored < args.len {
            let needed = u128::from(args.offset) + u128::from(args.len);
            let what = format!("the descriptor needs {needed} bytes, the file has {found}");
            if !args.salvage {
                return Err(Error::corrupt("flat extent", what)
                    .in_file(args.storage.name())
                    .hint("part of the file is missing; --salvage reads that part as zeros"));
            }
            if info.writable {
                return Err(
                    Error::corrupt("flat extent", format!("{what}: it cannot be written"))
                        .in_file(args.storage.name()),
                );
            }
            info.oddities.push(format!(
                "{}: {what}: the last {} bytes read as zeros",
                args.storage.name(),
                args.len - stored
            ));
        }
        Ok(Self {
            host_name: args.storage.name().into(),
            storage: args.storage,
            start: args.offset,
            stored,
            info,
        })
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if !self.info.writable {
            return Err(Error::read_only().in_file(self.storage.name()));
        }
        check_range(self.info.virtual_size, offset, len)
    }
}

impl BlockImage for FlatExtent {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        let there = usize::try_from(self.stored.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (stored, missing) = buf.split_at_mut(there.min(buf.len()));
        missing.fill(0);
        if stored.is_empty() {
            return Ok(());
        }
        self.storage.read_at(self.start + offset, stored)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        let size = self.info.virtual_size;
        check_range(size, offset, 1)?;
        if offset >= self.stored {
            return Ok(Extent::new(offset, size - offset, ExtentKind::Zero));
        }
        let run = self.storage.next_extent(self.start + offset)?;
        let extent = Extent::data(offset, run.len, &self.host_name, run.offset);
        let kind = if run.data {
            ExtentKind::Data
        } else {
            ExtentKind::Zero
        };
        Ok(Extent { kind, ..extent }.clipped(self.stored))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check_write(offset, buf.len() as u64)?;
        self.storage.write_at(self.start + offset, buf)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.check_write(range.start, range.end.saturating_sub(range.start))?;
        self.storage
            .punch_hole(self.start + range.start..self.start + range.end)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.write_zeroes(range)
    }

    fn flush(&self) -> Result<()> {
        if self.info.writable {
            self.storage.sync()
        } else {
            Ok(())
        }
    }
}

/// An extent that reads as zeros and stores nothing: ZERO, and NOACCESS, whose file is not opened.
pub struct ZeroExtent {
    info: ImageInfo,
}

impl ZeroExtent {
    /// Returns an extent of `len` bytes.
    pub fn new(len: u64) -> Self {
        Self {
            info: ImageInfo {
                virtual_size: len,
                unit_bytes: SECTOR_BYTES,
                has_zero_extents: true,
                ..ImageInfo::default()
            },
        }
    }
}

impl BlockImage for ZeroExtent {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        buf.fill(0);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        check_range(self.info.virtual_size, offset, 1)?;
        let len = self.info.virtual_size - offset;
        Ok(Extent::new(offset, len, ExtentKind::Zero))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        if is_zero(buf) {
            return Ok(());
        }
        Err(Error::unsupported(
            "data for a ZERO extent, which has no file to store them",
        ))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        check_range(
            self.info.virtual_size,
            range.start,
            range.end.saturating_sub(range.start),
        )
    }
}
