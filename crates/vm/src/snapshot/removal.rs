//! Taking away files of snapshots, and nothing else: what names them is a text that may be damaged,
//! or somebody else's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hako_block::gate::folder_of;
use hako_block::{Error, Result};
use hako_formats::FORMATS;
use hako_formats::vmsd::Vmsd;

use super::firmware::is_copy;
use super::graph::is_kept_configuration;
use crate::Vm;

/// What may be removed of a machine's folder.
pub(super) struct Removal<'a> {
    vm: &'a Vm,
    /// Files that may not go; an error if that is not known.
    in_use: Result<BTreeSet<PathBuf>>,
}

impl<'a> Removal<'a> {
    pub(super) fn new(vm: &'a Vm) -> Self {
        let kept = |vm: &Vm| -> Result<BTreeSet<PathBuf>> {
            let mut files = vm.files_in_use()?;
            let snapshots = vm
                .vmsd()?
                .iter()
                .flat_map(Vmsd::snapshots)
                .collect::<Vec<_>>();
            let kept = snapshots.into_iter().flat_map(|one| {
                let firmware = one.firmware.into_iter().map(|kept| kept.file);
                one.config.into_iter().chain(firmware)
            });
            files.extend(kept.map(|name| vm.folder().join(name)));
            Ok(files)
        };
        Self {
            vm,
            in_use: kept(vm),
        }
    }

    /// Removes a file of the machine's folder, or says why it stays.
    pub(super) fn remove(&self, path: &Path) -> Result<Option<String>> {
        let stays = |why: &str| Ok(Some(format!("{}: {why}, so it stays", path.display())));
        match &self.in_use {
            Err(error) => return stays(&format!("what stands on it cannot be told ({error})")),
            Ok(files) if files.contains(path) => return stays("the machine uses it"),
            Ok(_) => {}
        }
        if path == self.vm.path() || !is_of_snapshots(path, &self.vm.stem()) {
            return stays("is no file of a snapshot");
        }
        std::fs::remove_file(path).map_err(|error| Error::io("delete", error).in_file(path))?;
        Ok(None)
    }
}

/// Returns whether a file is of a kind that snapshots have: an image, a state, a configuration.
fn is_of_snapshots(path: &Path, stem: &str) -> bool {
    let mut formats = FORMATS.iter().flat_map(|format| format.extensions());
    formats.any(|known| has_extension(path, known)) || is_state_or_configuration(path, stem)
}

/// Returns whether a file is called as those of a snapshot are that are no images: a state, memory,
/// a configuration, settings of the firmware.
pub(super) fn is_state_or_configuration(path: &Path, stem: &str) -> bool {
    ["vmsn", "vmem"]
        .iter()
        .any(|known| has_extension(path, known))
        || is_kept(path, stem)
}

/// Returns whether a file is called as what our snapshots keep besides images: a configuration,
/// settings of the firmware.
pub(super) fn is_kept(path: &Path, stem: &str) -> bool {
    is_kept_configuration(path, stem) || is_copy(path, stem)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Returns the path of a regular file of the machine's folder; none if it is not there, or is
/// anywhere else.
pub(super) fn own_file(vm: &Vm, name: &str) -> Option<PathBuf> {
    let path = vm.folder().join(name);
    let folder = std::fs::canonicalize(folder_of(&path)).ok()?;
    let root = std::fs::canonicalize(vm.folder()).ok()?;
    let path = folder.join(path.file_name()?);
    let is_file = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
    (is_file && folder.starts_with(root)).then_some(path)
}
