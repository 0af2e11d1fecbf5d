//! What stands in the way of a move, or should be known, and what to do about it.

mod rules;

use hako_guest::fs::ntfs;

use rules::*;

use super::model::{
    AddressMethod, Disk, Finding, FirmwareKind, Inventory, Mount, ServiceKind, Volume, VolumeKind,
};

/// Adds what follows from the rest of the inventory, the worst first.
pub(super) fn add(inventory: &mut Inventory) {
    let mut all = std::mem::take(&mut inventory.findings);
    for disk in &inventory.disks {
        all.extend(of_disk(inventory, disk));
    }
    for volume in &inventory.volumes {
        all.extend(of_volume(volume));
    }
    all.extend(of_contents(inventory));
    all.extend(of_start(inventory));
    for mount in &inventory.mounts {
        all.extend(of_mount(mount));
    }
    for swap in inventory
        .swaps
        .iter()
        .filter(|swap| is_kernel_name(&swap.fstab))
    {
        all.push(KERNEL_NAMES.found(&swap.volume, format!("fstab swaps to {}", swap.fstab)));
    }
    all.extend(of_services(inventory));
    for nic in inventory
        .nics
        .iter()
        .filter(|nic| nic.method == AddressMethod::Dhcp)
    {
        all.push(DHCP.found(&nic.name, "its address comes from DHCP"));
    }
    all.sort_by_key(|finding| finding.level);
    inventory.findings = all;
}

fn of_disk(inventory: &Inventory, disk: &Disk) -> Vec<Finding> {
    let mut found = Vec::new();
    if disk.sector_bytes == 4096 {
        found.push(SECTORS.found(&disk.name, "its sectors have 4096 bytes"));
    }
    if matches!(disk.bus.as_str(), "iscsi" | "fc") {
        let holds = |path: &str| {
            let mut mounts = inventory.mounts.iter();
            mounts.any(|mount| {
                mount.path == path
                    && inventory
                        .disks_of(&mount.volume)
                        .contains(&disk.name.as_str())
            })
        };
        let what = format!("it is on another machine ({})", disk.bus);
        let is_iscsi_root = disk.bus == "iscsi" && (holds("/") || holds("/boot"));
        let rule = if is_iscsi_root { SAN_ROOT } else { SAN };
        found.push(rule.found(&disk.name, what));
    }
    found
}

fn of_volume(volume: &Volume) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = volume.name.as_str();
    if let Some(encryption) = &volume.encryption {
        found.extend(of_encryption(name, encryption));
    }
    match volume.kind {
        VolumeKind::Multipath => {
            found.push(MULTIPATH.found(name, format!("{} paths lead to one disk", volume.on.len())))
        }
        VolumeKind::Bcache => found.push(STACKED.found(name, "it is cached by bcache")),
        _ => {}
    }
    if let Some(logical) = &volume.logical
        && logical.layout.starts_with("cache")
    {
        found.push(CACHED.found(name, "it is cached by another device"));
    }
    if let Some(array) = &volume.array {
        if array.n_missing > 0 {
            let what = format!(
                "{} of its {} members are missing",
                array.n_missing, array.n_members
            );
            found.push(DEGRADED.found(name, what));
        }
        if !matches!(array.level.as_str(), "raid0" | "raid1" | "linear") {
            found.push(UNREAD_ARRAY.found(name, format!("hako does not read {}", array.level)));
        }
    }
    for remark in &volume.remarks {
        let rule = if remark == ntfs::HIBERNATED {
            HIBERNATED
        } else {
            REMARK
        };
        found.push(rule.found(name, remark.clone()));
    }
    found
}

fn of_encryption(name: &str, encryption: &super::model::Encryption) -> Vec<Finding> {
    if encryption.kind == "BitLocker" {
        return vec![BITLOCKER.found(name, "it is encrypted with BitLocker")];
    }
    let kind = &encryption.kind;
    let mut found = vec![LUKS.found(name, format!("it is encrypted ({kind})"))];
    for token in &encryption.tokens {
        match token.as_str() {
            "tpm2" => found.push(TPM.found(name, "a TPM opens it")),
            "recovery" => {}
            other => found.push(NETWORK_KEY.found(name, format!("{other} opens it"))),
        }
    }
    found
}

