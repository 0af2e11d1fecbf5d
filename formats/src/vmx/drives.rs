//! Drives and what they hang on: reading them, adding, changing and removing them.

use std::collections::BTreeSet;

use hako_block::{Error, ErrorKind, Result};

use super::read::{self, Reader};
use super::{Vmx, put, put_or_remove, truth};
use crate::dictionary::Dictionary;
use crate::machine::{Bus, Controller, DiskMedium, DiskMode, Drive, Machine, Medium, Node};

/// Models of SCSI controllers.
pub(super) const SCSI_MODELS: [&str; 4] = ["lsilogic", "lsisas1068", "pvscsi", "buslogic"];
/// What ESXi writes as the file of an empty CD drive.
const EMPTY: &str = "emptyBackingString";
/// What stands for the host's CD drive, whichever it is.
const AUTO_DETECT: &str = "auto detect";
/// Units of a SCSI controller other than pvscsi.
const SCSI_UNITS: u8 = 16;
/// Units of an NVMe controller before hardware version 21.
const NVME_UNITS: u8 = 15;
/// The hardware version that is taken for one that is not said.
const ASSUMED_VERSION: u32 = 19;

/// Returns all drives, ascending by node.
pub(super) fn all(reader: &mut Reader<'_>) -> Vec<Drive> {
    let mut nodes = BTreeSet::new();
    let mut wrong = BTreeSet::new();
    for device in reader.devices() {
        match device.parse::<Node>() {
            Ok(node) if node.to_string() == device => {
                nodes.insert(node);
            }
            _ if is_like_node(device) => {
                wrong.insert(device);
            }
            _ => {}
        }
    }
    for device in wrong.into_iter().filter(|device| device.len() < 40) {
        reader.odd(format!(
            "{device:?} is no node of a drive that a machine can have"
        ));
    }
    let nodes = nodes.into_iter();
    nodes.filter_map(|node| drive(reader, node)).collect()
}

fn is_like_node(device: &str) -> bool {
    Bus::ALL.iter().any(|bus| {
        let number = device.strip_prefix(bus.name());
        number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    }) && device.contains(':')
}

/// Returns the drive at a node, if there is one.
fn drive(reader: &mut Reader<'_>, node: Node) -> Option<Drive> {
    let name = node.to_string();
    let kind = reader.value(&format!("{name}.deviceType"));
    let file = reader.value(&format!("{name}.fileName"));
    if reader.is_off(&name) {
        return None;
    }
    if !reader.is_on(&name) {
        // Some keys outlive their drive.
        if kind.is_none() && file.is_none() {
            return None;
        }
        reader.odd(format!("{name}.present is missing; read as TRUE"));
    }
    let controller = format!("{}{}", node.bus.name(), node.controller);
    if reader.is_off(&controller) {
        reader.odd(format!(
            "{name} is there, but {controller} is not; read as absent"
        ));
        return None;
    }
    Some(Drive {
        node,
        medium: medium(reader, &name, kind.as_deref(), file.as_deref()),
        connected: reader.flag(&format!("{name}.startConnected"), true),
    })
}

fn medium(reader: &mut Reader<'_>, name: &str, kind: Option<&str>, file: Option<&str>) -> Medium {
    let written = kind.unwrap_or_default().trim();
    let kind = written.to_ascii_lowercase();
    let file = file.unwrap_or_default();
    let is_empty = file.is_empty() || file.eq_ignore_ascii_case(EMPTY);
    let is_image = file.to_ascii_lowercase().ends_with(".iso");
    let is_disk = kind == "disk" || kind.ends_with("harddisk") || kind.is_empty() && !is_image;
    let is_physical = matches!(kind.as_str(), "rawdisk" | "plaindisk" | "scsi-passthru-rdm");
    if is_disk && file.is_empty() {
        reader.odd(format!("{name} is a disk without a file"));
    } else if is_disk || is_physical {
        return Medium::Disk(DiskMedium {
            file: file.to_owned(),
            format: format(reader, name),
            mode: mode(reader, name),
            physical: is_physical,
        });
    }
    match kind.as_str() {
        "cdrom-image" if is_empty => Medium::CdEmpty,
        "cdrom-image" => Medium::CdImage {
            file: file.to_owned(),
        },
        "" if is_image => Medium::CdImage {
            file: file.to_owned(),
        },
        _ if kind.contains("cdrom") => cd_device(reader, name, file),
        _ => Medium::Other {
            kind: written.to_owned(),
            file: file.to_owned(),
        },
    }
}

