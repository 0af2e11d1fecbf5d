//! The addresses that a guest's network cards use, as the frames on its wire tell: its own, and a DHCP
//! server's answer to it, for a guest that has an address may say nothing for hours. No agent in the
//! guest is needed, and no server is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where in an Ethernet frame its sender is, its type, and its content.
const SENDER: usize = 6;
const TYPE: usize = 12;
const CONTENT: usize = 14;
/// Types of frames.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// How much of a frame is looked at, in bytes: a DHCP answer up to its first options.
pub(super) const FRAME_BYTES: usize = 512;

/// Returns the address that a frame says the card with the address `mac` has: the sender of ARP
/// (RFC 826), of IPv4 (RFC 791) or of IPv6 (RFC 8200) that the card sent, or what DHCP acknowledges to
/// it (RFC 2131). Addresses that are none yet (while the guest asks for one) and those of the link
/// alone are not told.
pub(super) fn address_in(frame: &[u8], mac: [u8; 6]) -> Option<IpAddr> {
    if bytes_at::<6>(frame, SENDER)? != mac {
        return acknowledged(frame, mac);
    }
    match u16::from_be_bytes(bytes_at(frame, TYPE)?) {
        // Its content: hardware, protocol, lengths, operation, then the sender's two addresses.
        ARP if bytes_at::<6>(frame, CONTENT + 8)? == mac => ipv4(frame, CONTENT + 14),
        IPV4 => ipv4(frame, CONTENT + 12),
        IPV6 => {
            let address = Ipv6Addr::from(bytes_at::<16>(frame, CONTENT + 8)?);
            let is_own = !address.is_unspecified()
                && !address.is_unicast_link_local()
                && !address.is_multicast();
            is_own.then_some(IpAddr::V6(address))
        }
        _ => None,
    }
}

/// Returns the address that a DHCP server acknowledges to a card.
fn acknowledged(frame: &[u8], mac: [u8; 6]) -> Option<IpAddr> {
    const UDP: u8 = 17;
    const PORTS: [u8; 4] = [0, 67, 0, 68];
    let is_ip = u16::from_be_bytes(bytes_at(frame, TYPE)?) == IPV4;
    let [first] = bytes_at::<1>(frame, CONTENT)?;
    let udp = CONTENT + usize::from(first & 15) * 4;
    let [protocol] = bytes_at::<1>(frame, CONTENT + 9)?;
    let is_dhcp = is_ip && first >> 4 == 4 && protocol == UDP && bytes_at(frame, udp)? == PORTS;
    // BOOTP: its kind, hardware and its length, hops; the client's new address; the client's hardware.
    let bootp = frame.get(udp + 8..)?;
    let is_answer = bytes_at::<3>(bootp, 0)? == [2, 1, 6] && bytes_at::<6>(bootp, 28)? == mac;
    (is_dhcp && is_answer && is_acknowledgement(bootp.get(236..)?))
        .then(|| ipv4(bootp, 16))
        .flatten()
}

/// Returns whether DHCP's options say that it is an acknowledgement.
fn is_acknowledgement(options: &[u8]) -> bool {
    const COOKIE: [u8; 4] = [99, 130, 83, 99];
    const KIND: u8 = 53;
    const ACKNOWLEDGEMENT: u8 = 5;
    let Some(mut rest) = options.strip_prefix(&COOKIE) else {
        return false;
    };
    while let Some((&code, after)) = rest.split_first() {
        rest = match (code, after.split_first()) {
            (0, _) => after,
            (255, _) | (_, None) => return false,
            (KIND, Some((_, value))) => return value.first() == Some(&ACKNOWLEDGEMENT),
            (_, Some((&len, value))) => value.get(usize::from(len)..).unwrap_or_default(),
        };
    }
    false
}

fn ipv4(frame: &[u8], at: usize) -> Option<IpAddr> {
    let address = Ipv4Addr::from(bytes_at::<4>(frame, at)?);
    let is_own = !address.is_unspecified()
        && !address.is_link_local()
        && !address.is_multicast()
        && !address.is_broadcast();
    is_own.then_some(IpAddr::V4(address))
}

