//! What a system's files say of its network: ifupdown, systemd-networkd, netplan, NetworkManager,
//! ifcfg, and the names that udev gives.
//!
//! Nothing is looked up and nothing expanded: a file that describes more than one interface by a
//! pattern is named in those that it fits, and its addresses count for none of them.

mod hardware;
mod ifcfg;
mod ifupdown;
mod ini;
mod keyfile;
mod netplan;
mod networkd;
#[cfg(test)]
mod tests;
mod udev;
mod yaml;

use hako_formats::machine::Mac;
use hako_guest::Tree;

use super::model::{AddressMethod, Inventory, Nic, NicKind, Route};
use super::system::{names, text};
pub(in crate::p2v) use hardware::{ByHardware, by_hardware};

/// A network card's name, and the address that it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicName {
    /// The name that the system's texts call it by.
    pub name: String,
    /// Its address.
    pub mac: Mac,
}

/// A file that knows a card by its address.
#[derive(Debug, Clone)]
pub(in crate::p2v) struct KnownBy {
    pub(in crate::p2v) nic: NicName,
    /// Its path.
    pub(in crate::p2v) file: String,
    /// Whether it says the name itself.
    pub(in crate::p2v) gives_name: bool,
    /// What the file itself calls it, which is no name that the system knows.
    pub(in crate::p2v) id: String,
}

/// What a file says of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Configured {
    /// Its name; empty if only its address is said.
    name: String,
    /// What its file itself calls it, if that is not the name.
    id: String,
    /// The address that it is known by.
    mac: String,
    /// The address that it is given.
    set_mac: String,
    kind: Option<NicKind>,
    ports: Vec<String>,
    vlan: Option<u16>,
    mtu: Option<u32>,
    addresses: Vec<String>,
    method: AddressMethod,
    routes: Vec<Route>,
    name_servers: Vec<String>,
    /// The file.
    file: String,
}

/// Interfaces that are listed, and things that files say of them: more than any machine has.
const MOST_NICS: usize = 1000;
const MOST_SAID: usize = 10_000;

/// What is known of a machine's interfaces before its files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    Nothing,
    /// All that it has, but not all of their addresses.
    Cards,
    /// All that it has, as they are.
    All,
}

/// Adds what the files say to the interfaces that are known, and those that only they know.
pub(super) fn add(inventory: &mut Inventory, tree: &Tree, known: Known) {
    let mut all = said(tree, &mut inventory.remarks);
    name_the_nameless(&mut all, &inventory.nics);
    for configured in all.iter().filter(|one| is_pattern(&one.name)) {
        let fits = inventory.nics.iter_mut();
        for nic in fits.filter(|nic| fits_pattern(&configured.name, &nic.name)) {
            add_file(nic, &configured.file);
        }
    }
    for configured in all.into_iter().filter(|one| !is_pattern(&one.name)) {
        merge(inventory, configured, known);
    }
    let resolv = text(tree, "/etc/resolv.conf");
    let servers = resolv
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    for server in servers
        .map(str::trim)
        .filter(|server| !server.starts_with("127."))
    {
        push_new(&mut inventory.name_servers, server);
    }
}

/// Returns the names of cards that files know by their addresses, and those; where nothing says the name
/// the address stands for it.
pub(in crate::p2v) fn known_by(tree: &Tree) -> Vec<KnownBy> {
    let mut all = said(tree, &mut Vec::new());
    let gives_name: Vec<bool> = all.iter().map(|one| !one.name.is_empty()).collect();
    name_the_nameless(&mut all, &[]);
    let is_card = |one: &Configured| one.kind.is_none_or(|kind| kind == NicKind::Physical);
    let cards = all.into_iter().zip(gives_name);
    let known = cards.filter_map(|(one, gives_name)| {
        let mac = one.mac.parse().ok()?;
        (!is_pattern(&one.name) && is_card(&one)).then_some(KnownBy {
            nic: NicName {
                name: one.name,
                mac,
            },
            file: one.file,
            gives_name,
            id: one.id,
        })
    });
    known.collect()
}

/// Returns all that files say.
fn said(tree: &Tree, remarks: &mut Vec<String>) -> Vec<Configured> {
    let mut all = Vec::new();
    all.extend(udev_names(tree));
    all.extend(of_networkd(tree));
    all.extend(of_ifupdown(tree));
    all.extend(of_ifcfg(tree));
    all.extend(of_network_manager(tree));
    all.extend(of_netplan(tree, remarks));
    all.truncate(MOST_SAID);
    all
}

