//! Network cards. Each is alone on a user network behind the host.

use hako_block::Result;
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Mac, Nic};
use serde_json::{Value, json};

use super::super::super::cards::{self, Forward};
use super::super::dump;
use super::boot::Order;
use super::{Chipset, CommandLine, Wanted, slot};
use crate::run::addresses::FRAME_BYTES;

pub(super) fn add(
    line: &mut CommandLine,
    wanted: &Wanted<'_>,
    chipset: Chipset,
    order: &Order,
) -> Result<()> {
    for nic in wanted.machine.nics.iter().filter(|nic| nic.number < 10) {
        let number = nic.number;
        let mut net = json!({"type": "user", "id": format!("net{number}")});
        let has_socket = cards::socket(wanted.keys, number)?.is_some();
        if has_socket {
            line.warn(format!(
                "hako.ethernet{number}.socket is for --engine kvm only: ethernet{number} is on a \
                 network of its own, with no way out"
            ));
        }
        // What a network would be is no news of a machine that has none.
        if wanted.is_isolated || has_socket || cards::is_closed(nic, &mut line.warnings) {
            net["restrict"] = json!(true);
        }
        let forwards = match wanted.is_isolated {
            true => Vec::new(),
            false => forwards(line, wanted, number),
        };
        if !forwards.is_empty() {
            net["hostfwd"] = json!(forwards);
        }
        line.json("-netdev", &net);
        let (bus, address) = place(line, wanted, chipset, number);
        let (driver, warning) = driver(wanted.keys, nic);
        line.warnings.extend(warning);
        let mut device = json!({
            "driver": driver, "id": format!("ethernet{number}"),
            "netdev": format!("net{number}"), "bus": bus, "addr": address,
            "mac": mac(wanted, nic).to_string(),
        });
        if cards::tap(wanted.keys, number).is_some() {
            line.warn(format!(
                "hako.ethernet{number}.tap is for --engine kvm only"
            ));
        }
        hear(line, wanted, nic);
        if let Some(place) = order.nics.get(&number) {
            device["bootindex"] = json!(place);
        }
        // The card's program for starting from the network is for firmware only.
        if wanted.kernel.is_some() {
            device["romfile"] = json!("");
        }
        line.device(&device);
    }
    Ok(())
}

/// Lets the first frames of a card go into a pipe, for the address that the guest uses.
fn hear(line: &mut CommandLine, wanted: &Wanted<'_>, nic: &Nic) {
    let name = format!("ethernet{}", nic.number);
    let pipe = dump::pipe_of(&wanted.sockets.frames, &name);
    let Some(path) = pipe.to_str() else { return };
    line.json(
        "-object",
        &json!({
            "qom-type": "filter-dump", "id": format!("hear-{name}"),
            "netdev": format!("net{}", nic.number),
            "file": path, "maxlen": FRAME_BYTES,
        }),
    );
    line.cards.insert(name, (mac(wanted, nic), pipe));
}

/// Returns where a card is. On Q35 each has a port whose slot has the number that VMware gave it:
/// Linux names the card by that.
fn place(
    line: &mut CommandLine,
    wanted: &Wanted<'_>,
    chipset: Chipset,
    number: u8,
) -> (String, String) {
    let address = format!("{:x}.0", slot::NIC + number);
    if chipset == Chipset::Pc {
        return (chipset.bus().to_owned(), address);
    }
    let port = format!("port-ethernet{number}");
    line.device(&json!({
        "driver": "pcie-root-port", "id": port, "bus": chipset.bus(), "addr": address,
        "chassis": number + 1,
        "slot": cards::slot_number(wanted.keys, number),
    }));
    (port, "0.0".to_owned())
}

/// Returns QEMU's model of a card, and what the user should know of it: VMware's where QEMU has it;
/// `hako.ethernetN.virtualDev` overrules.
pub(super) fn driver(keys: &Dictionary, nic: &Nic) -> (&'static str, Option<String>) {
    let number = nic.number;
    let key = format!("hako.ethernet{number}.virtualDev");
    let wish = keys
        .value(&key)
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if wish == "virtio-net" {
        return ("virtio-net-pci", None);
    }
    let own = nic.model.as_deref().unwrap_or("flexible");
    let own_text: String = own.chars().take(40).collect();
    let (driver, warning) = match own {
        "e1000" => ("e1000-82545em", None),
        "e1000e" => ("e1000e", None),
        "vmxnet3" => ("vmxnet3", None),
        // Without VMware's tools, flexible is a vlance.
        "vlance" | "flexible" => ("pcnet", None),
        _ => (
            "e1000-82545em",
            Some(format!(
                "ethernet{number} is an e1000 here, for QEMU has no {own_text:?}"
            )),
        ),
    };
    match wish.is_empty() {
        true => (driver, warning),
        false => (driver, Some(format!("{key} is not virtio-net; left out"))),
    }
}

fn mac(wanted: &Wanted<'_>, nic: &Nic) -> Mac {
    cards::mac(wanted.machine, nic, wanted.seed)
}

/// Returns the ports of the host that lead to the guest, as QEMU wants them.
fn forwards(line: &mut CommandLine, wanted: &Wanted<'_>, number: u8) -> Vec<Value> {
    let forwards = cards::forwards(wanted.keys, number, &mut line.warnings);
    let text = |one: Forward| {
        let guest = one.guest.map(|guest| guest.to_string());
        format!(
            "{}:{}:{}-{}:{}",
            one.protocol,
            one.host,
            one.host_port,
            guest.unwrap_or_default(),
            one.guest_port
        )
    };
    forwards
        .into_iter()
        .map(|one| json!({"str": text(one)}))
        .collect()
}
