//! Overlays over parents: the one place where layers meet.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::image::check_range;
use crate::{BlockImage, Error, Extent, ExtentKind, ImageInfo, Result};

/// Most layers a chain may have: a base with as many overlays as VMware runs, 255.
pub const MAX_LAYERS: usize = 256;

/// Writers of different units must rarely meet; more stripes than threads is enough.
const N_STRIPES: u64 = 64;

/// Whole units that are zeroed in one call, and kept locked meanwhile, take at most so many bytes.
const MAX_ZERO_BYTES: u64 = 1 << 30;

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

    /// Returns the chain from layer `depth` on (0 the top) as a disk of its own; `None` if there
    /// is no such layer.
    pub fn from_layer(&self, depth: usize) -> Option<Chain> {
        let layers = self.layers.get(depth..)?.to_vec();
        Chain::new(layers).ok()
    }

    fn top(&self) -> &dyn BlockImage {
        &*self.layers[0]
    }

    /// Locks the units, in an order that lets nobody wait for another in a circle.
    fn lock_units(&self, units: Range<u64>) -> Vec<MutexGuard<'_, ()>> {
        let stripes: BTreeSet<u64> = units
            .take(N_STRIPES as usize)
            .map(|unit| unit % N_STRIPES)
            .collect();
        stripes
            .into_iter()
            .map(|stripe| {
                self.stripes[stripe as usize]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
            })
            .collect()
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

    /// Writes a piece that [`Self::piece`] cut, whose units the caller holds.
    fn write_piece(&self, piece: &Piece, buf: &[u8]) -> Result<()> {
        if piece.whole || !self.has_hole(piece.covered.clone())? {
            return self.top().write_at(piece.offset, buf);
        }
        let unit = &piece.covered;
        let mut copy = vec![0; (unit.end - unit.start) as usize];
        self.read_from(0, unit.start, &mut copy)?;
        let at = (piece.offset - unit.start) as usize;
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

    /// Cuts off the front of a write to an overlay: whole units, of together `max_len` bytes (but
    /// one at least), or the part of one unit. The last unit of the disk may be a short one.
    fn piece(&self, range: &Range<u64>, max_len: u64) -> Piece {
        let unit_bytes = self.info.unit_bytes.max(512);
        let size = self.info.virtual_size;
        let first = range.start / unit_bytes;
        let first_end = (first + 1).saturating_mul(unit_bytes).min(size);
        let whole = range.start == first * unit_bytes && range.end >= first_end;
        let end = if whole {
            let most = range.start.saturating_add(max_len).max(first_end);
            let end = range.end.min(most);
            if end == size {
                end
            } else {
                end - end % unit_bytes
            }
        } else {
            range.end.min(first_end)
        };
        Piece {
            units: first..end.div_ceil(unit_bytes),
            covered: first * unit_bytes..end.max(first_end),
            offset: range.start,
            end,
            whole,
        }
    }
}

