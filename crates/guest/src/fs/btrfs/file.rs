//! The content of files: extents, checked by the checksums of the data, other copies tried.

use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, Result};

use super::item::{CSUM_OBJECT, EXTENT_CSUM, EXTENT_DATA, Extent, Inode, Source};
use super::node::{Item, Key, NodeAt};
use super::store::Store;

/// Data is read and checked in pieces of so many bytes at most.
const PIECE_BYTES: u64 = 128 << 10;

/// Reads files' content.
pub struct Files {
    store: Arc<Store>,
    sums: NodeAt,
    /// The extent that was decompressed last, by its address: who reads a file reads it again.
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

impl Files {
    /// Returns the reader of files whose data has its checksums in the tree at `sums`.
    pub fn new(store: Arc<Store>, sums: NodeAt) -> Self {
        Self {
            store,
            sums,
            unpacked: Mutex::default(),
        }
    }

    /// Reads from `offset` of the content of inode `number` of a tree; returns how many bytes were
    /// there.
    pub fn read(
        &self,
        tree: &NodeAt,
        (number, inode): (u64, &Inode),
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        let left = inode.stat.len_bytes.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..len).filter(|rest| !rest.is_empty()) {
            let key = Key::new(number, EXTENT_DATA, offset + done as u64);
            done += self.read_piece(tree, key, inode.has_sums, rest)?;
        }
        Ok(len)
    }

    /// Reads from the extent or hole at `wanted` as much as it has; at least a byte.
    fn read_piece(
        &self,
        tree: &NodeAt,
        wanted: Key,
        has_sums: bool,
        buf: &mut [u8],
    ) -> Result<usize> {
        let item = self.store.floor(tree, wanted)?;
        if let Some(item) = item.filter(|item| item.key.is_like(wanted)) {
            let extent = Extent::decode(&item)?;
            let skip = wanted.offset - item.key.offset;
            if skip < extent.len {
                let len = at_most(extent.len - skip, buf.len());
                let buf = buf.get_mut(..len).unwrap_or_default();
                self.read_extent(&item, &extent.source, skip, has_sums, buf)?;
                return Ok(len);
            }
        }
        let behind = Key {
            offset: wanted.offset.saturating_add(1),
            ..wanted
        };
        let next = self.store.from(tree, behind).next_like(wanted)?;
        let len = next.map_or(u64::MAX, |item| item.key.offset - wanted.offset);
        let len = at_most(len, buf.len());
        buf.get_mut(..len).unwrap_or_default().fill(0);
        Ok(len)
    }

    fn read_extent(
        &self,
        item: &Item,
        source: &Source,
        skip: u64,
        has_sums: bool,
        buf: &mut [u8],
    ) -> Result<()> {
        let sector_bytes = self.store.superblock().sector_bytes as usize;
        let plain = match source {
            Source::Zeros => {
                buf.fill(0);
                return Ok(());
            }
            Source::Plain { logical } => {
                let logical = logical.checked_add(skip);
                let logical = logical.ok_or_else(|| item.corrupt("past all addresses"))?;
                return self.read_data(logical, has_sums, buf);
            }
            Source::Inline { compression, bytes } => {
                let packed = item.data().get(bytes.clone()).unwrap_or_default();
                let len = usize::try_from(skip).unwrap_or(usize::MAX);
                let len = len.saturating_add(buf.len());
                let plain = compression.unpack(packed, len, sector_bytes)?;
                return copy_from(&plain, skip, buf).ok_or_else(|| item.corrupt("too short"));
            }
            Source::Packed {
                compression,
                logical,
                packed_bytes,
                plain_bytes,
                offset,
            } => {
                let unpack = || {
                    let mut packed = vec![0; *packed_bytes];
                    self.read_data(*logical, has_sums, &mut packed)?;
                    compression.unpack(&packed, *plain_bytes, sector_bytes)
                };
                (self.unpacked(*logical, *plain_bytes, unpack)?, *offset)
            }
        };
        let (plain, offset) = plain;
        copy_from(&plain, skip + offset as u64, buf).ok_or_else(|| item.corrupt("too short"))
    }

