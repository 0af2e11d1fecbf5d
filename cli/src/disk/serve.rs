//! `hako disk serve`: an image as a network block device.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, ValueHint};
use hako_block::{Access, BlockImage, Error, Result};
use hako_formats::{OpenOptions, open_chain};
use hako_nbd::{Event, Export, Limits, Listener, Server};
use serde_json::json;

use super::options::ReadFlags;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako disk serve web.vmdk
  hako disk serve --socket /run/web.sock --writable web.qcow2
  qemu-img convert -O qcow2 nbd://127.0.0.1:10809 copy.qcow2
  nbd-client -N '' 127.0.0.1 /dev/nbd0

Exit status:
  0    ended as asked: by SIGINT, SIGTERM, SIGHUP, or --once
  1    failed
  2    wrong usage
  3    incomplete: what --salvage could not read was served as zeros
  4    the image is corrupt
  5    the image, the port or the socket is in use
  8    no space left";

/// The port that IANA gave to NBD.
const DEFAULT_PORT: u16 = 10809;

/// Troubles that are told; a client can make any number of them.
const MAX_WARNINGS: usize = 100;

/// Serve a disk as a network block device (NBD)
///
/// Clients see the disk that the guest sees, whatever the format and the chain: qemu, nbdcopy,
/// nbdinfo, and the Linux kernel by nbd-client. Prints the URI once it listens, and serves until
/// it is stopped. What clients have flushed is safe however it ends; SIGTERM lets them finish what
/// they asked for, and flushes everything.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Serve {
    /// The image
    image: PathBuf,

    /// Let clients write
    ///
    /// The image is locked as by a running VM. Refused if a snapshot or a linked clone needs it as
    /// it is.
    #[arg(long, conflicts_with_all = ["snapshot", "salvage", "force_share"])]
    writable: bool,

    /// Listen on a Unix socket of this name
    ///
    /// The socket of a dead server is replaced. Who may connect is who may write to the file.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["bind", "port"])]
    socket: Option<PathBuf>,

    /// Listen on this IP address
    ///
    /// There is neither encryption nor a password: whoever reaches the address may use the disk.
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value = "127.0.0.1",
          value_parser = parse_address)]
    bind: Address,

    /// Listen on this TCP port; 0 is any free one [default: 10809]
    #[arg(long)]
    port: Option<u16>,

    /// Name of the export; clients that ask for no name get it too
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    export_name: String,

    /// Clients at the same time; one more is turned away
    ///
    /// Each takes up to 4 MiB of memory.
    #[arg(long, value_name = "N", default_value = "16",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_clients: u16,

    /// End when the last client is gone, after one has come
    #[arg(long)]
    once: bool,

    /// Write the process ID to this file while serving
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pid_file: Option<PathBuf>,

    #[command(flatten)]
    read: ReadFlags,
}

impl Serve {
    /// Serves.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let address = self.bind.with_port(self.port)?;
        if self.writable {
            super::refuse_needed(&self.image)?;
        }
        let opened = open_chain(&self.image, &self.open_options())?;
        let exit = super::salvaged(context, &self.read, &opened);
        let image: Arc<dyn BlockImage> = Arc::new(opened.chain);
        let export = Export::new(Arc::clone(&image), &*self.export_name, self.writable)
            .map_err(|error| error.in_file(&self.image))?;
        let cancel = context.cancel_on_signals()?;
        let listener = match &self.socket {
            Some(path) => Listener::unix(path)?,
            None => self.listen_on(context, address)?,
        };
        let n_warnings = AtomicUsize::new(0);
        let watch = |event: &Event| tell(context, event, &n_warnings);
        let limits = Limits {
            max_clients: usize::from(self.max_clients),
            once: self.once,
            ..Limits::default()
        };
        let server = Server::new(export, limits, &watch)?;
        let _pid_file = self.pid_file.as_deref().map(PidFile::new).transpose()?;
        self.announce(context, &listener, &*image)?;
        server.run(listener, &cancel)?;
        Ok(exit)
    }

    fn open_options(&self) -> OpenOptions {
        let access = match self.writable {
            true => Access::ReadWrite,
            false => Access::ReadOnly,
        };
        OpenOptions {
            access,
            ..self.read.options()
        }
    }

    fn listen_on(&self, context: &Context, address: SocketAddr) -> Result<Listener> {
        let listener = Listener::tcp(address)?;
        if !address.ip().is_loopback() {
            let may = if self.writable { "change" } else { "read" };
            context.messages.warn(&format!(
                "{address} can be reached from other machines, and there is neither encryption \
                 nor a password: whoever reaches it may {may} the disk"
            ));
        }
        Ok(listener)
    }

    /// Says on standard output where the disk is served.
    fn announce(
        &self,
        context: &Context,
        listener: &Listener,
        image: &dyn BlockImage,
    ) -> Result<()> {
        let uri = match (&self.socket, listener.address()) {
            (Some(path), _) => unix_uri(path, &self.export_name)?,
            (None, Some(address)) => format!("nbd://{address}/{}", encoded(&self.export_name)),
            (None, None) => return Err(Error::invalid("the socket has no address")),
        };
        let mut out = Out::new();
        if context.json {
            out.json(&json!({
                "uri": uri,
                "export_name": self.export_name,
                "virtual_size": image.info().virtual_size,
                "writable": self.writable,
                "pid": std::process::id(),
            }))?;
        } else {
            out.line(&uri)?;
        }
        out.finish()
    }
}

