//! Which [`Machine`] a system of an envelope is. What has no place in a `Machine` is named in a list
//! for people; nothing is dropped in silence.

mod drives;
mod network;

use std::collections::HashMap;

use hako_block::{Error, Result, Uuid};

use super::guest;
use super::readable;
use super::units::{self, Base};
use super::xml::shorten;
use super::{Capacity, Choices, Disk, Envelope, File, Hardware, Item, Property, System};
use crate::machine::{BootDevice, Cpu, Firmware, Machine, SerialPort, Share, Weight};

// CIM_ResourceAllocationSettingData.ResourceType.
pub(super) const CPU: u16 = 3;
pub(super) const MEMORY: u16 = 4;
pub(super) const IDE: u16 = 5;
pub(super) const SCSI: u16 = 6;
pub(super) const ETHERNET: u16 = 10;
const FLOPPY: u16 = 14;
pub(super) const CD: u16 = 15;
const DVD: u16 = 16;
pub(super) const DISK: u16 = 17;
pub(super) const OTHER_STORAGE: u16 = 20;
pub(super) const SERIAL: u16 = 21;
const PARALLEL: u16 = 22;
const USB: u16 = 23;
const GRAPHICS: u16 = 24;
/// What XenServer calls a disk.
pub(super) const STORAGE_EXTENT: u16 = 19;
pub(super) const LOGICAL_DISK: u16 = 31;
const SOUND: u16 = 35;

/// VMX's line for what to start from, as an envelope carries it.
pub(super) const BOOT_ORDER: &str = "bios.bootOrder";
const BOOT_ORDER_LOWER: &str = "bios.bootorder";

/// Most serial ports of VMware's machines.
const MAX_SERIAL_PORTS: usize = 32;

/// Returns the id of the disk that a `HostResource` names: `ovf:/disk/ID`, `/disk/ID`.
pub(super) fn host_disk(resource: &str) -> Option<&str> {
    in_folder(resource, "disk/")
}

/// Returns the id of the file that a `HostResource` names: `ovf:/file/ID`, `/file/ID`.
pub(super) fn host_file(resource: &str) -> Option<&str> {
    in_folder(resource, "file/")
}

fn in_folder<'a>(resource: &'a str, folder: &str) -> Option<&'a str> {
    let rest = resource.strip_prefix("ovf:").unwrap_or(resource);
    let rest = rest.strip_prefix("//").or(rest.strip_prefix('/'));
    rest?.strip_prefix(folder)
}

impl Envelope {
    /// Returns the deployment option that holds: the chosen one, or the one that the text prefers,
    /// or its first. Errors: [`hako_block::ErrorKind::Invalid`] for one that it does not offer.
    pub fn deployment(&self, choices: &Choices) -> Result<Option<&str>> {
        let offered = &self.deployment_options;
        let Some(wanted) = choices.deployment.as_deref() else {
            let preferred = offered.iter().find(|option| option.is_default);
            return Ok(preferred
                .or(offered.first())
                .map(|option| option.id.as_str()));
        };
        if let Some(option) = offered.iter().find(|option| option.id == wanted) {
            return Ok(Some(&option.id));
        }
        let ids: Vec<_> = offered.iter().map(|option| option.id.as_str()).collect();
        let error = Error::invalid(format!("there is no deployment option {wanted:?}"));
        Err(match ids.is_empty() {
            true => error.hint("this package has no deployment options"),
            false => error.hint(format!("it has {}", ids.join(", "))),
        })
    }

    /// Returns the virtual size of a disk of `system` in bytes. Errors:
    /// [`hako_block::ErrorKind::Invalid`] where a property says it, and nobody has set that.
    pub fn capacity_bytes(&self, disk: &Disk, system: &System, choices: &Choices) -> Result<u64> {
        let (key, unit_bytes) = match &disk.capacity {
            Capacity::Bytes(bytes) => return Ok(*bytes),
            Capacity::Property { key, unit_bytes } => (key, *unit_bytes),
        };
        let unset = || {
            Error::invalid(format!(
                "the size of disk {:?} is what the property {key:?} says, and that has no value",
                disk.id
            ))
            .hint("give the property a value")
        };
        let value = self.property(key, system, choices)?.ok_or_else(unset)?;
        value
            .trim()
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit_bytes))
            .filter(|bytes| (1..=i64::MAX as u64).contains(bytes))
            .ok_or_else(|| {
                let what = format!("the property {key:?} says {value:?}, which is no size");
                Error::invalid(what).place(format!("disk {:?}", disk.id))
            })
    }

    /// Returns the value that a property has for `system`: what was chosen, or what the text says.
    fn property(&self, key: &str, system: &System, choices: &Choices) -> Result<Option<String>> {
        let deployment = self.deployment(choices)?;
        let all = system.products.iter().chain(&self.products);
        let property = all
            .flat_map(|product| &product.properties)
            .find(|property| property.key == key || property.full_key == key);
        let chosen = |key: &str| choices.properties.get(key).cloned();
        Ok(match property {
            Some(property) => chosen(&property.full_key)
                .or_else(|| chosen(&property.key))
                .or_else(|| property.value_for(deployment)),
            None => chosen(key),
        })
    }
}

