//! What becomes of a machine's images when entries of its list of snapshots go: a pure function
//! of the tree of images. It opens no file and knows no format.
//!
//! An image that nothing refers to any more goes if nothing stands on it; if one overlay does, that
//! is merged into it, so that what the overlay showed is in its parent's file from then on. With
//! two overlays or more it stays: to merge one would change what the others show.

use std::collections::BTreeSet;

/// Who needs what an image shows, itself and not through an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// Nobody.
    Nobody,
    /// The machine: now, or in a snapshot that stays. Its texts can name another file.
    Machine,
    /// Others: another machine, or an overlay of one. This very file must show it.
    Others,
}

/// What counts of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeImage {
    /// The image that it stands on, by its place in the tree.
    pub parent: Option<usize>,
    /// Who needs it.
    pub used_by: Use,
    /// Whether it may be written to, relinked and removed: one in the machine's folder.
    pub is_own: bool,
    /// Whether it is named as an overlay that a snapshot made (`web-000001.vmdk`), and no overlay
    /// that somebody made of a template.
    pub is_delta: bool,
    /// Whether an entry that goes held it: what stands on it was made by taking a snapshot,
    /// whatever it is called, and with the entry its content is given up.
    pub was_held: bool,
}

/// Why an image that nobody needs stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stays {
    /// Several overlays stand on it: so many.
    Branches(usize),
    /// Its one overlay is used by others, by its own file or through an overlay of theirs.
    UsedByOthers(usize),
    /// Its one overlay was not made by a snapshot.
    NoSnapshot(usize),
    /// Nothing refers to its one overlay, nor to what stands on that: whether it is worth keeping
    /// is not known.
    Unreferenced(usize),
}

/// What is to be done, in this order. Images are told by their place in the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Each overlay, and the image that it is merged into. Several merged into one follow each
    /// other from the lowest up; all but the first stand on one that was merged before.
    pub merges: Vec<(usize, usize)>,
    /// Overlays that stay and get another parent: that one.
    pub relinks: Vec<(usize, usize)>,
    /// Images that the machine's texts name, and the images that show the same from now on.
    pub moved: Vec<(usize, usize)>,
    /// Images whose files go, an overlay before its parent.
    pub removed: Vec<usize>,
    /// Images that were to go and stay.
    pub kept: Vec<(usize, Stays)>,
}

impl Plan {
    /// Returns whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.merges.is_empty() && self.removed.is_empty()
    }
}

/// Plans for those `candidates` that nobody needs, and what they leave behind. A parent is no
/// overlay of its own overlays.
pub(crate) fn plan(tree: &[TreeImage], candidates: impl IntoIterator<Item = usize>) -> Plan {
    let mut state = State::new(tree, candidates);
    state.remove_leaves();
    state.merge_from_the_root();
    state.into_plan()
}

/// The tree while it is changed.
struct State<'a> {
    before: &'a [TreeImage],
    now: Vec<TreeImage>,
    /// By image: what stands on it.
    overlays: Vec<BTreeSet<usize>>,
    candidates: BTreeSet<usize>,
    /// By image: whether somebody needs it, itself or through an overlay.
    is_needed: Vec<bool>,
    /// By image: whether its files go.
    is_gone: Vec<bool>,
    /// By image: the image that shows what it showed; `None` if nothing does.
    shown_by: Vec<Option<usize>>,
    merges: Vec<(usize, usize)>,
}

impl<'a> State<'a> {
    fn new(before: &'a [TreeImage], candidates: impl IntoIterator<Item = usize>) -> Self {
        let mut now = before.to_vec();
        let mut overlays = vec![BTreeSet::new(); before.len()];
        for (index, image) in now.iter_mut().enumerate() {
            image.parent = image.parent.filter(|parent| *parent < before.len());
            if let Some(parent) = image.parent {
                overlays[parent].insert(index);
            }
        }
        let is_there = |index: &usize| *index < before.len();
        Self {
            before,
            overlays,
            candidates: candidates.into_iter().filter(is_there).collect(),
            is_needed: needed(&now),
            now,
            is_gone: vec![false; before.len()],
            shown_by: (0..before.len()).map(Some).collect(),
            merges: Vec::new(),
        }
    }

    /// Returns whether an image is one that could go.
    fn is_given_up(&self, index: usize) -> bool {
        let image = &self.now[index];
        image.is_own
            && image.used_by == Use::Nobody
            && self.candidates.contains(&index)
            && !self.is_gone[index]
    }

