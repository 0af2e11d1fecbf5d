//! Records of the log: a header, and data in blocks of 512 bytes whose first four bytes are in the
//! header; in their place is the number of the round through the log ("XFS Algorithms & Data
//! Structures", Journaling Log).

use hako_block::{Crc32c, Error, Result, Uuid};

use crate::bytes::array_at;
use crate::bytes::be::{u32_at, u64_at};
use crate::bytes::le;
use crate::volume::Volume;

/// Bytes of a block of the log.
pub(super) const BLOCK_BYTES: u64 = 512;
/// The longest record, and room for what a later version may do.
const MOST_RECORD_BYTES: u32 = 1 << 20;
/// Data whose first bytes one header keeps.
const BYTES_PER_HEADER: u32 = 32 << 10;
/// Bytes of a header that its checksum covers: on 64-bit machines, and on 32-bit ones.
const HEADER_BYTES: [usize; 2] = [328, 324];
const MORE_HEADER_BYTES: usize = 260;
const CHECKSUM_AT: usize = 32;
const FIRST_WORDS_AT: usize = 44;
const MORE_FIRST_WORDS_AT: usize = 4;
const MAGIC: u32 = 0xfeed_babe;
/// h_fmt: items are those of a little-endian Linux.
const FORMAT_LINUX_LE: u32 = 1;

/// A log in the volume.
pub(super) struct Log<'a> {
    pub(super) volume: &'a dyn Volume,
    /// Its first byte.
    pub(super) at: u64,
    /// Its blocks of 512 bytes, at least 1.
    pub(super) n_blocks: u64,
    pub(super) uuid: Uuid,
    /// Records must have a checksum.
    pub(super) has_sums: bool,
}

/// A record that is whole.
pub(super) struct Record {
    /// The block of its header.
    pub(super) at: u64,
    /// The block behind it.
    pub(super) end: u64,
    /// The round, and `at`.
    pub(super) sequence: u64,
    /// Where the oldest change is that is not in its place yet.
    pub(super) tail: u64,
    pub(super) n_operations: u32,
    /// The data as it was before it got the numbers of the round.
    pub(super) data: Vec<u8>,
}

impl Log<'_> {
    /// Returns the number of the round that `block` was written in.
    pub(super) fn round(&self, block: u64) -> Result<u32> {
        let mut bytes = [0; 8];
        let at = self.at + block * BLOCK_BYTES;
        self.volume.read_at(at, &mut bytes)?;
        Ok(match u32_at(&bytes, 0) {
            MAGIC => u32_at(&bytes, 4),
            round => round,
        })
    }

    /// Returns the blocks among `n` from `block` on (at most all) that begin a record.
    pub(super) fn headers(&self, block: u64, n: u64) -> Result<Vec<u64>> {
        let bytes = self.read(block, n)?;
        let blocks = bytes.chunks(BLOCK_BYTES as usize).zip(0..);
        let headers = blocks.filter(|(bytes, _)| u32_at(bytes, 0) == MAGIC);
        Ok(headers
            .map(|(_, distance)| (block + distance) % self.n_blocks)
            .collect())
    }

    /// Reads the record at `block`; none if there is no whole one.
    pub(super) fn record(&self, block: u64) -> Result<Option<Record>> {
        let first = self.read(block, 1)?;
        let sequence = u64_at(&first, 16);
        let len = u32_at(&first, 12);
        let is_header = u32_at(&first, 0) == MAGIC
            && sequence & 0xffff_ffff == block
            && sequence >> 32 == u64::from(u32_at(&first, 4))
            && Uuid(array_at(&first, 304)) == self.uuid;
        if !is_header || len > MOST_RECORD_BYTES {
            return Ok(None);
        }
        if u32_at(&first, 300) != FORMAT_LINUX_LE {
            return Err(Error::unsupported(
                "it was not unmounted, and its log is that of a big-endian machine",
            ));
        }
        let n_headers = n_headers(&first);
        let n_data = u64::from(len).div_ceil(BLOCK_BYTES);
        if n_headers + n_data > self.n_blocks {
            return Ok(None);
        }
        let headers = self.read(block, n_headers)?;
        let start = (block + n_headers) % self.n_blocks;
        let mut data = self.read(start, n_data)?;
        if !self.is_whole(block, &headers, &data, len as usize) {
            return Ok(None);
        }
        restore(&headers, &mut data);
        data.truncate(len as usize);
        Ok(Some(Record {
            at: block,
            end: (start + n_data) % self.n_blocks,
            sequence,
            tail: u64_at(&first, 24),
            n_operations: u32_at(&first, 40),
            data,
        }))
    }

    /// Returns `n` blocks from `block` on; the first one follows the last one.
    fn read(&self, block: u64, n: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (n * BLOCK_BYTES) as usize];
        let before_end = n.min(self.n_blocks - block) * BLOCK_BYTES;
        let (first, rest) = bytes.split_at_mut(before_end as usize);
        self.volume.read_at(self.at + block * BLOCK_BYTES, first)?;
        if !rest.is_empty() {
            self.volume.read_at(self.at, rest)?;
        }
        Ok(bytes)
    }

    /// Every block of the data must be of this round, or of the next one behind the log's end.
    fn is_whole(&self, block: u64, headers: &[u8], data: &[u8], len: usize) -> bool {
        let round = u32_at(headers, 4);
        let start = block + headers.len() as u64 / BLOCK_BYTES;
        for (bytes, at) in data.chunks(BLOCK_BYTES as usize).zip(start..) {
            let passed = u32::from(at >= self.n_blocks);
            if u32_at(bytes, 0) != round.wrapping_add(passed) {
                return false;
            }
        }
        let data = data.get(..len).unwrap_or(data);
        let stored = le::u32_at(headers, CHECKSUM_AT);
        // mkfs.xfs writes a record without one.
        !self.has_sums
            || stored == 0
            || HEADER_BYTES
                .iter()
                .any(|bytes| checksum(headers, *bytes, data) == stored)
    }
}

/// Headers of version 2 keep 32 KiB of data each.
fn n_headers(first: &[u8]) -> u64 {
    let has_more = u32_at(first, 8) & 2 != 0;
    let most = u32_at(first, 320).min(MOST_RECORD_BYTES);
    if has_more {
        u64::from(most.div_ceil(BYTES_PER_HEADER).max(1))
    } else {
        1
    }
}

fn checksum(headers: &[u8], header_bytes: usize, data: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    let mut headers = headers.chunks(BLOCK_BYTES as usize);
    let first = headers.next().unwrap_or(&[]);
    crc.update(first.get(..CHECKSUM_AT).unwrap_or(&[]));
    crc.update(&[0; 4]);
    crc.update(first.get(CHECKSUM_AT + 4..header_bytes).unwrap_or(&[]));
    for more in headers {
        crc.update(more.get(..MORE_HEADER_BYTES).unwrap_or(&[]));
    }
    crc.update(data);
    crc.value()
}

/// Puts the first bytes of the blocks back.
fn restore(headers: &[u8], data: &mut [u8]) {
    let words = headers
        .chunks(BLOCK_BYTES as usize)
        .zip(0..)
        .flat_map(|(header, n)| {
            let from = if n == 0 {
                FIRST_WORDS_AT
            } else {
                MORE_FIRST_WORDS_AT
            };
            header.get(from..from + 256).unwrap_or(&[]).chunks_exact(4)
        });
    for (block, word) in data.chunks_mut(BLOCK_BYTES as usize).zip(words) {
        block
            .iter_mut()
            .zip(word)
            .for_each(|(to, from)| *to = *from);
    }
}
