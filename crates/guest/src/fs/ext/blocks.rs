//! The blocks of the file system as they are once its journal is replayed.

use std::collections::BTreeMap;
use std::sync::Arc;

use hako_block::{Error, Result};

use crate::volume::Volume;

/// A block that the journal holds a later copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Logged {
    /// The block of the file system that holds the copy.
    pub(super) copy: u64,
    /// The copy's first four bytes are zeros and stand for the journal's magic number.
    pub(super) is_escaped: bool,
}

/// jbd2's magic number, as it is stored.
pub(super) const JOURNAL_MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

/// The blocks of a volume, those in the journal in place of their old selves.
#[derive(Clone)]
pub(super) struct Blocks {
    volume: Arc<dyn Volume>,
    block_bytes: u32,
    n_blocks: u64,
    replayed: Arc<BTreeMap<u64, Logged>>,
}

impl Blocks {
    /// Returns the blocks as they are in the volume.
    pub(super) fn new(volume: Arc<dyn Volume>, block_bytes: u32, n_blocks: u64) -> Self {
        Self {
            volume,
            block_bytes,
            n_blocks,
            replayed: Arc::default(),
        }
    }

    /// Returns the same with the copies of the journal in their places.
    pub(super) fn replayed(&self, copies: BTreeMap<u64, Logged>) -> Self {
        Self {
            replayed: Arc::new(copies),
            ..self.clone()
        }
    }

    /// Returns the same for a file system of so many blocks.
    pub(super) fn with_length(self, n_blocks: u64) -> Self {
        Self { n_blocks, ..self }
    }

    /// Returns the volume.
    pub(super) fn volume(&self) -> &Arc<dyn Volume> {
        &self.volume
    }

    /// Returns the bytes of a block.
    pub(super) fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// Returns the number of blocks.
    pub(super) fn n_blocks(&self) -> u64 {
        self.n_blocks
    }

    /// Returns the blocks from `first` to `end` that the journal has a later copy of.
    pub(super) fn logged(&self, first: u64, end: u64) -> impl Iterator<Item = u64> {
        let blocks = self.replayed.range(first..end.max(first));
        blocks.map(|(block, _)| *block)
    }

    /// Returns a whole block.
    pub(super) fn block(&self, block: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.block_bytes as usize];
        self.read(block, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads from byte `from` of `block` on, into the blocks after it too. Errors: corrupt if that
    /// does not lie in the file system.
    pub(super) fn read(&self, block: u64, from: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = u64::from(self.block_bytes);
        let mut at = self.position(block, from, buf.len())?;
        let end = at + buf.len() as u64;
        let mut rest = buf;
        for (block, logged) in self.replayed.range(at / bytes..end.div_ceil(bytes)) {
            let start = block * bytes;
            let (before, others) = rest.split_at_mut(start.saturating_sub(at) as usize);
            self.read_volume(at, before)?;
            at = at.max(start);
            let len = (start + bytes).min(end) - at;
            let (piece, others) = others.split_at_mut(len as usize);
            self.read_logged(*logged, at - start, piece)?;
            at += len;
            rest = others;
        }
        self.read_volume(at, rest)
    }

    /// Returns the byte of the volume, checked against the file system's end.
    fn position(&self, block: u64, from: u64, len: usize) -> Result<u64> {
        let bytes = u64::from(self.block_bytes);
        let start = block.checked_mul(bytes).and_then(|at| at.checked_add(from));
        let end = start.and_then(|start| start.checked_add(len as u64));
        match (start, end, self.n_blocks.checked_mul(bytes)) {
            (Some(start), Some(end), Some(all)) if end <= all => Ok(start),
            _ => Err(Error::corrupt(
                format!("block {block}"),
                format!(
                    "lies past the end of the file system ({} blocks)",
                    self.n_blocks
                ),
            )),
        }
    }

    fn read_volume(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        self.volume.read_at(at, buf)
    }

    fn read_logged(&self, logged: Logged, from: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.position(logged.copy, from, buf.len())?;
        self.read_volume(at, buf)?;
        if logged.is_escaped {
            let skipped = usize::try_from(from).unwrap_or(usize::MAX);
            for (byte, magic) in buf.iter_mut().zip(JOURNAL_MAGIC.iter().skip(skipped)) {
                *byte = *magic;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_in_the_journal_are_read_in_place_of_their_blocks() {
        let volume: Vec<u8> = (0..8_u8).flat_map(|n| vec![n; 1024]).collect();
        let copies = [(2, 6, false), (3, 7, true)]
            .map(|(block, copy, is_escaped)| (block, Logged { copy, is_escaped }));
        let blocks = Blocks::new(Arc::new(volume), 1024, 8).replayed(copies.into());
        let mut all = vec![0; 4096];
        blocks.read(1, 0, &mut all).unwrap();
        let starts: Vec<&[u8]> = all.chunks(1024).map(|block| &block[..5]).collect();
        assert_eq!(starts[0], [1; 5]);
        assert_eq!(starts[1], [6; 5]);
        assert_eq!(starts[2], [0xc0, 0x3b, 0x39, 0x98, 7]);
        assert_eq!(starts[3], [4; 5]);
        let mut across = vec![0; 4];
        blocks.read(2, 1022, &mut across).unwrap();
        assert_eq!(across, [6, 6, 0xc0, 0x3b]);
        blocks.read(3, 3, &mut across).unwrap();
        assert_eq!(across, [0x98, 7, 7, 7]);
        assert!(blocks.read(7, 1, &mut all[..1024]).is_err());
        assert!(blocks.read(u64::MAX, 0, &mut across).is_err());
    }
}
