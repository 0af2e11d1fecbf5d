//! What is said of network cards beside their model: their addresses, and the ports of the host that
//! lead to the guest.

use std::net::Ipv4Addr;
use std::path::Path;

use hako_block::{Error, Result};
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Mac, Machine, Network, Nic};

/// Returns what hardware addresses are made of where nothing else tells machines apart.
pub(super) fn seed(vmx: &Path) -> [u8; 3] {
    use std::os::unix::ffi::OsStrExt;
    let digest = blake3::hash(vmx.as_os_str().as_bytes());
    let [a, b, c, ..] = *digest.as_bytes();
    [a, b, c]
}

/// Returns a card's address; of one without: VMware's prefix and what tells this machine apart.
pub(super) fn mac(machine: &Machine, nic: &Nic, seed: [u8; 3]) -> Mac {
    nic.mac.unwrap_or_else(|| {
        let [a, b, c] = match machine.bios_uuid {
            Some(uuid) => [uuid.0[13], uuid.0[14], uuid.0[15]],
            None => seed,
        };
        // VMware's cards are ten apart.
        let c = c.wrapping_add(nic.number.wrapping_mul(10));
        Mac([0x00, 0x0c, 0x29, a, b, c])
    })
}

/// Returns whether a card's network leads nowhere: what may have been apart on purpose must not get
/// to the world.
pub(super) fn is_closed(nic: &Nic, warnings: &mut Vec<String>) -> bool {
    let name = format!("ethernet{}", nic.number);
    match &nic.network {
        Network::Nat => false,
        Network::Bridged => {
            warnings.push(format!(
                "{name} is on a user network behind the host, not bridged"
            ));
            false
        }
        Network::PortGroup(group) => {
            let group: String = group.chars().take(60).collect();
            warnings.push(format!(
                "{name} is on a user network behind the host, not in the port group {group:?}"
            ));
            false
        }
        Network::HostOnly => {
            warnings.push(format!(
                "{name} is on a network of its own, with no way out"
            ));
            true
        }
        Network::Custom(vnet) => {
            let vnet: String = vnet.chars().take(60).collect();
            warnings.push(format!(
                "{name} is on a network of its own with no way out, not on {vnet:?}"
            ));
            true
        }
    }
}

/// Returns the number of a card's slot, which Linux names the card by.
pub(super) fn slot_number(keys: &Dictionary, number: u8) -> u16 {
    /// The slot of a first card that VMware has given none, and how far the next is: what VMware
    /// itself chooses, so that Linux calls them ens192, ens224.
    const FIRST: u16 = 192;
    const STEP: u16 = 32;
    /// The highest number that a slot can have (PCI Express, Slot Capabilities).
    const MAX: u16 = 0x1fff;
    let said = keys.value(&format!("ethernet{number}.pciSlotNumber"));
    let said = said.and_then(|text| text.trim().parse::<u16>().ok());
    said.filter(|slot| (1..=MAX).contains(slot))
        .unwrap_or(FIRST + STEP * u16::from(number))
}

/// Returns the host's TAP interface that the VMX plugs a card into: `hako.ethernetN.tap`.
pub(super) fn tap(keys: &Dictionary, number: u8) -> Option<String> {
    let name = keys.value(&format!("hako.ethernet{number}.tap"))?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// A socket of the host that a card is plugged into. Names are as the VMX has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Socket {
    /// A stream socket that listens there: each frame has its length before it.
    Stream(String),
    /// Datagram sockets, a frame each.
    Datagram {
        /// Where frames go.
        peer: String,
        /// Where they come to; it is made.
        own: String,
    },
}

