//! What a guest is like, beside what the server was.

use hako_guest::root::Place;

use crate::p2v::inventory::model::{AddressMethod, Inventory, Mount, Nic, NicKind, Swap};

use super::testimony::Testimony;
use super::{About, Check, Outcome};

/// Kinds of what is shown from files or folders, which no copy of a disk has of its own.
const SHOWN: &[&str] = &["squashfs", "iso9660", "none"];

/// Compares. Of what only runs on another machine, and what fstab does not mount, nothing is asked.
pub fn compare(inventory: &Inventory, told: &Testimony) -> Vec<Check> {
    let mut checks = Vec::new();
    for mount in inventory.mounts.iter().filter(|mount| is_asked(mount)) {
        checks.push(of_mount(inventory, told, mount));
    }
    for swap in &inventory.swaps {
        checks.push(of_swap(inventory, told, swap));
    }
    let mut n_nics = 0;
    for nic in inventory.nics.iter().filter(|nic| !nic.name.is_empty()) {
        if nic.kind == NicKind::Virtual {
            continue;
        }
        n_nics += 1;
        checks.push(of_nic(told, nic));
        if nic.method == AddressMethod::Static {
            checks.extend(of_addresses(told, nic));
        }
    }
    if n_nics == 0 {
        checks.push(check(
            About::Nic,
            "network cards",
            Outcome::NotChecked,
            "nothing says what they were called: --inventory does".to_owned(),
        ));
    }
    checks.push(of_units(told));
    checks
}

fn check(about: About, name: &str, outcome: Outcome, note: String) -> Check {
    Check {
        about,
        name: name.to_owned(),
        outcome,
        notes: vec![note],
    }
}

fn is_asked(mount: &Mount) -> bool {
    let has = |word: &str| mount.options.split(',').any(|option| option == word);
    let is_of_fstab = !mount.fstab.is_empty() || mount.path == "/";
    let kind = mount.kind.as_str();
    let is_on_disk = Place::of(kind) == Place::Disk && !SHOWN.contains(&kind);
    is_of_fstab && !mount.is_remote && is_on_disk && !has("noauto")
}

/// Returns the identity of what is in a disk or volume of an inventory.
fn uuid_of<'a>(inventory: &'a Inventory, name: &str) -> Option<&'a str> {
    let volumes = inventory.volumes.iter();
    let volumes = volumes.map(|volume| (&volume.name, &volume.path, &volume.content.uuid));
    let disks = inventory.disks.iter();
    let disks = disks.map(|disk| (&disk.name, &disk.path, &disk.content.uuid));
    let mut all = volumes.chain(disks);
    let found = all.find(|(known, path, _)| *known == name || (*path == name && !name.is_empty()));
    found
        .map(|(.., uuid)| uuid.as_str())
        .filter(|uuid| !uuid.is_empty())
}

fn of_mount(inventory: &Inventory, told: &Testimony, mount: &Mount) -> Check {
    let answer = |outcome, note| check(About::Mount, &mount.path, outcome, note);
    let Some(found) = told.mounts.iter().find(|found| found.path == mount.path) else {
        let what = format!("{} is not mounted there", mount.volume);
        return answer(Outcome::Failed, what);
    };
    // An automount is there, and mounts when somebody looks.
    if found.kind == "autofs" {
        return answer(Outcome::Passed, "mounted when it is used".to_owned());
    }
    let is_kind = mount.kind.is_empty() || mount.kind == "auto" || found.kind == mount.kind;
    let (wanted, is) = (
        uuid_of(inventory, &mount.volume),
        told.uuid_of(&found.device),
    );
    if let (Some(wanted), Some(is)) = (wanted, is)
        && !wanted.eq_ignore_ascii_case(is)
    {
        let what = format!("{} ({is}) is mounted there, not {wanted}", found.device);
        return answer(Outcome::Failed, what);
    }
    let what = format!("{} from {}", found.kind, found.device);
    if !is_kind {
        return answer(Outcome::Failed, format!("{what}, not {}", mount.kind));
    }
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    match is_read_only(&found.options) && !is_read_only(&mount.options) {
        true => answer(Outcome::Warning, format!("{what}, read-only")),
        false => answer(Outcome::Passed, what),
    }
}

