//! `ifcfg-*` of Red Hat (`/etc/sysconfig/network-scripts`) and SUSE (`/etc/sysconfig/network`).

use hako_guest::os::variables;

use super::{Configured, prefix_of_mask};
use crate::p2v::inventory::model::{AddressMethod, NicKind, Route};

/// Returns what a file configures, and the interface of which that one is a port; `name` is what
/// stands behind `ifcfg-`.
pub(super) fn parse(name: &str, text: &str) -> Option<(Configured, String)> {
    let values = variables(text.as_bytes());
    let value = |key: &str| values.get(key).map_or("", |value| value.trim());
    let first = |keys: &[&str]| {
        let found = keys
            .iter()
            .map(|key| value(key))
            .find(|value| !value.is_empty());
        found.unwrap_or_default().to_owned()
    };
    let device = match first(&["DEVICE"]) {
        device if device.is_empty() => name.to_owned(),
        device => device,
    };
    if device == "lo" || name == "lo" {
        return None;
    }
    let mut ports: Vec<String> = value("BRIDGE_PORTS")
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    let of_bond = values
        .iter()
        .filter(|(key, _)| key.starts_with("BONDING_SLAVE"));
    ports.extend(of_bond.map(|(_, port)| port.clone()));
    let vlan_of = first(&["ETHERDEVICE", "PHYSDEV"]);
    let is_vlan = value("VLAN") == "yes" || !vlan_of.is_empty();
    let is_bond = value("TYPE") == "Bond"
        || value("BONDING_MASTER") == "yes"
        || !value("BONDING_OPTS").is_empty();
    let is_bridge = value("TYPE") == "Bridge" || value("BRIDGE") == "yes";
    if is_vlan {
        let of_name = device.rsplit_once('.').map(|(port, _)| port.to_owned());
        ports.extend(Some(vlan_of).filter(|port| !port.is_empty()).or(of_name));
    }
    let addresses = addresses(&values);
    let method = match value("BOOTPROTO") {
        "dhcp" | "bootp" | "dhcp4" | "dhcp6" | "dhcp+autoip" => AddressMethod::Dhcp,
        _ if !addresses.is_empty() => AddressMethod::Static,
        _ => AddressMethod::None,
    };
    let gateway = first(&["GATEWAY", "GATEWAY0"]);
    let servers = values.iter().filter(|(key, _)| {
        key.strip_prefix("DNS")
            .is_some_and(|rest| rest.parse::<u8>().is_ok())
    });
    let configured = Configured {
        kind: match () {
            () if is_vlan => Some(NicKind::Vlan),
            () if is_bond => Some(NicKind::Bond),
            () if is_bridge => Some(NicKind::Bridge),
            () => None,
        },
        mac: first(&["HWADDR"]),
        set_mac: first(&["MACADDR", "LLADDR"]),
        mtu: value("MTU").parse().ok(),
        vlan: first(&["VLAN_ID"]).parse().ok(),
        ports,
        addresses,
        method,
        routes: Some(gateway)
            .filter(|gateway| !gateway.is_empty())
            .map(|gateway| Route {
                to: "default".to_owned(),
                gateway,
                nic: device.clone(),
            })
            .into_iter()
            .collect(),
        name_servers: servers.map(|(_, server)| server.clone()).collect(),
        name: device,
        ..Configured::default()
    };
    let above = match value("BRIDGE") {
        "" | "yes" => value("MASTER").to_owned(),
        bridge => bridge.to_owned(),
    };
    Some((configured, above))
}

/// Returns the addresses: `IPADDR`, `IPADDR0` … each with its prefix or mask.
fn addresses(values: &std::collections::BTreeMap<String, String>) -> Vec<String> {
    let mut all = Vec::new();
    for (key, address) in values {
        let Some(number) = key.strip_prefix("IPADDR").filter(|_| !address.is_empty()) else {
            continue;
        };
        let value = |key: &str| {
            values
                .get(&format!("{key}{number}"))
                .map_or("", String::as_str)
        };
        let prefix = match (value("PREFIX"), value("PREFIXLEN")) {
            ("", "") => prefix_of_mask(value("NETMASK")).map(|prefix| prefix.to_string()),
            ("", prefix) | (prefix, _) => Some(prefix.to_owned()),
        };
        all.push(match prefix {
            Some(prefix) if !address.contains('/') => format!("{address}/{prefix}"),
            _ => address.clone(),
        });
    }
    let six = ["IPV6ADDR", "IPV6ADDR_SECONDARIES"];
    let six = six.iter().filter_map(|key| values.get(*key));
    all.extend(
        six.flat_map(|text| text.split_ascii_whitespace())
            .map(str::to_owned),
    );
    all
}
