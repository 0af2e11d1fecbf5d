//! Reads the hardware of a machine. Items of OVF 1 and 2 differ in their names and namespaces, and
//! say the same.

use hako_block::Result;

use super::names::Space;
use super::product::words;
use super::read::{Reader, is_true, parse_number};
use super::xml::Element;
use super::{Bound, Hardware, Item};

/// Names of CIM's settings of resources, storage and ports that nothing is read from.
const KNOWN: [&str; 25] = [
    "AutomaticDeallocation",
    "ConsumerVisibility",
    "Description",
    "MappingBehavior",
    "OtherResourceType",
    "PoolID",
    "VirtualQuantityUnits",
    "Generation",
    "ChangeableType",
    "ConfigurationName",
    "SoID",
    "SoOrgID",
    "Access",
    "HostExtentName",
    "HostExtentNameFormat",
    "HostExtentNameNamespace",
    "HostExtentStartingAddress",
    "HostResourceBlockSize",
    "OtherHostExtentNameFormat",
    "OtherHostExtentNameNamespace",
    "VirtualResourceBlockSize",
    "DesiredVLANEndpointMode",
    "OtherEndpointMode",
    "NetworkPortProfileID",
    "NetworkPortProfileIDType",
];

/// Reads a `VirtualHardwareSection`. What is passed over goes to `oddities`.
pub(super) fn read(
    reader: &Reader,
    section: &Element,
    oddities: &mut Vec<String>,
) -> Result<Hardware> {
    let mut hardware = Hardware {
        families: Vec::new(),
        items: Vec::new(),
        config: Vec::new(),
        extra_config: Vec::new(),
        transports: words(section.ovf("transport").unwrap_or_default()),
    };
    for child in &section.children {
        match child.name.as_str() {
            "System" => {
                hardware.families = names(child.text_of("VirtualSystemType").unwrap_or_default());
            }
            "Item" | "StorageItem" | "EthernetPortItem" => {
                hardware.items.push(item(reader, child, oddities)?);
            }
            "Config" => hardware.config.push(setting(child)),
            "ExtraConfig" => hardware.extra_config.push(setting(child)),
            "Info" => {}
            other => oddities.push(child.not_read(other)),
        }
    }
    match section.has_info() {
        true => Ok(hardware),
        false => Err(section.wrong("has no Info")),
    }
}

/// Splits a list: between blanks or commas.
fn names(text: &str) -> Vec<String> {
    words(&text.replace([',', ';'], " "))
}

fn setting(element: &Element) -> (String, String) {
    let value = |name| {
        let value = element.attribute(Space::Vmware, name).or(element.ovf(name));
        value.unwrap_or_default().to_owned()
    };
    (value("key"), value("value"))
}

fn item(reader: &Reader, element: &Element, oddities: &mut Vec<String>) -> Result<Item> {
    let mut item = Item {
        bound: match element.ovf("bound").unwrap_or_default() {
            "" | "normal" => None,
            "min" => Some(Bound::Min),
            "max" => Some(Bound::Max),
            other => return Err(element.wrong(&format!("has the bound {other:?}"))),
        },
        configurations: words(element.ovf("configuration").unwrap_or_default()),
        line: element.line,
        ..Item::default()
    };
    let mut resource_type = None;
    for child in &element.children {
        if child.space == Space::Vmware {
            vmware_part(child, &mut item)?;
        } else if child.name == "ResourceType" {
            resource_type = Some(whole(child)?);
        } else if !part(reader, child, &mut item)? && !KNOWN.contains(&child.name.as_str()) {
            oddities.push(match reader.is_ovirt {
                true => child.not_read(&child.name),
                false => child.may_be_ignored(&child.name)?,
            });
        }
    }
    if reader.is_ovirt
        && let Some(cores) = item.cores_per_socket
    {
        let sockets = item.quantity.unwrap_or(1);
        item.quantity = Some(sockets.saturating_mul(u64::from(cores)));
    }
    if item.id.is_empty() {
        return Err(element.wrong("has no InstanceID"));
    }
    let resource_type = resource_type.ok_or_else(|| element.wrong("has no ResourceType"))?;
    item.resource_type = u16::try_from(resource_type)
        .map_err(|_| element.wrong(&format!("has the ResourceType {resource_type}")))?;
    Ok(item)
}

/// Reads a part that this reader knows; returns whether it does.
fn part(reader: &Reader, child: &Element, item: &mut Item) -> Result<bool> {
    let text = || child.text.trim().to_owned();
    let some = || Some(text()).filter(|text| !text.is_empty());
    match child.name.as_str() {
        "InstanceID" | "InstanceId" => item.id = text(),
        "ElementName" | "Caption" if item.name.is_empty() => item.name = reader.message(child),
        "ElementName" | "Caption" => {}
        "ResourceSubType" => item.models.extend(names(&child.text)),
        "Address" => item.address = some(),
        // OVF 0.9 has the controller's number here.
        "BusNumber" => item.address = some(),
        "AddressOnParent" => item.address_on_parent = some(),
        "Parent" => item.parent = some(),
        "HostResource" => item.host_resources.extend(some()),
        "Connection" => item.connections.extend(some()),
        "AllocationUnits" => item.units = text(),
        "VirtualQuantity" => item.quantity = optional(child)?,
        "Reservation" => item.reservation = optional(child)?,
        "Limit" => item.limit = optional(child)?,
        "Weight" => {
            item.weight = optional(child)?.and_then(|weight| u32::try_from(weight).ok());
        }
        "num_of_sockets" if reader.is_ovirt => item.quantity = optional(child)?,
        "cpu_per_socket" if reader.is_ovirt => item.cores_per_socket = Some(small(child)?),
        "AutomaticAllocation" => item.is_connected = some().map(|text| is_true(&text)),
        _ => return Ok(false),
    }
    Ok(true)
}

fn vmware_part(child: &Element, item: &mut Item) -> Result<()> {
    match child.name.as_str() {
        "Config" => item.config.push(setting(child)),
        "CoresPerSocket" => item.cores_per_socket = Some(small(child)?),
        _ => {}
    }
    Ok(())
}

/// Reads a number that must be one.
fn whole(element: &Element) -> Result<u64> {
    let text = element.text.trim();
    parse_number(text).ok_or_else(|| element.wrong(&format!("is {text:?}, which is no number")))
}

fn small(element: &Element) -> Result<u32> {
    let number = whole(element)?;
    u32::try_from(number).map_err(|_| element.wrong(&format!("is {number}, which is too many")))
}

/// Reads a number that may be empty, or -1 for none.
fn optional(element: &Element) -> Result<Option<u64>> {
    match element.text.trim() {
        "" | "-1" => Ok(None),
        _ => whole(element).map(Some),
    }
}