/// Says what happens: troubles always (up to a limit), who comes and goes with -v.
fn tell(context: &Context, event: &Event, n_warnings: &AtomicUsize) {
    let trouble = match event {
        Event::Came { peer } => return context.detail(&format!("{peer} came")),
        Event::Gone { peer, parting } => return context.detail(&format!("{peer} {parting}")),
        Event::Refused { peer } => format!("{peer} was turned away: too many clients"),
        Event::NotAccepted { error } => format!("a client could not be let in: {error}"),
        Event::Failed {
            doing,
            offset,
            len,
            error,
        } => format!("{doing} of {len} bytes at guest offset {offset:#x}: {error}"),
        _ => return,
    };
    let n_before = n_warnings.fetch_add(1, Ordering::Relaxed);
    if n_before < MAX_WARNINGS {
        context.messages.warn(&trouble);
    } else if n_before == MAX_WARNINGS {
        context.messages.warn("further troubles are not told");
    }
}

/// The file that holds the process ID; removed when dropped.
struct PidFile<'a>(&'a Path);

impl<'a> PidFile<'a> {
    fn new(path: &'a Path) -> Result<Self> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| Error::io("write", error).in_file(path))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// An address to listen on, perhaps with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    ip: IpAddr,
    port: Option<u16>,
}

impl Address {
    fn with_port(self, port: Option<u16>) -> Result<SocketAddr> {
        if self.port.is_some() && port.is_some() {
            return Err(Error::invalid(
                "--bind names a port already: leave --port out",
            ));
        }
        let port = self.port.or(port).unwrap_or(DEFAULT_PORT);
        Ok(SocketAddr::new(self.ip, port))
    }
}

/// Reads `127.0.0.1`, `127.0.0.1:10809`, `::1`, `[::1]`, `[::1]:10809`. Names are not looked up.
fn parse_address(text: &str) -> std::result::Result<Address, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Address {
            ip: address.ip(),
            port: Some(address.port()),
        });
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = match bare {
        Some(bare) => bare.parse().map(IpAddr::V6).ok(),
        None => text.parse().ok(),
    };
    let port = None;
    ip.map(|ip| Address { ip, port }).ok_or_else(|| {
        format!(
            "no IP address; names are not looked up: try {}",
            Ipv4Addr::LOCALHOST
        )
    })
}

fn unix_uri(path: &Path, name: &str) -> Result<String> {
    let path = std::path::absolute(path).map_err(|error| Error::io("find", error).in_file(path))?;
    let path = encoded_bytes(path.as_os_str().as_bytes());
    Ok(format!("nbd+unix:///{}?socket={path}", encoded(name)))
}

fn encoded(text: &str) -> String {
    encoded_bytes(text.as_bytes())
}

/// Percent-encodes what a URI may not hold as it is (RFC 3986, section 2.3), slashes left alone.
fn encoded_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(*byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_a_port() {
        for (text, ip, port) in [
            ("127.0.0.1", "127.0.0.1", None),
            ("0.0.0.0:1", "0.0.0.0", Some(1)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[::1]:10809", "::1", Some(10809)),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(parse_address(text), Ok(Address { ip, port }), "{text}");
        }
        for text in [
            "localhost",
            "localhost:1",
            "",
            "1.2.3",
            "1.2.3.4:x",
            "[1.2.3.4]",
        ] {
            assert!(parse_address(text).is_err(), "{text}");
        }
        let address = parse_address("127.0.0.1:7").unwrap();
        assert_eq!(address.with_port(None).unwrap().port(), 7);
        assert!(address.with_port(Some(7)).is_err());
    }

    #[test]
    fn uris_are_encoded() {
        assert_eq!(encoded("a b/ü?%"), "a%20b/%C3%BC%3F%25");
        assert_eq!(
            unix_uri(Path::new("/tmp/a b"), "x").unwrap(),
            "nbd+unix:///x?socket=/tmp/a%20b"
        );
    }
}
