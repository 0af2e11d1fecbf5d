//! The pages of the tables (L1, L2, refcounts) in memory: bounded, changed ones kept until they
//! are written back in an order that a cut at any point survives.

use std::collections::HashMap;
use std::sync::Arc;

use hako_block::{Error, Result, Storage};

/// Bytes of table pages kept in memory.
const MAX_BYTES: u64 = 16 << 20;
/// Changed pages may take this part of it before a flush is due.
const MAX_DIRTY_BYTES: u64 = MAX_BYTES / 2;
/// Largest page; a page never spans clusters, so it belongs to one table.
const MAX_PAGE_SHIFT: u32 = 16;

/// What a changed page holds, in the order of writing back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Refcounts.
    Refcounts,
    /// Offsets of refcount blocks.
    RefcountTable,
    /// L1 and L2 entries.
    Mapping,
}

/// Pages of tables.
pub struct Tables {
    storage: Arc<dyn Storage>,
    page_shift: u32,
    pages: HashMap<u64, Page>,
    clock: u64,
    n_dirty: u64,
}

struct Page {
    /// Shorter than a page only at the end of the file.
    bytes: Vec<u8>,
    used: u64,
    dirty: Option<Class>,
}

impl Tables {
    /// Returns an empty cache over `storage`.
    pub fn new(storage: Arc<dyn Storage>, cluster_shift: u32) -> Self {
        Self {
            storage,
            page_shift: cluster_shift.min(MAX_PAGE_SHIFT),
            pages: HashMap::new(),
            clock: 0,
            n_dirty: 0,
        }
    }

    /// Returns the bytes from `offset` to the end of its page.
    pub fn tail(&mut self, offset: u64) -> Result<&[u8]> {
        let start = offset >> self.page_shift << self.page_shift;
        let page = self.page(start)?;
        Ok(page.bytes.get((offset - start) as usize..).unwrap_or(&[]))
    }

    /// Returns the big-endian number at `offset`, a multiple of 8.
    pub fn read_u64(&mut self, offset: u64) -> Result<u64> {
        match self.tail(offset)?.first_chunk::<8>() {
            Some(bytes) => Ok(u64::from_be_bytes(*bytes)),
            None => Err(past_end(offset)),
        }
    }

    /// Changes the bytes at `offset`, which must lie within one page.
    pub fn write(&mut self, offset: u64, bytes: &[u8], class: Class) -> Result<()> {
        let start = offset >> self.page_shift << self.page_shift;
        let at = (offset - start) as usize;
        let page = self.page(start)?;
        let target = page
            .bytes
            .get_mut(at..at + bytes.len())
            .ok_or_else(|| past_end(offset))?;
        target.copy_from_slice(bytes);
        if page.dirty.replace(class).is_none() {
            self.n_dirty += 1;
        }
        Ok(())
    }

    /// Changes the number at `offset`.
    pub fn write_u64(&mut self, offset: u64, value: u64, class: Class) -> Result<()> {
        self.write(offset, &value.to_be_bytes(), class)
    }

    /// Writes all changed pages of a class. Returns whether there were any.
    pub fn write_back(&mut self, class: Class) -> Result<bool> {
        let mut changed: Vec<u64> = self
            .pages
            .iter()
            .filter(|(_, page)| page.dirty == Some(class))
            .map(|(start, _)| *start)
            .collect();
        changed.sort_unstable();
        for start in &changed {
            if let Some(page) = self.pages.get_mut(start) {
                self.storage.write_at(*start, &page.bytes)?;
                page.dirty = None;
                self.n_dirty -= 1;
            }
        }
        Ok(!changed.is_empty())
    }

    /// Drops the pages of `len` bytes at `offset` without writing them.
    pub fn forget(&mut self, offset: u64, len: u64) {
        let mut start = offset;
        while start < offset + len {
            if self
                .pages
                .remove(&start)
                .is_some_and(|page| page.dirty.is_some())
            {
                self.n_dirty -= 1;
            }
            start += 1 << self.page_shift;
        }
    }

    /// Returns whether so much has changed that it should be written back.
    pub fn is_full(&self) -> bool {
        self.n_dirty << self.page_shift >= MAX_DIRTY_BYTES
    }

    fn page(&mut self, start: u64) -> Result<&mut Page> {
        self.clock += 1;
        if !self.pages.contains_key(&start) {
            self.make_room();
            let page = self.load(start)?;
            self.pages.insert(start, page);
        }
        let clock = self.clock;
        let page = self.pages.get_mut(&start).ok_or_else(|| past_end(start))?;
        page.used = clock;
        Ok(page)
    }

    fn load(&self, start: u64) -> Result<Page> {
        let len = self.storage.len_bytes()?;
        if start >= len {
            return Err(past_end(start));
        }
        let mut bytes = vec![0; (len - start).min(1 << self.page_shift) as usize];
        self.storage.read_at(start, &mut bytes)?;
        Ok(Page {
            bytes,
            used: 0,
            dirty: None,
        })
    }

    /// Drops the older half of the unchanged pages when the cache is full.
    fn make_room(&mut self) {
        if (self.pages.len() as u64) << self.page_shift < MAX_BYTES {
            return;
        }
        let mut used: Vec<u64> = self
            .pages
            .values()
            .filter(|page| page.dirty.is_none())
            .map(|page| page.used)
            .collect();
        if used.is_empty() {
            return;
        }
        let middle = used.len() / 2;
        let (_, median, _) = used.select_nth_unstable(middle);
        let median = *median;
        self.pages
            .retain(|_, page| page.dirty.is_some() || page.used > median);
    }
}

fn past_end(offset: u64) -> Error {
    Error::corrupt("table", "past the end of the file").at_byte(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::MemoryStorage;

    #[test]
    fn memory_stays_bounded_and_changes_survive() {
        let len = 4 * MAX_BYTES;
        let storage = Arc::new(MemoryStorage::new("t", vec![0; len as usize]));
        let mut tables = Tables::new(storage.clone(), 16);
        tables.write_u64(8, 77, Class::Mapping).unwrap();
        for page in 0..len >> 16 {
            tables.read_u64(page << 16).unwrap();
            assert!((tables.pages.len() as u64) << 16 <= MAX_BYTES);
        }
        assert_eq!(storage.to_vec()[8..16], [0; 8]);
        assert_eq!(tables.read_u64(8).unwrap(), 77);
        assert!(!tables.write_back(Class::Refcounts).unwrap());
        assert!(tables.write_back(Class::Mapping).unwrap());
        assert_eq!(tables.n_dirty, 0);
        assert_eq!(storage.to_vec()[8..16], 77_u64.to_be_bytes());
    }

    #[test]
    fn entries_past_the_end_of_the_file_are_errors() {
        let storage = Arc::new(MemoryStorage::new("t", vec![0; 4100]));
        let mut tables = Tables::new(storage, 12);
        assert!(tables.read_u64(4088).is_ok());
        assert!(tables.read_u64(4096).is_err());
        assert!(tables.read_u64(8192).is_err());
    }
}
