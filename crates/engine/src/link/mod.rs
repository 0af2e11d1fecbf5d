//! What a network card's frames go to and come from: a socket that speaks with a switch, another
//! machine or passt, or a TAP interface of the host.

pub mod socket;
pub mod tap;

use std::io;
use std::os::fd::RawFd;

/// The longest frame: 64 KiB that the host's kernel will cut up, with its Ethernet header.
pub const LONGEST_FRAME: usize = 65536 + 18;

/// A place for frames. It never blocks.
pub trait Link: Send {
    /// Returns what becomes readable when there is a frame.
    fn fd(&self) -> RawFd;

    /// Takes the next frame into `frame`, and returns its length; none if there is none now. A longer
    /// frame is thrown away. Errors: the other side is gone.
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<Option<usize>>;

    /// Sends a frame. If there is no room for it, it is lost, as on a real network. Errors: the other
    /// side is gone.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;

    /// Says whether frames have a `virtio_net_hdr` of 12 bytes before them, with which checksums and
    /// cutting up are left to the other side.
    fn has_header(&self) -> bool {
        false
    }
}

/// Says whether an error means no more than that there is nothing, or no room, now.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
