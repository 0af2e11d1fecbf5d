//! Snapshots of a machine: a tree of states, each held by disk images that nobody writes to any
//! more, in VMware's layout. The list of them is the VMSD; what stands on what is in the images.
//!
//! Whatever changes the tree writes down first what it is about to do ([`journal`]), so that a run
//! that is cut off has not happened, has happened, or is completed by the next.

mod consolidate;
mod cost;
mod create;
mod delete;
mod doctor;
mod find;
mod firmware;
mod graph;
mod hardware;
mod journal;
mod list;
mod name;
mod overlay;
mod plan;
mod removal;
mod revert;
pub(crate) mod state;
#[cfg(test)]
mod testing;
mod text;
mod tidy;

pub use consolidate::Consolidation;
pub use create::{SnapshotReport, SnapshotRequest, create_snapshot};
pub(crate) use create::{part_of, take};
pub use delete::{Doomed, SnapshotDeletion};
pub(crate) use doctor::findings;
pub use doctor::{Finding, Treatment, Trouble, examine_snapshots, repair_snapshots};
pub use find::find;
pub use journal::{Recovered, Verb};
pub use list::{ListedSnapshot, SnapshotList, list_snapshots};
pub(crate) use name::ImageName;
pub use revert::{LostDisk, Reversal, RevertReport};
pub use tidy::ImageMerge;

use hako_block::Result;
use hako_formats::Task;

use crate::{Held, Vm};
use journal::Journal;

impl Vm {
    /// Returns the snapshot verb that was begun with it and cut off; none if there is none.
    /// Errors: [`hako_block::ErrorKind::Corrupt`] if that cannot be told.
    pub fn pending(&self) -> Result<Option<Verb>> {
        Ok(Journal::read(self)?.map(|journal| journal.verb))
    }

    /// Holds the machine for a change of its snapshots; what a cut run had begun is completed or
    /// undone first. Errors: those of [`Vm::hold`].
    pub(crate) fn hold_for_snapshots(
        &mut self,
        task: Task<'_>,
    ) -> Result<(Held, Option<Recovered>)> {
        let held = self.hold_whatever_is_pending()?;
        self.reload()?;
        let recovered = Journal::recover(self, task)?;
        Ok((held, recovered))
    }
}
