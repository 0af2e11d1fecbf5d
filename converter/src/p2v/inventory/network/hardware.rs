//! What texts look for cards by other than names and addresses: drivers, slots and buses, which another
//! machine does not have.

use hako_guest::Tree;

use super::{files, ini, udev, yaml};

/// A text that looks for a card by the hardware of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::p2v) struct ByHardware {
    /// Its path.
    pub(in crate::p2v) file: String,
    /// What it looks for, as it says it.
    pub(in crate::p2v) what: String,
    /// The name that it gives to the card; empty if it only configures it.
    pub(in crate::p2v) name: String,
}

/// What rules of udev look for that is of the card or of the place where it is.
const RULE_KEYS: &[&str] = &[
    "KERNELS",
    "DRIVER",
    "DRIVERS",
    "ID",
    "BUS",
    "DEVPATH",
    "ATTR{dev_port}",
    "ATTRS{vendor}",
    "ATTRS{device}",
    "ENV{ID_PATH}",
    "ENV{ID_NET_DRIVER}",
    "ENV{ID_NET_NAME_PATH}",
    "ENV{ID_NET_NAME_SLOT}",
    "ENV{ID_NET_NAME_ONBOARD}",
];

/// Returns the texts of a system that look for cards by hardware.
pub(in crate::p2v) fn by_hardware(tree: &Tree) -> Vec<ByHardware> {
    let mut all = Vec::new();
    for (file, rule) in udev::rules(tree) {
        all.extend(of_rule(&rule).map(|(what, name)| found_in(&file, what, name)));
    }
    for (folder, end) in [
        ("/etc/systemd/network", ".link"),
        ("/etc/systemd/network", ".network"),
        ("/etc/NetworkManager/system-connections", ""),
    ] {
        for (file, text) in files(tree, folder, end) {
            let sections = ini::parse(&text);
            let found = of_sections(&sections);
            all.extend(found.map(|(what, name)| found_in(&file, what, name)));
        }
    }
    for (file, text) in files(tree, "/etc/netplan", ".yaml") {
        let found = of_netplan(&text).into_iter();
        all.extend(found.map(|what| found_in(&file, what, String::new())));
    }
    all
}

fn found_in(file: &str, what: String, name: String) -> ByHardware {
    let file = file.to_owned();
    ByHardware { file, what, name }
}

/// Returns what a rule that names network cards looks for, and the name.
fn of_rule(rule: &str) -> Option<(String, String)> {
    let value = |key: &str| udev::value(rule, key);
    let is_of_cards = value("SUBSYSTEM==") == Some("net");
    let name = value("NAME=").or_else(|| value("NAME:="))?;
    let is_any = |value: &str| matches!(value, "?*" | "*" | "");
    let mut keys = RULE_KEYS.iter().filter_map(|key| {
        let value = value(&format!("{key}=="))?;
        (!is_any(value)).then(|| format!("{key}==\"{value}\""))
    });
    let what = keys.next()?;
    (is_of_cards && !name.contains(['%', '$'])).then(|| (what, name.to_owned()))
}

/// Returns what a text of systemd or NetworkManager looks for, and the name that a `.link` gives.
fn of_sections(sections: &[ini::Section]) -> impl Iterator<Item = (String, String)> {
    let name = ini::value(sections, "Link", "Name");
    let keys = [
        ("Match", "Path"),
        ("Match", "Driver"),
        ("match", "path"),
        ("match", "driver"),
    ];
    keys.into_iter().filter_map(move |(section, key)| {
        let value = ini::value(sections, section, key);
        (!value.is_empty() && value != "*").then(|| (format!("{key}={value}"), name.to_owned()))
    })
}

fn of_netplan(text: &str) -> Vec<String> {
    let Some(value) = yaml::parse(text) else {
        return Vec::new();
    };
    let cards = ["ethernets", "wifis"].iter().filter_map(|section| {
        let network = value.get("network")?;
        Some(network.get(section)?.pairs())
    });
    let drivers = cards.flatten().filter_map(|(_, card)| {
        let driver = card.get("match")?.get("driver")?;
        let all = driver.list().iter().chain([driver]).map(yaml::Value::text);
        let all: Vec<&str> = all.filter(|text| !text.is_empty()).collect();
        (!all.is_empty()).then(|| format!("driver: {}", all.join(" ")))
    });
    drivers.collect()
}

#[cfg(test)]
mod tests {
    use hako_guest::testkit::MemoryFs;

    use super::*;

    #[test]
    fn only_what_is_of_the_hardware_is_found() {
        let rules = "SUBSYSTEM==\"net\", ACTION==\"add\", KERNELS==\"0000:02:00.0\", NAME=\"lan0\"\n\
            # SUBSYSTEM==\"net\", KERNELS==\"0000:03:00.0\", NAME=\"lan1\"\n\
            SUBSYSTEM==\"net\",DRIVERS==\"?*\",ATTR{address}==\"24:6e:96:aa:bb:01\",KERNEL==\"eth*\",NAME=\"eth0\"\n\
            SUBSYSTEM==\"net\", DRIVERS==\"ixgbe\", NAME:=\"%k\"\n\
            SUBSYSTEM==\"block\", KERNELS==\"0000:02:00.0\", NAME=\"x\"\n";
        let netplan = "network:\n  ethernets:\n    a:\n      match:\n        driver: ixgbe\n    b:\n      \
            match: {driver: [i40e, ice]}\n    c: {match: {name: en*}}\n";
        let fs = MemoryFs::new("ext4")
            .file("/etc/udev/rules.d/70-lan.rules", rules)
            .file(
                "/etc/systemd/network/10-lan.link",
                "[Match]\nPath=pci-0000:02:00.0\n[Link]\nName=lan2\n",
            )
            .file(
                "/etc/systemd/network/20.network",
                "[Match]\nName=lan*\n[Network]\nDHCP=yes\n",
            )
            .file("/etc/netplan/1.yaml", netplan)
            .file(
                "/etc/NetworkManager/system-connections/a",
                "[connection]\ntype=ethernet\n[match]\ndriver=tg3\n",
            );
        let found = by_hardware(&Tree::new(fs.build()));
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|one| (one.what.as_str(), one.name.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("KERNELS==\"0000:02:00.0\"", "lan0"),
                ("Path=pci-0000:02:00.0", "lan2"),
                ("driver=tg3", ""),
                ("driver: ixgbe", ""),
                ("driver: i40e ice", ""),
            ]
        );
    }
}
