//! Initrds: cpio archives one after the other, plain (the early one with the microcode) or
//! compressed, with zeros between them, as Linux' `init/initramfs.c` takes them.
//!
//! They are unpacked as a stream: memory is that of the decompressors (at most 128 MiB) and of the
//! list of names. A compressed archive is followed to its end, wherever that is.

mod compression;
mod contents;
mod input;
mod lz4;
mod lzop;

use std::io::Read;

use hako_block::{Error, Result};

pub use compression::Compression;
pub use contents::{Contents, Member, MemberKind, Tool};

use crate::cpio;
use compression::Decoder;
use input::Input;

/// What an initrd may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all its archives, unpacked.
    pub unpacked_bytes: u64,
    /// Files, directories and links in them.
    pub members: usize,
    /// Bytes of all their names and links.
    pub name_bytes: usize,
}

impl Default for Limits {
    /// More than what any distribution makes.
    fn default() -> Self {
        Self {
            unpacked_bytes: 2 << 30,
            members: 300_000,
            name_bytes: 32 << 20,
        }
    }
}

/// Stretches of one initrd. Distributions make up to four.
const MOST_SEGMENTS: usize = 64;

/// A stretch of an initrd: a plain archive, or one compressed stream with the archives in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// How it is compressed.
    pub compression: Compression,
    /// Where it begins in the initrd, in bytes.
    pub offset: u64,
    /// Its length there in bytes, without padding.
    pub len_bytes: u64,
    /// How many bytes it holds, unpacked.
    pub unpacked_bytes: u64,
}

/// Calls `each` for every entry of an initrd's archives with its content, of which it need not read
/// all; returns the stretches that they are in.
///
/// Errors: [`hako_block::ErrorKind::Corrupt`] for what Linux would not unpack either,
/// [`hako_block::ErrorKind::Unsupported`] past the limits, those of `each`.
pub fn visit(
    source: &mut dyn Read,
    limits: &Limits,
    each: &mut dyn FnMut(&cpio::Header, &mut dyn Read) -> Result<()>,
) -> Result<Vec<Segment>> {
    let mut input = Input::new(source);
    let mut segments = Vec::new();
    let mut left = limits.unpacked_bytes;
    while let Some(head) = input.after_zeros()? {
        let offset = input.offset();
        if segments.len() == MOST_SEGMENTS {
            let what = format!("more than {MOST_SEGMENTS} archives");
            return Err(Error::unsupported(what).place("initrd").at_byte(offset));
        }
        let compression = Compression::of(&head).ok_or_else(|| {
            let what = format!("no archive begins with {}", head.escape_ascii());
            Error::corrupt("initrd", what).at_byte(offset)
        })?;
        let before = left;
        let place = |error: Error| error.place("initrd").at_byte(offset);
        let end = unpack(&mut input, compression, &mut left, each).map_err(place)?;
        segments.push(Segment {
            compression,
            offset,
            len_bytes: end - offset,
            unpacked_bytes: before - left,
        });
    }
    Ok(segments)
}

/// Unpacks one stretch, and returns where it ended.
fn unpack(
    input: &mut Input<'_>,
    compression: Compression,
    left: &mut u64,
    each: &mut dyn FnMut(&cpio::Header, &mut dyn Read) -> Result<()>,
) -> Result<u64> {
    if compression == Compression::None {
        archive(&mut Bounded { inner: input, left }, each)?;
        return Ok(input.offset());
    }
    let mut decoder = Decoder::new(compression, input)?;
    let mut bounded = Bounded {
        inner: &mut decoder,
        left,
    };
    let mut inside = Input::new(&mut bounded);
    while let Some(head) = inside.after_zeros()? {
        if Compression::of(&head) != Some(Compression::None) {
            let what = format!("no archive inside begins with {}", head.escape_ascii());
            return Err(Error::corrupt("initrd", what).at_byte(inside.offset()));
        }
        archive(&mut inside, each)?;
    }
    decoder.finish()
}

/// Unpacks the one compressed stream that `source` begins with, whatever follows it. Errors:
/// [`hako_block::ErrorKind::Unsupported`] if it begins with none that is known or holds more than
/// `most` bytes, [`hako_block::ErrorKind::Corrupt`] if it is damaged.
pub fn unpack_stream(source: &mut dyn Read, most: u64) -> Result<Vec<u8>> {
    let mut input = Input::new(source);
    let head = input.head().map_err(from_io)?;
    let compression = Compression::of(&head)
        .filter(|compression| *compression != Compression::None)
        .ok_or_else(|| {
            let what = format!("no known compression begins with {}", head.escape_ascii());
            Error::unsupported(what)
        })?;
    let mut decoder = Decoder::new(compression, &mut input)?;
    let mut content = Vec::new();
    (&mut decoder)
        .take(most.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(from_io)?;
    if content.len() as u64 > most {
        return Err(Error::unsupported(format!(
            "more than {most} bytes, unpacked"
        )));
    }
    Ok(content)
}

fn archive(
    input: &mut dyn Read,
    each: &mut dyn FnMut(&cpio::Header, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut archive = cpio::Reader::new(input);
    while let Some(header) = archive.next_entry()? {
        each(&header, &mut archive)?;
    }
    Ok(())
}

/// Bytes of which no more than so many may come.
struct Bounded<'a> {
    inner: &'a mut dyn Read,
    left: &'a mut u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.inner.read(buf)?;
        match self.left.checked_sub(len as u64) {
            Some(left) => *self.left = left,
            None => {
                let what = "an initrd that unpacks to more than is allowed";
                return Err(std::io::Error::other(Error::unsupported(what)));
            }
        }
        Ok(len)
    }
}

/// Returns the error of ours that went through a [`Read`]; others come from decompressors, and mean
/// that the data is damaged.
pub(crate) fn from_io(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::new(
            hako_block::ErrorKind::Corrupt,
            format!("cannot be unpacked: {error}"),
        ),
    }
}

#[cfg(test)]
pub(crate) mod tests;
