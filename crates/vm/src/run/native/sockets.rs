//! Cards on UNIX sockets of the host: a switch of somebody's, another machine. They are files of the
//! machine's own folder, or below what the user allowed: a VMX may have come from anybody.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, Result};
use hako_engine::link::Link;
use hako_engine::link::socket::{DatagramLink, StreamLink};

use super::super::cards::Socket;
use super::super::own_path::own_path;
use crate::Vm;

/// A socket that was made for a card, and goes with it.
pub(super) struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Connects. Errors: with a hint if nobody is there.
pub(super) fn connect(vm: &Vm, socket: &Socket) -> Result<(Box<dyn Link>, Option<Made>)> {
    match socket {
        Socket::Stream(name) => {
            let path = own_path(vm, name)?;
            let stream = UnixStream::connect(&path).map_err(|error| nobody(error, &path))?;
            let link = StreamLink::new(stream).map_err(|error| failed(error, &path))?;
            Ok((Box::new(link), None))
        }
        Socket::Datagram { peer, own } => {
            let (peer, own) = (own_path(vm, peer)?, own_path(vm, own)?);
            let (socket, made) = bind(&own)?;
            socket
                .connect(&peer)
                .map_err(|error| nobody(error, &peer))?;
            let link = DatagramLink::new(socket).map_err(|error| failed(error, &own))?;
            Ok((Box::new(link), Some(made)))
        }
    }
}

/// Makes a socket; one that nobody has any more is replaced.
fn bind(path: &Path) -> Result<(UnixDatagram, Made)> {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && is_left(path) {
        std::fs::remove_file(path).map_err(|error| failed(error, path))?;
    }
    let socket = UnixDatagram::bind(path).map_err(|error| failed(error, path))?;
    Ok((socket, Made(path.to_owned())))
}

/// Returns whether nobody listens on a socket.
fn is_left(path: &Path) -> bool {
    let asked = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    asked.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn failed(error: io::Error, path: &Path) -> Error {
    Error::io("make a socket", error).in_file(path)
}

fn nobody(error: io::Error, path: &Path) -> Error {
    let error = Error::io("connect", error).in_file(path);
    match error.kind() {
        ErrorKind::PermissionDenied => error,
        _ => error.hint("start first what listens there: a switch, another machine"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn vm(folder: &Path) -> Vm {
        let path = folder.join("web.vmx");
        std::fs::write(&path, "displayName = \"web\"\n").unwrap();
        Vm::at(&path, &[]).unwrap()
    }

    fn datagram() -> Socket {
        Socket::Datagram {
            peer: "peer.sock".to_owned(),
            own: "own.sock".to_owned(),
        }
    }

    #[test]
    fn frames_go_over_a_stream_socket_of_the_machine_s_folder() {
        let temp = tempfile::tempdir().unwrap();
        let (vm, name) = (vm(temp.path()), "switch.sock".to_owned());
        let stream = Socket::Stream(name.clone());
        let missing = connect(&vm, &stream).err().unwrap();
        assert!(
            missing
                .hint_text()
                .is_some_and(|hint| hint.contains("switch"))
        );
        let listener = UnixListener::bind(temp.path().join(name)).unwrap();
        let (mut link, _) = connect(&vm, &stream).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        link.send(&[1, 2, 3]).unwrap();
        let mut frame = [0; 7];
        peer.read_exact(&mut frame).unwrap();
        assert_eq!(frame, [0, 0, 0, 3, 1, 2, 3]);
        peer.write_all(&[0, 0, 0, 1, 9]).unwrap();
        assert_eq!(link.receive(&mut [0; 64]).unwrap(), Some(1));
        for outside in ["/run/x.sock", "../x.sock"] {
            let refused = connect(&vm, &Socket::Stream(outside.to_owned()));
            assert_eq!(
                refused.err().map(|error| error.kind()),
                Some(ErrorKind::Gate)
            );
        }
    }

    #[test]
    fn frames_are_datagrams_between_two_sockets_and_ours_goes_with_the_machine() {
        let temp = tempfile::tempdir().unwrap();
        let vm = vm(temp.path());
        let own = temp.path().join("own.sock");
        assert!(connect(&vm, &datagram()).is_err());
        assert!(!own.exists(), "nothing is left of one that failed");
        let peer = UnixDatagram::bind(temp.path().join("peer.sock")).unwrap();
        // One that a killed runner left.
        drop(UnixDatagram::bind(&own).unwrap());
        let (mut link, made) = connect(&vm, &datagram()).unwrap();
        let second = connect(&vm, &datagram());
        assert!(second.is_err(), "it is in use");
        drop(second);
        peer.send_to(&[5; 60], &own).unwrap();
        assert_eq!(link.receive(&mut [0; 64]).unwrap(), Some(60));
        link.send(&[7; 14]).unwrap();
        assert_eq!(peer.recv(&mut [0; 64]).unwrap(), 14);
        drop((link, made));
        assert!(!own.exists());
        std::fs::write(&own, "a file").unwrap();
        assert!(connect(&vm, &datagram()).is_err());
        assert_eq!(std::fs::read_to_string(&own).unwrap(), "a file");
    }
}
