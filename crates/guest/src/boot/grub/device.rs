//! What GRUB calls volumes: `hd0,gpt2`, `lvm/VG-LV`, `lvmid/VG-UUID/LV-UUID`, `md/NAME`,
//! `mduuid/UUID`.

use super::super::files::Files;
use crate::volumes::{FoundVolume, Origin};

/// Returns the volume of a device, given without its brackets.
pub(super) fn volume<'v>(files: &Files<'v>, device: &str) -> Option<&'v FoundVolume> {
    let list = files.volumes.list();
    if let Some(name) = device.strip_prefix("lvm/") {
        return files
            .volumes
            .find(&format!("/dev/mapper/{name}"))
            .first()
            .copied();
    }
    if let Some(name) = device.strip_prefix("md/") {
        let by_name = files.volumes.find(&format!("/dev/md/{name}"));
        let by_number = files.volumes.find(&format!("/dev/md{name}"));
        return by_name.into_iter().chain(by_number).next();
    }
    if let Some((_, uuid)) = device
        .strip_prefix("lvmid/")
        .and_then(|ids| ids.split_once('/'))
    {
        let is_it = |found: &&FoundVolume| match &found.origin {
            Origin::Logical { uuid: own, .. } => own == uuid,
            _ => false,
        };
        return list.iter().find(is_it);
    }
    if let Some(uuid) = device.strip_prefix("mduuid/") {
        let digits = |text: &str| text.replace([':', '-'], "").to_ascii_lowercase();
        let is_it = |found: &&FoundVolume| match &found.origin {
            Origin::Array { uuid: own, .. } => digits(own) == digits(uuid),
            _ => false,
        };
        return list.iter().find(is_it);
    }
    if let Some(rest) = device.strip_prefix("hd") {
        let (disk, partition) = rest.split_once(',').unwrap_or((rest, ""));
        let disk: usize = disk.parse().ok()?;
        // `gpt2`, `msdos2` and, of old, `2`; `2,bsd1` is a slice of a BSD.
        let digits = partition.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let number = digits.split(',').next().unwrap_or_default();
        let number: Option<u32> = match number {
            "" => None,
            number => Some(number.parse().ok()?),
        };
        return list.iter().find(|found| match number {
            None => found.origin == Origin::Disk(disk),
            Some(number) => files.disk_and_number(found) == Some((disk, number)),
        });
    }
    list.iter().find(|found| found.name == device)
}

/// Returns what GRUB calls a volume; its short name where GRUB's needs more than is known here.
pub(super) fn name(files: &Files<'_>, volume: &FoundVolume) -> String {
    let table = match &volume.origin {
        Origin::Partition { table, .. } => match table.name() {
            "dos" => "msdos",
            other => other,
        },
        _ => "",
    };
    match (files.disk_and_number(volume), &volume.origin) {
        (Some((disk, number)), _) => format!("hd{disk},{table}{number}"),
        (None, Origin::Disk(disk)) => format!("hd{disk}"),
        _ => volume.name.clone(),
    }
}
