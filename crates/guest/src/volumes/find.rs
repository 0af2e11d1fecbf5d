//! Volumes by what people, fstab and kernel command lines call them.

use super::{FoundVolume, Origin, Volumes};

impl Volumes {
    /// Returns the volumes that a text means: the short name; the number of a partition of the first
    /// disk; `UUID=`, `LABEL=`, `PARTUUID=`, `PARTLABEL=` as in fstab; a name below `/dev` as a
    /// Linux guest has it. `/dev/sdb1` is taken for the first partition of the second disk, as `vdb1`
    /// or `nvme1n1p1` would be: only the guest itself knows better. Several have a copied UUID.
    pub fn find(&self, wanted: &str) -> Vec<&FoundVolume> {
        let by = |is: &dyn Fn(&FoundVolume) -> bool| -> Vec<&FoundVolume> {
            self.list().iter().filter(|found| is(found)).collect()
        };
        if let Some((key, value)) = wanted.split_once('=') {
            let value = value.trim_matches('"');
            return by(&|found| found.is_tagged(key, value));
        }
        if let Some(device) = wanted.strip_prefix("/dev/") {
            if let Some(tag) = device.strip_prefix("disk/by-") {
                let (key, value) = tag.split_once('/').unwrap_or((tag, ""));
                return by(&|found| found.is_tagged(&key.to_uppercase(), &unescaped(value)));
            }
            return by(&|found| self.is_device(found, device));
        }
        let exact = by(&|found| found.name == wanted);
        match wanted.bytes().all(|byte| byte.is_ascii_digit()) {
            true if exact.is_empty() => by(&|found| found.name == format!("p{wanted}")),
            _ => exact,
        }
    }

    /// Returns whether a Linux guest calls the volume so, below `/dev`.
    fn is_device(&self, found: &FoundVolume, device: &str) -> bool {
        match &found.origin {
            Origin::Disk(index) => disk_of(device) == Some((*index, None)),
            Origin::Array { .. } => found.name == device,
            Origin::Opened { of, .. } => {
                let uuid = self.list().get(*of).map_or("", |below| &below.content.uuid);
                device.strip_prefix("mapper/luks-") == Some(uuid)
            }
            Origin::Logical { group, name, .. } => {
                let mapped = device.strip_prefix("mapper/");
                found.name == device || mapped == Some(&mapper_name(group, name))
            }
            Origin::Partition { of, partition, .. } => {
                let number = partition.number;
                match self
                    .list()
                    .get(*of)
                    .map(|whole| (&whole.origin, &whole.name))
                {
                    Some((Origin::Disk(index), _)) => {
                        disk_of(device) == Some((*index, Some(number)))
                    }
                    Some((_, name)) => device == format!("{name}p{number}"),
                    None => false,
                }
            }
        }
    }
}

/// The name that device-mapper gives a logical volume: dashes of the names doubled.
fn mapper_name(group: &str, name: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), name.replace('-', "--"))
}

impl FoundVolume {
    /// Returns whether a tag of blkid (`UUID`, `LABEL`, `PARTUUID`, `PARTLABEL`) has that value.
    fn is_tagged(&self, key: &str, value: &str) -> bool {
        let partition = self.partition();
        if value.is_empty() {
            return false;
        }
        match key {
            "UUID" => self.content.uuid.eq_ignore_ascii_case(value),
            "LABEL" => self.content.label == value,
            "PARTUUID" => partition.is_some_and(|part| part.uuid.eq_ignore_ascii_case(value)),
            "PARTLABEL" => partition.is_some_and(|part| part.label == value),
            _ => false,
        }
    }
}

/// Reads `sda`, `vdb3`, `sdaa1` (the 27th disk), `nvme0n1p2`, `mmcblk0p1`: which disk, from 0, and which
/// partition.
fn disk_of(device: &str) -> Option<(usize, Option<u32>)> {
    let number = |text: &str| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    for prefix in ["sd", "vd", "xvd", "hd"] {
        let Some(rest) = device.strip_prefix(prefix) else {
            continue;
        };
        let part = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let letters = rest
            .strip_suffix(part)
            .filter(|letters| !letters.is_empty())?;
        // Counted like columns of a sheet: z is followed by aa.
        let disk = letters.bytes().try_fold(0usize, |n, letter| {
            n.checked_mul(26)?
                .checked_add(usize::from(letter - b'a') + 1)
        });
        return Some((disk? - 1, number(part)?));
    }
    for (prefix, middle) in [("nvme", "n1"), ("mmcblk", "")] {
        let Some(rest) = device.strip_prefix(prefix) else {
            continue;
        };
        let (disk, part) = rest.split_once('p').unwrap_or((rest, ""));
        let disk = disk.strip_suffix(middle)?.parse().ok()?;
        return Some((disk, number(part)?));
    }
    None
}

/// A name as udev writes it in `/dev/disk/by-label`: `\x20` is a blank.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|hex| hex.first_chunk());
        let code = code.and_then(|hex: &[u8; 2]| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
