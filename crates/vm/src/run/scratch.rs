//! What a guest writes to a disk that is to stay as it is: kept in a file without a name, gone with
//! the process.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hako_block::image::check_range;
use hako_block::{BlockImage, Error, Extent, ExtentKind, ImageInfo, Result};

/// What is stored together: a bit of memory for each.
const UNIT_BYTES: u64 = 64 << 10;

/// The top layer of a disk whose writes are discarded.
pub(super) struct Scratch {
    info: ImageInfo,
    file: File,
    /// A bit per unit: whether it is stored.
    stored: Mutex<Vec<u64>>,
}

impl Scratch {
    /// Returns an empty layer for a disk of that size; the file is in `folder`, without a name.
    pub fn new(virtual_size: u64, folder: &Path) -> Result<Self> {
        let failed = |error| Error::io("make a file for what is discarded", error).in_file(folder);
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        let n_words = virtual_size.div_ceil(UNIT_BYTES).div_ceil(64);
        let n_words = usize::try_from(n_words).map_err(|_| Error::invalid("too large a disk"))?;
        Ok(Self {
            info: ImageInfo {
                format: "scratch",
                virtual_size,
                unit_bytes: UNIT_BYTES,
                writable: true,
                ..ImageInfo::default()
            },
            file,
            stored: Mutex::new(vec![0; n_words]),
        })
    }

    fn stored(&self) -> MutexGuard<'_, Vec<u64>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bit(stored: &[u64], unit: u64) -> bool {
    let word = usize::try_from(unit / 64)
        .ok()
        .and_then(|index| stored.get(index));
    word.is_some_and(|word| word >> (unit % 64) & 1 == 1)
}

impl BlockImage for Scratch {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        let mut done = 0;
        // The file ends where was written last.
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let read = self.file.read_at(rest, offset + done as u64);
            match read.map_err(|error| Error::io("read what is discarded", error))? {
                0 => {
                    rest.fill(0);
                    break;
                }
                n => done += n,
            }
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        check_range(self.info.virtual_size, offset, 1)?;
        let stored = self.stored();
        let first = offset / UNIT_BYTES;
        let is_stored = bit(&stored, first);
        let n_units = self.info.virtual_size.div_ceil(UNIT_BYTES);
        let mut units = first + 1..n_units;
        let end = units
            .find(|unit| bit(&stored, *unit) != is_stored)
            .unwrap_or(n_units);
        let end = (end * UNIT_BYTES).min(self.info.virtual_size);
        let kind = match is_stored {
            true => ExtentKind::Data,
            false => ExtentKind::Hole,
        };
        Ok(Extent::new(offset, end - offset, kind))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        let written = self.file.write_all_at(buf, offset);
        written.map_err(|error| Error::io("write what is discarded", error))?;
        let units: Range<u64> =
            offset / UNIT_BYTES..(offset + buf.len() as u64).div_ceil(UNIT_BYTES);
        let mut stored = self.stored();
        for unit in units {
            let index = usize::try_from(unit / 64).ok();
            if let Some(word) = index.and_then(|index| stored.get_mut(index)) {
                *word |= 1 << (unit % 64);
            }
        }
        Ok(())
    }
}
