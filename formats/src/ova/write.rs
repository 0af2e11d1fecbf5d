//! Writing an OVA in one pass, without a copy of it beside.
//!
//! To a file the members whose content is known only at the end (the description and the
//! manifest, which come first) get room of a fixed length that is filled then, and a disk's header
//! is written again with its size once that is known. To a pipe every size is known before.

use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result, Storage};

use super::header::{BLOCK_BYTES, Header};
use super::record::{Recorded, Recorder};
use crate::digest::Algorithm;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// What the whole is padded to: tar's record of 20 blocks.
const RECORD: u64 = 20 * BLOCK;

/// Room for a member that is filled later.
#[derive(Debug)]
#[must_use = "room that is never filled holds zeros"]
pub struct Place {
    start: u64,
    len: u64,
}

/// A member that is being written.
struct Open {
    header_at: u64,
    name: String,
    size: Option<u64>,
    recorder: Arc<Recorder>,
}

/// Writes an OVA, member after member.
pub struct OvaWriter {
    out: Arc<dyn Storage>,
    position: u64,
    mtime: u64,
    digest: Option<Algorithm>,
    open: Option<Open>,
}

impl OvaWriter {
    /// Begins an OVA on an empty file, or on a pipe. `mtime` is the time that its members get, in
    /// seconds since 1970; `digest` is taken of every member that goes through.
    pub fn new(out: Arc<dyn Storage>, mtime: u64, digest: Option<Algorithm>) -> Self {
        Self {
            out,
            position: 0,
            mtime,
            digest,
            open: None,
        }
    }

    /// Writes a member whose bytes are at hand.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let place = self.reserve(name, bytes.len() as u64)?;
        self.fill(&place, bytes)
    }

    /// Makes room for a member of so many bytes. Not on a pipe, unless it is filled at once.
    pub fn reserve(&mut self, name: &str, len: u64) -> Result<Place> {
        self.refuse_open()?;
        self.write_header(self.position, name, len)?;
        let start = self.position + BLOCK;
        self.position = padded(start, len)?;
        Ok(Place { start, len })
    }

    /// Fills room that was made before with exactly as many bytes.
    pub fn fill(&mut self, place: &Place, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != place.len {
            return Err(
                Error::invalid(format!("{} bytes for room of {}", bytes.len(), place.len))
                    .in_file(self.out.name()),
            );
        }
        self.out.write_at(place.start, bytes)
    }

    /// Begins a member and returns what takes its bytes, in one ascending pass. `size`: its size,
    /// if it is known; on a pipe it must be.
    pub fn begin(&mut self, name: &str, size: Option<u64>) -> Result<Arc<dyn Storage>> {
        self.refuse_open()?;
        self.write_header(self.position, name, size.unwrap_or(0))?;
        let recorder = Arc::new(Recorder::onto(
            Arc::clone(&self.out),
            self.position + BLOCK,
            self.digest,
        )?);
        self.open = Some(Open {
            header_at: self.position,
            name: name.to_owned(),
            size,
            recorder: Arc::clone(&recorder),
        });
        Ok(recorder)
    }

    /// Ends the member that was begun. Errors: [`ErrorKind::Mismatch`] if it has another size than
    /// was said.
    pub fn end(&mut self) -> Result<Recorded> {
        let open = self
            .open
            .take()
            .ok_or_else(|| Error::invalid("no member was begun").in_file(self.out.name()))?;
        let recorded = open.recorder.end()?;
        match open.size {
            None => self.write_header(open.header_at, &open.name, recorded.size)?,
            Some(size) if size != recorded.size => {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "{} has {} bytes instead of {size}",
                        open.name, recorded.size
                    ),
                )
                .in_file(self.out.name()));
            }
            Some(_) => {}
        }
        self.position = padded(open.header_at + BLOCK, recorded.size)?;
        Ok(recorded)
    }

    /// Writes the end mark and returns once all is on stable storage.
    pub fn finish(self) -> Result<()> {
        self.refuse_open()?;
        let end = padded(self.position, 2 * BLOCK)?;
        let end = end.checked_next_multiple_of(RECORD).unwrap_or(end);
        self.out.set_len(end)?;
        self.out.sync()
    }

    fn refuse_open(&self) -> Result<()> {
        match &self.open {
            Some(open) => {
                Err(Error::invalid(format!("{} is not ended", open.name)).in_file(self.out.name()))
            }
            None => Ok(()),
        }
    }

    fn write_header(&self, at: u64, name: &str, size: u64) -> Result<()> {
        let header = Header::encode_file(name, size, self.mtime)
            .map_err(|error| error.in_file(self.out.name()))?;
        self.out.write_at(at, &header)
    }
}

/// Returns the end of `len` bytes from `start` on with their padding.
fn padded(start: u64, len: u64) -> Result<u64> {
    start
        .checked_add(len)
        .and_then(|end| end.checked_next_multiple_of(BLOCK))
        .ok_or_else(|| Error::invalid("the OVA is too large"))
}
