//! What stands in the way of a move or should be known, besides what the inventory found.

use super::hardware::{Card, Choice, Controller, Fit};
use super::history::Recording;
use super::is_of_images;
use super::model::{Finding, Target};
use super::size;
use crate::p2v::inventory::model::{FirmwareKind, Inventory, Level, NicKind, ServiceKind};

/// Returns what the inventory found, and what follows from it.
pub fn of_inventory(inventory: &Inventory) -> Vec<Finding> {
    let mut findings: Vec<Finding> = inventory.findings.iter().map(Finding::from).collect();
    if inventory.disks.is_empty() {
        findings.push(finding(
            Level::Blocker,
            "no-disks",
            "the inventory has no disk",
            "take the inventory as root",
        ));
    }
    if inventory.firmware.kind == FirmwareKind::Unknown {
        findings.push(finding(
            Level::Warning,
            "firmware-unknown",
            "nobody knows whether a BIOS or UEFI starts it; the plan says bios",
            "change firmware if there is an EFI system partition",
        ));
    }
    for nic in inventory
        .nics
        .iter()
        .filter(|nic| nic.kind == NicKind::Bond)
    {
        let mut found = finding(
            Level::Note,
            "bond",
            "a bond has no use in a machine, and 802.3ad finds no partner on a virtual switch",
            "one card is enough: drop the other ports once the guest does without the bond",
        );
        found.about = nic.name.clone();
        findings.push(found);
    }
    findings
}

/// Adds what is odd about recordings.
pub fn of_recordings(
    inventory: &Inventory,
    recordings: &[(String, Recording)],
    findings: &mut Vec<Finding>,
) {
    if recordings.is_empty() && !is_of_images(inventory) {
        findings.push(finding(
            Level::Warning,
            "nothing-measured",
            "without measurements the machine is as large as the server",
            "hako p2v sample on the server, or sysstat's, atop's or collectl's recordings: --history",
        ));
    }
    let host = short_name(&inventory.hostname);
    for (file, recording) in recordings {
        let of = short_name(&recording.host);
        if !host.is_empty() && !of.is_empty() && of != host {
            let what = format!("{file} was recorded on {of}, the inventory is of {host}");
            let advice = "take the server's own recordings";
            findings.push(finding(Level::Warning, "other-host", &what, advice));
        }
        let (then, now) = (recording.n_cpus, inventory.cpu.threads);
        if then > 0 && now > 0 && then != now {
            let what = format!("{file} was recorded with {then} processors, the server has {now}");
            let advice = "see whether it is the same server";
            findings.push(finding(Level::Warning, "other-processors", &what, advice));
        }
        for remark in &recording.remarks {
            let what = format!("{file}: {remark}");
            findings.push(finding(Level::Note, "recording", &what, ""));
        }
    }
}

fn short_name(host: &str) -> &str {
    host.split('.').next().unwrap_or_default()
}

/// Adds what the choice of hardware asks of the guest.
pub fn of_hardware(
    target: Target,
    controller: &Choice<Controller>,
    card: &Choice<Card>,
    findings: &mut Vec<Finding>,
) {
    let target = target.name();
    let (name, card_name) = (controller.0.name, card.0.name);
    match controller.1 {
        Fit::Boots => (),
        Fit::Adapt => findings.push(finding(
            Level::Warning,
            "initrd-lacks-driver",
            &format!("the initrd has a driver for no controller of {target}; {name} is a module"),
            "add it to the initrd before the move: dracut --add-drivers, /etc/initramfs-tools/modules",
        )),
        Fit::Unknown => findings.push(finding(
            Level::Warning,
            "drivers-unknown",
            &format!("nobody knows which drivers the guest has; {name} is a guess"),
            "take the inventory as root, so that the initrd can be read",
        )),
        Fit::Never => findings.push(finding(
            Level::Blocker,
            "no-disk-driver",
            &format!("the guest has a driver for no controller of {target}"),
            "choose another --target, or install a kernel that has one",
        )),
    }
    if card.1 == Fit::Never || card.1 == Fit::Adapt {
        let what =
            format!("the guest has no driver for a card of {target}; the plan says {card_name}");
        let advice = "choose another --target, or install a kernel that has one";
        findings.push(finding(Level::Warning, "no-network-driver", &what, advice));
    }
}

/// Says that nobody knows how large something is.
pub fn unknown_size(what: &str, option: &str) -> Finding {
    let text = format!("neither inventory nor recordings say how much the server has of {what}");
    let advice = format!("say it: {option}, or change it in the plan and accept this");
    finding(Level::Blocker, "size-unknown", &text, &advice)
}

/// Says that the server itself is too small.
pub fn short(what: &str) -> Finding {
    finding(
        Level::Warning,
        "server-is-short",
        &format!(
            "the server's {what} are loaded by more than 65 %: the machine gets as much, not more"
        ),
        "give it more in the plan, if the host has it",
    )
}

fn finding(level: Level, code: &str, what: &str, advice: &str) -> Finding {
    Finding {
        level,
        code: code.to_owned(),
        about: String::new(),
        what: what.to_owned(),
        advice: advice.to_owned(),
        accepted: false,
    }
}

/// Returns the memory that databases, Java machines and huge pages take for sure.
pub fn floor_bytes(inventory: &Inventory) -> u64 {
    let takes = inventory.services.iter().filter(|service| {
        let kind = matches!(service.kind, ServiceKind::Database | ServiceKind::Heap);
        kind && service.is_running != Some(false)
    });
    let reserved = takes.filter_map(|service| service.reserved_bytes);
    size::floor_bytes(reserved, inventory.memory.hugepages_bytes)
}