/// What is in disks and volumes.
fn of_contents(inventory: &Inventory) -> Vec<Finding> {
    let of_disks = inventory
        .disks
        .iter()
        .map(|disk| (disk.name.as_str(), &disk.content));
    let of_volumes = inventory
        .volumes
        .iter()
        .map(|volume| (volume.name.as_str(), &volume.content));
    let found = of_disks.chain(of_volumes).filter_map(|(name, content)| {
        let kind = content.kind.as_str();
        Some(match kind {
            "swsuspend" => HIBERNATED.found(name, "a system is suspended to it"),
            "zfs_member" => ZFS.found(name, "it is a part of a ZFS pool"),
            "bcache" | "stratis" | "vdo" | "VMFS_volume_member" | "ceph_bluestore" => {
                STACKED.found(name, format!("it is a part of {kind}"))
            }
            _ => return None,
        })
    });
    found.collect()
}

fn of_start(inventory: &Inventory) -> Vec<Finding> {
    let mut found = Vec::new();
    let firmware = &inventory.firmware;
    if firmware.kind == FirmwareKind::Uefi && firmware.has_fallback == Some(false) {
        let what = "its loader is found by a boot entry in the firmware, which is not on the disks";
        found.push(NO_FALLBACK.found("", what));
    }
    if firmware.starts_both {
        let taken = match firmware.kind {
            FirmwareKind::Bios => "BIOS",
            _ => "UEFI",
        };
        let what = format!(
            "its disks start by UEFI and by BIOS ({}): {taken} is taken",
            firmware.why
        );
        found.push(TWO_FIRMWARES.found("", what));
    }
    if firmware.secure_boot == Some(true) {
        found.push(SECURE_BOOT.found("", "Secure Boot is on"));
    }
    if firmware.tpm == Some(true) {
        found.push(HAS_TPM.found("", "it has a TPM"));
    }
    if !inventory.machine.hypervisor.is_empty() {
        let what = format!("it is a virtual machine ({})", inventory.machine.hypervisor);
        found.push(VIRTUAL.found("", what));
    }
    if inventory.os.family == "windows" {
        let what =
            "it is Windows: hako copies it and changes nothing in it, neither drivers nor registry";
        found.push(WINDOWS.found("", what));
    }
    if inventory.os.family.is_empty() {
        found.push(NO_SYSTEM.found("", "no system was found on the disks"));
    }
    let mut words = inventory.boot.command_line.split_ascii_whitespace();
    let root = words
        .rfind(|word| word.starts_with("root="))
        .unwrap_or_default();
    if is_kernel_name(root.trim_start_matches("root=")) {
        found.push(KERNEL_NAMES.found("", format!("the kernel's command line has {root}")));
    }
    found
}

fn of_mount(mount: &Mount) -> Option<Finding> {
    match () {
        () if mount.is_remote && mount.path == "/" => Some(ROOT_REMOTE.found(
            &mount.path,
            format!("it is {} of {}", mount.kind, mount.volume),
        )),
        () if mount.is_remote => Some(REMOTE.found(
            &mount.path,
            format!("it is {} of {}", mount.kind, mount.volume),
        )),
        () if is_kernel_name(&mount.fstab) => {
            Some(KERNEL_NAMES.found(&mount.path, format!("fstab mounts {}", mount.fstab)))
        }
        () => None,
    }
}

/// Whether a name of a device depends on the order in which disks are found.
fn is_kernel_name(name: &str) -> bool {
    const BEGINS: &[&str] = &[
        "sd",
        "hd",
        "vd",
        "xvd",
        "nvme",
        "cciss/",
        "mmcblk",
        "disk/by-path/",
        "disk/by-id/",
    ];
    let device = name.strip_prefix("/dev/");
    device.is_some_and(|device| BEGINS.iter().any(|begin| device.starts_with(begin)))
}

