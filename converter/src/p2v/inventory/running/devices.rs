//! Hardware that stays behind when a server becomes a machine.

use hako_guest::Tree;

use super::super::findings::{self, LeftBehind};
use super::super::model::Finding;
use super::super::system::{names, number, word};

/// Makers of licence dongles, by their identity on USB.
const DONGLES: &[(&str, &str)] = &[
    ("0529", "Aladdin HASP"),
    ("064f", "WIBU-Systems"),
    ("04b9", "SafeNet Sentinel"),
    ("1bc0", "Senselock"),
    ("096e", "Feitian"),
    ("0a89", "Guardant"),
    ("1947", "Matrix"),
];

/// Returns what hardware a machine does not have.
pub(super) fn left_behind(tree: &Tree) -> Vec<Finding> {
    let mut found = dongles(tree);
    found.extend(cards(tree));
    let watchdogs = names(tree, "/sys/class/watchdog");
    // softdog is no hardware.
    let hardware = watchdogs.iter().filter(|name| {
        let identity = word(tree, &format!("/sys/class/watchdog/{name}/identity"));
        !identity.contains("Software")
    });
    found.extend(hardware.take(1).map(|name| {
        findings::left_behind(
            LeftBehind::Watchdog,
            name,
            "a hardware watchdog is there".to_owned(),
        )
    }));
    if let Some(name) = names(tree, "/sys/class/ipmi").first() {
        let what = "a management controller is there".to_owned();
        found.push(findings::left_behind(LeftBehind::Ipmi, name, what));
    }
    found
}

fn dongles(tree: &Tree) -> Vec<Finding> {
    const FOLDER: &str = "/sys/bus/usb/devices";
    let devices = names(tree, FOLDER);
    let found = devices.iter().filter_map(|device| {
        let vendor = word(tree, &format!("{FOLDER}/{device}/idVendor"));
        let (_, maker) = DONGLES.iter().find(|(id, _)| *id == vendor)?;
        let product = word(tree, &format!("{FOLDER}/{device}/product"));
        let what = format!("a licence dongle of {maker} {product}")
            .trim_end()
            .to_owned();
        Some(findings::left_behind(LeftBehind::Dongle, device, what))
    });
    found.collect()
}

/// Cards that compute, and cards with virtual functions.
fn cards(tree: &Tree) -> Vec<Finding> {
    const FOLDER: &str = "/sys/bus/pci/devices";
    let mut found = Vec::new();
    for device in names(tree, FOLDER) {
        let class = word(tree, &format!("{FOLDER}/{device}/class"));
        let vendor = word(tree, &format!("{FOLDER}/{device}/vendor"));
        // Displays (03) and accelerators (12) of those who make such that compute; a server's own
        // display is of its management controller.
        let maker = match vendor.as_str() {
            "0x10de" => "NVIDIA",
            "0x1002" => "AMD",
            _ => "",
        };
        let computes = class.starts_with("0x03") || class.starts_with("0x12");
        if computes && !maker.is_empty() {
            let what = format!("a graphics card of {maker} is there");
            found.push(findings::left_behind(LeftBehind::Gpu, &device, what));
        }
        if let Some(functions) = number::<u32>(tree, &format!("{FOLDER}/{device}/sriov_numvfs"))
            && functions > 0
        {
            let what = format!("{functions} virtual functions are in use");
            found.push(findings::left_behind(LeftBehind::Sriov, &device, what));
        }
    }
    found
}