impl Property {
    /// Returns its value where nobody sets another, under a deployment option.
    pub fn value_for(&self, deployment: Option<&str>) -> Option<String> {
        let own = deployment.and_then(|option| self.values.get(option));
        own.or(self.value.as_ref()).cloned()
    }
}

impl System {
    /// Returns the machine that it is, and what of it could not be carried over, for people. The
    /// `file` of a disk is the id of an [`Envelope::disk`], that of a CD image the id of an
    /// [`Envelope::file`]. Memory is 0 where the text says none. Errors:
    /// [`hako_block::ErrorKind::Invalid`] for a deployment option that is not offered,
    /// [`hako_block::ErrorKind::Corrupt`] and [`hako_block::ErrorKind::Unsupported`] for hardware
    /// that no machine has.
    pub fn machine(
        &self,
        envelope: &Envelope,
        choices: &Choices,
    ) -> Result<(Machine, Vec<String>)> {
        let hardware = self
            .best_hardware()
            .ok_or_else(|| Error::corrupt(format!("machine {:?}", self.id), "has no hardware"))?;
        let deployment = envelope.deployment(choices)?;
        let items = chosen_items(hardware, deployment);
        let mut lost = Vec::new();
        let mut machine = Machine {
            name: self.name.clone(),
            annotation: self.annotation.replace("\r\n", "\n"),
            hardware_version: hardware.vmware_version(),
            guest_os: self.guest.as_ref().and_then(guest::vmx_name),
            ..Machine::default()
        };
        processors(&items, &mut machine, &mut lost)?;
        memory(&items, &mut machine, &mut lost)?;
        drives::read(envelope, &items, &mut machine, &mut lost)?;
        network::read(&items, &mut machine, &mut lost);
        other_parts(&items, &mut machine, &mut lost);
        self.boot_order(&items, &mut machine, &mut lost);
        settings(hardware, &mut machine, &mut lost);
        self.what_else(hardware, &mut lost);
        Ok((machine, readable(lost)))
    }

    /// Returns the hardware for VMware's products, or else the first.
    /// Returns the file with the memory that the firmware keeps its settings in, if the package has
    /// it (VMware's line `nvram`).
    pub fn nvram<'a>(&self, envelope: &'a Envelope) -> Option<&'a File> {
        let mut lines = self.best_hardware()?.extra_config.iter();
        let (_, value) = lines.find(|(key, _)| key.eq_ignore_ascii_case("nvram"))?;
        envelope.file(host_file(value)?)
    }

    fn best_hardware(&self) -> Option<&Hardware> {
        let best = self
            .hardware
            .iter()
            .find(|hardware| hardware.vmware_version().is_some());
        best.or(self.hardware.first())
    }

    fn boot_order(&self, items: &[&Item], machine: &mut Machine, lost: &mut Vec<String>) {
        for entry in &self.boot_order {
            let device = match entry.kind.as_str() {
                "disk" => BootDevice::Disk,
                "cdrom" => BootDevice::Cdrom,
                "net" | "ethernet" => BootDevice::Network,
                "floppy" => BootDevice::Floppy,
                other => {
                    lost.push(format!("starting from a {:?}", shorten(other)));
                    continue;
                }
            };
            if !machine.boot_order.contains(&device) {
                machine.boot_order.push(device);
            }
            let kind =
                |item: &&&Item| matches!(item.resource_type, DISK | STORAGE_EXTENT | LOGICAL_DISK);
            let first = items.iter().find(kind).map(|item| item.id.as_str());
            if device == BootDevice::Disk && first.is_some_and(|first| first != entry.item) {
                lost.push(format!(
                    "starting from the disk of item {:?}, not the first",
                    shorten(&entry.item)
                ));
            }
        }
    }

    /// Names what the text says of the machine that is no hardware.
    fn what_else(&self, hardware: &Hardware, lost: &mut Vec<String>) {
        for section in &self.unknown_sections {
            lost.push(format!("the section {}", shorten(section)));
        }
        if self.hardware.len() > 1 {
            let others = self.hardware.iter().filter(|other| *other != hardware);
            let families: Vec<_> = others.flat_map(|other| other.families.clone()).collect();
            lost.push(format!(
                "other hardware, for {}",
                shorten(&families.join(", "))
            ));
        }
        let n_properties: usize = self
            .products
            .iter()
            .map(|product| product.properties.len())
            .sum();
        if n_properties > 0 {
            lost.push(format!(
                "properties that the guest is to be told: {n_properties}"
            ));
        }
    }
}

