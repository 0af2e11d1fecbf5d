//! Which controllers and cards each target has, and which of them the guest has drivers for.

use hako_guest::drivers::{Hardware, Whereabouts};

use super::model::Target;
use crate::p2v::inventory::model::{FirmwareKind, Inventory, Kernel};

/// A controller of disks, by the name that a plan has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controller {
    /// Its name.
    pub name: &'static str,
    /// The bus in the names of its nodes: `scsi` of `scsi0:1`.
    pub bus: &'static str,
    /// Disks that one has room for. Of `scsi` number 7 is the controller itself.
    pub n_units: u8,
    /// What the guest needs drivers for.
    needs: &'static [Hardware],
}

const PVSCSI: Controller = scsi("pvscsi", &[Hardware::Pvscsi, Hardware::SdMod]);
const LSI_SAS: Controller = scsi("lsisas1068", &[Hardware::Mptsas, Hardware::SdMod]);
const LSI: Controller = scsi("lsilogic", &[Hardware::Mptspi, Hardware::SdMod]);
const VIRTIO_SCSI: Controller = scsi(
    "virtio-scsi",
    &[Hardware::VirtioPci, Hardware::VirtioScsi, Hardware::SdMod],
);
const VIRTIO_BLK: Controller = scsi("virtio-blk", &[Hardware::VirtioPci, Hardware::VirtioBlk]);
const SATA: Controller = Controller {
    name: "sata",
    bus: "sata",
    n_units: 30,
    needs: &[Hardware::Ahci, Hardware::SdMod],
};
const NVME: Controller = Controller {
    name: "nvme",
    bus: "nvme",
    n_units: 15,
    needs: &[Hardware::Nvme],
};
const IDE: Controller = Controller {
    name: "ide",
    bus: "ide",
    n_units: 2,
    needs: &[Hardware::AtaPiix, Hardware::SdMod],
};

const fn scsi(name: &'static str, needs: &'static [Hardware]) -> Controller {
    Controller {
        name,
        bus: "scsi",
        n_units: 16,
        needs,
    }
}

/// Returns the controllers that a target boots from, the best first.
pub fn controllers(target: Target, firmware: FirmwareKind) -> &'static [Controller] {
    match (target, firmware) {
        (Target::Vmware, FirmwareKind::Uefi) => &[PVSCSI, NVME, SATA, LSI_SAS, LSI],
        // VMware's BIOS boots from no NVMe.
        (Target::Vmware, _) => &[PVSCSI, SATA, LSI_SAS, LSI, IDE],
        (Target::Kvm, _) => &[VIRTIO_BLK],
        // QEMU's UEFI (OVMF) has drivers for none of VMware's and LSI's.
        (Target::Qemu, FirmwareKind::Uefi) => &[VIRTIO_SCSI, VIRTIO_BLK, NVME, SATA],
        (Target::Qemu, _) => &[VIRTIO_SCSI, VIRTIO_BLK, PVSCSI, NVME, SATA, LSI_SAS, IDE],
    }
}

/// A network card, by the name that a plan has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Its name.
    pub name: &'static str,
    needs: &'static [Hardware],
}

const VMXNET3: Card = Card {
    name: "vmxnet3",
    needs: &[Hardware::Vmxnet3],
};
const E1000E: Card = Card {
    name: "e1000e",
    needs: &[Hardware::E1000e],
};
const E1000: Card = Card {
    name: "e1000",
    needs: &[Hardware::E1000],
};
const VIRTIO_NET: Card = Card {
    name: "virtio-net",
    needs: &[Hardware::VirtioPci, Hardware::VirtioNet],
};

/// Returns the network cards that a target has, the best first.
pub fn cards(target: Target) -> &'static [Card] {
    match target {
        Target::Vmware => &[VMXNET3, E1000E, E1000],
        Target::Kvm => &[VIRTIO_NET],
        Target::Qemu => &[VIRTIO_NET, VMXNET3, E1000E, E1000],
    }
}

/// How far a guest gets with some hardware; the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Its kernel or initrd has the drivers.
    Boots,
    /// Its modules have them: the initrd has to be given them.
    Adapt,
    /// Nobody knows.
    Unknown,
    /// It has no driver.
    Never,
}

/// What is chosen, and how far the guest gets with it.
pub type Choice<T> = (T, Fit);

/// Returns what disks are to hang on.
pub fn choose_controller(inventory: &Inventory, target: Target) -> Option<Choice<Controller>> {
    let all = controllers(target, inventory.firmware.kind);
    let rated = all.iter().map(|one| (*one, fit(inventory, one.needs)));
    let best = rated.min_by_key(|(_, fit)| *fit)?;
    if best.1 != Fit::Unknown {
        return Some(best);
    }
    // Nobody has looked for drivers: what the disk hangs on now is there for sure.
    let now = inventory.disks.iter().map(|disk| disk.driver.as_str());
    let mut now = now.filter(|driver| !driver.is_empty());
    let same = now.find_map(|driver| {
        let drives = |one: &&Controller| one.needs.iter().any(|need| need.module() == driver);
        all.iter().find(drives)
    });
    // Next to that, nearly every system finds SATA.
    let sata = all.iter().find(|one| **one == SATA);
    match same {
        Some(same) => Some((*same, Fit::Boots)),
        None => Some((sata.copied().unwrap_or(best.0), Fit::Unknown)),
    }
}

/// Returns which card the guest is to have. That its driver is a module is enough, unless the root file
/// system comes over it.
pub fn choose_card(inventory: &Inventory, target: Target) -> Option<Choice<Card>> {
    let root = inventory.mounts.iter().find(|mount| mount.path == "/");
    let is_remote = root.is_some_and(|root| root.is_remote);
    let all = cards(target);
    let rated = all.iter().map(|one| match fit(inventory, one.needs) {
        Fit::Adapt if !is_remote => (*one, Fit::Boots),
        fit => (*one, fit),
    });
    let best = rated.min_by_key(|(_, fit)| *fit)?;
    // Where nobody has looked, what nearly every system has a driver for.
    let plain = all.iter().find(|one| **one == E1000E);
    match (best.1, plain) {
        (Fit::Unknown, Some(plain)) => Some((*plain, Fit::Unknown)),
        _ => Some(best),
    }
}

/// Returns how far the kernel that is booted by default gets.
fn fit(inventory: &Inventory, needs: &[Hardware]) -> Fit {
    let Some(kernel) = default_kernel(inventory) else {
        return Fit::Unknown;
    };
    let each = needs.iter().map(|need| {
        let mut places = kernel.drivers.iter();
        let place = places.find(|place| place.hardware == need.name());
        let is = |place: &str, at: Whereabouts| place == at.name();
        match place.map(|place| place.place.as_str()) {
            Some(at) if is(at, Whereabouts::Builtin) || is(at, Whereabouts::Initrd) => Fit::Boots,
            Some(at) if is(at, Whereabouts::Modules) => Fit::Adapt,
            Some(at) if is(at, Whereabouts::Nowhere) => Fit::Never,
            _ => Fit::Unknown,
        }
    });
    each.max().unwrap_or(Fit::Unknown)
}

fn default_kernel(inventory: &Inventory) -> Option<&Kernel> {
    let kernels = &inventory.boot.kernels;
    let default = kernels.iter().find(|kernel| kernel.is_default);
    default
        .or(kernels.first())
        .filter(|kernel| !kernel.drivers.is_empty())
}
