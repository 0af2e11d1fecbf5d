//! Names of disks that tell where a disk hangs, or who made it, and not what is on it.

/// A disk, or a partition of one, as the server called it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// Disks that are counted together: `sd`, `nvme`, `cciss/c0`; [`ID`] and [`MULTIPATH`] are not
    /// counted.
    pub family: &'a str,
    /// The disk: `sda`, `nvme0n1`, `c0d0`, `ata-INTEL_1234`, `mpatha`.
    pub disk: &'a str,
    /// The number of the partition; empty for the disk as a whole.
    pub part: &'a str,
}

/// What is below `/dev/disk/by-id` and `/dev/disk/by-path`.
pub(super) const ID: &str = "disk/by-id";
/// What multipathd makes of several ways to a disk.
pub(super) const MULTIPATH: &str = "multipath";

impl<'a> Place<'a> {
    /// Reads a name; none if it is not one by a place.
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let name = name.strip_prefix("/dev/")?;
        if let Some(id) = name.strip_prefix("disk/by-id/") {
            return by_id(id);
        }
        if let Some(path) = name.strip_prefix("disk/by-path/") {
            return Some(with_dash(ID, path));
        }
        if let Some(mapped) = name.strip_prefix("mapper/") {
            return multipath(mapped);
        }
        counted(name)
    }

    /// Returns whether the disks of its family have numbers, in an order.
    pub(super) fn is_counted(&self) -> bool {
        ![ID, MULTIPATH].contains(&self.family)
    }

    /// Returns what volumes are asked for, if the disks of its family are those that there are; none if
    /// its number does not tell.
    pub(super) fn wanted(&self) -> Option<String> {
        let Self { family, disk, part } = self;
        let dashed = match *part {
            "" => String::new(),
            part => format!("p{part}"),
        };
        match *family {
            ID | MULTIPATH => (!part.is_empty()).then(|| format!("/dev/sda{part}")),
            "nvme" => disk.ends_with("n1").then(|| format!("/dev/{disk}{dashed}")),
            "mmcblk" => Some(format!("/dev/{disk}{dashed}")),
            "sd" | "hd" | "vd" | "xvd" => Some(format!("/dev/{disk}{part}")),
            _ => {
                let number = disk.strip_prefix("c0d")?;
                Some(format!("/dev/nvme{number}n1{dashed}"))
            }
        }
    }
}

/// `sda1`, `nvme0n1p1`, `cciss/c0d0p1`.
fn counted(name: &str) -> Option<Place<'_>> {
    let lettered = ["xvd", "sd", "hd", "vd"];
    let lettered = lettered
        .into_iter()
        .find_map(|family| Some((family, name.strip_prefix(family)?)));
    if let Some((family, rest)) = lettered {
        let part = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let disk = name.strip_suffix(part)?;
        let is_one = part.len() < rest.len() && (part.is_empty() || is_number(part));
        return is_one.then_some(Place { family, disk, part });
    }
    let (family, device) = match name.strip_prefix("cciss/") {
        Some(device) => (name.split_once('d')?.0, device),
        None => (
            ["nvme", "mmcblk"]
                .into_iter()
                .find(|family| name.starts_with(family))?,
            name,
        ),
    };
    let has_number = device.bytes().any(|byte| byte.is_ascii_digit());
    let (disk, part) = device.split_once('p').unwrap_or((device, ""));
    has_number.then_some(Place { family, disk, part })
}

fn by_id(id: &str) -> Option<Place<'_>> {
    if let Some(name) = id.strip_prefix("dm-name-") {
        return multipath(name);
    }
    if let Some(uuid) = id.strip_prefix("dm-uuid-") {
        let (part, disk) = uuid.split_once("mpath-")?;
        let part = part.strip_prefix("part").unwrap_or_default();
        let part = part.trim_end_matches('-');
        let family = MULTIPATH;
        return Some(Place { family, disk, part });
    }
    // What is called by its own identity.
    let is_own = ["lvm-", "md-"].iter().any(|own| id.starts_with(own));
    (!is_own).then(|| with_dash(ID, id))
}

