//! A disk over another one: what is written to it stays in memory.

use std::sync::Arc;

use hako_block::{BlockImage, Extent, ExtentKind, ImageInfo, Result};
use hako_guest::{Disk, Volume};

use crate::Staged;

/// A disk that reads as another one, but for what was written to it.
pub struct Overlay {
    info: ImageInfo,
    staged: Arc<Staged>,
}

impl Overlay {
    /// Returns one over `image`, which stays as it is.
    pub fn new(image: Arc<dyn BlockImage>) -> Self {
        const SECTOR_BYTES: u32 = 512;
        let info = ImageInfo {
            writable: true,
            parent: None,
            ..image.info().clone()
        };
        let disk: Arc<dyn Volume> = Arc::new(Disk::new(image, SECTOR_BYTES));
        let staged = Arc::new(Staged::new(disk));
        Self { info, staged }
    }

    /// Returns what was written.
    pub fn staged(&self) -> &Arc<Staged> {
        &self.staged
    }
}

impl BlockImage for Overlay {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.staged.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        hako_block::image::check_range(self.info.virtual_size, offset, 1)?;
        let len = self.info.virtual_size - offset;
        Ok(Extent::new(offset, len, ExtentKind::Data))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.staged.write_at(offset, buf)
    }
}
