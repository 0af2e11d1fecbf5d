//! `/etc/netplan/*.yaml`, see netplan(5).

use super::{Configured, yaml};
use crate::p2v::inventory::model::{AddressMethod, NicKind, Route};

/// The kinds of interfaces by their sections.
const SECTIONS: &[(&str, NicKind)] = &[
    ("ethernets", NicKind::Physical),
    ("wifis", NicKind::Physical),
    ("bonds", NicKind::Bond),
    ("bridges", NicKind::Bridge),
    ("vlans", NicKind::Vlan),
];

/// Returns what one file configures; none if it is not understood.
pub(super) fn parse(text: &str) -> Option<Vec<Configured>> {
    let value = yaml::parse(text)?;
    let network = value.get("network");
    let mut all = Vec::new();
    for (section, kind) in SECTIONS {
        let entries = network.and_then(|network| network.get(section));
        for (id, entry) in entries.map_or(&[][..], yaml::Value::pairs) {
            all.push(interface(id, entry, *kind));
        }
    }
    Some(all)
}

fn interface(id: &str, entry: &yaml::Value, kind: NicKind) -> Configured {
    let list = |key: &str| entry.get(key).map_or(&[][..], yaml::Value::list);
    let matched = entry.get("match");
    let of_match = |key: &str| {
        matched
            .map_or("", |matched| matched.text_of(key))
            .to_owned()
    };
    // Without a match the identity is the name.
    let name = match (entry.text_of("set-name"), matched) {
        ("", None) => id.to_owned(),
        ("", Some(_)) => of_match("name"),
        (name, _) => name.to_owned(),
    };
    let has_dhcp = ["dhcp4", "dhcp6"]
        .iter()
        .any(|key| matches!(entry.text_of(key), "true" | "yes" | "on"));
    // An address may be a mapping with a label.
    let addresses = list("addresses")
        .iter()
        .map(|address| match address.pairs() {
            [(address, _), ..] => address.clone(),
            [] => address.text().to_owned(),
        });
    let addresses: Vec<String> = addresses.filter(|text| !text.is_empty()).collect();
    let of_routes = list("routes").iter().map(|route| Route {
        to: route.text_of("to").to_owned(),
        gateway: route.text_of("via").to_owned(),
        nic: name.clone(),
    });
    let of_gateways = ["gateway4", "gateway6"].iter().map(|key| Route {
        to: "default".to_owned(),
        gateway: entry.text_of(key).to_owned(),
        nic: name.clone(),
    });
    let routes = of_gateways.chain(of_routes);
    let servers = entry
        .get("nameservers")
        .and_then(|servers| servers.get("addresses"));
    let servers = servers.map_or(&[][..], yaml::Value::list).iter();
    let mut ports: Vec<String> = list("interfaces")
        .iter()
        .map(|port| port.text().to_owned())
        .collect();
    ports.extend(Some(entry.text_of("link").to_owned()).filter(|link| !link.is_empty()));
    Configured {
        id: id.to_owned(),
        kind: Some(kind),
        mac: of_match("macaddress"),
        ports,
        vlan: entry
            .text_of("id")
            .parse()
            .ok()
            .filter(|_| kind == NicKind::Vlan),
        mtu: entry.text_of("mtu").parse().ok(),
        method: match (has_dhcp, addresses.is_empty()) {
            (true, _) => AddressMethod::Dhcp,
            (false, false) => AddressMethod::Static,
            (false, true) => AddressMethod::None,
        },
        addresses,
        routes: routes.filter(|route| !route.gateway.is_empty()).collect(),
        name_servers: servers.map(|server| server.text().to_owned()).collect(),
        name,
        ..Configured::default()
    }
}
