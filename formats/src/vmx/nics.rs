//! Network cards: reading them, adding, changing and removing them.

use hako_block::{Error, ErrorKind, Result};

use super::read::{Reader, numbered};
use super::{Vmx, put, put_or_remove, truth};
use crate::dictionary::Dictionary;
use crate::machine::{Mac, Network, Nic};

/// Models that VMware's products know; `flexible` is what they call a card without one.
const MODELS: [&str; 7] = [
    "e1000", "e1000e", "vmxnet3", "vlance", "vmxnet", "flexible", "vrdma",
];
/// Most cards of a machine.
const MAX_NICS: u8 = 10;

/// Returns all cards, ascending by number.
pub(super) fn all(reader: &mut Reader<'_>) -> Vec<Nic> {
    let numbers = numbered(reader, "ethernet").into_iter();
    numbers.filter_map(|number| nic(reader, number)).collect()
}

fn nic(reader: &mut Reader<'_>, number: u8) -> Option<Nic> {
    let name = format!("ethernet{number}");
    if reader.is_off(&name) {
        return None;
    }
    if !reader.is_on(&name) {
        // Some keys outlive their card.
        let says = |key: &str| reader.value(&format!("{name}.{key}")).is_some();
        if !["virtualDev", "connectionType", "networkName", "addressType"]
            .into_iter()
            .any(says)
        {
            return None;
        }
        reader.odd(format!("{name}.present is missing; read as TRUE"));
    }
    let model = reader
        .word(&format!("{name}.virtualDev"))
        .to_ascii_lowercase();
    let (mac, mac_is_static) = address(reader, &name);
    Some(Nic {
        number,
        model: Some(model).filter(|model| !model.is_empty()),
        network: network(reader, &name),
        mac,
        mac_is_static,
        connected: reader.flag(&format!("{name}.startConnected"), true),
    })
}

/// Returns the address, and whether somebody chose it.
fn address(reader: &mut Reader<'_>, name: &str) -> (Option<Mac>, bool) {
    let kind = reader
        .word(&format!("{name}.addressType"))
        .to_ascii_lowercase();
    let mut mac = |key: &str| {
        let key = format!("{name}.{key}");
        let word = reader.word(&key);
        let mac = word.parse::<Mac>().ok();
        if mac.is_none() && !word.is_empty() {
            reader.odd_value(key, &word, "which is no hardware address");
        }
        mac
    };
    let chosen = mac("address");
    let made = mac("generatedAddress");
    let is_static = kind == "static" || kind.is_empty() && chosen.is_some() && made.is_none();
    let address = if is_static {
        chosen.or(made)
    } else {
        made.or(chosen)
    };
    (address, is_static && address.is_some())
}

fn network(reader: &mut Reader<'_>, name: &str) -> Network {
    let word = |key: &str| Some(reader.word(&format!("{name}.{key}"))).filter(|w| !w.is_empty());
    // ESXi names a network instead; distributed switches and NSX have their own names for one.
    let port_group = ["networkName", "dvs.portgroupId", "opaqueNetwork.id"]
        .into_iter()
        .find_map(word);
    let kind = word("connectionType").unwrap_or_default();
    match (kind.to_ascii_lowercase().as_str(), port_group) {
        ("nat", _) => Network::Nat,
        ("hostonly", _) => Network::HostOnly,
        ("custom", port_group) => Network::Custom(word("vnet").or(port_group).unwrap_or_default()),
        // Hosted products name the network behind the bridge.
        ("bridged", Some(name)) if is_vmnet(&name) => Network::Bridged,
        (_, Some(port_group)) => Network::PortGroup(port_group),
        ("bridged" | "", None) => Network::Bridged,
        ("pvn", None) => {
            let segment = word("pvnID").unwrap_or_default();
            reader.odd(format!(
                "{name} is on a LAN segment; read as a custom network"
            ));
            Network::Custom(segment)
        }
        _ => {
            let key = format!("{name}.connectionType");
            reader.odd_value(key, &kind, "which is not known; read as bridged");
            Network::Bridged
        }
    }
}

fn is_vmnet(name: &str) -> bool {
    let start = name.get(..5);
    start.is_some_and(|start| start.eq_ignore_ascii_case("vmnet"))
}

