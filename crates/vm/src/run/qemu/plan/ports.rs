//! Serial ports: one is hako's console, the others what the VMX connects them to.

use std::path::PathBuf;

use hako_block::Result;
use serde_json::json;

use super::{CommandLine, Wanted, text, value};

/// Serial ports that a PC has at its usual addresses.
const N_PORTS: u8 = 4;

/// What a serial port is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Backend {
    /// A file that gets what the guest writes, after what it holds already.
    File(PathBuf),
    /// A Unix socket.
    Pipe {
        /// Its file.
        path: PathBuf,
        /// Whether QEMU listens there, rather than connects.
        server: bool,
    },
    /// A TCP port.
    Tcp {
        /// The host: a name or an address.
        host: String,
        /// The port.
        port: u16,
        /// Whether QEMU listens there, rather than connects.
        server: bool,
        /// Whether it speaks Telnet.
        telnet: bool,
    },
}

/// Adds the ports. The console is COM1, unless the VMX connects that to a pipe or the network: then
/// the first port that is free. A file of that port gets a copy of what the console gets.
pub(super) fn add(line: &mut CommandLine, wanted: &Wanted<'_>) -> Result<()> {
    let is_free = |port: &u8| matches!(wanted.serial.get(port), None | Some(Backend::File(_)));
    line.console = (0..N_PORTS).find(is_free);
    match line.console {
        Some(0) => {}
        Some(port) => line.warn(format!(
            "the console is the guest's COM{} (ttyS{port}), for the VMX uses those before it",
            port + 1
        )),
        None => line.warn("there is no console: the VMX uses all serial ports"),
    }
    for port in 0..N_PORTS {
        let backend = wanted.serial.get(&port);
        let chardev = match backend {
            _ if line.console == Some(port) => {
                let log = match backend {
                    Some(Backend::File(path)) => {
                        format!(",logfile={},logappend=on", value(text(path)?))
                    }
                    _ => String::new(),
                };
                let socket = value(text(&wanted.sockets.console)?);
                format!("socket,id=serial{port},path={socket},server=off{log}")
            }
            Some(backend) => format!("{},id=serial{port}", chardev(backend)?),
            None => continue,
        };
        line.arg("-chardev", chardev);
        line.device(
            &json!({"driver": "isa-serial", "chardev": format!("serial{port}"),
                            "index": port}),
        );
    }
    for port in wanted.serial.keys().filter(|port| **port >= N_PORTS) {
        line.warn(format!(
            "serial{port} is left out: a PC has {N_PORTS} serial ports"
        ));
    }
    let socket = value(text(&wanted.sockets.qmp)?);
    line.arg(
        "-chardev",
        format!("socket,id=qmp,path={socket},server=off"),
    );
    line.arg("-mon", "chardev=qmp,mode=control");
    Ok(())
}

fn chardev(backend: &Backend) -> Result<String> {
    Ok(match backend {
        Backend::File(path) => format!("file,path={},append=on", value(text(path)?)),
        Backend::Pipe { path, server } => {
            format!("socket,path={}{}", value(text(path)?), listening(*server))
        }
        Backend::Tcp {
            host,
            port,
            server,
            telnet,
        } => {
            let telnet = if *telnet { ",telnet=on" } else { "" };
            format!(
                "socket,host={},port={port}{}{telnet}",
                value(host),
                listening(*server)
            )
        }
    })
}

fn listening(server: bool) -> &'static str {
    match server {
        true => ",server=on,wait=off",
        false => ",server=off",
    }
}
