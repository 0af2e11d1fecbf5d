//! The initrd of a direct boot: the guest's own ones one after the other as a boot loader would lay
//! them into memory, and what is appended.

use std::io::{Read, Write, repeat};

use hako_block::{Error, Result};

use super::tail::Tail;
use crate::boot::{Blob, Image};
use crate::cpio::padding;
use crate::initrd::{Contents, from_io};

/// What an initrd is made of, in its order.
pub struct Initrd {
    parts: Vec<Part>,
    /// How something follows; none if nothing can.
    tail: Option<Tail>,
}

enum Part {
    /// Bytes of the guest's disk, at a multiple of 4 bytes.
    Own(Blob),
    /// What is appended, right behind what is there.
    Appended(Vec<u8>),
}

impl Part {
    fn len_bytes(&self) -> u64 {
        match self {
            Self::Own(blob) => blob.len_bytes(),
            Self::Appended(bytes) => bytes.len() as u64,
        }
    }

    /// Returns how many zeros stand before it, behind so many bytes.
    fn padding(&self, at: u64) -> u64 {
        match self {
            Self::Own(_) => padding(at) as u64,
            Self::Appended(_) => 0,
        }
    }
}

impl Initrd {
    /// Returns the initrd that is made of these files; none if there are none.
    pub(super) fn of(images: &[Image]) -> Option<Self> {
        let parts = images.iter().map(|image| Part::Own(image.blob.clone()));
        (!images.is_empty()).then(|| Self {
            parts: parts.collect(),
            tail: Some(Tail::Plain),
        })
    }

    /// Returns its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |at, part| at + part.padding(at) + part.len_bytes())
    }

    /// Writes it. Errors: those of reading the guest's disk and of writing.
    pub fn write_to(&self, output: &mut dyn Write) -> Result<()> {
        let mut at = 0;
        for part in &self.parts {
            let pad = part.padding(at);
            let copied = std::io::copy(&mut repeat(0).take(pad), output);
            copied.map_err(failed)?;
            let len = match part {
                Part::Own(blob) => std::io::copy(&mut blob.reader(), output).map_err(failed)?,
                Part::Appended(bytes) => {
                    output.write_all(bytes).map_err(failed)?;
                    bytes.len() as u64
                }
            };
            if len != part.len_bytes() {
                let what = format!("{len} bytes came instead of {}", part.len_bytes());
                return Err(Error::corrupt("initrd", what));
            }
            at += pad + len;
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

    /// Finds out how something follows what it holds, for a kernel of that version. False if nothing
    /// can.
    pub(super) fn prepare(&mut self, contents: &Contents, version: &str) -> bool {
        self.tail = Tail::of(contents, self.len_bytes(), version);
        self.tail.is_some()
    }

    /// Appends an archive, and returns the bytes that bring it there. Errors:
    /// [`hako_block::ErrorKind::Unsupported`] if nothing can follow.
    pub(super) fn append(&mut self, archive: &[u8]) -> Result<Vec<u8>> {
        let len = self.len_bytes();
        let tail = self
            .tail
            .as_mut()
            .ok_or_else(|| Error::unsupported(ENDED))?;
        let bytes = tail.following(len, archive);
        self.parts.push(Part::Appended(bytes.clone()));
        Ok(bytes)
    }
}

/// Why nothing follows what ends in LZ4.
pub(super) const ENDED: &str =
    "it ends in zeros behind an LZ4 stream, after which this kernel reads nothing";

/// An error of the guest's disk that went through a stream, or one of writing.
fn failed(error: std::io::Error) -> Error {
    match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => from_io(error),
        false => Error::io("copy an initrd", error),
    }
}
