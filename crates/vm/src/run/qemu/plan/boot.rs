//! What a guest starts from: VMware's order, as numbers that QEMU's firmware goes by.

use std::collections::BTreeMap;

use hako_formats::machine::{BootDevice, Medium, Node};

use super::Wanted;

/// VMware's order where the VMX has none. What cannot be started from, like an empty disk, is
/// passed over: so an installer's CD starts while there is nothing else.
const USUAL: [BootDevice; 4] = [
    BootDevice::Floppy,
    BootDevice::Disk,
    BootDevice::Cdrom,
    BootDevice::Network,
];

/// Places in the order, from 0 on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub drives: BTreeMap<Node, u32>,
    pub nics: BTreeMap<u8, u32>,
    pub floppy: Option<u32>,
}

/// Returns the order of `bios.bootOrder`, `bios.hddOrder` and what they do not say.
pub(super) fn order(wanted: &Wanted<'_>) -> Order {
    let machine = wanted.machine;
    let mut kinds = machine.boot_order.clone();
    let rest = USUAL
        .into_iter()
        .filter(|kind| !machine.boot_order.contains(kind));
    kinds.extend(rest);
    let mut order = Order::default();
    let mut next = 0;
    let mut place = || {
        next += 1;
        next - 1
    };
    for kind in kinds {
        match kind {
            BootDevice::Disk => {
                for node in disks(wanted) {
                    order.drives.insert(node, place());
                }
            }
            BootDevice::Cdrom => {
                for node in cds(wanted) {
                    order.drives.insert(node, place());
                }
            }
            BootDevice::Network => {
                for nic in &machine.nics {
                    order.nics.insert(nic.number, place());
                }
            }
            BootDevice::Floppy => order.floppy = Some(place()),
        }
    }
    order
}

/// The disks: first those that `bios.hddOrder` names.
fn disks(wanted: &Wanted<'_>) -> Vec<Node> {
    let all = wanted.machine.disks().map(|(node, _)| node);
    let all: Vec<Node> = all.filter(|node| wanted.media.contains_key(node)).collect();
    let named = wanted.keys.value("bios.hddOrder").unwrap_or_default();
    let mut nodes: Vec<Node> = Vec::new();
    let named = named.split(',').filter_map(|word| word.trim().parse().ok());
    for node in named.chain(all.iter().copied()) {
        if all.contains(&node) && !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    nodes
}

fn cds(wanted: &Wanted<'_>) -> Vec<Node> {
    let drives = wanted.machine.drives.iter();
    let cds = drives.filter(|drive| {
        matches!(
            drive.medium,
            Medium::CdImage { .. } | Medium::CdDevice { .. } | Medium::CdEmpty
        )
    });
    cds.map(|drive| drive.node).collect()
}
