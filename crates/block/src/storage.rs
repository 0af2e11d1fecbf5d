//! Bytes on the host, whatever holds them.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::{Error, Result};

/// Identity of a host file, for finding loops and files used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device number of the file system (of the device itself, for a device node).
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// A run of a host file: allocated, or a hole that reads as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageExtent {
    /// File offset in bytes.
    pub offset: u64,
    /// Length in bytes, never 0.
    pub len: u64,
    /// Whether the host stores bytes for it.
    pub data: bool,
}

/// Bytes on the host: a file, a block device, memory. Positional, and safe to use from many
/// threads at once. All offsets and lengths are bytes. Errors name the file. What a storage does not
/// say how to write is read-only.
pub trait Storage: Send + Sync {
    /// Returns the name for messages and extent maps.
    fn name(&self) -> &str;

    /// Returns the length in bytes.
    fn len_bytes(&self) -> Result<u64>;

    /// Reads exactly `buf.len()` bytes; running past the end is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Writes all of `buf`, growing the file where needed (a device never grows).
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let _ = (offset, buf);
        Err(Error::read_only().in_file(self.name()))
    }

    /// Sets the length; new bytes read as zeros. On a device: checks that it is large enough.
    fn set_len(&self, len: u64) -> Result<()> {
        let _ = len;
        Err(Error::read_only().in_file(self.name()))
    }

    /// Makes `range` read as zeros, giving the space back where the host can. Never grows.
    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let _ = range;
        Err(Error::read_only().in_file(self.name()))
    }

    /// Reserves space for `range` without writing it; the bytes read as zeros. Where the host
    /// cannot, does nothing: the space is then taken by the writes.
    fn reserve(&self, range: Range<u64>) -> Result<()> {
        let _ = range;
        Ok(())
    }

    /// Returns the run that begins at `offset`, which must be below the length.
    fn next_extent(&self, offset: u64) -> Result<StorageExtent>;

    /// Returns once everything written is on stable storage.
    fn sync(&self) -> Result<()>;

    /// Returns the identity of the host file, if there is one.
    fn id(&self) -> Option<FileId> {
        None
    }

    /// Returns the host file that these bytes are, each at its own offset: for who reads into memory
    /// that is not Rust's to lend, as a guest's. Its position in the file is anybody's.
    fn host_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns whether bytes never written read as zeros: true of a file that hako just created,
    /// false of a block device and of any file that was there before.
    fn is_blank(&self) -> bool {
        false
    }

    /// Returns whether this is a block device: its size is fixed and is the disk's size.
    fn is_device(&self) -> bool {
        false
    }

    /// Returns the bytes the host has allocated, if it can tell.
    fn allocated_bytes(&self) -> Result<u64> {
        self.len_bytes()
    }
}

/// Writes zeros over `range`, so that the host stores them: no hole.
pub fn write_zeros(storage: &dyn Storage, range: Range<u64>) -> Result<()> {
    const CHUNK: u64 = 1 << 20;
    let zeros = vec![0; CHUNK.min(range.end.saturating_sub(range.start)) as usize];
    let mut offset = range.start;
    while offset < range.end {
        let len = (range.end - offset).min(CHUNK);
        storage.write_at(offset, &zeros[..len as usize])?;
        offset += len;
    }
    Ok(())
}

/// Returns whether every byte is zero. Fast: compares 64 bytes at a time, stops at the first hit.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    for chunk in &mut chunks {
        if chunk.iter().fold(0, |all, byte| all | byte) != 0 {
            return false;
        }
    }
    chunks.remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_set_bit_anywhere_is_not_zero() {
        let mut bytes = vec![0u8; 1000];
        assert!(is_zero(&bytes));
        for index in [0, 1, 63, 64, 511, 959, 960, 999] {
            bytes[index] = 1;
            assert!(!is_zero(&bytes), "byte {index}");
            bytes[index] = 0;
        }
    }
}
