//! What is wrong between overlays and their parents: a parent that is missing, or has other content
//! than the overlay was made on, and merges that were cut off.

use std::path::{Path, PathBuf};

use hako_block::{ContentId, ParentLink, Result};
use hako_formats::fits;

use super::Look;
use super::files::notes_of_commits;
use super::finding::{Finding, Remedy, Trouble};
use super::images::{finding, hint_or, stores_nothing};
use crate::snapshot::graph::{Below, Graph, Holder, Image};

/// Looks at every overlay.
pub(super) fn look(look: &Look<'_>) -> Result<Vec<Finding>> {
    let notes = notes_of_commits(look.vm)?;
    let mut findings = Vec::new();
    for index in 0..look.graph.images.len() {
        findings.extend(lost_parent(look, index));
        findings.extend(other_parent(look, index, &notes));
    }
    findings.extend(stray_notes(look, &notes));
    Ok(findings)
}

/// Returns an overlay whose parent is not found.
fn lost_parent(look: &Look<'_>, index: usize) -> Option<Finding> {
    let image = &look.graph.images[index];
    let (Below::Lost(error), Some(link)) = (&image.below, &image.info.parent) else {
        return None;
    };
    let what = match link.name.as_str() {
        "" => error.finding(),
        name => format!("it stands on {name:?}: {error}"),
    };
    let found = same_content(&look.graph, index, link);
    let (advice, remedy) = match found.as_slice() {
        [one] if image.is_own && image.damage.is_none() => {
            let advice = format!(
                "{} has the content ID of its parent; `--repair` links it to that",
                look.graph.images[*one].name()
            );
            (advice, Some(look.relink(index, *one, None)))
        }
        [] => (
            hint_or(error, "put the parent back where the overlay looks for it"),
            None,
        ),
        several => {
            let names = several.iter().map(|one| look.graph.images[*one].name());
            let names: Vec<String> = names.collect();
            let advice = format!(
                "its parent may be one of {}; say which: hako disk rebase --unsafe --parent \
                 PARENT FILE",
                names.join(", ")
            );
            (advice, None)
        }
    };
    Some(Finding {
        remedy,
        ..finding(look, &image.path, Trouble::ParentMissing, what, advice)
    })
}

/// Returns the images that have the content an overlay was made on, by an ID that no two disks
/// share by chance, and do not stand on the overlay.
fn same_content(graph: &Graph, overlay: usize, link: &ParentLink) -> Vec<usize> {
    let is_telling = match link.content_id {
        // What every new VMDK begins with, and what says that there is no parent.
        Some(ContentId::Cid(id)) => !matches!(id, 0 | 0xffff_fffe | 0xffff_ffff),
        Some(_) => true,
        None => false,
    };
    let size = graph.images[overlay].info.virtual_size;
    let is_it = |index: &usize| {
        let image = &graph.images[*index];
        let is_format = link.format.as_deref() == Some(image.format);
        // What a machine writes to is nobody's parent.
        let is_written = graph.references.iter().any(|reference| {
            let is_it = reference.image.as_ref().ok() == Some(index);
            is_it && !matches!(reference.by, Holder::Snapshot { .. })
        });
        is_format
            && !is_written
            && image.is_own
            && image.info.content_id == link.content_id
            && image.info.virtual_size <= size
            && !graph.chain_of(*index).any(|below| below == overlay)
    };
    match is_telling {
        true => (0..graph.images.len()).filter(is_it).collect(),
        false => Vec::new(),
    }
}

/// Returns an overlay on a parent with other content than it was made on.
fn other_parent(look: &Look<'_>, index: usize, notes: &[(PathBuf, PathBuf)]) -> Option<Finding> {
    let image = &look.graph.images[index];
    let below = image.parent()?;
    let (parent, link) = (&look.graph.images[below], image.info.parent.as_ref()?);
    if fits(link, &parent.info)
        && (link.identity.is_none() || link.identity == parent.info.identity)
    {
        return None;
    }
    let ids = format!(
        "it was made on {} with the content ID {}, which has {} now",
        parent.name(),
        id_text(link.content_id),
        id_text(parent.info.content_id)
    );
    let can_write = image.is_own && image.damage.is_none() && parent.damage.is_none();
    let note = notes.iter().find(|(overlay, _)| *overlay == image.path);
    if let Some((_, note)) = note {
        let advice = "`--repair` makes it fit again, with all its content; `hako disk commit` then \
                      merges it anew";
        let what = format!("its merge into {} was cut off", parent.name());
        return Some(Finding {
            remedy: can_write.then(|| look.relink(index, below, Some(note.clone()))),
            ..finding(
                look,
                &image.path,
                Trouble::HalfMerged,
                what,
                advice.to_owned(),
            )
        });
    }
    let is_unchanged = can_write && has_not_changed(look, link, parent);
    let (advice, remedy) = match is_unchanged {
        true => (
            format!(
                "{} stored nothing when the overlay was made, and stores nothing now; `--repair` \
                 writes its content ID into the overlay",
                parent.name()
            ),
            Some(look.relink(index, below, None)),
        ),
        false => (
            format!(
                "put {0} back from a backup of the time before; if it was only looked at (mounted, \
                 say), copy both files and then link them: hako disk rebase --unsafe --parent {0} {1}",
                parent.name(),
                image.name()
            ),
            None,
        ),
    };
    Some(Finding {
        remedy,
        ..finding(look, &image.path, Trouble::ParentChanged, ids, advice)
    })
}

/// Returns whether a parent shows what it showed when the overlay was made, whatever its content ID
/// says: it stores nothing now, and stored nothing then. VMware's products give a new overlay the
/// content ID of what it stands on, until it is written to; so it had that of its own parent, which
/// that still has.
fn has_not_changed(look: &Look<'_>, link: &ParentLink, parent: &Image) -> bool {
    let (Some(base), Some(below)) = (parent.parent(), parent.info.parent.as_ref()) else {
        return false;
    };
    let base = &look.graph.images[base].info;
    let was_new = link.content_id.is_some() && link.content_id == base.content_id;
    was_new && fits(below, base) && stores_nothing(look, parent)
}

fn id_text(id: Option<ContentId>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.to_string())
}

/// Returns notes of merges whose overlay fits all the same, or is gone.
fn stray_notes(look: &Look<'_>, notes: &[(PathBuf, PathBuf)]) -> Vec<Finding> {
    let is_stray = |overlay: &Path| {
        let index = look
            .graph
            .images
            .iter()
            .position(|image| image.path == overlay);
        let is_broken = |index: usize| {
            matches!(look.graph.images[index].below, Below::Lost(_))
                || other_parent(look, index, &[]).is_some()
        };
        look.pending.is_none() && !index.is_some_and(is_broken)
    };
    let stray = notes.iter().filter(|(overlay, _)| is_stray(overlay));
    let found = stray.map(|(overlay, note)| {
        let what = "its merge was cut off, and the overlay still has all its content".to_owned();
        let advice = "`--repair` removes the note of it; `hako disk commit` merges it anew";
        Finding {
            remedy: Some(Remedy::RemoveFiles(vec![note.clone()])),
            ..finding(look, overlay, Trouble::HalfMerged, what, advice.to_owned())
        }
    });
    found.collect()
}

impl Look<'_> {
    /// Returns what gives an overlay the parent that it was made on, as that is now.
    fn relink(&self, overlay: usize, parent: usize, note: Option<PathBuf>) -> Remedy {
        Remedy::Relink {
            overlay: self.graph.images[overlay].as_named(self.vm),
            parent: self.graph.images[parent].as_named(self.vm),
            note,
        }
    }
}
