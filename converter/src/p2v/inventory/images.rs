//! An inventory of a machine that is off, by its disks.

use std::collections::BTreeMap;

use hako_block::Result;
use hako_guest::boot::Menu;
use hako_guest::drivers::Hardware;
use hako_guest::root::{Root, installation_of, installations};
use hako_guest::{FoundVolume, Origin, Role, Tree, UsedMap, Volumes};

use super::model::{
    Array, Boot, Content, Disk, DriverPlace, Inventory, Kernel, Logical, Mount, Os, Partition,
    Source, Swap, Volume, VolumeKind,
};
use super::network::Known;
use super::{encryption, findings, firmware, network, services, system};

/// Takes the inventory of what is on some disks: `paths` are the images in the order of the volumes'
/// disks. `deep`: drivers of all kernels, not only the default one. What of a system cannot be read is
/// a remark. Errors: those of reading what `deep` asks for.
pub fn of_images(volumes: &Volumes, paths: &[String], deep: bool, now: u64) -> Result<Inventory> {
    let mut inventory = Inventory {
        schema: super::model::SCHEMA,
        hako: env!("CARGO_PKG_VERSION").to_owned(),
        taken: now,
        source: Source::Images,
        disks: disks(volumes, paths),
        volumes: all(volumes),
        remarks: volumes.remarks().to_vec(),
        ..Inventory::default()
    };
    let all = installations(volumes);
    // The loaders' files may be outside of all systems, and say which of them boots.
    let menu = Menu::read(volumes, None);
    let options = menu
        .default_entry()
        .map_or("", |entry| entry.options.as_str());
    let chosen = installation_of(&all, volumes, options).or(all.first());
    if let (Some(chosen), true) = (chosen, all.len() > 1) {
        let names: Vec<_> = all.iter().map(|one| one.volume.as_str()).collect();
        let remark = format!(
            "several systems ({}): this is about the one on {}",
            names.join(", "),
            chosen.volume
        );
        inventory.remarks.push(remark);
    }
    let root = match chosen.map(|chosen| (chosen, Root::mount(volumes, chosen))) {
        Some((_, Ok(root))) => Some(root),
        Some((chosen, Err(error))) => {
            let remark = format!("{}: {error}", chosen.volume);
            inventory.remarks.push(remark);
            None
        }
        None => {
            let remark = "no system was found on the disks";
            inventory.remarks.push(remark.to_owned());
            None
        }
    };
    inventory.firmware = firmware::of_disks(volumes, root.as_ref().map(|root| &root.tree));
    if let Some(root) = &root {
        add_system(&mut inventory, volumes, root, deep);
    }
    if deep {
        add_use(&mut inventory, volumes)?;
    }
    findings::add(&mut inventory);
    Ok(inventory)
}

/// Adds what of the disks and volumes is in use.
fn add_use(inventory: &mut Inventory, volumes: &Volumes) -> Result<()> {
    let map = UsedMap::of(volumes, false)?;
    // Of each volume the bytes that disks have of it, and those of them that are in use.
    let mut known: BTreeMap<String, (u128, u128)> = BTreeMap::new();
    for (index, disk) in inventory.disks.iter_mut().enumerate() {
        let survey = map.survey(index, &mut |_| Ok(()))?;
        let used = survey.iter().map(|one| one.used_bytes);
        disk.used_bytes = Some(used.fold(0, u64::saturating_add));
        for one in survey.iter().filter(|one| !one.is_whole) {
            let (bytes, used) = known.entry(one.name.clone()).or_default();
            *bytes += u128::from(one.bytes);
            *used += u128::from(one.used_bytes);
        }
    }
    for volume in &mut inventory.volumes {
        // A mirror's is on the disks more than once.
        let of = known.get(&volume.name).filter(|(bytes, _)| *bytes > 0);
        let used = of.map(|(bytes, used)| used * u128::from(volume.bytes) / bytes);
        volume.used_bytes = used.and_then(|used| u64::try_from(used).ok());
    }
    Ok(())
}

