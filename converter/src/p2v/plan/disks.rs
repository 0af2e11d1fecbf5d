//! What becomes of the server's disks and swap spaces.

use hako_block::words::human;

use super::hardware::Controller;
use super::history::{History, Metric};
use super::mirrors::{mirror_of, path_to};
use super::model::{Action, Disk, Swap};
use crate::p2v::inventory::model::{self, Inventory};

/// Behind the last partition a GPT has its second copy: 33 sectors.
const TABLE_SECTORS: u64 = 33;

/// How disks are planned.
pub struct DiskChoices<'a> {
    /// What they hang on.
    pub controller: Controller,
    /// Whether both sides of a mirror are taken.
    pub keep_mirrors: bool,
    /// What they did.
    pub history: &'a History,
}

/// Returns what becomes of each disk, in the inventory's order.
pub fn disks(inventory: &Inventory, choices: &DiskChoices<'_>) -> Vec<Disk> {
    let mut disks: Vec<Disk> = inventory
        .disks
        .iter()
        .map(|disk| planned(inventory, disk, choices))
        .collect();
    // What is dropped has a place, too, behind the others: so it is enough to change the action.
    let mut places = (0u16..).map(|at| node(&choices.controller, at));
    for wanted in [Action::Keep, Action::Drop] {
        let of_action = disks.iter_mut().filter(|disk| disk.action == wanted);
        for (disk, node) in of_action.zip(&mut places) {
            disk.node = node;
        }
    }
    disks
}

fn planned(inventory: &Inventory, disk: &model::Disk, choices: &DiskChoices<'_>) -> Disk {
    let (action, why, mirror_of) = fate(inventory, disk, choices.keep_mirrors);
    let name = || disk.name.clone();
    let p95 = |metric| choices.history.distribution(&metric).percentile(9500);
    Disk {
        source: name(),
        about: about(inventory, disk),
        wwn: disk.wwn.clone(),
        serial: disk.serial.clone(),
        table_uuid: disk.table_uuid.clone(),
        action,
        why,
        mirror_of,
        bytes: disk.bytes,
        as_is_bytes: disk.bytes,
        least_bytes: least_bytes(disk),
        thin: true,
        controller: choices.controller.name.to_owned(),
        node: String::new(),
        requests_p95: p95(Metric::DiskRequests(name())),
        bytes_per_second_p95: p95(Metric::DiskBytes(name())),
    }
}

/// Says what becomes of a disk, why, and what it is a mirror of.
fn fate(
    inventory: &Inventory,
    disk: &model::Disk,
    keep_mirrors: bool,
) -> (Action, String, Option<String>) {
    let dropped = |why: String| (Action::Drop, why, None);
    if disk.bytes == 0 {
        return dropped("it has no medium".to_owned());
    }
    if let Some(first) = path_to(inventory, disk) {
        return dropped(format!("another path to {first}"));
    }
    if disk.is_removable && !is_mounted(inventory, disk) {
        return dropped("it can be taken out, and nothing on it is mounted".to_owned());
    }
    match mirror_of(inventory, disk).filter(|_| !keep_mirrors) {
        Some((other, arrays)) => (
            Action::Drop,
            format!("a mirror of {other} ({})", arrays.join(", ")),
            Some(other.to_owned()),
        ),
        None => (Action::Keep, String::new(), None),
    }
}

fn is_mounted(inventory: &Inventory, disk: &model::Disk) -> bool {
    !mounts(inventory, &disk.name).is_empty()
}

/// Returns where things on a disk are mounted.
fn mounts<'a>(inventory: &'a Inventory, disk: &str) -> Vec<&'a str> {
    let on_it = inventory
        .mounts
        .iter()
        .filter(|mount| !mount.is_remote && inventory.disks_of(&mount.volume).contains(&disk));
    let mut paths: Vec<&str> = on_it.map(|mount| mount.path.as_str()).collect();
    let swaps = inventory
        .swaps
        .iter()
        .filter(|swap| !swap.is_file && inventory.disks_of(&swap.volume).contains(&disk));
    paths.extend(swaps.map(|_| "swap"));
    paths.dedup();
    paths
}

/// Says what a disk is: `DELL PERC H730, 447.1 GiB, gpt: /, /boot, swap`.
fn about(inventory: &Inventory, disk: &model::Disk) -> String {
    /// More paths than that tell nobody anything.
    const MOST: usize = 6;
    let model = [disk.vendor.trim(), disk.model.trim()];
    let model: Vec<&str> = model.into_iter().filter(|word| !word.is_empty()).collect();
    let mut parts = vec![model.join(" "), human(disk.bytes), disk.table.clone()];
    parts.retain(|part| !part.is_empty());
    let mounted = mounts(inventory, &disk.name);
    let more = if mounted.len() > MOST { " …" } else { "" };
    let shown: Vec<&str> = mounted.iter().take(MOST).copied().collect();
    match shown.is_empty() {
        true => parts.join(", "),
        false => format!("{}: {}{more}", parts.join(", "), shown.join(", ")),
    }
}

/// Returns the least that a disk can have without anything on it being moved.
fn least_bytes(disk: &model::Disk) -> u64 {
    let Some(end) = disk.last_partition_end else {
        return disk.bytes;
    };
    let sector_bytes = u64::from(disk.sector_bytes.max(512));
    let behind = match disk.table.as_str() {
        "gpt" => TABLE_SECTORS.saturating_mul(sector_bytes),
        _ => 0,
    };
    end.saturating_add(behind).min(disk.bytes)
}

/// Returns the place of the disk with that number on controllers of a kind.
fn node(controller: &Controller, at: u16) -> String {
    let is_scsi = controller.bus == "scsi";
    // Number 7 is the controller's own.
    let usable = u16::from(controller.n_units) - u16::from(is_scsi);
    let (number, unit) = (at / usable, at % usable);
    let unit = unit + u16::from(is_scsi && unit >= 7);
    format!("{}{number}:{unit}", controller.bus)
}

/// Returns what becomes of the swap spaces.
pub fn swaps(inventory: &Inventory) -> Vec<Swap> {
    let all = inventory.swaps.iter();
    all.map(|swap| Swap {
        source: swap.volume.clone(),
        bytes: swap.bytes,
        copy_content: false,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::hardware::controllers;
    use super::super::model::Target;
    use super::*;
    use crate::p2v::inventory::model::FirmwareKind;

    #[test]
    fn nodes_leave_out_the_controllers_own_number() {
        let controller = controllers(Target::Vmware, FirmwareKind::Uefi)[0];
        let nodes: Vec<String> = (0..17).map(|at| node(&controller, at)).collect();
        assert_eq!(nodes[..2], ["scsi0:0", "scsi0:1"]);
        assert_eq!(nodes[6..9], ["scsi0:6", "scsi0:8", "scsi0:9"]);
        assert_eq!(nodes[14..], ["scsi0:15", "scsi1:0", "scsi1:1"]);
    }
}
