//! What is on some disks: partitions, arrays, logical volumes, and the file systems and swap areas in
//! them, however they are stacked.
//!
//! Every volume has a short name that does not change while the disks do not: `disk` and `disk2` for
//! whole disks, `p1` for a partition of the first one and `disk2p1` for one of the second, `md0` or
//! `md/data` for an array, `vg0/root` for a logical volume. Where two would have the same name, the
//! second one is `NAME#2`.

mod find;
mod identify;
#[cfg(any(test, feature = "testkit"))]
mod in_memory;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

pub use identify::{Content, Role};

use crate::fs::{FileSystem, btrfs};
use crate::luks::{self, Keys};
use crate::lvm;
use crate::mapped::Share;
use crate::md;
use crate::partitions::{Partition, Table, TableKind};
use crate::volume::{Slice, Volume};
use identify::Inside;

/// Most volumes that are looked at, and how deep they may be stacked: more than any machine has,
/// few enough that a hostile disk is soon done with.
const MOST_VOLUMES: usize = 4096;
const DEEPEST: usize = 8;

const NO_KEY: &str = "no key opens it";

/// All volumes of some disks.
pub struct Volumes {
    found: Vec<FoundVolume>,
    remarks: Vec<String>,
    /// Parts of arrays and volume groups that are not put together yet.
    members: Vec<(md::Member, usize)>,
    physical: Vec<(lvm::Found, usize)>,
    arrays: Vec<ArrayParts>,
    groups: Vec<GroupParts>,
    keys: Keys,
    /// Which of the keys opened something.
    used_keys: BTreeSet<usize>,
}

/// The place of an array, and what of which volumes it has.
type ArrayParts = (usize, Vec<(usize, Share)>);

/// What lies on what in a volume group.
pub(crate) struct GroupParts {
    pub(crate) blueprint: lvm::Blueprint,
    /// Places of the physical volumes.
    pub(crate) physical: Vec<usize>,
    /// Places of the logical volumes that are listed.
    pub(crate) logical: Vec<Option<usize>>,
}

impl GroupParts {
    /// Returns the places of the physical volumes that a logical one has parts of, itself or by the
    /// hidden ones that it is made of; all of the group's, if that is not known.
    fn physical_of(&self, logical: usize) -> Vec<usize> {
        let mut wanted = vec![logical];
        let mut places = Vec::new();
        let mut next = 0;
        while let Some(above) = wanted.get(next).copied() {
            next += 1;
            let parts = self.blueprint.parts.iter();
            for (below, ..) in parts.filter(|(.., of)| *of == above) {
                match below {
                    lvm::Below::Logical(hidden) if !wanted.contains(hidden) => wanted.push(*hidden),
                    lvm::Below::Logical(_) => {}
                    lvm::Below::Physical(found) => places.extend(self.physical.get(*found)),
                }
            }
        }
        if places.is_empty() {
            let all = self.blueprint.physical.iter();
            places.extend(all.filter_map(|known| self.physical.get(known.found)));
        }
        places.sort_unstable();
        places.dedup();
        places
    }
}

/// A volume that was found.
pub struct FoundVolume {
    /// Its short name.
    pub name: String,
    /// What it is a part of.
    pub origin: Origin,
    /// Its bytes; none if they cannot be read, for a reason that its remarks tell.
    pub volume: Option<Arc<dyn Volume>>,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// What is in it.
    pub content: Content,
    /// What is odd about it.
    pub remarks: Vec<String>,
    /// Places in [`Volumes::list`] of what it lies on, where that is there; the disks lie on nothing.
    pub below: Vec<usize>,
    depth: usize,
}

/// Where a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A whole disk: the how-manieth of those given, from 0.
    Disk(usize),
    /// A partition.
    Partition {
        /// The place of the volume with the table in [`Volumes::list`].
        of: usize,
        /// Which kind of table.
        table: TableKind,
        /// What the table says of it.
        partition: Partition,
    },
    /// An array of MD.
    Array {
        /// "raid1", "linear".
        level: String,
        /// Its identity, as blkid writes it.
        uuid: String,
        /// How its superblock is laid out: `1.2`, `0.90`.
        metadata: &'static str,
        /// How many members it should have.
        n_members: u32,
        /// How many of them are not there, or not in sync.
        n_missing: u32,
    },
    /// What a key opened.
    Opened {
        /// The place of the encrypted volume in [`Volumes::list`].
        of: usize,
        /// Where in that its bytes begin.
        start: u64,
        /// In units of how many bytes it is encrypted: one of them is good as a whole or not at all.
        unit_bytes: u32,
        /// How, as dm-crypt says it: `aes-xts-plain64`.
        cipher: String,
    },
    /// A logical volume of LVM2.
    Logical {
        /// The volume group's name.
        group: String,
        /// Its own.
        name: String,
        /// Its identity, as LVM writes it.
        uuid: String,
        /// "linear", "striped", "raid1", "thin": LVM's name of its segments.
        kind: String,
    },
}

