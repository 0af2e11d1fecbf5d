//! Network interfaces by `/sys/class/net`, their routes by `/proc/net`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use hako_guest::Tree;

use super::super::model::{Inventory, Nic, NicKind, Route};
use super::super::system::{link, names, number, text, word};
use super::netlink;
use super::paths::real_path;

/// The type of Ethernet and of InfiniBand in `/sys/class/net/*/type`: others are no cards.
const CARDS: [u32; 2] = [1, 32];

/// Adds the interfaces and routes. Below another root than `/` nobody can be asked: `/proc/net` may be
/// there, and tells addresses of IPv6 only.
pub(super) fn add(inventory: &mut Inventory, tree: &Tree, root: &Path) {
    let known = match root == Path::new("/") {
        true => netlink::ask(),
        false => None,
    };
    let bonded = bonded(tree);
    let of_files = match known {
        Some(_) => Vec::new(),
        None => addresses(tree),
    };
    for name in names(tree, "/sys/class/net") {
        let place = format!("/sys/class/net/{name}");
        let kind = number::<u32>(tree, &format!("{place}/type"));
        if name == "lo" || !kind.is_some_and(|kind| CARDS.contains(&kind)) {
            continue;
        }
        let mut nic = nic(tree, &place, &name);
        let told = known.iter().flatten().find(|told| told.name == name);
        if let Some(told) = told {
            nic.addresses.clone_from(&told.addresses);
            nic.permanent_mac.clone_from(&told.permanent_mac);
        }
        let own = of_files.iter().filter(|(of, _)| *of == name);
        nic.addresses
            .extend(own.map(|(_, address)| address.clone()));
        if nic.permanent_mac.is_empty()
            && let Some((_, mac)) = bonded.iter().find(|(port, _)| *port == name)
        {
            nic.permanent_mac.clone_from(mac);
        }
        inventory.nics.push(nic);
    }
    inventory.routes = routes(tree);
    inventory.routes.extend(routes_of_six(tree));
}

fn nic(tree: &Tree, place: &str, name: &str) -> Nic {
    let of = |file: &str| word(tree, &format!("{place}/{file}"));
    let value = |file: &str| number::<u32>(tree, &format!("{place}/{file}"));
    let is_hardware = tree.find(format!("{place}/device").as_bytes()).is_ok();
    let mut nic = Nic {
        name: name.to_owned(),
        mac: of("address"),
        driver: link(tree, &format!("{place}/device/driver")),
        speed_mbps: value("speed").filter(|speed| (1..1_000_000).contains(speed)),
        mtu: value("mtu"),
        is_up: match of("operstate").as_str() {
            "up" => Some(true),
            "down" | "lowerlayerdown" | "notpresent" => Some(false),
            _ => value("carrier").map(|carrier| carrier == 1),
        },
        ..Nic::default()
    };
    // 0: what it was made with.
    if is_hardware && value("addr_assign_type") == Some(0) && !is_port(tree, place) {
        nic.permanent_mac.clone_from(&nic.mac);
    }
    let devices = real_path(tree, &format!("{place}/device"));
    let mut on_pci = devices
        .iter()
        .rev()
        .filter(|name| name.contains(':') && name.contains('.'));
    nic.bus_address = on_pci.next().cloned().unwrap_or_default();
    let ports = |folder: &str| names(tree, &format!("{place}/{folder}"));
    let has = |folder: &str| tree.find(format!("{place}/{folder}").as_bytes()).is_ok();
    let event = of("uevent");
    let kind_of_event = event.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    (nic.kind, nic.ports) = match () {
        () if has("bonding") => {
            let slaves = of("bonding/slaves");
            let slaves = slaves.split_ascii_whitespace().map(str::to_owned);
            (NicKind::Bond, slaves.collect())
        }
        () if has("bridge") => (NicKind::Bridge, ports("brif")),
        () if kind_of_event == Some("vlan") => (NicKind::Vlan, lower(tree, place)),
        () if is_hardware => (NicKind::Physical, Vec::new()),
        () => (NicKind::Virtual, lower(tree, place)),
    };
    if nic.kind == NicKind::Vlan {
        let about = text(tree, &format!("/proc/net/vlan/{name}"));
        let number = about
            .lines()
            .next()
            .and_then(|line| line.split_once("VID:"));
        let number =
            number.and_then(|(_, rest)| rest.split_ascii_whitespace().next()?.parse().ok());
        let of_name = || {
            name.rsplit_once('.')
                .and_then(|(_, number)| number.parse().ok())
        };
        nic.vlan = number.or_else(of_name);
    }
    nic
}

