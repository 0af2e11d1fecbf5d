//! Pieces of the BAT, and sector bitmaps, in memory: bounded, changed ones kept until they are
//! written back.

use std::collections::HashMap;
use std::sync::Arc;

use hako_block::{Result, Storage};

/// Bytes kept in memory.
const MAX_BYTES: usize = 8 << 20;
/// Changed bytes after which a flush is due.
const MAX_DIRTY_BYTES: usize = 2 << 20;

/// Pieces of the file by their offsets. A piece is always asked for with the same length.
pub struct Pages {
    storage: Arc<dyn Storage>,
    pages: HashMap<u64, Page>,
    n_bytes: usize,
    n_dirty_bytes: usize,
}

struct Page {
    bytes: Vec<u8>,
    dirty: bool,
}

impl Pages {
    /// Returns an empty cache.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            pages: HashMap::new(),
            n_bytes: 0,
            n_dirty_bytes: 0,
        }
    }

    /// Returns the `len` bytes at `offset`.
    pub fn read(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        Ok(&self.page(offset, len)?.bytes)
    }

    /// Returns the `len` bytes at `offset` to be changed.
    pub fn change(&mut self, offset: u64, len: u64) -> Result<&mut [u8]> {
        let page = self.page(offset, len)?;
        let was_clean = !std::mem::replace(&mut page.dirty, true);
        if was_clean {
            self.n_dirty_bytes += len as usize;
        }
        Ok(&mut self.page(offset, len)?.bytes)
    }

    /// Drops what is kept of the bytes at `offset`, changed or not.
    pub fn forget(&mut self, offset: u64) {
        if let Some(page) = self.pages.remove(&offset) {
            self.n_bytes -= page.bytes.len();
            if page.dirty {
                self.n_dirty_bytes -= page.bytes.len();
            }
        }
    }

    /// Writes all changes. Returns whether there were any.
    pub fn write_back(&mut self) -> Result<bool> {
        let mut changed: Vec<u64> = self
            .pages
            .iter()
            .filter(|(_, page)| page.dirty)
            .map(|(offset, _)| *offset)
            .collect();
        changed.sort_unstable();
        for offset in &changed {
            if let Some(page) = self.pages.get_mut(offset) {
                self.storage.write_at(*offset, &page.bytes)?;
                page.dirty = false;
                self.n_dirty_bytes -= page.bytes.len();
            }
        }
        Ok(!changed.is_empty())
    }

    /// Returns whether so much has changed that it should be written back.
    pub fn is_full(&self) -> bool {
        self.n_dirty_bytes >= MAX_DIRTY_BYTES
    }

    fn page(&mut self, offset: u64, len: u64) -> Result<&mut Page> {
        if !self.pages.contains_key(&offset) {
            self.make_room(len as usize);
            let mut bytes = vec![0; len as usize];
            self.storage.read_at(offset, &mut bytes)?;
            self.n_bytes += bytes.len();
            let page = Page {
                bytes,
                dirty: false,
            };
            self.pages.insert(offset, page);
        }
        Ok(self.pages.entry(offset).or_insert_with(|| Page {
            bytes: vec![0; len as usize],
            dirty: false,
        }))
    }

    /// Drops what is unchanged when the cache is full: what is used comes back soon.
    fn make_room(&mut self, len: usize) {
        if self.n_bytes + len <= MAX_BYTES {
            return;
        }
        self.pages.retain(|_, page| page.dirty);
        self.n_bytes = self.n_dirty_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::MemoryStorage;

    #[test]
    fn memory_stays_bounded_and_changes_survive() {
        let storage = Arc::new(MemoryStorage::new("t", vec![0; 3 * MAX_BYTES]));
        let mut pages = Pages::new(storage.clone());
        pages.change(4096, 512).unwrap()[3] = 7;
        for at in (0..3 * MAX_BYTES as u64).step_by(65536) {
            pages.read(at, 65536).unwrap();
            assert!(pages.n_bytes <= MAX_BYTES);
        }
        assert_eq!(pages.read(4096, 512).unwrap()[3], 7);
        assert_eq!(storage.to_vec()[4099], 0);
        assert!(pages.write_back().unwrap());
        assert_eq!(storage.to_vec()[4099], 7);
        assert!(!pages.write_back().unwrap());
        assert_eq!(pages.n_dirty_bytes, 0);
    }
}
