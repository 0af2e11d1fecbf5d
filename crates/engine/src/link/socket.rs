//! Frames over UNIX sockets: over a stream each has its length before it, four bytes big-endian (as
//! QEMU's `-netdev stream` and passt do); as datagrams each is a message (`-netdev dgram`).

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use super::{LONGEST_FRAME, Link, is_nothing};

/// A stream socket.
pub struct StreamLink {
    socket: UnixStream,
    /// What has come, and has not been taken.
    came: Vec<u8>,
    /// The rest of a frame that had not room in the socket: it goes before the next.
    to_go: Vec<u8>,
}

/// How much is read at a time.
const READ_BYTES: usize = 128 << 10;

impl StreamLink {
    /// Returns the link over a connected socket.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            came: Vec::new(),
            to_go: Vec::new(),
        })
    }

    /// Returns where the first frame that is there as a whole ends.
    fn whole_frame(&self) -> io::Result<Option<usize>> {
        let Some(head) = self.came.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*head) as usize;
        if len > LONGEST_FRAME {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of {len} bytes"),
            ));
        }
        Ok((self.came.len() >= 4 + len).then_some(4 + len))
    }

    /// Reads what there is. Says whether something came.
    fn fill(&mut self) -> io::Result<bool> {
        let have = self.came.len();
        self.came.resize(have + READ_BYTES, 0);
        let got = self
            .socket
            .read(self.came.get_mut(have..).unwrap_or_default());
        self.came.truncate(have + *got.as_ref().unwrap_or(&0));
        match got {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if is_nothing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes what is left of earlier frames. Says whether all of it has gone.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.to_go.is_empty() {
            match self.socket.write(&self.to_go) {
                Ok(written) => drop(self.to_go.drain(..written)),
                Err(error) if is_nothing(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Link for StreamLink {
    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn receive(&mut self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        self.flush()?;
        loop {
            let Some(end) = self.whole_frame()? else {
                match self.fill()? {
                    true => continue,
                    false => return Ok(None),
                }
            };
            let fits = self
                .came
                .get(4..end)
                .and_then(|content| Some((frame.get_mut(..content.len())?, content)))
                .map(|(place, content)| place.copy_from_slice(content));
            self.came.drain(..end);
            if fits.is_some() {
                return Ok(Some(end - 4));
            }
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if !self.flush()? {
            return Ok(());
        }
        let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
        self.to_go.extend(len.to_be_bytes());
        self.to_go.extend(frame);
        self.flush().map(drop)
    }
}

/// A datagram socket.
pub struct DatagramLink(UnixDatagram);

impl DatagramLink {
    /// Returns the link over a connected socket.
    pub fn new(socket: UnixDatagram) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl Link for DatagramLink {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn receive(&mut self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.recv(frame) {
            Ok(len) => Ok(Some(len)),
            Err(error) if is_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match self.0.send(frame) {
            Ok(_) => Ok(()),
            Err(error) if is_nothing(&error) => Ok(()),
            // No buffers: the frame is lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_over_a_stream_whole_however_it_is_cut() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut link = StreamLink::new(a).unwrap();
        let mut frame = [0; 100];
        assert_eq!(link.receive(&mut frame).unwrap(), None);
        b.write_all(&[0, 0, 0, 3, 7]).unwrap();
        assert_eq!(link.receive(&mut frame).unwrap(), None);
        b.write_all(&[8, 9, 0, 0, 0, 1, 5]).unwrap();
        assert_eq!(link.receive(&mut frame).unwrap(), Some(3));
        assert_eq!(frame[..3], [7, 8, 9]);
        assert_eq!(link.receive(&mut frame).unwrap(), Some(1));
        link.send(&[1, 2]).unwrap();
        let mut sent = [0; 6];
        b.read_exact(&mut sent).unwrap();
        assert_eq!(sent, [0, 0, 0, 2, 1, 2]);
    }

    #[test]
    fn a_peer_that_does_not_read_loses_frames_and_never_half_of_one() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut link = StreamLink::new(a).unwrap();
        for number in 0..10_000u32 {
            link.send(&number.to_le_bytes().repeat(100)).unwrap();
        }
        drop(link);
        let mut all = Vec::new();
        b.read_to_end(&mut all).unwrap();
        let (mut at, mut frames) = (0, 0);
        while at + 404 <= all.len() {
            assert_eq!(all[at..at + 4], [0, 0, 1, 144]);
            let frame = &all[at + 4..at + 404];
            assert!(frame.chunks(4).all(|word| word == &frame[..4]));
            at += 404;
            frames += 1;
        }
        assert!(frames > 10 && frames < 10_000);
    }

    #[test]
    fn a_peer_that_talks_nonsense_or_leaves_is_an_error() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut link = StreamLink::new(a).unwrap();
        b.write_all(&[0xff; 8]).unwrap();
        assert!(link.receive(&mut [0; 100]).is_err());
        let (a, b) = UnixStream::pair().unwrap();
        let mut link = StreamLink::new(a).unwrap();
        drop(b);
        assert!(link.receive(&mut [0; 100]).is_err());
    }

    #[test]
    fn datagrams_are_frames() {
        let (a, b) = UnixDatagram::pair().unwrap();
        let mut link = DatagramLink::new(a).unwrap();
        b.send(&[1, 2, 3]).unwrap();
        let mut frame = [0; 100];
        assert_eq!(link.receive(&mut frame).unwrap(), Some(3));
        assert_eq!(link.receive(&mut frame).unwrap(), None);
        link.send(&[4]).unwrap();
        assert_eq!(b.recv(&mut frame).unwrap(), 1);
    }
}
