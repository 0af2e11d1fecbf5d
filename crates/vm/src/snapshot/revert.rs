//! Going back to a snapshot: new empty overlays on what it holds, and the hardware of that time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hako_block::{BlockImage, Error, ErrorKind, ExtentKind, FileId, Result, extents};
use hako_disk::{Subject, overlays_of};
use hako_formats::machine::Node;
use hako_formats::vmsd::{Snapshot, Vmsd};
use hako_formats::vmx::Vmx;
use hako_formats::{OpenedLayer, Task, open_chain};

use super::create::{SnapshotReport, SnapshotRequest, list_to_change, part_of, take};
use super::find::find;
use super::firmware::{lost, to_restore};
use super::hardware::Restored;
use super::journal::{DiskChange, Journal, Recovered, Verb};
use super::name::ImageName;
use super::overlay::NewOverlay;
use super::state;
use crate::users::{file_id, other_user};
use crate::{Held, Home, Vm};

/// Going back to a snapshot, known before anything is done.
pub struct Reversal<'a> {
    home: &'a Home,
    vm: Vm,
    snapshot: Snapshot,
    config: Option<Vmx>,
    /// What the machine writes to now, and nothing needs once it is back.
    live: Vec<Live>,
    lost: Vec<LostDisk>,
    lost_settings: Vec<String>,
    saved: Option<SnapshotReport>,
    recovered: Option<Recovered>,
    warnings: Vec<String>,
    _held: Held,
}

