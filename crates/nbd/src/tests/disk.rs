//! An image in memory that fails where it is told to.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hako_block::image::check_range;
use hako_block::{
    BlockImage, Error, ErrorKind, Extent, ExtentKind, ImageInfo, MemoryStorage, Result, Storage,
};

/// The image. Its extents are those of its bytes: 4 KiB blocks of zeros are holes.
pub struct Disk {
    info: ImageInfo,
    pub bytes: MemoryStorage,
    /// Reads and writes that touch this offset fail in this way.
    pub bad: Mutex<Option<(u64, ErrorKind)>>,
    pub n_flushes: AtomicUsize,
    pub n_discards: AtomicUsize,
}

impl Disk {
    pub fn new(bytes: Vec<u8>, writable: bool) -> Self {
        let info = ImageInfo {
            format: "toy",
            virtual_size: bytes.len() as u64,
            unit_bytes: 65536,
            writable,
            ..ImageInfo::default()
        };
        Self {
            info,
            bytes: MemoryStorage::new("toy.img", bytes),
            bad: Mutex::new(None),
            n_flushes: AtomicUsize::new(0),
            n_discards: AtomicUsize::new(0),
        }
    }

    fn check(&self, range: Range<u64>) -> Result<()> {
        check_range(self.info.virtual_size, range.start, range.end - range.start)?;
        match *self.bad.lock().unwrap() {
            Some((offset, kind)) if range.contains(&offset) => {
                Err(Error::new(kind, "told to fail").in_file("/secret/toy.img"))
            }
            _ => Ok(()),
        }
    }
}

impl BlockImage for Disk {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset..offset + buf.len() as u64)?;
        self.bytes.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.check(offset..offset + 1)?;
        let run = self.bytes.next_extent(offset)?;
        let kind = match (run.data, offset % 8192) {
            (true, _) => ExtentKind::Data,
            // Both are zeros to a client, and no boundary may show.
            (false, 0) => ExtentKind::Hole,
            (false, _) => ExtentKind::Zero,
        };
        // In small steps, as a fragmented image says it.
        Ok(Extent::new(offset, run.len.min(65536), kind))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check(offset..offset + buf.len() as u64)?;
        self.bytes.write_at(offset, buf)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.check(range.clone())?;
        self.bytes.punch_hole(range)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.n_discards.fetch_add(1, Ordering::SeqCst);
        self.check(range)
    }

    fn flush(&self) -> Result<()> {
        self.n_flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
