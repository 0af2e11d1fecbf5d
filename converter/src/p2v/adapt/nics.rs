//! Names of network cards: what a guest configures is called as it was, wherever the card is plugged in
//! now. A name is tied to the card's address, which the machine keeps.

use hako_formats::machine::Mac;

use super::{Guest, Plan, Request, What};

/// A network card's name, and the address that it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicName {
    /// The name that the guest's texts call it by.
    pub name: String,
    /// Its address in the machine.
    pub mac: Mac,
}

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

/// Adds what ties names to addresses.
pub(super) fn add(guest: &Guest<'_>, request: &Request, plan: &mut Plan) {
    let configured = configured(guest);
    let mut nics = request.nics.clone();
    if let ([], [(name, _)], [mac]) = (&nics[..], &configured[..], &request.macs[..]) {
        let (name, mac) = (name.clone(), *mac);
        nics.push(NicName { name, mac });
    }
    let tied = tied(guest);
    for nic in &nics {
        let mac = nic.mac.to_string();
        match tied
            .iter()
            .find(|(_, text)| text.contains(&mac.to_ascii_lowercase()))
        {
            Some(_) => {}
            None if has_links(guest) => add_link(guest, plan, nic),
            None => add_rule(guest, plan, nic),
        }
    }
    for (name, path) in configured {
        let is_named = nics.iter().any(|nic| nic.name == name);
        let is_tied = tied.iter().any(|(_, text)| {
            let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
            words.any(|word| word == name)
        });
        if !is_named && !is_tied {
            plan.remarks.push(format!(
                "{path} configures {name}, which will have another name on other hardware: \
                 --nic {name}=MAC keeps it, or --inventory"
            ));
        }
    }
}

/// Returns the texts that tie names to addresses already, in lower case, by their paths.
fn tied(guest: &Guest<'_>) -> Vec<(String, String)> {
    let mut paths = guest.files_in(LINKS, ".link");
    paths.extend(guest.files_in("/etc/udev/rules.d", ".rules"));
    paths.extend(guest.files_in("/etc/netplan", ".yaml"));
    paths.extend(guest.files_in("/etc/sysconfig/network-scripts", ""));
    let texts = paths
        .into_iter()
        .filter_map(|path| Some((guest.text(&path)?, path)));
    let texts = texts.map(|(text, path)| (path, text.to_ascii_lowercase()));
    let ties = |text: &str| {
        ["macaddress=", "attr{address}==", "set-name:", "hwaddr="]
            .iter()
            .any(|key| text.contains(key))
    };
    texts.filter(|(_, text)| ties(text)).collect()
}

/// Whether the guest's udev reads `.link` files.
fn has_links(guest: &Guest<'_>) -> bool {
    let programs = [
        "/usr/lib/systemd/systemd-udevd",
        "/lib/systemd/systemd-udevd",
        "/usr/lib/systemd/network/99-default.link",
        "/lib/systemd/network/99-default.link",
    ];
    programs
        .iter()
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
            let is_end = |c: char| !c.is_ascii_alphanumeric();
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

/// Whether a name is one that udev gives by where a card is: `eno1`, `ens3f0`, `enp3s0`, `em1`, `p2p1`.
fn is_by_place(word: &str) -> bool {
    let digit_after = |prefix: &str| {
        let rest = word.strip_prefix(prefix)?;
        let first = rest.bytes().next()?;
        Some(first.is_ascii_digit() && rest.len() < 14)
    };
    let starts = |prefix: &str| digit_after(prefix).unwrap_or(false);
    let is_biosdevname = word
        .strip_prefix('p')
        .and_then(|rest| rest.split_once('p'))
        .is_some_and(|(slot, port)| {
            let is_number = |text: &str| {
                !text.is_empty() && text.len() < 4 && text.bytes().all(|byte| byte.is_ascii_digit())
            };
            is_number(slot) && is_number(port)
        });
    ["eno", "ens", "enp", "em"]
        .iter()
        .any(|prefix| starts(prefix))
        || is_biosdevname
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_place_are_told_from_others() {
        for name in ["eno1", "ens3f0np0", "enp3s0", "em1", "p2p1", "enp0s31f6"] {
            assert!(is_by_place(name), "{name}");
        }
        for name in [
            "eth0", "bond0", "ens", "enable", "p2", "employee", "pp1", "wlan0", "en1", "",
        ] {
            assert!(!is_by_place(name), "{name}");
        }
    }
}
