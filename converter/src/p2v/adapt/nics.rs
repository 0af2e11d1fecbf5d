//! Names of network cards: what a guest configures is called as it was, wherever the card is plugged in
//! now. A name is tied to the card's address, which the machine keeps.

use hako_formats::machine::Mac;

use super::macs::Moves;
use super::{Guest, NicName, Plan, Request, What};
use crate::p2v::inventory::{ByHardware, KnownBy, by_hardware, known_by};

const LINKS: &str = "/etc/systemd/network";
const RULES: &str = "/etc/udev/rules.d/70-persistent-net.rules";

/// Folders and endings of texts that configure networks.
const CONFIGURED_IN: &[(&str, &str)] = &[
    ("/etc/network", "interfaces"),
    ("/etc/network/interfaces.d", ""),
    ("/etc/netplan", ".yaml"),
    ("/etc/sysconfig/network-scripts", ""),
    ("/etc/sysconfig/network", ""),
    ("/etc/NetworkManager/system-connections", ""),
    ("/etc/systemd/network", ".network"),
];

/// Adds what ties names to addresses. Returns which addresses took the place of which, and the texts of
/// udev that give names then.
pub(super) fn add(guest: &Guest<'_>, request: &Request, plan: &mut Plan) -> (Moves, Vec<String>) {
    let known = known_by(guest.tree());
    let mut configured = configured(guest);
    configured.retain(|(name, file)| {
        let mut nameless = known.iter().filter(|known| is_nameless(&known.nic));
        !nameless.any(|known| known.id == *name && known.file == *file)
    });
    let nics = named(request, &configured, &known);
    let moves = Moves::of(&known, &nics, &request.were, plan);
    moves.add(guest, plan);
    let tied = tied(guest, &moves, &known);
    for nic in nics.iter().filter(|nic| !is_nameless(nic)) {
        match tied.contains(nic) {
            true => {}
            false if has_links(guest) => add_link(guest, plan, nic),
            false => add_rule(guest, plan, nic),
        }
        for other in tied.iter().filter(|tied| tied.mac == nic.mac) {
            if other.name != nic.name {
                let (mac, name, other) = (nic.mac, &nic.name, &other.name);
                let what = format!("{name}: the guest calls the card {mac} {other} already");
                plan.remarks.push(what);
            }
        }
    }
    add_remarks(request, plan, &nics, &configured, &known, &tied);
    add_nameless(request, plan, &moves, &known);
    add_by_hardware(plan, &by_hardware(guest.tree()), &nics);
    let naming = naming(&known, plan);
    (moves, naming)
}

/// Returns the texts of udev that give cards their names, those that are planned among them.
fn naming(known: &[KnownBy], plan: &Plan) -> Vec<String> {
    let is_one = |path: &&String| {
        let is_link = path.starts_with(LINKS) && path.ends_with(".link");
        is_link || path.starts_with("/etc/udev/rules.d/")
    };
    let known = known.iter().filter(|known| known.gives_name);
    let known = known.map(|known| &known.file);
    let planned = plan.changes.iter().map(|change| &change.path);
    let mut all: Vec<String> = known.chain(planned).filter(is_one).cloned().collect();
    all.sort();
    all.dedup();
    all
}

/// Says which names are lost, as far as that can be told.
fn add_remarks(
    request: &Request,
    plan: &mut Plan,
    nics: &[NicName],
    configured: &[(String, String)],
    known: &[KnownBy],
    tied: &[NicName],
) {
    let is_named = |name: &str| nics.iter().any(|nic| nic.name == name);
    let is_gone = |mac: &Mac| !request.macs.is_empty() && !request.macs.contains(mac);
    let lost = known.iter().map(|known| &known.nic);
    let lost = lost.filter(|nic| !is_nameless(nic));
    let lost = lost.filter(|nic| !is_named(&nic.name)).chain(nics);
    let mut remarks: Vec<String> = Vec::new();
    for NicName { name, mac } in lost.filter(|nic| is_gone(&nic.mac)) {
        remarks.push(format!(
            "{name}: no card of the machine has the address {mac}: --nic {name}=MAC says which it is"
        ));
    }
    for (name, path) in configured.iter().filter(|(name, _)| !is_named(name)) {
        if !tied.iter().any(|nic| nic.name == *name) {
            remarks.push(format!(
                "{path} configures {name}, which will have another name on other hardware: \
                 --nic {name}=MAC keeps it, or --inventory"
            ));
        }
    }
    remarks.dedup();
    plan.remarks.extend(remarks);
}

