//! Disks, and what lies on them, by `/sys/block`; what is in them by their first blocks, or by what
//! udev wrote down where they may not be read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hako_block::{Access, Result};
use hako_formats::{OpenOptions, open_chain};
use hako_guest::{Disk as GuestDisk, Origin, Role, Tree, Volume as Bytes, Volumes};

use super::super::model::{Array, Content, Disk, Partition, Volume, VolumeKind};
use super::super::system::{names, number, text, word};
use super::super::{encryption, images};
use super::paths::{bus, logical, logical_name};
use crate::p2v::sample::is_disk;

/// `/sys` counts in these, whatever the disk's sectors are.
const SECTOR_BYTES: u64 = 512;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) disks: Vec<Disk>,
    pub(super) volumes: Vec<Volume>,
    /// Names of disks and volumes by the numbers of their devices.
    pub(super) numbers: BTreeMap<String, String>,
    pub(super) remarks: Vec<String>,
    /// Names of disks and volumes by the kernel's names, and what each of the latter lies on.
    names: BTreeMap<String, String>,
    below: Vec<(usize, Vec<String>)>,
}

/// Finds all disks and volumes.
pub(super) fn find(tree: &Tree, root: &Path) -> Found {
    let mut found = Found::default();
    for device in names(tree, "/sys/block") {
        let place = format!("/sys/block/{device}");
        if !is_disk(&device) && !is_map(&device) {
            continue;
        }
        let looked = Looked::at(&device, tree, root);
        if let Some(error) = &looked.error {
            let what = format!("{device} cannot be read ({error}): only udev says what is in it");
            found.remarks.push(what);
        }
        if is_disk(&device) {
            found.add_disk(tree, &place, &device, &looked);
        } else {
            found.add_map(tree, &place, &device, &looked);
        }
        for part in names(tree, &place) {
            if number::<u32>(tree, &format!("{place}/{part}/partition")).is_some() {
                found.add_partition(tree, &place, (&device, &part), &looked);
            }
        }
    }
    found.connect();
    found
}

/// Whether a device is made of others.
fn is_map(device: &str) -> bool {
    let begins = ["dm-", "md", "bcache"];
    begins.iter().any(|begin| device.starts_with(begin))
}

/// A device that was looked into.
struct Looked {
    volumes: Option<Volumes>,
    error: Option<String>,
}

impl Looked {
    fn at(device: &str, tree: &Tree, root: &Path) -> Self {
        let has_medium =
            number::<u64>(tree, &format!("/sys/block/{device}/size")).is_some_and(|size| size > 0);
        let sector_bytes = number(
            tree,
            &format!("/sys/block/{device}/queue/logical_block_size"),
        );
        let volumes = has_medium.then(|| open(root, device, sector_bytes.unwrap_or(512)));
        match volumes.transpose() {
            Ok(volumes) => Self {
                volumes,
                error: None,
            },
            Err(error) => Self {
                volumes: None,
                error: Some(error.to_string()),
            },
        }
    }

    /// What is on the device itself.
    fn whole(&self) -> Option<&hako_guest::FoundVolume> {
        self.volumes.as_ref()?.list().first()
    }

    /// The partition with a number.
    fn partition(&self, number: u32) -> Option<&hako_guest::FoundVolume> {
        let mut all = self.volumes.as_ref()?.list().iter();
        all.find(|found| match &found.origin {
            Origin::Partition {
                of: 0, partition, ..
            } => partition.number == number,
            _ => false,
        })
    }
}

fn open(root: &Path, device: &str, sector_bytes: u32) -> Result<Volumes> {
    let mut options = OpenOptions {
        access: Access::ReadOnly,
        from: Some("raw".to_owned()),
        ..OpenOptions::default()
    };
    // It is in use: nobody is to be kept away by a look at it.
    options.rules.no_lock = true;
    // The kernel has `!` for `/`.
    let path = root.join("dev").join(device.replace('!', "/"));
    let opened = open_chain(&path, &options)?;
    let disk: Arc<dyn Bytes> = Arc::new(GuestDisk::new(Arc::new(opened.chain), sector_bytes));
    Volumes::of(vec![disk])
}

/// Returns what udev says is in a device.
fn of_udev(tree: &Tree, place: &str) -> (Content, BTreeMap<String, String>) {
    let device = word(tree, &format!("{place}/dev"));
    let database = text(tree, &format!("/run/udev/data/b{device}"));
    let pairs = database
        .lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='));
    let values: BTreeMap<String, String> = pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let value = |key: &str| values.get(key).cloned().unwrap_or_default();
    let content = Content {
        kind: value("ID_FS_TYPE"),
        label: value("ID_FS_LABEL"),
        uuid: value("ID_FS_UUID"),
    };
    (content, values)
}

