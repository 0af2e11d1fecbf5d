//! A connection to one client, over TCP or a Unix socket.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

/// How long an idle connection may be before the client's host is asked whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);

/// A connected socket. Reads and writes take `&self`: a reader and writers share it.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl Socket {
    /// Sets what is the same for all connections: `stall` is how long a write may wait for a
    /// client that does not read.
    pub(crate) fn prepare(&self, stall: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(stall))?;
                // A host that vanished must not hold its place for ever.
                sockopt::set_socket_keepalive(stream, true)?;
                sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
                Ok(())
            }
            Socket::Unix(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_write_timeout(Some(stall))
            }
        }
    }

    /// Returns who it is, for messages.
    pub(crate) fn peer(&self) -> String {
        match self {
            Socket::Tcp(stream) => stream
                .peer_addr()
                .map_or_else(|_| "a client".to_owned(), |address| address.to_string()),
            Socket::Unix(_) => "a local client".to_owned(),
        }
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).read(buf),
            Socket::Unix(stream) => (&*stream).read(buf),
        }
    }

    /// Writes all of the parts, one after the other. A client that takes nothing for as long as
    /// [`Self::prepare`] says is an error.
    pub(crate) fn write_all(&self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let written = match self {
                Socket::Tcp(stream) => (&*stream).write_vectored(parts),
                Socket::Unix(stream) => (&*stream).write_vectored(parts),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => IoSlice::advance_slices(&mut parts, len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the connection for both sides; whoever waits for it here is woken.
    pub(crate) fn hang_up(&self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Waits until at least one of the descriptors has something to say, or ends; until `deadline` if
/// there is one. Returns for each whether it has.
pub(crate) fn wait<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    deadline: Option<Instant>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => return Ok(std::array::from_fn(|i| !polled[i].revents().is_empty())),
            Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
}
