//! Network cards.

use super::ETHERNET;
use crate::machine::{Machine, Network, Nic};
use crate::ovf::Item;
use crate::ovf::xml::shorten;

/// Reads the cards in the order of the text; the first is number 0.
pub(super) fn read(items: &[&Item], machine: &mut Machine, lost: &mut Vec<String>) {
    for item in items.iter().filter(|item| item.resource_type == ETHERNET) {
        let Ok(number) = u8::try_from(machine.nics.len()) else {
            lost.push(item.shown());
            continue;
        };
        let model = item.models.iter().find_map(|name| model(name));
        if model.is_none() && !item.models.is_empty() {
            lost.push(format!("the model of {}", item.shown()));
        }
        let mac = item.address.as_deref().and_then(|text| text.parse().ok());
        if mac.is_none()
            && let Some(address) = &item.address
        {
            lost.push(format!(
                "the address {:?} of {}",
                shorten(address),
                item.shown()
            ));
        }
        for more in item.connections.iter().skip(1) {
            lost.push(format!(
                "the second network {:?} of {}",
                shorten(more),
                item.shown()
            ));
        }
        machine.nics.push(Nic {
            number,
            model: model.map(str::to_owned),
            network: network(item.connections.first().map(String::as_str)),
            mac,
            mac_is_static: mac.is_some(),
            connected: item.is_connected.unwrap_or(true),
        });
    }
}

/// Returns VMX's name of a model.
fn model(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "e1000" => "e1000",
        "e1000e" => "e1000e",
        "vmxnet3" => "vmxnet3",
        "vmxnet" | "vmxnet2" => "vmxnet",
        "pcnet32" | "flexible" => "vlance",
        _ => return None,
    })
}

/// VMware Workstation and VirtualBox call their own networks by these names.
fn network(name: Option<&str>) -> Network {
    let Some(name) = name else {
        return Network::default();
    };
    match name.to_ascii_lowercase().as_str() {
        "bridged" => Network::Bridged,
        "nat" => Network::Nat,
        "hostonly" | "host-only" => Network::HostOnly,
        lower if lower.starts_with("vmnet") => Network::Custom(name.to_owned()),
        _ => Network::PortGroup(name.to_owned()),
    }
}