/// Returns what an interface is made of, by the links that it has to those.
fn lower(tree: &Tree, place: &str) -> Vec<String> {
    let all = names(tree, place).into_iter();
    let below = all.filter_map(|name| name.strip_prefix("lower_").map(str::to_owned));
    below.collect()
}

/// Whether an interface is a part of another one, whose address it may have.
fn is_port(tree: &Tree, place: &str) -> bool {
    tree.find_no_follow(format!("{place}/master").as_bytes())
        .is_ok()
}

/// Returns the ports of bonds with the addresses that they had before.
fn bonded(tree: &Tree) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for bond in names(tree, "/proc/net/bonding") {
        let about = text(tree, &format!("/proc/net/bonding/{bond}"));
        let mut port = String::new();
        for line in about.lines() {
            if let Some(name) = line.strip_prefix("Slave Interface:") {
                port = name.trim().to_owned();
            } else if let Some(mac) = line.strip_prefix("Permanent HW addr:") {
                all.push((port.clone(), mac.trim().to_lowercase()));
            }
        }
    }
    all
}

/// Returns addresses of IPv6 by `/proc/net/if_inet6`: the address, the interface's number, the prefix,
/// the scope and flags in hexadecimal digits, the interface's name.
fn addresses(tree: &Tree) -> Vec<(String, String)> {
    /// Scope of all networks.
    const GLOBAL: u32 = 0;
    let table = text(tree, "/proc/net/if_inet6");
    let all = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_passing = hex(&words, 4)? & u32::from(netlink::TEMPORARY) != 0;
        let is_kept = hex(&words, 3)? == GLOBAL && !is_passing;
        let address = format!("{}/{}", six(words.first()?)?, hex(&words, 2)?);
        is_kept.then(|| {
            (
                words.get(5).copied().unwrap_or_default().to_owned(),
                address,
            )
        })
    });
    all.collect()
}

/// Returns the number at a place of a line, in hexadecimal digits.
fn hex(words: &[&str], at: usize) -> Option<u32> {
    u32::from_str_radix(words.get(at)?, 16).ok()
}

/// Returns an address of IPv6 by its 32 hexadecimal digits.
fn six(digits: &str) -> Option<Ipv6Addr> {
    let is_one = digits.len() == 32;
    let number = u128::from_str_radix(digits, 16).ok().filter(|_| is_one)?;
    Some(Ipv6Addr::from(number))
}

/// Returns the routes over gateways of IPv6 by `/proc/net/ipv6_route`: where to and its prefix, where
/// from and its prefix, the gateway, the metric, two counters, flags; all in hexadecimal digits.
fn routes_of_six(tree: &Tree) -> Vec<Route> {
    /// Flags: up, over a gateway, and refused.
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    const REJECT: u32 = 0x200;
    let table = text(tree, "/proc/net/ipv6_route");
    let routes = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (to, gateway) = (six(words.first()?)?, six(words.get(4)?)?);
        if hex(&words, 8)? & (UP | GATEWAY | REJECT) != UP | GATEWAY {
            return None;
        }
        Some(Route {
            to: match hex(&words, 1)? {
                0 => "default".to_owned(),
                prefix => format!("{to}/{prefix}"),
            },
            gateway: gateway.to_string(),
            nic: (*words.get(9)?).to_owned(),
        })
    });
    routes.collect()
}

/// Returns the routes over gateways: of IPv4 by `/proc/net/route`, whose numbers are in the machine's
/// byte order.
fn routes(tree: &Tree) -> Vec<Route> {
    let table = text(tree, "/proc/net/route");
    let routes = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let address = |at: usize| {
            let number = hex(&words, at)?;
            Some(Ipv4Addr::from(number.to_ne_bytes()))
        };
        let (to, gateway, mask) = (address(1)?, address(2)?, address(7)?);
        if gateway.is_unspecified() {
            return None;
        }
        Some(Route {
            to: match u32::from(mask).leading_ones() {
                0 => "default".to_owned(),
                prefix => format!("{to}/{prefix}"),
            },
            gateway: gateway.to_string(),
            nic: (*words.first()?).to_owned(),
        })
    });
    routes.collect()
}
