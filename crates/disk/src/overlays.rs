//! Which images stand on another one.

use std::path::{Path, PathBuf};

use hako_block::gate::{file_names, folder_of};
use hako_block::{Access, Error, FileId, FileStorage, GateRules, LockMode, Result, Storage};
use hako_formats::{OpenOptions, find_parent, open_chain};

use crate::change::Subject;

/// Returns the images in the folder of `path` that are overlays directly on it. Overlays in other
/// folders cannot be known.
pub fn overlays_of(path: &Path) -> Result<Vec<PathBuf>> {
    let id = FileStorage::open(path, Access::ReadOnly, LockMode::None)?.id();
    let names = file_names(folder_of(path))?;
    let others = names
        .iter()
        .filter(|name| path.file_name() != Some(name.as_os_str()))
        .map(|name| path.with_file_name(name));
    Ok(others.filter(|other| stands_on(other, id)).collect())
}

/// Refuses to put another image in the place of one that an overlay beside it stands on.
pub fn refuse_to_replace(path: &Path) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    match overlays_of(path)?.first() {
        None => Ok(()),
        Some(overlay) => {
            let overlay = overlay.display();
            let what = format!("{overlay} stands on it, and would lose its content");
            Err(Error::invalid(what).in_file(path).hint(format!(
                "choose another name, or delete {overlay} first: hako disk delete"
            )))
        }
    }
}

/// Returns the file that an image is an overlay on, whatever its content is by now; `None` for one
/// that is no overlay.
pub fn parent_of(subject: &Subject) -> Result<Option<PathBuf>> {
    let options = OpenOptions {
        any_content: true,
        ..subject.open.clone()
    };
    let layer = subject.open_layer()?;
    let Some(link) = &layer.image.info().parent else {
        return Ok(None);
    };
    let parent = find_parent(&layer, link, &options)?;
    Ok(Some(PathBuf::from(parent.storage.name())))
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
