//! The block map: one entry for each block of the disk, four bytes little-endian: where the block
//! is in the file, counted in blocks from the offset of the data.
//!
//! Source: VirtualBox, `src/VBox/Storage/VDICore.h` (VDI_IMAGE_BLOCK_FREE, VDI_IMAGE_BLOCK_ZERO).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hako_block::{Error, Result, Storage};

use super::header::Header;
use crate::disk::bits::Bits;
use crate::disk::cache::Cache;

/// The entry of a block that the image says nothing of.
pub const HOLE: u32 = 0xffff_ffff;
/// The entry of a block of zeros.
pub const ZERO: u32 = 0xffff_fffe;

/// Entries read and kept at once: 16 KiB.
pub const PAGE_ENTRIES: u64 = 4096;
/// Pages kept: 8 MiB, which cover 2 TiB of disk in blocks of 1 MiB.
const MAX_CACHED: usize = 512;
/// Entries written at once where they lie in one sector.
const SECTOR_ENTRIES: usize = 128;

/// What the map says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Hole,
    /// Zeros.
    Zero,
    /// Its bytes are at this file offset.
    At(u64),
}

/// Pages of the map that differ from the file.
#[derive(Default)]
struct Dirty {
    pages: BTreeMap<u64, DirtyPage>,
    n_changes: u64,
}

struct DirtyPage {
    entries: Arc<Vec<u32>>,
    /// Which sectors of the page changed.
    sectors: Bits,
    /// The number of the last change.
    change: u64,
}

/// The changes that one flush writes.
pub struct Snapshot {
    /// Each page and its last change.
    pages: Vec<(u64, u64)>,
    /// File offsets and bytes.
    writes: Vec<(u64, Vec<u8>)>,
}

