//! LZ4 in its legacy frame, as `lib/decompress_unlz4.c` takes it: the magic number, then for each 8
//! MiB their compressed length (4 bytes, little-endian) and the block. It has no end of its own:
//! zeros or the end of the file are it.

use std::io::{Error, ErrorKind, Read, Result};

use super::input::Input;

const MAGIC: u32 = 0x184c_2102;
/// What one block holds.
const BLOCK_BYTES: usize = 8 << 20;
/// How long a block of incompressible bytes may get.
const MOST_BYTES: usize = BLOCK_BYTES + BLOCK_BYTES / 255 + 16;

pub(super) struct Legacy<'i, 's> {
    input: &'i mut Input<'s>,
    packed: Vec<u8>,
    block: Vec<u8>,
    /// What of the block was read.
    pos: usize,
    len: usize,
    is_at_end: bool,
}

impl<'i, 's> Legacy<'i, 's> {
    pub fn new(input: &'i mut Input<'s>) -> Self {
        Self {
            input,
            packed: Vec::new(),
            block: vec![0; BLOCK_BYTES],
            pos: 0,
            len: 0,
            is_at_end: false,
        }
    }

    pub fn into_inner(self) -> &'i mut Input<'s> {
        self.input
    }

    fn next_block(&mut self) -> Result<()> {
        let mut word = Vec::new();
        self.input.by_ref().take(4).read_to_end(&mut word)?;
        let Ok(word) = <[u8; 4]>::try_from(word.as_slice()) else {
            self.is_at_end = true;
            return Ok(());
        };
        let len = match u32::from_le_bytes(word) {
            MAGIC => return Ok(()),
            0 => {
                self.input.unread(&word);
                self.is_at_end = true;
                return Ok(());
            }
            len => usize::try_from(len).unwrap_or(usize::MAX),
        };
        let bad = |what: String| Error::new(ErrorKind::InvalidData, what);
        if len > MOST_BYTES {
            return Err(bad(format!("an LZ4 block of {len} bytes")));
        }
        self.packed.resize(len, 0);
        self.input.read_exact(&mut self.packed)?;
        self.len = lz4_flex::block::decompress_into(&self.packed, &mut self.block)
            .map_err(|error| bad(format!("LZ4: {error}")))?;
        self.pos = 0;
        Ok(())
    }
}

impl Read for Legacy<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while self.pos == self.len {
            if self.is_at_end {
                return Ok(0);
            }
            self.next_block()?;
        }
        let rest = &self.block[self.pos..self.len];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.pos += len;
        Ok(len)
    }
}