impl FoundVolume {
    /// Returns the partition that it is.
    pub fn partition(&self) -> Option<&Partition> {
        match &self.origin {
            Origin::Partition { partition, .. } => Some(partition),
            _ => None,
        }
    }

    /// Returns the file system in it; none if it holds none that hako reads.
    pub fn file_system(&self) -> Option<&Arc<dyn FileSystem>> {
        self.content.file_system.as_ref()
    }
}

impl Volumes {
    /// Looks at disks, in the order in which the machine has them. Errors are those of reading a
    /// disk's first bytes; what cannot be read further in has a remark.
    pub fn of(disks: Vec<Arc<dyn Volume>>) -> Result<Self> {
        Self::opened(disks, Keys::default())
    }

    /// Looks at disks, and into what of LUKS on them the keys open. Errors: those of [`Volumes::of`];
    /// [`ErrorKind::WrongKey`] if a key opens nothing, while something is left that could not be
    /// opened; [`ErrorKind::Invalid`] for keys where there is no LUKS.
    pub fn opened(disks: Vec<Arc<dyn Volume>>, keys: Keys) -> Result<Self> {
        let mut volumes = Self::none();
        volumes.keys = keys;
        for (index, disk) in disks.into_iter().enumerate() {
            let name = match index {
                0 => "disk".to_owned(),
                _ => format!("disk{}", index + 1),
            };
            // A disk whose first sector cannot be read is no disk with a remark.
            if disk.len_bytes() >= 512 {
                disk.read_at(0, &mut [0; 512])?;
            }
            let at = volumes.add(name, Origin::Disk(index), Ok(disk), 0);
            volumes.look_into(at);
        }
        // Arrays before groups: the one is what the other is often made of.
        for _ in 0..DEEPEST {
            if !volumes.members.is_empty() {
                volumes.add_arrays();
            } else if !volumes.physical.is_empty() {
                volumes.add_groups();
            }
        }
        volumes.join_btrfs();
        volumes.check_keys()?;
        Ok(volumes)
    }

    fn none() -> Self {
        Self {
            found: Vec::new(),
            remarks: Vec::new(),
            members: Vec::new(),
            physical: Vec::new(),
            arrays: Vec::new(),
            groups: Vec::new(),
            keys: Keys::default(),
            used_keys: BTreeSet::new(),
        }
    }

    /// Returns all of them: each disk, then what is on it.
    pub fn list(&self) -> &[FoundVolume] {
        &self.found
    }

    /// Returns what is odd about the disks as a whole.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Returns those with a file system that hako reads. A disk that holds one itself and lists
    /// partitions besides (a hybrid ISO image) counts once.
    pub fn with_file_systems(&self) -> Vec<&FoundVolume> {
        let is_shadowed = |found: &&FoundVolume| match &found.origin {
            Origin::Partition { of, .. } => self
                .found
                .get(*of)
                .is_some_and(|disk| disk.file_system().is_some()),
            _ => false,
        };
        self.found
            .iter()
            .filter(|found| found.file_system().is_some())
            .filter(|found| !is_shadowed(found))
            .collect()
    }

    /// Returns the arrays, and what of which volumes each has.
    pub(crate) fn arrays(&self) -> &[ArrayParts] {
        &self.arrays
    }

    /// Returns what lies on what in the volume groups.
    pub(crate) fn groups(&self) -> &[GroupParts] {
        &self.groups
    }

    /// Adds a volume and says what is in it. Returns its place.
    fn add(
        &mut self,
        name: String,
        origin: Origin,
        volume: Result<Arc<dyn Volume>>,
        depth: usize,
    ) -> usize {
        let mut found = FoundVolume {
            name: self.unused(name),
            origin,
            volume: None,
            len_bytes: 0,
            content: Content::default(),
            remarks: Vec::new(),
            below: Vec::new(),
            depth,
        };
        match volume {
            Ok(volume) => {
                found.len_bytes = volume.len_bytes();
                match identify::identify(&volume) {
                    Ok(mut content) => {
                        found.remarks.append(&mut content.remarks);
                        found.content = content;
                    }
                    Err(error) => found.remarks.push(error.to_string()),
                }
                found.volume = Some(volume);
            }
            Err(error) => found.remarks.push(error.to_string()),
        }
        self.found.push(found);
        self.found.len() - 1
    }

