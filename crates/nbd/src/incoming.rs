//! What a client sends, read with patience that ends.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::server::Parting;
use crate::socket::{Socket, wait};
use crate::stop::Stop;

/// Many small requests are read at once.
const BUFFER_BYTES: usize = 32 << 10;

/// The client's bytes.
pub struct Incoming<'a>(BufReader<Wire<'a>>);

/// Waits before each read, so that it cannot wait for ever.
struct Wire<'a> {
    socket: &'a Socket,
    stop: &'a Stop,
    /// How long one read may wait.
    stall: Duration,
    /// In the handshake: when it must be over. It ends at once if the server does.
    deadline: Option<Instant>,
}

impl<'a> Incoming<'a> {
    /// Returns the client's bytes; those of the handshake must come within `handshake`, and no
    /// read may wait longer than `stall`.
    pub fn new(socket: &'a Socket, stop: &'a Stop, handshake: Duration, stall: Duration) -> Self {
        let wire = Wire {
            socket,
            stop,
            stall,
            deadline: Some(Instant::now() + handshake),
        };
        Self(BufReader::with_capacity(BUFFER_BYTES, wire))
    }

    /// Ends the handshake: from now on a client may wait between requests as long as it likes.
    pub fn handshake_is_over(&mut self) {
        self.0.get_mut().deadline = None;
    }

    /// Reads exactly `buf.len()` bytes.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<(), Parting> {
        self.0.read_exact(buf).map_err(parting)
    }

    /// Reads `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Parting> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads `len` bytes and forgets them.
    pub fn skip(&mut self, len: u32) -> Result<(), Parting> {
        let mut left = len as usize;
        while left > 0 {
            let n_ready = self.0.fill_buf().map_err(parting)?.len().min(left);
            if n_ready == 0 {
                return Err(Parting::Left);
            }
            self.0.consume(n_ready);
            left -= n_ready;
        }
        Ok(())
    }

    /// Waits for the next request, as long as it takes. Returns whether one begins: false once
    /// the server ends and nothing has come.
    pub fn next_request(&mut self) -> Result<bool, Parting> {
        if !self.0.buffer().is_empty() {
            return Ok(true);
        }
        let wire = self.0.get_ref();
        let fds = [wire.socket.as_fd(), wire.stop.as_fd()];
        let [ready, _stopped] = wait(fds, None).map_err(parting)?;
        Ok(ready)
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stalled_at = Instant::now() + self.stall;
        let ready = match self.deadline {
            None => wait([self.socket.as_fd()], Some(stalled_at))?[0],
            Some(deadline) => {
                let fds = [self.socket.as_fd(), self.stop.as_fd()];
                let [ready, stopped] = wait(fds, Some(stalled_at.min(deadline)))?;
                if stopped {
                    return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
                }
                ready && Instant::now() < deadline
            }
        };
        if ready {
            self.socket.read(buf)
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

fn parting(error: io::Error) -> Parting {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Parting::Left,
        io::ErrorKind::TimedOut => Parting::Stalled,
        io::ErrorKind::ConnectionAborted => Parting::Stopped,
        _ => Parting::Broken(error),
    }
}
