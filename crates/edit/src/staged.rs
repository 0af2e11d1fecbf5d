//! A volume with changes that are in memory only.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, Result};
use hako_guest::Volume;
use hako_guest::volume::{check_range, read_vec};

/// Bytes that are kept together.
const PIECE_BYTES: u64 = 4096;

/// The most bytes of changes that are kept: an initrd with modules, and what it replaces.
const MOST_BYTES: usize = 1 << 30;

/// A volume, and what was written over it. Nothing of that is in the volume itself.
pub struct Staged {
    base: Arc<dyn Volume>,
    pieces: Mutex<BTreeMap<u64, Vec<u8>>>,
}

/// A run of bytes that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where in the volume it begins.
    pub offset: u64,
    /// What is there now.
    pub old: Vec<u8>,
    /// What will be there: as many bytes.
    pub new: Vec<u8>,
}

impl Staged {
    /// Returns `base` without changes.
    pub fn new(base: Arc<dyn Volume>) -> Self {
        Self {
            base,
            pieces: Mutex::default(),
        }
    }

    /// Returns the volume without what was written.
    pub fn base(&self) -> &Arc<dyn Volume> {
        &self.base
    }

    /// Writes, in memory. Errors: [`hako_block::ErrorKind::Corrupt`] past the end;
    /// [`hako_block::ErrorKind::Unsupported`] past 1 GiB of changes; those of reading what is around.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_range(offset, bytes.len(), self.len_bytes())?;
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let start = at - at % PIECE_BYTES;
            if !pieces.contains_key(&start) {
                if pieces.len() >= MOST_BYTES / PIECE_BYTES as usize {
                    return Err(Error::unsupported("more than 1 GiB would change"));
                }
                let len = PIECE_BYTES.min(self.len_bytes() - start) as usize;
                pieces.insert(start, read_vec(&*self.base, start, len)?);
            }
            let within = (at - start) as usize;
            let piece = pieces.get_mut(&start).and_then(|all| all.get_mut(within..));
            let piece = piece.unwrap_or_default();
            let (now, later) = rest.split_at(piece.len().min(rest.len()));
            if now.is_empty() {
                return Err(Error::corrupt("volume", "a piece ends early").at_byte(at));
            }
            piece.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Returns what changes, ascending. Errors: those of reading what is there now.
    pub fn changes(&self) -> Result<Vec<Piece>> {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        for (&offset, new) in &*pieces {
            let old = read_vec(&*self.base, offset, new.len())?;
            if old != *new {
                let new = new.clone();
                changes.push(Piece { offset, old, new });
            }
        }
        Ok(changes)
    }

    /// Returns the ranges of whole units of `unit_bytes` in which something changes, ascending.
    pub(crate) fn changed_units(&self, unit_bytes: u64) -> Result<Vec<Range<u64>>> {
        let mut units: Vec<Range<u64>> = Vec::new();
        for piece in self.changes()? {
            let places = piece.old.iter().zip(&piece.new).zip(piece.offset..);
            for at in places
                .filter(|((old, new), _)| old != new)
                .map(|(_, at)| at)
            {
                let start = at - at % unit_bytes;
                if units.last().is_none_or(|last| last.start != start) {
                    units.push(start..start + unit_bytes);
                }
            }
        }
        Ok(units)
    }
}

impl Volume for Staged {
    fn len_bytes(&self) -> u64 {
        self.base.len_bytes()
    }

    fn sector_bytes(&self) -> u32 {
        self.base.sector_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.base.read_at(offset, buf)?;
        let end = offset + buf.len() as u64;
        let from = offset - offset % PIECE_BYTES;
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        for (&start, piece) in pieces.range(from..end) {
            let skipped = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let to = usize::try_from(start.saturating_sub(offset)).unwrap_or(usize::MAX);
            let new = piece.get(skipped..).unwrap_or_default();
            let old = buf.get_mut(to..).unwrap_or_default();
            old.iter_mut().zip(new).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_volume_stays_what_it_is() {
        let base: Arc<dyn Volume> = Arc::new(vec![7_u8; 10_000]);
        let staged = Staged::new(Arc::clone(&base));
        staged.write_at(4090, &[1; 10]).unwrap();
        staged.write_at(9999, &[2]).unwrap();
        staged.write_at(0, &[7; 3]).unwrap();
        let read = read_vec(&staged, 4088, 14).unwrap();
        assert_eq!(read, [7, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 7, 7]);
        assert_eq!(read_vec(&staged, 9998, 2).unwrap(), [7, 2]);
        assert_eq!(read_vec(&*base, 0, 10_000).unwrap(), [7; 10_000]);
        assert!(staged.write_at(9999, &[0; 2]).is_err());
        let changed: Vec<u64> = staged.changes().unwrap().iter().map(|c| c.offset).collect();
        assert_eq!(changed, [0, 4096, 8192]);
        assert_eq!(staged.changed_units(512).unwrap()[0], 3584..4096);
    }
}