/// What was written to a disk since the last snapshot, and would be thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostDisk {
    /// Where the disk is.
    pub node: Node,
    /// The image that has it.
    pub file: String,
    /// How much it is, in bytes of the guest: all that no snapshot holds, be it in that image or in
    /// what it stands on.
    pub data_bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevertReport {
    /// The snapshot's number.
    pub uid: u32,
    /// Its name.
    pub name: String,
    /// The disks: the image that holds the state, and the one that is written from now on.
    pub disks: Vec<(Node, String, String)>,
    /// The snapshot that keeps what would have been thrown away.
    pub saved: Option<SnapshotReport>,
    /// Files that are gone, without folder.
    pub removed: Vec<String>,
    /// Disks that came later: out of the machine, their files stay.
    pub dropped: Vec<(Node, String)>,
    /// Whether the hardware is that of the snapshot; else it is what it was.
    pub has_hardware: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl<'a> Reversal<'a> {
    /// Looks what going back to the snapshot `what` means. Errors: [`ErrorKind::Locked`] if the
    /// machine is not off; [`ErrorKind::Invalid`] for a snapshot with memory, unless that may be
    /// thrown away, and for a name that several have.
    pub fn plan(
        home: &'a Home,
        mut vm: Vm,
        what: &str,
        discard_memory: bool,
        task: Task<'_>,
    ) -> Result<Self> {
        let (held, recovered) = vm.hold_for_snapshots(task)?;
        let vmsd = list_to_change(&vm)?;
        let snapshots = vmsd.snapshots();
        let in_list = |error: Error| error.in_file(vm.vmsd_path());
        let snapshot = find(&snapshots, what).map_err(in_list)?.clone();
        let mut warnings = Vec::new();
        if state::has_memory(&vm, &snapshot) {
            if !discard_memory {
                let what = format!(
                    "the snapshot {:?} has the memory of a running machine",
                    snapshot.name
                );
                return Err(Error::invalid(what).in_file(vm.path()).hint(
                    "to go back to its disks alone, as after a power failure: --discard-memory",
                ));
            }
            warnings.push(
                "the snapshot's memory is left out: the machine starts as after a power failure"
                    .to_owned(),
            );
        }
        let config = state::config(&vm, &snapshot)?;
        let mut reversal = Self {
            home,
            vm,
            snapshot,
            config,
            live: Vec::new(),
            lost: Vec::new(),
            lost_settings: Vec::new(),
            saved: None,
            recovered,
            warnings,
            _held: held,
        };
        reversal.restored()?;
        reversal.live = reversal.live_overlays(&vmsd)?;
        let with_data = reversal.live.iter().filter(|live| live.lost_bytes > 0);
        reversal.lost = with_data.map(Live::lost).collect();
        reversal.lost_settings = lost(&reversal.vm, &snapshots, &reversal.snapshot);
        Ok(reversal)
    }

    /// Returns the machine.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Returns the snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns what became of a verb that had been cut off before.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_ref()
    }

    /// Returns what would be thrown away.
    pub fn lost(&self) -> &[LostDisk] {
        &self.lost
    }

    /// Returns the files with settings of the firmware that would be thrown away.
    pub fn lost_settings(&self) -> &[String] {
        &self.lost_settings
    }

    /// Keeps what would be thrown away in a snapshot.
    pub fn save(&mut self, request: &SnapshotRequest, task: Task<'_>) -> Result<()> {
        self.saved = Some(take(&mut self.vm, request, task)?);
        self.live = self.live_overlays(&list_to_change(&self.vm)?)?;
        self.lost = Vec::new();
        self.lost_settings = Vec::new();
        Ok(())
    }

    /// Goes back. What would be thrown away is.
    pub fn run(mut self, task: Task<'_>) -> Result<RevertReport> {
        let mut vmsd = list_to_change(&self.vm)?;
        let restored = self.restored()?;
        for (node, file) in restored.later(&self.snapshot) {
            let what = format!("{node}: the snapshot does not hold {file}, which stays as it is");
            self.warnings.push(what);
        }
        let Restored {
            mut vmx,
            dropped,
            warnings,
        } = restored;
        self.warnings.extend(warnings);
        let held = self.snapshot.disks.iter();
        let parents = held.map(|disk| (disk.node, ImageName::of_disk(&disk.medium())));
        let (overlays, warnings) = NewOverlay::plan(&self.vm, parents.collect())?;
        self.warnings.extend(warnings);
        for overlay in &overlays {
            overlay.name_in(&mut vmx)?;
        }
        vmsd.set_current(Some(self.snapshot.uid))?;
        let (restores, warnings) = to_restore(&self.vm, &self.snapshot);
        self.warnings.extend(warnings);
        let old = self.live.iter().flat_map(|live| live.files.clone());
        let journal = Journal {
            disks: self.changes(&overlays, &dropped),
            restores,
            remove: old.collect(),
            ..Journal::new(Verb::Revert, &self.vm, vmsd.to_bytes())?
        };
        journal.begin(&mut self.vm, |vm| {
            overlays.iter().try_for_each(|overlay| {
                task.cancel.check()?;
                overlay.make(vm, task)
            })
        })?;
        self.vm.vmx = vmx;
        self.vm.save()?;
        let kept = journal.carry_out(&mut self.vm, task)?;
        let is_gone = |name: &&String| self.vm.folder().join(name).symlink_metadata().is_err();
        let removed = journal.remove.iter().filter(is_gone).cloned().collect();
        self.warnings.extend(kept);
        let names = overlays.into_iter();
        Ok(RevertReport {
            uid: self.snapshot.uid,
            name: self.snapshot.name,
            disks: names
                .map(|overlay| (overlay.node, overlay.parent.file, overlay.image.file))
                .collect(),
            saved: self.saved,
            removed,
            dropped,
            has_hardware: self.config.is_some(),
            warnings: self.warnings,
        })
    }

    fn restored(&self) -> Result<Restored> {
        Restored::new(&self.vm, &self.snapshot, self.config.clone())
    }

    fn changes(&self, overlays: &[NewOverlay], dropped: &[(Node, String)]) -> Vec<DiskChange> {
        let now = self.vm.disks();
        let old = |node: Node| {
            let found = now.iter().find(|(other, _)| *other == node);
            found.map(|(_, disk)| disk.file.clone())
        };
        let put = overlays.iter().map(|overlay| DiskChange {
            node: overlay.node,
            old: old(overlay.node),
            new: Some(overlay.image.clone()),
        });
        let dropped = dropped.iter().map(|(node, file)| DiskChange {
            node: *node,
            old: Some(file.clone()),
            new: None,
        });
        put.chain(dropped).collect()
    }

    /// Returns the overlays that the machine writes to now, and that nothing needs once it is back
    /// at the snapshot.
    fn live_overlays(&self, vmsd: &Vmsd) -> Result<Vec<Live>> {
        let held_at = |node: Node| self.snapshot.disks.iter().any(|disk| disk.node == node);
        let held = self.held_images(vmsd);
        let mut live = Vec::new();
        for (node, disk) in self.vm.disks() {
            if !held_at(node) || part_of(node, &disk)?.is_some() {
                continue;
            }
            let found = Live::of(&self.vm, node, ImageName::of_disk(&disk), &held)?;
            if let Some(found) = found
                && !self.is_needed(&found.main, &held)?
            {
                live.push(found);
            }
        }
        Ok(live)
    }

    /// Returns the images that snapshots hold, as far as they are there.
    fn held_images(&self, vmsd: &Vmsd) -> BTreeSet<FileId> {
        let snapshots = vmsd.snapshots();
        let held = snapshots.iter().flat_map(|one| &one.disks);
        let paths = held.filter_map(|disk| ImageName::of_disk(&disk.medium()).path(&self.vm).ok());
        paths.filter_map(|path| file_id(&path)).collect()
    }

    /// Returns whether a snapshot, an overlay or another machine stands on an image.
    fn is_needed(&self, main: &Path, held: &BTreeSet<FileId>) -> Result<bool> {
        if file_id(main).is_some_and(|id| held.contains(&id)) || !overlays_of(main)?.is_empty() {
            return Ok(true);
        }
        let files = [main.to_path_buf()];
        Ok(other_user(self.home, &files, self.vm.path())?.is_some())
    }
}

