//! Connections of NetworkManager, see nm-settings-keyfile(5).

use super::{Configured, ini};
use crate::p2v::inventory::model::{AddressMethod, NicKind, Route};

/// A connection, and what it calls itself: others name it so as what they are ports of.
pub(super) struct Connection {
    pub(super) uuid: String,
    /// Of what it is a port: an interface or a connection's identity.
    pub(super) controller: String,
    pub(super) configured: Configured,
}

/// Returns what a connection configures; none if it is of no network card.
pub(super) fn parse(text: &str) -> Option<Connection> {
    let sections = ini::parse(text);
    let value = |section, key| ini::value(&sections, section, key);
    let kind = match value("connection", "type") {
        "ethernet" | "802-3-ethernet" | "wifi" | "802-11-wireless" | "infiniband" => None,
        "bond" => Some(NicKind::Bond),
        "bridge" => Some(NicKind::Bridge),
        "vlan" => Some(NicKind::Vlan),
        "team" | "dummy" | "tun" | "macvlan" | "ip-tunnel" | "vxlan" => Some(NicKind::Virtual),
        _ => return None,
    };
    let first = |values: &[&str]| {
        let found = values.iter().find(|value| !value.is_empty());
        found.copied().unwrap_or_default().to_owned()
    };
    let of_card = |key| {
        first(&[
            value("ethernet", key),
            value("802-3-ethernet", key),
            value("wifi", key),
        ])
    };
    let mut configured = Configured {
        name: first(&[
            value("connection", "interface-name"),
            value("vlan", "interface-name"),
        ]),
        id: value("connection", "id").to_owned(),
        kind,
        mac: of_card("mac-address"),
        set_mac: of_card("cloned-mac-address"),
        mtu: of_card("mtu").parse().ok(),
        vlan: value("vlan", "id").parse().ok(),
        ports: Some(value("vlan", "parent"))
            .filter(|parent| !parent.is_empty())
            .map(str::to_owned)
            .into_iter()
            .collect(),
        ..Configured::default()
    };
    for section in sections
        .iter()
        .filter(|one| matches!(one.name.as_str(), "ipv4" | "ipv6"))
    {
        add_addresses(&mut configured, section);
    }
    Some(Connection {
        uuid: value("connection", "uuid").to_owned(),
        controller: first(&[
            value("connection", "controller"),
            value("connection", "master"),
        ]),
        configured,
    })
}

fn add_addresses(configured: &mut Configured, section: &ini::Section) {
    let method = match section.value("method") {
        "auto" | "dhcp" => AddressMethod::Dhcp,
        "manual" => AddressMethod::Static,
        _ => AddressMethod::None,
    };
    // What IPv4 says counts, unless that has nothing.
    if section.name == "ipv4" || matches!(configured.method, AddressMethod::Unknown) {
        configured.method = method;
    }
    let mut gateways: Vec<String> = vec![section.value("gateway").to_owned()];
    for begin in ["address", "addresses"] {
        for text in section.numbered(begin) {
            // ADDRESS/PREFIX[,GATEWAY]
            let mut parts = text.split([',', ';']).map(str::trim);
            configured.addresses.extend(
                parts
                    .next()
                    .filter(|one| !one.is_empty())
                    .map(str::to_owned),
            );
            gateways.extend(parts.next().map(str::to_owned));
        }
    }
    gateways.retain(|gateway| !gateway.is_empty() && gateway != "0.0.0.0" && gateway != "::");
    gateways.dedup();
    let of_routes = section.numbered("route").filter_map(|text| {
        let mut parts = text.split(',').map(str::trim);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    });
    let all = gateways
        .into_iter()
        .map(|gateway| ("default".to_owned(), gateway))
        .chain(of_routes);
    let nic = configured.name.clone();
    let all = all.map(|(to, gateway)| Route {
        to,
        gateway,
        nic: nic.clone(),
    });
    configured.routes.extend(all);
    let servers = section.value("dns").split([';', ',']).map(str::trim);
    configured
        .name_servers
        .extend(servers.filter(|one| !one.is_empty()).map(str::to_owned));
}