/// Gives what is known by its address the name that something else gives to that.
fn name_the_nameless(all: &mut [Configured], nics: &[Nic]) {
    let mut names: Vec<(String, String)> = Vec::new();
    for nic in nics {
        for mac in [&nic.permanent_mac, &nic.mac] {
            names.push((mac.to_lowercase(), nic.name.clone()));
        }
    }
    for one in all.iter().filter(|one| !one.name.is_empty()) {
        names.push((one.mac.to_lowercase(), one.name.clone()));
    }
    names.retain(|(mac, _)| !mac.is_empty());
    for one in all.iter_mut().filter(|one| one.name.is_empty()) {
        let mac = one.mac.to_lowercase();
        let found = names.iter().find(|(known, _)| *known == mac);
        // A card of which nothing says the name still is one.
        one.name = match found {
            Some((_, name)) => name.clone(),
            None => mac,
        };
        for route in &mut one.routes {
            route.nic.clone_from(&one.name);
        }
    }
}

fn merge(inventory: &mut Inventory, configured: Configured, known_before: Known) {
    let Configured {
        name,
        id: _,
        mac,
        set_mac,
        kind,
        ports,
        vlan,
        mtu,
        addresses,
        method,
        routes,
        name_servers,
        file,
    } = configured;
    if name.is_empty() || name == "lo" {
        return;
    }
    let known = inventory.nics.iter().position(|nic| nic.name == name);
    let is_new = known.is_none();
    let at = match known {
        Some(at) => at,
        None if known_before != Known::Nothing => return,
        None if inventory.nics.len() >= MOST_NICS => return,
        None => {
            inventory.nics.push(Nic {
                kind: kind_of_name(&name),
                ..Nic::default()
            });
            inventory.nics.len() - 1
        }
    };
    let Some(nic) = inventory.nics.get_mut(at) else {
        return;
    };
    if is_new {
        nic.vlan = vlan_of_name(&name);
        nic.ports = port_of_name(&name);
        nic.name = name;
    }
    if known_before == Known::Nothing {
        set_if_empty(&mut nic.permanent_mac, mac.to_lowercase());
        set_if_empty(&mut nic.mac, set_mac.to_lowercase());
        if let Some(kind) = kind.filter(|kind| *kind != NicKind::Physical) {
            nic.kind = kind;
        }
        nic.vlan = nic.vlan.or(vlan);
        nic.mtu = nic.mtu.or(mtu);
        for port in ports {
            push_new(&mut nic.ports, &port);
        }
        for route in routes {
            if inventory.routes.len() < MOST_NICS && !inventory.routes.contains(&route) {
                inventory.routes.push(route);
            }
        }
    }
    if known_before != Known::All {
        for address in addresses {
            push_new(&mut nic.addresses, &plain(&address));
        }
    }
    // What says more counts more: an address is more than none.
    let weight = |method| match method {
        AddressMethod::Unknown => 0,
        AddressMethod::None => 1,
        AddressMethod::Dhcp => 2,
        AddressMethod::Static => 3,
    };
    if weight(method) > weight(nic.method) {
        nic.method = method;
    }
    add_file(nic, &file);
    for server in name_servers {
        push_new(&mut inventory.name_servers, &server);
    }
}

fn set_if_empty(text: &mut String, value: String) {
    if text.is_empty() {
        *text = value;
    }
}

fn push_new(list: &mut Vec<String>, text: &str) {
    if !text.is_empty() && list.len() < MOST_NICS && !list.iter().any(|known| known == text) {
        list.push(text.to_owned());
    }
}

fn add_file(nic: &mut Nic, file: &str) {
    push_new(&mut nic.configured_in, file);
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Whether a name fits a pattern with at most stars at its end: others fit nothing.
fn fits_pattern(pattern: &str, name: &str) -> bool {
    let begin = pattern.trim_end_matches('*');
    !is_pattern(begin) && name.starts_with(begin) && begin != pattern
}

fn kind_of_name(name: &str) -> NicKind {
    let number_after = |begin: &str| {
        let rest = name.strip_prefix(begin);
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match () {
        () if vlan_of_name(name).is_some() => NicKind::Vlan,
        () if number_after("bond") => NicKind::Bond,
        () if number_after("br") || number_after("vmbr") || number_after("virbr") => {
            NicKind::Bridge
        }
        () if ["tun", "tap", "dummy", "veth", "wg", "docker"]
            .iter()
            .any(|one| name.starts_with(one)) =>
        {
            NicKind::Virtual
        }
        () => NicKind::Physical,
    }
}

/// The number in `eth0.10` and `vlan10`.
fn vlan_of_name(name: &str) -> Option<u16> {
    let number = match name.rsplit_once('.') {
        Some((_, number)) => number,
        None => name.strip_prefix("vlan")?,
    };
    number.parse().ok().filter(|vlan| (1..4095).contains(vlan))
}

fn port_of_name(name: &str) -> Vec<String> {
    let port = name
        .rsplit_once('.')
        .filter(|_| vlan_of_name(name).is_some());
    port.map(|(port, _)| port.to_owned()).into_iter().collect()
}

/// Returns an address as the kernel writes it: IPv6 may be written in many ways.
fn plain(address: &str) -> String {
    let (host, prefix) = address.split_once('/').unwrap_or((address, ""));
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(host) if !prefix.is_empty() => format!("{host}/{prefix}"),
        Ok(host) => host.to_string(),
        Err(_) => address.to_owned(),
    }
}

/// Returns the length of a network's prefix by its mask, or the number that it is.
fn prefix_of_mask(mask: &str) -> Option<u32> {
    if let Ok(prefix) = mask.parse::<u32>() {
        return Some(prefix).filter(|prefix| *prefix <= 128);
    }
    let bits = u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?);
    let prefix = bits.leading_ones();
    (bits.checked_shl(prefix).unwrap_or(0) == 0).then_some(prefix)
}

