//! From a [`Machine`] to a VMX that VMware's current products accept (Workstation 17, ESXi 8): the
//! keys that they write themselves for a new machine.

use hako_block::{Error, ErrorKind, Result};

use super::{Vmx, drives, truth};
use crate::dictionary::Dictionary;
use crate::machine::{Bus, Machine, SerialPort};

/// The hardware version of a machine that says none: Workstation 16.2 and later, ESXi 7.0 U2 and
/// later take it.
pub const DEFAULT_HARDWARE_VERSION: u32 = 19;
/// The guest system of a machine that says none.
pub const DEFAULT_GUEST_OS: &str = "other-64";
/// Most serial ports of a machine.
const MAX_SERIAL_PORTS: u8 = 32;

impl Vmx {
    /// Returns the VMX of a new machine. Its `nvram` is named like the machine; a name that is no
    /// name of a file is made one. What the machine does not say is [`DEFAULT_HARDWARE_VERSION`],
    /// [`DEFAULT_GUEST_OS`] and a model of controller that suits the guest. Every machine has both
    /// IDE controllers: they are not written.
    ///
    /// Errors: [`ErrorKind::Invalid`] for what no machine can have, and for a node, a card or a
    /// controller that is there twice.
    pub fn new(machine: &Machine) -> Result<Self> {
        refuse_doubles(machine)?;
        let mut vmx = Self {
            dictionary: board(machine)?,
            oddities: Vec::new(),
        };
        vmx.set_name(&machine.name)?;
        vmx.set_guest_os(machine.guest_os.as_deref().unwrap_or(DEFAULT_GUEST_OS))?;
        vmx.set("numvcpus", "1")?;
        vmx.set_cpu(machine.cpu)?;
        vmx.set_memory(machine.memory_bytes)?;
        vmx.set_firmware(machine.firmware, machine.secure_boot)?;
        vmx.set_boot_order(&machine.boot_order)?;
        vmx.set_annotation(&machine.annotation)?;
        if let Some(uuid) = machine.bios_uuid {
            vmx.set_bios_uuid(uuid)?;
        }
        vmx.set_cpu_share(machine.cpu_share)?;
        vmx.set_memory_share(machine.memory_share)?;
        for controller in machine.controllers.iter().filter(|c| c.bus != Bus::Ide) {
            let there = vmx.machine();
            let (bus, number) = (controller.bus, controller.number);
            let model = controller.model.as_deref();
            vmx.edit(|dictionary| drives::put_controller(dictionary, &there, bus, number, model))?;
        }
        for drive in &machine.drives {
            vmx.put_drive(drive, None)?;
        }
        for nic in &machine.nics {
            vmx.put_nic(nic)?;
        }
        for port in &machine.serial_ports {
            put_serial_port(&mut vmx.dictionary, port)?;
        }
        vmx.set_direct_boot(machine.direct_boot.as_ref())?;
        Ok(vmx)
    }
}

/// The keys that every new machine has.
fn board(machine: &Machine) -> Result<Dictionary> {
    let mut board = Dictionary::new();
    let version = machine.hardware_version.unwrap_or(DEFAULT_HARDWARE_VERSION);
    board.set("config.version", "8")?;
    board.set("virtualHW.version", &version.to_string())?;
    board.set("virtualHW.productCompatibility", "hosted")?;
    board.set("pciBridge0.present", truth(true))?;
    for number in 4..=7 {
        let bridge = format!("pciBridge{number}");
        board.set(&format!("{bridge}.present"), truth(true))?;
        board.set(&format!("{bridge}.virtualDev"), "pcieRootPort")?;
        board.set(&format!("{bridge}.functions"), "8")?;
    }
    for device in ["svga", "vmci0", "hpet0"] {
        board.set(&format!("{device}.present"), truth(true))?;
    }
    board.set("floppy0.present", truth(false))?;
    board.set("nvram", &format!("{}.nvram", file_name(&machine.name)))?;
    for what in ["powerOff", "powerOn", "suspend", "reset"] {
        board.set(&format!("powerType.{what}"), "soft")?;
    }
    board.set("tools.syncTime", truth(false))?;
    board.set("tools.upgrade.policy", "manual")?;
    for when in [
        "afterPowerOn",
        "afterResume",
        "beforeSuspend",
        "beforePowerOff",
    ] {
        board.set(&format!("toolScripts.{when}"), truth(true))?;
    }
    Ok(board)
}

/// Returns a name that is one of a file in the machine's folder.
fn file_name(name: &str) -> String {
    let is_unfit = |letter: char| letter.is_control() || "/\\:*?\"<>|".contains(letter);
    let name = name.trim_start_matches('.').replace(is_unfit, "_");
    // A file name has at most 255 bytes; 200 leave room for endings.
    let end = (0..=name.len().min(200))
        .rev()
        .find(|end| name.is_char_boundary(*end));
    let name = &name[..end.unwrap_or(0)];
    if name.is_empty() {
        "machine".to_owned()
    } else {
        name.to_owned()
    }
}

fn put_serial_port(dictionary: &mut Dictionary, port: &SerialPort) -> Result<()> {
    let name = format!("serial{}", port.number);
    let key = |key: &str| format!("{name}.{key}");
    if port.number >= MAX_SERIAL_PORTS {
        return Err(Error::invalid(format!(
            "{name} is no serial port of a machine"
        )));
    }
    dictionary.set(&key("present"), truth(true))?;
    dictionary.set(&key("fileType"), &port.kind)?;
    dictionary.set(&key("fileName"), &port.target)?;
    if matches!(port.kind.as_str(), "pipe" | "network") {
        dictionary.set(&key(&format!("{}.endPoint", port.kind)), "server")?;
    }
    if port.kind == "pipe" {
        // The other end is a program, which may not be there yet.
        dictionary.set(&key("tryNoRxLoss"), truth(true))?;
    }
    dictionary.set(&key("yieldOnMsrRead"), truth(true))
}

fn refuse_doubles(machine: &Machine) -> Result<()> {
    let double = first_double(machine.drives.iter().map(|drive| drive.node.to_string()))
        .or_else(|| {
            let controllers = machine.controllers.iter();
            first_double(controllers.map(|c| format!("{}{}", c.bus.name(), c.number)))
        })
        .or_else(|| {
            first_double(
                machine
                    .nics
                    .iter()
                    .map(|nic| format!("ethernet{}", nic.number)),
            )
        })
        .or_else(|| {
            let ports = machine.serial_ports.iter();
            first_double(ports.map(|port| format!("serial{}", port.number)))
        });
    match double {
        Some(double) => Err(Error::new(
            ErrorKind::Invalid,
            format!("{double} is there twice"),
        )),
        None => Ok(()),
    }
}

fn first_double(names: impl Iterator<Item = String>) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    names.into_iter().find(|name| !seen.insert(name.clone()))
}
