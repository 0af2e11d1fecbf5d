//! What names and paths of the kernel tell of a device.

use hako_guest::Tree;

use super::super::model::Logical;
use super::super::system::link;

/// Returns `GROUP/NAME` of the name that device-mapper gives a logical volume: a dash between them,
/// those of the names doubled.
pub(super) fn logical_name(mapped: &str) -> String {
    let mut name = String::with_capacity(mapped.len());
    let mut chars = mapped.chars().peekable();
    let mut is_split = false;
    while let Some(c) = chars.next() {
        match c {
            '-' if chars.peek() == Some(&'-') => {
                chars.next();
                name.push('-');
            }
            '-' if !is_split => {
                is_split = true;
                name.push('/');
            }
            c => name.push(c),
        }
    }
    name
}

/// Returns what is known of a logical volume by its name and the identities of its group and its own,
/// 32 characters each.
pub(super) fn logical(name: &str, identity: &str) -> Logical {
    let (group, own) = name.split_once('/').unwrap_or((name, ""));
    let uuid = identity.get(32..64).unwrap_or_default();
    // LVM writes it in groups.
    let cuts = [0, 6, 10, 14, 18, 22, 26, 32];
    let groups = cuts.windows(2).filter_map(|pair| match pair {
        [from, to] => uuid.get(*from..*to),
        _ => None,
    });
    let groups: Vec<&str> = groups.collect();
    Logical {
        group: group.to_owned(),
        name: own.to_owned(),
        uuid: groups.join("-"),
        layout: String::new(),
    }
}

/// Returns what a disk hangs on, and the driver of its controller.
pub(super) fn bus(tree: &Tree, place: &str, device: &str) -> (String, String) {
    let path = real_path(tree, &format!("{place}/device"));
    let has = |part: &str| path.iter().any(|name| name.starts_with(part));
    let bus = match () {
        () if device.starts_with("nvme") => "nvme",
        () if device.starts_with("vd") => "virtio",
        () if device.starts_with("mmcblk") => "mmc",
        () if device.starts_with("hd") => "ide",
        () if has("usb") => "usb",
        () if has("session") => "iscsi",
        () if has("rport-") => "fc",
        () if has("end_device-") => "sas",
        () if has("ata") => "sata",
        () if has("virtio") => "virtio",
        () if device.starts_with("sd") => "scsi",
        () => "",
    };
    // The nearest device of PCI or virtio that has a driver, from the disk up.
    let mut folder = path;
    while !folder.is_empty() {
        let name = folder.last().map(String::as_str).unwrap_or_default();
        let is_controller = name.contains(':') && name.contains('.') || name.starts_with("virtio");
        if is_controller {
            let driver = link(tree, &format!("/{}/driver", folder.join("/")));
            if !driver.is_empty() && driver != "sd" {
                return (bus.to_owned(), driver);
            }
        }
        folder.pop();
    }
    (bus.to_owned(), String::new())
}

/// Returns the names on the way to what a path leads to, its links followed.
pub(super) fn real_path(tree: &Tree, path: &str) -> Vec<String> {
    /// Links that may be met on the way.
    const MOST_LINKS: usize = 40;
    let mut way: Vec<String> = Vec::new();
    let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                way.pop();
                continue;
            }
            _ => {}
        }
        way.push(name);
        let here = format!("/{}", way.join("/"));
        let target = tree
            .find_no_follow(here.as_bytes())
            .and_then(|found| found.read_link());
        let Ok(target) = target else { continue };
        links += 1;
        if links > MOST_LINKS {
            return Vec::new();
        }
        way.pop();
        let target = String::from_utf8_lossy(&target).into_owned();
        if target.starts_with('/') {
            way.clear();
        }
        rest.extend(target.split('/').rev().map(str::to_owned));
    }
    way
}