/// An overlay that the machine writes to.
struct Live {
    node: Node,
    file: String,
    main: PathBuf,
    /// Its files in the machine's folder, the main one last.
    files: Vec<String>,
    /// Bytes of the guest that no snapshot holds.
    lost_bytes: u64,
}

impl Live {
    /// Returns the overlay of a disk: none if the disk is none, or not in the machine's folder. One
    /// that is missing has nothing to lose. Errors: one that cannot be read.
    fn of(vm: &Vm, node: Node, name: ImageName, held: &BTreeSet<FileId>) -> Result<Option<Self>> {
        let subject = match name.subject(vm) {
            Ok(subject) => subject,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let layer = subject.open_layer()?;
        let in_folder = |file: &PathBuf| file.parent() == Some(vm.folder());
        let files = hako_disk::files_of(&layer);
        if layer.image.info().parent.is_none() || !files.iter().all(in_folder) {
            return Ok(None);
        }
        drop(layer);
        let file_name = |file: &PathBuf| file.file_name()?.to_str().map(str::to_owned);
        Ok(Some(Self {
            node,
            file: name.file,
            lost_bytes: stored_above(&subject, held)?,
            main: subject.path,
            files: files.iter().rev().filter_map(file_name).collect(),
        }))
    }

    fn lost(&self) -> LostDisk {
        LostDisk {
            node: self.node,
            file: self.file.clone(),
            data_bytes: self.lost_bytes,
        }
    }
}

/// Returns how many bytes of the guest the layers of a chain store above the first that a snapshot
/// holds; if none is held, all of them. Where what an overlay stands on cannot be opened, that is
/// no loss: only the overlay goes.
fn stored_above(subject: &Subject, held: &BTreeSet<FileId>) -> Result<u64> {
    let layers = match open_chain(&subject.path, &subject.open) {
        Ok(opened) => opened.layers,
        Err(error) if error.kind() == ErrorKind::Locked => return Err(error),
        Err(_) => vec![subject.open_layer()?],
    };
    let is_held = |layer: &OpenedLayer| {
        let id = layer.args.storage.id();
        id.is_some_and(|id| held.contains(&id))
    };
    let above = layers.iter().take_while(|layer| !is_held(layer));
    above.map(|layer| stored(&*layer.image)).sum()
}

/// Returns how many bytes of the guest an image stores itself.
fn stored(image: &dyn BlockImage) -> Result<u64> {
    let mut bytes = 0_u64;
    for extent in extents(image) {
        let extent = extent?;
        if extent.kind != ExtentKind::Hole {
            bytes = bytes.saturating_add(extent.len);
        }
    }
    Ok(bytes)
}
