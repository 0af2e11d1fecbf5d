//! What an envelope must not contradict: ids that are there once, references that lead somewhere,
//! hardware that is one machine's.

use std::collections::{HashMap, HashSet};

use hako_block::{Error, Result};

use super::machine::{CPU, DISK, ETHERNET, MEMORY, host_disk, host_file};
use super::{Envelope, Hardware, Item, Product, System};

/// Longest chain of disks, as of any images.
const MAX_CHAIN: usize = 32;

/// Checks all that concerns more than one element.
pub(super) fn envelope(envelope: &Envelope) -> Result<()> {
    unique(
        "References",
        "file",
        envelope.files.iter().map(|file| &file.id),
    )?;
    unique(
        "References",
        "href",
        envelope.files.iter().map(|file| &file.href),
    )?;
    unique(
        "DiskSection",
        "disk",
        envelope.disks.iter().map(|disk| &disk.id),
    )?;
    unique(
        "NetworkSection",
        "network",
        envelope.networks.iter().map(|network| &network.name),
    )?;
    let options = || envelope.deployment_options.iter().map(|option| &option.id);
    unique("DeploymentOptionSection", "option", options())?;
    unique(
        "Envelope",
        "machine",
        envelope.systems.iter().map(|system| &system.id),
    )?;
    disks(envelope)?;
    products("Envelope", &envelope.products)?;
    let names = Names {
        disks: envelope.disks.iter().map(|disk| disk.id.as_str()).collect(),
        files: envelope.files.iter().map(|file| file.id.as_str()).collect(),
        networks: envelope
            .networks
            .iter()
            .map(|network| network.name.trim())
            .collect(),
    };
    for system in &envelope.systems {
        let place = format!("machine {:?}", system.id);
        products(&place, &system.products)?;
        for hardware in &system.hardware {
            items(envelope, &names, system, hardware).map_err(|error| error.place(&place))?;
        }
    }
    Ok(())
}

/// What items refer to.
struct Names<'a> {
    disks: HashSet<&'a str>,
    files: HashSet<&'a str>,
    networks: HashSet<&'a str>,
}

fn unique<'a>(place: &str, what: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::corrupt(
                place,
                format!("the {what} {name:?} is there twice"),
            ));
        }
    }
    Ok(())
}

/// Only deployment options may share a file among disks: no machine has both.
fn disks(envelope: &Envelope) -> Result<()> {
    let mut used = HashSet::new();
    for disk in &envelope.disks {
        let Some(file) = &disk.file else { continue };
        if !used.insert(&file.id) && envelope.deployment_options.is_empty() {
            return Err(Error::corrupt(
                "DiskSection",
                format!("the file {:?} belongs to two disks", file.id),
            ));
        }
    }
    let parents: HashMap<&str, &str> = envelope
        .disks
        .iter()
        .filter_map(|disk| Some((disk.id.as_str(), disk.parent.as_deref()?)))
        .collect();
    for disk in &envelope.disks {
        let chain = std::iter::successors(Some(disk.id.as_str()), |id| parents.get(id).copied());
        if chain.take(MAX_CHAIN + 1).count() > MAX_CHAIN {
            let what = format!("the disk {:?} has more than {MAX_CHAIN} parents", disk.id);
            return Err(Error::corrupt("DiskSection", what));
        }
    }
    Ok(())
}

fn products(place: &str, products: &[Product]) -> Result<()> {
    let mut seen = HashSet::new();
    for product in products {
        let key = (&product.class, &product.instance);
        if !product.class.is_empty() && !seen.insert(key) {
            let what = format!(
                "two ProductSections have the class {:?} and instance {:?}",
                product.class, product.instance
            );
            return Err(Error::corrupt(place, what));
        }
    }
    Ok(())
}

fn items(
    envelope: &Envelope,
    names: &Names<'_>,
    system: &System,
    hardware: &Hardware,
) -> Result<()> {
    if hardware.items.is_empty() && !hardware.families.is_empty() && system.hardware.len() == 1 {
        nothing_is_idle(envelope)?;
    }
    let ids: HashSet<&str> = hardware.items.iter().map(|item| item.id.as_str()).collect();
    for (index, item) in hardware.items.iter().enumerate() {
        let wrong = |what: String| Err(Error::corrupt(item_name(system, item), what));
        let same = hardware
            .items
            .iter()
            .take(index)
            .find(|other| clash(other, item));
        if let Some(other) = same {
            return wrong(format!(
                "the InstanceID {:?} is that of line {} too",
                item.id, other.line
            ));
        }
        let is_rival = |other: &Item| {
            other.resource_type == item.resource_type && other.bound.is_none() && other != item
        };
        if matches!(item.resource_type, CPU | MEMORY)
            && item.quantity.is_none()
            && item.bound.is_none()
            && hardware.items.iter().any(is_rival)
        {
            return wrong("says no VirtualQuantity".to_owned());
        }
        if let Some(parent) = item
            .parent
            .as_deref()
            .filter(|parent| !ids.contains(parent))
            && item.resource_type == DISK
            && !is_nil(parent)
        {
            return wrong(format!("hangs on the item {parent:?}, which is not there"));
        }
        let is_normal = |other: &Item| other.id == item.id && other.bound.is_none();
        if item.bound.is_some() && !hardware.items.iter().any(is_normal) {
            return wrong("is the bound of an item that is not there".to_owned());
        }
        resources(names, system, item)?;
    }
    Ok(())
}

/// A machine of a family that has no part at all, and disks beside it: the parts were lost.
fn nothing_is_idle(envelope: &Envelope) -> Result<()> {
    let Some(disk) = envelope.disks.first() else {
        return Ok(());
    };
    let mut what = format!(
        "the hardware has no Item, so nothing uses the disk {:?}",
        disk.id
    );
    if let Some(file) = disk.file.as_ref().filter(|file| file.size.is_none()) {
        what.push_str(&format!(
            " (and no size is said of its file {:?})",
            file.href
        ));
    }
    Err(Error::corrupt("VirtualHardwareSection", what))
}

fn resources(names: &Names<'_>, system: &System, item: &Item) -> Result<()> {
    let wrong = |what: String| Err(Error::corrupt(item_name(system, item), what));
    for resource in &item.host_resources {
        if let Some(id) = host_disk(resource).filter(|id| !names.disks.contains(id)) {
            return wrong(format!(
                "refers to the disk {id:?}, which DiskSection lacks"
            ));
        }
        if let Some(id) = host_file(resource).filter(|id| !names.files.contains(id)) {
            return wrong(format!("refers to the file {id:?}, which References lacks"));
        }
    }
    let is_known = |name: &&String| names.networks.contains(name.as_str());
    match item.connections.iter().find(|name| !is_known(name)) {
        Some(name) if item.resource_type == ETHERNET => wrong(format!(
            "is plugged into the network {name:?}, which NetworkSection lacks"
        )),
        _ => Ok(()),
    }
}

/// Two items may share an id if one is a bound of the other, or they are for deployment options: of
/// those the last counts (DSP0243, 9.8).
fn clash(one: &Item, other: &Item) -> bool {
    one.id == other.id
        && one.bound == other.bound
        && one.configurations.is_empty()
        && other.configurations.is_empty()
}

/// oVirt's parent of what has none.
pub(super) fn is_nil(id: &str) -> bool {
    id.bytes().all(|byte| matches!(byte, b'0' | b'-'))
}

fn item_name(system: &System, item: &Item) -> String {
    format!("machine {:?}, line {}: Item", system.id, item.line)
}
