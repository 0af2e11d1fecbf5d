//! A stream that knows where it is, and takes back what was read too far.

use std::io::{BufRead, Read, Result as IoResult};

use hako_block::Result;

use super::from_io;

/// Bytes that are read ahead.
const BUFFER_BYTES: usize = 64 << 10;

/// How many bytes tell what begins there.
pub(super) const HEAD_BYTES: usize = 9;

pub(super) struct Input<'a> {
    source: &'a mut dyn Read,
    buf: Vec<u8>,
    /// What of the buffer was consumed.
    pos: usize,
    offset: u64,
}

impl<'a> Input<'a> {
    pub fn new(source: &'a mut dyn Read) -> Self {
        Self {
            source,
            buf: Vec::new(),
            pos: 0,
            offset: 0,
        }
    }

    /// Returns how many bytes were consumed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Gives back bytes that were consumed last.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.buf.drain(..self.pos);
        self.buf.splice(..0, bytes.iter().copied());
        self.pos = 0;
        self.offset -= bytes.len() as u64;
    }

    /// Passes over zeros, and returns the first bytes after them, which are not consumed; none at
    /// the end.
    pub fn after_zeros(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let buf = self.fill_buf().map_err(from_io)?;
            if buf.is_empty() {
                return Ok(None);
            }
            let n_zeros = buf.iter().take_while(|&&byte| byte == 0).count();
            let found = n_zeros < buf.len();
            self.consume(n_zeros);
            if found {
                return Ok(Some(self.head().map_err(from_io)?));
            }
        }
    }

    /// Returns the first bytes that are left, which are not consumed: fewer at the end.
    pub fn head(&mut self) -> IoResult<Vec<u8>> {
        while self.rest().len() < HEAD_BYTES {
            if self.fill_more()? == 0 {
                break;
            }
        }
        let len = self.rest().len().min(HEAD_BYTES);
        Ok(self.rest()[..len].to_vec())
    }

    fn rest(&self) -> &[u8] {
        &self.buf[self.pos..]
    }

    fn fill_more(&mut self) -> IoResult<usize> {
        self.buf.drain(..self.pos);
        self.pos = 0;
        let have = self.buf.len();
        self.buf.resize(have + BUFFER_BYTES, 0);
        let read = self.source.read(&mut self.buf[have..]);
        self.buf.truncate(have + *read.as_ref().unwrap_or(&0));
        read
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> IoResult<&[u8]> {
        if self.rest().is_empty() {
            self.fill_more()?;
        }
        Ok(self.rest())
    }

    fn consume(&mut self, len: usize) {
        let len = len.min(self.rest().len());
        self.pos += len;
        self.offset += len as u64;
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buf: &mut [u8]) -> IoResult<usize> {
        let rest = self.fill_buf()?;
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.consume(len);
        Ok(len)
    }
}
