//! A disk in memory with an extent map of any shape, and random numbers that repeat.

use std::sync::Arc;

use hako_block::image::check_range;
use hako_block::{BlockImage, Error, ErrorKind, Extent, ExtentKind, ImageInfo, Result};

use crate::plan::Run;

/// xorshift64*: the same numbers on every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// A read-only disk: its content and its extent map.
pub(crate) struct FakeImage {
    info: ImageInfo,
    content: Vec<u8>,
    extents: Vec<Extent>,
    /// Guest offsets where reading fails.
    pub(crate) fail_reads: Vec<u64>,
}

impl FakeImage {
    pub(crate) fn with_extents(content: Vec<u8>, extents: &[(u64, u64, ExtentKind)]) -> Self {
        let info = ImageInfo {
            format: "fake",
            virtual_size: content.len() as u64,
            unit_bytes: 65536,
            ..ImageInfo::default()
        };
        let file: Arc<str> = "fake".into();
        let extents = extents
            .iter()
            .map(|&(offset, len, kind)| match kind {
                ExtentKind::Data => Extent::data(offset, len, &file, offset),
                _ => Extent::new(offset, len, kind),
            })
            .collect();
        Self {
            info,
            content,
            extents,
            fail_reads: Vec::new(),
        }
    }

    pub(crate) fn of_data(content: Vec<u8>) -> Self {
        let len = content.len() as u64;
        Self::with_extents(content, &[(0, len, ExtentKind::Data)])
    }

    /// Makes a disk of at most `max_size` bytes, its extents of all lengths and on any byte, its
    /// data often zeros.
    pub(crate) fn random(random: &mut Random, max_size: u64) -> Self {
        let size = 1 + random.below(max_size);
        let mut content = vec![0; size as usize];
        let mut extents = Vec::new();
        let mut position = 0;
        while position < size {
            let scale = 1 << (4 + random.below(17));
            let len = (1 + random.below(scale)).min(size - position);
            let kind = match random.below(4) {
                0 => ExtentKind::Zero,
                1 => ExtentKind::Hole,
                _ => ExtentKind::Data,
            };
            extents.push((position, len, kind));
            if kind == ExtentKind::Data {
                fill(random, &mut content[position as usize..][..len as usize]);
            }
            position += len;
        }
        Self::with_extents(content, &extents)
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.info.virtual_size
    }

    /// Returns the same content, all stored.
    pub(crate) fn all_data(&self) -> Self {
        Self::of_data(self.content.clone())
    }

    /// Returns the kinds of all bytes of a range, each once.
    pub(crate) fn kinds_in(&self, start: u64, end: u64) -> Vec<ExtentKind> {
        let mut kinds = Vec::new();
        for extent in &self.extents {
            if extent.offset < end && start < extent.end() && !kinds.contains(&extent.kind) {
                kinds.push(extent.kind);
            }
        }
        kinds
    }

    /// Checks that a run called zero or hole is so in the extent map.
    pub(crate) fn assert_kind_fits(&self, run: &Run, keep_holes: bool) {
        let found = self.kinds_in(run.range.start, run.range.end);
        let allowed: &[ExtentKind] = match (run.kind, keep_holes) {
            (ExtentKind::Data, _) => return,
            (ExtentKind::Zero, false) => &[ExtentKind::Zero, ExtentKind::Hole],
            (ExtentKind::Zero, true) => &[ExtentKind::Zero],
            (ExtentKind::Hole, _) => {
                assert!(keep_holes);
                &[ExtentKind::Hole]
            }
        };
        assert!(found.iter().all(|kind| allowed.contains(kind)), "{run:?}");
    }
}

fn fill(random: &mut Random, bytes: &mut [u8]) {
    for piece in bytes.chunks_mut(3000) {
        if random.below(3) > 0 {
            let value = random.next().to_le_bytes();
            for (at, byte) in piece.iter_mut().enumerate() {
                *byte = value[at % 8];
            }
        }
    }
}

impl BlockImage for FakeImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        let end = offset + buf.len() as u64;
        if self.fail_reads.iter().any(|at| (offset..end).contains(at)) {
            return Err(Error::new(ErrorKind::Io, format!("read at {offset}")));
        }
        buf.copy_from_slice(&self.content[offset as usize..end as usize]);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        check_range(self.info.virtual_size, offset, 1)?;
        let index = self
            .extents
            .partition_point(|extent| extent.end() <= offset);
        let mut extent = self.extents[index].clone();
        extent.len = extent.end() - offset;
        extent.offset = offset;
        extent.host = None;
        Ok(extent)
    }
}
