//! Little-endian numbers and GUIDs at fixed places of a record, and the checksum of all records.

use hako_block::Crc32c;

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

/// Returns the checksum of a record whose checksum field, at byte 4, counts as zeros.
pub fn record_checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    let (head, rest) = bytes.split_at(bytes.len().min(4));
    crc.update(head);
    crc.update(&[0; 4]);
    crc.update(rest.get(4..).unwrap_or(&[]));
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_past_the_end_of_a_record_are_zeros() {
        assert_eq!(u64_at(&[1; 7], 0), 0);
        assert_eq!(u32_at(&[1; 4], usize::MAX), 0);
    }
}
