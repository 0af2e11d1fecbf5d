//! The text that a machine gets when it goes back to a snapshot: the hardware of that time, and
//! what the machine is known by now.

use hako_block::{Access, Result};
use hako_formats::machine::{DiskMedium, Drive, Medium, Node};
use hako_formats::vmsd::Snapshot;
use hako_formats::vmx::Vmx;

use super::create::part_of;
use super::name::ImageName;
use crate::Vm;

/// Keys that stay as they are now: what the machine is known by, and the files that it has one of.
const KEPT: [&str; 10] = [
    "displayName",
    "uuid.bios",
    "uuid.location",
    "uuid.action",
    "vc.uuid",
    "nvram",
    "hako.nvram",
    "extendedConfigFile",
    "sharedFolder.maxNum",
    "migrate.hostlog",
];
/// Beginnings of keys that stay as they are now: the host's shares for it, and of it.
const KEPT_TREES: [&str; 2] = ["sched.", "sharedFolder"];
/// Keys of a machine that is suspended.
const SUSPENDED: [&str; 2] = ["checkpoint.vmState", "checkpoint.vmState.readOnly"];

/// What a machine goes back to.
pub(super) struct Restored {
    /// The text; the files of the disks that the snapshot holds are still to be named.
    pub vmx: Vmx,
    /// Disks that are in the machine now and no longer then.
    pub dropped: Vec<(Node, String)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Restored {
    /// Puts the text together of the machine's and that of the snapshot, if there is one.
    pub(super) fn new(vm: &Vm, snapshot: &Snapshot, config: Option<Vmx>) -> Result<Self> {
        let mut restored = Self {
            vmx: vm.vmx.clone(),
            dropped: Vec::new(),
            warnings: Vec::new(),
        };
        match config {
            Some(config) => {
                restored.vmx = config;
                restored.keep_identity(&vm.vmx)?;
                restored.settle_other_disks(vm, snapshot)?;
            }
            None => {
                let what = "the snapshot has no configuration that can be read: the hardware stays \
                            as it is, only disks go back";
                restored.warnings.push(what.to_owned());
            }
        }
        for key in SUSPENDED {
            restored.vmx.remove(key)?;
        }
        restored.put_held_disks(snapshot)?;
        restored.note_dropped(vm);
        Ok(restored)
    }

    fn keep_identity(&mut self, now: &Vmx) -> Result<()> {
        let is_kept = |key: &str| {
            let lower = key.to_ascii_lowercase();
            let mut trees = KEPT_TREES.iter();
            KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(key))
                || trees.any(|tree| lower.starts_with(&tree.to_ascii_lowercase()))
        };
        let then = self.vmx.dictionary().entries();
        let gone = then.map(|(key, _)| key.to_owned());
        let gone: Vec<String> = gone.filter(|key| is_kept(key)).collect();
        for key in gone {
            if now.dictionary().value(&key).is_none() {
                self.vmx.remove(&key)?;
            }
        }
        for (key, value) in now.dictionary().entries() {
            if is_kept(key) {
                self.vmx.set(key, &value)?;
            }
        }
        Ok(())
    }

    /// Disks that the snapshot does not hold, independent ones, are what they are now.
    fn settle_other_disks(&mut self, vm: &Vm, snapshot: &Snapshot) -> Result<()> {
        let now = vm.disks();
        let then = self.vmx.machine();
        let held = |node: Node| snapshot.disks.iter().any(|disk| disk.node == node);
        for (node, disk) in then.disks().filter(|(node, _)| !held(*node)) {
            let present = now.iter().find(|(other, _)| *other == node);
            match present {
                Some((_, present)) => ImageName::of_disk(present).name_in(&mut self.vmx, node)?,
                None if self.is_usable(vm, disk) => {}
                None => {
                    self.vmx.remove_drive(node)?;
                    self.warnings.push(format!(
                        "{node}: {} is not put back: it is missing, or a snapshot holds it",
                        disk.file
                    ));
                }
            }
        }
        Ok(())
    }

    /// Returns whether the machine may write to an independent disk that it had: it is there, and
    /// nothing stands on it.
    fn is_usable(&self, vm: &Vm, disk: &DiskMedium) -> bool {
        let Ok(opened) = vm.open_file(&disk.file, Access::ReadOnly, &vm.rules(true)) else {
            return false;
        };
        let path = std::path::PathBuf::from(opened.storage.name());
        vm.files_in_use().is_ok_and(|files| !files.contains(&path))
    }

    /// Every disk that the snapshot holds is there.
    fn put_held_disks(&mut self, snapshot: &Snapshot) -> Result<()> {
        for held in &snapshot.disks {
            let machine = self.vmx.machine();
            if machine.disks().any(|(node, _)| node == held.node) {
                continue;
            }
            let drive = Drive {
                node: held.node,
                medium: Medium::Disk(held.medium()),
                connected: true,
            };
            self.vmx.put_drive(&drive, None)?;
        }
        Ok(())
    }

    fn note_dropped(&mut self, vm: &Vm) {
        let machine = self.vmx.machine();
        for (node, disk) in vm.disks() {
            if machine.disks().all(|(other, _)| other != node) {
                self.dropped.push((node, disk.file));
            }
        }
    }

    /// Returns disks that the machine has and the snapshot does not hold, though they take part in
    /// snapshots: they came later.
    pub(super) fn later(&self, snapshot: &Snapshot) -> Vec<(Node, String)> {
        let machine = self.vmx.machine();
        let later = machine.disks().filter(|(node, disk)| {
            let is_held = snapshot.disks.iter().any(|held| held.node == *node);
            !is_held && matches!(part_of(*node, disk), Ok(None))
        });
        later
            .map(|(node, disk)| (node, disk.file.clone()))
            .collect()
    }
}
