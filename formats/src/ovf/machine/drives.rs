//! Controllers and what hangs on them: an item says its parent's id and its number on it.

use std::collections::{BTreeSet, HashMap};

use hako_block::{Error, Result};

use super::{
    CD, DISK, DVD, IDE, LOGICAL_DISK, OTHER_STORAGE, SCSI, STORAGE_EXTENT, host_disk, host_file,
};
use crate::machine::{Bus, Controller, DiskMedium, DiskMode, Drive, Machine, Medium, Node};
use crate::ovf::{Envelope, Item};

/// Reads all of them into `machine`.
pub(super) fn read(
    envelope: &Envelope,
    items: &[&Item],
    machine: &mut Machine,
    lost: &mut Vec<String>,
) -> Result<()> {
    let mut places = Places::default();
    places.controllers(items, lost);
    let mut unplaced = Vec::new();
    let mut add = |node, item: &Item, medium| {
        machine.drives.push(Drive {
            node,
            medium,
            connected: item.is_connected.unwrap_or(true),
        });
    };
    // Those that say where they are come before those that take what is left.
    for item in items {
        let Some(medium) = medium(envelope, item, lost)? else {
            continue;
        };
        match places.take_wanted(item) {
            Some(node) => add(node, item, medium),
            None => unplaced.push((item, medium)),
        }
    }
    for (item, medium) in unplaced {
        add(places.take_next(item, &medium, lost)?, item, medium);
    }
    machine.drives.sort_by_key(|drive| drive.node);
    for drive in &machine.drives {
        places.imply(drive.node);
    }
    machine.controllers = places.controllers;
    machine
        .controllers
        .sort_by_key(|controller| (controller.bus, controller.number));
    Ok(())
}

/// Returns whether an item of CIM's "other storage" is a controller that machines have.
pub(super) fn is_controller(item: &Item) -> bool {
    controller_kind(item).is_some()
}

/// Returns the bus of a controller, and its model by VMX's name.
fn controller_kind(item: &Item) -> Option<(Bus, Option<&'static str>)> {
    let models = || item.models.iter().map(|model| model.to_ascii_lowercase());
    let named = |part: &str| models().any(|model| model.contains(part));
    let scsi = models().find_map(|model| match model.as_str() {
        "lsilogic" => Some("lsilogic"),
        "lsilogicsas" | "lsisas1068" => Some("lsisas1068"),
        "buslogic" => Some("buslogic"),
        "virtualscsi" | "pvscsi" => Some("pvscsi"),
        _ => None,
    });
    match item.resource_type {
        IDE if named("ahci") => Some((Bus::Sata, None)),
        IDE => Some((Bus::Ide, None)),
        SCSI => Some((Bus::Scsi, scsi)),
        OTHER_STORAGE if named("nvme") => Some((Bus::Nvme, None)),
        OTHER_STORAGE if named("ahci") || named("sata") => Some((Bus::Sata, None)),
        OTHER_STORAGE if scsi.is_some() || named("virtioscsi") => Some((Bus::Scsi, scsi)),
        _ => None,
    }
}

/// Where there is room.
#[derive(Default)]
struct Places<'a> {
    controllers: Vec<Controller>,
    /// Controllers by the ids of their items; none for one beyond what machines have.
    by_id: HashMap<&'a str, Option<(Bus, u8)>>,
    taken: BTreeSet<Node>,
}

