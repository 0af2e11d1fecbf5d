//! What lies around in a machine's folder: locks, notes and parts of runs that are gone.

use std::fs::File;
use std::path::{Path, PathBuf};

use hako_block::staging::PART_SUFFIX;
use hako_block::{Error, Result};

use super::Look;
use super::finding::{Finding, Remedy, Trouble};
use super::lock::{Holds, VmwareLock, locks_in};
use crate::Vm;

/// Looks for what killed runs left behind.
pub(super) fn look(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for path in hidden_files(look.vm)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_part = name.ends_with(PART_SUFFIX) && is_nobodys(&path);
        if is_part {
            findings.push(Finding {
                trouble: Trouble::Leftover,
                file: name.clone().into_owned(),
                what: "a run that was killed was writing it, and nobody is any more".to_owned(),
                advice: "`--repair` removes it".to_owned(),
                remedy: Some(Remedy::RemoveFiles(vec![path.clone()])),
            });
        }
    }
    Ok(findings)
}

/// Returns the notes that `hako disk commit` leaves beside an overlay while it merges it, with the
/// overlay's path.
pub(super) fn notes_of_commits(vm: &Vm) -> Result<Vec<(PathBuf, PathBuf)>> {
    let notes = hidden_files(vm)?
        .into_iter()
        .filter_map(|note| Some((hako_disk::overlay_of_note(&note)?, note)));
    Ok(notes.collect())
}

/// Returns the files in a machine's folder whose names begin with a dot, sorted.
fn hidden_files(vm: &Vm) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("list", error).in_file(vm.folder());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(vm.folder()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if is_hidden && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Returns whether nobody holds the lock that a live part has.
fn is_nobodys(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Looks at the locks of VMware's products.
pub(super) fn look_at_locks(vm: &Vm) -> Result<Vec<Finding>> {
    Ok(locks_in(vm.folder())?.iter().filter_map(lock).collect())
}

fn lock(lock: &VmwareLock) -> Option<Finding> {
    let file = lock.folder.file_name().unwrap_or_default();
    let file = file.to_string_lossy().into_owned();
    match &lock.holds {
        Holds::Yes { .. } => None,
        Holds::No { pid } => Some(Finding {
            trouble: Trouble::StaleLock,
            what: format!("process {pid} of this host made it, and that is gone"),
            advice: "`--repair` removes it".to_owned(),
            remedy: Some(Remedy::RemoveFiles(lock.files.clone())),
            file,
        }),
        Holds::Unknown { by } => Some(Finding {
            trouble: Trouble::OtherLock,
            what: format!("{by} made it"),
            advice: format!(
                "make sure that the machine runs nowhere, then remove {}",
                lock.folder.display()
            ),
            remedy: None,
            file,
        }),
    }
}
