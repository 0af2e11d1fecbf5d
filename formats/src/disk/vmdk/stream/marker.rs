//! The markers of a streamOptimized file: what stands at a sector, and how long it is.
//!
//! | byte | size | grain marker | other markers |
//! |---|---|---|---|
//! | 0 | 8 | LBA of the grain | sectors that follow the marker's own |
//! | 8 | 4 | bytes of compressed data, not 0 | 0 |
//! | 12 | 4 | the data begins | kind: 0 end of stream, 1 GT, 2 GD, 3 footer, 4 progress |

use hako_block::{Result, SECTOR_BYTES, Storage};

/// Bytes of a grain marker before its data.
pub(super) const GRAIN_MARKER_BYTES: usize = 12;
/// Kind of the marker at the end of the stream, which is also what padding with zeros looks like.
pub(super) const END_OF_STREAM: u32 = 0;
/// Kind of the marker before a grain table.
pub(super) const GRAIN_TABLE: u32 = 1;
/// Kind of the marker before the grain directory.
pub(super) const GRAIN_DIRECTORY: u32 = 2;
/// Kind of the marker before the footer.
pub(super) const FOOTER: u32 = 3;

/// Bytes that tell what a marker is.
const MARKER_BYTES: usize = 16;

/// A decoded marker. Its numbers are still to be checked against the disk and the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// A compressed grain follows in the same sector.
    Grain {
        /// Guest position in sectors.
        lba: u64,
        /// Bytes of compressed data.
        len: u32,
    },
    /// Something else follows in the next sector.
    Other {
        /// What it is, one of this module's constants.
        kind: u32,
        /// Its length in sectors.
        n_sectors: u64,
    },
}

impl Marker {
    /// Decodes the first bytes of a marker's sector.
    pub(super) fn decode(bytes: [u8; MARKER_BYTES]) -> Self {
        let number = u128::from_le_bytes(bytes);
        let value = number as u64;
        let len = (number >> 64) as u32;
        let kind = (number >> 96) as u32;
        if len == 0 {
            let n_sectors = value;
            Self::Other { kind, n_sectors }
        } else {
            Self::Grain { lba: value, len }
        }
    }

    /// Reads the marker at file offset `byte`.
    pub(super) fn read(storage: &dyn Storage, byte: u64) -> Result<Self> {
        let mut bytes = [0; MARKER_BYTES];
        storage.read_at(byte, &mut bytes)?;
        Ok(Self::decode(bytes))
    }
}

/// Encodes a marker other than a grain's: a whole sector.
pub(super) fn encode_other(kind: u32, n_sectors: u64) -> [u8; SECTOR_BYTES as usize] {
    let mut sector = [0; SECTOR_BYTES as usize];
    sector[..8].copy_from_slice(&n_sectors.to_le_bytes());
    sector[12..16].copy_from_slice(&kind.to_le_bytes());
    sector
}

/// Encodes the marker of a grain.
pub(super) fn encode_grain(lba: u64, len: u32) -> [u8; GRAIN_MARKER_BYTES] {
    let mut bytes = [0; GRAIN_MARKER_BYTES];
    bytes[..8].copy_from_slice(&lba.to_le_bytes());
    bytes[8..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// Returns the bytes that a grain takes in the file, with marker and padding.
pub(super) fn stored_bytes(len: u32) -> u64 {
    (u64::from(len) + GRAIN_MARKER_BYTES as u64).next_multiple_of(SECTOR_BYTES)
}

/// Returns the most compressed bytes that a grain may have. Deflate grows what it cannot
/// compress; the bound is the largest that any setting of zlib gives.
pub(super) fn max_compressed(grain_bytes: u64) -> u64 {
    grain_bytes + grain_bytes / 8 + grain_bytes / 64 + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_survive_encoding() {
        let mut head = [0; MARKER_BYTES];
        for (kind, n_sectors) in [(END_OF_STREAM, 0), (GRAIN_TABLE, 4), (FOOTER, 1)] {
            head.copy_from_slice(&encode_other(kind, n_sectors)[..MARKER_BYTES]);
            assert_eq!(Marker::decode(head), Marker::Other { kind, n_sectors });
        }
        head[..12].copy_from_slice(&encode_grain(1 << 40, 77));
        let (lba, len) = (1 << 40, 77);
        assert_eq!(Marker::decode(head), Marker::Grain { lba, len });
    }

    #[test]
    fn incompressible_grain_of_zlib_is_within_the_limit() {
        assert!(max_compressed(65536) >= 65562);
        assert_eq!(stored_bytes(500), 512);
        assert_eq!(stored_bytes(501), 1024);
    }
}
