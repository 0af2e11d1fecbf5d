//! What is on some disks: partitions, arrays, logical volumes, and the file systems and swap areas in
//! them, however they are stacked.
//!
//! Every volume has a short name that does not change while the disks do not: `disk` and `disk2` for
//! whole disks, `p1` for a partition of the first one and `disk2p1` for one of the second, `md0` or
//! `md/data` for an array, `vg0/root` for a logical volume. Where two would have the same name, the
//! second one is `NAME#2`.

mod assemble;
mod find;
mod identify;
#[cfg(any(test, feature = "testkit"))]
mod in_memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use hako_block::Result;

pub use identify::{Content, Role};

use crate::fs::FileSystem;
use crate::luks::Keys;
use crate::lvm;
use crate::mapped::Share;
use crate::md;
use crate::partitions::{Partition, TableKind};
use crate::volume::Volume;

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
    /// [`hako_block::ErrorKind::WrongKey`] if a key opens nothing, while something is left that could
    /// not be opened; [`hako_block::ErrorKind::Invalid`] for keys where there is no LUKS.
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
}
