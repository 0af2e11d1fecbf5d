//! Disks and CD drives, and the controllers that they hang on, at VMware's unit numbers.

use std::collections::BTreeMap;

use hako_block::Result;
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Bus, Drive, Machine, Medium};
use serde_json::{Map, Value, json};

use super::super::super::disks::{name_of, waits_for_room};
use super::board::is_new_linux;
use super::boot::Order;
use super::{Chipset, CommandLine, LayerFormat, Loaded, Source, Wanted, slot, text};

/// Ports of QEMU's AHCI controller.
const AHCI_PORTS: u8 = 6;
/// Units of QEMU's LSI SAS controller.
const SAS_UNITS: u8 = 8;
/// Functions of a PCI device.
const FUNCTIONS: u8 = 8;

/// Models of SCSI controllers, QEMU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scsi {
    Pvscsi,
    Sas,
    Virtio,
    /// None: each disk is a device of its own.
    Bare,
    /// SATA instead.
    Ahci,
}

pub(super) fn add(
    line: &mut CommandLine,
    wanted: &Wanted<'_>,
    chipset: Chipset,
    order: &Order,
) -> Result<()> {
    let mut models = BTreeMap::new();
    for number in controllers(wanted.machine, Bus::Scsi) {
        let by_uefi = wanted.flash.is_some() && wanted.kernel.is_none();
        let (model, warning) = scsi_model(wanted.machine, wanted.keys, number, by_uefi);
        line.warnings.extend(warning);
        models.insert(number, model);
    }
    let here: Vec<&Drive> = wanted
        .machine
        .drives
        .iter()
        .filter(|d| is_here(line, wanted, d))
        .collect();
    add_controllers(line, wanted.machine, chipset, &models, &here);
    let waits = waits_for_room(wanted.keys)?;
    let mut n_of_controller: BTreeMap<u8, u8> = BTreeMap::new();
    for drive in here {
        let node = drive.node;
        let loaded = wanted
            .media
            .get(&node)
            .filter(|_| is_disk(drive) || drive.connected);
        let name = name_of(node);
        if let Some(loaded) = loaded {
            add_blockdev(line, &name, loaded)?;
        }
        let mut device = match node.bus {
            Bus::Ide => ide(line, drive, chipset),
            Bus::Sata => sata(drive),
            Bus::Nvme => nvme(line, drive),
            Bus::Scsi => {
                let model = models.get(&node.controller).copied().unwrap_or(Scsi::Sas);
                let index = n_of_controller.entry(node.controller).or_default();
                *index = index.saturating_add(1);
                scsi(line, drive, model, chipset, *index - 1)
            }
        };
        if let Some(device) = &mut device {
            complete(device, drive, loaded, &name, order);
            answer_errors(device, drive, waits);
            line.drives.insert(name, node);
            line.device(&Value::Object(device.clone()));
        }
    }
    if let Some(floppy) = &wanted.floppy {
        add_blockdev(line, "floppy0", floppy)?;
        if chipset == Chipset::Q35 {
            line.device(&json!({"driver": "isa-fdc", "id": "floppy-controller"}));
        }
        if let Some(place) = order.floppy {
            line.arg("-global", format!("isa-fdc.bootindexA={place}"));
        }
        line.device(&json!({"driver": "floppy", "drive": "floppy0", "unit": 0}));
    }
    Ok(())
}

/// Returns whether QEMU gets a drive.
fn is_here(line: &mut CommandLine, wanted: &Wanted<'_>, drive: &Drive) -> bool {
    let node = drive.node;
    match &drive.medium {
        Medium::Disk(_) if !drive.connected => {
            line.warn(format!(
                "{node} is left out: it is not connected at the start"
            ));
            false
        }
        Medium::Disk(_) => wanted.media.contains_key(&node),
        Medium::Other { kind, .. } => {
            let kind: String = kind.chars().take(40).collect();
            line.warn(format!(
                "{node} is left out: QEMU gets no {kind:?} of the host"
            ));
            false
        }
        Medium::CdDevice { .. } => {
            line.warn(format!(
                "{node} is empty: the host's own CD drive is not passed on"
            ));
            true
        }
        Medium::CdImage { .. } | Medium::CdEmpty => true,
    }
}

