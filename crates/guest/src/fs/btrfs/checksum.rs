//! The four checksums that a file system may be made with (`mkfs.btrfs --csum`).

use hako_block::crc32c::Crc32c;
use hako_block::{Error, Result};
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

/// Room for the longest of them.
pub const FIELD_BYTES: usize = 32;

/// Which checksum (superblock, field `csum_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    Crc32c,
    Xxhash64,
    Sha256,
    Blake2b,
}

impl Checksum {
    /// Returns the one of that number. Errors: one that is not known.
    pub fn numbered(number: u16) -> Result<Self> {
        match number {
            0 => Ok(Self::Crc32c),
            1 => Ok(Self::Xxhash64),
            2 => Ok(Self::Sha256),
            3 => Ok(Self::Blake2b),
            _ => Err(Error::unsupported(format!("btrfs checksum type {number}"))),
        }
    }

    /// Returns how many bytes it has.
    pub fn len_bytes(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Xxhash64 => 8,
            Self::Sha256 | Self::Blake2b => FIELD_BYTES,
        }
    }

    /// Returns whether `stored` begins with the checksum of `bytes`.
    pub fn fits(self, bytes: &[u8], stored: &[u8]) -> bool {
        stored.get(..self.len_bytes()) == self.of(bytes).get(..self.len_bytes())
    }

    /// Returns the checksum, zeros after it.
    fn of(self, bytes: &[u8]) -> [u8; FIELD_BYTES] {
        let mut field = [0; FIELD_BYTES];
        match self {
            Self::Crc32c => {
                let mut crc = Crc32c::new();
                crc.update(bytes);
                field[..4].copy_from_slice(&crc.value().to_le_bytes());
            }
            Self::Xxhash64 => {
                field[..8].copy_from_slice(&XxHash64::oneshot(0, bytes).to_le_bytes())
            }
            Self::Sha256 => field.copy_from_slice(&Sha256::digest(bytes)),
            Self::Blake2b => {
                let mut hasher = blake2b_simd::Params::new();
                field.copy_from_slice(hasher.hash_length(FIELD_BYTES).hash(bytes).as_bytes());
            }
        }
        field
    }
}