impl Snapshot {
    /// Returns whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// The map of an open image. Changed entries stay in memory until they are written.
pub struct Map {
    /// The file.
    pub storage: Arc<dyn Storage>,
    /// The header that says where everything is.
    pub header: Header,
    /// Bytes in the file, as far as this driver knows.
    pub file_len: AtomicU64,
    /// What lies beyond the file's end reads as zeros.
    salvage: bool,
    cache: Cache<Vec<u32>>,
    /// Held while a page is read, so that no page is older than what was just written.
    dirty: Mutex<Dirty>,
}

impl Map {
    /// Wraps the map of an image. Errors: it reaches past the end of the file (unless salvaging).
    pub fn open(storage: Arc<dyn Storage>, header: Header, salvage: bool) -> Result<Self> {
        let file_len = storage.len_bytes()?;
        if header.map_end() > file_len && !salvage {
            let what = format!(
                "its {} entries end at {:#x}, past the end of the file ({file_len:#x})",
                header.n_blocks,
                header.map_end()
            );
            return Err(Error::corrupt("block map", what).at_byte(header.map_offset));
        }
        Ok(Self {
            storage,
            header,
            file_len: AtomicU64::new(file_len),
            salvage,
            cache: Cache::new(MAX_CACHED),
            dirty: Mutex::default(),
        })
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a page of entries: [`PAGE_ENTRIES`], fewer in the last page.
    pub fn page(&self, index: u64) -> Result<Arc<Vec<u32>>> {
        let dirty = self.dirty();
        match dirty.pages.get(&index) {
            Some(page) => Ok(Arc::clone(&page.entries)),
            None => self.cache.get_or_load(index, || self.load(index)),
        }
    }

    fn load(&self, index: u64) -> Result<Vec<u32>> {
        let start = index * PAGE_ENTRIES;
        let n_entries = self.header.n_blocks.saturating_sub(start).min(PAGE_ENTRIES);
        let offset = self.header.entry_offset(start);
        let mut bytes = vec![0xff; 4 * n_entries as usize];
        let there = self.storage.len_bytes()?.saturating_sub(offset);
        let there = there.min(bytes.len() as u64) as usize;
        if there < bytes.len() && !self.salvage {
            return Err(Error::corrupt("block map", "the file ends inside it").at_byte(offset));
        }
        self.storage.read_at(offset, &mut bytes[..there / 4 * 4])?;
        let entries = bytes.chunks_exact(4);
        Ok(entries
            .map(|entry| u32::from_le_bytes(entry.try_into().unwrap_or_default()))
            .collect())
    }

    /// Returns the entry of a block.
    pub fn entry(&self, block: u64) -> Result<u32> {
        let page = self.page(block / PAGE_ENTRIES)?;
        let entry = page.get((block % PAGE_ENTRIES) as usize);
        entry.copied().ok_or_else(|| {
            let what = format!("there are only {} blocks", self.header.n_blocks);
            Error::corrupt(format!("block {block}"), what)
        })
    }

    /// Returns what an entry says. Errors: the block's bytes are not inside the file.
    pub fn decode(&self, block: u64, entry: u32) -> Result<Found> {
        match entry {
            HOLE => return Ok(Found::Hole),
            ZERO => return Ok(Found::Zero),
            _ => {}
        }
        let offset = self.header.place_offset(u64::from(entry)) + self.header.extra;
        let file_len = self.file_len.load(Ordering::Acquire);
        if offset + self.header.block_len(block) <= file_len {
            return Ok(Found::At(offset));
        }
        if self.salvage {
            return Ok(Found::Zero);
        }
        let what = format!("place {entry} is past the end of the file ({file_len} bytes)");
        let byte = self.header.entry_offset(block);
        Err(Error::corrupt(format!("block {block}"), what).at_byte(byte))
    }

    /// Returns what the map says of a block, and of how many from there on, `max` at most: all
    /// holes, all zeros, or bytes that follow each other in the file.
    pub fn run(&self, block: u64, max: u64) -> Result<(Found, u64)> {
        let first = self.decode(block, self.entry(block)?)?;
        let end = self.header.n_blocks.min(block.saturating_add(max));
        let mut at = block + 1;
        while at < end {
            let page = self.page(at / PAGE_ENTRIES)?;
            let rest = page.get((at % PAGE_ENTRIES) as usize..).unwrap_or_default();
            for entry in rest {
                if at == end || !self.continues(first, at - block, *entry, at) {
                    return Ok((first, at - block));
                }
                at += 1;
            }
        }
        Ok((first, at - block))
    }

    fn continues(&self, first: Found, n: u64, entry: u32, block: u64) -> bool {
        match first {
            Found::Hole => entry == HOLE,
            Found::Zero => entry == ZERO,
            Found::At(offset) => {
                let next = Found::At(offset + n * self.header.block);
                self.header.extra == 0 && self.decode(block, entry).is_ok_and(|found| found == next)
            }
        }
    }

    /// Calls `each` with every block that is stored and its place, in the blocks' order.
    pub fn each_stored(&self, mut each: impl FnMut(u64, u32) -> Result<()>) -> Result<()> {
        for index in 0..self.n_pages() {
            let page = self.page(index)?;
            let entries = (index * PAGE_ENTRIES..).zip(page.iter());
            for (block, entry) in entries.filter(|(_, entry)| **entry < ZERO) {
                each(block, *entry)?;
            }
        }
        Ok(())
    }

    /// Returns how many pages there are.
    pub fn n_pages(&self) -> u64 {
        self.header.n_blocks.div_ceil(PAGE_ENTRIES)
    }

    /// Changes an entry, in memory only.
    pub fn set(&self, block: u64, entry: u32) -> Result<()> {
        let index = block / PAGE_ENTRIES;
        let mut dirty = self.dirty();
        dirty.n_changes += 1;
        let change = dirty.n_changes;
        let page = match dirty.pages.entry(index) {
            Entry::Occupied(page) => page.into_mut(),
            Entry::Vacant(free) => free.insert(DirtyPage {
                entries: self.cache.get_or_load(index, || self.load(index))?,
                sectors: Bits::new(PAGE_ENTRIES / SECTOR_ENTRIES as u64),
                change,
            }),
        };
        page.change = change;
        let at = (block % PAGE_ENTRIES) as usize;
        if let Some(slot) = Arc::make_mut(&mut page.entries).get_mut(at) {
            *slot = entry;
        }
        let sector = (at / SECTOR_ENTRIES) as u64;
        page.sectors.mark(sector..sector + 1);
        Ok(())
    }

    /// Returns how many pages differ from the file.
    pub fn n_dirty(&self) -> usize {
        self.dirty().pages.len()
    }

    /// Returns the changes, to be written once the data that they point at is on disk.
    pub fn snapshot(&self) -> Snapshot {
        let dirty = self.dirty();
        let mut snapshot = Snapshot {
            pages: Vec::with_capacity(dirty.pages.len()),
            writes: Vec::new(),
        };
        for (index, page) in &dirty.pages {
            snapshot.pages.push((*index, page.change));
            let mut sector = 0;
            while let Some(start) = page.sectors.next(sector, true) {
                let end = page.sectors.next(start, false);
                let end = end.unwrap_or(page.sectors.len());
                snapshot.writes.push(self.encode(*index, page, start..end));
                sector = end;
            }
        }
        snapshot
    }

    fn encode(&self, index: u64, page: &DirtyPage, sectors: Range<u64>) -> (u64, Vec<u8>) {
        let start = sectors.start as usize * SECTOR_ENTRIES;
        let end = (sectors.end as usize * SECTOR_ENTRIES).min(page.entries.len());
        let entries = page.entries.get(start..end).unwrap_or_default();
        let bytes = entries.iter().flat_map(|entry| entry.to_le_bytes());
        let offset = self
            .header
            .entry_offset(index * PAGE_ENTRIES + start as u64);
        (offset, bytes.collect())
    }

    /// Writes changes. They count as written only when they are on disk: [`Map::written`].
    pub fn write(&self, snapshot: &Snapshot) -> Result<()> {
        let mut writes = snapshot.writes.iter();
        writes.try_for_each(|(offset, bytes)| self.storage.write_at(*offset, bytes))
    }

    /// Forgets the changes of a snapshot that is on disk.
    pub fn written(&self, snapshot: &Snapshot) {
        let mut dirty = self.dirty();
        for (index, change) in &snapshot.pages {
            if dirty
                .pages
                .get(index)
                .is_some_and(|page| page.change == *change)
                && let Some(page) = dirty.pages.remove(index)
            {
                self.cache.put(*index, page.entries);
            }
        }
    }

    /// Writes all changes and returns once they are on disk. What they point at must be there.
    pub fn write_all(&self) -> Result<()> {
        let snapshot = self.snapshot();
        self.write(&snapshot)?;
        self.storage.sync()?;
        self.written(&snapshot);
        Ok(())
    }
}

/// Writes the entries of a map, or of the rest of one, from a file offset on.
pub fn write_entries(
    storage: &dyn Storage,
    mut offset: u64,
    entries: impl Iterator<Item = Result<u32>>,
) -> Result<()> {
    const CHUNK: usize = 1 << 18;
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(&entry?.to_le_bytes());
        if bytes.len() >= CHUNK {
            storage.write_at(offset, &bytes)?;
            offset += bytes.len() as u64;
            bytes.clear();
        }
    }
    storage.write_at(offset, &bytes)
}
