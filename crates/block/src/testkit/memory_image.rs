//! A disk in memory that keeps a log, for tests of those who use images.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{BlockImage, Error, ErrorKind, Extent, ExtentKind, ImageInfo, Result};

/// A writable disk in memory.
pub struct MemoryImage {
    info: ImageInfo,
    bytes: Mutex<Vec<u8>>,
    log: Mutex<Vec<String>>,
    full: AtomicBool,
}

impl MemoryImage {
    /// Returns a disk with this content.
    pub fn new(bytes: Vec<u8>) -> Arc<Self> {
        let len = bytes.len() as u64;
        Arc::new(Self {
            info: ImageInfo {
                format: "raw",
                subformat: None,
                virtual_size: len,
                unit_bytes: crate::SECTOR_BYTES,
                has_zero_extents: false,
                writable: true,
                identity: None,
                content_id: None,
                parent: None,
                files: Vec::new(),
                allocated_size: len,
                details: Vec::new(),
                oddities: Vec::new(),
            },
            bytes: Mutex::new(bytes),
            log: Mutex::default(),
            full: AtomicBool::new(false),
        })
    }

    /// Returns the content.
    pub fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was asked for besides reads and writes: "flush", "discard 0..512".
    pub fn log(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets writes fail for want of space, or not.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn note(&self, what: String) {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }

    fn range(&self, offset: u64, len: usize) -> Result<Range<usize>> {
        let end = offset.checked_add(len as u64);
        match end {
            Some(end) if end <= self.info.virtual_size => Ok(offset as usize..end as usize),
            _ => Err(Error::invalid(format!(
                "{len} bytes at {offset} are not on the disk"
            ))),
        }
    }
}

impl BlockImage for MemoryImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = self.range(offset, buf.len())?;
        buf.copy_from_slice(&self.bytes()[range]);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        Ok(Extent::new(
            offset,
            self.info.virtual_size - offset,
            ExtentKind::Data,
        ))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::NoSpace, "no space left"));
        }
        let range = self.range(offset, buf.len())?;
        self.bytes()[range].copy_from_slice(buf);
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.note(format!("discard {range:?}"));
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.note("flush".to_owned());
        Ok(())
    }
}
