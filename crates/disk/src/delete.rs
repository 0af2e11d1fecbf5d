//! Deleting an image with all its files.

use std::path::{Path, PathBuf};

use hako_block::gate::folder_of;
use hako_block::{Error, ExtentKind, Result, Value, extents};
use hako_formats::{OpenOptions, OpenedLayer, open_chain};

use crate::change::Subject;

/// Deletes an image: its main file first, so that nothing is left that looks like an image, then
/// the others. Returns what was deleted. Its parents stay. Refused if another image beside it is
/// an overlay on it, unless forced.
pub fn delete(subject: &Subject, force: bool) -> Result<Vec<PathBuf>> {
    if !force {
        subject.refuse_overlays(None, "deleting it would lose that one's content, too")?;
    }
    let options = OpenOptions {
        top_only: true,
        ..subject.writable()
    };
    let opened = open_chain(&subject.path, &options)?;
    let files = files_of(&opened.layers[0]);
    remove_files(&opened.layers[0])?;
    Ok(files)
}

/// Returns whether an image is an overlay that stores nothing itself. Its parents are not looked
/// at.
pub fn is_empty(subject: &Subject) -> Result<bool> {
    let layer = subject.open_layer()?;
    if layer.image.info().parent.is_none() {
        return Ok(false);
    }
    for extent in extents(&*layer.image) {
        if extent?.kind != ExtentKind::Hole {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the files of one layer, the main one first. Block devices are none.
pub fn files_of(layer: &OpenedLayer) -> Vec<PathBuf> {
    let info = layer.image.info();
    let main = PathBuf::from(layer.args.storage.name());
    let mut files = vec![main.clone()];
    let further = info.files.iter().map(PathBuf::from);
    let track = info.details.iter().filter_map(|(key, value)| match value {
        Value::Text(name) if *key == "change_track_path" => Some(folder_of(&main).join(name)),
        _ => None,
    });
    // A change-tracking file lies beside its image; a path that leads elsewhere is not touched.
    let track = track.filter(|path| folder_of(path) == folder_of(&main));
    for file in further.chain(track) {
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files.retain(|file| std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file()));
    files
}

/// Removes the files of one layer.
pub(crate) fn remove_files(layer: &OpenedLayer) -> Result<()> {
    for file in files_of(layer) {
        remove_file(&file)?;
    }
    Ok(())
}

/// Removes one file and returns once that is on stable storage.
pub(crate) fn remove_file(file: &Path) -> Result<()> {
    std::fs::remove_file(file).map_err(|error| Error::io("delete", error).in_file(file))?;
    hako_block::gate::sync_folder_of(file)
}
