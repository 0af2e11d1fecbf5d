//! The file format of lzop, as `lib/decompress_unlzo.c` takes it: a header, then blocks of LZO1X with
//! their lengths and checksums (all numbers big-endian), then a length of 0. The checksums are passed
//! over, as Linux does.

use std::io::{Error, ErrorKind, Read, Result};

use super::input::Input;
use crate::lzo;

/// The bytes that such a file begins with.
pub(super) const MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a];
/// What one block unpacks to at most: lzop's own limit.
const MOST_BYTES: usize = 64 << 20;
/// From this version of the format on the header has a level and the upper half of the time.
const WITH_LEVEL: u16 = 0x0940;

/// Flags of the header: checksums (Adler-32 and CRC-32) of the unpacked and of the packed bytes of
/// each block, and a field for a filter.
const ADLER_UNPACKED: u32 = 0x0001;
const ADLER_PACKED: u32 = 0x0002;
const CRC_UNPACKED: u32 = 0x0100;
const CRC_PACKED: u32 = 0x0200;
const HAS_FILTER: u32 = 0x0800;

pub(super) struct Lzop<'i, 's> {
    input: &'i mut Input<'s>,
    flags: u32,
    block: Vec<u8>,
    /// What of the block was read.
    pos: usize,
    is_at_end: bool,
}

impl<'i, 's> Lzop<'i, 's> {
    /// Reads the header. Errors: it is cut short, or no header of lzop.
    pub fn new(input: &'i mut Input<'s>) -> Result<Self> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(bad("no header of lzop".to_owned()));
        }
        let version = u16::from_be_bytes(taken(input)?);
        // The library's version, the one that is needed, the method.
        let _: [u8; 5] = taken(input)?;
        if version >= WITH_LEVEL {
            let _: [u8; 1] = taken(input)?;
        }
        let flags = u32::from_be_bytes(taken(input)?);
        if flags & HAS_FILTER != 0 {
            let _: [u8; 4] = taken(input)?;
        }
        // The mode and the time.
        let _: [u8; 8] = taken(input)?;
        if version >= WITH_LEVEL {
            let _: [u8; 4] = taken(input)?;
        }
        let [name_len] = taken(input)?;
        skip(input, u64::from(name_len) + 4)?;
        Ok(Self {
            input,
            flags,
            block: Vec::new(),
            pos: 0,
            is_at_end: false,
        })
    }

    pub fn into_inner(self) -> &'i mut Input<'s> {
        self.input
    }

    fn next_block(&mut self) -> Result<()> {
        self.block.clear();
        self.pos = 0;
        let unpacked = length(self.input)?;
        if unpacked == 0 {
            self.is_at_end = true;
            return Ok(());
        }
        let packed = length(self.input)?;
        if packed > unpacked || unpacked > MOST_BYTES {
            return Err(bad(format!("a block of {packed} bytes for {unpacked}")));
        }
        let mut checksums = ADLER_UNPACKED | CRC_UNPACKED;
        if packed < unpacked {
            checksums |= ADLER_PACKED | CRC_PACKED;
        }
        skip(
            self.input,
            4 * u64::from((self.flags & checksums).count_ones()),
        )?;
        let mut bytes = Vec::new();
        let limit = packed as u64;
        self.input.by_ref().take(limit).read_to_end(&mut bytes)?;
        if packed == unpacked {
            self.block = bytes;
        } else {
            lzo::unpack(&bytes, &mut self.block, unpacked)
                .ok_or_else(|| bad("a block that is no LZO".to_owned()))?;
        }
        match self.block.len() == unpacked {
            true => Ok(()),
            false => Err(bad(format!("a block of {unpacked} bytes is cut short"))),
        }
    }
}

impl Read for Lzop<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while self.pos == self.block.len() {
            if self.is_at_end {
                return Ok(0);
            }
            self.next_block()?;
        }
        let rest = &self.block[self.pos..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.pos += len;
        Ok(len)
    }
}

fn taken<const N: usize>(input: &mut Input<'_>) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn length(input: &mut Input<'_>) -> Result<usize> {
    let length = u32::from_be_bytes(taken(input)?);
    Ok(usize::try_from(length).unwrap_or(usize::MAX))
}

fn skip(input: &mut Input<'_>, n_bytes: u64) -> Result<()> {
    let passed = std::io::copy(&mut input.by_ref().take(n_bytes), &mut std::io::sink())?;
    match passed == n_bytes {
        true => Ok(()),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn bad(what: String) -> Error {
    Error::new(ErrorKind::InvalidData, format!("lzop: {what}"))
}