fn of_services(inventory: &Inventory) -> Vec<Finding> {
    let found = inventory.services.iter().filter_map(|service| {
        let name = service.name.as_str();
        let rule = match service.kind {
            ServiceKind::Database => DATABASE,
            ServiceKind::Heap => return None,
            ServiceKind::HardwareAgent => AGENT,
            ServiceKind::GuestAgent => GUEST_AGENT,
            ServiceKind::Virtualization => NESTED,
            ServiceKind::Cluster => CLUSTER,
            ServiceKind::Storage => EXPORTS,
        };
        let state = match service.is_running {
            Some(true) => "it runs",
            Some(false) => "it is started at boot, and does not run",
            None => "it is started at boot",
        };
        Some(rule.found(name, state))
    });
    found.collect()
}

/// What hardware there is that stays behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftBehind {
    /// A licence dongle on USB.
    Dongle,
    /// A graphics card that computes.
    Gpu,
    /// A card with virtual functions.
    Sriov,
    /// A watchdog.
    Watchdog,
    /// A management controller.
    Ipmi,
}

/// Says that a device stays behind.
pub(super) fn left_behind(kind: LeftBehind, about: &str, what: String) -> Finding {
    let rule = match kind {
        LeftBehind::Dongle => DONGLE,
        LeftBehind::Gpu => GPU,
        LeftBehind::Sriov => SRIOV,
        LeftBehind::Watchdog => WATCHDOG,
        LeftBehind::Ipmi => IPMI,
    };
    rule.found(about, what)
}

#[cfg(test)]
mod tests {
    use super::super::model::{Array, Content, Encryption, Firmware, Os, Swap};
    use super::*;

    #[test]
    fn what_stands_in_the_way_comes_first_with_what_to_do() {
        let encrypted = Volume {
            name: "sda3".into(),
            encryption: Some(Encryption {
                kind: "LUKS2".into(),
                tokens: vec!["tpm2".into(), "recovery".into()],
                is_open: true,
            }),
            ..Volume::default()
        };
        let array = Volume {
            name: "md0".into(),
            array: Some(Array {
                level: "raid5".into(),
                n_members: 3,
                n_missing: 1,
                ..Array::default()
            }),
            ..Volume::default()
        };
        let zfs = Volume {
            name: "sda4".into(),
            content: Content {
                kind: "zfs_member".into(),
                ..Content::default()
            },
            ..Volume::default()
        };
        let mut inventory = Inventory {
            os: Os {
                family: "linux".into(),
                ..Os::default()
            },
            disks: vec![Disk {
                name: "sda".into(),
                sector_bytes: 4096,
                ..Disk::default()
            }],
            volumes: vec![encrypted, array, zfs],
            firmware: Firmware {
                kind: FirmwareKind::Uefi,
                has_fallback: Some(false),
                ..Firmware::default()
            },
            mounts: vec![Mount {
                path: "/".into(),
                fstab: "/dev/sda2".into(),
                ..Mount::default()
            }],
            swaps: vec![Swap {
                volume: "sda5".into(),
                fstab: "UUID=x".into(),
                ..Swap::default()
            }],
            ..Inventory::default()
        };
        inventory.boot.command_line = "quiet root=/dev/disk/by-id/x root=UUID=y".into();
        add(&mut inventory);
        let codes: Vec<&str> = inventory
            .findings
            .iter()
            .map(|found| found.code.as_str())
            .collect();
        assert_eq!(
            codes,
            [
                "sectors-4096",
                "tpm-bound-luks",
                "zfs",
                "array-degraded",
                "no-efi-fallback",
                "kernel-names",
                "luks",
                "array-copied-whole"
            ]
        );
        assert!(
            inventory
                .findings
                .iter()
                .all(|found| !found.advice.is_empty())
        );
    }
}
