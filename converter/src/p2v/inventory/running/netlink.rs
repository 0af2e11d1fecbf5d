//! What only the kernel tells of network interfaces: their permanent addresses and what they are given,
//! asked over a netlink socket, see rtnetlink(7).
//!
//! | message | |
//! |---|---|
//! | header | length u32, type u16, flags u16, number u32, process u32; all in the machine's byte order |
//! | a link (16) | family u8, 0, type u16, index i32, flags u32, change u32; then attributes |
//! | an address (20) | family u8, prefix u8, flags u8, scope u8, index u32; then attributes |
//! | attribute | length u16, type u16, value; padded to 4 |

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, sendto, socket};

const HEADER_BYTES: usize = 16;
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DONE: u16 = 3;
const ERROR: u16 = 2;
/// A request for all of a kind.
const DUMP: u16 = 0x301;
/// Attributes.
const LINK_NAME: u16 = 3;
const LINK_PERMANENT: u16 = 54;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
/// Scope of an address that is good on its link only.
const SCOPE_LINK: u8 = 253;
/// The flag of an address of IPv6 that is changed now and then, for privacy.
pub(super) const TEMPORARY: u8 = 1;
/// Messages that are received at most.
const MOST_MESSAGES: usize = 100_000;

/// What the kernel knows of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Known {
    pub(super) name: String,
    /// The address that it was made with; empty if the kernel does not tell.
    pub(super) permanent_mac: String,
    /// Its addresses: `192.0.2.5/24`.
    pub(super) addresses: Vec<String>,
}

/// Asks the kernel for all interfaces; none if it does not answer.
pub(super) fn ask() -> Option<Vec<Known>> {
    // Without a protocol it is NETLINK_ROUTE, which is number 0.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None).ok()?;
    let mut known = BTreeMap::new();
    for (request, body) in [(GET_LINK, 16), (GET_ADDRESS, 8)] {
        dump(&socket, request, body, &mut known)?;
    }
    Some(known.into_values().collect())
}

fn dump(
    socket: &OwnedFd,
    request: u16,
    body: usize,
    known: &mut BTreeMap<u32, Known>,
) -> Option<()> {
    let len = HEADER_BYTES + body;
    let mut message = vec![0; len];
    let head = [
        &u32::try_from(len).ok()?.to_ne_bytes()[..],
        &request.to_ne_bytes(),
        &DUMP.to_ne_bytes(),
    ]
    .concat();
    message.get_mut(..head.len())?.copy_from_slice(&head);
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    sendto(socket, &message, SendFlags::empty(), &kernel).ok()?;
    let mut buf = vec![0; 64 << 10];
    for _ in 0..MOST_MESSAGES {
        let (len, _) = recv(socket, &mut buf[..], RecvFlags::empty()).ok()?;
        if !decode(buf.get(..len)?, known) {
            return Some(());
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Takes what some messages tell. Returns whether more are to come.
fn decode(mut bytes: &[u8], known: &mut BTreeMap<u32, Known>) -> bool {
    while let (Some(len), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        if matches!(kind, DONE | ERROR) {
            return false;
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER_BYTES..len) else {
            return false;
        };
        match kind {
            NEW_LINK => drop(link(body, known)),
            NEW_ADDRESS => drop(address(body, known)),
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// Returns the value of an attribute.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..len)?;
        if u16_at(bytes, 2)? == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

fn link(body: &[u8], known: &mut BTreeMap<u32, Known>) -> Option<()> {
    let link = known.entry(u32_at(body, 4)?).or_default();
    let attributes = body.get(16..)?;
    let name = attribute(attributes, LINK_NAME)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    link.name = String::from_utf8_lossy(name).into_owned();
    let mac = attribute(attributes, LINK_PERMANENT)?;
    if mac.iter().any(|byte| *byte != 0) {
        let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        link.permanent_mac = bytes.join(":");
    }
    Some(())
}

fn address(body: &[u8], known: &mut BTreeMap<u32, Known>) -> Option<()> {
    let [family, prefix, flags, scope, ..] = *body else {
        return None;
    };
    let attributes = body.get(8..)?;
    // Of a point-to-point link the other is the peer's.
    let value = attribute(attributes, ADDRESS_LOCAL).or_else(|| attribute(attributes, ADDRESS))?;
    let text = match (family, value.len()) {
        (2, 4) => Ipv4Addr::from(*value.first_chunk::<4>()?).to_string(),
        (10, 16) => Ipv6Addr::from(*value.first_chunk::<16>()?).to_string(),
        _ => return None,
    };
    let is_passing = family == 10 && flags & TEMPORARY != 0;
    if scope < SCOPE_LINK && !is_passing {
        let link = known.get_mut(&u32_at(body, 4)?)?;
        link.addresses.push(format!("{text}/{prefix}"));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_its_interfaces() {
        let known = ask().unwrap();
        let own = known.iter().find(|one| one.name == "lo").unwrap();
        assert!(own.permanent_mac.is_empty());
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let attribute = |kind: u16, value: &[u8]| {
            let len = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let message = |kind: u16, body: &[u8]| {
            let len = u32::try_from(16 + body.len()).unwrap();
            [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
        };
        let index = 7_u32.to_ne_bytes();
        let link = [
            &[0; 4][..],
            &index,
            &[0; 8],
            &attribute(3, b"eno1\0"),
            &attribute(54, &[0, 0x50, 0x56, 1, 2, 3]),
        ]
        .concat();
        let four = [&[2, 24, 0, 0][..], &index, &attribute(1, &[192, 0, 2, 5])].concat();
        let local = [&[10, 64, 0, 253][..], &index, &attribute(1, &[0xfe; 16])].concat();
        let six = |flags: u8, last: u8| {
            let address = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[last]].concat();
            let body = [&[10, 64, flags, 0][..], &index, &attribute(1, &address)].concat();
            message(20, &body)
        };
        let all = [
            message(16, &link),
            message(20, &four),
            message(20, &local),
            six(0x80, 5),
            six(1, 6),
        ]
        .concat();
        let mut known = BTreeMap::new();
        assert!(decode(&all, &mut known));
        let expected = Known {
            name: "eno1".into(),
            permanent_mac: "00:50:56:01:02:03".into(),
            addresses: vec!["192.0.2.5/24".into(), "2001:db8::5/64".into()],
        };
        assert_eq!(known[&7], expected);
        for len in 0..all.len() {
            decode(&all[..len], &mut BTreeMap::new());
        }
    }
}
