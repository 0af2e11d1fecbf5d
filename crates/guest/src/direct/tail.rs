//! How an archive follows what an initrd ends in.

use crate::cpio::padding;
use crate::initrd::{Compression, Contents};

/// What stands between the end of an initrd and an archive that is to follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tail {
    /// Zeros up to a multiple of 4 bytes.
    #[default]
    Plain,
    /// Nothing: the archive goes on in the stream. LZ4's legacy frame ends where the file does, and
    /// Linux before 5.13 takes what follows it, even zeros, for a part of it.
    Lz4 {
        /// Bytes that the stream holds, unpacked.
        unpacked_bytes: u64,
    },
}

/// What one block of LZ4's legacy frame holds.
const BLOCK_BYTES: usize = 8 << 20;

/// The first Linux that ends a legacy frame at zeros (commit 2c484419efc0).
const ENDS_AT_ZEROS: (u32, u32) = (5, 13);

impl Tail {
    /// Returns that of an initrd of so many bytes, for a kernel of that version; none if nothing can
    /// follow it.
    pub fn of(contents: &Contents, len_bytes: u64, version: &str) -> Option<Self> {
        let Some(last) = contents.segments.last() else {
            return Some(Self::Plain);
        };
        let end = last.offset.saturating_add(last.len_bytes);
        let is_lz4 = last.compression == Compression::Lz4Legacy;
        match () {
            () if !is_lz4 => Some(Self::Plain),
            () if end == len_bytes => Some(Self::Lz4 {
                unpacked_bytes: last.unpacked_bytes,
            }),
            () => (number_of(version)? >= ENDS_AT_ZEROS).then_some(Self::Plain),
        }
    }

    /// Returns the bytes that bring an archive behind `len_bytes` of an initrd.
    pub fn following(&mut self, len_bytes: u64, archive: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => [&vec![0; padding(len_bytes)], archive].concat(),
            Self::Lz4 { unpacked_bytes } => {
                let inside = [&vec![0; padding(*unpacked_bytes)], archive].concat();
                *unpacked_bytes += inside.len() as u64;
                let mut bytes = Vec::new();
                for block in inside.chunks(BLOCK_BYTES) {
                    let packed = lz4_flex::block::compress(block);
                    // No more than a block's bytes and a 255th of them.
                    let len = u32::try_from(packed.len()).unwrap_or(0);
                    bytes.extend(len.to_le_bytes());
                    bytes.extend(packed);
                }
                bytes
            }
        }
    }
}

/// Returns the first two numbers of a kernel's version.
fn number_of(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