    /// Adds what is inside the volume at a place, or remembers what it is a part of.
    fn look_into(&mut self, at: usize) {
        let Some(found) = self.found.get_mut(at) else {
            return;
        };
        let inside = std::mem::take(&mut found.content.inside);
        let (Some(volume), name) = (found.volume.clone(), found.name.clone()) else {
            return;
        };
        if found.depth >= DEEPEST {
            let remark = "what is in it is not listed: volumes are stacked too deep";
            found.remarks.push(remark.to_owned());
            return;
        }
        let depth = found.depth + 1;
        match inside {
            Inside::Nothing => {}
            Inside::Table(table) => self.add_partitions(at, &volume, table),
            Inside::Luks => self.add_opened(at, &volume, &name),
            Inside::ArrayMember(superblock) => {
                let member = md::Member {
                    superblock,
                    volume,
                    name,
                    place: at,
                };
                self.members.push((member, depth));
            }
            Inside::PhysicalVolume(label) => {
                let found = lvm::Found {
                    label,
                    volume,
                    name,
                    place: at,
                };
                self.physical.push((found, depth));
            }
        }
    }

    fn add_partitions(&mut self, at: usize, volume: &Arc<dyn Volume>, table: Table) {
        let Some(found) = self.found.get_mut(at) else {
            return;
        };
        found.remarks.extend(table.remarks);
        let depth = found.depth + 1;
        let prefix = match found.origin {
            Origin::Disk(0) => String::new(),
            _ => found.name.clone(),
        };
        for partition in table.partitions {
            if self.is_full() {
                return;
            }
            let part = Slice::new(Arc::clone(volume), partition.start, partition.len)
                .map(|slice| Arc::new(slice.with_sector_bytes(table.sector_bytes)) as _);
            let name = format!("{prefix}p{}", partition.number);
            let origin = Origin::Partition {
                of: at,
                table: table.kind,
                partition,
            };
            let inner = self.add(name, origin, part, depth);
            self.lies_on(inner, vec![at]);
            self.look_into(inner);
        }
    }

    /// Adds what is inside of an encrypted volume, if a key opens it.
    fn add_opened(&mut self, at: usize, volume: &Arc<dyn Volume>, name: &str) {
        if self.keys.is_empty() || self.is_full() {
            return;
        }
        let opened = luks::open(volume, &self.keys);
        let Some(found) = self.found.get_mut(at) else {
            return;
        };
        let depth = found.depth + 1;
        match opened {
            Ok(Some(opened)) => {
                self.used_keys.insert(opened.key);
                let origin = Origin::Opened {
                    of: at,
                    start: opened.start,
                    unit_bytes: opened.sector_bytes,
                    cipher: opened.cipher,
                };
                let inner = self.add(format!("{name}/luks"), origin, Ok(opened.volume), depth);
                self.lies_on(inner, vec![at]);
                self.look_into(inner);
            }
            Ok(None) => found.remarks.push(NO_KEY.to_owned()),
            Err(error) => found.remarks.push(format!("cannot be opened: {error}")),
        }
    }

    /// Refuses keys that are of no use.
    fn check_keys(&self) -> Result<()> {
        let has_luks = |found: &&FoundVolume| found.content.kind == "crypto_LUKS";
        let luks: Vec<_> = self.found.iter().filter(has_luks).collect();
        if !self.keys.is_empty() && luks.is_empty() {
            let what = "there is a key, and no LUKS that it could open";
            return Err(Error::invalid(what));
        }
        let is_closed = |found: &&&FoundVolume| found.remarks.iter().any(|one| one == NO_KEY);
        let closed: Vec<_> = luks.iter().filter(is_closed).collect();
        let useless = (0..self.keys.len()).find(|key| !self.used_keys.contains(key));
        match useless {
            Some(key) if !closed.is_empty() => {
                let names: Vec<_> = closed.iter().map(|found| found.name.as_str()).collect();
                let key = match self.keys.len() {
                    1 => "the key".to_owned(),
                    n => format!("key {} of {n}", key + 1),
                };
                let what = format!("{key} does not open {}", names.join(", nor "));
                Err(Error::new(ErrorKind::WrongKey, what))
            }
            _ => Ok(()),
        }
    }

