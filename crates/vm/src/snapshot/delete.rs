//! Deleting snapshots: their entries go, and of the images what only they needed.

use std::collections::BTreeSet;
use std::path::Path;

use hako_block::{Error, ErrorKind, Result};
use hako_formats::Task;
use hako_formats::vmsd::{Snapshot, Vmsd};

use super::find::find;
use super::graph::Graph;
use super::journal::{Journal, Recovered, Verb};
use super::plan::plan;
use super::removal::is_state_or_configuration;
use super::tidy::{ImageMerge, Tidying, unfinished};
use crate::{Held, Home, Vm};

/// Which snapshots to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doomed {
    /// One, by its name, uid or path.
    One(String),
    /// One, and all that were taken on it.
    Branch(String),
    /// All.
    All,
}

/// What deleting snapshots means, known before anything is done.
pub struct SnapshotDeletion {
    vm: Vm,
    snapshots: Vec<Snapshot>,
    vmsd: Vmsd,
    tidying: Tidying,
    recovered: Option<Recovered>,
    /// Files that go besides images, as seen from the machine's folder.
    files: Vec<String>,
    _held: Held,
}

impl SnapshotDeletion {
    /// Looks what would go; what an earlier run had begun is completed or undone first. Errors: [`ErrorKind::NotFound`] for a snapshot that is not there,
    /// [`ErrorKind::Locked`] if the machine or one of its disks is in use,
    /// [`ErrorKind::NoSpace`] if what is merged may not fit.
    pub fn plan(home: &Home, mut vm: Vm, doomed: &Doomed, task: Task<'_>) -> Result<Self> {
        let (held, recovered) = vm.hold_for_snapshots(task)?;
        let Some(mut vmsd) = vm.vmsd()? else {
            return Err(no_snapshots(&vm));
        };
        if vmsd.is_encrypted() {
            return Err(Error::unsupported("the list of snapshots is encrypted")
                .in_file(vm.vmsd_path())
                .hint("remove the encryption with the product that encrypted it"));
        }
        let all = vmsd.snapshots();
        let snapshots = chosen(&all, doomed).map_err(|error| error.in_file(vm.path()))?;
        if snapshots.is_empty() {
            return Err(no_snapshots(&vm));
        }
        let uids: Vec<u32> = snapshots.iter().map(|snapshot| snapshot.uid).collect();
        vm.refuse_unlisted_clones(home, Some(&uids))?;
        let graph = Graph::of(home, &vm, &all)?;
        graph.refuse_unknown(&vm, &uids)?;
        let tree = graph.tree(&uids);
        let held_images = (0..tree.len()).filter(|index| tree[*index].was_held);
        let tidying = Tidying::of(&vm, &graph, &plan(&tree, held_images))?;
        vmsd.remove(&uids.iter().copied().collect())?;
        tidying.tell_list(&mut vmsd)?;
        Ok(Self {
            files: files_of(&vm, &snapshots, &vmsd.snapshots()),
            vm,
            snapshots,
            vmsd,
            tidying,
            recovered,
            _held: held,
        })
    }

    /// Returns the snapshots that go.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Returns which images are merged into which.
    pub fn merges(&self) -> Vec<ImageMerge> {
        self.tidying.image_merges()
    }

    /// Returns the files that go.
    pub fn files(&self) -> Vec<String> {
        let images = self.tidying.removed.iter();
        images.chain(&self.files).cloned().collect()
    }

    /// Returns what stays that one might expect to go, and why; one sentence each.
    pub fn kept(&self) -> &[String] {
        &self.tidying.kept
    }

    /// Returns what became of what an earlier run had begun, before anything else was looked at.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_ref()
    }

    /// Returns the machine's name.
    pub fn name(&self) -> String {
        self.vm.name()
    }

    /// Deletes. Cut off anywhere, the next verb for the machine's snapshots completes it. Returns
    /// what the user should know.
    pub fn run(mut self, task: Task<'_>) -> Result<Vec<String>> {
        let mut journal = Journal::new(Verb::Delete, &self.vm, self.vmsd.to_bytes())?;
        self.tidying.tell_journal(&mut journal);
        journal.remove.extend(self.files);
        journal.write(&self.vm)?;
        journal.carry_out(&mut self.vm, task).map_err(unfinished)
    }
}

fn no_snapshots(vm: &Vm) -> Error {
    Error::new(ErrorKind::NotFound, "has no snapshots").in_file(vm.path())
}

fn chosen(all: &[Snapshot], doomed: &Doomed) -> Result<Vec<Snapshot>> {
    let what = match doomed {
        Doomed::All => return Ok(all.to_vec()),
        Doomed::One(what) => return Ok(vec![find(all, what)?.clone()]),
        Doomed::Branch(what) => what,
    };
    let mut branch = BTreeSet::from([find(all, what)?.uid]);
    // Each round finds one at least, or is the last.
    loop {
        let before = branch.len();
        let on_it = all.iter().filter(|snapshot| {
            let parent = snapshot.parent.as_ref();
            parent.is_some_and(|parent| branch.contains(parent))
        });
        let found: Vec<u32> = on_it.map(|snapshot| snapshot.uid).collect();
        branch.extend(found);
        if branch.len() == before {
            break;
        }
    }
    let on_branch = all.iter().filter(|snapshot| branch.contains(&snapshot.uid));
    Ok(on_branch.cloned().collect())
}

/// Returns the files of these snapshots besides images, as far as those that stay do not name
/// them: states, memory, kept configurations and settings.
fn files_of(vm: &Vm, snapshots: &[Snapshot], staying: &[Snapshot]) -> Vec<String> {
    let named = |snapshot: &Snapshot| {
        let state = snapshot.state_file.clone();
        let memory = state.as_deref().map(|state| {
            let memory = Path::new(state).with_extension("vmem");
            memory.to_string_lossy().into_owned()
        });
        let firmware = snapshot.firmware.iter().map(|kept| kept.file.clone());
        let others = [state, memory, snapshot.config.clone()];
        others
            .into_iter()
            .flatten()
            .chain(firmware)
            .collect::<Vec<_>>()
    };
    let kept: BTreeSet<String> = staying.iter().flat_map(named).collect();
    let mut files: Vec<String> = snapshots.iter().flat_map(named).collect();
    files.sort();
    files.dedup();
    files.retain(|file| !kept.contains(file) && is_of_a_snapshot(vm, file));
    files
}

/// Returns whether a text names a file in the machine's folder that is called as files of a
/// snapshot are: a text could name anything.
fn is_of_a_snapshot(vm: &Vm, name: &str) -> bool {
    vm.own_file(name)
        .is_some_and(|path| is_state_or_configuration(&path, &vm.stem()))
}

#[cfg(test)]
mod tests;
