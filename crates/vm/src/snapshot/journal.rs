//! What a verb that changes the tree of snapshots is about to do, written down before it begins:
//! `STEM.hako-journal` beside the .vmx. It goes when all is done.
//!
//! Steps, each of which may be done again:
//!
//! 1. merges: an overlay's content into the image below it
//! 2. relinks: overlays that stand on what they now stand on
//! 3. the VMX names the new files
//! 4. the firmware's settings become those of a snapshot
//! 5. the VMSD in its new text
//! 6. files that nothing refers to any more go
//!
//! Before 3 the machine is what it was; from then on it is what it shall be. Creating and reverting
//! make new files first; cut off before 3, they have not happened and those files go.

use std::path::{Path, PathBuf};

use hako_block::gate::{replace_file, sync_folder_of};
use hako_block::{Error, Result};
use hako_disk::MergeRequest;
use hako_formats::Task;
use hako_formats::dictionary::Dictionary;
use hako_formats::digest::{self, Algorithm, hex};
use hako_formats::machine::Node;
use hako_formats::vmsd::FirmwareFile;

use super::firmware::restore;
use super::graph::is_delta;
use super::name::ImageName;
use super::removal::{Removal, is_kept, own_file};
use crate::Vm;
use crate::files::files_by_name;
use crate::vm::read_text;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A snapshot is taken.
    Create,
    /// The machine goes back to a snapshot.
    Revert,
    /// Snapshots are deleted.
    Delete,
    /// What deletions left behind is merged.
    Consolidate,
}

impl Verb {
    pub(super) const ALL: [Verb; 4] = [Verb::Create, Verb::Revert, Verb::Delete, Verb::Consolidate];

    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Revert => "revert",
            Verb::Delete => "delete",
            Verb::Consolidate => "consolidate",
        }
    }

    /// Returns whether it is undone if it was cut off before the VMX: others are always completed.
    fn is_undone(self) -> bool {
        matches!(self, Verb::Create | Verb::Revert)
    }
}

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal {
    /// What is being done.
    pub verb: Verb,
    /// New files besides disk images: plain names in the machine's folder.
    pub made: Vec<String>,
    /// Overlays whose content goes into the image below, in this order: the lowest of a chain
    /// first. What lies between the two has been merged before.
    pub merges: Vec<Merge>,
    /// Overlays that get another parent, of the same content.
    pub relinks: Vec<Relink>,
    /// What the VMX says of disks, before and after.
    pub disks: Vec<DiskChange>,
    /// Settings of the firmware that the machine gets.
    pub restores: Vec<FirmwareFile>,
    /// Digest of the VMX before.
    pub vmx_before: String,
    /// Digest of the VMSD before; empty if there was none.
    pub vmsd_before: String,
    /// The VMSD's new text.
    pub vmsd: Vec<u8>,
    /// Files that go at the end, of an image the main file last: paths relative to the machine's
    /// folder.
    pub remove: Vec<String>,
}

/// An overlay whose content goes into an image below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merge {
    /// The overlay.
    pub child: ImageName,
    /// The image.
    pub parent: ImageName,
}

/// An overlay that gets another parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relink {
    /// The overlay.
    pub overlay: ImageName,
    /// Its parent from then on.
    pub parent: ImageName,
}

/// What the VMX says of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskChange {
    /// Where the disk is.
    pub node: Node,
    /// The file that it names before; none for a disk that is not there.
    pub old: Option<String>,
    /// The image that it names after.
    pub new: Option<ImageName>,
}

/// What became of what a run had begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// It has not happened.
    Undone(Verb, Vec<String>),
    /// It is done.
    Completed(Verb, Vec<String>),
}

impl Recovered {
    /// Returns it as a sentence.
    pub fn sentence(&self) -> String {
        let (verb, end) = match self {
            Recovered::Undone(verb, _) => (verb, "it has not happened"),
            Recovered::Completed(verb, _) => (verb, "it is done now"),
        };
        format!("a snapshot {} had been cut off: {end}", verb.name())
    }

    /// Returns what else the user should know.
    pub fn warnings(&self) -> &[String] {
        match self {
            Recovered::Undone(_, warnings) | Recovered::Completed(_, warnings) => warnings,
        }
    }
}

/// How far a verb has come.
enum Stage {
    /// The machine is what it was.
    Before,
    /// The VMX names the new files.
    After,
}

impl Journal {
    /// Returns a journal that changes nothing yet of a machine as it is.
    pub(crate) fn new(verb: Verb, vm: &Vm, vmsd: Vec<u8>) -> Result<Self> {
        Ok(Self {
            verb,
            made: Vec::new(),
            merges: Vec::new(),
            relinks: Vec::new(),
            disks: Vec::new(),
            restores: Vec::new(),
            vmx_before: digest(&vm.vmx.to_bytes()),
            vmsd_before: digest_of_vmsd(vm)?,
            vmsd,
            remove: Vec::new(),
        })
    }

