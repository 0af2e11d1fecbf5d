//! A volume group as its metadata describes it.

use std::collections::HashSet;

use hako_block::{Error, Result};

use super::text::{Section, Value};

/// A volume group.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) id: String,
    /// How often the metadata was written: the highest is the newest.
    pub(super) seqno: u64,
    pub(super) extent_bytes: u64,
    pub(super) physical: Vec<Physical>,
    pub(super) logical: Vec<Logical>,
}

/// A physical volume as the group knows it.
pub(super) struct Physical {
    /// What segments call it ("pv0").
    pub(super) name: String,
    /// Its identity without dashes.
    pub(super) id: String,
    /// Where its first extent begins.
    pub(super) start: u64,
    /// How many extents it has.
    pub(super) n_extents: u64,
    /// Whether the group was changed while it was away: what is on it is old.
    pub(super) is_missing: bool,
}

/// A logical volume.
pub(super) struct Logical {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) is_visible: bool,
    pub(super) segments: Vec<Part>,
    /// What kind of volume it is for people: "linear", "raid1", "thin".
    pub(super) kind: String,
    /// What it is, if it is not what its segments say: a snapshot's store.
    pub(super) refused: Option<&'static str>,
    /// Whether snapshots read from it what they do not have themselves.
    pub(super) has_snapshots: bool,
    /// Names in its segments that are not read: volumes that it may be on.
    pub(super) opaque_names: Vec<String>,
}

/// A run of extents of a logical volume.
pub(super) struct Part {
    pub(super) n_extents: u64,
    pub(super) layout: Layout,
}

/// A place: a physical or logical volume by its name in the text, and an extent of it.
pub(super) struct Area {
    pub(super) name: String,
    pub(super) extent: u64,
}

/// How a run is laid out.
pub(super) enum Layout {
    Striped {
        areas: Vec<Area>,
        stripe_bytes: u64,
    },
    /// dm-mirror: the images, and the volume that tells which are in sync.
    Mirror {
        areas: Vec<Area>,
        log: Option<String>,
    },
    /// dm-raid: pairs of metadata and image.
    Raid1(Vec<(Option<String>, Area)>),
    Zero,
    /// What hako does not read, by LVM's name.
    Unsupported(String),
}

impl Group {
    /// Reads the group out of a text: the section that is one.
    pub(super) fn read(text: &Section) -> Result<Self> {
        let missing = |what: &str| Error::corrupt("LVM metadata", format!("no {what}"));
        let (name, section) = text
            .sections()
            .find(|(_, section)| section.value("extent_size").is_some())
            .ok_or_else(|| missing("volume group"))?;
        let extent_bytes = section
            .number("extent_size")
            .and_then(|sectors| sectors.checked_mul(512))
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| missing("extent_size"))?;
        let sections = |key: &str| section.section(key).into_iter().flat_map(Section::sections);
        let mut logical = sections("logical_volumes")
            .map(|(name, volume)| Logical::read(name, volume))
            .collect::<Result<Vec<_>>>()?;
        mark_snapshots(
            &mut logical,
            sections("logical_volumes").map(|(_, volume)| volume),
        );
        Ok(Self {
            name: name.to_owned(),
            id: section.text("id").ok_or_else(|| missing("id"))?.to_owned(),
            seqno: section.number("seqno").ok_or_else(|| missing("seqno"))?,
            extent_bytes,
            physical: sections("physical_volumes")
                .map(|(name, volume)| Physical::read(name, volume))
                .collect::<Result<_>>()?,
            logical,
        })
    }
}

impl Physical {
    fn read(name: &str, section: &Section) -> Result<Self> {
        let missing = |what| Error::corrupt("LVM metadata", format!("{name}: no {what}"));
        let start = section.number("pe_start").unwrap_or(0);
        let id = section.text("id").ok_or_else(|| missing("id"))?;
        Ok(Self {
            name: name.to_owned(),
            id: id.replace('-', ""),
            start: start
                .checked_mul(512)
                .ok_or_else(|| missing("possible pe_start"))?,
            n_extents: section.number("pe_count").unwrap_or(0),
            is_missing: section.has("status", "MISSING") || section.has("flags", "MISSING"),
        })
    }
}

