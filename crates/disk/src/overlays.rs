//! Which images stand on another one.

use std::path::{Path, PathBuf};

use hako_block::staging::PART_SUFFIX;
use hako_block::{Access, Error, FileId, FileStorage, GateRules, LockMode, Result, Storage};
use hako_formats::{OpenOptions, find_parent, open_chain};

/// Returns the images in the folder of `path` that are overlays directly on it. Overlays in other
/// folders cannot be known.
pub fn overlays_of(path: &Path) -> Result<Vec<PathBuf>> {
    let id = FileStorage::open(path, Access::ReadOnly, LockMode::None)?.id();
    let folder = crate::target::folder_of(path);
    let failed = |error| Error::io("list", error).in_file(folder);
    let mut overlays = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let candidate = path.with_file_name(entry.file_name());
        // What a run is writing, or a killed one left behind, is no image yet.
        let is_part = entry.file_name().to_string_lossy().ends_with(PART_SUFFIX);
        let is_other = candidate.file_name() != path.file_name();
        if is_file && is_other && !is_part && stands_on(&candidate, id) {
            overlays.push(candidate);
        }
    }
    overlays.sort();
    Ok(overlays)
}

/// Returns whether the file at `path` is an overlay on the file `id`. What cannot be read as an
/// image is none.
fn stands_on(path: &Path, id: Option<FileId>) -> bool {
    let options = OpenOptions {
        rules: GateRules {
            no_lock: true,
            ..GateRules::default()
        },
        top_only: true,
        ..OpenOptions::default()
    };
    let Ok(opened) = open_chain(path, &options) else {
        return false;
    };
    let layer = &opened.layers[0];
    let Some(link) = &layer.image.info().parent else {
        return false;
    };
    find_parent(layer, link, &options).is_ok_and(|parent| parent.storage.id() == id)
}
