//! The devices of a domain.

use super::Chipset;
use crate::machine::{Bus, DiskMode, Drive, Machine, Medium, Network, Nic, Node};
use crate::xml_text::XmlText;

/// Targets of one of QEMU's SCSI controllers that libvirt takes.
const SCSI_TARGETS: u32 = 8;
/// Ports of QEMU's AHCI controller.
const SATA_PORTS: u32 = 6;

pub(super) fn write(
    xml: &mut XmlText,
    machine: &Machine,
    chipset: Chipset,
    warnings: &mut Vec<String>,
) {
    xml.open("devices", &[]);
    let mut places = Places::new(machine, chipset);
    for drive in &machine.drives {
        if let Some(image) = image(drive, warnings) {
            let place = places.next(drive.node, warnings);
            write_drive(xml, &image, &place);
        }
    }
    places.write_controllers(xml);
    for nic in &machine.nics {
        write_nic(xml, nic, warnings);
    }
    for port in &machine.serial_ports {
        xml.open("serial", &[("type", "pty")]);
        xml.empty("target", &[("port", &port.number.to_string())]);
        xml.close();
        let number = port.number;
        warnings.push(format!(
            "serial{number} is a pseudo-terminal, not what it was connected to"
        ));
    }
    xml.empty("graphics", &[("type", "vnc"), ("autoport", "yes")]);
    xml.open("video", &[]);
    xml.empty("model", &[("type", "vga")]);
    xml.close();
    xml.empty("memballoon", &[("model", "none")]);
    xml.close();
}

/// What is in a drive, by libvirt's words.
struct Image<'a> {
    device: &'static str,
    format: &'a str,
    file: Option<&'a str>,
}

/// Returns what is in a drive; none for what libvirt has no drive for.
fn image<'a>(drive: &'a Drive, warnings: &mut Vec<String>) -> Option<Image<'a>> {
    let cd = |file| Image {
        device: "cdrom",
        format: "raw",
        file,
    };
    let node = drive.node;
    match &drive.medium {
        Medium::Disk(disk) => {
            if disk.mode != DiskMode::Persistent {
                let mode = disk.mode.name();
                warnings.push(format!("{node} keeps what is written to it: it was {mode}"));
            }
            let format = disk.format.as_deref().unwrap_or("vmdk");
            Some(Image {
                device: "disk",
                format: if format == "vhd" { "vpc" } else { format },
                file: Some(&disk.file),
            })
        }
        Medium::CdImage { file } if file.starts_with('/') => Some(cd(Some(file))),
        Medium::CdImage { file } => {
            warnings.push(format!(
                "{node} is empty: the path of {file:?} is not absolute"
            ));
            Some(cd(None))
        }
        Medium::CdDevice { .. } | Medium::CdEmpty => Some(cd(None)),
        Medium::Other { kind, .. } => {
            warnings.push(format!("{node} is left out: it is a {kind}"));
            None
        }
    }
}

fn write_drive(xml: &mut XmlText, image: &Image<'_>, place: &Place) {
    xml.open("disk", &[("type", "file"), ("device", image.device)]);
    xml.empty("driver", &[("name", "qemu"), ("type", image.format)]);
    if let Some(file) = image.file {
        xml.empty("source", &[("file", file)]);
    }
    xml.empty("target", &[("dev", &place.name), ("bus", place.bus)]);
    if image.device == "cdrom" {
        xml.empty("readonly", &[]);
    }
    let [controller, bus, target, unit] = place.address.map(|number| number.to_string());
    let attributes = [
        ("type", "drive"),
        ("controller", controller.as_str()),
        ("bus", &bus),
        ("target", &target),
        ("unit", &unit),
    ];
    xml.empty("address", &attributes);
    xml.close();
}

/// A place for a drive.
struct Place {
    bus: &'static str,
    name: String,
    /// Controller, bus, target and unit.
    address: [u32; 4],
}

/// A SCSI controller of the domain.
struct ScsiController {
    /// The number of VMware's controller that it stands for.
    number: u8,
    model: &'static str,
    n_drives: u32,
}

/// The places that are taken. On SCSI and SATA drives stand in a row, in the order that they had.
struct Places<'a> {
    machine: &'a Machine,
    chipset: Chipset,
    scsi: Vec<ScsiController>,
    n_sata: u32,
    /// Drives that are called `sd` and a letter.
    n_named: u32,
}

impl<'a> Places<'a> {
    fn new(machine: &'a Machine, chipset: Chipset) -> Self {
        Self {
            machine,
            chipset,
            scsi: Vec::new(),
            n_sata: 0,
            n_named: 0,
        }
    }

