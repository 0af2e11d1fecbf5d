//! What is wrong with a machine's images: which are missing, written to though they are needed, or
//! nobody's.

use std::collections::BTreeSet;
use std::path::Path;

use hako_block::{Error, ErrorKind, Result};
use hako_formats::vmx::Encryption;

use super::Look;
use super::finding::{Finding, Remedy, Trouble};
use super::list::called;
use super::parents;
use crate::snapshot::graph::{Holder, Image, Reference};
use crate::snapshot::plan::{TreeImage, Use, needed, plan};

/// Looks at the images and at what refers to them.
pub(super) fn look(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings: Vec<Finding> = Vec::new();
    findings.extend(
        look.graph
            .references
            .iter()
            .filter_map(|reference| missing(look, reference)),
    );
    for (path, error) in &look.graph.unreadable {
        findings.push(damaged(look, path, error));
    }
    for image in &look.graph.images {
        if let Some(error) = &image.damage {
            findings.push(damaged(look, &image.path, error));
        }
    }
    findings.extend(parents::look(look)?);
    findings.extend(written_and_needed(look));
    findings.extend(refused(look, &findings));
    let tree = look.graph.tree(&[]);
    findings.extend(without_entry(look, &tree));
    findings.extend(to_consolidate(look, &tree));
    findings.extend(unreferenced(look, &tree));
    Ok(findings)
}

pub(super) fn finding(
    look: &Look<'_>,
    path: &Path,
    trouble: Trouble,
    what: String,
    advice: String,
) -> Finding {
    Finding {
        trouble,
        file: look.name_of(path),
        what,
        advice,
        remedy: None,
    }
}

/// Returns who refers, as messages say it.
fn who(look: &Look<'_>, by: &Holder) -> String {
    match by {
        Holder::Present { node, .. } => format!("the machine, at {node},"),
        Holder::Snapshot { uid, node } => {
            let snapshot = look.snapshots.iter().find(|one| one.uid == *uid);
            let snapshot = snapshot.map_or(format!("snapshot {uid}"), called);
            format!("{snapshot}, at {node},")
        }
        Holder::Machine(name) => format!("the machine {name:?}"),
        Holder::Unread => "a line of the VMX or the list that is not in force".to_owned(),
    }
}

/// Returns a reference that leads nowhere, or to what cannot be read.
fn missing(look: &Look<'_>, reference: &Reference) -> Option<Finding> {
    let error = reference.image.as_ref().err()?;
    let by = who(look, &reference.by);
    let (trouble, advice) = match (&reference.by, error.kind()) {
        (Holder::Machine(_), _) => {
            let advice = "take it out of the inventory if it is gone for good: hako vm unregister";
            (Trouble::SharedDisk, advice.to_owned())
        }
        (Holder::Present { .. }, ErrorKind::NotFound) => {
            let advice = "put the file back, from a backup or from where it was moved to";
            (Trouble::MissingDisk, advice.to_owned())
        }
        (Holder::Snapshot { uid, .. }, ErrorKind::NotFound) => {
            let advice = format!(
                "put the file back, from a backup or from where it was moved to; if it is lost, \
                 take the entry away: hako snapshot delete VM {uid} --yes"
            );
            (Trouble::EntryWithoutFile, advice)
        }
        _ => (
            Trouble::Damaged,
            hint_or(error, "put it back from a backup"),
        ),
    };
    let what = match error.kind() {
        ErrorKind::NotFound => format!("{by} names it, and it is not there"),
        _ => format!("{by} names it: {}", error.finding()),
    };
    Some(Finding {
        trouble,
        file: reference.file.clone(),
        what,
        advice,
        remedy: None,
    })
}

pub(super) fn hint_or(error: &Error, advice: &str) -> String {
    error.hint_text().unwrap_or(advice).to_owned()
}

fn damaged(look: &Look<'_>, path: &Path, error: &Error) -> Finding {
    let advice = "put back what is missing; else look what can be mended: hako disk check FILE";
    let what = error.finding();
    finding(look, path, Trouble::Damaged, what, advice.to_owned())
}