/// Whether a card is known by nothing but its address.
fn is_nameless(nic: &NicName) -> bool {
    nic.name.parse::<Mac>().is_ok()
}

/// Says which texts know a card by nothing but an address that no card has.
fn add_nameless(request: &Request, plan: &mut Plan, moves: &Moves, known: &[KnownBy]) {
    let named = request.nics.iter().map(|nic| nic.mac);
    let cards: Vec<Mac> = request.macs.iter().copied().chain(named).collect();
    for KnownBy { nic, file, .. } in known.iter().filter(|known| is_nameless(&known.nic)) {
        if !cards.is_empty() && !cards.contains(&moves.now(nic.mac)) {
            plan.remarks.push(format!(
                "{file} configures the card with the address {}, which no card of the machine has: \
                 --inventory and --nic NAME=MAC say which it is",
                nic.mac
            ));
        }
    }
}

/// Says which texts look for a card by hardware that stays behind; a name that is kept is found anyway.
fn add_by_hardware(plan: &mut Plan, found: &[ByHardware], nics: &[NicName]) {
    for ByHardware { file, what, name } in found {
        if name.is_empty() {
            plan.remarks.push(format!(
                "{file} looks for a card by {what}, which another machine may not have"
            ));
        } else if !nics.iter().any(|nic| nic.name == *name) {
            plan.remarks.push(format!(
                "{file} calls a card {name} by {what}, which another machine may not have: \
                 --nic {name}=MAC keeps the name"
            ));
        }
    }
}

/// Returns the names that are to be kept: those that were asked for; else the only one that there is,
/// of a machine with one card.
fn named(request: &Request, configured: &[(String, String)], known: &[KnownBy]) -> Vec<NicName> {
    let mut nics = request.nics.clone();
    let mut names: Vec<&String> = configured.iter().map(|(name, _)| name).collect();
    names.extend(known.iter().map(|known| &known.nic.name));
    names.sort();
    names.dedup();
    if let ([], [name], [mac]) = (&nics[..], &names[..], &request.macs[..]) {
        let (name, mac) = ((*name).clone(), *mac);
        nics.push(NicName { name, mac });
    }
    nics
}

/// Returns the names that texts give to addresses, as they will be.
fn tied(guest: &Guest<'_>, moves: &Moves, known: &[KnownBy]) -> Vec<NicName> {
    // Red Hat's udev asked a program that reads ifcfg.
    let readers = ["/usr/lib/udev/rename_device", "/lib/udev/rename_device"];
    let mut readers = readers.iter();
    let reads_ifcfg = readers.any(|path| guest.tree().find(path.as_bytes()).is_ok());
    let ties = |known: &&KnownBy| {
        let file = known.file.as_str();
        let is_in = |folder: &str| file.starts_with(folder);
        let is_ifcfg = is_in("/etc/sysconfig/network-scripts/") && reads_ifcfg;
        let is_link = is_in(LINKS) && file.ends_with(".link");
        let gives = is_link || is_in("/etc/udev/rules.d/") || is_in("/etc/netplan/") || is_ifcfg;
        known.gives_name && gives
    };
    let tied = known.iter().filter(ties);
    let tied = tied.map(|known| NicName {
        name: known.nic.name.clone(),
        mac: moves.now(known.nic.mac),
    });
    tied.collect()
}

/// Whether the guest's udev reads `.link` files: systemd's since 209, which brings one itself.
fn has_links(guest: &Guest<'_>) -> bool {
    let own = [
        "/usr/lib/systemd/network/99-default.link",
        "/lib/systemd/network/99-default.link",
    ];
    own.iter()
        .any(|path| guest.tree().find(path.as_bytes()).is_ok())
}

fn add_link(guest: &Guest<'_>, plan: &mut Plan, nic: &NicName) {
    let why = format!("{} keeps its name, wherever it is plugged in", nic.name);
    let folders = ["/etc/systemd", LINKS];
    for folder in folders {
        let is_planned = plan.changes.iter().any(|change| change.path == folder);
        if !is_planned && guest.tree().find(folder.as_bytes()).is_err() {
            plan.add(folder, What::Folder { mode: 0o755 }, &why);
        }
    }
    let path = format!("{LINKS}/10-hako-{}.link", nic.name);
    let text = format!(
        "# by hako\n[Match]\nMACAddress={}\nType=ether\n\n[Link]\nName={}\n",
        nic.mac, nic.name
    );
    match guest.text(&path) {
        Some(old) => plan.replace(&path, &old, text, vec![why]),
        None => {
            let bytes = text.into_bytes();
            plan.add(path, What::Create { bytes, mode: 0o644 }, &why);
        }
    }
}

