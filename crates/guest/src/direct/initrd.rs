//! The initrd of a direct boot: the guest's own ones one after the other as a boot loader would lay
//! them into memory, and what is appended.

use std::io::{Read, Write, repeat};

use hako_block::{Error, Result};

use crate::boot::{Blob, Image};
use crate::cpio::padding;
use crate::initrd::{Compression, Contents, from_io, unpack_to};

/// What an initrd is made of, in its order. Each part begins at a multiple of 4 bytes.
pub struct Initrd {
    parts: Vec<Part>,
}

enum Part {
    /// Bytes of the guest's disk.
    Own(Blob),
    /// One compressed stream of the guest's disk, which is delivered unpacked, and the bytes of that.
    Unpacked(Compression, Blob, u64),
    /// What is appended.
    Appended(Vec<u8>),
}

impl Part {
    fn len_bytes(&self) -> u64 {
        match self {
            Self::Own(blob) => blob.len_bytes(),
            Self::Unpacked(_, _, len) => *len,
            Self::Appended(bytes) => bytes.len() as u64,
        }
    }
}

impl Initrd {
    /// Returns the initrd that is made of these files; none if there are none.
    pub(super) fn of(images: &[Image]) -> Option<Self> {
        let parts = images.iter().map(|image| Part::Own(image.blob.clone()));
        (!images.is_empty()).then(|| Self {
            parts: parts.collect(),
        })
    }

    /// Returns its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |at, part| at + padding(at) as u64 + part.len_bytes())
    }

    /// Writes it. Errors: those of reading the guest's disk and of writing.
    pub fn write_to(&self, output: &mut dyn Write) -> Result<()> {
        let mut at = 0;
        for part in &self.parts {
            let pad = padding(at);
            let copied = std::io::copy(&mut repeat(0).take(pad as u64), output);
            copied.map_err(failed)?;
            let len = match part {
                Part::Own(blob) => std::io::copy(&mut blob.reader(), output).map_err(failed)?,
                Part::Unpacked(compression, blob, len) => {
                    unpack_to(*compression, &mut blob.reader(), *len, output)?
                }
                Part::Appended(bytes) => {
                    output.write_all(bytes).map_err(failed)?;
                    bytes.len() as u64
                }
            };
            if len != part.len_bytes() {
                let what = format!("{len} bytes came instead of {}", part.len_bytes());
                return Err(Error::corrupt("initrd", what));
            }
            at += pad as u64 + len;
        }
        Ok(())
    }

    /// Returns it as bytes. Errors: [`hako_block::ErrorKind::Unsupported`] if there are more than
    /// `most`; as of [`Initrd::write_to`].
    pub fn bytes(&self, most: u64) -> Result<Vec<u8>> {
        let len = self.len_bytes();
        if len > most {
            return Err(Error::unsupported(format!(
                "an initrd of {len} bytes, more than {most}"
            )));
        }
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns the guest's own files as a stream.
    pub(super) fn reader(&self) -> Box<dyn Read + '_> {
        let mut at = 0;
        let mut all: Box<dyn Read + '_> = Box::new(std::io::empty());
        for part in &self.parts {
            if let Part::Own(blob) = part {
                let pad = padding(at) as u64;
                all = Box::new(all.chain(repeat(0).take(pad)).chain(blob.reader()));
                at += pad + blob.len_bytes();
            }
        }
        all
    }

    /// Makes sure that something can follow: LZ4's legacy frame ends where the file does (Linux
    /// before 5.13 takes even zeros after it for a part of it), so a stream of it at the end is
    /// delivered unpacked. False if that cannot be done.
    pub(super) fn prepare(&mut self, contents: &Contents) -> bool {
        let Some(last) = contents.segments.last() else {
            return true;
        };
        if last.compression != Compression::Lz4Legacy {
            return true;
        }
        let Some(Part::Own(blob)) = self.parts.pop() else {
            return false;
        };
        let mut before = self.len_bytes();
        before += padding(before) as u64;
        let Some(offset) = last.offset.checked_sub(before) else {
            return false;
        };
        match (blob.part(0, offset), blob.part(offset, last.len_bytes)) {
            (Ok(head), Ok(packed)) if offset % 4 == 0 => {
                self.parts.push(Part::Own(head));
                let len = last.unpacked_bytes;
                self.parts
                    .push(Part::Unpacked(last.compression, packed, len));
                true
            }
            _ => false,
        }
    }

    pub(super) fn append(&mut self, archive: Vec<u8>) {
        self.parts.push(Part::Appended(archive));
    }
}

/// An error of the guest's disk that went through a stream, or one of writing.
fn failed(error: std::io::Error) -> Error {
    match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => from_io(error),
        false => Error::io("copy an initrd", error),
    }
}
