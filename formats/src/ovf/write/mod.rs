//! Writes the envelope of one machine: OVF 1.1, in the order of DSP8023's schema, with VMware's
//! additions where its products look for them and marked as such that others may pass over. The
//! text for the same machine and disks is the same.

mod items;

use std::collections::BTreeSet;

use hako_block::{Error, Result};

use super::guest;
use super::machine::BOOT_ORDER;
use crate::machine::{Machine, Medium, Network, Share, Weight};
use crate::xml_text::XmlText;
use items::Items;

/// The URI of VMDK's streamOptimized form, in which disks travel.
pub const STREAM_OPTIMIZED: &str =
    "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// The hardware version of a machine that says none: what every product of today takes.
const USUAL_VERSION: u32 = 13;

/// A disk as it is written beside the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenDisk {
    /// What the machine's drives call it ([`crate::machine::DiskMedium::file`]).
    pub id: String,
    /// The file's name, relative to the envelope.
    pub href: String,
    /// What the guest sees.
    pub capacity_bytes: u64,
    /// The file's length, if it is known. A text that gets it later is longer by what it takes:
    /// that of `u64::MAX` is the longest.
    pub size: Option<u64>,
    /// Bytes in use, if they are known.
    pub populated_bytes: Option<u64>,
}

/// A further file that is written beside the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// The file's name, relative to the envelope.
    pub href: String,
    /// The file's length in bytes.
    pub size: u64,
}

/// Returns the envelope of `machine`, whose drives name `disks` by their ids. It ends in a line
/// break; blanks and comments may follow. What [`not_written`] lists is left out. Errors:
/// [`hako_block::ErrorKind::Invalid`] for a drive whose disk is not among them, or an id that is
/// there twice.
pub fn write(machine: &Machine, disks: &[WrittenDisk]) -> Result<String> {
    write_with_nvram(machine, disks, None)
}

/// The same, with the memory that the firmware keeps its settings in, as VMware's products name it.
pub fn write_with_nvram(
    machine: &Machine,
    disks: &[WrittenDisk],
    nvram: Option<&WrittenFile>,
) -> Result<String> {
    check(machine, disks)?;
    let mut xml = XmlText::new();
    xml.open("Envelope", &NAMESPACES);
    references(&mut xml, disks, nvram);
    disk_section(&mut xml, disks);
    network_section(&mut xml, machine);
    virtual_system(&mut xml, machine, nvram.is_some());
    Ok(xml.finish())
}

/// What the envelope calls the firmware's memory.
const NVRAM_ID: &str = "file-nvram";

/// Returns what of a machine an envelope has no place for, for people.
pub fn not_written(machine: &Machine) -> Vec<String> {
    let mut lost = Vec::new();
    for drive in &machine.drives {
        match &drive.medium {
            Medium::CdImage { .. } => lost.push(format!("the CD image of {}", drive.node)),
            Medium::Other { kind, .. } => lost.push(format!("{} ({kind})", drive.node)),
            _ => {}
        }
    }
    for nic in &machine.nics {
        if let Some(model) = &nic.model
            && items::nic_model(model).is_none()
        {
            lost.push(format!("the model {model:?} of ethernet{}", nic.number));
        }
    }
    for controller in &machine.controllers {
        if let Some(model) = &controller.model
            && items::controller_model(model).is_none()
        {
            let (bus, number) = (controller.bus.name(), controller.number);
            lost.push(format!("the model {model:?} of {bus}{number}"));
        }
    }
    if let Some(name) = &machine.guest_os
        && guest::of_vmx(name).is_none()
    {
        lost.push(format!("the guest system {name:?}"));
    }
    if machine.direct_boot.is_some() {
        lost.push("the kernel that it is started with".to_owned());
    }
    lost
}

fn check(machine: &Machine, disks: &[WrittenDisk]) -> Result<()> {
    let mut ids = BTreeSet::new();
    for disk in disks {
        if !ids.insert(&disk.id) {
            return Err(Error::invalid(format!(
                "two disks have the id {:?}",
                disk.id
            )));
        }
    }
    for drive in &machine.drives {
        if let Medium::Disk(medium) = &drive.medium
            && !ids.contains(&medium.file)
        {
            let what = format!(
                "{} has the disk {:?}, which is not written",
                drive.node, medium.file
            );
            return Err(Error::invalid(what));
        }
    }
    Ok(())
}

const NAMESPACES: [(&str, &str); 7] = [
    ("xmlns", "http://schemas.dmtf.org/ovf/envelope/1"),
    ("xmlns:cim", "http://schemas.dmtf.org/wbem/wscim/1/common"),
    ("xmlns:ovf", "http://schemas.dmtf.org/ovf/envelope/1"),
    (
        "xmlns:rasd",
        "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData",
    ),
    ("xmlns:vmw", "http://www.vmware.com/schema/ovf"),
    (
        "xmlns:vssd",
        "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData",
    ),
    ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
];

fn references(xml: &mut XmlText, disks: &[WrittenDisk], nvram: Option<&WrittenFile>) {
    xml.open("References", &[]);
    for disk in disks {
        let (id, size) = (file_id(disk), disk.size.map(|size| size.to_string()));
        let mut attributes = vec![("ovf:href", disk.href.as_str()), ("ovf:id", &id)];
        attributes.extend(size.as_deref().map(|size| ("ovf:size", size)));
        xml.empty("File", &attributes);
    }
    if let Some(file) = nvram {
        let size = file.size.to_string();
        let attributes = [
            ("ovf:href", file.href.as_str()),
            ("ovf:id", NVRAM_ID),
            ("ovf:size", &size),
        ];
        xml.empty("File", &attributes);
    }
    xml.close();
}