fn add_rule(guest: &Guest<'_>, plan: &mut Plan, nic: &NicName) {
    let why = format!("{} keeps its name, wherever it is plugged in", nic.name);
    let rule = format!(
        "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{}\", \
         ATTR{{type}}==\"1\", NAME=\"{}\"\n",
        nic.mac.to_string().to_ascii_lowercase(),
        nic.name
    );
    let created = plan.changes.iter_mut().find(|change| change.path == RULES);
    if let Some(What::Create { bytes, .. }) = created.map(|change| &mut change.what) {
        bytes.extend(rule.into_bytes());
        return;
    }
    match (plan.text(guest, RULES), guest.text(RULES)) {
        (Some(planned), Some(old)) => plan.replace(RULES, &old, planned + &rule, vec![why]),
        _ if guest.tree().find(b"/etc/udev/rules.d").is_ok() => {
            let bytes = rule.into_bytes();
            plan.add(RULES, What::Create { bytes, mode: 0o644 }, &why);
        }
        _ => plan.remarks.push(format!(
            "{}: the guest has no udev to keep its name",
            nic.name
        )),
    }
}

/// Returns the names of cards by their place that texts configure, and one such text of each.
fn configured(guest: &Guest<'_>) -> Vec<(String, String)> {
    let mut names: Vec<(String, String)> = Vec::new();
    for (folder, ending) in CONFIGURED_IN {
        for path in guest.files_in(folder, ending) {
            let text = guest.text(&path).unwrap_or_default();
            let lines = text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'));
            let all = lines.collect::<Vec<_>>().join("\n");
            let own = path.rsplit('/').next().unwrap_or_default();
            let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
            let file_name = own.strip_prefix("ifcfg-").unwrap_or_default();
            for word in all.split(is_end).chain([file_name]) {
                if is_by_place(word) && !names.iter().any(|(name, _)| name == word) {
                    names.push((word.to_owned(), path.clone()));
                }
            }
        }
    }
    names
}

/// Whether a name is one that udev gives by where a card is: `eno1`, `ens3f0`, `enp3s0`,
/// `enP2p33s0` (with the domain of PCI), `em1`, `p2p1`, `em1_2` (a part of a card); or by its address,
/// where nothing else tells: `enx525400123456`.
fn is_by_place(word: &str) -> bool {
    let is_number = |text: &str| {
        !text.is_empty() && text.len() < 4 && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    // Only biosdevname counts parts so; behind other names it is an own word.
    let word = match word.split_once('_') {
        Some((card, part)) if is_number(part) && !card.starts_with("en") => card,
        Some(_) => return false,
        None => word,
    };
    let is_address =
        |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digit_after = |prefix: &str| {
        let rest = word.strip_prefix(prefix)?;
        let first = rest.bytes().next()?;
        Some(first.is_ascii_digit() && rest.len() < 14)
    };
    let starts = |prefix: &str| digit_after(prefix).unwrap_or(false);
    let is_biosdevname = word
        .strip_prefix('p')
        .and_then(|rest| rest.split_once('p'))
        .is_some_and(|(slot, port)| is_number(slot) && is_number(port));
    ["eno", "ens", "enp", "enP", "em"]
        .iter()
        .any(|prefix| starts(prefix))
        || is_biosdevname
        || word.strip_prefix("enx").is_some_and(is_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_place_are_told_from_others() {
        for name in [
            "eno1",
            "ens3f0np0",
            "enp3s0",
            "em1",
            "p2p1",
            "enp0s31f6",
            "enP2p33s0f0",
            "em1_1",
            "p1p1_0",
            "enx525400123456",
        ] {
            assert!(is_by_place(name), "{name}");
        }
        for name in [
            "eth0", "bond0", "ens", "enable", "p2", "employee", "pp1", "wlan0", "en1", "", "enx0",
            "eno1_100", "em1_x", "em_1", "bond_em1",
        ] {
            assert!(!is_by_place(name), "{name}");
        }
    }
}