    /// Returns the extent that was decompressed last if it is that one, else decompresses it.
    fn unpacked(
        &self,
        logical: u64,
        len: usize,
        unpack: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Arc<Vec<u8>>> {
        let kept = || self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let last = kept().clone();
        if let Some((_, plain)) = last.filter(|(of, plain)| *of == logical && plain.len() == len) {
            return Ok(plain);
        }
        let plain = Arc::new(unpack()?);
        *kept() = Some((logical, Arc::clone(&plain)));
        Ok(plain)
    }

    /// Reads data at a logical address.
    fn read_data(&self, logical: u64, has_sums: bool, buf: &mut [u8]) -> Result<()> {
        if !has_sums {
            return self.any_copy(logical, buf, |_| true);
        }
        let sector_bytes = u64::from(self.store.superblock().sector_bytes);
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = logical.saturating_add(done as u64);
            let first = at / sector_bytes * sector_bytes;
            let behind = at.saturating_add(rest.len() as u64);
            let end = behind.min(first.saturating_add(PIECE_BYTES));
            let sectors = self.checked_sectors(first, (end - first).div_ceil(sector_bytes))?;
            let len = at_most(end - at, rest.len());
            let rest = rest.get_mut(..len).unwrap_or_default();
            copy_from(&sectors, at - first, rest).ok_or_else(|| damaged(at))?;
            done += len;
        }
        Ok(())
    }

    /// Reads sectors, all in one where their first copy is whole, else one by one.
    fn checked_sectors(&self, first: u64, n_sectors: u64) -> Result<Vec<u8>> {
        let superblock = self.store.superblock();
        let sector_bytes = superblock.sector_bytes as usize;
        let n_sectors = usize::try_from(n_sectors).unwrap_or(0);
        let sums = self.sums(first, n_sectors)?;
        let mut bytes = vec![0; n_sectors * sector_bytes];
        let is_read = self.store.read_copy(first, &mut bytes, 0).is_ok();
        let sectors = bytes.chunks_mut(sector_bytes);
        let sums = sums.chunks(superblock.checksum.len_bytes());
        for (index, (sector, sum)) in sectors.zip(sums).enumerate() {
            if !is_read || !superblock.checksum.fits(sector, sum) {
                let at = first.saturating_add((index * sector_bytes) as u64);
                self.any_copy(at, sector, |sector| superblock.checksum.fits(sector, sum))?;
            }
        }
        Ok(bytes)
    }

    /// Reads the first copy that is sound. Errors: those of the first copy.
    fn any_copy(
        &self,
        logical: u64,
        buf: &mut [u8],
        is_sound: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let mut first_error = None;
        for copy in 0..self.store.n_copies(logical)? {
            match self.store.read_copy(logical, buf, copy) {
                Ok(()) if is_sound(buf) => return Ok(()),
                Ok(()) => first_error = first_error.or_else(|| Some(damaged(logical))),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| damaged(logical)))
    }

    /// Returns the checksums of sectors, one behind the other.
    fn sums(&self, first: u64, n_sectors: usize) -> Result<Vec<u8>> {
        let superblock = self.store.superblock();
        let sum_bytes = superblock.checksum.len_bytes();
        let sector_bytes = u64::from(superblock.sector_bytes);
        let mut sums = Vec::with_capacity(n_sectors * sum_bytes);
        while sums.len() < n_sectors * sum_bytes {
            let at = first.saturating_add((sums.len() / sum_bytes) as u64 * sector_bytes);
            let key = Key::new(CSUM_OBJECT, EXTENT_CSUM, at);
            let item = self.store.floor(&self.sums, key)?;
            let item = item.filter(|item| item.key.is_like(key));
            let item = item.ok_or_else(|| no_sum(at))?;
            let skip = usize::try_from((at - item.key.offset) / sector_bytes).ok();
            let skip = skip.and_then(|n| n.checked_mul(sum_bytes));
            let there = item.data().get(skip.unwrap_or(usize::MAX)..);
            let there = there.filter(|sums| sums.len() >= sum_bytes);
            let there = there.ok_or_else(|| no_sum(at))?;
            let whole = there.len() / sum_bytes * sum_bytes;
            let len = whole.min(n_sectors * sum_bytes - sums.len());
            sums.extend_from_slice(there.get(..len).unwrap_or_default());
        }
        Ok(sums)
    }
}

/// Returns `len`, or `most` if that is less.
fn at_most(len: u64, most: usize) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(most)
}

/// Fills `buf` with what is at `offset` of `bytes`; none if there are not so many.
fn copy_from(bytes: &[u8], offset: u64, buf: &mut [u8]) -> Option<()> {
    let from = bytes.get(usize::try_from(offset).ok()?..)?;
    buf.copy_from_slice(from.get(..buf.len())?);
    Some(())
}

fn damaged(logical: u64) -> Error {
    Error::corrupt(format!("btrfs data {logical}"), "wrong checksum")
}

fn no_sum(logical: u64) -> Error {
    Error::corrupt(format!("btrfs data {logical}"), "it has no checksum")
}
