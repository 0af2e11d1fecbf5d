//! What a guest's kernel needs drivers for: the hardware as it is here, after all replacements.

use std::collections::BTreeSet;

use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Bus, Machine, Medium};
use hako_guest::drivers::Hardware;

use super::Chipset;
use super::board::chipset;
use super::drives::{Scsi, scsi_model};
use super::nics::driver;

/// Returns it, each once.
pub(in super::super) fn hardware(machine: &Machine, keys: &Dictionary) -> Vec<Hardware> {
    let mut all = BTreeSet::new();
    for drive in &machine.drives {
        let node = drive.node;
        let controllers: &[Hardware] = match node.bus {
            Bus::Nvme => &[Hardware::Nvme],
            Bus::Sata => &[Hardware::Ahci],
            Bus::Ide if chipset(machine) == Chipset::Q35 => &[Hardware::Ahci],
            Bus::Ide => &[Hardware::AtaPiix],
            Bus::Scsi => match scsi_model(machine, keys, node.controller, false).0 {
                Scsi::Pvscsi => &[Hardware::Pvscsi],
                Scsi::Sas => &[Hardware::Mptsas],
                Scsi::Virtio => &[Hardware::VirtioPci, Hardware::VirtioScsi],
                Scsi::Ahci => &[Hardware::Ahci],
                Scsi::Bare => &[Hardware::VirtioPci, Hardware::VirtioBlk],
            },
        };
        all.extend(controllers);
        let is_own_kind =
            controllers.contains(&Hardware::Nvme) || controllers.contains(&Hardware::VirtioBlk);
        match drive.medium {
            _ if is_own_kind => {}
            Medium::Disk(_) => all.extend([Hardware::SdMod]),
            _ => all.extend([Hardware::SrMod]),
        }
    }
    for nic in &machine.nics {
        match driver(keys, nic).0 {
            "virtio-net-pci" => all.extend([Hardware::VirtioPci, Hardware::VirtioNet]),
            "vmxnet3" => all.extend([Hardware::Vmxnet3]),
            "e1000-82545em" => all.extend([Hardware::E1000]),
            "e1000e" => all.extend([Hardware::E1000e]),
            _ => {}
        }
    }
    all.into_iter().collect()
}
