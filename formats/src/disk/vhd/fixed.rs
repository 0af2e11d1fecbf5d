//! Fixed disks: the guest's bytes, then a footer.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Access, Result, SECTOR_BYTES, Sink, Storage};

use super::footer::{DiskType, Footer};
use super::open::Found;
use crate::disk::raw::{RawImage, RawSink};
use crate::disk::{CreateArgs, OpenArgs};

/// Opens a disk whose footer has been read. Errors: the file is shorter than the disk, unless it
/// is to be salvaged.
pub fn open(args: &OpenArgs, found: &Found) -> Result<RawImage> {
    let mut info = found.info(args, SECTOR_BYTES)?;
    if let Err(error) = found.check_fixed() {
        if !args.salvage || args.access == Access::ReadWrite {
            return Err(error);
        }
        info.oddities.push(error.finding());
    }
    Ok(RawImage::new(Arc::clone(&args.storage), info))
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