    fn add_arrays(&mut self) {
        let (members, depths): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.members).into_iter().unzip();
        let depth = depths.into_iter().max().unwrap_or(0);
        for array in md::assemble(&members) {
            if self.is_full() {
                return;
            }
            let origin = Origin::Array {
                level: array.level,
                uuid: array.uuid,
                metadata: array.metadata,
                n_members: array.n_members,
                n_missing: array.n_missing,
            };
            let at = self.add(array.name, origin, array.volume, depth);
            self.lies_on(at, array.members);
            self.arrays.push((at, array.parts));
            if let Some(found) = self.found.get_mut(at) {
                found.remarks.extend(array.remarks);
            }
            self.look_into(at);
        }
    }

    fn add_groups(&mut self) {
        let (physical, depths): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.physical).into_iter().unzip();
        let depth = depths.into_iter().max().unwrap_or(0);
        let (volumes, remarks) = lvm::assemble(&physical);
        self.remarks.extend(remarks);
        let first = self.groups.len();
        for blueprint in lvm::blueprints(&physical) {
            self.groups.push(GroupParts {
                logical: vec![None; blueprint.logical.len()],
                physical: physical.iter().map(|found| found.place).collect(),
                blueprint,
            });
        }
        for logical in volumes {
            if self.is_full() {
                return;
            }
            let (group, place) = logical.place;
            let name = format!("{}/{}", logical.group, logical.name);
            let origin = Origin::Logical {
                group: logical.group,
                name: logical.name,
                uuid: logical.uuid,
                kind: logical.kind,
            };
            let at = self.add(name, origin, logical.volume, depth);
            if let Some(found) = self.found.get_mut(at) {
                found.len_bytes = logical.len_bytes;
            }
            let mut below = Vec::new();
            if let Some(group) = self.groups.get_mut(first + group) {
                below = group.physical_of(place);
                if let Some(listed) = group.logical.get_mut(place) {
                    *listed = Some(at);
                }
            }
            self.lies_on(at, below);
            self.look_into(at);
        }
    }

    fn lies_on(&mut self, at: usize, below: Vec<usize>) {
        if let Some(found) = self.found.get_mut(at) {
            found.below = below;
        }
    }

    /// Opens every btrfs of several devices with all of them: the first one has it then, and the
    /// others are members.
    fn join_btrfs(&mut self) {
        let mut groups: BTreeMap<[u8; 16], Vec<usize>> = BTreeMap::new();
        for (at, found) in self.found.iter().enumerate() {
            let volume = found
                .volume
                .as_ref()
                .filter(|_| found.content.kind == "btrfs");
            if let Some(Ok(Some(member))) = volume.map(|volume| btrfs::member(&**volume))
                && member.n_devices > 1
            {
                groups.entry(member.fsid).or_default().push(at);
            }
        }
        for places in groups.values().filter(|places| places.len() > 1) {
            let volumes = places
                .iter()
                .filter_map(|at| self.found.get(*at)?.volume.clone());
            let opened = btrfs::open_devices(volumes.collect());
            let mut first = None;
            for at in places {
                let Some(found) = self.found.get_mut(*at) else {
                    continue;
                };
                let member = found.volume.as_ref().map(|volume| btrfs::member(&**volume));
                if let (Ok(fs), Some(Ok(Some(member)))) = (&opened, member) {
                    found.content.shared = Some((Arc::clone(fs), member.device));
                }
                match &first {
                    None => {
                        first = Some(found.name.clone());
                        found.remarks.clear();
                        found.content.set_file_system(&opened, &mut found.remarks);
                    }
                    Some(first) => {
                        found.content.file_system = None;
                        found.content.role = Role::Member;
                        found.remarks = vec![format!("it is a part of the btrfs in {first}")];
                    }
                }
            }
        }
    }

    fn is_full(&mut self) -> bool {
        let is_full = self.found.len() >= MOST_VOLUMES;
        let remark = format!("more than {MOST_VOLUMES} volumes: the rest is not listed");
        if is_full && !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
        is_full
    }

    /// Returns the name, or one made from it that no other volume has.
    fn unused(&self, name: String) -> String {
        let is_used = |name: &str| self.found.iter().any(|found| found.name == name);
        if !is_used(&name) {
            return name;
        }
        (2..)
            .map(|n: usize| format!("{name}#{n}"))
            .find(|name| !is_used(name))
            .unwrap_or(name)
    }
}
