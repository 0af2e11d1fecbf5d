//! A TAP interface of the host (Linux's Documentation/networking/tuntap.rst): frames go to the host's
//! network stack, or a bridge. Checksums and cutting up are left to it.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::{Link, is_nothing};

/// The header that frames have here: `virtio_net_hdr_mrg_rxbuf`.
const HEADER_BYTES: libc::c_int = 12;
/// Offloads: checksums, TCP over IPv4 and IPv6 cut up.
const OFFLOADS: libc::c_ulong =
    (libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6) as libc::c_ulong;

/// The interface.
pub struct TapLink(File);

impl TapLink {
    /// Opens the interface `name`, which is made if there is none and the caller may make one.
    pub fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let request = named(name)?;
        // SAFETY: TUNSETIFF reads and writes an `ifreq`, which lives until the call returns.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) };
        check(set)?;
        // SAFETY: TUNSETVNETHDRSZ reads a C int, which lives until the call returns.
        let sized = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &HEADER_BYTES) };
        check(sized)?;
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let offload = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, OFFLOADS) };
        check(offload)?;
        Ok(Self(file))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the request for the interface `name`.
fn named(name: &str) -> io::Result<libc::ifreq> {
    let mut field = [0 as libc::c_char; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= field.len() || name.contains(['\0', '/', '%']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is no name of an interface: 1 to 15 bytes"),
        ));
    }
    for (place, byte) in field.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    Ok(libc::ifreq {
        ifr_name: field,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags as libc::c_short,
        },
    })
}

impl Link for TapLink {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn receive(&mut self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.read(frame) {
            Ok(len) => Ok(Some(len)),
            Err(error) if is_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match self.0.write(frame) {
            Ok(_) => Ok(()),
            Err(error) if is_nothing(&error) => Ok(()),
            // A header that the guest made up: the frame is lost.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            // The interface is down.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn has_header(&self) -> bool {
        true
    }
}