/// The part of a write that is done in one go.
struct Piece {
    units: Range<u64>,
    /// The guest bytes of those units.
    covered: Range<u64>,
    offset: u64,
    end: u64,
    /// Whether all of `covered` is written.
    whole: bool,
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
        if self.layers.len() == 1 {
            return self.top().write_at(offset, buf);
        }
        let mut rest = offset..offset + buf.len() as u64;
        while !rest.is_empty() {
            let piece = self.piece(&rest, u64::MAX);
            let bytes = (piece.offset - offset) as usize..(piece.end - offset) as usize;
            let _locks = self.lock_units(piece.units.clone());
            self.write_piece(&piece, &buf[bytes])?;
            rest.start = piece.end;
        }
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        check_range(
            self.info.virtual_size,
            range.start,
            range.end.saturating_sub(range.start),
        )?;
        if self.layers.len() == 1 {
            return self.top().write_zeroes(range);
        }
        let mut rest = range;
        while !rest.is_empty() {
            let piece = self.piece(&rest, MAX_ZERO_BYTES);
            let _locks = self.lock_units(piece.units.clone());
            if piece.whole {
                self.top().write_zeroes(piece.offset..piece.end)?;
            } else {
                let zeros = vec![0; (piece.end - piece.offset) as usize];
                self.write_piece(&piece, &zeros)?;
            }
            rest.start = piece.end;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{MemoryStorage, Storage};

    const UNIT: u64 = 4096;
    /// The last unit is a short one.
    const SIZE: u64 = 100 * UNIT + 512;

    /// Units in memory, all holes at first; counts the calls that change it.
    struct Layer {
        info: ImageInfo,
        bytes: MemoryStorage,
        stored: Mutex<BTreeSet<u64>>,
        n_calls: AtomicUsize,
    }

    impl Layer {
        fn new(byte: u8) -> Self {
            Self {
                info: ImageInfo {
                    virtual_size: SIZE,
                    unit_bytes: UNIT,
                    ..ImageInfo::default()
                },
                bytes: MemoryStorage::new("layer", vec![byte; SIZE as usize]),
                stored: Mutex::default(),
                n_calls: AtomicUsize::new(0),
            }
        }

        fn store(&self, range: Range<u64>) {
            self.n_calls.fetch_add(1, Ordering::Relaxed);
            let units = range.start / UNIT..range.end.div_ceil(UNIT);
            self.stored.lock().unwrap().extend(units);
        }
    }

    impl BlockImage for Layer {
        fn info(&self) -> &ImageInfo {
            &self.info
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            self.bytes.read_at(offset, buf)
        }

        fn next_extent(&self, offset: u64) -> Result<Extent> {
            let unit = offset / UNIT;
            let kind = match self.stored.lock().unwrap().contains(&unit) {
                true => ExtentKind::Data,
                false => ExtentKind::Hole,
            };
            Ok(Extent::new(offset, (unit + 1) * UNIT - offset, kind).clipped(SIZE))
        }

        fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
            self.store(offset..offset + buf.len() as u64);
            self.bytes.write_at(offset, buf)
        }

        fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
            self.store(range.clone());
            self.bytes.punch_hole(range)
        }
    }

    /// An overlay of nothing over ones.
    fn overlay() -> (Arc<Layer>, Chain) {
        let top = Arc::new(Layer::new(0));
        let parent: Arc<dyn BlockImage> = Arc::new(Layer::new(1));
        let layers = vec![Arc::clone(&top) as Arc<dyn BlockImage>, parent];
        (top, Chain::new(layers).unwrap())
    }

    fn expect(chain: &Chain, changed: Range<u64>, byte: u8) {
        let mut got = vec![0; SIZE as usize];
        chain.read_at(0, &mut got).unwrap();
        for (offset, got) in (0..).zip(got) {
            let wanted = if changed.contains(&offset) { byte } else { 1 };
            assert_eq!(got, wanted, "byte {offset} after a change of {changed:?}");
        }
    }

    const RANGES: [Range<u64>; 8] = [
        0..SIZE,
        0..UNIT,
        UNIT..3 * UNIT,
        7..UNIT - 7,
        7..5 * UNIT + 9,
        UNIT..2 * UNIT + 1,
        99 * UNIT + 1..SIZE,
        100 * UNIT..SIZE - 1,
    ];

    #[test]
    fn writes_to_an_overlay_keep_the_parents_bytes_around_them() {
        for range in RANGES {
            let (_, chain) = overlay();
            let bytes = vec![9; (range.end - range.start) as usize];
            chain.write_at(range.start, &bytes).unwrap();
            expect(&chain, range, 9);
        }
    }

    #[test]
    fn zeroing_an_overlay_keeps_the_parents_bytes_around_it() {
        for range in RANGES {
            let (_, chain) = overlay();
            chain.write_zeroes(range.clone()).unwrap();
            expect(&chain, range, 0);
        }
    }

    #[test]
    fn whole_units_go_to_the_top_in_one_call() {
        let (top, chain) = overlay();
        chain.write_zeroes(0..SIZE).unwrap();
        assert_eq!(top.n_calls.load(Ordering::Relaxed), 1);
        chain.write_at(UNIT - 1, &[9; 1 + 64 * 4096 + 1]).unwrap();
        assert_eq!(top.n_calls.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn long_runs_are_zeroed_piece_by_piece() {
        let (_, chain) = overlay();
        let piece = chain.piece(&(0..SIZE), 10 * UNIT + 1);
        assert_eq!((piece.end, piece.units), (10 * UNIT, 0..10));
        let piece = chain.piece(&(0..SIZE), 1);
        assert_eq!((piece.end, piece.units), (UNIT, 0..1));
    }
}