/// Returns what is in a device: what its blocks say, else what udev says.
fn content(seen: Option<&hako_guest::FoundVolume>, tree: &Tree, place: &str) -> Content {
    match seen {
        Some(seen) if seen.content.role == Role::Partitions => Content::default(),
        Some(seen) => images::content(seen),
        None => of_udev(tree, place).0,
    }
}

impl Found {
    fn name(&mut self, tree: &Tree, place: &str, device: &str, name: &str) {
        self.names.insert(device.to_owned(), name.to_owned());
        let number = word(tree, &format!("{place}/dev"));
        if !number.is_empty() {
            self.numbers.insert(number, name.to_owned());
        }
    }

    fn add_disk(&mut self, tree: &Tree, place: &str, device: &str, looked: &Looked) {
        let of = |name: &str| word(tree, &format!("{place}/{name}"));
        let (udev_content, udev) = of_udev(tree, place);
        let of_udev = |key: &str| udev.get(key).cloned().unwrap_or_default();
        let is =
            |name: &str| number::<u32>(tree, &format!("{place}/{name}")).map(|value| value == 1);
        let whole = looked.whole();
        let has_table = whole.map_or_else(
            || !of_udev("ID_PART_TABLE_TYPE").is_empty(),
            |whole| whole.content.role == Role::Partitions,
        );
        let table = |kind: Option<&str>, key: &str| match (has_table, kind) {
            (false, _) => String::new(),
            (true, Some(kind)) => kind.to_owned(),
            (true, None) => of_udev(key),
        };
        let first = |values: [String; 2]| {
            values
                .into_iter()
                .find(|value| !value.is_empty())
                .unwrap_or_default()
        };
        let sector_bytes =
            number(tree, &format!("{place}/queue/logical_block_size")).unwrap_or(512);
        let (bus, driver) = bus(tree, place, device);
        let parts = names(tree, place);
        let ends = parts.iter().filter_map(|part| {
            let value = |name: &str| number::<u64>(tree, &format!("{place}/{part}/{name}"));
            value("partition")?;
            value("start")?
                .checked_add(value("size")?)?
                .checked_mul(SECTOR_BYTES)
        });
        self.disks.push(Disk {
            name: device.to_owned(),
            path: format!("/dev/{}", device.replace('!', "/")),
            bytes: number::<u64>(tree, &format!("{place}/size"))
                .unwrap_or(0)
                .saturating_mul(SECTOR_BYTES),
            sector_bytes,
            physical_sector_bytes: number(tree, &format!("{place}/queue/physical_block_size"))
                .unwrap_or(sector_bytes),
            // A number is that of the controller.
            vendor: Some(of("device/vendor"))
                .filter(|vendor| !vendor.starts_with("0x"))
                .unwrap_or_default(),
            model: of("device/model"),
            serial: first([of("device/serial"), of_udev("ID_SERIAL_SHORT")]),
            wwn: first([of("device/wwid"), of("wwid")]),
            bus,
            driver,
            is_rotational: is("queue/rotational"),
            is_removable: is("removable") == Some(true),
            is_read_only: is("ro") == Some(true),
            table: table(whole.map(|whole| whole.content.kind), "ID_PART_TABLE_TYPE"),
            table_uuid: table(
                whole.map(|whole| whole.content.uuid.as_str()),
                "ID_PART_TABLE_UUID",
            ),
            content: match (whole, has_table) {
                (_, true) => Content::default(),
                (Some(whole), false) => images::content(whole),
                (None, false) => udev_content,
            },
            last_partition_end: ends.max(),
            used_bytes: None,
        });
        self.name(tree, place, device, device);
    }

