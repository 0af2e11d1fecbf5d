//! Consolidating: what deletions, of VMware's products or others, have left behind is merged.

use hako_block::Result;
use hako_formats::Task;
use hako_formats::vmsd::Vmsd;

use super::graph::Graph;
use super::journal::{Journal, Recovered, Verb};
use super::plan::plan;
use super::tidy::{ImageMerge, Tidying, unfinished};
use crate::{Held, Home, Vm};

/// What consolidating means, known before anything is done.
pub struct Consolidation {
    vm: Vm,
    /// The list of snapshots; none for a machine without.
    vmsd: Option<Vmsd>,
    tidying: Tidying,
    recovered: Option<Recovered>,
    _held: Held,
}

impl Consolidation {
    /// Looks what is to be merged; what an earlier run had begun is completed or undone first.
    /// Errors: [`hako_block::ErrorKind::Locked`] if the machine or one
    /// of its disks is in use, [`hako_block::ErrorKind::NoSpace`] if what is merged may not fit.
    pub fn plan(home: &Home, mut vm: Vm, task: Task<'_>) -> Result<Self> {
        let (held, recovered) = vm.hold_for_snapshots(task)?;
        let mut vmsd = vm.vmsd()?;
        let snapshots = vmsd.as_ref().map(Vmsd::snapshots).unwrap_or_default();
        let graph = Graph::of(home, &vm, &snapshots)?;
        graph.refuse_unknown(&vm, &[])?;
        let tree = graph.tree(&[]);
        let tidying = Tidying::of(&vm, &graph, &plan(&tree, graph.shown()))?;
        if let Some(vmsd) = &mut vmsd {
            tidying.tell_list(vmsd)?;
            vmsd.set_needs_consolidation(false)?;
        }
        Ok(Self {
            vm,
            vmsd,
            tidying,
            recovered,
            _held: held,
        })
    }

    /// Returns which images are merged into which.
    pub fn merges(&self) -> Vec<ImageMerge> {
        self.tidying.image_merges()
    }

    /// Returns the files that go.
    pub fn files(&self) -> &[String] {
        &self.tidying.removed
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

    /// Merges. Cut off anywhere, the next verb for the machine's snapshots completes it. Returns
    /// what the user should know.
    pub fn run(mut self, task: Task<'_>) -> Result<Vec<String>> {
        let journal = self.journal()?;
        journal.write(&self.vm)?;
        journal.carry_out(&mut self.vm, task).map_err(unfinished)
    }

    fn journal(&self) -> Result<Journal> {
        let vmsd = self.vmsd.as_ref().map(Vmsd::to_bytes).unwrap_or_default();
        let mut journal = Journal::new(Verb::Consolidate, &self.vm, vmsd)?;
        self.tidying.tell_journal(&mut journal);
        Ok(journal)
    }
}

#[cfg(test)]
mod tests;
