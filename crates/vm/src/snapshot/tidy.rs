//! A plan for a machine's images on its way to the disk: what it means by name, what it costs, and
//! whether anything stands in its way. All of that is known before the first byte is written.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, Result, Value, free_bytes};
use hako_disk::check_merge;
use hako_formats::vmsd::{SnapshotDisk, Vmsd};
use hako_formats::{fits, open_chain};

use super::cost::Cost;
use super::graph::{Graph, Holder, Image};
use super::journal::{DiskChange, Journal, Merge, Relink};
use super::name::ImageName;
use super::plan::{Plan, Stays};
use crate::Vm;

/// An image that is merged into another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMerge {
    /// The overlay, as the machine's texts name it.
    pub image: String,
    /// What takes it in.
    pub into: String,
    /// How many bytes that moves.
    pub bytes: u64,
}

/// What is to be done to a machine's images.
pub(crate) struct Tidying {
    /// Overlays that are merged, in this order.
    pub merges: Vec<Merge>,
    /// What each merge costs.
    pub costs: Vec<Cost>,
    /// Overlays that stay and get another parent.
    relinks: Vec<Relink>,
    /// Who refers to an image that is another one now.
    moved: Vec<(Holder, String, ImageName)>,
    /// Files of images that go, an overlay before its parent and of each the main file last; as
    /// seen from the machine's folder.
    pub removed: Vec<String>,
    /// What stays that one might expect to go, and why.
    pub kept: Vec<String>,
}

impl Tidying {
    /// Puts names to a plan, and looks whether it can be carried out. Nothing is changed.
    pub(crate) fn of(vm: &Vm, graph: &Graph, plan: &Plan) -> Result<Self> {
        if !plan.is_empty() {
            refuse_unreadable(graph)?;
            refuse_strays(graph, plan)?;
        }
        let image = |index: usize| graph.images[index].as_named(vm);
        let merges = plan.merges.iter().map(|(child, parent)| Merge {
            child: image(*child),
            parent: image(*parent),
        });
        let merges: Vec<Merge> = merges.collect();
        let relinks = plan.relinks.iter().map(|(overlay, parent)| Relink {
            overlay: image(*overlay),
            parent: image(*parent),
        });
        let removed = plan.removed.iter().flat_map(|index| {
            let files = graph.images[*index].files.iter().rev();
            files.map(|file| name_in(vm, file))
        });
        let costs = merges.iter().map(|merge| merge.cost(vm));
        let tidying = Self {
            costs: costs.collect::<Result<_>>()?,
            merges,
            relinks: relinks.collect(),
            moved: moved(vm, graph, plan),
            removed: removed.collect(),
            kept: kept(graph, plan),
        };
        tidying.refuse_obstacles(vm)?;
        for index in &plan.removed {
            refuse_more_than_content(&graph.images[*index])?;
        }
        tidying.refuse_no_room(vm)?;
        Ok(tidying)
    }

    /// Makes a list of snapshots name the images that hold what its entries hold.
    pub(crate) fn tell_list(&self, vmsd: &mut Vmsd) -> Result<()> {
        for (by, _, image) in &self.moved {
            if let Holder::Snapshot { uid, node } = by {
                let disk = SnapshotDisk {
                    node: *node,
                    file: image.file.clone(),
                    format: image.format_in_text().map(str::to_owned),
                };
                vmsd.set_disk(*uid, &disk)?;
            }
        }
        Ok(())
    }

    /// Adds what is to be done to a journal.
    pub(crate) fn tell_journal(&self, journal: &mut Journal) {
        journal.merges.extend(self.merges.iter().cloned());
        journal.relinks.extend(self.relinks.iter().cloned());
        journal.remove.extend(self.removed.iter().cloned());
        for (by, old, image) in &self.moved {
            if let Holder::Present { node, .. } = by {
                journal.disks.push(DiskChange {
                    node: *node,
                    old: Some(old.clone()),
                    new: Some(image.clone()),
                });
            }
        }
    }