impl Vmx {
    /// Puts a network card at its number, instead of what is there; what it does not say of the
    /// card that is there stays.
    ///
    /// Errors: [`ErrorKind::Invalid`] for a number that no machine has and a model that VMware
    /// does not know.
    pub fn put_nic(&mut self, nic: &Nic) -> Result<()> {
        let name = format!("ethernet{}", nic.number);
        if nic.number >= MAX_NICS {
            let what = format!("{name} is no network card of a machine");
            return Err(Error::invalid(what).hint("cards have the numbers 0 to 9"));
        }
        let nics = self.machine().nics;
        let old = nics.into_iter().find(|old| old.number == nic.number);
        let is_new_model = old.as_ref().is_none_or(|old| old.model != nic.model);
        if let Some(model) = nic.model.as_deref().filter(|_| is_new_model)
            && !MODELS.contains(&model)
        {
            let what = format!("{model:?} is no network card that VMware knows");
            return Err(Error::invalid(what).hint(format!("there are {}", MODELS.join(", "))));
        }
        self.edit(|dictionary| {
            if old.is_none() {
                // What outlived another card.
                dictionary.remove_tree(&name);
            }
            write(dictionary, &name, nic, old.as_ref())
        })
    }

    /// Removes a network card with all that is said about it. Errors: [`ErrorKind::NotFound`] if
    /// there is none.
    pub fn remove_nic(&mut self, number: u8) -> Result<()> {
        let name = format!("ethernet{number}");
        if !self.machine().nics.iter().any(|nic| nic.number == number) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no card is {name}"),
            ));
        }
        self.edit(|dictionary| {
            dictionary.remove_tree(&name);
            Ok(())
        })
    }
}

fn write(dictionary: &mut Dictionary, name: &str, nic: &Nic, old: Option<&Nic>) -> Result<()> {
    let key = |key: &str| format!("{name}.{key}");
    if old.is_none_or(|old| old.model != nic.model) {
        put_or_remove(dictionary, &key("virtualDev"), nic.model.as_deref())?;
    }
    if old.is_none_or(|old| old.network != nic.network) {
        write_network(dictionary, name, &nic.network)?;
    }
    let address = (nic.mac, nic.mac_is_static && nic.mac.is_some());
    if old.is_none_or(|old| (old.mac, old.mac_is_static) != address) {
        write_address(dictionary, name, address.0, address.1)?;
    }
    put(
        dictionary,
        &key("startConnected"),
        truth(nic.connected),
        truth(true),
    )?;
    dictionary.set(&key("present"), truth(true))
}

fn write_network(dictionary: &mut Dictionary, name: &str, network: &Network) -> Result<()> {
    let key = |key: &str| format!("{name}.{key}");
    let (kind, vnet, port_group) = match network {
        Network::Bridged => (Some("bridged"), None, None),
        Network::Nat => (Some("nat"), None, None),
        Network::HostOnly => (Some("hostonly"), None, None),
        Network::Custom(vnet) => (Some("custom"), Some(vnet.as_str()), None),
        Network::PortGroup(port_group) => (None, None, Some(port_group.as_str())),
    };
    for other in ["dvs", "opaqueNetwork"] {
        dictionary.remove_tree(&key(other));
    }
    dictionary.remove(&key("pvnID"));
    put_or_remove(dictionary, &key("connectionType"), kind)?;
    put_or_remove(dictionary, &key("vnet"), vnet)?;
    put_or_remove(dictionary, &key("networkName"), port_group)
}

/// Writes an address as its kind wants it: one that somebody chose must lie below 00:50:56:00 to
/// :3f, or VMware must be told not to look; vCenter's own lie from :80 to :bf.
fn write_address(
    dictionary: &mut Dictionary,
    name: &str,
    mac: Option<Mac>,
    is_static: bool,
) -> Result<()> {
    let key = |key: &str| format!("{name}.{key}");
    let text = mac.map(|mac| mac.to_string());
    let is_of_vcenter = mac.is_some_and(|Mac(bytes)| {
        bytes[..3] == [0x00, 0x50, 0x56] && (0x80..=0xbf).contains(&bytes[3])
    });
    let kind = match (is_static, is_of_vcenter) {
        (true, _) => "static",
        (false, true) => "vpx",
        (false, false) => "generated",
    };
    dictionary.set(&key("addressType"), kind)?;
    let is_unchecked = is_static && mac.is_some_and(|mac| !mac.is_vmware_static());
    let check = is_unchecked.then_some(truth(false));
    put_or_remove(dictionary, &key("checkMACAddress"), check)?;
    let (chosen, made) = match is_static {
        true => (text, None),
        false => (None, text),
    };
    let offset = made.is_some() && !is_of_vcenter;
    put_or_remove(dictionary, &key("address"), chosen.as_deref())?;
    put_or_remove(dictionary, &key("generatedAddress"), made.as_deref())?;
    put_or_remove(
        dictionary,
        &key("generatedAddressOffset"),
        offset.then_some("0"),
    )
}
