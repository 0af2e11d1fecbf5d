//! Which names of devices change with the hardware, and what to call them by instead.

use hako_guest::{FoundVolume, Volumes};

/// What a device that a text names is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Device {
    /// Named by what it is, or not a device of this machine: the name stays.
    Stays,
    /// Better called so.
    By(String),
    /// It is on none of the disks.
    Missing,
    /// Nobody can tell which it is.
    Unclear(String),
}

/// Says what to call a device by. `kind`: the file system that is said to be in it; empty or `auto`
/// if nothing is said.
pub(super) fn resolve(volumes: &Volumes, name: &str, kind: &str) -> Device {
    if !is_kernels(name) {
        return Device::Stays;
    }
    let found = match wanted(volumes, name) {
        Some(wanted) => volumes.find(&wanted),
        None => {
            let what = format!("{name} cannot be told from the disks alone");
            return Device::Unclear(what);
        }
    };
    let Some(volume) = found.first() else {
        return Device::Missing;
    };
    let there = volume.content.kind;
    let is_other = !matches!(kind, "" | "auto") && !same_kind(kind, there);
    if is_other {
        let what = match there {
            "" => format!(
                "{name} is said to hold {kind}, and {} does not",
                volume.name
            ),
            _ => format!(
                "{name} is said to hold {kind}, and {} holds {there}",
                volume.name
            ),
        };
        return Device::Unclear(what);
    }
    match identity(volumes, volume) {
        Some(identity) => Device::By(identity),
        None => Device::Unclear(format!("{name} has no UUID to be called by")),
    }
}

/// Returns what the kernel itself, without an initrd, can find a device by: its partition's UUID.
pub(super) fn by_partition(volumes: &Volumes, name: &str) -> Option<String> {
    let wanted = wanted(volumes, name)?;
    let found = volumes.find(&wanted);
    let uuid = &found.first()?.partition()?.uuid;
    (!uuid.is_empty()).then(|| format!("PARTUUID={uuid}"))
}

/// Returns whether a name is one that the kernel gives by where a disk hangs.
fn is_kernels(name: &str) -> bool {
    let Some(name) = name.strip_prefix("/dev/") else {
        return false;
    };
    if let Some(by) = name.strip_prefix("disk/by-id/") {
        // What is called by its own identity.
        return !["dm-", "lvm-", "md-"].iter().any(|own| by.starts_with(own));
    }
    if name.starts_with("disk/by-path/") || name.starts_with("cciss/") {
        return true;
    }
    let starts = |prefix: &str, next: fn(&u8) -> bool| {
        name.strip_prefix(prefix)
            .and_then(|rest| rest.as_bytes().first())
            .is_some_and(next)
    };
    let letters = ["sd", "hd", "vd", "xvd"];
    letters
        .iter()
        .any(|prefix| starts(prefix, u8::is_ascii_lowercase))
        || ["nvme", "mmcblk", "md", "dm-"]
            .iter()
            .any(|prefix| starts(prefix, u8::is_ascii_digit))
        || name.starts_with("md/")
}

/// Returns the name that the volume has here; none if it cannot be told.
fn wanted(volumes: &Volumes, name: &str) -> Option<String> {
    let device = name.strip_prefix("/dev/")?;
    if let Some(array) = device.strip_prefix("cciss/c") {
        // Disk 1 of controller 0: cciss/c0d1p2.
        let (_, disk) = array.split_once('d')?;
        let (disk, part) = disk.split_once('p').unwrap_or((disk, ""));
        let disk: usize = disk.parse().ok()?;
        let part = if part.is_empty() {
            String::new()
        } else {
            format!("p{part}")
        };
        return Some(format!("/dev/nvme{disk}n1{part}"));
    }
    if device.starts_with("disk/") {
        let n_disks = volumes
            .list()
            .iter()
            .filter(|found| found.partition().is_none());
        let is_disk = |found: &&FoundVolume| found.name.starts_with("disk");
        let is_only = n_disks.filter(is_disk).count() == 1;
        let (_, part) = device.rsplit_once("-part")?;
        return is_only.then(|| format!("/dev/sda{part}"));
    }
    if let Some(number) = device.strip_prefix("md/").filter(|rest| is_number(rest)) {
        return Some(format!("/dev/md{number}"));
    }
    if device.starts_with("dm-") {
        return None;
    }
    Some(name.to_owned())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn same_kind(said: &str, there: &str) -> bool {
    let family = |kind: &str| match kind {
        "ext2" | "ext3" | "ext4" => "ext",
        "msdos" | "vfat" | "fat" => "vfat",
        "ntfs" | "ntfs3" | "ntfs-3g" | "fuseblk" => "ntfs",
        _ => "",
    };
    said == there || (!family(said).is_empty() && family(said) == family(there))
}

/// Returns what only this volume is called by: its content's UUID, else its partition's.
fn identity(volumes: &Volumes, volume: &FoundVolume) -> Option<String> {
    let partition = volume
        .partition()
        .map(|part| part.uuid.as_str())
        .unwrap_or_default();
    let names = [
        ("UUID", volume.content.uuid.as_str()),
        ("PARTUUID", partition),
    ];
    names.into_iter().find_map(|(key, value)| {
        let name = format!("{key}={value}");
        (!value.is_empty() && volumes.find(&name).len() == 1).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_gives_by_place_are_told_from_those_that_stay() {
        for name in [
            "/dev/sda",
            "/dev/sdab12",
            "/dev/hda1",
            "/dev/vdb",
            "/dev/xvda1",
            "/dev/nvme0n1p2",
            "/dev/mmcblk0p1",
            "/dev/cciss/c0d0p1",
            "/dev/md0",
            "/dev/md/2",
            "/dev/dm-3",
            "/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part2",
            "/dev/disk/by-id/ata-INTEL-part1",
        ] {
            assert!(is_kernels(name), "{name}");
        }
        for name in [
            "/dev/mapper/vg0-root",
            "/dev/vg0/root",
            "/dev/disk/by-uuid/x",
            "UUID=x",
            "LABEL=x",
            "/dev/disk/by-id/dm-uuid-LVM-x",
            "/dev/disk/by-id/md-uuid-x",
            "/dev/sd",
            "tmpfs",
            "/dev/cdrom",
            "/dev/mdadm",
            "",
        ] {
            assert!(!is_kernels(name), "{name}");
        }
    }
}
