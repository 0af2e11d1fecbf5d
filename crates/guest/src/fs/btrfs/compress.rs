//! Compressed extents: zlib, LZO in segments, zstd.

use std::io::Read;

use hako_block::{Error, ErrorKind, Result};

use crate::bytes::le;
use crate::lzo;

/// The largest window of a zstd frame that btrfs writes (`ZSTD_BTRFS_MAX_WINDOWLOG`).
const ZSTD_WINDOW_LOG: u32 = 17;

/// How an extent is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Zlib,
    Lzo,
    Zstd,
}

impl Compression {
    /// Returns the one of that number. Errors: one that is not known.
    pub fn numbered(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::None),
            1 => Ok(Self::Zlib),
            2 => Ok(Self::Lzo),
            3 => Ok(Self::Zstd),
            _ => Err(Error::unsupported(format!("btrfs compression {number}"))),
        }
    }

    /// Decompresses an extent of `len` bytes. What its stream does not fill is zeros, as in Linux:
    /// it was cut at the end of the file.
    pub fn unpack(self, packed: &[u8], len: usize, sector_bytes: usize) -> Result<Vec<u8>> {
        let mut plain = match self {
            Self::None => packed.to_vec(),
            Self::Zlib => read_all(flate2::read::ZlibDecoder::new(packed), len)?,
            Self::Lzo => unpack_lzo(packed, len, sector_bytes)?,
            Self::Zstd => {
                let reader = zstd::stream::read::Decoder::with_buffer(packed);
                let mut reader = reader.map_err(bad)?.single_frame();
                reader.window_log_max(ZSTD_WINDOW_LOG).map_err(bad)?;
                read_all(reader, len)?
            }
        };
        plain.resize(len, 0);
        Ok(plain)
    }
}

/// Reads a stream to its end or up to `len` bytes.
fn read_all(reader: impl Read, len: usize) -> Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(len);
    reader
        .take(len as u64)
        .read_to_end(&mut plain)
        .map_err(bad)?;
    Ok(plain)
}

/// The whole begins with its length; then come segments, each of a sector of content, after their
/// length. A length never crosses the border of a sector.
fn unpack_lzo(packed: &[u8], len: usize, sector_bytes: usize) -> Result<Vec<u8>> {
    const NUMBER: usize = 4;
    let end = le::u32_at(packed, 0) as usize;
    let packed = packed.get(..end).filter(|_| end >= NUMBER);
    let packed = packed.ok_or_else(|| bad(format!("{end} bytes of LZO segments")))?;
    let mut plain = Vec::with_capacity(len);
    let mut at = NUMBER;
    while plain.len() < len && at < packed.len() {
        let left = sector_bytes - at % sector_bytes;
        if left < NUMBER {
            at += left;
            continue;
        }
        let segment_len = le::u32_at(packed, at) as usize;
        at += NUMBER;
        let segment = packed.get(at..at.saturating_add(segment_len));
        let segment =
            segment.ok_or_else(|| bad(format!("an LZO segment of {segment_len} bytes")))?;
        lzo::unpack(segment, &mut plain, sector_bytes).ok_or_else(|| bad("a bad LZO segment"))?;
        at += segment_len;
    }
    plain.truncate(len);
    Ok(plain)
}

fn bad(what: impl ToString) -> Error {
    let what = what.to_string();
    Error::new(ErrorKind::Corrupt, format!("compressed data: {what}"))
}