    fn next(&mut self, node: Node, warnings: &mut Vec<String>) -> Place {
        match (node.bus, self.chipset) {
            (Bus::Scsi, _) => self.next_scsi(node, warnings),
            (Bus::Ide, Chipset::Pc) => {
                let (controller, unit) = (u32::from(node.controller), u32::from(node.unit));
                Place {
                    bus: "ide",
                    name: drive_name("hd", controller * 2 + unit),
                    address: [0, controller, 0, unit],
                }
            }
            (Bus::Sata, _) => self.next_sata(),
            (Bus::Ide | Bus::Nvme, _) => {
                let what = "is a SATA drive here: the guest must have a driver for AHCI";
                warnings.push(format!("{node} {what}"));
                self.next_sata()
            }
        }
    }

    fn next_sata(&mut self) -> Place {
        let index = self.n_sata;
        self.n_sata += 1;
        Place {
            bus: "sata",
            name: self.next_name(),
            address: [index / SATA_PORTS, 0, 0, index % SATA_PORTS],
        }
    }

    fn next_scsi(&mut self, node: Node, warnings: &mut Vec<String>) -> Place {
        let has_room =
            |own: &ScsiController| own.number == node.controller && own.n_drives < SCSI_TARGETS;
        let index = self.scsi.iter().position(has_room).unwrap_or_else(|| {
            let model = self.scsi_model(node.controller, warnings);
            self.scsi.push(ScsiController {
                number: node.controller,
                model,
                n_drives: 0,
            });
            self.scsi.len() - 1
        });
        let target = self.scsi.get_mut(index).map_or(0, |controller| {
            controller.n_drives += 1;
            controller.n_drives - 1
        });
        Place {
            bus: "scsi",
            name: self.next_name(),
            address: [u32::try_from(index).unwrap_or(u32::MAX), 0, target, 0],
        }
    }

    /// QEMU's LSI controller is another than VMware's, and it has none of BusLogic's.
    fn scsi_model(&self, number: u8, warnings: &mut Vec<String>) -> &'static str {
        let same = |own: &&crate::machine::Controller| own.bus == Bus::Scsi && own.number == number;
        let own = self.machine.controllers.iter().find(same);
        let model = own
            .and_then(|own| own.model.as_deref())
            .unwrap_or("lsilogic");
        match model.to_ascii_lowercase().as_str() {
            "pvscsi" => "vmpvscsi",
            "lsisas1068" => "lsisas1068",
            _ if self.scsi.iter().any(|own| own.number == number) => "lsisas1068",
            _ => {
                warnings.push(format!(
                    "scsi{number} is an lsisas1068 here, for QEMU has no {model}: the guest must \
                     have a driver for it (Linux: mptsas)"
                ));
                "lsisas1068"
            }
        }
    }

    fn next_name(&mut self) -> String {
        self.n_named += 1;
        drive_name("sd", self.n_named - 1)
    }

    fn write_controllers(&self, xml: &mut XmlText) {
        for (index, controller) in self.scsi.iter().enumerate() {
            let index = index.to_string();
            let attributes = [
                ("type", "scsi"),
                ("index", &index),
                ("model", controller.model),
            ];
            xml.empty("controller", &attributes);
        }
        for index in 0..self.n_sata.div_ceil(SATA_PORTS) {
            xml.empty(
                "controller",
                &[("type", "sata"), ("index", &index.to_string())],
            );
        }
    }
}

/// Returns `sda` … `sdz`, `sdaa` … as the kernel counts.
fn drive_name(prefix: &str, index: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = index.saturating_add(1);
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    letters
        .iter()
        .rev()
        .fold(prefix.to_owned(), |name, letter| format!("{name}{letter}"))
}

fn write_nic(xml: &mut XmlText, nic: &Nic, warnings: &mut Vec<String>) {
    let number = nic.number;
    xml.open("interface", &[("type", "network")]);
    if let Some(mac) = nic.mac {
        xml.empty("mac", &[("address", &mac.to_string())]);
    }
    xml.empty("source", &[("network", "default")]);
    let own = nic.model.as_deref().unwrap_or("e1000");
    let model = match own.to_ascii_lowercase().as_str() {
        "e1000" => "e1000",
        "e1000e" => "e1000e",
        "vmxnet3" => "vmxnet3",
        "vlance" => "pcnet",
        _ => {
            warnings.push(format!(
                "ethernet{number} is an e1000 here, for QEMU has no {own}"
            ));
            "e1000"
        }
    };
    xml.empty("model", &[("type", model)]);
    if !nic.connected {
        xml.empty("link", &[("state", "down")]);
    }
    xml.close();
    let network = match &nic.network {
        Network::Nat => return,
        Network::Bridged => "bridged",
        Network::HostOnly => "host-only",
        Network::Custom(name) | Network::PortGroup(name) => name,
    };
    warnings.push(format!(
        "ethernet{number} is on libvirt's network \"default\"; it was on {network:?}"
    ));
}