impl Hardware {
    /// Returns the newest virtual hardware version of VMware's that it is for: 13 for "vmx-13".
    pub fn vmware_version(&self) -> Option<u32> {
        let version = |family: &String| {
            let digits = family.to_ascii_lowercase().strip_prefix("vmx-")?.to_owned();
            digits.parse().ok()
        };
        self.families.iter().filter_map(version).max()
    }
}

/// Returns the items that make the machine: no bounds, and of one id the last that is for the
/// deployment option, or else the one that is for all (DSP0243, 9.8).
fn chosen_items<'a>(hardware: &'a Hardware, deployment: Option<&str>) -> Vec<&'a Item> {
    let is_for = |item: &Item| {
        deployment.is_some_and(|option| item.configurations.iter().any(|own| own == option))
    };
    let mut chosen: Vec<&Item> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for item in &hardware.items {
        if item.bound.is_some() || !(item.configurations.is_empty() || is_for(item)) {
            continue;
        }
        match places
            .get(item.id.as_str())
            .and_then(|place| chosen.get_mut(*place))
        {
            None => {
                places.insert(&item.id, chosen.len());
                chosen.push(item);
            }
            Some(other) if is_for(item) => *other = item,
            Some(_) => {}
        }
    }
    chosen
}

fn processors(items: &[&Item], machine: &mut Machine, lost: &mut Vec<String>) -> Result<()> {
    let Some((item, others)) = of_type(items, CPU) else {
        lost.push("no processor is described: it gets one".to_owned());
        return Ok(());
    };
    several(&others, "processors", lost);
    let count = item.quantity.unwrap_or(1);
    if !(1..=Cpu::MAX_COUNT.into()).contains(&count) {
        return Err(item.wrong(&format!("has {count} processors")));
    }
    let count = u32::try_from(count).unwrap_or(1);
    // VMware's 0 leaves it to the product.
    let cores = item
        .cores_per_socket
        .filter(|cores| *cores > 0)
        .unwrap_or(1);
    machine.cpu = Cpu {
        count,
        cores_per_socket: if count % cores == 0 { cores } else { 1 },
    };
    if machine.cpu.cores_per_socket != cores {
        lost.push(format!("{cores} cores per socket, of {count} processors"));
    }
    machine.cpu_share = share(item, Base::Hertz, 1_000_000)?;
    Ok(())
}

fn memory(items: &[&Item], machine: &mut Machine, lost: &mut Vec<String>) -> Result<()> {
    let Some((item, others)) = of_type(items, MEMORY) else {
        lost.push("no memory is described".to_owned());
        return Ok(());
    };
    several(&others, "memory", lost);
    machine.memory_share = share(item, Base::Byte, 1 << 20)?;
    let Some(quantity) = item.quantity else {
        lost.push("no size of memory is said".to_owned());
        return Ok(());
    };
    // No guest has so few bytes: who leaves the units out means MiB.
    let units = match (item.units.as_str(), quantity) {
        ("", ..1_048_576) => "byte * 2^20",
        (units, _) => units,
    };
    machine.memory_bytes =
        units::amount(quantity, units, Base::Byte).map_err(|error| error.place(item.place()))?;
    Ok(())
}

/// Returns the first item of a kind and the others.
fn of_type<'a>(items: &[&'a Item], resource_type: u16) -> Option<(&'a Item, Vec<&'a Item>)> {
    let mut found = items
        .iter()
        .filter(|item| item.resource_type == resource_type);
    let first = found.next()?;
    Some((first, found.copied().collect()))
}

fn several(others: &[&Item], what: &str, lost: &mut Vec<String>) {
    for other in others {
        lost.push(format!("more {what}: {}", other.shown()));
    }
}

/// Reads reservation, limit and weight; amounts in units of so many bytes or hertz.
fn share(item: &Item, base: Base, unit: u64) -> Result<Share> {
    let amount = |number: Option<u64>| -> Result<Option<u64>> {
        let Some(number) = number.filter(|number| *number > 0) else {
            return Ok(None);
        };
        let amount = units::amount(number, &item.units, base);
        let amount = amount.map_err(|error| error.place(item.place()))?;
        Ok(Some(amount.div_ceil(unit)))
    };
    Ok(Share {
        reservation: amount(item.reservation)?,
        limit: amount(item.limit)?,
        weight: item.weight.map(|weight| read_weight(item, weight)),
    })
}

/// Returns the weight that VMware's products call normal: 1000 for a processor, 10 for a MiB.
pub(super) fn normal_weight(resource_type: u16, amount: u64) -> u64 {
    let of_one = if resource_type == CPU { 1000 } else { 10 };
    amount.saturating_mul(of_one)
}

