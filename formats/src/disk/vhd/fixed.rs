//! Fixed disks: the guest's bytes, then a footer.

use std::ops::Range;
use std::sync::Arc;

use hako_block::image::check_range;
use hako_block::{
    Access, BlockImage, Error, Extent, ExtentKind, ImageInfo, Result, SECTOR_BYTES, Sink, Storage,
};

use super::footer::{DiskType, Footer};
use super::open::Found;
use crate::disk::raw::RawSink;
use crate::disk::{CreateArgs, OpenArgs};

/// An open fixed disk.
pub struct FixedImage {
    storage: Arc<dyn Storage>,
    host_name: Arc<str>,
    info: ImageInfo,
}

impl FixedImage {
    /// Opens a disk whose footer has been read. Errors: the file is shorter than the disk, unless
    /// it is to be salvaged.
    pub fn open(args: &OpenArgs, found: &Found) -> Result<Self> {
        let mut info = found.info(args, SECTOR_BYTES)?;
        if let Err(error) = found.check_fixed() {
            if !args.salvage || args.access == Access::ReadWrite {
                return Err(error);
            }
            info.oddities.push(error.finding());
        }
        Ok(Self {
            storage: Arc::clone(&args.storage),
            host_name: args.storage.name().into(),
            info,
        })
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.info.virtual_size, offset, len)
            .map_err(|error| error.in_file(self.storage.name()))
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if !self.info.writable {
            return Err(Error::read_only().in_file(self.storage.name()));
        }
        self.check(offset, len)
    }
}

impl BlockImage for FixedImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.storage.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.check(offset, 1)?;
        let run = self.storage.next_extent(offset)?;
        let extent = Extent::data(offset, run.len, &self.host_name, offset);
        let kind = if run.data {
            ExtentKind::Data
        } else {
            ExtentKind::Zero
        };
        Ok(Extent { kind, ..extent }.clipped(self.info.virtual_size))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check_write(offset, buf.len() as u64)?;
        self.storage.write_at(offset, buf)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.check_write(range.start, range.end.saturating_sub(range.start))?;
        self.storage.punch_hole(range)
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

/// Writes a fixed disk, in one pass: a pipe will do.
pub struct FixedSink {
    storage: Arc<dyn Storage>,
    guest: Box<RawSink>,
    footer: Footer,
}

impl FixedSink {
    /// Returns a sink for a new disk.
    pub fn new(args: &CreateArgs<'_>) -> Result<Self> {
        let guest = RawSink::new(
            Arc::clone(&args.storage),
            args.virtual_size,
            args.options.allocation,
        )?;
        Ok(Self {
            storage: Arc::clone(&args.storage),
            guest: Box::new(guest),
            footer: Footer::new(DiskType::Fixed, args.virtual_size, None),
        })
    }
}

impl Sink for FixedSink {
    fn unit_bytes(&self) -> u64 {
        self.guest.unit_bytes()
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.guest.data(offset, bytes)
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.guest.zero(range)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.guest.finish()?;
        self.storage
            .write_at(self.footer.current_size, &self.footer.encode())?;
        self.storage.sync()
    }
}
