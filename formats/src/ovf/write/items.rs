//! The items of the hardware: CIM's settings in the order of the alphabet, as its schema has them.

use std::collections::BTreeSet;

use super::{config, network_name, weight};
use crate::machine::{Bus, Controller, DiskMode, Drive, Machine, Medium, Nic, SerialPort, Share};
use crate::ovf::machine::{
    CD, CPU, DISK, ETHERNET, IDE, MEMORY, OTHER_STORAGE, SCSI, SERIAL, normal_weight,
};
use crate::xml_text::XmlText;

/// A part of an item: its name without the prefix, and its text.
type Part = (&'static str, String);

/// The items while they are written.
pub(super) struct Items<'x> {
    xml: &'x mut XmlText,
    /// The id of the next item.
    next: u32,
}

impl<'x> Items<'x> {
    /// Writes all of a machine's.
    pub(super) fn write(xml: &'x mut XmlText, machine: &Machine) {
        let mut items = Items { xml, next: 1 };
        items.processors(machine);
        items.memory(machine);
        let controllers = controllers(machine);
        let first = items.next;
        for controller in &controllers {
            items.controller(controller);
        }
        let parent = |drive: &Drive| {
            let same =
                |own: &Controller| own.bus == drive.node.bus && own.number == drive.node.controller;
            let index = controllers.iter().position(same).unwrap_or_default();
            first.saturating_add(u32::try_from(index).unwrap_or_default())
        };
        for drive in &machine.drives {
            items.drive(drive, parent(drive));
        }
        for nic in &machine.nics {
            items.nic(nic);
        }
        for port in &machine.serial_ports {
            items.serial_port(port);
        }
    }

    /// Writes an item of these parts, besides its id and kind; then what `more` writes.
    fn item(
        &mut self,
        is_required: bool,
        resource_type: u16,
        mut parts: Vec<Part>,
        more: impl FnOnce(&mut XmlText),
    ) {
        let id = self.next;
        self.next = self.next.saturating_add(1);
        parts.push(("rasd:InstanceID", id.to_string()));
        parts.push(("rasd:ResourceType", resource_type.to_string()));
        parts.sort_by_key(|(name, _)| *name);
        let attributes: &[(&str, &str)] = match is_required {
            true => &[],
            false => &[("ovf:required", "false")],
        };
        self.xml.open("Item", attributes);
        for (name, text) in parts {
            self.xml.leaf(name, &[], &text);
        }
        more(self.xml);
        self.xml.close();
    }

    fn processors(&mut self, machine: &Machine) {
        let count = machine.cpu.count;
        let mut parts = vec![
            ("rasd:AllocationUnits", "hertz * 10^6".to_owned()),
            (
                "rasd:Description",
                "Number of virtual processors".to_owned(),
            ),
            ("rasd:ElementName", format!("{count} virtual processor(s)")),
            ("rasd:VirtualQuantity", count.to_string()),
        ];
        parts.extend(share(
            &machine.cpu_share,
            normal_weight(CPU, u64::from(count)),
        ));
        let cores = machine.cpu.cores_per_socket;
        self.item(true, CPU, parts, |xml| {
            if cores > 1 {
                let attributes = [("ovf:required", "false")];
                xml.leaf("vmw:CoresPerSocket", &attributes, &cores.to_string());
            }
        });
    }

    /// Whole MiB are written as such, as every reader has seen them; other sizes in bytes.
    fn memory(&mut self, machine: &Machine) {
        let bytes = machine.memory_bytes;
        let mib = bytes >> 20;
        let (units, quantity) = match bytes % (1 << 20) {
            0 => ("byte * 2^20", mib),
            _ => ("byte", bytes),
        };
        let mut parts = vec![
            ("rasd:AllocationUnits", units.to_owned()),
            ("rasd:Description", "Memory".to_owned()),
            ("rasd:ElementName", format!("{mib} MiB of memory")),
            ("rasd:VirtualQuantity", quantity.to_string()),
        ];
        let in_units = |amount: Option<u64>| match bytes % (1 << 20) {
            0 => amount,
            _ => amount.map(|mib| mib.saturating_mul(1 << 20)),
        };
        let own = Share {
            reservation: in_units(machine.memory_share.reservation),
            limit: in_units(machine.memory_share.limit),
            weight: machine.memory_share.weight,
        };
        parts.extend(share(&own, normal_weight(MEMORY, mib)));
        self.item(true, MEMORY, parts, |_| {});
    }

    fn controller(&mut self, controller: &Controller) {
        let (kind, name, model) = match controller.bus {
            Bus::Ide => (IDE, "IDE", None),
            Bus::Sata => (OTHER_STORAGE, "SATA", Some("vmware.sata.ahci")),
            Bus::Scsi => (
                SCSI,
                "SCSI",
                controller.model.as_deref().and_then(controller_model),
            ),
            Bus::Nvme => (OTHER_STORAGE, "NVMe", Some("vmware.nvme.controller")),
        };
        let mut parts = vec![
            ("rasd:Address", controller.number.to_string()),
            ("rasd:Description", format!("{name} controller")),
            (
                "rasd:ElementName",
                format!("{name} controller {}", controller.number),
            ),
        ];
        parts.extend(model.map(|model| ("rasd:ResourceSubType", model.to_owned())));
        self.item(true, kind, parts, |_| {});
    }