fn read_weight(item: &Item, weight: u32) -> Weight {
    let amount = match item.resource_type {
        CPU => item.quantity.unwrap_or(1),
        _ => item
            .quantity
            .and_then(|quantity| units::amount(quantity, &item.units, Base::Byte).ok())
            .map_or(0, |bytes| bytes >> 20),
    };
    let (number, normal) = (u64::from(weight), normal_weight(item.resource_type, amount));
    match number {
        0 => Weight::Custom(weight),
        number if number == normal => Weight::Normal,
        number if number == normal / 2 => Weight::Low,
        number if Some(number) == normal.checked_mul(2) => Weight::High,
        _ => Weight::Custom(weight),
    }
}

/// Serial ports, and what a `Machine` has no place for.
fn other_parts(items: &[&Item], machine: &mut Machine, lost: &mut Vec<String>) {
    for item in items {
        match item.resource_type {
            SERIAL => serial_port(item, machine, lost),
            CPU | MEMORY | IDE | SCSI | ETHERNET | CD | DVD | DISK | STORAGE_EXTENT
            | LOGICAL_DISK => {}
            OTHER_STORAGE if drives::is_controller(item) => {}
            _ => lost.push(item.shown()),
        }
    }
}

fn serial_port(item: &Item, machine: &mut Machine, lost: &mut Vec<String>) {
    if machine.serial_ports.len() >= MAX_SERIAL_PORTS {
        return lost.push(item.shown());
    }
    let model = item.models.first().map(String::as_str).unwrap_or_default();
    let kind = match model.rsplit('.').next().unwrap_or_default() {
        "pipe" => "pipe",
        "file" => "file",
        "uri" => "network",
        "thinprint" => "thinprint",
        "device" => "device",
        _ => return lost.push(item.shown()),
    };
    let target = item.host_resources.first().or(item.address.as_ref());
    machine.serial_ports.push(SerialPort {
        number: u8::try_from(machine.serial_ports.len()).unwrap_or(u8::MAX),
        kind: kind.to_owned(),
        target: target.cloned().unwrap_or_default(),
    });
}

/// Reads firmware, secure boot and the UUID out of VMware's settings, and names the others.
fn settings(hardware: &Hardware, machine: &mut Machine, lost: &mut Vec<String>) {
    let mut others = Vec::new();
    for (key, value) in hardware.extra_config.iter().chain(&hardware.config) {
        match key.to_ascii_lowercase().as_str() {
            "firmware" if value.eq_ignore_ascii_case("efi") => machine.firmware = Firmware::Efi,
            "firmware" => machine.firmware = Firmware::Bios,
            "bootoptions.efisecurebootenabled" | "uefi.secureboot.enabled" => {
                machine.secure_boot = value.eq_ignore_ascii_case("true");
            }
            BOOT_ORDER_LOWER if machine.boot_order.is_empty() => {
                machine.boot_order = boot_devices(value);
            }
            "uuid" | "uuid.bios" => machine.bios_uuid = Uuid::parse(value),
            // A file: System::nvram says which.
            "nvram" if host_file(value).is_some() => {}
            _ => others.push(shorten(key)),
        }
    }
    if !others.is_empty() {
        lost.push(format!("the settings {}", readable(others).join(", ")));
    }
}

/// Reads VMX's words for what to start from; those that it does not know are left out.
fn boot_devices(text: &str) -> Vec<BootDevice> {
    let mut devices = Vec::new();
    for word in text.split(',').map(str::trim) {
        let named = |device: &BootDevice| device.name().eq_ignore_ascii_case(word);
        let device = BootDevice::ALL.into_iter().find(named);
        devices.extend(device.filter(|device| !devices.contains(device)));
    }
    devices
}

impl Item {
    pub(super) fn place(&self) -> String {
        format!("line {}: Item", self.line)
    }

    pub(super) fn wrong(&self, what: &str) -> Error {
        Error::corrupt(self.place(), what)
    }

    /// Returns what it is, for people.
    fn shown(&self) -> String {
        let kind = match self.resource_type {
            CPU => "processors",
            MEMORY => "memory",
            IDE | SCSI | OTHER_STORAGE => "controller",
            ETHERNET => "network card",
            FLOPPY => "floppy drive",
            CD | DVD => "CD drive",
            DISK | STORAGE_EXTENT | LOGICAL_DISK => "disk",
            SERIAL => "serial port",
            PARALLEL => "parallel port",
            USB => "USB controller",
            GRAPHICS => "graphics",
            SOUND => "sound",
            _ => "device",
        };
        let mut shown = format!("{kind} {:?}", shorten(&self.name));
        if let Some(model) = self.models.first() {
            shown.push_str(&format!(" ({})", shorten(model)));
        }
        shown
    }
}
