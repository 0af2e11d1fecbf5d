//! The dynamic disk header (Virtual Hard Disk Image Format Specification 1.0, "Dynamic Disk
//! Header Format"). Big-endian, 1024 bytes.
//!
//! | byte | field |
//! |---|---|
//! | 0 | cookie "cxsparse" |
//! | 8 | all ones |
//! | 16 | file offset of the block allocation table (BAT) |
//! | 24 | version |
//! | 28 | entries of the BAT |
//! | 32 | bytes of a block |
//! | 36 | checksum |
//! | 40, 56 | the parent's unique ID and time |
//! | 64 | the parent's file name, UTF-16BE, 512 bytes |
//! | 576 | eight parent locators of 24 bytes |

use hako_block::{Error, Result, Uuid};

use super::footer::{array_at, checksum, put, u32_at, u64_at};

/// Dynamic disk header, field Cookie.
const COOKIE: &[u8; 8] = b"cxsparse";
/// Bytes of a header.
pub const HEADER_BYTES: u64 = 1024;
/// Dynamic disk header, field Header Version.
const VERSION: u32 = 0x0001_0000;
/// Dynamic disk header, fields Parent Locator Entry 1 to 8.
pub const N_LOCATORS: usize = 8;
const LOCATORS_AT: usize = 576;
const LOCATOR_BYTES: usize = 24;
/// Dynamic disk header, field Parent Unicode Name, in UTF-16 units.
const NAME_UNITS: usize = 256;
/// Smallest and largest block read.
const BLOCK_SHIFTS: std::ops::RangeInclusive<u32> = 9..=28;

/// Where a parent's name is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Locator {
    /// What kind of name it is; zeros if there is none.
    pub code: [u8; 4],
    /// Space that is kept for it, in bytes (by the specification in sectors, but nobody counts so).
    pub space: u32,
    /// Length of the name in bytes.
    pub len: u32,
    /// File offset of the name.
    pub offset: u64,
}

/// A checked header. What is not decoded is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    bytes: Vec<u8>,
    /// File offset of the BAT, a multiple of 512.
    pub bat_offset: u64,
    /// Entries of the BAT.
    pub n_entries: u32,
    /// Bytes of a block, as a power of two.
    pub block_shift: u32,
    /// The parent's unique ID; nil if there is none.
    pub parent_uuid: Uuid,
    /// The parent's file name, without a path; empty if there is none.
    pub parent_name: String,
    /// Where the parent's names are stored.
    pub locators: [Locator; N_LOCATORS],
    /// Whether the checksum is right.
    pub checksum_ok: bool,
}

impl Header {
    /// Returns the header of a new disk without a parent.
    pub fn new(bat_offset: u64, n_entries: u32, block_shift: u32) -> Self {
        let mut bytes = vec![0; HEADER_BYTES as usize];
        put(&mut bytes, 0, COOKIE);
        put(&mut bytes, 8, &u64::MAX.to_be_bytes());
        put(&mut bytes, 24, &VERSION.to_be_bytes());
        Self {
            bytes,
            bat_offset,
            n_entries,
            block_shift,
            parent_uuid: Uuid::default(),
            parent_name: String::new(),
            locators: [Locator::default(); N_LOCATORS],
            checksum_ok: true,
        }
    }

    /// Decodes a header of 1024 bytes. Errors: it is none, or a field has a value that the format
    /// does not know. A wrong checksum is only noted.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 != HEADER_BYTES || !bytes.starts_with(COOKIE) {
            return Err(damaged("has no cookie \"cxsparse\""));
        }
        let version = u32_at(bytes, 24);
        if version >> 16 != VERSION >> 16 {
            return Err(Error::unsupported(format!("version {version:#x}")).place("dynamic header"));
        }
        let block_bytes = u32_at(bytes, 32);
        if !block_bytes.is_power_of_two() || !BLOCK_SHIFTS.contains(&block_bytes.ilog2()) {
            return Err(damaged(format!("blocks of {block_bytes} bytes")));
        }
        let bat_offset = u64_at(bytes, 16);
        if !bat_offset.is_multiple_of(512) {
            return Err(damaged(format!(
                "the BAT is at {bat_offset:#x}, not at a sector"
            )));
        }
        let mut locators = [Locator::default(); N_LOCATORS];
        for (index, locator) in locators.iter_mut().enumerate() {
            let at = LOCATORS_AT + index * LOCATOR_BYTES;
            *locator = Locator {
                code: array_at(bytes, at),
                space: u32_at(bytes, at + 4),
                len: u32_at(bytes, at + 8),
                offset: u64_at(bytes, at + 16),
            };
        }
        Ok(Self {
            bat_offset,
            n_entries: u32_at(bytes, 28),
            block_shift: block_bytes.ilog2(),
            parent_uuid: Uuid(array_at(bytes, 40)),
            parent_name: decode_name(&bytes[64..64 + NAME_UNITS * 2]),
            locators,
            checksum_ok: u32_at(bytes, 36) == checksum(bytes, 36),
            bytes: bytes.to_vec(),
        })
    }

    /// Returns the header as it is stored, with its checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        put(&mut bytes, 16, &self.bat_offset.to_be_bytes());
        put(&mut bytes, 28, &self.n_entries.to_be_bytes());
        put(&mut bytes, 32, &(1_u32 << self.block_shift).to_be_bytes());
        put(&mut bytes, 40, &self.parent_uuid.0);
        put(&mut bytes, 64, &encode_name(&self.parent_name));
        for (index, locator) in self.locators.iter().enumerate() {
            let at = LOCATORS_AT + index * LOCATOR_BYTES;
            put(&mut bytes, at, &locator.code);
            put(&mut bytes, at + 4, &locator.space.to_be_bytes());
            put(&mut bytes, at + 8, &locator.len.to_be_bytes());
            put(&mut bytes, at + 16, &locator.offset.to_be_bytes());
        }
        let sum = checksum(&bytes, 36);
        put(&mut bytes, 36, &sum.to_be_bytes());
        bytes
    }

    /// Returns the bytes of the BAT, whole sectors.
    pub fn bat_bytes(&self) -> u64 {
        (u64::from(self.n_entries) * 4).next_multiple_of(512)
    }
}

fn decode_name(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
}

/// Returns the field that holds a name; what does not fit is cut off.
fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = name
        .encode_utf16()
        .take(NAME_UNITS - 1)
        .flat_map(u16::to_be_bytes)
        .collect();
    bytes.resize(NAME_UNITS * 2, 0);
    bytes
}

fn damaged(what: impl Into<String>) -> Error {
    Error::corrupt("dynamic header", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        let mut header = Header::new(1536, 77, 21);
        header.parent_name = "Größe 😀.vhd".to_owned();
        header.parent_uuid = Uuid::random();
        header.locators[1] = Locator {
            code: *b"W2ru",
            space: 512,
            len: 40,
            offset: 4096,
        };
        let again = Header::decode(&header.encode()).unwrap();
        assert!(again.checksum_ok);
        assert_eq!(again.encode(), header.encode());
        assert_eq!(again.parent_name, header.parent_name);
        assert_eq!(again.locators, header.locators);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = Header::new(1536, 77, 21).encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(!Header::decode(&bad).is_ok_and(|header| header.checksum_ok));
        }
    }
}