fn cd_device(reader: &mut Reader<'_>, name: &str, file: &str) -> Medium {
    let is_client = reader.flag(&format!("{name}.clientDevice"), false);
    let is_auto = reader.flag(&format!("{name}.autodetect"), false);
    let device = match file {
        "" if is_auto && !is_client => AUTO_DETECT,
        _ => file,
    };
    if device.is_empty() || device.eq_ignore_ascii_case(EMPTY) {
        return Medium::CdEmpty;
    }
    Medium::CdDevice {
        device: device.to_owned(),
    }
}

fn format(reader: &Reader<'_>, name: &str) -> Option<String> {
    let format = reader.word(&format!("hako.{name}.format"));
    Some(format.to_ascii_lowercase()).filter(|format| !matches!(format.as_str(), "" | "vmdk"))
}

fn mode(reader: &mut Reader<'_>, name: &str) -> DiskMode {
    let key = format!("{name}.mode");
    let word = reader.word(&key).to_ascii_lowercase();
    if word.is_empty() {
        return DiskMode::Persistent;
    }
    // As old products said it.
    if word == "nonpersistent" {
        return DiskMode::IndependentNonpersistent;
    }
    let found = DiskMode::ALL.into_iter().find(|mode| mode.name() == word);
    found.unwrap_or_else(|| {
        reader.odd_value(key, &word, "which is not known; read as persistent");
        DiskMode::Persistent
    })
}

impl Vmx {
    /// Puts a drive at its node, instead of what is there; its controller comes with it where it
    /// is missing, of that SCSI model, else of one that suits the guest. Keys that are about
    /// something else stay where the drive stays of its kind.
    ///
    /// Errors: [`ErrorKind::Invalid`] for a node that the controller or the hardware version does
    /// not have, a disk or image without a file, and a model that contradicts the one that is
    /// there.
    pub fn put_drive(&mut self, drive: &Drive, model: Option<&str>) -> Result<()> {
        if let Medium::Disk(DiskMedium { file, .. }) | Medium::CdImage { file } = &drive.medium
            && file.is_empty()
        {
            return Err(Error::invalid(format!("{} has no file", drive.node)));
        }
        let machine = self.machine();
        self.edit(|dictionary| {
            put_controller(
                dictionary,
                &machine,
                drive.node.bus,
                drive.node.controller,
                model,
            )?;
            let old = machine.drives.iter().find(|old| old.node == drive.node);
            if old.is_none() {
                check_unit(&read::machine(dictionary).0, drive.node)?;
            }
            let is_same_kind = old.is_some_and(|old| is_same_kind(&old.medium, &drive.medium));
            if !is_same_kind {
                remove(dictionary, drive.node);
            }
            write(dictionary, drive, old.filter(|_| is_same_kind))
        })
    }

    /// Removes the drive at a node with all that is said about it; the file stays, and so does the
    /// controller. Errors: [`ErrorKind::NotFound`] if there is none.
    pub fn remove_drive(&mut self, node: Node) -> Result<()> {
        self.check_drive(node)?;
        self.edit(|dictionary| {
            remove(dictionary, node);
            Ok(())
        })
    }

    /// Names another file for the drive at a node. Errors: [`ErrorKind::NotFound`] if there is no
    /// drive.
    pub fn set_drive_file(&mut self, node: Node, file: &str) -> Result<()> {
        self.check_drive(node)?;
        self.edit(|dictionary| dictionary.set(&format!("{node}.fileName"), file))
    }

