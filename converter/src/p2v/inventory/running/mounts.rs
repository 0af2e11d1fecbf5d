//! What is mounted and swapped to, see proc_pid_mountinfo(5) and `/proc/swaps` in proc(5).

use std::collections::BTreeMap;
use std::path::Path;

use hako_guest::Tree;
use hako_guest::root::fstab;

use super::super::model::{Inventory, Mount, Swap};
use super::super::system;

/// Mounts that are listed.
const MOST_MOUNTS: usize = 4096;

/// Adds what is mounted and swapped to. `numbers` has the names of disks and volumes by the numbers of
/// their devices (`8:1`).
pub(super) fn add(
    inventory: &mut Inventory,
    tree: &Tree,
    numbers: &BTreeMap<String, String>,
    root: &Path,
) {
    let lines = system::fstab(tree);
    let info = system::text(tree, "/proc/self/mountinfo");
    let paths = Paths {
        tree,
        numbers,
        tags: tags(inventory),
    };
    let mut mounts: Vec<Mount> = Vec::new();
    for line in info.lines().take(MOST_MOUNTS) {
        let Some(mut mount) = mounted(line, &paths) else {
            continue;
        };
        // What is mounted over another one is what is seen.
        mounts.retain(|known| known.path != mount.path);
        let of_fstab = lines.iter().find(|line| line.target == mount.path);
        mount.fstab = of_fstab.map_or_else(String::new, |line| line.source.clone());
        if root == Path::new("/") && !mount.is_remote {
            (mount.total_bytes, mount.used_bytes) = fill(&mount.path);
        }
        mounts.push(mount);
    }
    // The root first, and where one volume is mounted in several places, the shortest path.
    mounts.sort_by_key(|mount| (mount.path != "/", mount.path.len()));
    let mut seen = Vec::new();
    mounts.retain(|mount| {
        let what = (mount.volume.clone(), mount.subvolume.clone());
        let is_new = mount.is_remote || !seen.contains(&what) || !mount.fstab.is_empty();
        seen.push(what);
        is_new
    });
    mounts.sort_by(|a, b| (a.path != "/", &a.path).cmp(&(b.path != "/", &b.path)));
    inventory.mounts = mounts;
    inventory.swaps = swaps(tree, &paths);
}

/// The way from names of devices to disks and volumes.
struct Paths<'a> {
    tree: &'a Tree,
    numbers: &'a BTreeMap<String, String>,
    /// `UUID=…` and the like, with the volume of each.
    tags: BTreeMap<String, String>,
}

fn tags(inventory: &Inventory) -> BTreeMap<String, String> {
    let of_disks = inventory
        .disks
        .iter()
        .map(|disk| (&disk.name, &disk.content, None));
    let of_volumes = inventory.volumes.iter();
    let of_volumes =
        of_volumes.map(|volume| (&volume.name, &volume.content, volume.partition.as_ref()));
    let mut tags = BTreeMap::new();
    for (name, content, partition) in of_disks.chain(of_volumes) {
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                tags.entry(format!("{key}={value}"))
                    .or_insert_with(|| name.clone());
            }
        };
        add("UUID", &content.uuid);
        add("LABEL", &content.label);
        if let Some(partition) = partition {
            add("PARTUUID", &partition.uuid);
            add("PARTLABEL", &partition.label);
        }
    }
    tags
}

impl Paths<'_> {
    /// Returns the disk or volume of a device's path, by the number that sysfs has for its name.
    fn volume(&self, path: &str) -> Option<String> {
        if let Some(found) = self.tags.get(path) {
            return Some(found.clone());
        }
        let name = path.strip_prefix("/dev/")?;
        let known = |name: &str| {
            let mut values = self.numbers.values();
            values.find(|known| known.as_str() == name).cloned()
        };
        if let Some(found) = known(name.strip_prefix("mapper/").unwrap_or(name)) {
            return Some(found);
        }
        // A mapper's name: dashes that are doubled are the names' own.
        if let Some(mapped) = name.strip_prefix("mapper/") {
            return known(&super::paths::logical_name(mapped));
        }
        // What is left is the kernel's own name, or a link to it.
        let link = system::link(self.tree, path);
        let device = if link.is_empty() { name } else { &link };
        let numbers = ["class/block", "block"]
            .map(|folder| system::word(self.tree, &format!("/sys/{folder}/{device}/dev")));
        let mut found = numbers.iter().filter_map(|number| self.numbers.get(number));
        found.next().cloned()
    }
}

/// Reads a line: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn mounted(line: &str, paths: &Paths<'_>) -> Option<Mount> {
    let (before, behind) = line.split_once(" - ")?;
    let mut words = before.split(' ').skip(2);
    let (number, top, path, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mut words = behind.split(' ');
    let (kind, source, more) = (
        words.next()?,
        words.next()?,
        words.next().unwrap_or_default(),
    );
    let source = fstab::unescaped(source);
    let is_remote = system::is_remote(kind);
    // btrfs has numbers of its own; the root may be called by a name that nothing has.
    let volume = paths
        .numbers
        .get(number)
        .cloned()
        .or_else(|| paths.volume(&source));
    let volume = match (volume, is_remote) {
        (Some(volume), _) => volume,
        (None, true) => source,
        (None, false) => return None,
    };
    // What is bound to another place of a volume is no mount of its own.
    let top = fstab::unescaped(top);
    let subvolume = match (top.as_str(), kind) {
        ("/", _) => String::new(),
        (_, "btrfs") => top.trim_start_matches('/').to_owned(),
        _ if is_remote => String::new(),
        _ => top,
    };
    let mut all: Vec<&str> = options.split(',').collect();
    all.extend(
        more.split(',').filter(|option| {
            !option.is_empty() && !options.split(',').any(|known| known == *option)
        }),
    );
    Some(Mount {
        path: fstab::unescaped(path),
        volume,
        kind: kind.to_owned(),
        subvolume,
        options: all.join(","),
        is_remote,
        ..Mount::default()
    })
}

/// Returns how large a file system is, and what of it is in use.
fn fill(path: &str) -> (Option<u64>, Option<u64>) {
    let Ok(known) = rustix::fs::statvfs(path) else {
        return (None, None);
    };
    let bytes = |blocks: u64| blocks.checked_mul(known.f_frsize);
    let used = known.f_blocks.saturating_sub(known.f_bfree);
    (bytes(known.f_blocks), bytes(used))
}

fn swaps(tree: &Tree, paths: &Paths<'_>) -> Vec<Swap> {
    let named = system::swaps_of_fstab(tree);
    let text = system::text(tree, "/proc/swaps");
    let swaps = text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (path, kind, kib, used) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let path = fstab::unescaped(path);
        let bytes = |kib: &str| kib.parse::<u64>().ok()?.checked_mul(1024);
        let is_file = kind == "file";
        let volume = paths
            .volume(&path)
            .filter(|_| !is_file)
            .unwrap_or_else(|| path.clone());
        if !is_file && volume.starts_with("/dev/zram") {
            return None;
        }
        let of_fstab = named.iter().find(|source| {
            **source == path || paths.volume(source).is_some_and(|found| found == volume)
        });
        Some(Swap {
            volume,
            is_file,
            bytes: bytes(kib)?,
            used_bytes: bytes(used),
            fstab: of_fstab.cloned().unwrap_or_default(),
        })
    });
    swaps.collect()
}
