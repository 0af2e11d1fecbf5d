//! The addresses that a guest's network cards use, as its own frames tell: no agent in the guest is
//! needed, and no server's lease is believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where in an Ethernet frame its sender is, its type, and its content.
const SENDER: usize = 6;
const TYPE: usize = 12;
const CONTENT: usize = 14;
/// Types of frames.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// Returns the address that a frame says its sender has, if the card with the address `mac` sent it:
/// the sender of ARP (RFC 826), of IPv4 (RFC 791) or of IPv6 (RFC 8200). Addresses that are none yet
/// (while the guest asks for one) and those of the link alone are not told.
pub(super) fn address_in(frame: &[u8], mac: [u8; 6]) -> Option<IpAddr> {
    if bytes_at::<6>(frame, SENDER)? != mac {
        return None;
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