    /// Takes away what nobody needs and nothing stands on, and whatever stood below only for that.
    fn remove_leaves(&mut self) {
        let mut to_look_at: Vec<usize> = self.candidates.iter().copied().collect();
        while let Some(index) = to_look_at.pop() {
            let image = &self.now[index];
            let is_snapshots = image.was_held || image.is_delta;
            if !self.overlays[index].is_empty() || !self.is_given_up(index) || !is_snapshots {
                continue;
            }
            let parent = image.parent;
            self.is_gone[index] = true;
            self.shown_by[index] = None;
            if let Some(parent) = parent {
                self.overlays[parent].remove(&index);
                self.candidates.insert(parent);
                to_look_at.push(parent);
            }
        }
    }

    /// Merges where one overlay is left; the lowest first, so that nothing is moved twice.
    fn merge_from_the_root(&mut self) {
        for index in self.root_first() {
            while self.is_given_up(index)
                && let Ok(overlay) = self.mergeable_overlay(index)
            {
                self.merge(overlay, index);
            }
        }
    }

    /// Returns all images, each before its overlays.
    fn root_first(&self) -> Vec<usize> {
        let is_root = |index: &usize| self.now[*index].parent.is_none();
        let mut order: Vec<usize> = (0..self.now.len()).filter(is_root).collect();
        let mut next = 0;
        while let Some(index) = order.get(next) {
            order.extend(&self.overlays[*index]);
            next += 1;
        }
        order
    }

    /// Returns the one overlay on an image, which can be merged into it; or why there is none.
    fn mergeable_overlay(&self, index: usize) -> Result<usize, Option<Stays>> {
        let overlays = &self.overlays[index];
        let overlay = match overlays.first() {
            Some(first) if overlays.len() == 1 => *first,
            Some(_) => return Err(Some(Stays::Branches(overlays.len()))),
            None => return Err(None),
        };
        let image = &self.now[overlay];
        let is_own = |index: &usize| self.now[*index].is_own;
        let above_are_own = self.overlays[overlay].iter().all(is_own);
        if image.used_by == Use::Others || !image.is_own || !above_are_own {
            return Err(Some(Stays::UsedByOthers(overlay)));
        }
        if !self.is_needed[overlay] {
            return Err(Some(Stays::Unreferenced(overlay)));
        }
        if !(image.is_delta || self.now[index].was_held) {
            return Err(Some(Stays::NoSnapshot(overlay)));
        }
        Ok(overlay)
    }

    /// Merges: from now on `into` shows what the overlay showed, to whom it showed it.
    fn merge(&mut self, overlay: usize, into: usize) {
        self.merges.push((overlay, into));
        self.is_gone[overlay] = true;
        for shown_by in &mut self.shown_by {
            if *shown_by == Some(into) {
                *shown_by = None;
            } else if *shown_by == Some(overlay) {
                *shown_by = Some(into);
            }
        }
        self.overlays[into] = std::mem::take(&mut self.overlays[overlay]);
        for above in &self.overlays[into] {
            self.now[*above].parent = Some(into);
        }
        self.now[into].used_by = self.now[overlay].used_by;
        self.now[into].was_held = self.now[overlay].was_held;
        if !self.candidates.contains(&overlay) {
            self.candidates.remove(&into);
        }
    }

    fn into_plan(self) -> Plan {
        // As they stood before: what goes was taken out of the tree.
        let mut removed = State::new(self.before, []).root_first();
        removed.retain(|index| self.is_gone[*index]);
        removed.reverse();
        let all = 0..self.now.len();
        let stays = all.filter(|index| !self.is_gone[*index]);
        let relinks = stays.clone().filter_map(|index| {
            let parent = self.now[index].parent?;
            (self.before[index].parent != Some(parent)).then_some((index, parent))
        });
        let shown_by = self.shown_by.iter().enumerate();
        let moved = shown_by.filter_map(|(index, now)| {
            let now = now.filter(|now| *now != index)?;
            (self.before[index].used_by == Use::Machine).then_some((index, now))
        });
        let kept = stays.filter_map(|index| {
            let why = self.mergeable_overlay(index).err()??;
            self.is_given_up(index).then_some((index, why))
        });
        Plan {
            relinks: relinks.collect(),
            moved: moved.collect(),
            kept: kept.collect(),
            removed,
            merges: self.merges,
        }
    }
}

/// Returns, by image, whether somebody needs it, itself or through an overlay.
pub(crate) fn needed(tree: &[TreeImage]) -> Vec<bool> {
    let mut is_needed = vec![false; tree.len()];
    for (index, image) in tree.iter().enumerate() {
        let mut next = (image.used_by != Use::Nobody).then_some(index);
        while let Some(index) = next.filter(|index| !is_needed[*index]) {
            is_needed[index] = true;
            next = tree[index].parent;
        }
    }
    is_needed
}

#[cfg(test)]
mod tests;
