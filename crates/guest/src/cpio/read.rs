//! Archives read from beginning to end.

use std::io::{ErrorKind, Read};

use hako_block::{Error, Result};

use super::{CRC, HEADER_BYTES, Header, LONGEST_PATH, NEWC, TRAILER, padding};
use crate::initrd::from_io;

/// An archive that is read from its beginning to its trailer. Reading from it gives the content of
/// the entry that [`Reader::next_entry`] gave last.
pub struct Reader<R> {
    input: R,
    /// Bytes from the archive's beginning.
    at: u64,
    /// What is left of the entry's content.
    left: u32,
    /// The checksum of the entry, and the sum of what was read of it.
    sum: Option<(u32, u32)>,
}

impl<R: Read> Reader<R> {
    /// Returns the archive that `input` is at the beginning of.
    pub fn new(input: R) -> Self {
        Self {
            input,
            at: 0,
            left: 0,
            sum: None,
        }
    }

    /// Passes over the rest of the entry, and returns the next one; none at the end of the archive,
    /// when all of it was read but padding. Errors: [`hako_block::ErrorKind::Corrupt`].
    pub fn next_entry(&mut self) -> Result<Option<Header>> {
        self.skip_content()?;
        let start = self.at;
        let mut raw = [0; HEADER_BYTES];
        self.exactly(&mut raw, "a header")?;
        let corrupt = |what: String| Error::corrupt("cpio archive", what).at_byte(start);
        let has_sum = match &raw[..6] {
            magic if magic == NEWC => false,
            magic if magic == CRC => true,
            other => {
                let what = format!("no header but {}", other.escape_ascii());
                return Err(corrupt(what));
            }
        };
        let number = |index: usize| {
            let digits = raw.get(6 + 8 * index..14 + 8 * index).unwrap_or_default();
            let text = std::str::from_utf8(digits).ok();
            let is_hex = |text: &&str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
            text.filter(is_hex)
                .and_then(|text| u32::from_str_radix(text, 16).ok())
                .ok_or_else(|| corrupt(format!("field {index} of a header is no number")))
        };
        let (mode, len_bytes, name_len, sum) = (number(1)?, number(6)?, number(11)?, number(12)?);
        if name_len == 0 || name_len > LONGEST_PATH {
            return Err(corrupt(format!("a name of {name_len} bytes")));
        }
        let mut name = vec![0; name_len as usize];
        self.exactly(&mut name, "a name")?;
        if name.pop() != Some(0) || name.contains(&0) {
            return Err(corrupt("a name that does not end where it should".into()));
        }
        self.skip_padding()?;
        if name == TRAILER {
            return Ok(None);
        }
        self.left = len_bytes;
        let header = Header {
            path: plain(&name),
            mode,
            len_bytes,
        };
        self.sum = (has_sum && header.is_file()).then_some((sum, 0));
        Ok(Some(header))
    }

    fn skip_content(&mut self) -> Result<()> {
        let mut buf = [0; 8192];
        while self.left > 0 {
            if self.read(&mut buf).map_err(from_io)? == 0 {
                return Err(ended("a file's content", self.at));
            }
        }
        if let Some((expected, sum)) = self.sum.take()
            && expected != sum
        {
            let what = format!("a file's checksum is {sum:#x}, not {expected:#x}");
            return Err(Error::corrupt("cpio archive", what).at_byte(self.at));
        }
        self.skip_padding()
    }

    fn skip_padding(&mut self) -> Result<()> {
        let mut buf = [0; 4];
        let len = padding(self.at);
        self.exactly(buf.get_mut(..len).unwrap_or_default(), "padding")
    }

    fn exactly(&mut self, buf: &mut [u8], what: &str) -> Result<()> {
        match self.input.read_exact(buf) {
            Ok(()) => {
                self.at += buf.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(ended(what, self.at)),
            Err(error) => Err(from_io(error)),
        }
    }
}

fn ended(within: &str, at: u64) -> Error {
    Error::corrupt("cpio archive", format!("ends within {within}")).at_byte(at)
}

/// Returns a path without what leads to where it begins anyway.
fn plain(name: &[u8]) -> Vec<u8> {
    let names = name.split(|&byte| byte == b'/');
    let names: Vec<&[u8]> = names
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    names.join(&b'/')
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let most = buf.len().min(self.left as usize);
        let len = self.input.read(&mut buf[..most])?;
        self.at += len as u64;
        self.left -= len as u32;
        if let Some((_, sum)) = &mut self.sum {
            for byte in &buf[..len] {
                *sum = sum.wrapping_add((*byte).into());
            }
        }
        Ok(len)
    }
}