    /// Refuses what would fail on the way: images that are locked, may not or cannot be written,
    /// or do not fit together.
    fn refuse_obstacles(&self, vm: &Vm) -> Result<()> {
        let relinked = self.relinks.iter().map(|relink| &relink.overlay);
        for overlay in relinked.chain(self.merges.iter().map(|merge| &merge.child)) {
            // With all that it stands on: an overlay that does not fit its parent must not be
            // merged into that.
            let subject = overlay.subject(vm)?;
            drop(open_chain(&subject.path, &subject.open)?);
        }
        for merge in &self.merges {
            check_merge(&merge.request(vm)?)?;
        }
        Ok(())
    }

    /// Returns which images are merged into which.
    pub(crate) fn image_merges(&self) -> Vec<ImageMerge> {
        let merges = self.merges.iter().zip(&self.costs);
        let merges = merges.map(|(merge, cost)| ImageMerge {
            image: merge.child.file.clone(),
            into: merge.parent.file.clone(),
            bytes: cost.data_bytes,
        });
        merges.collect()
    }

    /// Refuses to begin if the images that grow will not fit.
    fn refuse_no_room(&self, vm: &Vm) -> Result<()> {
        let mut needed: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
        for (merge, cost) in self.merges.iter().zip(&self.costs) {
            let path = merge.parent.path(vm)?;
            let metadata = std::fs::metadata(&path)
                .map_err(|error| Error::io("look at", error).in_file(&path))?;
            let of_device = needed.entry(metadata.dev()).or_insert((path, 0));
            // Tables grow with what they are about.
            let growth = cost.growth_bytes.saturating_add(cost.growth_bytes / 256);
            of_device.1 = of_device.1.saturating_add(growth);
        }
        for (path, needed) in needed.into_values() {
            let free = free_bytes(&path)?;
            if free < needed {
                let what = format!("merging takes up to {needed} bytes, and {free} are free");
                return Err(Error::new(ErrorKind::NoSpace, what)
                    .in_file(path)
                    .hint("make room first; nothing was changed"));
            }
        }
        Ok(())
    }
}

/// Says how to go on with what was begun and failed, or was cancelled.
pub(crate) fn unfinished(error: Error) -> Error {
    error.hint("it has begun: `hako snapshot doctor VM --repair` completes it")
}

impl Image {
    /// Returns it as the machine's texts are to name it.
    pub(crate) fn as_named(&self, vm: &Vm) -> ImageName {
        ImageName {
            file: name_in(vm, &self.path),
            format: self.format.to_owned(),
        }
    }
}

/// Returns the name of a file as the machine's texts are to call it.
pub(crate) fn name_in(vm: &Vm, path: &Path) -> String {
    let name = path.strip_prefix(vm.folder()).unwrap_or(path);
    name.to_string_lossy().into_owned()
}

/// Refuses to go on where something looks like an image and cannot be read.
fn refuse_unreadable(graph: &Graph) -> Result<()> {
    match graph.unreadable.first() {
        None => Ok(()),
        Some((path, error)) => Err(Error::corrupt(
            error.finding(),
            "whether this image stands on one that would go cannot be told",
        )
        .in_file(path)
        .hint("mend it (hako disk check --repair), or put it into another folder")),
    }
}

