//! LVM2: physical volumes, their metadata, and the logical volumes that it describes.
//!
//! Read are linear and striped volumes, and mirrors (dm-mirror and raid1) from an image that is in
//! sync. Snapshots, thin and cached volumes, VDO and the other RAID levels are named, and not read.

mod blueprint;
mod group;
mod image;
mod label;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::sync::Arc;

use hako_block::{Error, Result};

use crate::mapped::{Mapped, Segment};
use crate::volume::Volume;
pub(crate) use blueprint::{Below, Blueprint, blueprints};
use group::{Area, Group, Layout, Logical, Part};
pub(crate) use label::{Label, read};

/// How deep logical volumes lie in each other.
const DEEPEST: usize = 8;

/// A physical volume that was found.
pub(crate) struct Found {
    pub(crate) label: Label,
    pub(crate) volume: Arc<dyn Volume>,
    /// How the user knows it.
    pub(crate) name: String,
    /// Its place in the list of all volumes.
    pub(crate) place: usize,
}

/// A logical volume to be listed.
pub(crate) struct LogicalVolume {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) kind: String,
    pub(crate) len_bytes: u64,
    pub(crate) volume: Result<Arc<dyn Volume>>,
    /// Its place in [`blueprints`]: which group, and which volume of it.
    pub(crate) place: (usize, usize),
}

/// Puts the volume groups on these physical volumes together. Returns the volumes that are not
/// LVM's own, and what is wrong.
pub(crate) fn assemble(found: &[Found]) -> (Vec<LogicalVolume>, Vec<String>) {
    let mut remarks = Vec::new();
    let groups = newest_groups(found, &mut remarks);
    let mut volumes = Vec::new();
    for (group_at, group) in groups.iter().enumerate() {
        let mut assembly = Assembly::new(group, found, &mut remarks);
        let logical = group.logical.iter().enumerate();
        for (at, logical) in logical.filter(|(_, logical)| logical.is_visible) {
            volumes.push(LogicalVolume {
                group: group.name.clone(),
                name: logical.name.clone(),
                uuid: logical.uuid.clone(),
                kind: logical.kind.clone(),
                len_bytes: logical.n_extents().saturating_mul(group.extent_bytes),
                volume: assembly.logical(&logical.name, 0),
                place: (group_at, at),
            });
        }
    }
    for stray in found.iter().filter(|found| !is_of_any(found, &groups)) {
        if !stray.label.texts.is_empty() {
            let name = &stray.name;
            remarks.push(format!(
                "{name}: its volume group does not know it any more"
            ));
        }
    }
    (volumes, remarks)
}

/// Returns the groups by the newest text of each.
fn newest_groups(found: &[Found], remarks: &mut Vec<String>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for text in found.iter().flat_map(|found| &found.label.texts) {
        let group = match Group::read(text) {
            Ok(group) => group,
            Err(error) => {
                remarks.push(error.to_string());
                continue;
            }
        };
        match groups.iter_mut().find(|known| known.id == group.id) {
            Some(known) if known.seqno < group.seqno => *known = group,
            Some(_) => {}
            None => groups.push(group),
        }
    }
    groups
}

fn is_of_any(found: &Found, groups: &[Group]) -> bool {
    let mut physical = groups.iter().flat_map(|group| &group.physical);
    physical.any(|physical| physical.id == found.label.id)
}

/// A volume group that is being put together.
struct Assembly<'a> {
    group: &'a Group,
    physical: HashMap<&'a str, (Arc<dyn Volume>, u64)>,
    /// Physical volumes that are not there.
    missing: HashMap<&'a str, String>,
    /// Logical volumes that were put together.
    done: HashMap<String, Arc<dyn Volume>>,
}

impl<'a> Assembly<'a> {
    fn new(group: &'a Group, found: &[Found], remarks: &mut Vec<String>) -> Self {
        let mut assembly = Self {
            group,
            physical: HashMap::new(),
            missing: HashMap::new(),
            done: HashMap::new(),
        };
        for known in &group.physical {
            let name = known.name.as_str();
            let mut there = found.iter().filter(|found| found.label.id == known.id);
            let what = match there.next() {
                Some(one) if !known.is_missing => {
                    let place = (Arc::clone(&one.volume), known.start);
                    assembly.physical.insert(name, place);
                    if let Some(other) = there.next() {
                        remarks.push(format!(
                            "{}: {} and {} are the same physical volume; the first is read",
                            group.name, one.name, other.name
                        ));
                    }
                    continue;
                }
                Some(one) => format!("{} was away while the group was changed", one.name),
                None => "it is on none of the disks".to_owned(),
            };
            remarks.push(format!(
                "{}: physical volume {name} ({}) is missing: {what}",
                group.name, known.id
            ));
            assembly.missing.insert(name, what);
        }
        assembly
    }