/// Returns the files of a folder whose names end so, with their texts.
fn files<'a>(
    tree: &'a Tree,
    folder: &'a str,
    end: &'a str,
) -> impl Iterator<Item = (String, String)> + 'a {
    let all = names(tree, folder).into_iter();
    all.filter(move |name| name.ends_with(end))
        .map(move |name| {
            let path = format!("{folder}/{name}");
            let text = text(tree, &path);
            (path, text)
        })
}

fn in_file(mut configured: Configured, file: &str) -> Configured {
    configured.file = file.to_owned();
    configured
}

/// `ATTR{address}=="…" … NAME="eth0"` of udev's rules.
fn udev_names(tree: &Tree) -> Vec<Configured> {
    let rules = udev::rules(tree).into_iter();
    let named = rules.filter_map(|(path, rule)| Some(in_file(udev_name(&rule)?, &path)));
    named.collect()
}

fn udev_name(rule: &str) -> Option<Configured> {
    let value = |key: &str| udev::value(rule, key).map(str::to_owned);
    Some(Configured {
        mac: value("ATTR{address}==").or_else(|| value("SYSFS{address}=="))?,
        name: value("NAME=")?,
        ..Configured::default()
    })
}

fn of_networkd(tree: &Tree) -> Vec<Configured> {
    let mut all = Vec::new();
    for folder in ["/etc/systemd/network", "/run/systemd/network"] {
        for (path, text) in files(tree, folder, "") {
            let found = networkd::parse(&path, &text);
            all.extend(found.into_iter().map(|one| in_file(one, &path)));
        }
    }
    all
}

fn of_ifupdown(tree: &Tree) -> Vec<Configured> {
    let main = "/etc/network/interfaces".to_owned();
    let first = (main.clone(), text(tree, &main));
    let more = files(tree, "/etc/network/interfaces.d", "");
    let all = std::iter::once(first).chain(more).flat_map(|(path, text)| {
        let found = ifupdown::parse(&text);
        found.into_iter().map(move |one| in_file(one, &path))
    });
    all.collect()
}

fn of_ifcfg(tree: &Tree) -> Vec<Configured> {
    let mut all = Vec::new();
    for folder in ["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"] {
        for (path, text) in files(tree, folder, "") {
            let name = path.rsplit_once("/ifcfg-").map(|(_, name)| name);
            let is_copy = |name: &&str| {
                !name.ends_with(['~', '%']) && !name.contains(".bak") && !name.contains(".rpm")
            };
            let Some(name) = name.filter(is_copy) else {
                all.extend(ifcfg::routes(&path, &text));
                continue;
            };
            if let Some((configured, above)) = ifcfg::parse(name, &text) {
                all.extend(port_of(&above, &configured.name, None));
                all.push(in_file(configured, &path));
            }
        }
    }
    all
}

fn port_of(above: &str, port: &str, kind: Option<NicKind>) -> Option<Configured> {
    (!above.is_empty() && !port.is_empty()).then(|| Configured {
        name: above.to_owned(),
        ports: vec![port.to_owned()],
        kind,
        ..Configured::default()
    })
}

fn of_network_manager(tree: &Tree) -> Vec<Configured> {
    let mut found = Vec::new();
    for folder in [
        "/etc/NetworkManager/system-connections",
        "/run/NetworkManager/system-connections",
    ] {
        for (path, text) in files(tree, folder, "") {
            found.extend(keyfile::parse(&text).map(|connection| (path, connection)));
        }
    }
    let mut all = Vec::new();
    for (_, connection) in &found {
        // A connection by its identity is the interface that it makes.
        let mut named = found.iter().map(|(_, other)| other);
        let by_uuid =
            named.find(|other| !other.uuid.is_empty() && other.uuid == connection.controller);
        let above = by_uuid.map_or(&connection.controller, |other| &other.configured.name);
        all.extend(port_of(above, &connection.configured.name, None));
    }
    all.extend(
        found
            .into_iter()
            .map(|(path, connection)| in_file(connection.configured, &path)),
    );
    all
}

fn of_netplan(tree: &Tree, remarks: &mut Vec<String>) -> Vec<Configured> {
    let mut all = Vec::new();
    for (path, text) in files(tree, "/etc/netplan", ".yaml") {
        match netplan::parse(&text) {
            Some(found) => all.extend(found.into_iter().map(|one| in_file(one, &path))),
            None => remarks.push(format!("{path} is not understood")),
        }
    }
    all
}
