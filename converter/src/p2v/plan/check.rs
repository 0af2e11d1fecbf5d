//! Whether an edited plan can be carried out.

use std::collections::BTreeSet;

use hako_formats::machine::{Cpu, Mac, Node, check_memory};

use super::hardware::{cards, controllers};
use super::model::{Action, Disk, Nic, Plan, SCHEMA};
use crate::p2v::inventory::model::{FirmwareKind, Inventory, Level};

/// Returns what is wrong with a plan, as sentences that begin with the place. With an inventory also
/// what does not go with the server.
pub fn mistakes(plan: &Plan, inventory: Option<&Inventory>) -> Vec<String> {
    let mut found = Vec::new();
    if plan.plan != SCHEMA {
        found.push(format!("plan: {} is no schema, {SCHEMA} is", plan.plan));
    }
    machine(plan, &mut found);
    disks(plan, &mut found);
    nics(plan, &mut found);
    if let Some(inventory) = inventory {
        server(plan, inventory, &mut found);
    }
    found
}

/// Takes over the blockers of an inventory that a plan does not mention: nobody has accepted them.
pub fn add_forgotten(plan: &mut Plan, inventory: &Inventory) {
    for finding in &inventory.findings {
        let mut known = plan.findings.iter();
        let is_known =
            known.any(|known| known.code == finding.code && known.about == finding.about);
        if finding.level == Level::Blocker && !is_known {
            plan.findings.push(finding.into());
        }
    }
}

fn machine(plan: &Plan, found: &mut Vec<String>) {
    let name = &plan.machine.name;
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        found.push(format!("machine: {name:?} is no name"));
    }
    if firmware(plan).is_none() {
        let text = &plan.machine.firmware;
        found.push(format!(
            "machine: firmware {text:?} is neither bios nor efi"
        ));
    }
    let cpu = Cpu {
        count: plan.cpu.count,
        cores_per_socket: plan.cpu.cores_per_socket,
    };
    if let Err(error) = cpu.check() {
        found.push(format!("cpu: {error}"));
    }
    let bytes = plan.memory.mib.saturating_mul(1 << 20);
    if check_memory(bytes).is_err() {
        let mib = plan.memory.mib;
        found.push(format!(
            "memory: {mib} MiB: a multiple of 4, up to 25165824"
        ));
    }
}

fn firmware(plan: &Plan) -> Option<FirmwareKind> {
    match plan.machine.firmware.as_str() {
        "bios" => Some(FirmwareKind::Bios),
        "efi" => Some(FirmwareKind::Uefi),
        _ => None,
    }
}

fn disks(plan: &Plan, found: &mut Vec<String>) {
    let mut nodes = BTreeSet::new();
    let mut sources = BTreeSet::new();
    for disk in &plan.disks {
        if !sources.insert(&disk.source) {
            found.push(format!("disk {}: it is there twice", disk.source));
        }
        if disk.action == Action::Drop {
            continue;
        }
        for what in disk_mistakes(plan, disk) {
            found.push(format!("disk {}: {what}", disk.source));
        }
        if !nodes.insert(disk.node.to_ascii_lowercase()) {
            let node = &disk.node;
            found.push(format!(
                "disk {}: {node} is another disk's, too",
                disk.source
            ));
        }
    }
    if nodes.is_empty() && !plan.disks.is_empty() {
        found.push("disks: none is kept".to_owned());
    }
}

fn disk_mistakes(plan: &Plan, disk: &Disk) -> Vec<String> {
    let mut found = Vec::new();
    if disk.bytes < disk.least_bytes {
        let least = disk.least_bytes;
        found.push(format!(
            "{} bytes are less than least_bytes, {least}",
            disk.bytes
        ));
    }
    if !disk.bytes.is_multiple_of(512) || disk.bytes == 0 {
        found.push(format!("{} bytes: a multiple of 512", disk.bytes));
    }
    let all = controllers(plan.machine.target, firmware(plan).unwrap_or_default());
    let Some(controller) = all.iter().find(|one| one.name == disk.controller) else {
        let names: Vec<&str> = all.iter().map(|one| one.name).collect();
        let names = names.join(", ");
        found.push(format!("controller {:?}: one of {names}", disk.controller));
        return found;
    };
    match disk.node.parse::<Node>() {
        Ok(node) if node.bus.name() != controller.bus => {
            found.push(format!("{} is no node of {}", disk.node, controller.name));
        }
        Ok(node) if node.unit >= controller.n_units => {
            let (name, most) = (controller.name, controller.n_units - 1);
            found.push(format!("{}: {name} has units up to {most}", disk.node));
        }
        Ok(_) => (),
        Err(error) => found.push(error.to_string()),
    }
    found
}

fn nics(plan: &Plan, found: &mut Vec<String>) {
    let mut macs = BTreeSet::new();
    for nic in plan.nics.iter().filter(|nic| nic.action == Action::Keep) {
        let mut say = |what: String| found.push(format!("nic {}: {what}", nic.source));
        nic_mistakes(plan, nic, &mut say);
        if !nic.mac.is_empty() && !macs.insert(nic.mac.to_ascii_lowercase()) {
            say(format!("{} is another card's, too", nic.mac));
        }
    }
}

fn nic_mistakes(plan: &Plan, nic: &Nic, say: &mut dyn FnMut(String)) {
    let all = cards(plan.machine.target);
    if !all.iter().any(|card| card.name == nic.model) {
        let names: Vec<&str> = all.iter().map(|card| card.name).collect();
        say(format!(
            "model {:?}: one of {}",
            nic.model,
            names.join(", ")
        ));
    }
    if !nic.mac.is_empty()
        && let Err(error) = nic.mac.parse::<Mac>()
    {
        say(error.to_string());
    }
    if nic.network.is_empty() {
        say("it is plugged into nothing".to_owned());
    }
}

/// Compares with the server.
fn server(plan: &Plan, inventory: &Inventory, found: &mut Vec<String>) {
    for disk in &inventory.disks {
        let mut planned = plan.disks.iter();
        match planned.find(|planned| planned.source == disk.name) {
            None => found.push(format!(
                "disk {}: the server has it, the plan not",
                disk.name
            )),
            Some(planned) if planned.as_is_bytes != disk.bytes => found.push(format!(
                "disk {}: {} bytes in the server, {} in the plan",
                disk.name, disk.bytes, planned.as_is_bytes
            )),
            Some(_) => (),
        }
    }
    let names: BTreeSet<&str> = inventory
        .disks
        .iter()
        .map(|disk| disk.name.as_str())
        .collect();
    for disk in plan
        .disks
        .iter()
        .filter(|disk| !names.contains(disk.source.as_str()))
    {
        found.push(format!(
            "disk {}: the server has none of that name",
            disk.source
        ));
    }
    let names: BTreeSet<&str> = inventory.nics.iter().map(|nic| nic.name.as_str()).collect();
    for nic in plan
        .nics
        .iter()
        .filter(|nic| !names.contains(nic.source.as_str()))
    {
        found.push(format!(
            "nic {}: the server has none of that name",
            nic.source
        ));
    }
}
