//! Overlays over parents: the one place where layers meet.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::image::check_range;
use crate::{BlockImage, Error, Extent, ExtentKind, ImageInfo, Result};

/// Most layers a chain may have.
pub const MAX_LAYERS: usize = 32;

/// Writers of different units must rarely meet; more stripes than threads is enough.
const N_STRIPES: u64 = 64;

/// A chain of layers as one disk, the top first. Writes go to the top; a partial write into a
/// unit that the top does not store copies the unit up first, under a lock per unit.
pub struct Chain {
    layers: Vec<Arc<dyn BlockImage>>,
    info: ImageInfo,
    stripes: Vec<Mutex<()>>,
}

impl Chain {
    /// Composes layers, the top first. A parent smaller than its overlay reads as zeros beyond
    /// its end. Errors: no layer, or more than [`MAX_LAYERS`].
    pub fn new(layers: Vec<Arc<dyn BlockImage>>) -> Result<Self> {
        let Some(top) = layers.first() else {
            return Err(Error::invalid("a chain needs a layer"));
        };
        if layers.len() > MAX_LAYERS {
            return Err(Error::invalid(format!(
                "a chain of more than {MAX_LAYERS} layers"
            )));
        }
        let info = top.info().clone();
        let stripes = (0..N_STRIPES).map(|_| Mutex::new(())).collect();
        Ok(Self {
            layers,
            info,
            stripes,
        })
    }

    /// Returns the layers, the top first.
    pub fn layers(&self) -> &[Arc<dyn BlockImage>] {
        &self.layers
    }

    fn top(&self) -> &dyn BlockImage {
        &*self.layers[0]
    }

    fn lock_unit(&self, unit: u64) -> MutexGuard<'_, ()> {
        let stripe = (unit % N_STRIPES) as usize;
        self.stripes[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads as layer `depth` and those below it see the disk.
    fn read_from(&self, depth: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Some(layer) = self.layers.get(depth) else {
            buf.fill(0);
            return Ok(());
        };
        let size = layer.info().virtual_size;
        let inside = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (mut buf, beyond) = buf.split_at_mut(inside.min(buf.len()));
        beyond.fill(0);
        if depth + 1 == self.layers.len() {
            return if buf.is_empty() {
                Ok(())
            } else {
                layer.read_at(offset, buf)
            };
        }
        let mut offset = offset;
        while !buf.is_empty() {
            let end = offset + buf.len() as u64;
            let mut extent = layer.next_extent(offset)?.clipped(end);
            let is_hole = extent.kind == ExtentKind::Hole;
            while extent.end() < end {
                let next = layer.next_extent(extent.end())?.clipped(end);
                if (next.kind == ExtentKind::Hole) != is_hole {
                    break;
                }
                extent.len += next.len;
            }
            let (now, rest) = buf.split_at_mut(extent.len as usize);
            if is_hole {
                self.read_from(depth + 1, offset, now)?;
            } else {
                layer.read_at(offset, now)?;
            }
            buf = rest;
            offset += extent.len;
        }
        Ok(())
    }

    /// Writes within one unit of the top, whose lock the caller holds.
    fn write_unit(&self, unit: Range<u64>, offset: u64, buf: &[u8]) -> Result<()> {
        let whole = offset == unit.start && buf.len() as u64 == unit.end - unit.start;
        if whole || self.layers.len() == 1 || !self.has_hole(unit.clone())? {
            return self.top().write_at(offset, buf);
        }
        let mut copy = vec![0; (unit.end - unit.start) as usize];
        self.read_from(0, unit.start, &mut copy)?;
        let at = (offset - unit.start) as usize;
        copy[at..at + buf.len()].copy_from_slice(buf);
        self.top().write_at(unit.start, &copy)
    }

    fn has_hole(&self, range: Range<u64>) -> Result<bool> {
        let mut offset = range.start;
        while offset < range.end {
            let extent = self.top().next_extent(offset)?;
            if extent.kind == ExtentKind::Hole {
                return Ok(true);
            }
            offset = extent.end();
        }
        Ok(false)
    }

    fn unit_of(&self, offset: u64) -> (u64, Range<u64>) {
        let unit_bytes = self.info.unit_bytes.max(512);
        let unit = offset / unit_bytes;
        let start = unit * unit_bytes;
        (
            unit,
            start..(start + unit_bytes).min(self.info.virtual_size),
        )
    }
}

impl BlockImage for Chain {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        self.read_from(0, offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        check_range(self.info.virtual_size, offset, 1)?;
        let mut end = self.info.virtual_size;
        let mut deepest = 0;
        for (depth, layer) in self.layers.iter().enumerate() {
            let size = layer.info().virtual_size;
            if offset >= size {
                break;
            }
            deepest = depth as u32;
            let mut extent = layer.next_extent(offset)?.clipped(end);
            if extent.kind != ExtentKind::Hole {
                extent.depth = deepest;
                return Ok(extent);
            }
            // The hole of the base may be the end of a smaller disk: what follows is zeros too,
            // but says so in an extent of its own.
            end = extent.end();
        }
        Ok(Extent {
            depth: deepest,
            ..Extent::new(offset, end - offset, ExtentKind::Hole)
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        let (mut offset, mut buf) = (offset, buf);
        while !buf.is_empty() {
            let (unit, range) = self.unit_of(offset);
            let len = buf.len().min((range.end - offset) as usize);
            let _lock = self.lock_unit(unit);
            self.write_unit(range, offset, &buf[..len])?;
            offset += len as u64;
            buf = &buf[len..];
        }
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        check_range(
            self.info.virtual_size,
            range.start,
            range.end.saturating_sub(range.start),
        )?;
        let mut offset = range.start;
        while offset < range.end {
            let (unit, whole) = self.unit_of(offset);
            let end = whole.end.min(range.end);
            let _lock = self.lock_unit(unit);
            if offset == whole.start && end == whole.end {
                self.top().write_zeroes(offset..end)?;
            } else {
                let zeros = vec![0; (end - offset) as usize];
                self.write_unit(whole, offset, &zeros)?;
            }
            offset = end;
        }
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        if self.layers.len() > 1 {
            // A hole in an overlay would show the parent's old bytes again.
            return self.write_zeroes(range);
        }
        check_range(
            self.info.virtual_size,
            range.start,
            range.end.saturating_sub(range.start),
        )?;
        self.top().discard(range)
    }

    fn flush(&self) -> Result<()> {
        self.top().flush()
    }
}