impl<'a> Places<'a> {
    /// Numbers the controllers: by what their addresses say, the others as there is room.
    fn controllers(&mut self, items: &[&'a Item], lost: &mut Vec<String>) {
        let mut unnumbered = Vec::new();
        for item in items {
            let Some((bus, model)) = controller_kind(item) else {
                continue;
            };
            if bus == Bus::Scsi && model.is_none() && !item.models.is_empty() {
                lost.push(format!("the model of {}", item.shown()));
            }
            let number = item
                .address
                .as_deref()
                .and_then(|text| text.parse::<u8>().ok());
            match number.filter(|number| self.is_free(bus, *number)) {
                Some(number) => self.add(item, bus, number, model),
                None => unnumbered.push((item, bus, model)),
            }
        }
        for (item, bus, model) in unnumbered {
            let free = (0..bus.max_controllers()).find(|number| self.is_free(bus, *number));
            match free {
                Some(number) => self.add(item, bus, number, model),
                None => {
                    lost.push(format!("{}: a machine has no more", item.shown()));
                    self.by_id.insert(&item.id, None);
                }
            }
        }
    }

    fn is_free(&self, bus: Bus, number: u8) -> bool {
        let same = |other: &Controller| other.bus == bus && other.number == number;
        number < bus.max_controllers() && !self.controllers.iter().any(same)
    }

    fn add(&mut self, item: &'a Item, bus: Bus, number: u8, model: Option<&str>) {
        self.by_id.insert(&item.id, Some((bus, number)));
        self.controllers.push(Controller {
            bus,
            number,
            model: model.map(str::to_owned),
        });
    }

    /// Returns where an item says it is.
    fn wanted(&self, item: &Item) -> Option<Node> {
        let (bus, controller) = (*self.by_id.get(item.parent.as_deref()?)?)?;
        let number: u8 = item.address_on_parent.as_deref()?.parse().ok()?;
        // An IDE controller with four numbers is both of a machine's.
        let (controller, unit) = match bus {
            Bus::Ide => (controller.checked_add(number / 2)?, number % 2),
            _ => (controller, number),
        };
        Some(Node {
            bus,
            controller,
            unit,
        })
    }

    /// Adds the second IDE controller that a text means and does not say.
    fn imply(&mut self, node: Node) {
        if self.is_free(node.bus, node.controller) {
            self.controllers.push(Controller {
                bus: node.bus,
                number: node.controller,
                model: None,
            });
        }
    }

    /// Gives an item the place that it wants, if that is there and free.
    fn take_wanted(&mut self, item: &Item) -> Option<Node> {
        let node = self.wanted(item).filter(|node| self.has_room(*node))?;
        self.taken.insert(node);
        Some(node)
    }

    /// Gives an item the next place on its controller, or on another of that bus.
    fn take_next(&mut self, item: &Item, medium: &Medium, lost: &mut Vec<String>) -> Result<Node> {
        let (bus, controller) = self.parent(item, medium)?;
        let others = (0..bus.max_controllers()).filter(|other| *other != controller);
        let free = std::iter::once(controller)
            .chain(others)
            .flat_map(|controller| (0..bus.max_units()).map(move |unit| (controller, unit)))
            .map(|(controller, unit)| Node {
                bus,
                controller,
                unit,
            })
            .find(|node| self.has_room(*node));
        let node = free.ok_or_else(|| item.wrong("has no place left on its controllers"))?;
        if item.address_on_parent.is_some() {
            lost.push(format!(
                "the place of {}: it is at {node} now",
                item.shown()
            ));
        }
        self.taken.insert(node);
        Ok(node)
    }

    fn has_room(&self, node: Node) -> bool {
        let exists = self
            .controllers
            .iter()
            .any(|controller| controller.bus == node.bus && controller.number == node.controller);
        // A text that has only one IDE controller means both.
        let is_second_ide = node.bus == Bus::Ide && node.controller < 2;
        (exists || is_second_ide)
            && node.unit < node.bus.max_units()
            && !(node.bus == Bus::Scsi && node.unit == 7)
            && !self.taken.contains(&node)
    }

    /// Returns the controller of an item; where it says none, one that is there, or a new one.
    fn parent(&mut self, item: &Item, medium: &Medium) -> Result<(Bus, u8)> {
        let said = item.parent.as_deref().and_then(|id| self.by_id.get(id));
        match said {
            Some(Some(place)) => return Ok(*place),
            Some(None) => {
                let what = "hangs on a controller beyond those that a machine has";
                return Err(Error::unsupported(what).place(item.place()));
            }
            None => {}
        }
        let (usual, order): (Bus, &[Bus]) = match medium {
            Medium::Disk(_) => (Bus::Scsi, &[Bus::Scsi, Bus::Sata, Bus::Nvme, Bus::Ide]),
            _ => (Bus::Ide, &[Bus::Ide, Bus::Sata]),
        };
        let of_bus = |bus: &Bus| self.controllers.iter().find(|other| other.bus == *bus);
        if let Some(found) = order.iter().find_map(of_bus) {
            return Ok((found.bus, found.number));
        }
        self.controllers.push(Controller {
            bus: usual,
            number: 0,
            model: None,
        });
        Ok((usual, 0))
    }
}

/// Returns what is in a drive; none for what is no drive.
fn medium(envelope: &Envelope, item: &Item, lost: &mut Vec<String>) -> Result<Option<Medium>> {
    Ok(match item.resource_type {
        DISK | STORAGE_EXTENT | LOGICAL_DISK => disk(envelope, item, lost)?,
        CD | DVD => Some(cd(item)),
        _ => None,
    })
}

fn disk(envelope: &Envelope, item: &Item, lost: &mut Vec<String>) -> Result<Option<Medium>> {
    let resource = item
        .host_resources
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    // oVirt names a disk by its file, and its item like the disk.
    let of_ovirt = || {
        let same = |disk: &&crate::ovf::Disk| {
            disk.id == item.id || disk.file.as_ref().is_some_and(|file| file.href == resource)
        };
        envelope
            .disks
            .iter()
            .find(same)
            .map(|disk| disk.id.as_str())
    };
    let Some(id) = host_disk(resource).or_else(of_ovirt) else {
        if resource.is_empty() {
            lost.push(format!("{}, which has no content", item.shown()));
            return Ok(None);
        }
        let what = format!("is a disk of {resource:?}, which is none of DiskSection");
        return Err(item.wrong(&what));
    };
    Ok(Some(Medium::Disk(DiskMedium {
        file: id.to_owned(),
        mode: mode(item),
        ..DiskMedium::default()
    })))
}

fn mode(item: &Item) -> DiskMode {
    let said = item
        .config
        .iter()
        .find(|(key, _)| key == "backing.diskMode");
    match said.map(|(_, value)| value.as_str()) {
        Some("independent_persistent") => DiskMode::IndependentPersistent,
        Some("independent_nonpersistent") => DiskMode::IndependentNonpersistent,
        Some("undoable") => DiskMode::Undoable,
        _ => DiskMode::Persistent,
    }
}

fn cd(item: &Item) -> Medium {
    let file = item
        .host_resources
        .iter()
        .find_map(|resource| host_file(resource));
    if let Some(file) = file {
        return Medium::CdImage {
            file: file.to_owned(),
        };
    }
    let is_device = item
        .models
        .iter()
        .any(|model| model.contains("passthrough"));
    match is_device {
        true => Medium::CdDevice {
            device: "auto detect".to_owned(),
        },
        false => Medium::CdEmpty,
    }
}