/// Refuses to merge into what an overlay may have been made on that stays and has lost its parent,
/// or names one of other content: put right it would show something else than it did.
fn refuse_strays(graph: &Graph, plan: &Plan) -> Result<()> {
    for (index, overlay) in graph.images.iter().enumerate() {
        let Some(link) = &overlay.info.parent else {
            continue;
        };
        let named = overlay.parent().filter(|parent| *parent != index);
        let is_placed = named.is_some_and(|parent| fits(link, &graph.images[parent].info));
        if is_placed || plan.removed.contains(&index) {
            continue;
        }
        let may_be_its = |target: &&usize| {
            let info = &graph.images[**target].info;
            named != Some(**target) && (link.content_id.is_none() || fits(link, info))
        };
        let mut targets = plan.merges.iter().map(|(_, into)| into);
        if let Some(target) = targets.find(may_be_its) {
            let what = format!(
                "it may stand on {}, which would change: its parent is missing, or another one",
                graph.images[*target].name()
            );
            return Err(Error::new(ErrorKind::Corrupt, what)
                .in_file(&overlay.path)
                .hint("`hako snapshot doctor VM` tells more, and may mend it"));
        }
    }
    Ok(())
}

fn moved(vm: &Vm, graph: &Graph, plan: &Plan) -> Vec<(Holder, String, ImageName)> {
    let to: BTreeMap<usize, usize> = plan.moved.iter().copied().collect();
    let references = graph.references.iter();
    let moved = references.filter_map(|reference| {
        let now = to.get(reference.image.as_ref().ok()?)?;
        let image = graph.images[*now].as_named(vm);
        Some((reference.by.clone(), reference.file.clone(), image))
    });
    moved.collect()
}

/// Says why images stay that nobody needs, one sentence each.
fn kept(graph: &Graph, plan: &Plan) -> Vec<String> {
    let name = |index: usize| graph.images[index].name();
    let sentence = |(index, why): &(usize, Stays)| {
        let image = name(*index);
        match why {
            Stays::Branches(n) => {
                format!("{image} stays: {n} images stand on it; it goes when one of them is left")
            }
            Stays::UsedByOthers(overlay) => format!(
                "{image} stays: {} stands on it, and another machine needs that as it is",
                name(*overlay)
            ),
            Stays::NoSnapshot(overlay) => format!(
                "{image} stays: {} stands on it, which no snapshot has made; \
                 `hako disk commit` merges it",
                name(*overlay)
            ),
            Stays::Unreferenced(overlay) => format!(
                "{image} stays: {} stands on it, to which nothing refers; \
                 `hako snapshot doctor` tells more",
                name(*overlay)
            ),
        }
    };
    plan.kept.iter().map(sentence).collect()
}

/// Refuses to remove an image with snapshots of its own inside.
fn refuse_more_than_content(image: &Image) -> Result<()> {
    let has = |key: &str| {
        let found = image.info.details.iter().find(|(name, _)| *name == key);
        found.is_some_and(|(_, value)| !matches!(value, Value::List(list) if list.is_empty()))
    };
    match ["snapshots", "bitmaps"].into_iter().find(|key| has(key)) {
        None => Ok(()),
        Some(key) => Err(Error::unsupported(format!(
            "the image has {key} inside, which would be lost with it"
        ))
        .in_file(&image.path)
        .hint("remove them first: qemu-img snapshot -d, qemu-img bitmap --remove")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::World;

    #[test]
    fn what_would_not_fit_is_refused_before_it_begins() {
        let world = World::new();
        world.chain(&["web.vmdk", "web-000001.vmdk"]);
        world.vmx(&["web-000001.vmdk"]);
        let image = |file: &str| ImageName {
            file: file.to_owned(),
            format: "vmdk".to_owned(),
        };
        let growing = |growth_bytes: u64| Tidying {
            merges: vec![Merge {
                child: image("web-000001.vmdk"),
                parent: image("web.vmdk"),
            }],
            costs: vec![Cost {
                data_bytes: growth_bytes,
                growth_bytes,
            }],
            relinks: Vec::new(),
            moved: Vec::new(),
            removed: Vec::new(),
            kept: Vec::new(),
        };
        growing(1).refuse_no_room(&world.vm()).unwrap();
        for bytes in [1 << 60, u64::MAX] {
            let error = growing(bytes).refuse_no_room(&world.vm()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace);
        }
    }
}
