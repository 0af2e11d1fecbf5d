//! `/etc/network/interfaces`, see interfaces(5).

use super::{Configured, prefix_of_mask};
use crate::p2v::inventory::model::{AddressMethod, NicKind, Route};

/// Returns what one file configures, a stanza each.
pub(super) fn parse(text: &str) -> Vec<Configured> {
    // A line goes on behind a backslash.
    let text = text.replace("\\\n", " ");
    let mut all: Vec<Configured> = Vec::new();
    let mut is_inside = false;
    let mut mask = String::new();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let rest: Vec<&str> = words.collect();
        match first {
            "iface" => {
                end(all.last_mut().filter(|_| is_inside), &mask);
                mask.clear();
                is_inside = false;
                if let Some(stanza) = begin(&rest) {
                    all.push(stanza);
                    is_inside = true;
                }
            }
            "auto" | "allow-auto" | "allow-hotplug" | "mapping" | "source" | "source-directory"
            | "template" | "rename" | "no-auto-down" => {
                end(all.last_mut().filter(|_| is_inside), &mask);
                mask.clear();
                is_inside = false;
            }
            "netmask" => mask = rest.first().copied().unwrap_or_default().to_owned(),
            option => {
                if let Some(stanza) = all.last_mut().filter(|_| is_inside) {
                    set(stanza, option, &rest);
                }
            }
        }
    }
    end(all.last_mut().filter(|_| is_inside), &mask);
    all
}

fn begin(words: &[&str]) -> Option<Configured> {
    // An alias (eth0:1) is an address more of its interface.
    let name = words.first()?.split(':').next()?;
    if name == "lo" {
        return None;
    }
    let method = match words.get(2).copied().unwrap_or_default() {
        "static" => AddressMethod::Static,
        "dhcp" | "auto" => AddressMethod::Dhcp,
        "manual" => AddressMethod::None,
        _ => AddressMethod::Unknown,
    };
    Some(Configured {
        name: name.to_owned(),
        method,
        ..Configured::default()
    })
}

fn set(stanza: &mut Configured, option: &str, values: &[&str]) {
    let first = values.first().copied().unwrap_or_default();
    let ports = || {
        values
            .iter()
            .filter(|port| !matches!(**port, "none" | "regex"))
    };
    let ports = || ports().map(|port| (*port).to_owned());
    match option.replace('_', "-").as_str() {
        "address" => stanza.addresses.push(first.to_owned()),
        "gateway" => stanza.routes.push(Route {
            to: "default".to_owned(),
            gateway: first.to_owned(),
            nic: stanza.name.clone(),
        }),
        // The address that it is given, not the one that it has.
        "hwaddress" => stanza.set_mac = values.last().copied().unwrap_or_default().to_owned(),
        "mtu" => stanza.mtu = first.parse().ok(),
        "dns-nameservers" => stanza.name_servers.extend(ports()),
        "bond-slaves" | "slaves" => {
            stanza.kind = Some(NicKind::Bond);
            stanza.ports.extend(ports());
        }
        "bridge-ports" => {
            stanza.kind = Some(NicKind::Bridge);
            stanza.ports.extend(ports());
        }
        "vlan-raw-device" => {
            stanza.kind = Some(NicKind::Vlan);
            stanza.ports.extend(ports());
        }
        _ => {}
    }
}

/// Puts the mask to the address that has none.
fn end(stanza: Option<&mut Configured>, mask: &str) {
    let address = stanza.and_then(|stanza| stanza.addresses.last_mut());
    if let (Some(address), Some(prefix)) = (address, prefix_of_mask(mask))
        && !address.contains('/')
    {
        address.push_str(&format!("/{prefix}"));
    }
}
