//! Working on requests: between the image and the replies.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, ExtentKind, Result};

use crate::export::Export;
use crate::protocol::{
    Errno, Failure, MAX_PAYLOAD, Request, SHUTTING_DOWN, command, command_flag, state,
};
use crate::reply::Replies;
use crate::server::Event;
use crate::stop::Stop;

/// Most bytes that are read or written at once, and the size of every buffer.
pub const PIECE_BYTES: usize = 512 << 10;

/// A shorter run of zeros within a read is sent as data: a chunk of its own would cost more.
const MIN_HOLE_BYTES: u64 = 32 << 10;

/// Most runs in one reply to a block status request.
const MAX_RUNS: usize = 16 << 10;

/// Most extents that are looked at for one block status request.
const MAX_STEPS: usize = 64 << 10;

/// Longest run that a block status reply can say, in bytes: whole sectors of 32 bits.
const MAX_RUN_BYTES: u64 = (1 << 32) - 4096;

/// What a worker does next.
pub enum Job {
    /// A request without payload.
    Request(Request),
    /// A part of a write.
    Piece(Piece),
}

/// A part of a write with its bytes.
pub struct Piece {
    /// The write.
    pub write: Arc<Write>,
    /// Guest offset in bytes.
    pub offset: u64,
    /// A buffer of the pool; the first `len` bytes of it are to be written.
    pub buffer: Vec<u8>,
    /// How many.
    pub len: usize,
}

/// A write of which parts are still to be done.
pub struct Write {
    request: Request,
    n_left: AtomicUsize,
    failure: Mutex<Option<Failure>>,
}

impl Write {
    /// Returns a write that has `n_pieces`.
    pub fn new(request: Request, n_pieces: usize) -> Self {
        Self {
            request,
            n_left: AtomicUsize::new(n_pieces),
            failure: Mutex::new(None),
        }
    }
}

/// Returns why a request cannot be done, before anything is done for it.
pub fn refusal(request: &Request, export: &Export, block_status: bool) -> Option<Failure> {
    use command_flag as flag;
    let (allowed, changes) = match request.kind {
        command::READ => (flag::DF, false),
        command::WRITE | command::TRIM => (0, true),
        command::WRITE_ZEROES => (flag::NO_HOLE, true),
        command::FLUSH | command::CACHE => (0, false),
        command::BLOCK_STATUS if block_status => (flag::REQ_ONE, false),
        _ => return invalid("the command is not known here"),
    };
    if request.flags & !(allowed | flag::FUA) != 0 {
        return invalid("a flag that the command does not have");
    }
    if changes && !export.is_writable() {
        return Some(Failure::new(Errno::Perm, "the export is read-only"));
    }
    if request.kind == command::FLUSH {
        let is_bare = request.offset == 0 && request.len == 0;
        return if is_bare {
            None
        } else {
            invalid("a flush has no range")
        };
    }
    let end = request.offset.checked_add(u64::from(request.len));
    if end.is_none_or(|end| end > export.size_bytes()) {
        let grows = matches!(request.kind, command::WRITE | command::WRITE_ZEROES);
        let errno = if grows { Errno::NoSpc } else { Errno::Inval };
        return Some(Failure::new(
            errno,
            "the range ends past the end of the disk",
        ));
    }
    match request.kind {
        command::WRITE if request.len > MAX_PAYLOAD => invalid("the write is too long"),
        command::BLOCK_STATUS if request.len == 0 => invalid("an empty range has no status"),
        _ => None,
    }
}

fn invalid(text: &'static str) -> Option<Failure> {
    Some(Failure::new(Errno::Inval, text))
}

/// What the workers of one client share.
pub struct Work<'a> {
    /// What is served.
    pub export: &'a Export,
    /// The way back.
    pub replies: Replies<'a>,
    /// Set once the server ends.
    pub stop: &'a Stop,
    /// Whether the client changed the image since it was last flushed for it.
    pub is_dirty: AtomicBool,
    /// Told of what the image fails at.
    pub watch: &'a (dyn Fn(&Event) + Sync),
}

