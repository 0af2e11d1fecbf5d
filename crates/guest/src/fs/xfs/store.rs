//! The bytes of the volume as they are once the log is replayed.

use std::collections::BTreeMap;
use std::sync::Arc;

use hako_block::Result;

use crate::volume::Volume;

/// The pieces that the log changes buffers by.
pub(super) const PIECE_BYTES: u64 = 128;

/// A piece as the log has it.
pub(super) type Piece = [u8; PIECE_BYTES as usize];

/// A volume, with pieces of the log in place of its own.
pub(super) struct Store {
    volume: Arc<dyn Volume>,
    /// By their number: the position in the volume is 128 times that.
    pieces: BTreeMap<u64, Piece>,
}

impl Store {
    /// Returns the volume as it is.
    pub(super) fn new(volume: Arc<dyn Volume>) -> Self {
        Self {
            volume,
            pieces: BTreeMap::new(),
        }
    }

    /// Returns the volume with these pieces in their places.
    pub(super) fn replayed(self, pieces: BTreeMap<u64, Piece>) -> Self {
        Self { pieces, ..self }
    }

    /// Returns the volume.
    pub(super) fn volume(&self) -> &Arc<dyn Volume> {
        &self.volume
    }

    /// Returns whether the log changed one of these bytes: their checksum was never made.
    pub(super) fn is_changed(&self, at: u64, len: u64) -> bool {
        let end = at.saturating_add(len).div_ceil(PIECE_BYTES);
        self.pieces.range(at / PIECE_BYTES..end).next().is_some()
    }

    /// Returns the places of the pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = u64> {
        let numbers = self.pieces.keys();
        numbers.map(|number| number.saturating_mul(PIECE_BYTES))
    }

    /// Reads exactly `buf.len()` bytes.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.volume.read_at(at, buf)?;
        let end = at + buf.len() as u64;
        for (number, piece) in self
            .pieces
            .range(at / PIECE_BYTES..end.div_ceil(PIECE_BYTES))
        {
            let start = number * PIECE_BYTES;
            let (to, from) = (start.saturating_sub(at), at.saturating_sub(start));
            let to = buf.iter_mut().skip(to as usize);
            to.zip(piece.iter().skip(from as usize))
                .for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_the_log_are_read_in_place_of_the_volume() {
        let volume: Arc<dyn Volume> = Arc::new(vec![1; 1024]);
        let store = Store::new(volume).replayed([(1, [2; 128]), (3, [3; 128])].into());
        let mut all = vec![0; 1000];
        store.read(10, &mut all).unwrap();
        let counted = |byte: u8| all.iter().filter(|found| **found == byte).count();
        assert_eq!((counted(1), counted(2), counted(3)), (1000 - 256, 128, 128));
        assert_eq!((all[117], all[118], all[245], all[246]), (1, 2, 2, 1));
        let mut few = [0; 3];
        store.read(254, &mut few).unwrap();
        assert_eq!(few, [2, 2, 1]);
        assert!(store.is_changed(0, 129) && !store.is_changed(0, 128));
        assert!(!store.is_changed(256, 128) && store.is_changed(511, 1));
    }
}
