//! `*.network`, `*.netdev` and `*.link` of systemd, see systemd.network(5).

use super::{Configured, ini};
use crate::p2v::inventory::model::{AddressMethod, NicKind, Route};

/// Returns what a file of systemd configures, by how its name ends.
pub(super) fn parse(name: &str, text: &str) -> Vec<Configured> {
    let sections = ini::parse(text);
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("network") => network(&sections),
        Some("netdev") => netdev(&sections).into_iter().collect(),
        Some("link") => link(&sections).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// The address that an interface is known by.
fn matched_mac(sections: &[ini::Section]) -> String {
    let value = |key| ini::value(sections, "Match", key);
    let macs = [value("PermanentMACAddress"), value("MACAddress")];
    let words = macs.iter().flat_map(|macs| macs.split_ascii_whitespace());
    words.take(1).collect()
}

fn network(sections: &[ini::Section]) -> Vec<Configured> {
    let value = |section, key| ini::value(sections, section, key);
    let names = value("Match", "Name").split_ascii_whitespace();
    let names: Vec<&str> = names.filter(|name| !name.starts_with('!')).collect();
    let of = |section: &'static str| sections.iter().filter(move |known| known.name == section);
    let of_network = of("Network").flat_map(|section| section.values("Address"));
    let of_address = of("Address").flat_map(|section| section.values("Address"));
    let addresses: Vec<String> = of_network.chain(of_address).map(str::to_owned).collect();
    let has_dhcp = matches!(
        value("Network", "DHCP"),
        "yes" | "true" | "both" | "ipv4" | "ipv6" | "v4" | "v6"
    );
    let base = Configured {
        mac: matched_mac(sections),
        set_mac: value("Link", "MACAddress").to_owned(),
        mtu: value("Link", "MTUBytes").parse().ok(),
        method: match (has_dhcp, addresses.is_empty()) {
            (true, _) => AddressMethod::Dhcp,
            (false, false) => AddressMethod::Static,
            (false, true) => AddressMethod::None,
        },
        addresses,
        name_servers: of("Network")
            .flat_map(|one| one.values("DNS"))
            .map(str::to_owned)
            .collect(),
        ..Configured::default()
    };
    // Of whom it is a part, and what is made of it.
    let mut all: Vec<Configured> = Vec::new();
    let names = if names.is_empty() { vec![""] } else { names };
    for name in names {
        let gateways = of("Network").flat_map(|section| section.values("Gateway"));
        let gateways = gateways.map(|gateway| ("default", gateway));
        let routes = of("Route").map(|route| {
            let to = Some(route.value("Destination")).filter(|to| !to.is_empty());
            (to.unwrap_or("default"), route.value("Gateway"))
        });
        let routes = gateways
            .chain(routes)
            .filter(|(_, gateway)| !gateway.is_empty());
        all.push(Configured {
            name: name.to_owned(),
            routes: routes
                .map(|(to, gateway)| Route {
                    to: to.to_owned(),
                    gateway: gateway.to_owned(),
                    nic: name.to_owned(),
                })
                .collect(),
            ..base.clone()
        });
        for (key, kind) in [
            ("Bond", NicKind::Bond),
            ("Bridge", NicKind::Bridge),
            ("VLAN", NicKind::Vlan),
        ] {
            for above in of("Network").flat_map(|section| section.values(key)) {
                all.push(Configured {
                    name: above.to_owned(),
                    kind: Some(kind),
                    ports: vec![name.to_owned()],
                    ..Configured::default()
                });
            }
        }
    }
    all
}

fn netdev(sections: &[ini::Section]) -> Option<Configured> {
    let value = |section, key| ini::value(sections, section, key);
    let name = value("NetDev", "Name");
    let kind = match value("NetDev", "Kind") {
        "bond" => NicKind::Bond,
        "bridge" => NicKind::Bridge,
        "vlan" => NicKind::Vlan,
        _ => NicKind::Virtual,
    };
    (!name.is_empty()).then(|| Configured {
        name: name.to_owned(),
        kind: Some(kind),
        vlan: value("VLAN", "Id").parse().ok(),
        set_mac: value("NetDev", "MACAddress").to_owned(),
        ..Configured::default()
    })
}

/// A `.link` that gives the card with an address its name.
fn link(sections: &[ini::Section]) -> Option<Configured> {
    let mac = matched_mac(sections);
    let name = ini::value(sections, "Link", "Name");
    (!mac.is_empty() && !name.is_empty()).then(|| Configured {
        name: name.to_owned(),
        mac,
        ..Configured::default()
    })
}
