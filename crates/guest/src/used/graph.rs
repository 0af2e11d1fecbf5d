//! What lies on what: the volumes that were found, and the logical ones that LVM hides.

use std::ops::Range;
use std::sync::Arc;

use hako_block::Result;

use super::exfat::ExFat;
use super::{Ranges, is_ignorance};
use crate::fs::{FileSystem, btrfs};
use crate::lvm::{Below, Blueprint};
use crate::mapped::Share;
use crate::volumes::{FoundVolume, Origin, Role, Volumes};

/// A volume.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) len: u64,
    pub(super) what: What,
    /// What of it is passed over.
    pub(super) scratch: Ranges,
    /// Why all of it is in use, or what else is odd.
    pub(super) note: Option<String>,
}

/// What tells what of a volume is in use.
pub(super) enum What {
    /// Nothing does.
    Whole,
    /// A file system, of which it is the device with that number.
    FileSystem(Arc<dyn FileSystem>, u64),
    /// It is swapped to: but for its header all is free.
    Swap(u64),
    ExFat(ExFat),
    /// The volumes that it has parts of. What is in no part is in use, but for what is free.
    Parts {
        parts: Vec<Part>,
        free: Range<u64>,
    },
}

/// A run of a volume that is a part of another one.
pub(super) struct Part {
    pub(super) share: Share,
    pub(super) node: usize,
    /// In units of how many bytes, counted in the volume above, it is good: 1, or what is encrypted
    /// together.
    pub(super) unit: u64,
}

impl Part {
    /// Returns the units, in the volume above, that have bytes of a range.
    pub(super) fn units(&self, range: &Range<u64>) -> Range<u64> {
        let unit = self.unit.max(1);
        let end = range.end.checked_next_multiple_of(unit);
        range.start - range.start % unit..end.unwrap_or(range.end)
    }
}

impl Node {
    /// Returns what of a window is in use, as the volume's own content says it.
    pub(super) fn own(&self, window: &Range<u64>) -> Result<Ranges> {
        match &self.what {
            What::Whole | What::Parts { .. } => Ok(Ranges::of(window.clone())),
            What::FileSystem(fs, device) => fs.used(*device, window),
            What::Swap(header) => Ok(Ranges::of(0..*header)),
            What::ExFat(exfat) => exfat.used(window),
        }
    }

    fn whole(name: &str, len: u64, note: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            kind: String::new(),
            len,
            what: What::Whole,
            scratch: Ranges::default(),
            note,
        }
    }
}

/// Returns the nodes, those of the volumes that were found first, and which of them are disks.
pub(super) fn build(volumes: &Volumes, keep_scratch: bool) -> Result<(Vec<Node>, Vec<usize>)> {
    let mut nodes = Vec::new();
    let mut disks = Vec::new();
    for (index, found) in volumes.list().iter().enumerate() {
        nodes.push(node(found, keep_scratch)?);
        if matches!(found.origin, Origin::Disk(_)) {
            disks.push(index);
        }
    }
    add_partitions(&mut nodes, volumes.list());
    add_opened(&mut nodes, volumes.list());
    for (array, members) in volumes.arrays() {
        for (below, share) in members {
            let free = 0..0;
            add_part(&mut nodes, *below, share.clone(), *array, free);
        }
    }
    for group in volumes.groups() {
        add_group(
            &mut nodes,
            &group.blueprint,
            &group.physical,
            &group.logical,
        );
    }
    Ok((nodes, disks))
}

