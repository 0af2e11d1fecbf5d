//! Mending what is safe to mend. No data is given up; of a text that is changed a copy is kept.

use std::path::{Path, PathBuf};

use hako_block::gate::{replace_file, sync_folder_of};
use hako_block::{Error, Result};
use hako_disk::free_saved_name;
use hako_formats::Task;
use hako_formats::machine::Node;
use hako_formats::vmsd::Vmsd;

use super::finding::Remedy;
use crate::Vm;
use crate::snapshot::journal::{Journal, Recovered};
use crate::snapshot::name::ImageName;
use crate::snapshot::overlay::NewOverlay;

/// What came of it.
#[derive(Default)]
pub(super) struct Mended {
    /// The copy that was kept.
    pub saved: Option<PathBuf>,
    /// What became of what a run had begun.
    pub recovered: Option<Recovered>,
}

/// Mends one thing of a machine that is held.
pub(super) fn mend(vm: &mut Vm, remedy: &Remedy, task: Task<'_>) -> Result<Mended> {
    let mut mended = Mended::default();
    match remedy {
        Remedy::Recover => mended.recovered = Journal::recover(vm, task)?,
        Remedy::SettleList => mended.saved = change_list(vm, Vmsd::settle)?,
        Remedy::SetCurrent(uid) => {
            mended.saved = change_list(vm, |vmsd| vmsd.set_current(Some(*uid)))?;
        }
        Remedy::NeedsNothing => {
            mended.saved = change_list(vm, |vmsd| vmsd.set_needs_consolidation(false))?;
        }
        Remedy::Relink {
            overlay,
            parent,
            note,
        } => {
            overlay.link_to(parent, vm)?;
            note.as_deref().map(remove).transpose()?;
        }
        Remedy::Protect(node) => protect(vm, *node, task)?,
        Remedy::RemoveEmpty(image) => remove_empty(vm, image)?,
        Remedy::RemoveFiles(files) => mend_files(files)?,
    }
    Ok(mended)
}

/// Removes files that nobody needs.
pub(super) fn mend_files(files: &[PathBuf]) -> Result<()> {
    files.iter().try_for_each(|file| remove(file))
}

fn change_list(vm: &Vm, change: impl FnOnce(&mut Vmsd) -> Result<()>) -> Result<Option<PathBuf>> {
    let Some(mut vmsd) = vm.vmsd()? else {
        return Ok(None);
    };
    let before = vmsd.to_bytes();
    change(&mut vmsd)?;
    let path = vm.vmsd_path();
    let copy = free_saved_name(&path)?;
    replace_file(&copy, &before)?;
    replace_file(&path, &vmsd.to_bytes())?;
    Ok(Some(copy))
}

/// Lets the machine write to a new overlay on a disk. Cut off before the machine names it, it is an
/// empty overlay that nothing refers to.
fn protect(vm: &mut Vm, node: Node, task: Task<'_>) -> Result<()> {
    let disks = vm.disks();
    let Some((_, disk)) = disks.iter().find(|(other, _)| *other == node) else {
        return Ok(());
    };
    let (overlays, _) = NewOverlay::plan(vm, vec![(node, ImageName::of_disk(disk))])?;
    for overlay in overlays {
        overlay.make(vm, task)?;
        overlay.name_in(&mut vm.vmx)?;
    }
    vm.save()
}

fn remove_empty(vm: &Vm, image: &ImageName) -> Result<()> {
    let subject = image.subject(vm)?;
    if !hako_disk::is_empty(&subject)? {
        return Err(Error::invalid("has been written to meanwhile").in_file(&subject.path));
    }
    hako_disk::delete(&subject, false).map(drop)
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", error).in_file(file));
        }
        _ => (),
    }
    if let Some(folder) = file
        .parent()
        .filter(|folder| folder.extension() == Some("lck".as_ref()))
    {
        // Fails where another lock is in it.
        let _ = std::fs::remove_dir(folder);
        return sync_folder_of(folder);
    }
    sync_folder_of(file)
}