impl Work<'_> {
    /// Does a job. `buffer` is the worker's own; that of a piece goes back to the pool.
    pub fn run(&self, job: Job, buffer: &mut Vec<u8>, pool: &SyncSender<Vec<u8>>) {
        match job {
            Job::Request(request) => self.request(&request, buffer),
            Job::Piece(piece) => {
                self.write_piece(&piece);
                let Piece { write, buffer, .. } = piece;
                // The reader may be gone already, and the pool with it.
                let _ = pool.send(buffer);
                self.piece_is_done(&write);
            }
        }
    }

    fn request(&self, request: &Request, buffer: &mut Vec<u8>) {
        if request.len == 0 && request.kind != command::FLUSH {
            return self.replies.done(request);
        }
        match request.kind {
            command::READ => self.read(request, buffer),
            command::BLOCK_STATUS => self.block_status(request),
            kind => {
                let done = match kind {
                    command::TRIM => self.trim(request),
                    command::WRITE_ZEROES => self.write_zeroes(request),
                    command::FLUSH => self.flush(),
                    // CACHE: the host's page cache does what can be done.
                    _ => Ok(()),
                };
                match done {
                    Ok(()) => self.replies.done(request),
                    Err(error) => self.replies.failed(request, self.failed(request, &error)),
                }
            }
        }
    }

    fn read(&self, request: &Request, buffer: &mut Vec<u8>) {
        let session = self.replies.session();
        let in_one_chunk = request.flags & command_flag::DF != 0;
        let max_len = match (session.structured, in_one_chunk) {
            (true, true) => PIECE_BYTES as u32,
            _ => MAX_PAYLOAD,
        };
        if request.len > max_len {
            let errno = if session.structured {
                Errno::Overflow
            } else {
                Errno::Inval
            };
            let failure = Failure::new(errno, "the read is too long");
            return self.replies.failed(request, failure);
        }
        if buffer.is_empty() {
            buffer.resize(PIECE_BYTES, 0);
        }
        if session.structured {
            self.read_chunks(request, in_one_chunk, buffer);
        } else {
            self.read_simple(request, buffer);
        }
    }

    fn read_chunks(&self, request: &Request, in_one_chunk: bool, buffer: &mut [u8]) {
        let mut offset = request.offset;
        while offset < request.end() && self.replies.has_reader() {
            let (is_zero, end) = match in_one_chunk {
                true => (false, request.end()),
                false => self.next_chunk(request, offset),
            };
            let is_last = end == request.end();
            let len = end - offset;
            if is_zero {
                self.replies.hole(request, offset, len as u32, is_last);
            } else {
                let bytes = &mut buffer[..len as usize];
                if let Err(error) = self.export.image().read_at(offset, bytes) {
                    let failure = self.failed(request, &error);
                    return self.replies.failed_at(request, failure, offset);
                }
                self.replies.data(request, offset, bytes, is_last);
            }
            offset = end;
        }
    }

    /// Returns whether the next chunk of a read is zeros, and where it ends.
    fn next_chunk(&self, request: &Request, offset: u64) -> (bool, u64) {
        let min_hole = MIN_HOLE_BYTES.min(u64::from(request.len));
        let data_limit = request.end().min(offset.saturating_add(PIECE_BYTES as u64));
        let mut data_end = offset;
        while data_end < data_limit {
            // What the map cannot tell is read, and the read says what is wrong.
            let Ok(extent) = self.export.image().next_extent(data_end) else {
                return (false, data_limit);
            };
            let extent = extent.clipped(request.end());
            if extent.kind != ExtentKind::Data && extent.len >= min_hole {
                let is_first = data_end == offset;
                return (is_first, if is_first { extent.end() } else { data_end });
            }
            data_end = extent.end();
        }
        (false, data_end.min(data_limit))
    }

    /// A simple reply has its error in front. Where a later part of a long read fails there is
    /// only one way left to say so ("NBD_CMD_READ"): to hang up.
    fn read_simple(&self, request: &Request, buffer: &mut [u8]) {
        let image = self.export.image();
        let first_len = buffer.len().min(request.len as usize);
        let first = &mut buffer[..first_len];
        if let Err(error) = image.read_at(request.offset, first) {
            return self.replies.failed(request, self.failed(request, &error));
        }
        if first_len == request.len as usize {
            return self.replies.simple(request, first);
        }
        let mut line = self.replies.begin_simple(request);
        line.send(&[first]);
        let mut offset = request.offset + first_len as u64;
        while offset < request.end() && self.replies.has_reader() {
            let len = (request.end() - offset).min(buffer.len() as u64) as usize;
            if let Err(error) = image.read_at(offset, &mut buffer[..len]) {
                self.failed(request, &error);
                return line.hang_up();
            }
            line.send(&[&buffer[..len]]);
            offset += len as u64;
        }
    }

    fn block_status(&self, request: &Request) {
        match self.status_runs(request) {
            Ok(runs) => self.replies.block_status(request, &runs),
            Err(error) => self.replies.failed(request, self.failed(request, &error)),
        }
    }

    /// Returns runs of a length and flags from the request's offset on: not necessarily as far as
    /// asked for, and the last one further where that is known anyway.
    fn status_runs(&self, request: &Request) -> Result<Vec<(u32, u32)>> {
        let only_one = request.flags & command_flag::REQ_ONE != 0;
        let limit = if only_one {
            request.end()
        } else {
            self.export.size_bytes()
        };
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut offset = request.offset;
        for _ in 0..MAX_STEPS {
            if offset >= request.end() {
                break;
            }
            let extent = match self.export.image().next_extent(offset) {
                Ok(extent) => extent
                    .clipped(limit)
                    .clipped(offset.saturating_add(MAX_RUN_BYTES)),
                Err(error) if runs.is_empty() => return Err(error),
                Err(_) => break,
            };
            let flags = match extent.kind {
                ExtentKind::Data => 0,
                ExtentKind::Zero | ExtentKind::Hole => state::HOLE | state::ZERO,
            };
            let is_full = runs.len() == if only_one { 1 } else { MAX_RUNS };
            match runs.last_mut() {
                Some((len, run_flags))
                    if *run_flags == flags && u64::from(*len) + extent.len <= MAX_RUN_BYTES =>
                {
                    *len += extent.len as u32;
                }
                _ if is_full => break,
                _ => runs.push((extent.len as u32, flags)),
            }
            offset = extent.end();
        }
        Ok(runs)
    }

    fn write_piece(&self, piece: &Piece) {
        self.is_dirty.store(true, Ordering::SeqCst);
        let bytes = piece.buffer.get(..piece.len).unwrap_or_default();
        if let Err(error) = self.export.image().write_at(piece.offset, bytes) {
            self.note(&piece.write, &error);
        }
    }

    /// Replies to a write once all of it is done.
    fn piece_is_done(&self, write: &Write) {
        if write.n_left.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        let failure = || *write.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure().is_none()
            && let Err(error) = self.flush_if_asked(&write.request)
        {
            self.note(write, &error);
        }
        match failure() {
            None => self.replies.done(&write.request),
            Some(failure) => self.replies.failed(&write.request, failure),
        }
    }

    fn note(&self, write: &Write, error: &Error) {
        let failure = self.failed(&write.request, error);
        let mut first = write.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(failure);
    }

    fn trim(&self, request: &Request) -> Result<()> {
        self.is_dirty.store(true, Ordering::SeqCst);
        self.export.image().discard(request.offset..request.end())?;
        self.flush_if_asked(request)
    }

    fn write_zeroes(&self, request: &Request) -> Result<()> {
        self.is_dirty.store(true, Ordering::SeqCst);
        let range = request.offset..request.end();
        if request.flags & command_flag::NO_HOLE == 0 {
            self.export.image().write_zeroes(range)?;
        } else {
            // The space is to be taken now, which only a write does.
            let zeros = vec![0; PIECE_BYTES.min(request.len as usize)];
            let mut offset = range.start;
            while offset < range.end {
                if self.stop.is_set() {
                    return Err(Error::cancelled());
                }
                let len = (range.end - offset).min(zeros.len() as u64);
                self.export
                    .image()
                    .write_at(offset, &zeros[..len as usize])?;
                offset += len;
            }
        }
        self.flush_if_asked(request)
    }

    fn flush_if_asked(&self, request: &Request) -> Result<()> {
        if request.is_fua() {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Puts everything that was written before on stable storage.
    pub fn flush(&self) -> Result<()> {
        if !self.export.is_writable() {
            return Ok(());
        }
        self.is_dirty.store(false, Ordering::SeqCst);
        self.export.image().flush().inspect_err(|_| {
            self.is_dirty.store(true, Ordering::SeqCst);
        })
    }

    /// Tells whoever watches of an error, and returns what the client is told.
    fn failed(&self, request: &Request, error: &Error) -> Failure {
        let failure = Failure::of(error);
        if failure != SHUTTING_DOWN {
            (self.watch)(&Event::Failed {
                doing: doing(request.kind),
                offset: request.offset,
                len: request.len,
                error,
            });
        }
        failure
    }
}

fn doing(kind: u16) -> &'static str {
    match kind {
        command::READ => "read",
        command::WRITE => "write",
        command::TRIM => "trim",
        command::WRITE_ZEROES => "write zeroes",
        command::FLUSH => "flush",
        _ => "block status",
    }
}