fn disks(volumes: &Volumes, paths: &[String]) -> Vec<Disk> {
    let list = volumes.list();
    let disks = list.iter().enumerate().filter_map(|(at, found)| {
        let Origin::Disk(index) = found.origin else {
            return None;
        };
        let has_table = found.content.role == Role::Partitions;
        let ends = list.iter().filter_map(|other| match &other.origin {
            Origin::Partition { of, partition, .. } if *of == at => {
                Some(partition.start.saturating_add(partition.len))
            }
            _ => None,
        });
        let sector_bytes = found
            .volume
            .as_ref()
            .map_or(512, |volume| volume.sector_bytes());
        Some(Disk {
            name: found.name.clone(),
            path: paths.get(index).cloned().unwrap_or_default(),
            bytes: found.len_bytes,
            sector_bytes,
            physical_sector_bytes: sector_bytes,
            table: if has_table {
                found.content.kind.to_owned()
            } else {
                String::new()
            },
            table_uuid: if has_table {
                found.content.uuid.clone()
            } else {
                String::new()
            },
            content: if has_table {
                Content::default()
            } else {
                content(found)
            },
            last_partition_end: ends.max(),
            ..Disk::default()
        })
    });
    disks.collect()
}

/// Returns what is in a volume.
pub(super) fn content(found: &FoundVolume) -> Content {
    Content {
        kind: found.content.kind.to_owned(),
        label: found.content.label.clone(),
        uuid: found.content.uuid.clone(),
    }
}

fn all(volumes: &Volumes) -> Vec<Volume> {
    let list = volumes.list();
    list.iter()
        .enumerate()
        .filter(|(_, found)| !matches!(found.origin, Origin::Disk(_)))
        .map(|(at, found)| {
            let on = found.below.iter().filter_map(|below| list.get(*below));
            let mut volume = volume(found, on.map(|below| below.name.clone()).collect());
            if let Some(encryption) = &mut volume.encryption {
                let is_inside = |other: &FoundVolume| matches!(other.origin, Origin::Opened { of, .. } if of == at);
                encryption.is_open = list.iter().any(is_inside);
            }
            volume
        })
        .collect()
}

fn volume(found: &FoundVolume, on: Vec<String>) -> Volume {
    let mut volume = Volume {
        name: found.name.clone(),
        bytes: found.len_bytes,
        content: content(found),
        on,
        encryption: found
            .volume
            .as_ref()
            .and_then(|volume| encryption::of(found.content.kind, &**volume)),
        remarks: found.remarks.clone(),
        ..Volume::default()
    };
    match &found.origin {
        Origin::Disk(_) => {}
        Origin::Partition { partition, .. } => {
            volume.kind = VolumeKind::Partition;
            volume.partition = Some(of_table(partition));
        }
        Origin::Array {
            level,
            uuid,
            metadata,
            n_members,
            n_missing,
        } => {
            volume.kind = VolumeKind::Array;
            volume.array = Some(Array {
                level: level.clone(),
                uuid: uuid.clone(),
                metadata: (*metadata).to_owned(),
                n_members: *n_members,
                n_missing: *n_missing,
                state: String::new(),
            });
        }
        Origin::Opened { .. } => volume.kind = VolumeKind::Crypt,
        Origin::Logical {
            group,
            name,
            uuid,
            kind,
        } => {
            volume.kind = VolumeKind::Logical;
            volume.logical = Some(Logical {
                group: group.clone(),
                name: name.clone(),
                uuid: uuid.clone(),
                layout: kind.clone(),
            });
        }
    }
    volume
}

/// Returns what a partition table says of a partition.
pub(super) fn of_table(partition: &hako_guest::partitions::Partition) -> Partition {
    Partition {
        number: partition.number,
        start: partition.start,
        kind: partition.kind.to_string(),
        kind_name: partition.kind.name().unwrap_or_default().to_owned(),
        uuid: partition.uuid.clone(),
        label: partition.label.clone(),
        is_bootable: partition.bootable,
    }
}

