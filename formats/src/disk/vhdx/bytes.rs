//! Little-endian numbers and GUIDs at fixed places of a record, and the checksum of all records.

use crate::disk::bytes::array_at;
pub(crate) use crate::disk::bytes::{put, uuid_at as guid_at};

/// Returns the 16-bit number at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

/// Returns the 32-bit number at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Returns the 64-bit number at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// CRC-32C (Castagnoli), as MS-VHDX has it for headers, region tables and log entries.
#[derive(Debug, Clone, Copy)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Returns the checksum of nothing yet.
    pub fn new() -> Self {
        Self(!0)
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut crc = self.0;
        let mut chunks = bytes.chunks_exact(8);
        for eight in &mut chunks {
            let low = crc ^ u32_at(eight, 0);
            let high = u32_at(eight, 4);
            crc = 0;
            for (index, byte) in low.to_le_bytes().into_iter().enumerate() {
                crc ^= TABLES[7 - index][byte as usize];
            }
            for (index, byte) in high.to_le_bytes().into_iter().enumerate() {
                crc ^= TABLES[3 - index][byte as usize];
            }
        }
        for byte in chunks.remainder() {
            crc = TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
        }
        self.0 = crc;
    }

    /// Returns the checksum.
    pub fn value(self) -> u32 {
        !self.0
    }
}

/// Returns the checksum of a record whose checksum field, at byte 4, counts as zeros.
pub fn record_checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    let (head, rest) = bytes.split_at(bytes.len().min(4));
    crc.update(head);
    crc.update(&[0; 4]);
    crc.update(rest.get(4..).unwrap_or(&[]));
    crc.value()
}

/// Table `n` holds the checksums of each byte followed by `n` zeros.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[n - 1][byte];
            tables[n][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        n += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_the_standard() {
        let crc = |bytes: &[u8]| {
            let mut crc = Crc32c::new();
            crc.update(bytes);
            crc.value()
        };
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        // RFC 3720, appendix B.4.
        assert_eq!(crc(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc(&[0xff; 32]), 0x62a8_ab43);
        let mut pieces = Crc32c::new();
        pieces.update(b"1234567");
        pieces.update(b"89");
        assert_eq!(pieces.value(), 0xe306_9283);
    }

    #[test]
    fn numbers_past_the_end_of_a_record_are_zeros() {
        assert_eq!(u64_at(&[1; 7], 0), 0);
        assert_eq!(u32_at(&[1; 4], usize::MAX), 0);
    }
}
