//! Reads a machine of an envelope (`VirtualSystem`, in OVF 0.9 a `Content`).

use hako_block::Result;

use super::names::Space;
use super::read::Reader;
use super::xml::Element;
use super::{BootEntry, Guest, System, hardware, product};

/// Reads a machine. What is passed over goes to `oddities`.
pub(super) fn read(
    reader: &Reader,
    element: &Element,
    oddities: &mut Vec<String>,
) -> Result<System> {
    let id = element.required("id")?;
    let name = Some(reader.text(element, "Name")).filter(|name| !name.is_empty());
    let mut system = System {
        name: name.unwrap_or_else(|| id.clone()),
        id,
        annotation: String::new(),
        guest: None,
        products: Vec::new(),
        licenses: Vec::new(),
        hardware: Vec::new(),
        boot_order: Vec::new(),
        unknown_sections: Vec::new(),
    };
    for child in &element.children {
        section(reader, child, &mut system, oddities)?;
    }
    match system.hardware.is_empty() {
        true => Err(element.wrong("has no VirtualHardwareSection")),
        false => Ok(system),
    }
}

fn section(
    reader: &Reader,
    child: &Element,
    system: &mut System,
    oddities: &mut Vec<String>,
) -> Result<()> {
    match child.section() {
        "VirtualHardwareSection" => {
            system
                .hardware
                .push(hardware::read(reader, child, oddities)?);
        }
        "OperatingSystemSection" => system.guest = Some(guest(reader, child)?),
        "AnnotationSection" => {
            let note = child.named("Annotation").next();
            system.annotation = note
                .map(|note| annotation(reader, note))
                .unwrap_or_default();
        }
        "ProductSection" => system.products.push(product::read(reader, child)?),
        "EulaSection" => system.licenses.push(reader.text(child, "License")),
        "BootOrderSection" => system.boot_order.push(BootEntry {
            kind: vmware(child, "type"),
            item: vmware(child, "instanceId"),
        }),
        "DiskSection" | "NetworkSection" => {
            return Err(child.wrong("belongs into the Envelope, not into a machine"));
        }
        "ResourceAllocationSection" => {
            return Err(child.wrong("belongs into a collection, not into a machine"));
        }
        "Info" | "Name" => {}
        _ => system.unknown_sections.push(child.name.clone()),
    }
    Ok(())
}

/// Blanks around a note are its own.
fn annotation(reader: &Reader, note: &Element) -> String {
    match note.text.trim().is_empty() {
        true => reader.message(note),
        false => note.text.clone(),
    }
}

fn vmware(element: &Element, name: &str) -> String {
    let value = element.attribute(Space::Vmware, name);
    value.unwrap_or_default().to_owned()
}

fn guest(reader: &Reader, section: &Element) -> Result<Guest> {
    if !section.has_info() {
        return Err(section.wrong("has no Info"));
    }
    Ok(Guest {
        // Products write -100 for what has no number.
        id: section.ovf("id").and_then(|id| id.trim().parse().ok()),
        vmware: section
            .attribute(Space::Vmware, "osType")
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        description: reader.text(section, "Description"),
    })
}
