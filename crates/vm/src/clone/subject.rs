//! What of a machine is cloned: its current state or a snapshot, kept as it is meanwhile.

use hako_block::{Error, Result};
use hako_disk::{is_empty, parent_of};
use hako_formats::Task;
use hako_formats::vmsd::Snapshot;

use super::CloneRequest;
use crate::import::{find_snapshot, hold};
use crate::snapshot::{ImageName, SnapshotRequest, part_of, take};
use crate::users::file_id;
use crate::{Held, Vm};

/// What is cloned.
pub(super) struct Subject {
    /// Keeps others from changing the machine.
    pub(super) held: Option<Held>,
    /// The snapshot; none for the current state.
    pub(super) snapshot: Option<Snapshot>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

impl Subject {
    /// Finds it; for a linked clone of the current state a snapshot is taken, unless there is one
    /// that is the same.
    pub(super) fn find(vm: &mut Vm, request: &CloneRequest, task: Task<'_>) -> Result<Self> {
        match (request.linked, &request.snapshot) {
            (true, None) => Self::to_stand_on(vm, request, task),
            (true, Some(wanted)) => {
                let held = hold(vm)?;
                vm.reload()?;
                vm.refuse_pending()?;
                Self::of(Some(held), Some(find_snapshot(vm, wanted)?))
            }
            // What a snapshot holds is not written while the machine runs.
            (false, Some(wanted)) => Self::of(None, Some(find_snapshot(vm, wanted)?)),
            (false, None) => {
                let held = hold(vm)?;
                vm.reload()?;
                Self::of(Some(held), None)
            }
        }
    }

    fn of(held: Option<Held>, snapshot: Option<Snapshot>) -> Result<Self> {
        Ok(Self {
            held,
            snapshot,
            warnings: Vec::new(),
        })
    }

    fn to_stand_on(vm: &mut Vm, request: &CloneRequest, task: Task<'_>) -> Result<Self> {
        let (held, recovered) = vm.hold_for_snapshots(task)?;
        let mut warnings: Vec<String> = recovered.iter().map(|what| what.sentence()).collect();
        warnings.extend(recovered.iter().flat_map(|what| what.warnings().to_vec()));
        let mut snapshot = current_unchanged(vm)?;
        if snapshot.is_none() {
            let request = SnapshotRequest {
                name: format!("for {}", request.name),
                description: String::new(),
                created_us: request.created_us,
            };
            let taken = take(vm, &request, task)?;
            warnings.push(format!(
                "the snapshot {:?} ({}) was taken for the clone to stand on",
                request.name, taken.uid
            ));
            warnings.extend(taken.warnings);
            snapshot = current_unchanged(vm)?;
        }
        let nothing = || Error::invalid("its disks stand on no snapshot").in_file(vm.path());
        Ok(Self {
            held: Some(held),
            snapshot: Some(snapshot.ok_or_else(nothing)?),
            warnings,
        })
    }
}

/// Returns the snapshot that the current state comes from, if its disks hold all that the
/// machine's do: nothing was written since.
fn current_unchanged(vm: &Vm) -> Result<Option<Snapshot>> {
    let Some(vmsd) = vm.vmsd()? else {
        return Ok(None);
    };
    let mut snapshots = vmsd.snapshots().into_iter();
    let Some(snapshot) = snapshots.find(|one| Some(one.uid) == vmsd.current()) else {
        return Ok(None);
    };
    let mut n_disks = 0;
    for (node, disk) in vm.disks() {
        if part_of(node, &disk)?.is_some() {
            continue;
        }
        n_disks += 1;
        let Some(held) = snapshot.disks.iter().find(|held| held.node == node) else {
            return Ok(None);
        };
        let overlay = ImageName::of_disk(&disk).subject(vm)?;
        let held = ImageName::of_disk(&held.medium()).path(vm)?;
        let stands_on = parent_of(&overlay)?;
        let is_on_it = stands_on.is_some_and(|parent| file_id(&parent) == file_id(&held));
        if !is_on_it || !is_empty(&overlay)? {
            return Ok(None);
        }
    }
    Ok((n_disks == snapshot.disks.len()).then_some(snapshot))
}
