//! Telling systemd that a machine runs (sd_notify(3)): one datagram to the socket that it names.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the service is up, if systemd has started this process and wants to hear so.
pub fn notify_ready() {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        // Without it, systemd gives up on the service, and says so.
        let _ = notify(&socket, b"READY=1");
    }
}

fn notify(socket: &OsStr, message: &[u8]) -> std::io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_it_at_either_kind_of_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("hako-test-{}", std::process::id());
        for (socket, address) in [
            (
                path.clone().into_os_string(),
                SocketAddr::from_pathname(&path),
            ),
            (
                format!("@{name}").into(),
                SocketAddr::from_abstract_name(&name),
            ),
        ] {
            let listener = UnixDatagram::bind_addr(&address.unwrap()).unwrap();
            notify(&socket, b"READY=1").unwrap();
            let mut bytes = [0; 64];
            let n = listener.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..n], b"READY=1");
        }
        assert!(notify(OsStr::new("/nonexistent/socket"), b"").is_err());
    }
}
