//! The CRC-32C of version 5: of the whole structure, in which it counts as zeros; little-endian.

use hako_block::Crc32c;

use crate::bytes::le::u32_at;

/// Returns whether the sum at `at` is that of `bytes`.
pub(super) fn is_sound(bytes: &[u8], at: usize) -> bool {
    let (head, rest) = bytes.split_at(at.min(bytes.len()));
    let mut crc = Crc32c::new();
    for piece in [head, &[0; 4], rest.get(4..).unwrap_or(&[])] {
        crc.update(piece);
    }
    crc.value() == u32_at(bytes, at)
}
