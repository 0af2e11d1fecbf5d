//! What serial ports are connected to: files and sockets of the machine's own folder, and the
//! network. A VMX may have come from anybody: it gets at no other file.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;

use hako_block::{Error, Result};
use hako_formats::machine::SerialPort;

use super::super::own_path::own_path;
use super::plan::Backend;
use crate::Vm;

/// Returns what the machine's serial ports are connected to, and what the user should know.
pub(super) fn of(vm: &Vm) -> (BTreeMap<u8, Backend>, Vec<String>) {
    let (mut backends, mut warnings) = (BTreeMap::new(), Vec::new());
    for port in vm.vmx.machine().serial_ports {
        match backend(vm, &port, &mut warnings) {
            Ok(backend) => {
                backends.insert(port.number, backend);
            }
            // The console may have it.
            Err(error) => warnings.push(format!("serial{}: {error}", port.number)),
        }
    }
    (backends, warnings)
}

fn backend(vm: &Vm, port: &SerialPort, warnings: &mut Vec<String>) -> Result<Backend> {
    let key = |name: &str| {
        let value = vm
            .vmx
            .dictionary()
            .value(&format!("serial{}.{name}", port.number));
        value.unwrap_or_default().trim().to_ascii_lowercase()
    };
    match port.kind.as_str() {
        "file" => {
            let path = own_path(vm, &port.target)?;
            match std::fs::symlink_metadata(&path) {
                Ok(found) if !found.is_file() => {
                    Err(Error::invalid("is no regular file").in_file(path))
                }
                _ => Ok(Backend::File(path)),
            }
        }
        "pipe" => {
            let path = own_path(vm, &port.target)?;
            let server = key("pipe.endpoint") != "client";
            if !server {
                // QEMU would not start without.
                let found = UnixStream::connect(&path);
                found.map_err(|error| Error::io("connect", error).in_file(&path))?;
            }
            Ok(Backend::Pipe { path, server })
        }
        "network" => tcp(port, key("network.endpoint") != "client", warnings),
        other => {
            let other: String = other.chars().take(40).collect();
            Err(Error::unsupported(format!(
                "QEMU gets no {other:?} of the host"
            )))
        }
    }
}

/// Reads `telnet://host:port`, `tcp://:port` and the like. Who listens does it on loopback: a serial
/// port is a way to log in.
fn tcp(port: &SerialPort, server: bool, warnings: &mut Vec<String>) -> Result<Backend> {
    let wrong = || {
        let target: String = port.target.chars().take(60).collect();
        Error::unsupported(format!("{target:?} is not like telnet://host:port"))
    };
    let (scheme, rest) = port
        .target
        .split_once("://")
        .unwrap_or(("tcp", &port.target));
    let telnet = match scheme.to_ascii_lowercase().as_str() {
        "tcp" => false,
        "telnet" => true,
        _ => return Err(wrong()),
    };
    let (host, number) = rest
        .trim_end_matches('/')
        .rsplit_once(':')
        .ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    if !host.bytes().all(is_name) || host.is_empty() && !server {
        return Err(wrong());
    }
    let is_loopback = host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let host = match server && !is_loopback {
        true => {
            warnings.push(format!("serial{} listens on 127.0.0.1 only", port.number));
            Ipv4Addr::LOCALHOST.to_string()
        }
        false => host.to_owned(),
    };
    Ok(Backend::Tcp {
        host,
        port: number,
        server,
        telnet,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn vm(folder: &Path, serial: &str) -> Vm {
        let path = folder.join("web.vmx");
        std::fs::write(
            &path,
            format!("displayName = \"web\"\nserial0.present = \"TRUE\"\n{serial}"),
        )
        .unwrap();
        Vm::at(&path, &[]).unwrap()
    }

    #[test]
    fn files_and_pipes_are_the_machine_s_own() {
        let temp = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(temp.path()).unwrap();
        std::fs::create_dir(folder.join("vm")).unwrap();
        std::os::unix::fs::symlink(&folder, folder.join("vm/out")).unwrap();
        let folder = folder.join("vm");
        let serial = |kind: &str, file: &str| {
            of(&vm(
                &folder,
                &format!("serial0.fileType = \"{kind}\"\nserial0.fileName = \"{file}\"\n"),
            ))
        };
        assert_eq!(
            serial("file", "a.log").0[&0],
            Backend::File(folder.join("a.log"))
        );
        let (path, server) = (folder.join("pipe"), true);
        assert_eq!(serial("pipe", "pipe").0[&0], Backend::Pipe { path, server });
        for outside in ["/etc/motd", "../x", "out/x", "none/x", "", "/"] {
            for kind in ["file", "pipe"] {
                let (backends, warnings) = serial(kind, outside);
                assert!(backends.is_empty() && warnings.len() == 1, "{outside}");
            }
        }
        assert!(serial("device", "/dev/ttyS0").0.is_empty());
        assert!(serial("file", "out").0.is_empty());
    }

    #[test]
    fn the_network_is_loopback_for_who_listens() {
        let temp = tempfile::tempdir().unwrap();
        let network = |target: &str, end: &str| {
            of(&vm(
                temp.path(),
                &format!(
                    "serial0.fileType = \"network\"\nserial0.fileName = \"{target}\"\n\
                 serial0.network.endPoint = \"{end}\"\n"
                ),
            ))
        };
        let tcp = |host: &str, server, telnet| Backend::Tcp {
            host: host.to_owned(),
            port: 2001,
            server,
            telnet,
        };
        let (backends, warnings) = network("telnet://:2001", "server");
        assert_eq!(backends[&0], tcp("127.0.0.1", true, true));
        assert!(warnings[0].contains("127.0.0.1 only"));
        assert_eq!(
            network("tcp://log.example.org:2001", "client").0[&0],
            tcp("log.example.org", false, false)
        );
        assert_eq!(
            network("tcp://[::1]:2001", "server").0[&0],
            tcp("::1", true, false)
        );
        for wrong in [
            "",
            "telnet://x",
            "udp://x:1",
            "tcp://a,b:1",
            "tcp://:99999",
            "tcp://:2001",
        ] {
            assert!(network(wrong, "client").0.is_empty(), "{wrong}");
        }
    }
}