    fn add_partition(
        &mut self,
        tree: &Tree,
        place: &str,
        (of, device): (&str, &str),
        looked: &Looked,
    ) {
        let place = format!("{place}/{device}");
        let value = |name: &str| number::<u64>(tree, &format!("{place}/{name}"));
        let n = value("partition")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0);
        let start = value("start").unwrap_or(0).saturating_mul(SECTOR_BYTES);
        let seen = looked.partition(n);
        let (_, udev) = of_udev(tree, &place);
        let of_udev = |key: &str| udev.get(key).cloned().unwrap_or_default();
        let partition = match seen.and_then(hako_guest::FoundVolume::partition) {
            // What the kernel has is what counts: a table may have been changed since.
            Some(known) => Partition {
                start,
                ..images::of_table(known)
            },
            None => Partition {
                number: n,
                start,
                kind: of_udev("ID_PART_ENTRY_TYPE")
                    .trim_start_matches("0x")
                    .to_uppercase(),
                uuid: of_udev("ID_PART_ENTRY_UUID"),
                label: of_udev("ID_PART_ENTRY_NAME"),
                ..Partition::default()
            },
        };
        self.below.push((self.volumes.len(), vec![of.to_owned()]));
        self.volumes.push(Volume {
            name: device.to_owned(),
            path: format!("/dev/{}", device.replace('!', "/")),
            kind: VolumeKind::Partition,
            bytes: value("size").unwrap_or(0).saturating_mul(SECTOR_BYTES),
            content: content(seen, tree, &place),
            encryption: encrypted(seen),
            partition: Some(partition),
            ..Volume::default()
        });
        self.name(tree, &place, device, device);
    }

    fn add_map(&mut self, tree: &Tree, place: &str, device: &str, looked: &Looked) {
        let of = |name: &str| word(tree, &format!("{place}/{name}"));
        let bytes = number::<u64>(tree, &format!("{place}/size"))
            .unwrap_or(0)
            .saturating_mul(SECTOR_BYTES);
        if bytes == 0 {
            return;
        }
        let (mapped, uuid) = (of("dm/name"), of("dm/uuid"));
        let mut volume = Volume {
            name: match mapped.as_str() {
                "" => device.to_owned(),
                mapped => mapped.to_owned(),
            },
            path: match mapped.as_str() {
                "" => format!("/dev/{device}"),
                mapped => format!("/dev/mapper/{mapped}"),
            },
            kind: VolumeKind::Map,
            bytes,
            content: content(looked.whole(), tree, place),
            encryption: encrypted(looked.whole()),
            ..Volume::default()
        };
        if let Some(identity) = uuid.strip_prefix("LVM-") {
            volume.kind = VolumeKind::Logical;
            volume.name = logical_name(&mapped);
            volume.logical = Some(logical(&volume.name, identity));
        } else if uuid.starts_with("CRYPT-") {
            volume.kind = VolumeKind::Crypt;
        } else if uuid.starts_with("mpath-") {
            volume.kind = VolumeKind::Multipath;
        } else if device.starts_with("md") {
            volume.kind = VolumeKind::Array;
            volume.array = Some(array(tree, place));
        } else if device.starts_with("bcache") {
            volume.kind = VolumeKind::Bcache;
        }
        let name = volume.name.clone();
        self.below
            .push((self.volumes.len(), names(tree, &format!("{place}/slaves"))));
        self.volumes.push(volume);
        self.name(tree, place, device, &name);
    }

    /// Gives volumes the names of what they lie on, puts what is below before what is above, and says
    /// which encryption is open.
    fn connect(&mut self) {
        for (at, below) in std::mem::take(&mut self.below) {
            if let Some(volume) = self.volumes.get_mut(at) {
                volume.on = below
                    .iter()
                    .filter_map(|device| self.names.get(device).cloned())
                    .collect();
            }
        }
        let mut rest = std::mem::take(&mut self.volumes);
        while !rest.is_empty() {
            let waits = |volume: &Volume| {
                let mut others = rest.iter().filter(|other| other.name != volume.name);
                others.any(|other| volume.on.contains(&other.name))
            };
            let mut waits: Vec<bool> = rest.iter().map(waits).collect();
            // A circle would wait for ever.
            if waits.iter().all(|waits| *waits) {
                waits.fill(false);
            }
            let mut later = Vec::new();
            for (volume, waits) in rest.into_iter().zip(waits) {
                match waits {
                    true => later.push(volume),
                    false => self.volumes.push(volume),
                }
            }
            rest = later;
        }
        let open: Vec<String> = self
            .volumes
            .iter()
            .filter(|volume| volume.kind == VolumeKind::Crypt)
            .flat_map(|volume| volume.on.clone())
            .collect();
        for volume in &mut self.volumes {
            if let Some(encryption) = &mut volume.encryption {
                encryption.is_open = open.contains(&volume.name);
            }
        }
    }
}

fn encrypted(seen: Option<&hako_guest::FoundVolume>) -> Option<super::super::model::Encryption> {
    let seen = seen?;
    encryption::of(seen.content.kind, &**seen.volume.as_ref()?)
}

/// Returns what an array says of itself.
fn array(tree: &Tree, place: &str) -> Array {
    let of = |name: &str| word(tree, &format!("{place}/md/{name}"));
    let action = of("sync_action");
    Array {
        level: of("level"),
        uuid: of("uuid"),
        metadata: of("metadata_version"),
        n_members: number(tree, &format!("{place}/md/raid_disks")).unwrap_or(0),
        n_missing: number(tree, &format!("{place}/md/degraded")).unwrap_or(0),
        state: match action.as_str() {
            "" | "idle" => of("array_state"),
            _ => action,
        },
    }
}