pub(super) fn stores_nothing(look: &Look<'_>, image: &Image) -> bool {
    let subject = image.as_named(look.vm).subject(look.vm);
    let subject = subject.map(|mut subject| {
        subject.open.rules.no_lock = true;
        subject
    });
    subject.is_ok_and(|subject| hako_disk::is_empty(&subject).unwrap_or(false))
}

/// Returns disks that the machine writes to although something else needs their content.
fn written_and_needed(look: &Look<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, index) in look.present() {
        let image = &look.graph.images[index];
        let mut others = look.graph.references.iter().filter(|other| {
            other.image.as_ref().ok() == Some(&index) && !matches!(other.by, Holder::Present { .. })
        });
        let snapshot = others
            .clone()
            .find(|other| matches!(other.by, Holder::Snapshot { .. }));
        let overlay = look
            .graph
            .images
            .iter()
            .find(|other| other.parent() == Some(index));
        let protect = (image.is_own && image.damage.is_none()).then_some(Remedy::Protect(node));
        let found =
            if let Some(snapshot) = snapshot {
                let what = format!(
                    "the machine writes to it, and {} holds it",
                    who(look, &snapshot.by)
                );
                let advice = "`--repair` puts an empty overlay on it, which the machine writes to \
                          instead; if it has run since, the snapshot may have changed already";
                Some((Trouble::HeldDisk, what, advice.to_owned(), protect))
            } else if let Some(other) = others.next() {
                let what = format!("{} uses it, too, or stands on it", who(look, &other.by));
                let advice = "give one of them a disk of its own: hako vm clone";
                Some((Trouble::SharedDisk, what, advice.to_owned(), None))
            } else {
                overlay.map(|overlay| {
                let what = format!("the machine writes to it, and {} stands on it", overlay.name());
                let advice = format!(
                    "look which of them is the present state, before the machine is started; if \
                     it is the overlay, name that: hako vm set VM {node}.fileName={}",
                    overlay.name()
                );
                (Trouble::HeldDisk, what, advice, None)
            })
            };
        findings.extend(found.map(|(trouble, what, advice, remedy)| Finding {
            remedy,
            ..finding(look, &image.path, trouble, what, advice)
        }));
    }
    findings
}

/// Returns disks that do not open for a reason that none of the findings gives.
fn refused(look: &Look<'_>, findings: &[Finding]) -> Vec<Finding> {
    let told: BTreeSet<&str> = findings
        .iter()
        .map(|finding| finding.file.as_str())
        .collect();
    let mut refused = Vec::new();
    for disk in look.disks() {
        let Some(error) = look.vm.look_at(&disk).err() else {
            continue;
        };
        let layers = look.vm.layers_of(&disk);
        let mut names = layers.iter().map(|layer| match layer {
            Ok(layer) => look.name_of(Path::new(layer.args.storage.name())),
            Err(path) => look.name_of(path),
        });
        let is_told =
            told.contains(disk.file.as_str()) || names.any(|name| told.contains(name.as_str()));
        if !is_told {
            let advice = hint_or(&error, "look closer: hako disk info FILE");
            refused.push(Finding {
                trouble: Trouble::Damaged,
                file: disk.file.clone(),
                what: format!("it does not open: {error}"),
                advice,
                remedy: None,
            });
        }
    }
    refused
}

/// Returns overlays that the machine runs on, over an image that no snapshot holds.
fn without_entry(look: &Look<'_>, tree: &[TreeImage]) -> Vec<Finding> {
    let is_needed = needed(tree);
    let mut found = BTreeSet::new();
    for (_, index) in look.present() {
        for image in look.graph.chain_of(index) {
            let Some(parent) = tree[image].parent else {
                continue;
            };
            let mut overlays = (0..tree.len()).filter(|other| tree[*other].parent == Some(parent));
            let n_needed = overlays.by_ref().filter(|other| is_needed[*other]).count();
            let is_free = tree[parent].used_by == Use::Nobody && tree[parent].is_own;
            // What a clone stands on is never merged into its parent.
            let is_own = tree[image].used_by != Use::Others;
            if is_free && is_own && tree[image].is_delta && n_needed == 1 {
                found.insert((image, parent));
            }
        }
    }
    let list = match look.vmsd.is_some() && !look.snapshots.is_empty() {
        true => "no snapshot holds",
        false => "no snapshot holds (the list of snapshots is empty or missing)",
    };
    let found = found.into_iter().map(|(image, parent)| {
        let image = &look.graph.images[image];
        let parent = look.graph.images[parent].name();
        let what = format!("the machine runs on it, and it stands on {parent}, which {list}");
        let advice = "if the list of snapshots was lost, put it back first; else merge it: hako \
                      snapshot consolidate VM";
        finding(
            look,
            &image.path,
            Trouble::DeltaWithoutEntry,
            what,
            advice.to_owned(),
        )
    });
    found.collect()
}