    /// Returns the first free node of a bus: on a controller that is there, else on the first that
    /// is not. With a `model`, of those that are there only on controllers of that.
    pub fn free_node(&self, bus: Bus, model: Option<&str>) -> Option<Node> {
        let machine = self.machine();
        let is_there = |number: u8| {
            let mut controllers = machine.controllers.iter();
            bus == Bus::Ide || controllers.any(|other| other.bus == bus && other.number == number)
        };
        let is_other = |other: &Controller, number: u8| {
            let is_same = other.bus == bus && other.number == number;
            is_same && model.is_some() && other.model.as_deref() != model
        };
        let nodes = (0..bus.max_controllers()).flat_map(|controller| {
            (0..bus.max_units()).map(move |unit| Node {
                bus,
                controller,
                unit,
            })
        });
        let is_free = |node: &Node| {
            let (mut drives, mut controllers) = (machine.drives.iter(), machine.controllers.iter());
            check_unit(&machine, *node).is_ok()
                && !drives.any(|drive| drive.node == *node)
                && !controllers.any(|other| is_other(other, node.controller))
        };
        let free: Vec<Node> = nodes.filter(is_free).collect();
        let there = free.iter().find(|node| is_there(node.controller));
        let new = || {
            free.iter().find(|node| {
                let name = format!("{}{}", bus.name(), node.controller);
                !is_there(node.controller) && !has_sleeping_drives(&self.dictionary, &name)
            })
        };
        there.or_else(new).copied()
    }

    fn check_drive(&self, node: Node) -> Result<()> {
        let is_there = self.machine().drives.iter().any(|drive| drive.node == node);
        is_there
            .then_some(())
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no drive is at {node}")))
    }
}

fn is_same_kind(old: &Medium, new: &Medium) -> bool {
    match (old, new) {
        (Medium::Disk(old), Medium::Disk(new)) => old.physical == new.physical,
        (Medium::Other { kind: old, .. }, Medium::Other { kind: new, .. }) => {
            old.eq_ignore_ascii_case(new)
        }
        (Medium::CdDevice { device: old }, Medium::CdDevice { device: new }) => old == new,
        (Medium::CdImage { .. }, Medium::CdImage { .. }) => true,
        (Medium::CdEmpty, Medium::CdEmpty) => true,
        _ => false,
    }
}

/// Makes a controller be there.
pub(super) fn put_controller(
    dictionary: &mut Dictionary,
    machine: &Machine,
    bus: Bus,
    number: u8,
    model: Option<&str>,
) -> Result<()> {
    let name = format!("{}{number}", bus.name());
    if number >= bus.max_controllers() {
        return Err(Error::invalid(format!(
            "no machine has a controller {name}"
        )));
    }
    let is_known = model.is_none_or(|model| bus == Bus::Scsi && SCSI_MODELS.contains(&model));
    if let (Some(model), false) = (model, is_known) {
        let hint = format!("models of SCSI are {}", SCSI_MODELS.join(", "));
        return Err(Error::invalid(format!("{name} cannot be a {model}")).hint(hint));
    }
    let mut there = machine.controllers.iter();
    if let Some(there) = there.find(|there| there.bus == bus && there.number == number) {
        return match (model, &there.model) {
            (Some(model), Some(there)) if model != there => {
                Err(Error::invalid(format!("{name} is a {there}, no {model}")))
            }
            (Some(model), None) => dictionary.set(&format!("{name}.virtualDev"), model),
            _ => Ok(()),
        };
    }
    if has_sleeping_drives(dictionary, &name) {
        let what = format!("{name} is switched off, and drives on it would come back with it");
        return Err(Error::invalid(what).hint("use another controller"));
    }
    // Every machine has both IDE controllers.
    if bus != Bus::Ide {
        dictionary.set(&format!("{name}.present"), truth(true))?;
    }
    if bus == Bus::Scsi {
        let guest_os = machine.guest_os.as_deref();
        let model = model.unwrap_or_else(|| default_scsi_model(guest_os));
        dictionary.set(&format!("{name}.virtualDev"), model)?;
    }
    Ok(())
}

/// Returns whether a controller is switched off, but drives on it are not.
fn has_sleeping_drives(dictionary: &Dictionary, controller: &str) -> bool {
    let reader = Reader::new(dictionary);
    let is_on_it = |device: &&str| {
        let unit = device.strip_prefix(controller);
        unit.is_some_and(|unit| unit.starts_with(':'))
    };
    let mut drives = reader.devices().into_iter().filter(is_on_it);
    reader.is_off(controller) && drives.any(|device| !reader.is_off(device))
}

/// Returns the SCSI model whose driver the guest has: Windows has LSI's SAS one, 64-bit Linux the
/// paravirtual one (since 2.6.33).
fn default_scsi_model(guest_os: Option<&str>) -> &'static str {
    let guest_os = guest_os.unwrap_or_default().to_ascii_lowercase();
    if guest_os.starts_with("win") {
        "lsisas1068"
    } else if guest_os.contains("linux") || LINUX.iter().any(|name| guest_os.starts_with(name)) {
        match guest_os.ends_with("-64") {
            true => "pvscsi",
            false => "lsilogic",
        }
    } else {
        "lsilogic"
    }
}

