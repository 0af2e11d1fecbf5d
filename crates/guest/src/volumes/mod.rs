//! What is on some disks: partitions, and the file systems and swap areas in them, however they are
//! stacked.
//!
//! Every volume has a short name that does not change while the disks do not: `disk` and `disk2` for
//! whole disks, `p1` for a partition of the first one and `disk2p1` for one of the second.

mod find;
mod identify;
#[cfg(any(test, feature = "testkit"))]
mod in_memory;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hako_block::Result;

pub use identify::{Content, Role};

use crate::fs::FileSystem;
use crate::partitions::{Partition, TableKind};
use crate::volume::{Slice, Volume};

/// Most volumes that are looked at, and how deep they may be stacked: more than any machine has,
/// few enough that a hostile disk is soon done with.
const MOST_VOLUMES: usize = 4096;
const DEEPEST: usize = 8;

/// All volumes of some disks.
pub struct Volumes {
    found: Vec<FoundVolume>,
    remarks: Vec<String>,
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
}

impl FoundVolume {
    /// Returns the partition that it is.
    pub fn partition(&self) -> Option<&Partition> {
        match &self.origin {
            Origin::Partition { partition, .. } => Some(partition),
            Origin::Disk(_) => None,
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
        let mut volumes = Self {
            found: Vec::new(),
            remarks: Vec::new(),
        };
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
        Ok(volumes)
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
            Origin::Disk(_) => false,
        };
        self.found
            .iter()
            .filter(|found| found.file_system().is_some())
            .filter(|found| !is_shadowed(found))
            .collect()
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

    /// Adds what is inside the volume at a place.
    fn look_into(&mut self, at: usize) {
        let Some(found) = self.found.get_mut(at) else {
            return;
        };
        let Some(table) = found.content.table.take() else {
            return;
        };
        found.remarks.extend(table.remarks.iter().cloned());
        let (Some(volume), depth) = (found.volume.clone(), found.depth + 1) else {
            return;
        };
        if depth > DEEPEST {
            let remark = "its partitions are not listed: volumes are stacked too deep";
            found.remarks.push(remark.to_owned());
            return;
        }
        let prefix = match found.origin {
            Origin::Disk(0) => String::new(),
            _ => found.name.clone(),
        };
        for partition in table.partitions {
            if self.is_full() {
                return;
            }
            let part = Slice::new(Arc::clone(&volume), partition.start, partition.len)
                .map(|slice| Arc::new(slice.with_sector_bytes(table.sector_bytes)) as _);
            let name = format!("{prefix}p{}", partition.number);
            let origin = Origin::Partition {
                of: at,
                table: table.kind,
                partition,
            };
            let inner = self.add(name, origin, part, depth);
            self.look_into(inner);
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
