//! Disks that hold what another disk holds: members of RAID1, and paths to one disk.

use crate::p2v::inventory::model::{Disk, Inventory, Volume, VolumeKind};

/// Partitions that belong to no array and are no loss with the other disk's there: those that boot.
const BOOT_PARTITIONS: [&str; 2] = ["EFI System", "BIOS boot"];

/// Returns the name of the disk that `disk` is a mirror of, and the arrays that make it one; none if
/// anything on it is not on the other one.
pub fn mirror_of<'a>(inventory: &'a Inventory, disk: &'a Disk) -> Option<(&'a str, Vec<&'a str>)> {
    let before = inventory
        .disks
        .iter()
        .take_while(|other| other.name != disk.name);
    before.into_iter().find_map(|other| {
        let arrays = arrays_in_common(inventory, &disk.name, &other.name)?;
        Some((other.name.as_str(), arrays))
    })
}

/// Returns the arrays that are on both disks, if they are all that is on the first.
fn arrays_in_common<'a>(
    inventory: &'a Inventory,
    disk: &'a str,
    other: &str,
) -> Option<Vec<&'a str>> {
    let mut arrays = Vec::new();
    for volume in volumes_of(inventory, disk) {
        match array_of(inventory, &volume.name) {
            Some(array) if is_on(inventory, array, other) => arrays.push(array.name.as_str()),
            Some(_) => return None,
            None if is_dispensable(volume) => (),
            None => return None,
        }
    }
    if let Some(array) = array_of(inventory, disk) {
        match is_on(inventory, array, other) {
            true => arrays.push(array.name.as_str()),
            false => return None,
        }
    }
    (!arrays.is_empty()).then_some(arrays)
}

/// Returns the partitions of a disk.
fn volumes_of<'a>(inventory: &'a Inventory, disk: &'a str) -> impl Iterator<Item = &'a Volume> {
    let is_on = move |volume: &&Volume| {
        volume.kind == VolumeKind::Partition && volume.on.iter().any(|below| below == disk)
    };
    inventory.volumes.iter().filter(is_on)
}

/// Returns the mirror, whole and in sync, that a volume is a member of.
fn array_of<'a>(inventory: &'a Inventory, member: &str) -> Option<&'a Volume> {
    inventory.volumes.iter().find(|volume| {
        let is_mirror = volume.array.as_ref().is_some_and(|array| {
            let busy = ["resync", "recover", "reshape", "check", "repair"];
            array.level == "raid1" && array.n_missing == 0 && !busy.contains(&array.state.as_str())
        });
        is_mirror && volume.on.iter().any(|below| below == member)
    })
}

fn is_on(inventory: &Inventory, array: &Volume, disk: &str) -> bool {
    let mut members = array.on.iter();
    members.any(|member| inventory.disks_of(member) == [disk])
}

fn is_dispensable(volume: &Volume) -> bool {
    let Some(partition) = &volume.partition else {
        return false;
    };
    let is_extended = matches!(partition.kind.as_str(), "5" | "f" | "05" | "0f" | "85");
    is_extended || BOOT_PARTITIONS.contains(&partition.kind_name.as_str())
}

/// Returns the name of the disk that `disk` is another path to.
pub fn path_to<'a>(inventory: &'a Inventory, disk: &Disk) -> Option<&'a str> {
    let mut volumes = inventory.volumes.iter();
    let map = volumes
        .find(|volume| volume.kind == VolumeKind::Multipath && volume.on.contains(&disk.name))?;
    let mut disks = inventory.disks.iter();
    let first = disks.find(|other| map.on.contains(&other.name))?;
    (first.name != disk.name).then_some(first.name.as_str())
}