    /// Reads the journal of a machine; none if there is none. Errors:
    /// [`hako_block::ErrorKind::Corrupt`] for one that cannot be read.
    pub(crate) fn read(vm: &Vm) -> Result<Option<Self>> {
        let path = path_of(vm);
        let Some(bytes) = read_text(&path)? else {
            return Ok(None);
        };
        let parsed = Dictionary::parse(&bytes).and_then(|text| Self::parse(&text));
        parsed.map(Some).map_err(|error| error.in_file(&path))
    }

    /// Writes it beside the .vmx.
    pub(crate) fn write(&self, vm: &Vm) -> Result<()> {
        let path = path_of(vm);
        let text = self.to_text().map_err(|error| error.in_file(&path))?;
        replace_file(&path, &text.to_bytes())
    }

    /// Writes it, and then makes the new files by `make`; if that fails, takes them away again.
    pub(crate) fn begin(&self, vm: &mut Vm, make: impl FnOnce(&Vm) -> Result<()>) -> Result<()> {
        self.write(vm)?;
        make(vm).inspect_err(|_| {
            // What it failed with counts; what is left is undone by the next run.
            let _ = self.undo(vm);
        })
    }

    /// Does what is left of it, and removes it. Returns what the user should know. Errors:
    /// [`hako_block::ErrorKind::Invalid`] if somebody else has changed the machine's texts
    /// meanwhile; nothing is touched then.
    pub(crate) fn carry_out(&self, vm: &mut Vm, task: Task<'_>) -> Result<Vec<String>> {
        self.carry_out_up_to_removal(vm, task)?;
        let warnings = self.remove_files(vm)?;
        forget(vm)?;
        Ok(warnings)
    }

    pub(super) fn carry_out_up_to_removal(&self, vm: &mut Vm, task: Task<'_>) -> Result<()> {
        if let Stage::Before = self.stage(vm)? {
            self.merge(vm, task)?;
            self.relink(vm)?;
            self.switch(vm)?;
        }
        let mut restores = self.restores.iter();
        restores.try_for_each(|kept| restore(vm, kept))?;
        if digest_of_vmsd(vm)? != digest(&self.vmsd) {
            replace_file(&vm.vmsd_path(), &self.vmsd)?;
        }
        let is_told_by_texts = !self.disks.is_empty() || digest(&self.vmsd) != self.vmsd_before;
        if is_told_by_texts || self.merges.is_empty() {
            return Ok(());
        }
        // No text says that the merges are behind it, and without the files they cannot be done
        // again.
        let rest = Self {
            merges: Vec::new(),
            relinks: Vec::new(),
            ..self.clone()
        };
        rest.write(vm)
    }

    /// Completes or undoes what a run had begun with a machine that is held; none if there is
    /// nothing.
    pub(crate) fn recover(vm: &mut Vm, task: Task<'_>) -> Result<Option<Recovered>> {
        let Some(journal) = Self::read(vm)? else {
            return Ok(None);
        };
        if journal.verb.is_undone() && matches!(journal.stage(vm)?, Stage::Before) {
            let warnings = journal.undo(vm)?;
            return Ok(Some(Recovered::Undone(journal.verb, warnings)));
        }
        let warnings = journal.carry_out(vm, task)?;
        Ok(Some(Recovered::Completed(journal.verb, warnings)))
    }

    fn stage(&self, vm: &Vm) -> Result<Stage> {
        let changed = |path: &Path| {
            Err(Error::invalid(format!(
                "was changed by something else since a snapshot {} was cut off",
                self.verb.name()
            ))
            .in_file(path)
            .hint(format!(
                "look what the machine needs, then remove {}",
                path_of(vm).display()
            )))
        };
        let (vmsd, new_vmsd) = (digest_of_vmsd(vm)?, digest(&self.vmsd));
        if vmsd != self.vmsd_before && vmsd != new_vmsd {
            return changed(&vm.vmsd_path());
        }
        if vmsd == new_vmsd && new_vmsd != self.vmsd_before {
            return Ok(Stage::After);
        }
        let disks = vm.disks();
        let file_at = |node: Node| {
            let mut disks = disks.iter();
            let found = disks.find(|(other, _)| *other == node);
            found.map(|(_, disk)| disk.file.as_str())
        };
        let is_old = |change: &DiskChange| file_at(change.node) == change.old.as_deref();
        let is_new = |change: &DiskChange| {
            let new = change.new.as_ref().map(|image| image.file.as_str());
            file_at(change.node) == new
        };
        if self.disks.is_empty() {
            let is_same = digest(&vm.vmx.to_bytes()) == self.vmx_before;
            return match is_same || !self.verb.is_undone() {
                true => Ok(Stage::Before),
                false => Ok(Stage::After),
            };
        }
        if self.disks.iter().all(is_new) {
            Ok(Stage::After)
        } else if self.disks.iter().all(is_old) {
            Ok(Stage::Before)
        } else {
            changed(vm.path())
        }
    }

