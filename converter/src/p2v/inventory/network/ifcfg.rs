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
        routes: [gateway, first(&["IPV6_DEFAULTGW"])]
            .into_iter()
            .filter(|gateway| !gateway.is_empty())
            .map(|gateway| Route {
                to: "default".to_owned(),
                // `fe80::1%eth0`
                gateway: gateway.split('%').next().unwrap_or_default().to_owned(),
                nic: device.clone(),
            })
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

/// Returns the routes of Red Hat's `route-NAME` and `route6-NAME` (lines of ip-route(8), or `ADDRESS0=`
/// …) and SUSE's `routes` and `ifroute-NAME` (`TO GATEWAY NETMASK NAME`), an interface each.
pub(super) fn routes(path: &str, text: &str) -> Vec<Configured> {
    let file = path.rsplit('/').next().unwrap_or_default();
    let begins = ["route-", "route6-", "ifroute-"];
    let of_file = begins.iter().find_map(|begin| file.strip_prefix(begin));
    if of_file.is_none() && file != "routes" {
        return Vec::new();
    }
    let of_file = of_file.unwrap_or_default();
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with('#') && !line.contains('='));
    let of_lines = lines.filter_map(|line| route(line, of_file));
    let values = variables(text.as_bytes());
    let numbered = values.iter().filter_map(|(key, to)| {
        let number = key.strip_prefix("ADDRESS")?;
        let mask = values.get(&format!("NETMASK{number}"))?;
        Some(Route {
            to: format!("{to}/{}", prefix_of_mask(mask)?),
            gateway: values.get(&format!("GATEWAY{number}"))?.clone(),
            nic: of_file.to_owned(),
        })
    });
    let all = of_lines.chain(numbered).map(|route| Configured {
        name: route.nic.clone(),
        file: path.to_owned(),
        routes: vec![route],
        ..Configured::default()
    });
    all.collect()
}

fn route(line: &str, of_file: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let behind = |key: &str| {
        let at = words.iter().position(|word| *word == key)?;
        words.get(at + 1).copied()
    };
    let given = |at: usize| words.get(at).copied().filter(|word| *word != "-");
    let gateway = behind("via").or_else(|| given(1))?;
    gateway.parse::<std::net::IpAddr>().ok()?;
    let to = match (*words.first()?, given(2).and_then(prefix_of_mask)) {
        (to, Some(prefix)) if !to.contains('/') && to != "default" => format!("{to}/{prefix}"),
        (to, _) => to.to_owned(),
    };
    let nic = behind("dev").or_else(|| given(3).filter(|_| behind("via").is_none()));
    Some(Route {
        to,
        gateway: gateway.to_owned(),
        nic: nic.unwrap_or(of_file).to_owned(),
    })
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
