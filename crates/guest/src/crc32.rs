//! CRC-32 (the polynomial of IEEE 802.3), which GPT and LVM2 check their structures with.

/// Returns the register after `bytes`, begun at `state` and not inverted in the end.
pub(crate) fn run(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |crc, byte| {
        TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8)
    })
}

/// Returns the usual checksum: begun at all ones, inverted in the end.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    !run(!0, bytes)
}

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_catalogue_comes_out() {
        assert_eq!(super::sum(b"123456789"), 0xcbf4_3926);
    }
}