impl Logical {
    fn read(name: &str, section: &Section) -> Result<Self> {
        let corrupt = |what: String| Error::corrupt("LVM metadata", format!("{name}: {what}"));
        let mut runs: Vec<(u64, Part, String)> = Vec::new();
        let mut opaque_names = Vec::new();
        for (key, segment) in section.sections() {
            if !key.starts_with("segment") {
                continue;
            }
            let start = segment.number("start_extent");
            let count = segment.number("extent_count");
            let (Some(start), Some(n_extents)) = (start, count) else {
                return Err(corrupt(format!("{key} has no place")));
            };
            let (layout, kind) = Layout::read(segment);
            if matches!(layout, Layout::Unsupported(_)) {
                opaque_names.extend(segment.texts().map(str::to_owned));
            }
            runs.push((start, Part { n_extents, layout }, kind));
        }
        runs.sort_by_key(|(start, ..)| *start);
        let mut end: u64 = 0;
        for (start, part, _) in &runs {
            if *start != end {
                return Err(corrupt(format!("nothing is at extent {end}")));
            }
            end = end
                .checked_add(part.n_extents)
                .ok_or_else(|| corrupt("too many extents".to_owned()))?;
        }
        let unsupported = runs
            .iter()
            .find(|(_, part, _)| matches!(part.layout, Layout::Unsupported(_)));
        let kind = unsupported
            .or(runs.first())
            .map(|(_, _, kind)| kind.clone());
        Ok(Self {
            name: name.to_owned(),
            uuid: section.text("id").unwrap_or_default().to_owned(),
            is_visible: section.has("status", "VISIBLE"),
            kind: kind.unwrap_or_default(),
            segments: runs.into_iter().map(|(_, part, _)| part).collect(),
            refused: None,
            has_snapshots: false,
            opaque_names,
        })
    }

    /// Returns how many extents it has.
    pub(super) fn n_extents(&self) -> u64 {
        let extents = self.segments.iter().map(|part| part.n_extents);
        extents.fold(0, u64::saturating_add)
    }
}

impl Layout {
    /// Reads the layout of a segment, and what it is called.
    fn read(segment: &Section) -> (Self, String) {
        let kind = segment.text("type").unwrap_or("unknown");
        // LVM adds flags to a name: "raid1+…".
        let plain = kind.split('+').next().unwrap_or(kind);
        let named = || Layout::Unsupported(kind.to_owned());
        let layout = match plain {
            _ if plain != kind => named(),
            "striped" | "linear" => Self::striped(segment).unwrap_or_else(named),
            "mirror" => match areas(segment.list("mirrors")) {
                Some(areas) if !areas.is_empty() => Layout::Mirror {
                    areas,
                    log: segment.text("mirror_log").map(str::to_owned),
                },
                _ => named(),
            },
            "raid1" => Self::raid1(segment).unwrap_or_else(named),
            "zero" => Layout::Zero,
            _ => named(),
        };
        let shown = match &layout {
            Layout::Striped { areas, .. } if areas.len() == 1 => "linear",
            _ => kind,
        };
        let shown = shown.to_owned();
        (layout, shown)
    }

    fn striped(segment: &Section) -> Option<Self> {
        let areas = areas(segment.list("stripes"))?;
        let stripe_bytes = segment
            .number("stripe_size")
            .unwrap_or(0)
            .checked_mul(512)?;
        let is_possible = areas.len() == 1 || (areas.len() > 1 && stripe_bytes > 0);
        is_possible.then_some(Layout::Striped {
            areas,
            stripe_bytes,
        })
    }

    fn raid1(segment: &Section) -> Option<Self> {
        // Older LVM gives image volumes with extents ("raids"), which are volumes by name here too.
        let names: Vec<&str> = segment
            .list("raids")
            .iter()
            .filter_map(|value| match value {
                Value::Text(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let pairs = names.chunks_exact(2).map(|pair| {
            let image = Area {
                name: pair.get(1).copied().unwrap_or_default().to_owned(),
                extent: 0,
            };
            let meta = pair.first().map(|name| (*name).to_owned());
            (meta.filter(|name| !name.is_empty()), image)
        });
        let pairs: Vec<_> = pairs.collect();
        (!pairs.is_empty()).then_some(Layout::Raid1(pairs))
    }
}

/// Reads `["pv0", 0, "pv1", 7]`.
fn areas(list: &[Value]) -> Option<Vec<Area>> {
    let pair = |pair: &[Value]| match pair {
        [Value::Text(name), Value::Number(extent)] => Some(Area {
            name: name.clone(),
            extent: u64::try_from(*extent).ok()?,
        }),
        _ => None,
    };
    list.chunks(2).map(pair).collect()
}

/// A snapshot's volume holds what its origin has overwritten since: it looks like a linear one, and is
/// none. Nor is an origin that a snapshot is being merged into.
fn mark_snapshots<'a>(logical: &mut [Logical], sections: impl Iterator<Item = &'a Section>) {
    let mut stores = HashSet::new();
    let mut merging = HashSet::new();
    let mut origins = HashSet::new();
    for (_, segment) in sections.flat_map(Section::sections) {
        if segment.text("type") == Some("snapshot") {
            stores.extend(segment.text("cow_store"));
            origins.extend(segment.text("origin"));
            if segment.text("merging_store").is_some() {
                stores.extend(segment.text("merging_store"));
                merging.extend(segment.text("origin"));
            }
        }
    }
    for volume in logical {
        let name = volume.name.as_str();
        volume.has_snapshots = origins.contains(name);
        volume.refused = match (stores.contains(name), merging.contains(name)) {
            (true, _) => Some("snapshot"),
            (_, true) => Some("snapshot-merge"),
            _ => None,
        };
        if let Some(what) = volume.refused {
            volume.kind = what.to_owned();
        }
    }
}
