//! Where clients come in: a TCP port, or a Unix socket that has a file.

use std::fs::File;
use std::io::{self, ErrorKind as IoKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hako_block::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};

use crate::socket::{Socket, wait};

/// A socket that listens. The file of a Unix socket is removed when it is dropped.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket and its file.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket that this process made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have replaced it meanwhile.
    id: (u64, u64),
}

impl Listener {
    /// Listens on a TCP address; port 0 is any free one.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let failed = |error: io::Error| match error.kind() {
            IoKind::AddrInUse => Error::new(ErrorKind::Locked, format!("{address} is in use"))
                .hint("another server listens there: choose another --port"),
            _ => Error::io(format!("listen on {address}"), error),
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Listener::Tcp(listener))
    }

    /// Listens on a Unix socket. The file that a dead server left is replaced; that of a living
    /// one is [`ErrorKind::Locked`], anything else [`ErrorKind::Exists`].
    pub fn unix(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::io("listen", error).in_file(path);
        let _folder = lock_folder(path);
        remove_dead_socket(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile {
            id: id_of(path).map_err(failed)?,
            path: path.to_owned(),
        };
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Listener::Unix(listener, file))
    }

    /// Returns the address that TCP clients connect to.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// Waits for a client, but not longer than `patience`.
    pub(crate) fn accept(&self, patience: Duration) -> io::Result<Option<Socket>> {
        wait([self.as_fd()], Some(Instant::now() + patience))?;
        let accepted = match self {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(listener, _) => {
                listener.accept().map(|(stream, _)| Socket::Unix(stream))
            }
        };
        match accepted {
            Ok(socket) => Ok(Some(socket)),
            // Nobody came, or left again at once.
            Err(error) => match error.kind() {
                IoKind::WouldBlock | IoKind::Interrupted | IoKind::ConnectionAborted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id_of(&self.path).is_ok_and(|id| id == self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Keeps two servers that begin at once from taking each other's new socket for a dead one, where
/// the file system has locks.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let folder = File::open(folder).ok()?;
    flock(&folder, FlockOperation::LockExclusive).ok()?;
    Some(folder)
}

fn remove_dead_socket(path: &Path) -> Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::new(ErrorKind::Exists, "exists and is no socket").in_file(path));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == IoKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|error| Error::io("remove the socket of a dead server", error).in_file(path)),
        Ok(_) => Err(Error::new(ErrorKind::Locked, "a server listens on it").in_file(path)),
        Err(error) => Err(Error::io("connect", error).in_file(path)),
    }
}