fn file_id(disk: &WrittenDisk) -> String {
    format!("file-{}", disk.id)
}

fn disk_section(xml: &mut XmlText, disks: &[WrittenDisk]) {
    xml.open("DiskSection", &[]);
    xml.leaf("Info", &[], "Virtual disks");
    for disk in disks {
        let (capacity, file) = (disk.capacity_bytes.to_string(), file_id(disk));
        let populated = disk
            .populated_bytes
            .map(|bytes| bytes.min(disk.capacity_bytes).to_string());
        let mut attributes = vec![
            ("ovf:capacity", capacity.as_str()),
            ("ovf:capacityAllocationUnits", "byte"),
            ("ovf:diskId", &disk.id),
            ("ovf:fileRef", &file),
            ("ovf:format", STREAM_OPTIMIZED),
        ];
        attributes.extend(
            populated
                .as_deref()
                .map(|bytes| ("ovf:populatedSize", bytes)),
        );
        xml.empty("Disk", &attributes);
    }
    xml.close();
}

fn network_section(xml: &mut XmlText, machine: &Machine) {
    let names: BTreeSet<&str> = machine
        .nics
        .iter()
        .map(|nic| network_name(&nic.network))
        .collect();
    if names.is_empty() {
        return;
    }
    xml.open("NetworkSection", &[]);
    xml.leaf("Info", &[], "Networks that the machine is plugged into");
    for name in names {
        xml.open("Network", &[("ovf:name", name)]);
        xml.leaf("Description", &[], &format!("The network {name}"));
        xml.close();
    }
    xml.close();
}

/// Workstation's own networks have these names in its exports.
fn network_name(network: &Network) -> &str {
    match network {
        Network::Bridged => "bridged",
        Network::Nat => "nat",
        Network::HostOnly => "hostonly",
        Network::Custom(name) | Network::PortGroup(name) if name.trim().is_empty() => "VM Network",
        Network::Custom(name) | Network::PortGroup(name) => name,
    }
}

fn virtual_system(xml: &mut XmlText, machine: &Machine, has_nvram: bool) {
    let name = match machine.name.trim() {
        "" => "machine",
        _ => &machine.name,
    };
    xml.open("VirtualSystem", &[("ovf:id", name)]);
    xml.leaf("Info", &[], "A virtual machine");
    xml.leaf("Name", &[], name);
    operating_system(xml, machine);
    hardware(xml, machine, name, has_nvram);
    if !machine.annotation.is_empty() {
        xml.open("AnnotationSection", &[("ovf:required", "false")]);
        xml.leaf("Info", &[], "A note");
        xml.leaf("Annotation", &[], &machine.annotation);
        xml.close();
    }
    xml.close();
}

/// A guest system that VMware's table lacks is "other", of as many bits as its name says.
fn operating_system(xml: &mut XmlText, machine: &Machine) {
    let name = machine.guest_os.as_deref().unwrap_or("other");
    let fallback = match name.ends_with("64") {
        true => ("otherGuest64".to_owned(), 102),
        false => ("otherGuest".to_owned(), 1),
    };
    let (vmware, number) = guest::of_vmx(name).unwrap_or(fallback);
    let number = number.to_string();
    let attributes = [("ovf:id", number.as_str()), ("vmw:osType", &vmware)];
    xml.open("OperatingSystemSection", &attributes);
    xml.leaf("Info", &[], "The kind of guest system");
    xml.close();
}

fn hardware(xml: &mut XmlText, machine: &Machine, name: &str, has_nvram: bool) {
    let version = machine.hardware_version.unwrap_or(USUAL_VERSION);
    xml.open("VirtualHardwareSection", &[]);
    xml.leaf("Info", &[], "Virtual hardware");
    xml.open("System", &[]);
    xml.leaf("vssd:ElementName", &[], "Virtual Hardware Family");
    xml.leaf("vssd:InstanceID", &[], "0");
    xml.leaf("vssd:VirtualSystemIdentifier", &[], name);
    xml.leaf("vssd:VirtualSystemType", &[], &format!("vmx-{version:02}"));
    xml.close();
    Items::write(xml, machine);
    config(xml, "firmware", machine.firmware.name());
    if machine.secure_boot {
        config(xml, "bootOptions.efiSecureBootEnabled", "true");
    }
    if let Some(uuid) = machine.bios_uuid {
        config(xml, "uuid", &uuid.to_string());
    }
    if !machine.boot_order.is_empty() {
        // VMware's BootOrderSection has no place in the schema; its VMX line has.
        let names = machine.boot_order.iter().map(|device| device.name());
        setting(
            xml,
            "vmw:ExtraConfig",
            BOOT_ORDER,
            &names.collect::<Vec<_>>().join(","),
        );
    }
    if has_nvram {
        let value = format!("ovf:/file/{NVRAM_ID}");
        setting(xml, "vmw:ExtraConfig", "nvram", &value);
    }
    xml.close();
}

/// A setting of VMware's that others may pass over.
fn config(xml: &mut XmlText, key: &str, value: &str) {
    setting(xml, "vmw:Config", key, value);
}

fn setting(xml: &mut XmlText, element: &str, key: &str, value: &str) {
    let attributes = [
        ("ovf:required", "false"),
        ("vmw:key", key),
        ("vmw:value", value),
    ];
    xml.empty(element, &attributes);
}

/// Returns a weight as a number: VMware's normal one is `normal`.
fn weight(share: &Share, normal: u64) -> Option<u64> {
    Some(match share.weight? {
        Weight::Low => normal / 2,
        Weight::Normal => normal,
        Weight::High => normal.saturating_mul(2),
        Weight::Custom(number) => u64::from(number),
    })
}