    fn merge(&self, vm: &Vm, task: Task<'_>) -> Result<()> {
        for merge in &self.merges {
            task.cancel.check()?;
            hako_disk::merge(&merge.request(vm)?, task.progress, task.cancel)?;
        }
        Ok(())
    }

    fn relink(&self, vm: &Vm) -> Result<()> {
        let mut relinks = self.relinks.iter();
        relinks.try_for_each(|relink| relink.overlay.link_to(&relink.parent, vm))
    }

    /// Makes the VMX name the new files.
    fn switch(&self, vm: &mut Vm) -> Result<()> {
        for change in &self.disks {
            if let Some(image) = &change.new {
                image.name_in(&mut vm.vmx, change.node)?;
            }
        }
        match self.disks.is_empty() {
            true => Ok(()),
            false => vm.save(),
        }
    }

    /// Removes the files that go; what something stands on after all stays, and is told.
    fn remove_files(&self, vm: &Vm) -> Result<Vec<String>> {
        if self.remove.is_empty() {
            return Ok(Vec::new());
        }
        let removal = Removal::new(vm);
        let mut warnings = Vec::new();
        for name in &self.remove {
            if let Some(path) = own_file(vm, name) {
                warnings.extend(removal.remove(&path)?);
            }
        }
        sync_folder_of(vm.path())?;
        Ok(warnings)
    }

    /// Takes away what was made, as long as nothing is in it, and then the journal.
    fn undo(&self, vm: &Vm) -> Result<Vec<String>> {
        let removal = Removal::new(vm);
        let mut warnings = Vec::new();
        for image in self.disks.iter().filter_map(|change| change.new.as_ref()) {
            let path = vm.folder().join(&image.file);
            // Its main file gets its name last: without that, extent files alone may be there.
            let files = match own_file(vm, &image.file) {
                Some(path) if !is_new_overlay(vm, image).unwrap_or(false) => {
                    let path = path.display();
                    warnings.push(format!("{path}: is no empty overlay, so it stays"));
                    continue;
                }
                Some(_) => layer_files(vm, image)?,
                None if is_delta(&path) => files_by_name(&path),
                None => continue,
            };
            let own = files.iter().filter_map(|file| own_file(vm, file.to_str()?));
            for file in own.collect::<Vec<_>>() {
                warnings.extend(removal.remove(&file)?);
            }
        }
        for name in &self.made {
            let path = own_file(vm, name);
            if let Some(path) = path.filter(|path| is_kept(path, &vm.stem())) {
                warnings.extend(removal.remove(&path)?);
            }
        }
        for debris in vm.debris()? {
            let _ = std::fs::remove_file(debris);
        }
        forget(vm)?;
        Ok(warnings)
    }
}

fn is_new_overlay(vm: &Vm, image: &ImageName) -> Result<bool> {
    hako_disk::is_empty(&image.subject(vm)?)
}

/// Returns the files of an image, the main one last.
fn layer_files(vm: &Vm, image: &ImageName) -> Result<Vec<PathBuf>> {
    let mut files = hako_disk::files_of(&image.subject(vm)?.open_layer()?);
    files.reverse();
    Ok(files)
}

impl Merge {
    /// Returns what is asked of the disk's side.
    pub(crate) fn request(&self, vm: &Vm) -> Result<MergeRequest> {
        Ok(MergeRequest {
            child: self.child.subject(vm)?,
            parent: self.parent.subject(vm)?,
            threads: None,
        })
    }
}

/// Returns the path of a journal, whether it is there or not.
pub(crate) fn path_of(vm: &Vm) -> PathBuf {
    vm.path().with_extension("hako-journal")
}

fn forget(vm: &Vm) -> Result<()> {
    let path = path_of(vm);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("delete", error).in_file(&path));
        }
        _ => (),
    }
    sync_folder_of(&path)
}

fn digest(bytes: &[u8]) -> String {
    hex(&digest::digest(Algorithm::Sha256, bytes))
}

fn digest_of_vmsd(vm: &Vm) -> Result<String> {
    let bytes = read_text(&vm.vmsd_path())?;
    Ok(bytes.map(|bytes| digest(&bytes)).unwrap_or_default())
}

#[cfg(test)]
mod tests;
