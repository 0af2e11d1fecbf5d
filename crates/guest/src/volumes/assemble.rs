//! Volumes put together: what a volume holds, and what it is a part of, down to the last one.

use std::collections::BTreeMap;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

use super::identify::{self, Content, Inside};
use super::{DEEPEST, FoundVolume, GroupParts, MOST_VOLUMES, NO_KEY, Origin, Role, Volumes};
use crate::fs::btrfs;
use crate::luks;
use crate::lvm;
use crate::md;
use crate::partitions::Table;
use crate::volume::{Slice, Volume};

impl Volumes {
    /// Adds a volume and says what is in it. Returns its place.
    pub(super) fn add(
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
    pub(super) fn look_into(&mut self, at: usize) {
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
    pub(super) fn check_keys(&self) -> Result<()> {
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

    pub(super) fn add_arrays(&mut self) {
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

    pub(super) fn add_groups(&mut self) {
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
    pub(super) fn join_btrfs(&mut self) {
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
