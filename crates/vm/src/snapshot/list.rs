//! The snapshots of a machine, for people.

use std::collections::{BTreeMap, BTreeSet};

use hako_block::Result;
use hako_formats::vmsd::{Snapshot, Vmsd};

use super::find::paths;
use super::journal::Verb;
use super::state::has_memory;
use crate::Vm;

/// A machine's snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotList {
    /// The snapshots, each before those that were taken on it, otherwise in the order in which
    /// they were taken.
    pub snapshots: Vec<ListedSnapshot>,
    /// The uid of the one that the machine's present state comes from.
    pub current: Option<u32>,
    /// Whether files of deleted snapshots are still to be merged.
    pub needs_consolidation: bool,
    /// The verb that was begun and cut off.
    pub pending: Option<Verb>,
    /// What is odd about the list.
    pub oddities: Vec<String>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSnapshot {
    /// What the list says of it.
    pub snapshot: Snapshot,
    /// The names on the way to it, joined by `/`.
    pub path: String,
    /// How many ancestors it has.
    pub depth: usize,
    /// Whether it has the memory of a machine that ran.
    pub has_memory: bool,
}

/// Returns the snapshots of a machine, running or not.
pub fn list_snapshots(vm: &Vm) -> Result<SnapshotList> {
    let vmsd = vm.vmsd()?;
    let snapshots = vmsd.as_ref().map(Vmsd::snapshots).unwrap_or_default();
    let mut oddities = vmsd
        .as_ref()
        .map_or(Vec::new(), |list| list.oddities().to_vec());
    let pending = vm.pending().unwrap_or_else(|error| {
        oddities.push(error.to_string());
        None
    });
    let paths = paths(&snapshots);
    let order = in_tree_order(&snapshots);
    let listed = order.into_iter().map(|(place, depth)| ListedSnapshot {
        has_memory: has_memory(vm, &snapshots[place]),
        snapshot: snapshots[place].clone(),
        path: paths[place].clone(),
        depth,
    });
    Ok(SnapshotList {
        snapshots: listed.collect(),
        current: vmsd.as_ref().and_then(Vmsd::current),
        needs_consolidation: vmsd.as_ref().is_some_and(Vmsd::needs_consolidation),
        pending,
        oddities,
    })
}

/// Returns the places of snapshots, each before its children, with how deep they are. Those of a
/// ring come last, as if they had no parent.
fn in_tree_order(snapshots: &[Snapshot]) -> Vec<(usize, usize)> {
    let known: BTreeSet<u32> = snapshots.iter().map(|one| one.uid).collect();
    let mut children: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for (place, snapshot) in snapshots.iter().enumerate() {
        let parent = snapshot.parent.filter(|uid| known.contains(uid));
        children.entry(parent).or_default().push(place);
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    let roots = children.remove(&None).unwrap_or_default();
    for first in roots.into_iter().chain(0..snapshots.len()) {
        let mut waiting = vec![(first, 0)];
        while let Some((place, depth)) = waiting.pop() {
            if !seen.insert(place) {
                continue;
            }
            order.push((place, depth));
            let below = children.remove(&Some(snapshots[place].uid));
            let below = below.unwrap_or_default().into_iter().rev();
            waiting.extend(below.map(|child| (child, depth + 1)));
        }
    }
    order
}