    fn drive(&mut self, drive: &Drive, parent: u32) {
        let mut parts = vec![
            ("rasd:AddressOnParent", drive.node.unit.to_string()),
            ("rasd:Parent", parent.to_string()),
        ];
        match &drive.medium {
            Medium::Disk(disk) => {
                parts.push(("rasd:ElementName", format!("Hard disk {}", drive.node)));
                parts.push(("rasd:HostResource", format!("ovf:/disk/{}", disk.file)));
                if !drive.connected {
                    parts.push(("rasd:AutomaticAllocation", "false".to_owned()));
                }
                let mode = mode(disk.mode);
                self.item(true, DISK, parts, |xml| {
                    if let Some(mode) = mode {
                        config(xml, "backing.diskMode", mode);
                    }
                });
            }
            Medium::CdImage { .. } | Medium::CdDevice { .. } | Medium::CdEmpty => {
                parts.push(("rasd:AutomaticAllocation", drive.connected.to_string()));
                parts.push(("rasd:ElementName", format!("CD drive {}", drive.node)));
                if let Medium::CdDevice { .. } = drive.medium {
                    let model = "vmware.cdrom.remotepassthrough".to_owned();
                    parts.push(("rasd:ResourceSubType", model));
                }
                self.item(false, CD, parts, |_| {});
            }
            Medium::Other { .. } => {}
        }
    }

    fn nic(&mut self, nic: &Nic) {
        let network = network_name(&nic.network);
        let mut parts = vec![
            // VMware counts its network cards from 7.
            (
                "rasd:AddressOnParent",
                (u32::from(nic.number) + 7).to_string(),
            ),
            ("rasd:AutomaticAllocation", nic.connected.to_string()),
            ("rasd:Connection", network.to_owned()),
            ("rasd:Description", format!("Network card on {network}")),
            ("rasd:ElementName", format!("Ethernet {}", nic.number)),
        ];
        let model = nic.model.as_deref().and_then(nic_model);
        parts.extend(model.map(|model| ("rasd:ResourceSubType", model.to_owned())));
        if let Some(mac) = nic.mac.filter(|_| nic.mac_is_static) {
            parts.push(("rasd:Address", mac.to_string()));
        }
        self.item(true, ETHERNET, parts, |_| {});
    }

    fn serial_port(&mut self, port: &SerialPort) {
        let model = match port.kind.as_str() {
            "network" => "uri",
            kind => kind,
        };
        let parts = vec![
            ("rasd:AutomaticAllocation", "false".to_owned()),
            ("rasd:ElementName", format!("Serial port {}", port.number)),
            ("rasd:HostResource", port.target.clone()),
            ("rasd:ResourceSubType", format!("vmware.serialport.{model}")),
        ];
        self.item(false, SERIAL, parts, |_| {});
    }
}

/// Returns the machine's controllers, with those that only its drives tell of.
fn controllers(machine: &Machine) -> Vec<Controller> {
    let mut controllers = machine.controllers.clone();
    let used: BTreeSet<_> = machine
        .drives
        .iter()
        .map(|drive| (drive.node.bus, drive.node.controller))
        .collect();
    for (bus, number) in used {
        if !controllers
            .iter()
            .any(|own| own.bus == bus && own.number == number)
        {
            controllers.push(Controller {
                bus,
                number,
                model: None,
            });
        }
    }
    controllers.sort_by_key(|controller| (controller.bus, controller.number));
    controllers
}

fn share(share: &Share, normal: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut part = |name, number: Option<u64>| {
        parts.extend(number.map(|number| (name, number.to_string())));
    };
    part("rasd:Limit", share.limit);
    part("rasd:Reservation", share.reservation);
    part("rasd:Weight", weight(share, normal));
    parts
}

fn mode(mode: DiskMode) -> Option<&'static str> {
    match mode {
        DiskMode::Persistent => None,
        DiskMode::IndependentPersistent => Some("independent_persistent"),
        DiskMode::IndependentNonpersistent => Some("independent_nonpersistent"),
        DiskMode::Undoable => Some("undoable"),
    }
}

/// Returns VMware's name of a model of SCSI controllers in an envelope.
pub(super) fn controller_model(vmx: &str) -> Option<&'static str> {
    match vmx.to_ascii_lowercase().as_str() {
        "lsilogic" => Some("lsilogic"),
        "lsisas1068" => Some("lsilogicsas"),
        "pvscsi" => Some("VirtualSCSI"),
        "buslogic" => Some("buslogic"),
        _ => None,
    }
}

/// Returns VMware's name of a model of network cards in an envelope.
pub(super) fn nic_model(vmx: &str) -> Option<&'static str> {
    match vmx.to_ascii_lowercase().as_str() {
        "e1000" => Some("E1000"),
        "e1000e" => Some("E1000e"),
        "vmxnet3" => Some("VmxNet3"),
        "vmxnet" => Some("Vmxnet"),
        "vlance" => Some("PCNet32"),
        _ => None,
    }
}
