//! From keys to a [`Machine`].

use std::collections::HashSet;
use std::fmt::Display;
use std::str::FromStr;

use hako_block::Uuid;

use super::drives;
use super::nics;
use crate::dictionary::{Dictionary, note_of, truth_of};
use crate::machine::{
    BootDevice, Bus, Controller, Cpu, DirectBoot, Firmware, Machine, Medium, Node, SerialPort,
    Share, Weight,
};
use crate::oddities::Oddities;

const MIB: u64 = 1 << 20;
/// VMware's default of `memsize`, in MiB.
const DEFAULT_MEMORY_MIB: u64 = 32;

/// Returns the machine, and what of the text is odd.
pub(super) fn machine(dictionary: &Dictionary) -> (Machine, Vec<String>) {
    let mut reader = Reader::new(dictionary);
    let mut machine = Machine {
        name: reader.text("displayName"),
        hardware_version: reader.number("virtualHW.version"),
        guest_os: reader.value("guestOS").filter(|name| !name.is_empty()),
        firmware: firmware(&mut reader),
        secure_boot: reader.flag("uefi.secureBoot.enabled", false),
        cpu: cpu(&mut reader),
        memory_bytes: memory_bytes(&mut reader),
        controllers: controllers(&mut reader),
        drives: drives::all(&mut reader),
        nics: nics::all(&mut reader),
        serial_ports: serial_ports(&mut reader),
        annotation: note_of(&reader.text("annotation")),
        bios_uuid: uuid(&mut reader, "uuid.bios"),
        boot_order: Vec::new(),
        cpu_share: share(&mut reader, "cpu"),
        memory_share: share(&mut reader, "mem"),
        direct_boot: direct_boot(&reader),
    };
    machine.boot_order = boot_order(&mut reader, &machine);
    (machine, reader.oddities.into_sentences())
}

/// Looks values up, and gathers what is odd about them.
pub(super) struct Reader<'a> {
    dictionary: &'a Dictionary,
    oddities: Oddities,
}

impl<'a> Reader<'a> {
    pub(super) fn new(dictionary: &'a Dictionary) -> Self {
        Self {
            dictionary,
            oddities: Oddities::default(),
        }
    }

    /// Returns the value of a key, unless a device that it is below is switched off.
    pub(super) fn value(&self, key: &str) -> Option<String> {
        let mut devices = key.match_indices('.').map(|(end, _)| &key[..end]);
        let is_off = devices.any(|device| !device.is_empty() && self.is_off(device));
        if is_off {
            return None;
        }
        self.dictionary.value(key)
    }

    /// Returns whether a device is switched off.
    pub(super) fn is_off(&self, device: &str) -> bool {
        self.dictionary.is_false(&format!("{device}.present"))
    }

    /// Returns whether a device is said to be there.
    pub(super) fn is_on(&self, device: &str) -> bool {
        self.dictionary.is_true(&format!("{device}.present"))
    }

    /// Returns what keys begin with: the devices, in lower case.
    pub(super) fn devices(&self) -> HashSet<&'a str> {
        self.dictionary.prefixes()
    }

    /// Returns a value without blanks around it; empty where there is none.
    pub(super) fn word(&self, key: &str) -> String {
        self.value(key).unwrap_or_default().trim().to_owned()
    }

    fn text(&self, key: &str) -> String {
        self.value(key).unwrap_or_default()
    }

    pub(super) fn number<T: FromStr>(&mut self, key: &str) -> Option<T> {
        let word = self.value(key)?.trim().to_owned();
        let number = word.parse().ok();
        if number.is_none() {
            self.odd_value(key, &word, "no number that makes sense there");
        }
        number
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(value) = self.value(key) else {
            return default;
        };
        truth_of(&value).unwrap_or_else(|| {
            self.odd_value(key, &value, "neither TRUE nor FALSE");
            default
        })
    }

    pub(super) fn odd(&mut self, what: impl Into<String>) {
        self.oddities.push(what);
    }

    pub(super) fn odd_value(&mut self, key: impl Display, value: &str, what: &str) {
        let value: String = value.chars().take(60).collect();
        self.odd(format!("{key} is {value:?}, {what}"));
    }
}

fn firmware(reader: &mut Reader<'_>) -> Firmware {
    let word = reader.word("firmware").to_ascii_lowercase();
    match word.as_str() {
        "efi" => Firmware::Efi,
        "bios" | "" => Firmware::Bios,
        _ => {
            reader.odd_value("firmware", &word, "which is not known; read as bios");
            Firmware::Bios
        }
    }
}

fn cpu(reader: &mut Reader<'_>) -> Cpu {
    let mut cpu = Cpu::default();
    match reader.number("numvcpus") {
        Some(0) => reader.odd("numvcpus is 0; read as 1"),
        Some(count) => cpu.count = count,
        None => {}
    }
    // 0 lets VMware choose.
    let cores = reader.number("cpuid.coresPerSocket").filter(|n| *n > 0);
    match cores {
        Some(cores) if cpu.count.is_multiple_of(cores) => cpu.cores_per_socket = cores,
        Some(cores) => reader.odd(format!(
            "cpuid.coresPerSocket is {cores}, which does not divide {} processors; read as 1",
            cpu.count
        )),
        None => {}
    }
    cpu
}

fn memory_bytes(reader: &mut Reader<'_>) -> u64 {
    let mib: Option<u64> = reader.number("memsize");
    let bytes = mib.and_then(|mib| mib.checked_mul(MIB));
    if mib.is_some() && bytes.is_none() {
        reader.odd("memsize is more than there can be");
    }
    bytes.unwrap_or(DEFAULT_MEMORY_MIB * MIB)
}