fn is_disk(drive: &Drive) -> bool {
    matches!(drive.medium, Medium::Disk(_))
}

/// Returns the numbers of a bus's controllers: those that are said to be there, and those that
/// drives hang on.
fn controllers(machine: &Machine, bus: Bus) -> Vec<u8> {
    let said = machine
        .controllers
        .iter()
        .filter(|c| c.bus == bus)
        .map(|c| c.number);
    let used = machine.drives.iter().filter(|d| d.node.bus == bus);
    let mut numbers: Vec<u8> = said.chain(used.map(|d| d.node.controller)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Returns the model of a SCSI controller, and what the user should know of it: VMware's where QEMU
/// has it, else one that the guest most likely has a driver for; `hako.scsiN.virtualDev` overrules.
/// Firmware for UEFI, as distributions build it, has drivers for none of VMware's.
pub(super) fn scsi_model(
    machine: &Machine,
    keys: &Dictionary,
    number: u8,
    by_uefi: bool,
) -> (Scsi, Option<String>) {
    let key = format!("hako.scsi{number}.virtualDev");
    let wish = keys
        .value(&key)
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let wished = match wish.as_str() {
        "virtio-scsi" => Some(Scsi::Virtio),
        "virtio-blk" => Some(Scsi::Bare),
        "pvscsi" => Some(Scsi::Pvscsi),
        "lsisas1068" => Some(Scsi::Sas),
        "ahci" => Some(Scsi::Ahci),
        _ => None,
    };
    if let Some(model) = wished {
        return (model, None);
    }
    let mut controllers = machine.controllers.iter();
    let own = controllers.find(|c| c.bus == Bus::Scsi && c.number == number);
    let own = own.and_then(|c| c.model.as_deref()).unwrap_or("lsilogic");
    let is_linux = is_new_linux(machine);
    let (model, name) = match own {
        _ if by_uefi && is_linux => (Scsi::Virtio, Some("virtio-scsi (Linux: virtio_scsi)")),
        _ if by_uefi => (Scsi::Ahci, Some("SATA controller (AHCI)")),
        "pvscsi" => (Scsi::Pvscsi, None),
        "lsisas1068" => (Scsi::Sas, None),
        _ if is_linux => (Scsi::Pvscsi, Some("pvscsi (Linux: vmw_pvscsi)")),
        _ => (Scsi::Sas, Some("lsisas1068 (Linux: mptsas)")),
    };
    let own: String = own.chars().take(40).collect();
    let lacking = match by_uefi {
        true => format!("the UEFI firmware has no driver for {own} (a direct boot needs none)"),
        false => format!("QEMU has no {own}"),
    };
    let warning = match (name, wish.is_empty()) {
        (_, false) => Some(format!(
            "{key} is none of virtio-scsi, virtio-blk, pvscsi, lsisas1068, ahci; left out"
        )),
        (Some(name), true) => Some(format!(
            "scsi{number} is a {name} here, for {lacking}: the guest must have its driver; {key} \
             chooses another"
        )),
        (None, true) => None,
    };
    (model, warning)
}

fn add_controllers(
    line: &mut CommandLine,
    machine: &Machine,
    chipset: Chipset,
    scsi: &BTreeMap<u8, Scsi>,
    drives: &[&Drive],
) {
    let most = |bus: Bus, number: u8| {
        let units = drives
            .iter()
            .filter(|d| d.node.bus == bus && d.node.controller == number);
        units.map(|d| d.node.unit).max().unwrap_or(0)
    };
    for (&number, model) in scsi {
        let (driver, per_function) = match model {
            Scsi::Pvscsi => ("pvscsi", u8::MAX),
            Scsi::Sas => ("mptsas1068", SAS_UNITS),
            Scsi::Virtio => ("virtio-scsi-pci", u8::MAX),
            Scsi::Ahci => ("ich9-ahci", AHCI_PORTS),
            Scsi::Bare => continue,
        };
        let n = most(Bus::Scsi, number) / per_function + 1;
        add_functions(
            line,
            chipset,
            driver,
            &format!("scsi{number}"),
            slot::SCSI + number,
            n,
        );
    }
    for number in controllers(machine, Bus::Sata) {
        let n = most(Bus::Sata, number) / AHCI_PORTS + 1;
        add_functions(
            line,
            chipset,
            "ich9-ahci",
            &format!("sata{number}"),
            slot::SATA + number,
            n,
        );
    }
    for number in controllers(machine, Bus::Nvme) {
        line.device(&json!({
            "driver": "nvme", "id": format!("nvme{number}"), "bus": chipset.bus(),
            "addr": format!("{:x}.0", slot::NVME + number),
            "serial": format!("VMware NVME_{number:04}"),
        }));
    }
}

/// Adds as many controllers as the highest unit needs, as the functions of one device.
fn add_functions(
    line: &mut CommandLine,
    chipset: Chipset,
    driver: &str,
    name: &str,
    slot: u8,
    n: u8,
) {
    for function in 0..n.min(FUNCTIONS) {
        let mut device = json!({
            "driver": driver, "id": function_name(name, function), "bus": chipset.bus(),
            "addr": format!("{slot:x}.{function}"),
        });
        if n > 1 && function == 0 {
            device["multifunction"] = json!(true);
        }
        line.device(&device);
    }
}

fn function_name(name: &str, function: u8) -> String {
    match function {
        0 => name.to_owned(),
        _ => format!("{name}f{function}"),
    }
}

type Device = Map<String, Value>;

fn device(value: Value) -> Option<Device> {
    match value {
        Value::Object(device) => Some(device),
        _ => None,
    }
}

/// What VMware's drives call themselves: guests find their disks by it (`/dev/disk/by-id`).
fn ata(drive: &Drive, bus: &str, index: u8) -> Value {
    match is_disk(drive) {
        true => json!({"driver": "ide-hd", "model": format!("VMware Virtual {bus} Hard Drive"),
                       "serial": format!("{:020}", u32::from(index) + 1)}),
        false => json!({"driver": "ide-cd", "model": format!("VMware Virtual {bus} CDROM Drive"),
                        "serial": format!("1{:019}", u32::from(index) + 1)}),
    }
}

fn ide(line: &mut CommandLine, drive: &Drive, chipset: Chipset) -> Option<Device> {
    let node = drive.node;
    let index = node.controller * 2 + node.unit;
    let mut value = ata(drive, "IDE", index);
    match chipset {
        Chipset::Pc => {
            value["bus"] = json!(format!("ide.{}", node.controller));
            value["unit"] = json!(node.unit);
        }
        Chipset::Q35 => {
            value["bus"] = json!(format!("ide.{index}"));
            if is_disk(drive) {
                line.warn(format!(
                    "{node} is a SATA drive here, for a machine with UEFI has no IDE: the guest \
                     must have a driver for AHCI"
                ));
            }
        }
    }
    device(value)
}

fn sata(drive: &Drive) -> Option<Device> {
    let node = drive.node;
    let mut value = ata(drive, "SATA", node.unit);
    let controller = function_name(&format!("sata{}", node.controller), node.unit / AHCI_PORTS);
    value["bus"] = json!(format!("{controller}.{}", node.unit % AHCI_PORTS));
    device(value)
}

fn nvme(line: &mut CommandLine, drive: &Drive) -> Option<Device> {
    let node = drive.node;
    if !is_disk(drive) {
        line.warn(format!(
            "{node} is left out: there are no CD drives on NVMe"
        ));
        return None;
    }
    device(
        json!({"driver": "nvme-ns", "bus": format!("nvme{}", node.controller),
                  "nsid": u32::from(node.unit) + 1}),
    )
}

/// `index` counts the controller's drives.
fn scsi(
    line: &mut CommandLine,
    drive: &Drive,
    model: Scsi,
    chipset: Chipset,
    index: u8,
) -> Option<Device> {
    let node = drive.node;
    if model == Scsi::Bare {
        if !is_disk(drive) || index >= FUNCTIONS {
            line.warn(format!(
                "{node} is left out: virtio-blk has no place for it"
            ));
            return None;
        }
        let address = format!("{:x}.{index}", slot::SCSI + node.controller);
        return device(
            json!({"driver": "virtio-blk-pci", "bus": chipset.bus(), "addr": address,
                             "multifunction": index == 0}),
        );
    }
    let (function, unit) = match model {
        Scsi::Sas => (node.unit / SAS_UNITS, node.unit % SAS_UNITS),
        Scsi::Ahci => (node.unit / AHCI_PORTS, node.unit % AHCI_PORTS),
        _ => (0, node.unit),
    };
    if function >= FUNCTIONS {
        line.warn(format!(
            "{node} is left out: its controller has no such unit here"
        ));
        return None;
    }
    let controller = function_name(&format!("scsi{}", node.controller), function);
    if model == Scsi::Ahci {
        let mut value = ata(drive, "SATA", node.unit);
        value["bus"] = json!(format!("{controller}.{unit}"));
        return device(value);
    }
    let mut value = json!({
        "driver": if is_disk(drive) { "scsi-hd" } else { "scsi-cd" },
        "bus": format!("{controller}.0"), "channel": 0, "scsi-id": unit, "lun": 0,
        "vendor": "VMware",
    });
    if is_disk(drive) {
        value["product"] = json!("Virtual disk");
    }
    device(value)
}

/// Adds what all drives have.
fn complete(
    device: &mut Device,
    drive: &Drive,
    loaded: Option<&Loaded>,
    name: &str,
    order: &Order,
) {
    // One on ATA has its own.
    let takes_serial =
        is_disk(drive) && drive.node.bus == Bus::Scsi && !device.contains_key("serial");
    let mut put = |key: &str, value: Value| device.insert(key.to_owned(), value);
    put("id", json!(format!("drive-{name}")));
    if let Some(loaded) = loaded {
        put("drive", json!(name));
        if let Some(serial) = loaded.serial.as_ref().filter(|_| takes_serial) {
            put("serial", json!(serial));
        }
    }
    if let Some(place) = order.drives.get(&drive.node) {
        put("bootindex", json!(place));
    }
}

/// Says what comes when a disk fails. A write that failed waits for whoever can help, rather than be
/// lost by the guest, unless the machine's owner wants otherwise.
fn answer_errors(device: &mut Device, drive: &Drive, waits: bool) {
    if is_disk(drive) && drive.node.bus != Bus::Nvme {
        let on_write = if waits { "stop" } else { "report" };
        device.insert("werror".to_owned(), json!(on_write));
        device.insert("rerror".to_owned(), json!("report"));
    }
}

/// Adds a medium under a name. Formats are said, never found out; a parent is the one given here,
/// whatever the image says.
fn add_blockdev(line: &mut CommandLine, name: &str, loaded: &Loaded) -> Result<()> {
    let node = match &loaded.source {
        Source::Nbd { socket, writable } => {
            let mut node = json!({
                "driver": "nbd", "export": "", "read-only": !writable, "discard": "unmap",
                "server": {"type": "unix", "path": text(socket)?},
            });
            node["node-name"] = json!(name);
            node
        }
        Source::Files { layers, writable } => {
            let mut node = Value::Null;
            for (depth, layer) in layers.iter().enumerate().rev() {
                let read_only = depth > 0 || !writable;
                let mut upper = json!({
                    "driver": match layer.format {
                        LayerFormat::Raw => "raw",
                        LayerFormat::Qcow2 => "qcow2",
                    },
                    "read-only": read_only, "discard": "unmap",
                    "file": {"driver": "file", "filename": text(&layer.path)?,
                             "read-only": read_only, "discard": "unmap"},
                });
                if layer.format == LayerFormat::Qcow2 {
                    upper["backing"] = node;
                }
                node = upper;
            }
            node["node-name"] = json!(name);
            node
        }
    };
    line.json("-blockdev", &node);
    Ok(())
}
