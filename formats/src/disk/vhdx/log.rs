//! The log (MS-VHDX, section 2.3): finding the entries that count.
//!
//! | offset | entry header |
//! |---|---|
//! | 0 | "loge", 4 checksum of the whole entry |
//! | 8 | length, 12 tail: where in the log the oldest entry is that still counts |
//! | 16 | sequence number, 24 number of descriptors |
//! | 32 | GUID, as in the header of the file |
//! | 48 | length of the file that was on disk when the entry was written, 56 length to give it |
//!
//! Descriptors of 32 bytes follow up to a multiple of 4 KiB, then the sectors of 4 KiB.

use std::ops::Range;

use hako_block::{Crc32c, Error, Result, Storage, Uuid};

use super::bytes::{guid_at, u32_at, u64_at};
use super::layout::MAX_FILE_BYTES;

/// What the log's parts, and the sectors that it changes, are aligned to.
pub const SECTOR: u64 = 4096;
/// Bytes of an entry's header.
pub const HEADER_BYTES: u64 = 64;
/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: u64 = 32;
/// First bytes of an entry.
pub const ENTRY_SIGNATURE: &[u8; 4] = b"loge";
/// How often the log's length is read to find the entries that count. A log that takes more is
/// made to take time: entries that were written are looked at once or twice.
const MAX_PASSES: u64 = 8;
const CHUNK: u64 = 64 << 10;

/// The log of a file, a ring.
pub struct Log<'a> {
    /// The file, without what the log changes.
    pub storage: &'a dyn Storage,
    /// Where in the file the log is.
    pub area: Range<u64>,
}

/// A valid entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where in the log it begins.
    pub position: u64,
    /// Its length.
    pub len: u64,
    /// Where in the log the oldest entry is that counted when it was written.
    pub tail: u64,
    /// Its number.
    pub sequence: u64,
    /// How many descriptors it has.
    pub n_descriptors: u64,
    /// Length of the file that was on disk when it was written.
    pub flushed_len: u64,
    /// Length of the file when it was written.
    pub last_len: u64,
}

impl Entry {
    /// Returns how many bytes before the first data sector its header and descriptors take.
    pub fn head_bytes(&self) -> u64 {
        head_bytes(self.n_descriptors)
    }
}

/// Returns how many bytes the header and `n` descriptors of an entry take.
pub fn head_bytes(n: u64) -> u64 {
    (HEADER_BYTES + n * DESCRIPTOR_BYTES).next_multiple_of(SECTOR)
}

impl Log<'_> {
    /// Returns its length in bytes.
    pub fn len(&self) -> u64 {
        self.area.end - self.area.start
    }

    /// Reads from `position`, on from the beginning where the log ends.
    pub fn read(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        let (mut position, mut buf) = (position % self.len(), buf);
        while !buf.is_empty() {
            let n = (buf.len() as u64).min(self.len() - position);
            let (now, rest) = buf.split_at_mut(n as usize);
            self.storage.read_at(self.area.start + position, now)?;
            buf = rest;
            position = 0;
        }
        Ok(())
    }

    /// Returns the entries that must be replayed, the oldest first: the newest sequence of them
    /// (MS-VHDX, section 2.3.3). Empty if no entry with this GUID is whole: then none was written
    /// to the end, and none was applied.
    pub fn active(&self, guid: Uuid) -> Result<Vec<Entry>> {
        let mut budget = self.len().saturating_mul(MAX_PASSES);
        let mut best: Vec<Entry> = Vec::new();
        let mut start = 0;
        while start < self.len() {
            let run = self.run(start, guid, &mut budget)?;
            let Some(head) = run.last().copied() else {
                start += SECTOR;
                continue;
            };
            let Some(first) = run.iter().position(|entry| entry.position == head.tail) else {
                start += SECTOR;
                continue;
            };
            let is_newer = best.last().is_none_or(|last| last.sequence < head.sequence);
            if is_newer {
                best = run.get(first..).unwrap_or(&[]).to_vec();
            }
            let next = (head.position + head.len) % self.len();
            if next <= start {
                break;
            }
            start = next;
        }
        Ok(best)
    }

    /// Returns the valid entries that follow each other from `start`.
    fn run(&self, start: u64, guid: Uuid, budget: &mut u64) -> Result<Vec<Entry>> {
        let mut run: Vec<Entry> = Vec::new();
        let mut total = 0;
        let mut position = start;
        while let Some(entry) = self.entry(position, guid, budget)? {
            total += entry.len;
            let follows = run
                .last()
                .is_none_or(|last| last.sequence.checked_add(1) == Some(entry.sequence));
            if !follows || total > self.len() {
                break;
            }
            run.push(entry);
            position = (position + entry.len) % self.len();
        }
        Ok(run)
    }

    fn entry(&self, position: u64, guid: Uuid, budget: &mut u64) -> Result<Option<Entry>> {
        let mut bytes = [0; HEADER_BYTES as usize];
        self.read(position, &mut bytes)?;
        if !bytes.starts_with(ENTRY_SIGNATURE) || guid_at(&bytes, 32) != guid {
            return Ok(None);
        }
        let entry = Entry {
            position,
            len: u64::from(u32_at(&bytes, 8)),
            tail: u64::from(u32_at(&bytes, 12)),
            sequence: u64_at(&bytes, 16),
            n_descriptors: u64::from(u32_at(&bytes, 24)),
            flushed_len: u64_at(&bytes, 48),
            last_len: u64_at(&bytes, 56),
        };
        let aligned = entry.len.is_multiple_of(SECTOR) && entry.tail.is_multiple_of(SECTOR);
        let fits = entry.len <= self.len() && entry.tail < self.len();
        if !aligned || !fits || entry.sequence == 0 || entry.head_bytes() > entry.len {
            return Ok(None);
        }
        let Some(left) = budget.checked_sub(entry.len) else {
            return Err(Error::corrupt(
                "log",
                "so many entries overlap that they cannot have been written in good faith",
            )
            .at_byte(self.area.start));
        };
        *budget = left;
        let whole = self.checksum(&entry)? == u32_at(&bytes, 4);
        Ok((whole && entry.last_len <= MAX_FILE_BYTES).then_some(entry))
    }

    fn checksum(&self, entry: &Entry) -> Result<u32> {
        let mut crc = Crc32c::new();
        let mut buf = vec![0; CHUNK.min(entry.len) as usize];
        let mut at = 0;
        while at < entry.len {
            let n = CHUNK.min(entry.len - at) as usize;
            let piece = buf.get_mut(..n).unwrap_or(&mut []);
            self.read(entry.position + at, piece)?;
            if at == 0
                && let Some(checksum) = piece.get_mut(4..8)
            {
                checksum.fill(0);
            }
            crc.update(piece);
            at += n as u64;
        }
        Ok(crc.value())
    }
}
