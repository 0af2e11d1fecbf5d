//! The domain XML that libvirt runs with QEMU (libvirt's "Domain XML format"), from a [`Machine`].
//! The guest gets devices that it has drivers for already: the ones it has, or the nearest that QEMU
//! has, with a warning. Nothing becomes virtio.

mod devices;

use hako_block::{Error, Result};

use crate::machine::{BootDevice, Bus, Firmware, Machine};
use crate::xml_text::XmlText;

/// Returns the text, and warnings for people: what the guest may have to be told of. The files of
/// disks and CDs are named as in `machine`; libvirt wants them absolute. Errors:
/// [`hako_block::ErrorKind::Invalid`] for a machine without memory.
pub fn domain(machine: &Machine) -> Result<(String, Vec<String>)> {
    if machine.memory_bytes == 0 {
        return Err(Error::invalid(
            "a machine without memory cannot be described",
        ));
    }
    let mut warnings = Vec::new();
    let chipset = Chipset::of(machine);
    let mut xml = XmlText::new();
    xml.open("domain", &[("type", "kvm")]);
    xml.leaf("name", &[], &name(machine));
    if let Some(uuid) = machine.bios_uuid {
        xml.leaf("uuid", &[], &uuid.to_string());
    }
    if !machine.annotation.is_empty() {
        xml.leaf("description", &[], &machine.annotation);
    }
    let memory_kib = machine.memory_bytes.div_ceil(1024).to_string();
    xml.leaf("memory", &[("unit", "KiB")], &memory_kib);
    xml.leaf("vcpu", &[], &machine.cpu.count.to_string());
    os(&mut xml, machine, chipset, &mut warnings);
    features(&mut xml, machine);
    cpu(&mut xml, machine);
    let offset = if is_windows(machine) {
        "localtime"
    } else {
        "utc"
    };
    xml.empty("clock", &[("offset", offset)]);
    devices::write(&mut xml, machine, chipset, &mut warnings);
    if machine.cpu_share != Default::default() || machine.memory_share != Default::default() {
        warnings.push("shares of the host's processors and memory are left out".to_owned());
    }
    Ok((xml.finish(), warnings))
}

/// What QEMU's machine is built around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chipset {
    /// i440FX, which VMware's machines are like; the one with IDE.
    Pc,
    /// Q35, which secure boot wants.
    Q35,
}

impl Chipset {
    fn of(machine: &Machine) -> Self {
        let has_ide = machine
            .drives
            .iter()
            .any(|drive| drive.node.bus == Bus::Ide);
        match has_ide && !machine.secure_boot {
            true => Chipset::Pc,
            false => Chipset::Q35,
        }
    }
}

/// libvirt's names have no slash and no line break.
fn name(machine: &Machine) -> String {
    let name = machine.name.trim().replace(['/', '\n', '\r'], "-");
    match name.as_str() {
        "" => "machine".to_owned(),
        _ => name,
    }
}

fn is_windows(machine: &Machine) -> bool {
    let guest = machine
        .guest_os
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase();
    guest.starts_with("win") || guest.starts_with("longhorn")
}

fn os(xml: &mut XmlText, machine: &Machine, chipset: Chipset, warnings: &mut Vec<String>) {
    let is_efi = machine.firmware == Firmware::Efi;
    let attributes: &[(&str, &str)] = if is_efi { &[("firmware", "efi")] } else { &[] };
    xml.open("os", attributes);
    let model = match chipset {
        Chipset::Pc => "pc",
        Chipset::Q35 => "q35",
    };
    xml.leaf("type", &[("arch", "x86_64"), ("machine", model)], "hvm");
    if is_efi {
        let enabled = if machine.secure_boot { "yes" } else { "no" };
        xml.open("firmware", &[]);
        xml.empty(
            "feature",
            &[("enabled", enabled), ("name", "enrolled-keys")],
        );
        xml.empty("feature", &[("enabled", enabled), ("name", "secure-boot")]);
        xml.close();
    }
    direct_boot(xml, machine, warnings);
    for device in &machine.boot_order {
        let device = match device {
            BootDevice::Disk => "hd",
            BootDevice::Cdrom => "cdrom",
            BootDevice::Network => "network",
            BootDevice::Floppy => "fd",
        };
        xml.empty("boot", &[("dev", device)]);
    }
    if machine.boot_order.is_empty() {
        xml.empty("boot", &[("dev", "hd")]);
    }
    xml.close();
}

fn direct_boot(xml: &mut XmlText, machine: &Machine, warnings: &mut Vec<String>) {
    let Some(boot) = &machine.direct_boot else {
        return;
    };
    let initrd = boot.initrd.as_deref();
    let is_absolute = |file: &str| file.starts_with('/');
    if !is_absolute(&boot.kernel) || !initrd.is_none_or(is_absolute) {
        let what = "the kernel that it is started with is left out: its path is not absolute";
        warnings.push(what.to_owned());
        return;
    }
    xml.leaf("kernel", &[], &boot.kernel);
    if let Some(initrd) = initrd {
        xml.leaf("initrd", &[], initrd);
    }
    if !boot.cmdline.is_empty() {
        xml.leaf("cmdline", &[], &boot.cmdline);
    }
}

/// Secure boot needs system management mode.
fn features(xml: &mut XmlText, machine: &Machine) {
    xml.open("features", &[]);
    xml.empty("acpi", &[]);
    xml.empty("apic", &[]);
    if machine.secure_boot && machine.firmware == Firmware::Efi {
        xml.empty("smm", &[("state", "on")]);
    }
    xml.close();
}

fn cpu(xml: &mut XmlText, machine: &Machine) {
    let cores = machine.cpu.cores_per_socket.max(1);
    let (sockets, cores) = match machine.cpu.count % cores {
        0 => (machine.cpu.count / cores, cores),
        _ => (machine.cpu.count, 1),
    };
    xml.open("cpu", &[("mode", "host-model")]);
    let (sockets, cores) = (sockets.to_string(), cores.to_string());
    let attributes = [
        ("sockets", sockets.as_str()),
        ("cores", &cores),
        ("threads", "1"),
    ];
    xml.empty("topology", &attributes);
    xml.close();
}

#[cfg(test)]
mod tests;