fn of_swap(inventory: &Inventory, told: &Testimony, swap: &Swap) -> Check {
    let wanted = uuid_of(inventory, &swap.volume);
    let is_it = |device: &str| match (wanted, swap.is_file) {
        (_, true) => device == swap.volume,
        (Some(wanted), _) => told.uuid_of(device) == Some(wanted),
        (None, _) => device == swap.volume,
    };
    let found = told.swaps.iter().find(|(_, device)| is_it(device));
    let (outcome, note) = match (found, wanted.is_some() || swap.is_file) {
        (Some((_, device)), _) => (Outcome::Passed, format!("on {device}")),
        (None, true) => (Outcome::Failed, "is not swapped to".to_owned()),
        (None, false) => (
            Outcome::NotChecked,
            "nothing says which one it is".to_owned(),
        ),
    };
    check(About::Swap, &swap.volume, outcome, note)
}

fn of_nic(told: &Testimony, nic: &Nic) -> Check {
    let answer = |outcome, note| check(About::Nic, &nic.name, outcome, note);
    let macs = [&nic.permanent_mac, &nic.mac].map(|mac| mac.to_lowercase());
    let named = told.links.iter().find(|link| link.name == nic.name);
    let is_hardware = nic.kind == NicKind::Physical;
    let mut by_mac = told.links.iter().filter(|link| {
        let is_hardware_too = !link.driver.is_empty() || !is_hardware;
        is_hardware_too && !link.mac.is_empty() && macs.contains(&link.mac)
    });
    match (named, by_mac.next()) {
        (Some(named), _) if macs.contains(&named.mac) => {
            let driver = if named.driver.is_empty() {
                "-"
            } else {
                &named.driver
            };
            answer(Outcome::Passed, format!("{}, driver {driver}", named.mac))
        }
        (_, Some(other)) => answer(
            Outcome::Failed,
            format!("the card {} is called {} there", other.mac, other.name),
        ),
        (Some(named), None) if is_hardware && macs.iter().any(|mac| !mac.is_empty()) => answer(
            Outcome::Warning,
            format!("its address is {}, not {}", named.mac, macs[0]),
        ),
        (Some(_), None) => answer(Outcome::Passed, "is there".to_owned()),
        (None, None) => {
            let links = told.links.iter().filter(|link| link.name != "lo");
            let names: Vec<&str> = links.map(|link| link.name.as_str()).collect();
            let there = match names.is_empty() {
                true => "there are none".to_owned(),
                false => format!("there are {}", names.join(", ")),
            };
            answer(
                Outcome::Failed,
                format!("is not there, and no card has its address: {there}"),
            )
        }
    }
}

fn of_addresses(told: &Testimony, nic: &Nic) -> Vec<Check> {
    let has = |address: &str| {
        let mut all = told.addresses.iter();
        all.any(|(name, has)| *name == nic.name && has.eq_ignore_ascii_case(address))
    };
    let checks = nic.addresses.iter().map(|address| {
        let (outcome, note) = match has(address) {
            true => (Outcome::Passed, "is there".to_owned()),
            false => (Outcome::Failed, "is not there".to_owned()),
        };
        let name = format!("{} {address}", nic.name);
        check(About::Address, &name, outcome, note)
    });
    checks.collect()
}

fn of_units(told: &Testimony) -> Check {
    let (outcome, note) = match told.failed.is_empty() {
        true => (Outcome::Passed, "none failed".to_owned()),
        false => (
            Outcome::Warning,
            format!("failed, here without a network: {}", told.failed.join(", ")),
        ),
    };
    check(About::Units, "services", outcome, note)
}