/// `DISK-part1`.
fn with_dash<'a>(family: &'a str, name: &'a str) -> Place<'a> {
    let (disk, part) = name.rsplit_once("-part").unwrap_or((name, ""));
    Place { family, disk, part }
}

/// `mpatha`, `mpatha1`, `mpathap1`, `mpatha-part1`, and the same of a WWID.
fn multipath(name: &str) -> Option<Place<'_>> {
    let place = with_dash(MULTIPATH, name);
    if is_multipath(place.disk) {
        return Some(place);
    }
    let head = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let part = name.strip_prefix(head)?;
    let disk = [head.strip_suffix('p').unwrap_or_default(), head];
    let disk = disk.into_iter().find(|disk| is_multipath(disk))?;
    let family = MULTIPATH;
    Some(Place { family, disk, part })
}

/// Names that multipathd gives by itself.
fn is_multipath(name: &str) -> bool {
    if let Some(alias) = name.strip_prefix("mpath") {
        let is_letters = alias.bytes().all(|byte| byte.is_ascii_lowercase());
        return is_number(alias) || (is_letters && !alias.is_empty());
    }
    let is_hex = name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex && name.starts_with('3') && [17, 33].contains(&name.len())
}

pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_given_by_place_are_told_from_those_that_stay() {
        for (name, expected) in [
            ("sda", ("sd", "sda", "")),
            ("sdab12", ("sd", "sdab", "12")),
            ("hda1", ("hd", "hda", "1")),
            ("vdb", ("vd", "vdb", "")),
            ("xvda1", ("xvd", "xvda", "1")),
            ("nvme0n1p2", ("nvme", "nvme0n1", "2")),
            ("mmcblk0p1", ("mmcblk", "mmcblk0", "1")),
            ("cciss/c1d0p2", ("cciss/c1", "c1d0", "2")),
            ("disk/by-path/pci-0-ata-1-part2", (ID, "pci-0-ata-1", "2")),
            ("disk/by-id/ata-INTEL-part1", (ID, "ata-INTEL", "1")),
            ("mapper/mpatha", (MULTIPATH, "mpatha", "")),
            ("mapper/mpatha2", (MULTIPATH, "mpatha", "2")),
            ("mapper/mpathap2", (MULTIPATH, "mpatha", "2")),
            ("mapper/mpath0p12", (MULTIPATH, "mpath0", "12")),
            ("mapper/mpatha-part2", (MULTIPATH, "mpatha", "2")),
            (
                "mapper/3600508b400105e21p1",
                (MULTIPATH, "3600508b400105e21", "1"),
            ),
            (
                "disk/by-id/dm-uuid-part1-mpath-3600508b4",
                (MULTIPATH, "3600508b4", "1"),
            ),
            (
                "disk/by-id/dm-name-mpatha-part1",
                (MULTIPATH, "mpatha", "1"),
            ),
        ] {
            let whole = format!("/dev/{name}");
            let place = Place::of(&whole).unwrap_or_else(|| panic!("{name}"));
            let Place { family, disk, part } = place;
            assert_eq!((family, disk, part), expected, "{name}");
        }
        for name in [
            "/dev/mapper/vg0-root",
            "/dev/mapper/mpath-data",
            "/dev/vg0/root",
            "/dev/disk/by-uuid/x",
            "UUID=x",
            "/dev/disk/by-id/dm-uuid-LVM-x",
            "/dev/disk/by-id/dm-name-vg0-root",
            "/dev/disk/by-id/md-uuid-x",
            "/dev/md0",
            "/dev/sd",
            "/dev/cdrom",
            "tmpfs",
            "",
        ] {
            assert_eq!(Place::of(name), None, "{name}");
        }
    }
}