fn node(found: &FoundVolume, keep_scratch: bool) -> Result<Node> {
    let mut node = Node {
        kind: found.content.kind.to_owned(),
        ..Node::whole(&found.name, found.len_bytes, None)
    };
    match what(found) {
        Ok(what) => node.what = what,
        Err(error) if is_ignorance(error.kind()) => node.note = Some(error.to_string()),
        Err(error) => return Err(error),
    }
    if let (What::FileSystem(fs, _), false) = (&node.what, keep_scratch) {
        match fs.scratch() {
            Ok(scratch) => node.scratch = scratch,
            Err(error) if is_ignorance(error.kind()) => node.note = Some(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    if matches!(node.what, What::Whole) && node.note.is_none() {
        node.note = note(found);
    }
    Ok(node)
}

/// Returns what tells what of a volume is in use by its own content.
fn what(found: &FoundVolume) -> Result<What> {
    let Some(volume) = &found.volume else {
        return Ok(What::Whole);
    };
    if let Some((fs, device)) = found.content.shared() {
        return Ok(What::FileSystem(Arc::clone(fs), *device));
    }
    if let Some(fs) = found.file_system() {
        let device = match found.content.kind {
            "btrfs" => btrfs::member(&**volume)?.map_or(0, |member| member.device),
            _ => 0,
        };
        return Ok(What::FileSystem(Arc::clone(fs), device));
    }
    Ok(match found.content.kind {
        "swap" => What::Swap(found.content.swap_header_bytes()),
        "exfat" => What::ExFat(ExFat::open(volume)?),
        _ => What::Whole,
    })
}

/// Says why a volume is taken as a whole.
fn note(found: &FoundVolume) -> Option<String> {
    let kind = found.content.kind;
    let what = match found.content.role {
        Role::Partitions | Role::Member => return None,
        Role::Encrypted if !found.remarks.is_empty() => found.remarks.join("; "),
        Role::Encrypted => format!("{kind}: it is encrypted, and what is free in it is not known"),
        Role::Swap => "a system is suspended to it".to_owned(),
        Role::FileSystem if found.file_system().is_none() && kind != "exfat" => {
            format!("hako does not read {kind}")
        }
        Role::FileSystem => return None,
        Role::Unknown => "what is in it is not known".to_owned(),
    };
    Some(what)
}

fn add_partitions(nodes: &mut [Node], list: &[FoundVolume]) {
    for (index, found) in list.iter().enumerate() {
        if let Origin::Partition { of, partition, .. } = &found.origin {
            let share = Share {
                start: partition.start,
                len: partition.len,
                at: 0,
                stripes: None,
            };
            add_part(nodes, *of, share, index, 0..0);
        }
    }
    // A table without partitions.
    for (node, found) in nodes.iter_mut().zip(list) {
        if found.content.role == Role::Partitions && matches!(node.what, What::Whole) {
            node.what = What::Parts {
                parts: Vec::new(),
                free: 0..0,
            };
        }
    }
}

/// Makes what is encrypted, and was opened, known by what is inside: it is copied as it is, encrypted.
fn add_opened(nodes: &mut [Node], list: &[FoundVolume]) {
    for (index, found) in list.iter().enumerate() {
        let Origin::Opened {
            of,
            start,
            unit_bytes,
            ..
        } = &found.origin
        else {
            continue;
        };
        let share = Share {
            start: *start,
            len: found.len_bytes,
            at: 0,
            stripes: None,
        };
        if let Some(node) = nodes.get_mut(*of) {
            node.note = None;
            let part = Part {
                share,
                node: index,
                unit: u64::from(*unit_bytes),
            };
            node.what = What::Parts {
                parts: vec![part],
                free: 0..0,
            };
        }
    }
}

/// Says that a run of `below` is a part of `above`. What tells by its own content what of it is in use
/// stays what it is.
fn add_part(nodes: &mut [Node], below: usize, share: Share, above: usize, free: Range<u64>) {
    let Some(node) = nodes.get_mut(below) else {
        return;
    };
    if matches!(node.what, What::Whole) {
        node.what = What::Parts {
            parts: Vec::new(),
            free,
        };
    }
    if let What::Parts { parts, .. } = &mut node.what {
        parts.push(Part {
            share,
            node: above,
            unit: 1,
        });
    }
}

/// Adds a volume group: its hidden volumes become nodes, its physical ones get parts. `physical` has
/// for each that was found its node, `logical` for each that is listed.
fn add_group(
    nodes: &mut Vec<Node>,
    blueprint: &Blueprint,
    physical: &[usize],
    logical: &[Option<usize>],
) {
    let mut of_logical = Vec::new();
    for (known, listed) in blueprint.logical.iter().zip(logical) {
        let index = listed.unwrap_or(nodes.len());
        match nodes.get_mut(index) {
            None => {
                let note = known.opaque.clone();
                let note = note.unwrap_or_else(|| "a volume of LVM's own".to_owned());
                nodes.push(Node::whole(&known.name, known.len, Some(note)));
            }
            Some(node) if known.opaque.is_some() => {
                node.what = What::Whole;
                node.scratch = Ranges::default();
                node.note.clone_from(&known.opaque);
            }
            Some(_) => {}
        }
        of_logical.push(index);
    }
    for known in &blueprint.physical {
        let node = physical.get(known.found).and_then(|at| nodes.get_mut(*at));
        if let (Some(node), Some(extents)) = (node, &known.extents)
            && matches!(node.what, What::Whole)
        {
            node.what = What::Parts {
                parts: Vec::new(),
                free: extents.clone(),
            };
        }
    }
    for (below, share, above) in &blueprint.parts {
        let below = match below {
            Below::Physical(found) => physical.get(*found).copied(),
            Below::Logical(index) => of_logical.get(*index).copied(),
        };
        let (Some(below), Some(above)) = (below, of_logical.get(*above)) else {
            continue;
        };
        add_part(nodes, below, share.clone(), *above, 0..0);
    }
}