/// Returns that the list asks for consolidation.
fn to_consolidate(look: &Look<'_>, tree: &[TreeImage]) -> Option<Finding> {
    look.vmsd
        .as_ref()
        .filter(|vmsd| vmsd.needs_consolidation())?;
    let plan = plan(tree, look.graph.shown());
    let is_nothing_to_do = plan.is_empty() && plan.kept.is_empty();
    let (what, advice) = match is_nothing_to_do {
        true => (
            "snapshot.needConsolidate is TRUE, and there is nothing to merge",
            "`--repair` says so in the list, and keeps a copy of that",
        ),
        false => (
            "snapshot.needConsolidate is TRUE",
            "merge what is left: hako snapshot consolidate VM",
        ),
    };
    let path = look.vm.vmsd_path();
    Some(Finding {
        remedy: is_nothing_to_do.then_some(Remedy::NeedsNothing),
        ..finding(
            look,
            &path,
            Trouble::NeedsConsolidation,
            what.to_owned(),
            advice.to_owned(),
        )
    })
}

/// Returns overlays that nothing refers to.
fn unreferenced(look: &Look<'_>, tree: &[TreeImage]) -> Vec<Finding> {
    let is_needed = needed(tree);
    let mut findings = Vec::new();
    for (index, image) in look.graph.images.iter().enumerate() {
        if is_needed[index]
            || !image.is_own
            || image.info.parent.is_none()
            || look.pending.is_some()
        {
            continue;
        }
        let is_leaf = tree.iter().all(|other| other.parent != Some(index));
        let is_empty = stores_nothing(look, image);
        let below = image
            .parent()
            .map(|parent| look.graph.images[parent].name());
        let below = below.map_or(String::new(), |name| format!(", and it stands on {name}"));
        let stored = match is_empty {
            true => "nothing is stored in it".to_owned(),
            false => format!("it takes {} bytes", image.info.allocated_size),
        };
        let may_go = is_leaf && is_empty && image.damage.is_none() && look.knows_all();
        let (advice, remedy) = match may_go {
            true => (
                "`--repair` removes it: it shows what its parent shows".to_owned(),
                Some(Remedy::RemoveEmpty(image.as_named(look.vm))),
            ),
            false => (
                format!(
                    "look what is in it (hako disk info {0}; a machine can name it: hako vm set); if \
                     it is not needed: hako disk delete {0}",
                    image.name()
                ),
                None,
            ),
        };
        findings.push(Finding {
            remedy,
            ..finding(
                look,
                &image.path,
                Trouble::UnreferencedDelta,
                format!("nothing refers to it; {stored}{below}"),
                advice,
            )
        });
    }
    findings
}

impl Look<'_> {
    /// Returns whether what the machine and its snapshots name is known: a list that is missing or
    /// empty may have been lost.
    fn knows_all(&self) -> bool {
        let has_list = self
            .vmsd
            .as_ref()
            .is_some_and(|vmsd| vmsd.last_uid().is_some());
        has_list && self.vm.vmx.encryption() != Encryption::Full
    }

    /// Returns the disks that the machine and its snapshots name, as far as they are there.
    fn disks(&self) -> Vec<hako_formats::machine::DiskMedium> {
        let mut disks = self.vm.all_disks().unwrap_or_default();
        let references = &self.graph.references;
        disks.retain(|disk| {
            let mut of_disk = references.iter().filter(|one| one.file == disk.file);
            of_disk.all(|reference| reference.image.is_ok())
        });
        disks
    }
}
