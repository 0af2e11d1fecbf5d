//! What of which physical volume is a part of which logical one, hidden ones among them: the way from
//! below, which a map of what is in use goes.

use std::ops::Range;

use super::group::{Area, Group, Layout, Logical};
use super::{Found, newest_groups};
use crate::mapped::{Share, Stripes};

/// A volume group as seen from its physical volumes.
pub(crate) struct Blueprint {
    pub(crate) physical: Vec<Physical>,
    pub(crate) logical: Vec<Above>,
    /// What lies where. Bytes of extents in none of these are free.
    pub(crate) parts: Vec<(Below, Share, usize)>,
}

/// A physical volume.
pub(crate) struct Physical {
    /// Which of those that were found.
    pub(crate) found: usize,
    /// Its extents. What is before and behind them is LVM's own; none are known if what lies on them
    /// is not.
    pub(crate) extents: Option<Range<u64>>,
}

/// A logical volume.
pub(crate) struct Above {
    pub(crate) name: String,
    pub(crate) len: u64,
    /// Why its own content does not tell what of it is in use, if it does not.
    pub(crate) opaque: Option<String>,
}

/// What a part is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    /// The physical volume that was found as the so manieth.
    Physical(usize),
    /// The so manieth logical volume of the group.
    Logical(usize),
}

/// Returns the groups on these physical volumes, in the order of [`super::assemble`].
pub(crate) fn blueprints(found: &[Found]) -> Vec<Blueprint> {
    let groups = newest_groups(found, &mut Vec::new());
    groups.iter().map(|group| blueprint(group, found)).collect()
}

fn blueprint(group: &Group, found: &[Found]) -> Blueprint {
    let mut blueprint = Blueprint {
        physical: physical(group, found),
        logical: group
            .logical
            .iter()
            .map(|known| above(known, group))
            .collect(),
        parts: Vec::new(),
    };
    for (index, logical) in group.logical.iter().enumerate() {
        if add_parts(&mut blueprint.parts, index, logical, (group, found)).is_none() {
            // Somewhere there is more of it than bytes can be counted: nothing is free.
            for physical in &mut blueprint.physical {
                physical.extents = None;
            }
        }
    }
    blueprint
}

fn above(logical: &Logical, group: &Group) -> Above {
    let opaque = match (logical.refused, logical.has_snapshots) {
        (Some(what), _) => Some(format!("LVM's {what} is not read")),
        (None, true) => Some("snapshots read from it what it has marked as free".to_owned()),
        (None, false) => None,
    };
    Above {
        name: logical.name.clone(),
        len: logical.n_extents().saturating_mul(group.extent_bytes),
        opaque,
    }
}

fn physical(group: &Group, found: &[Found]) -> Vec<Physical> {
    let opaque = || {
        group
            .logical
            .iter()
            .flat_map(|logical| &logical.opaque_names)
    };
    let mut all = Vec::new();
    for known in &group.physical {
        let index = found.iter().position(|found| found.label.id == known.id);
        let Some(index) = index.filter(|_| !known.is_missing) else {
            continue;
        };
        let len = known.n_extents.checked_mul(group.extent_bytes);
        let end = len.and_then(|len| known.start.checked_add(len));
        let is_opaque = opaque().any(|name| *name == known.name);
        all.push(Physical {
            found: index,
            extents: end.filter(|_| !is_opaque).map(|end| known.start..end),
        });
    }
    all
}

/// Adds what a logical volume lies on; none if that cannot be counted.
fn add_parts(
    parts: &mut Vec<(Below, Share, usize)>,
    index: usize,
    logical: &Logical,
    (group, found): (&Group, &[Found]),
) -> Option<()> {
    let mut at: u64 = 0;
    for segment in &logical.segments {
        let len = segment.n_extents.checked_mul(group.extent_bytes)?;
        let mut add = |area: &Area, len: u64, stripes: Option<Stripes>| {
            if let Some((below, first)) = below(area, group, found) {
                let offset = area.extent.checked_mul(group.extent_bytes)?;
                let start = first.checked_add(offset)?;
                start.checked_add(len)?;
                let share = Share {
                    start,
                    len,
                    at,
                    stripes,
                };
                parts.push((below, share, index));
            }
            Some(())
        };
        match &segment.layout {
            Layout::Striped { areas, .. } if areas.len() == 1 => add(areas.first()?, len, None)?,
            Layout::Striped {
                areas,
                stripe_bytes,
            } => {
                let n = areas.len() as u64;
                let share = len.div_ceil(*stripe_bytes).div_ceil(n);
                let share = share.checked_mul(*stripe_bytes)?;
                for (area, which) in areas.iter().zip(0..) {
                    let bytes = *stripe_bytes;
                    add(area, share, Some(Stripes { bytes, n, which }))?;
                }
            }
            Layout::Mirror { areas, .. } => {
                for area in areas {
                    add(area, len, None)?;
                }
            }
            Layout::Raid1(pairs) => {
                for (_, image) in pairs {
                    add(image, len, None)?;
                }
            }
            Layout::Zero | Layout::Unsupported(_) => {}
        }
        at = at.checked_add(len)?;
    }
    Some(())
}

/// Returns what an area is in, and where its first extent is there; none if that is not there.
fn below(area: &Area, group: &Group, found: &[Found]) -> Option<(Below, u64)> {
    if let Some(known) = group.physical.iter().find(|known| known.name == area.name) {
        let index = found.iter().position(|found| found.label.id == known.id);
        return index.map(|index| (Below::Physical(index), known.start));
    }
    let mut logical = group.logical.iter();
    let index = logical.position(|logical| logical.name == area.name)?;
    Some((Below::Logical(index), 0))
}
