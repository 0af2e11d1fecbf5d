//! A disk of which only what is in use is there; the rest is zeros.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{BlockImage, Extent, ExtentKind, ImageInfo, Result};
use hako_guest::{Ranges, UsedMap};

/// Bytes of the disk that the map is asked about at once, and how many such answers are kept: the
/// planner goes ahead of those who read.
pub(super) const WINDOW_BYTES: u64 = 32 << 20;
const MOST_WINDOWS: usize = 16;

/// A disk under its map.
pub(super) struct Masked {
    image: Arc<dyn BlockImage>,
    map: UsedMap,
    /// What was asked for last, by the window's number.
    windows: Mutex<VecDeque<(u64, Arc<Ranges>)>>,
}

impl Masked {
    /// Returns the disk as its map (in which it is the first) lets it be seen.
    pub(super) fn new(image: Arc<dyn BlockImage>, map: UsedMap) -> Self {
        Self {
            image,
            map,
            windows: Mutex::default(),
        }
    }

    /// Returns what is in use of the window that holds a byte, and where it ends.
    fn window(&self, offset: u64) -> Result<(Arc<Ranges>, u64)> {
        let number = offset / WINDOW_BYTES;
        let start = number * WINDOW_BYTES;
        let end = start
            .saturating_add(WINDOW_BYTES)
            .min(self.info().virtual_size);
        let lock = || self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().iter().find(|(known, _)| *known == number).cloned();
        if let Some((_, used)) = known {
            return Ok((used, end));
        }
        let used = Arc::new(self.map.used(0, &(start..end))?);
        let mut windows = lock();
        windows.push_front((number, Arc::clone(&used)));
        windows.truncate(MOST_WINDOWS);
        Ok((used, end))
    }

    /// Reads a range of one window: from the first byte that is in use to the last, and what lies
    /// between is zeros again.
    fn read_in(&self, used: &Ranges, offset: u64, buf: &mut [u8]) -> Result<()> {
        let window = offset..offset + buf.len() as u64;
        let used = used.within(&window);
        let ends = used.iter().next().zip(used.iter().last());
        if let Some((first, last)) = ends {
            // Inside the buffer: the ranges are within the window.
            let (from, to) = (first.start - offset, last.end - offset);
            if let Some(part) = buf.get_mut(from as usize..to as usize) {
                self.image.read_at(first.start, part)?;
            }
        }
        for gap in used.gaps(&window).iter() {
            let (from, to) = (gap.start - offset, gap.end - offset);
            if let Some(part) = buf.get_mut(from as usize..to as usize) {
                part.fill(0);
            }
        }
        Ok(())
    }
}

impl BlockImage for Masked {
    fn info(&self) -> &ImageInfo {
        self.image.info()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        hako_block::image::check_range(self.info().virtual_size, offset, buf.len() as u64)?;
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (used, end) = self.window(at)?;
            let len = usize::try_from(end - at).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(len.min(rest.len()));
            self.read_in(&used, at, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        let (used, window_end) = self.window(offset)?;
        let (is_used, end) = used.run_at(offset);
        let end = end.min(window_end);
        match is_used {
            true => Ok(self.image.next_extent(offset)?.clipped(end)),
            false => Ok(Extent::new(offset, end - offset, ExtentKind::Zero)),
        }
    }
}

#[cfg(test)]
mod tests {
    use hako_block::testkit::MemoryImage;
    use hako_guest::Disk;
    use hako_guest::Volumes;

    use super::*;

    #[test]
    fn what_is_free_reads_as_zeros_and_is_no_data() {
        // A swap area: of it the header is in use, and the ends of the disk.
        const MIB: usize = 1 << 20;
        let mut bytes = vec![7; 40 * MIB];
        bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
        let image = MemoryImage::new(bytes.clone());
        let disk = Arc::new(Disk::new(image.clone(), 512));
        let map = UsedMap::of(&Volumes::of(vec![disk]).unwrap(), false).unwrap();
        let masked = Masked::new(image, map);
        let mut read = vec![1; 40 * MIB];
        masked.read_at(0, &mut read).unwrap();
        bytes[MIB..39 * MIB].fill(0);
        assert!(read == bytes);
        masked.read_at(MIB as u64 - 3, &mut read[..7]).unwrap();
        assert_eq!(read[..7], [7, 7, 7, 0, 0, 0, 0]);
        let extents: Vec<Extent> = hako_block::extents(&masked).map(Result::unwrap).collect();
        let is_data = |extent: &&Extent| extent.kind == ExtentKind::Data;
        let data: u64 = extents
            .iter()
            .filter(is_data)
            .map(|extent| extent.len)
            .sum();
        assert_eq!(data, 2 * MIB as u64);
        assert!(masked.read_at(40 * MIB as u64, &mut read[..1]).is_err());
    }
}