    /// Returns a logical volume by its name.
    fn logical(&mut self, name: &str, depth: usize) -> Result<Arc<dyn Volume>> {
        if let Some(done) = self.done.get(name) {
            return Ok(Arc::clone(done));
        }
        let corrupt = |what: &str| Error::corrupt("LVM metadata", format!("{name}: {what}"));
        if depth > DEEPEST {
            return Err(corrupt("volumes lie in each other too deep"));
        }
        let group = self.group;
        let mut known = group.logical.iter();
        let known: &Logical = known
            .find(|logical| logical.name == name)
            .ok_or_else(|| corrupt("there is no such volume"))?;
        if let Some(what) = known.refused {
            return Err(Error::unsupported(format!("LVM's {what} is not read")));
        }
        let mut segments = Vec::new();
        for part in &known.segments {
            segments.push(self.segment(part, depth)?);
        }
        let volume: Arc<dyn Volume> = Arc::new(Mapped::new(segments)?);
        self.done.insert(name.to_owned(), Arc::clone(&volume));
        Ok(volume)
    }

    fn segment(&mut self, part: &Part, depth: usize) -> Result<Segment> {
        let len = part
            .n_extents
            .checked_mul(self.group.extent_bytes)
            .ok_or_else(|| Error::corrupt("LVM metadata", "too many extents"))?;
        match &part.layout {
            Layout::Striped {
                areas,
                stripe_bytes,
            } => {
                let places = areas.iter().map(|area| self.place(area, depth));
                let mut places = places.collect::<Result<Vec<_>>>()?;
                match (places.len(), places.pop()) {
                    (1, Some((volume, start))) => Segment::linear(volume, start, len),
                    (_, last) => {
                        places.extend(last);
                        Segment::striped(places, len, *stripe_bytes)
                    }
                }
            }
            Layout::Mirror { areas, log } => self.mirror(areas, log.as_deref(), len, depth),
            Layout::Raid1(pairs) => self.raid1(pairs, len, depth),
            Layout::Zero => Ok(Segment::zeros(len)),
            Layout::Unsupported(kind) => {
                Err(Error::unsupported(format!("LVM's {kind} is not read")))
            }
        }
    }

    /// Returns the volume that an area is in, and the byte at which it begins.
    fn place(&mut self, area: &Area, depth: usize) -> Result<(Arc<dyn Volume>, u64)> {
        let too_far = || Error::corrupt("LVM metadata", format!("{}: too far", area.name));
        let offset = area.extent.checked_mul(self.group.extent_bytes);
        let offset = offset.ok_or_else(too_far)?;
        if let Some((volume, start)) = self.physical.get(area.name.as_str()) {
            let start = start.checked_add(offset).ok_or_else(too_far)?;
            return Ok((Arc::clone(volume), start));
        }
        if let Some(why) = self.missing.get(area.name.as_str()) {
            let what = format!("physical volume {} is missing: {why}", area.name);
            return Err(Error::unsupported(what));
        }
        Ok((self.logical(&area.name, depth + 1)?, offset))
    }

    /// A mirror's first image is what the others are copied from; another one does if all of it is
    /// known to be in sync.
    fn mirror(
        &mut self,
        areas: &[Area],
        log: Option<&str>,
        len: u64,
        depth: usize,
    ) -> Result<Segment> {
        let mut first_error = None;
        for (index, area) in areas.iter().enumerate() {
            let place = match self.place(area, depth) {
                Ok(place) => place,
                Err(error) => {
                    first_error.get_or_insert(error);
                    continue;
                }
            };
            let in_sync = match log {
                _ if index == 0 => true,
                Some(log) => image::log_is_clean(&*self.logical(log, depth + 1)?)?,
                None => false,
            };
            if in_sync {
                return Ok(Segment::linear(place.0, place.1, len)?.with_copies());
            }
        }
        let why = first_error
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        Err(Error::unsupported(format!(
            "no image of the mirror is known to be in sync{why}"
        )))
    }

    fn raid1(
        &mut self,
        pairs: &[(Option<String>, Area)],
        len: u64,
        depth: usize,
    ) -> Result<Segment> {
        let mut legs = Vec::new();
        let mut first_error = None;
        for (index, (meta, image)) in pairs.iter().enumerate() {
            let place = match self.place(image, depth) {
                Ok(place) => place,
                Err(error) => {
                    first_error.get_or_insert(error);
                    continue;
                }
            };
            let state = match meta {
                Some(meta) => image::state(&*self.logical(meta, depth + 1)?)?,
                None => None,
            };
            legs.push((index, state, place));
        }
        match image::choose(legs) {
            Some((volume, start)) => Ok(Segment::linear(volume, start, len)?.with_copies()),
            None => {
                let why = first_error
                    .map(|error| format!(": {error}"))
                    .unwrap_or_default();
                Err(Error::unsupported(format!(
                    "no image of the mirror is in sync{why}"
                )))
            }
        }
    }
}