fn controllers(reader: &mut Reader<'_>) -> Vec<Controller> {
    let mut controllers = Vec::new();
    for bus in Bus::ALL {
        for number in 0..bus.max_controllers() {
            let device = format!("{}{number}", bus.name());
            if !reader.is_on(&device) {
                continue;
            }
            let model = reader.word(&format!("{device}.virtualDev"));
            let model = Some(model.to_ascii_lowercase()).filter(|model| !model.is_empty());
            if let Some(model) = model.as_deref().filter(|_| bus == Bus::Scsi)
                && !drives::SCSI_MODELS.contains(&model)
            {
                reader.odd_value(format!("{device}.virtualDev"), model, "which is not known");
            }
            controllers.push(Controller {
                bus,
                number,
                model: model.filter(|_| bus == Bus::Scsi),
            });
        }
    }
    controllers
}

fn serial_ports(reader: &mut Reader<'_>) -> Vec<SerialPort> {
    let numbers = numbered(reader, "serial");
    let numbers = numbers
        .into_iter()
        .filter(|number| reader.is_on(&format!("serial{number}")));
    numbers
        .map(|number| {
            let kind = reader.word(&format!("serial{number}.fileType"));
            SerialPort {
                number,
                kind: match kind.is_empty() {
                    true => "device".to_owned(),
                    false => kind.to_ascii_lowercase(),
                },
                target: reader.text(&format!("serial{number}.fileName")),
            }
        })
        .collect()
}

/// Returns the numbers of the devices of that name, ascending.
pub(super) fn numbered(reader: &Reader<'_>, name: &str) -> Vec<u8> {
    let devices = reader.devices().into_iter();
    let mut numbers: Vec<u8> = devices
        .filter_map(|device| {
            let number: u8 = device.strip_prefix(name)?.parse().ok()?;
            (format!("{name}{number}") == device).then_some(number)
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn uuid(reader: &mut Reader<'_>, key: &str) -> Option<Uuid> {
    let text = reader.value(key).filter(|text| !text.is_empty())?;
    let uuid = Uuid::parse(&text);
    if uuid.is_none() {
        reader.odd_value(key, &text, "which is no UUID");
    }
    uuid
}

/// Reads `bios.bootOrder`: kinds of devices, network cards, drives.
fn boot_order(reader: &mut Reader<'_>, machine: &Machine) -> Vec<BootDevice> {
    let mut order = Vec::new();
    let text = reader.text("bios.bootOrder").to_ascii_lowercase();
    let words = text.split(',').map(str::trim);
    for word in words.filter(|word| !word.is_empty()) {
        match boot_device(word, machine) {
            Some(device) if !order.contains(&device) => order.push(device),
            Some(_) => {}
            None => reader.odd_value("bios.bootOrder", word, "which is not known"),
        }
    }
    order
}

fn boot_device(word: &str, machine: &Machine) -> Option<BootDevice> {
    if word.starts_with("ethernet") {
        return Some(BootDevice::Network);
    }
    if let Ok(node) = word.parse::<Node>() {
        let drive = machine.drives.iter().find(|drive| drive.node == node)?;
        return Some(match drive.medium {
            Medium::Disk(_) | Medium::Other { .. } => BootDevice::Disk,
            Medium::CdImage { .. } | Medium::CdDevice { .. } | Medium::CdEmpty => BootDevice::Cdrom,
        });
    }
    let mut devices = BootDevice::ALL.into_iter();
    devices.find(|device| device.name() == word)
}

/// Reads `sched.cpu.*` or `sched.mem.*`.
pub(super) fn share(reader: &mut Reader<'_>, what: &str) -> Share {
    let units = reader.word("sched.cpu.units").to_ascii_lowercase();
    if what == "cpu" && !matches!(units.as_str(), "" | "mhz") {
        reader.odd_value("sched.cpu.units", &units, "not mhz: limits are not read");
        return Share {
            weight: weight(reader, what),
            ..Share::default()
        };
    }
    let min = format!("sched.{what}.min");
    // Older products write minSize, for memory.
    let legacy = format!("sched.{what}.minSize");
    let reservation = amount(reader, &min);
    Share {
        reservation: match reservation {
            None if what == "mem" => amount(reader, &legacy),
            found => found,
        },
        limit: amount(reader, &format!("sched.{what}.max")),
        weight: weight(reader, what),
    }
}

/// Reads an amount; none for "unlimited" and -1.
fn amount(reader: &mut Reader<'_>, key: &str) -> Option<u64> {
    let word = reader.word(key).to_ascii_lowercase();
    if matches!(word.as_str(), "" | "unlimited" | "-1") {
        return None;
    }
    reader.number(key)
}

fn weight(reader: &mut Reader<'_>, what: &str) -> Option<Weight> {
    let key = format!("sched.{what}.shares");
    let word = reader.word(&key);
    if word.is_empty() {
        return None;
    }
    let weight = word.parse().ok();
    // Of what is none, the reader tells.
    weight.or_else(|| reader.number(&key).map(Weight::Custom))
}

fn direct_boot(reader: &Reader<'_>) -> Option<DirectBoot> {
    Some(DirectBoot {
        kernel: reader
            .value("hako.kernel")
            .filter(|file| !file.is_empty())?,
        initrd: reader.value("hako.initrd").filter(|file| !file.is_empty()),
        cmdline: reader.text("hako.cmdline"),
    })
}