fn bytes_at<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0, 12, 41, 1, 2, 3];

    fn frame(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(MAC);
        frame.extend(kind.to_be_bytes());
        frame.extend(content);
        frame
    }

    fn arp(mac: [u8; 6], address: [u8; 4]) -> Vec<u8> {
        let mut content = vec![0, 1, 8, 0, 6, 4, 0, 1];
        content.extend(mac);
        content.extend(address);
        content.extend([0; 10]);
        frame(ARP, &content)
    }

    fn packet(address: [u8; 4]) -> Vec<u8> {
        let mut content = vec![0x45; 12];
        content.extend(address);
        content.extend([10, 0, 2, 2]);
        frame(IPV4, &content)
    }

    #[test]
    fn senders_of_arp_and_ip_are_told() {
        let ours = Some(IpAddr::from([10, 0, 2, 15]));
        assert_eq!(address_in(&arp(MAC, [10, 0, 2, 15]), MAC), ours);
        assert_eq!(address_in(&packet([10, 0, 2, 15]), MAC), ours);
        let address: Ipv6Addr = "2001:db8::5".parse().unwrap();
        let mut content = vec![0x60; 8];
        content.extend(address.octets());
        assert_eq!(
            address_in(&frame(IPV6, &content), MAC),
            Some(address.into())
        );
    }

    /// What a server answers to the card, with DHCP's options.
    fn answer(options: &[u8]) -> Vec<u8> {
        let mut bootp = vec![2, 1, 6, 0];
        bootp.resize(16, 0);
        bootp.extend([10, 0, 2, 15]);
        bootp.resize(28, 0);
        bootp.extend(MAC);
        bootp.resize(236, 0);
        bootp.extend([99, 130, 83, 99]);
        bootp.extend(options);
        let mut content = vec![0x45; 9];
        content.push(17);
        content.extend([0; 10]);
        content.extend([0, 67, 0, 68, 0, 0, 0, 0]);
        content.extend(bootp);
        let mut frame = frame(IPV4, &content);
        frame[..SENDER].copy_from_slice(&MAC);
        frame[SENDER..TYPE].copy_from_slice(&[2; 6]);
        frame
    }

    #[test]
    fn what_dhcp_acknowledges_is_told() {
        let ours = Some(IpAddr::from([10, 0, 2, 15]));
        let whole = answer(&[0, 54, 4, 10, 0, 2, 2, 53, 1, 5, 255]);
        assert_eq!(address_in(&whole, MAC), ours);
        // What is offered is not taken yet; other cards' are not ours; what ends early tells nothing.
        for options in [&[53, 1, 2][..], &[255, 53, 1, 5], &[54, 200, 53, 1, 5], &[]] {
            assert_eq!(address_in(&answer(options), MAC), None, "{options:?}");
        }
        assert_eq!(address_in(&whole, [3; 6]), None);
        for len in 0..whole.len() - 1 {
            assert_eq!(address_in(&whole[..len], MAC), None, "{len}");
        }
        for at in [TYPE + 1, CONTENT, CONTENT + 9, CONTENT + 21, CONTENT + 28] {
            let mut other = whole.clone();
            other[at] ^= 0x80;
            assert_eq!(address_in(&other, MAC), None, "{at}");
        }
    }

    #[test]
    fn what_is_no_address_of_the_card_is_not_told() {
        let mut foreign = packet([10, 0, 2, 15]);
        foreign[SENDER] = 2;
        assert_eq!(address_in(&foreign, MAC), None);
        for address in [[0; 4], [169, 254, 1, 1], [224, 0, 0, 1], [255; 4]] {
            assert_eq!(address_in(&packet(address), MAC), None, "{address:?}");
            assert_eq!(address_in(&arp(MAC, address), MAC), None, "{address:?}");
        }
        // One that answers for another, and frames that end early.
        assert_eq!(address_in(&arp([2; 6], [10, 0, 2, 15]), MAC), None);
        let whole = arp(MAC, [10, 0, 2, 15]);
        for len in 0..CONTENT + 18 {
            assert_eq!(address_in(&whole[..len], MAC), None, "{len}");
        }
    }
}