fn add_system(inventory: &mut Inventory, volumes: &Volumes, root: &Root, deep: bool) {
    let tree = &root.tree;
    let menu = Menu::read(volumes, Some(root));
    inventory.remarks.extend(root.remarks.iter().cloned());
    inventory.remarks.extend(menu.remarks.iter().cloned());
    let (os, hostname, kernels) = system::os(tree);
    inventory.os = os;
    inventory.hostname = hostname;
    inventory.mounts = mounts(root, tree);
    inventory.swaps = swaps(volumes, tree);
    inventory.boot = boot(root, &menu, kernels, deep, &inventory.os);
    inventory.services = services::installed(tree);
    network::add(inventory, tree, Known::Nothing);
}

fn mounts(root: &Root, tree: &Tree) -> Vec<Mount> {
    let lines = system::fstab(tree);
    let line = |path: &str| lines.iter().find(|line| line.target == path);
    let mounts = root.mounts.iter().map(|mounted| Mount {
        path: mounted.path.clone(),
        volume: mounted.volume.clone(),
        kind: mounted.kind.to_owned(),
        subvolume: mounted.subvolume.clone().unwrap_or_default(),
        options: line(&mounted.path)
            .map(|line| line.options.join(","))
            .unwrap_or_default(),
        fstab: line(&mounted.path)
            .map(|line| line.source.clone())
            .unwrap_or_default(),
        ..Mount::default()
    });
    let remote = lines
        .iter()
        .filter(|line| system::is_remote(&line.kind))
        .map(|line| Mount {
            path: line.target.clone(),
            volume: line.source.clone(),
            kind: line.kind.clone(),
            options: line.options.join(","),
            fstab: line.source.clone(),
            is_remote: true,
            ..Mount::default()
        });
    mounts.chain(remote).collect()
}

fn swaps(volumes: &Volumes, tree: &Tree) -> Vec<Swap> {
    let sources = system::swaps_of_fstab(tree);
    let mut swaps: Vec<Swap> = Vec::new();
    for found in volumes
        .list()
        .iter()
        .filter(|found| found.content.role == Role::Swap)
    {
        let named = sources.iter().find(|source| {
            volumes
                .find(source)
                .iter()
                .any(|other| other.name == found.name)
        });
        swaps.push(Swap {
            volume: found.name.clone(),
            bytes: found.len_bytes,
            fstab: named.cloned().unwrap_or_default(),
            ..Swap::default()
        });
    }
    for path in sources
        .iter()
        .filter(|source| source.starts_with('/') && !source.starts_with("/dev/"))
    {
        swaps.push(Swap {
            volume: path.clone(),
            is_file: true,
            bytes: tree.stat(path.as_bytes()).map_or(0, |stat| stat.len_bytes),
            fstab: path.clone(),
            ..Swap::default()
        });
    }
    swaps
}

fn boot(
    root: &Root,
    menu: &Menu,
    kernels: Vec<hako_guest::os::Kernel>,
    deep: bool,
    os: &Os,
) -> Boot {
    let default = menu.default_entry();
    let of_default =
        default.and_then(|entry| hako_guest::direct::drivers_of(root, entry, Hardware::ALL).ok());
    let version = of_default.as_ref().map(|known| known.version.clone());
    let version = version.or_else(|| kernels.first().map(|kernel| kernel.version.clone()));
    let version = version.unwrap_or_default();
    let kernels = kernels.into_iter().map(|kernel| {
        let is_default = kernel.version == version;
        let mut shown = system::kernel(&root.tree, &kernel, is_default || deep);
        shown.is_default = is_default;
        if let (true, Some(known)) = (is_default, &of_default) {
            let place =
                |(hardware, place): &(Hardware, hako_guest::drivers::Whereabouts)| DriverPlace {
                    hardware: hardware.name().to_owned(),
                    place: place.name().to_owned(),
                };
            shown.drivers = known.drivers.iter().map(place).collect();
        }
        shown
    });
    let kernels: Vec<Kernel> = kernels.collect();
    Boot {
        loader: match default {
            Some(entry) => entry.loader.name().to_owned(),
            None if os.family == "windows" => "windows".to_owned(),
            None => String::new(),
        },
        command_line: default
            .map(|entry| entry.options.clone())
            .unwrap_or_default(),
        initrd_tool: system::initrd_tool(&root.tree).to_owned(),
        kernel: version,
        kernels,
    }
}
