//! CRC-32C (Castagnoli), which VHDX, ext4, XFS and btrfs check their structures with.

/// A CRC-32C that is being taken.
#[derive(Debug, Clone, Copy)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Returns the checksum of nothing yet.
    pub fn new() -> Self {
        Self(!0)
    }

    /// Returns one that goes on from `state`, which [`Crc32c::state`] gave or a disk stores as seed.
    pub fn from_state(state: u32) -> Self {
        Self(state)
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut crc = self.0;
        let mut chunks = bytes.chunks_exact(8);
        for eight in &mut chunks {
            let (low, high) = eight.split_at(4);
            let before = crc.to_le_bytes();
            crc = 0;
            for (index, byte) in low.iter().zip(before).map(|(a, b)| a ^ b).enumerate() {
                crc ^= TABLES[7 - index][usize::from(byte)];
            }
            for (index, byte) in high.iter().enumerate() {
                crc ^= TABLES[3 - index][usize::from(*byte)];
            }
        }
        for byte in chunks.remainder() {
            crc = TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
        }
        self.0 = crc;
    }

    /// Returns the register as it is, not inverted: what Linux's `crc32c()` gives, and ext4 stores.
    pub fn state(self) -> u32 {
        self.0
    }

    /// Returns the checksum.
    pub fn value(self) -> u32 {
        !self.0
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
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
        let mut resumed = Crc32c::from_state(pieces.state());
        resumed.update(b"0");
        assert_eq!(resumed.value(), crc(b"1234567890"));
    }
}