/// Returns the socket that the VMX plugs a card into: `hako.ethernetN.socket`, `stream:PATH` or
/// `dgram:PEER,OWN`. Errors: neither.
pub(super) fn socket(keys: &Dictionary, number: u8) -> Result<Option<Socket>> {
    let key = format!("hako.ethernet{number}.socket");
    let Some(text) = keys.value(&key) else {
        return Ok(None);
    };
    let text = text.trim();
    let socket = match text.split_once(':') {
        _ if text.is_empty() => return Ok(None),
        Some(("stream", path)) if !path.is_empty() => Some(Socket::Stream(path.to_owned())),
        Some(("dgram", paths)) => match paths.split_once(',') {
            Some((peer, own)) if !peer.is_empty() && !own.is_empty() => Some(Socket::Datagram {
                peer: peer.to_owned(),
                own: own.to_owned(),
            }),
            _ => None,
        },
        _ => None,
    };
    socket.map(Some).ok_or_else(|| {
        let text: String = text.chars().take(60).collect();
        Error::invalid(format!("{key}: {text:?} is not like stream:switch.sock"))
            .hint("stream:PATH of a socket that listens, or dgram:PEER,OWN of two")
    })
}

/// A port of the host that leads to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forward {
    /// "tcp" or "udp".
    pub protocol: &'static str,
    /// The host's address.
    pub host: Ipv4Addr,
    /// Its port.
    pub host_port: u16,
    /// The guest's address, if it is not the one that it is given.
    pub guest: Option<Ipv4Addr>,
    /// Its port.
    pub guest_port: u16,
}

/// Returns those of a card: `hako.ethernetN.forward`, like `tcp:127.0.0.1:2222-:22`, several between
/// commas. Without an address the host's is loopback. What is none is told.
pub(super) fn forwards(keys: &Dictionary, number: u8, warnings: &mut Vec<String>) -> Vec<Forward> {
    let key = format!("hako.ethernet{number}.forward");
    let text = keys.value(&key).unwrap_or_default();
    let words = text.split(',').map(str::trim);
    let mut forwards = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        match forward(word) {
            Some(forward) => forwards.push(forward),
            None => {
                let word: String = word.chars().take(60).collect();
                warnings.push(format!(
                    "{key}: {word:?} is not like tcp:127.0.0.1:2222-:22; left out"
                ));
            }
        }
    }
    forwards
}

fn forward(word: &str) -> Option<Forward> {
    let (kind, rest) = word.split_once(':')?;
    let protocol = ["tcp", "udp"].into_iter().find(|known| *known == kind)?;
    let (host, guest) = rest.split_once('-')?;
    let (host_address, host_port) = host.rsplit_once(':').unwrap_or(("", host));
    let (guest_address, guest_port) = guest.rsplit_once(':').unwrap_or(("", guest));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    Some(Forward {
        protocol,
        host: match host_address {
            "" => Ipv4Addr::LOCALHOST,
            text => text.parse().ok()?,
        },
        host_port: port(host_port)?,
        guest: match guest_address {
            "" => None,
            text => Some(text.parse().ok()?),
        },
        guest_port: port(guest_port)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_stream_or_two_of_datagrams() {
        let socket = |text: &str| {
            let text = format!("hako.ethernet1.socket = \"{text}\"\n");
            let vmx = hako_formats::vmx::Vmx::parse(text.as_bytes()).unwrap();
            socket(vmx.dictionary(), 1).map_err(|error| error.to_string())
        };
        let stream = Socket::Stream("a:b.sock".to_owned());
        assert_eq!(socket("stream:a:b.sock"), Ok(Some(stream)));
        let (peer, own) = ("p".to_owned(), "o,x".to_owned());
        let datagram = Socket::Datagram { peer, own };
        assert_eq!(socket(" dgram:p,o,x "), Ok(Some(datagram)));
        assert_eq!(socket(""), Ok(None));
        for wrong in ["stream:", "dgram:a", "dgram:,b", "dgram:a,", "/x", "tcp:a"] {
            assert!(
                socket(wrong).unwrap_err().contains("is not like"),
                "{wrong}"
            );
        }
    }
}