/// How guestOS begins for distributions of Linux whose name does not say so.
const LINUX: [&str; 12] = [
    "almalinux",
    "amazonlinux",
    "asianux",
    "centos",
    "coreos",
    "debian",
    "fedora",
    "opensuse",
    "rhel",
    "sles",
    "ubuntu",
    "vmware-photon",
];

/// Refuses a unit that the controller does not have.
fn check_unit(machine: &Machine, node: Node) -> Result<()> {
    let version = machine.hardware_version.unwrap_or(ASSUMED_VERSION);
    let mut controllers = machine.controllers.iter();
    let controller =
        controllers.find(|other| other.bus == node.bus && other.number == node.controller);
    let model = controller.and_then(|controller| controller.model.as_deref());
    let n_units = match node.bus {
        Bus::Scsi if model == Some("pvscsi") && version >= 14 => node.bus.max_units(),
        Bus::Scsi => SCSI_UNITS,
        Bus::Nvme if version < 21 => NVME_UNITS,
        _ => node.bus.max_units(),
    };
    let is_reserved = node.bus == Bus::Scsi && node.unit == 7;
    if node.unit < n_units && node.controller < node.bus.max_controllers() && !is_reserved {
        return Ok(());
    }
    let what = format!("{node} is no place for a drive in this machine");
    let hint = match is_reserved {
        true => "unit 7 is the SCSI controller itself".to_owned(),
        false => format!("units of this controller are 0 to {}", n_units - 1),
    };
    Err(Error::invalid(what).hint(hint))
}

fn remove(dictionary: &mut Dictionary, node: Node) {
    dictionary.remove_tree(&node.to_string());
    dictionary.remove_tree(&format!("hako.{node}"));
    dictionary.remove_tree(&format!("sched.{node}"));
}

/// Writes what a drive says; `old` is the drive of the same kind that is there.
fn write(dictionary: &mut Dictionary, drive: &Drive, old: Option<&Drive>) -> Result<()> {
    let node = drive.node;
    let key = |name: &str| format!("{node}.{name}");
    if let (Some(kind), None) = (device_type(node.bus, &drive.medium), old) {
        dictionary.set(&key("deviceType"), kind)?;
    }
    let file = match &drive.medium {
        Medium::Disk(disk) => &disk.file,
        Medium::CdImage { file } | Medium::Other { file, .. } => file,
        Medium::CdDevice { device } => device,
        Medium::CdEmpty => EMPTY,
    };
    if old.is_none() || !matches!(drive.medium, Medium::CdEmpty | Medium::CdDevice { .. }) {
        dictionary.set(&key("fileName"), file)?;
    }
    if let Medium::Disk(disk) = &drive.medium {
        let default = DiskMode::Persistent.name();
        put(dictionary, &key("mode"), disk.mode.name(), default)?;
        let format = disk.format.as_deref().filter(|format| *format != "vmdk");
        put_or_remove(dictionary, &format!("hako.{node}.format"), format)?;
    }
    if old.is_none() && drive.medium == Medium::CdEmpty {
        dictionary.set(&key("clientDevice"), truth(true))?;
    }
    if old.is_none() && file == AUTO_DETECT {
        dictionary.set(&key("autodetect"), truth(true))?;
    }
    put(
        dictionary,
        &key("startConnected"),
        truth(drive.connected),
        truth(true),
    )?;
    dictionary.set(&key("present"), truth(true))
}

/// What VMware's products write; virt-v2v wants just this too.
fn device_type(bus: Bus, medium: &Medium) -> Option<&str> {
    match medium {
        Medium::Disk(disk) if disk.physical => Some("rawDisk"),
        Medium::Disk(_) => match bus {
            Bus::Ide => Some("ata-hardDisk"),
            Bus::Scsi => Some("scsi-hardDisk"),
            Bus::Sata => Some("disk"),
            Bus::Nvme => None,
        },
        Medium::CdImage { .. } => Some("cdrom-image"),
        Medium::CdDevice { .. } => Some("cdrom-raw"),
        Medium::CdEmpty => Some("atapi-cdrom"),
        Medium::Other { kind, .. } if kind.is_empty() => None,
        Medium::Other { kind, .. } => Some(kind),
    }
}
