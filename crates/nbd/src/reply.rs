//! Replies of the transmission phase ("Simple reply message", "Structured reply chunk message").

use crate::handshake::Session;
use crate::outbox::{Line, Outbox};
use crate::protocol::{
    BASE_ALLOCATION_ID, Failure, Request, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk,
    command,
};

/// Sends replies in the way that was agreed on.
pub struct Replies<'a> {
    outbox: &'a Outbox<'a>,
    session: Session,
}

impl<'a> Replies<'a> {
    /// Returns the replies of a session.
    pub fn new(outbox: &'a Outbox<'a>, session: Session) -> Self {
        Self { outbox, session }
    }

    /// Returns what was agreed on.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Returns whether there is still somebody to reply to.
    pub fn has_reader(&self) -> bool {
        self.outbox.is_open()
    }

    /// Says that a request without data in its reply is done.
    pub fn done(&self, request: &Request) {
        // A read must have a structured reply even if it reads nothing.
        if self.session.structured && request.kind == command::READ {
            self.chunk(request, chunk::DONE, chunk::NONE, &[]);
        } else {
            self.outbox.send(&[&simple_header(request, 0)]);
        }
    }

    /// Says that a request failed.
    pub fn failed(&self, request: &Request, failure: Failure) {
        if self.session.structured {
            let (errno, len) = error_fields(failure);
            let parts: [&[u8]; 3] = [&errno, &len, failure.text.as_bytes()];
            self.chunk(request, chunk::DONE, chunk::ERROR, &parts);
        } else {
            self.outbox
                .send(&[&simple_header(request, failure.errno as u32)]);
        }
    }

    /// Says that a read failed at a guest offset; what was sent before is right.
    pub fn failed_at(&self, request: &Request, failure: Failure, offset: u64) {
        let (errno, len) = error_fields(failure);
        let offset = offset.to_be_bytes();
        let parts: [&[u8]; 4] = [&errno, &len, failure.text.as_bytes(), &offset];
        self.chunk(request, chunk::DONE, chunk::ERROR_OFFSET, &parts);
    }

    /// Sends bytes of a structured read.
    pub fn data(&self, request: &Request, offset: u64, bytes: &[u8], is_last: bool) {
        let parts: [&[u8]; 2] = [&offset.to_be_bytes(), bytes];
        self.chunk(request, flags(is_last), chunk::OFFSET_DATA, &parts);
    }

    /// Sends a run of zeros of a structured read.
    pub fn hole(&self, request: &Request, offset: u64, len: u32, is_last: bool) {
        let parts: [&[u8]; 2] = [&offset.to_be_bytes(), &len.to_be_bytes()];
        self.chunk(request, flags(is_last), chunk::OFFSET_HOLE, &parts);
    }

    /// Sends block status: runs of a length in bytes with their flags.
    pub fn block_status(&self, request: &Request, runs: &[(u32, u32)]) {
        let mut payload = Vec::with_capacity(4 + 8 * runs.len());
        payload.extend(BASE_ALLOCATION_ID.to_be_bytes());
        for (len, flags) in runs {
            payload.extend(len.to_be_bytes());
            payload.extend(flags.to_be_bytes());
        }
        self.chunk(request, chunk::DONE, chunk::BLOCK_STATUS, &[&payload]);
    }

    /// Begins the simple reply to a read, whose bytes the caller then sends.
    pub fn begin_simple(&self, request: &Request) -> Line<'_> {
        let mut line = self.outbox.line();
        line.send(&[&simple_header(request, 0)]);
        line
    }

    /// Sends the whole simple reply to a read.
    pub fn simple(&self, request: &Request, bytes: &[u8]) {
        self.outbox.send(&[&simple_header(request, 0), bytes]);
    }

    fn chunk(&self, request: &Request, flags: u16, kind: u16, payload: &[&[u8]]) {
        let len: usize = payload.iter().map(|part| part.len()).sum();
        let mut header = Vec::with_capacity(20);
        header.extend(STRUCTURED_REPLY_MAGIC.to_be_bytes());
        header.extend(flags.to_be_bytes());
        header.extend(kind.to_be_bytes());
        header.extend(request.cookie.to_be_bytes());
        // Payloads are bounded by the pieces that work is done in.
        header.extend((len as u32).to_be_bytes());
        let parts: Vec<&[u8]> = std::iter::once(&header[..])
            .chain(payload.iter().copied())
            .collect();
        self.outbox.send(&parts);
    }
}

fn flags(is_last: bool) -> u16 {
    if is_last { chunk::DONE } else { 0 }
}

fn error_fields(failure: Failure) -> ([u8; 4], [u8; 2]) {
    let errno = failure.errno as u32;
    (
        errno.to_be_bytes(),
        (failure.text.len() as u16).to_be_bytes(),
    )
}

fn simple_header(request: &Request, errno: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(16);
    header.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
    header.extend(errno.to_be_bytes());
    header.extend(request.cookie.to_be_bytes());
    header
}
