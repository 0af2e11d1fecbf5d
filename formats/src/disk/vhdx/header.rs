//! The two headers (MS-VHDX, section 2.2.2): the valid one with the higher sequence number counts.

use std::ops::Range;

use hako_block::{Error, Result, Storage, Uuid};

use super::bytes::{guid_at, put, record_checksum, u16_at, u32_at, u64_at};
use super::layout::{MAX_FILE_BYTES, MIB};

/// The first bytes of every file.
pub const MAGIC: &[u8; 8] = b"vhdxfile";
/// Bytes of a header.
pub const HEADER_BYTES: usize = 4096;
/// File offsets of the headers.
pub const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
const SIGNATURE: &[u8; 4] = b"head";

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Grows by one with each update.
    pub sequence: u64,
    /// Changes when the file does.
    pub file_write: Uuid,
    /// Changes when the content does: what an overlay checks.
    pub data_write: Uuid,
    /// Whose entries in the log count; nil if the log is empty.
    pub log: Uuid,
    /// Version of the log, 0.
    pub log_version: u16,
    /// Version of the format, 1.
    pub version: u16,
    /// Length of the log in bytes.
    pub log_len: u32,
    /// File offset of the log.
    pub log_offset: u64,
}

impl Header {
    /// Decodes a header; `None` if it is not valid. Pure.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let valid = bytes.len() == HEADER_BYTES
            && bytes.starts_with(SIGNATURE)
            && u32_at(bytes, 4) == record_checksum(bytes);
        valid.then(|| Self {
            sequence: u64_at(bytes, 8),
            file_write: guid_at(bytes, 16),
            data_write: guid_at(bytes, 32),
            log: guid_at(bytes, 48),
            log_version: u16_at(bytes, 64),
            version: u16_at(bytes, 66),
            log_len: u32_at(bytes, 68),
            log_offset: u64_at(bytes, 72),
        })
    }

    /// Returns its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        put(&mut bytes, 0, SIGNATURE);
        put(&mut bytes, 8, &self.sequence.to_le_bytes());
        put(&mut bytes, 16, &self.file_write.to_mixed_endian());
        put(&mut bytes, 32, &self.data_write.to_mixed_endian());
        put(&mut bytes, 48, &self.log.to_mixed_endian());
        put(&mut bytes, 64, &self.log_version.to_le_bytes());
        put(&mut bytes, 66, &self.version.to_le_bytes());
        put(&mut bytes, 68, &self.log_len.to_le_bytes());
        put(&mut bytes, 72, &self.log_offset.to_le_bytes());
        let checksum = record_checksum(&bytes);
        put(&mut bytes, 4, &checksum.to_le_bytes());
        bytes
    }

    /// Returns where the log is. Errors: nowhere that it may be.
    pub fn log_area(&self) -> Result<Range<u64>> {
        let refused = |what: String| Err(Error::corrupt("header, log", what));
        let len = u64::from(self.log_len);
        if self.log_version != 0 {
            return Err(Error::unsupported(format!(
                "log version {}; hako knows version 0",
                self.log_version
            )));
        }
        if len == 0 || !len.is_multiple_of(MIB) {
            return refused(format!("length {len} is no multiple of 1 MiB"));
        }
        if self.log_offset < MIB || !self.log_offset.is_multiple_of(MIB) {
            return refused(format!("lies at {:#x}", self.log_offset));
        }
        match self.log_offset.checked_add(len) {
            Some(end) if end <= MAX_FILE_BYTES => Ok(self.log_offset..end),
            _ => refused(format!("lies at {:#x}", self.log_offset)),
        }
    }
}

/// The header that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// The header.
    pub current: Header,
    /// Which of the two it is.
    pub slot: usize,
    /// Which of the two are not valid.
    pub bad: Vec<usize>,
}

impl Headers {
    /// Reads both. Errors: no VHDX, no valid header, a version that hako does not know.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let len = storage.len_bytes()?;
        let mut magic = [0; 8];
        if len >= MIB {
            storage.read_at(0, &mut magic)?;
        }
        if &magic != MAGIC {
            return Err(Error::corrupt("file identifier", "no VHDX").at_byte(0));
        }
        let mut found: Option<(usize, Header)> = None;
        let mut bad = Vec::new();
        for (slot, offset) in HEADER_OFFSETS.into_iter().enumerate() {
            let mut bytes = vec![0; HEADER_BYTES];
            storage.read_at(offset, &mut bytes)?;
            match Header::decode(&bytes) {
                None => bad.push(slot),
                Some(header) => match &found {
                    Some((_, first)) if first.sequence >= header.sequence => {}
                    _ => found = Some((slot, header)),
                },
            }
        }
        let Some((slot, current)) = found else {
            return Err(
                Error::corrupt("headers", "neither copy is valid").at_byte(HEADER_OFFSETS[0])
            );
        };
        if current.version != 1 {
            return Err(Error::unsupported(format!(
                "VHDX version {}; hako knows version 1",
                current.version
            )));
        }
        Ok(Self { current, slot, bad })
    }

    /// Returns what is odd about them.
    pub fn oddities(&self) -> impl Iterator<Item = String> {
        self.bad
            .iter()
            .map(|slot| format!("header {} is damaged; the other copy is used", slot + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::MemoryStorage;

    fn header(sequence: u64) -> Header {
        Header {
            sequence,
            file_write: Uuid([1; 16]),
            data_write: Uuid([2; 16]),
            log: Uuid([0; 16]),
            log_version: 0,
            version: 1,
            log_len: 1 << 20,
            log_offset: 1 << 20,
        }
    }

    fn file(first: &[u8], second: &[u8]) -> MemoryStorage {
        let mut bytes = vec![0; 1 << 20];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[64 << 10..][..first.len()].copy_from_slice(first);
        bytes[128 << 10..][..second.len()].copy_from_slice(second);
        MemoryStorage::new("t", bytes)
    }

    #[test]
    fn the_newest_valid_header_counts() {
        let (old, new) = (header(6).encode(), header(7).encode());
        let mut torn = new.clone();
        torn[16] ^= 1;
        let read = |first: &[u8], second: &[u8]| Headers::read(&file(first, second)).unwrap();
        assert_eq!(read(&old, &new).current, header(7));
        assert_eq!(read(&new, &old).slot, 0);
        let fallen_back = read(&old, &torn);
        assert_eq!(
            (fallen_back.current.sequence, fallen_back.bad),
            (6, vec![1])
        );
        assert!(Headers::read(&file(&torn, &torn)).is_err());
        assert!(Headers::read(&file(&[], &[])).is_err());
    }

    #[test]
    fn log_elsewhere_than_it_may_be_is_refused() {
        assert_eq!(header(1).log_area().unwrap(), 1 << 20..2 << 20);
        for (len, offset, version) in [
            (0, 1 << 20, 0),
            (4096, 1 << 20, 0),
            (1 << 20, 4096, 0),
            (1 << 20, 0, 0),
            (1 << 20, u64::MAX << 20, 0),
            (1 << 20, 1 << 20, 1),
        ] {
            let bad = Header {
                log_len: len,
                log_offset: offset,
                log_version: version,
                ..header(1)
            };
            assert!(bad.log_area().is_err(), "{len} {offset:#x} {version}");
        }
    }
}
