//! What becomes of the server's network cards.

use hako_formats::machine::Mac;

use super::hardware::Card;
use super::history::{History, Metric};
use super::model::{Action, Nic};
use crate::p2v::inventory::model::{self, Inventory, NicKind};

/// Which card is plugged into what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMap {
    /// The card's name; none for all that are not named.
    pub nic: Option<String>,
    /// `bridged`, `nat`, `hostonly`, or a port group's name.
    pub network: String,
}

/// What a card is plugged into about which nothing was said.
const DEFAULT_NETWORK: &str = "bridged";

/// Returns what becomes of each network card that is hardware.
pub fn nics(
    inventory: &Inventory,
    card: Card,
    networks: &[NetworkMap],
    history: &History,
) -> Vec<Nic> {
    let physical = |nic: &&model::Nic| nic.kind == NicKind::Physical;
    let all: Vec<&model::Nic> = inventory.nics.iter().filter(physical).collect();
    // A server that uses none of them was looked at while it was off the network.
    let is_any_used = all.iter().any(|nic| is_used(inventory, nic));
    let planned = all.into_iter().map(|nic| {
        let keep = !is_any_used || is_used(inventory, nic);
        let bytes = history.distribution(&Metric::NicBytes(nic.name.clone()));
        Nic {
            source: nic.name.clone(),
            about: about(inventory, nic),
            action: if keep { Action::Keep } else { Action::Drop },
            why: match keep {
                true => String::new(),
                false => "it is not connected, and nothing configures it".to_owned(),
            },
            mac: mac(nic),
            model: card.name.to_owned(),
            network: network(&nic.name, networks),
            bytes_per_second_p95: bytes.percentile(9500),
        }
    });
    planned.collect()
}

fn is_used(inventory: &Inventory, nic: &model::Nic) -> bool {
    let is_port = !users(inventory, &nic.name).is_empty();
    let is_configured = !nic.addresses.is_empty() || !nic.configured_in.is_empty();
    is_port || is_configured || nic.is_up == Some(true)
}

/// Returns the interfaces that are made of one.
fn users<'a>(inventory: &'a Inventory, name: &str) -> Vec<&'a model::Nic> {
    let all = inventory.nics.iter();
    all.filter(|nic| nic.ports.iter().any(|port| port == name))
        .collect()
}

/// Returns the address that a card was made with, for its own may be that of a bond.
fn mac(nic: &model::Nic) -> String {
    let mut addresses = [&nic.permanent_mac, &nic.mac].into_iter();
    let mac = addresses.find_map(|text| text.parse::<Mac>().ok());
    mac.map_or_else(String::new, |mac| mac.to_string())
}

fn network(nic: &str, networks: &[NetworkMap]) -> String {
    let of = |name: Option<&str>| networks.iter().find(|map| map.nic.as_deref() == name);
    let found = of(Some(nic)).or_else(|| of(None));
    found.map_or_else(|| DEFAULT_NETWORK.to_owned(), |map| map.network.clone())
}

/// Says what a card is: `tg3, 1000 Mb/s: 192.0.2.5/24; port of bond0 (198.51.100.2/24), VLAN 10`.
fn about(inventory: &Inventory, nic: &model::Nic) -> String {
    let mut parts = Vec::new();
    if !nic.driver.is_empty() {
        parts.push(nic.driver.clone());
    }
    if let Some(speed) = nic.speed_mbps {
        parts.push(format!("{speed} Mb/s"));
    }
    parts.extend(nic.addresses.iter().cloned());
    // What is made of what is made of it; each once, so that a circle ends.
    let mut names = vec![nic.name.as_str()];
    let mut next = 0;
    while let Some(name) = names.get(next).copied() {
        next += 1;
        for user in users(inventory, name) {
            if names.contains(&user.name.as_str()) {
                continue;
            }
            names.push(&user.name);
            let what = match (user.kind, user.vlan) {
                (NicKind::Vlan, Some(vlan)) => format!("VLAN {vlan}"),
                _ => format!("port of {}", user.name),
            };
            match user.addresses.is_empty() {
                true => parts.push(what),
                false => parts.push(format!("{what} ({})", user.addresses.join(", "))),
            }
        }
    }
    parts.join(", ")
}
