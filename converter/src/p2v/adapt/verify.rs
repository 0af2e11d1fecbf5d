//! Paths of a guest as changes name them, and whether the changes are there.

use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};
use hako_guest::root::Root;
use hako_guest::{FileSystem, Found, FoundVolume, NodeKind, Tree, Volumes};

use super::{Change, What};

/// Splits `UUID=…:/PATH`; none if the path is one of the mounted system.
pub(super) fn in_volume<'v, 'p>(
    volumes: &'v Volumes,
    path: &'p str,
) -> Result<Option<(&'v FoundVolume, &'p str)>> {
    if path.starts_with('/') {
        return Ok(None);
    }
    let missing = || {
        Error::new(
            ErrorKind::NotFound,
            format!("{path}: there is no such volume"),
        )
    };
    let (name, inner) = path.split_once(":/").ok_or_else(missing)?;
    match volumes.find(name)[..] {
        [volume] => Ok(Some((volume, inner))),
        _ => Err(missing()),
    }
}

/// Returns what is at a path; none if nothing is. `follow`: a link at its end is followed.
pub(super) fn read_at(
    root: &Root,
    volumes: &Volumes,
    path: &str,
    follow: bool,
) -> Result<Option<(NodeKind, Found)>> {
    let (tree, path) = match in_volume(volumes, path)? {
        Some((volume, inner)) => match volume.file_system() {
            Some(fs) => (Tree::new(Arc::clone(fs)), inner),
            None => return Ok(None),
        },
        None => (root.tree.clone(), path),
    };
    if !follow {
        return look(&tree, path);
    }
    let found = tree.look_for(path.as_bytes())?;
    found
        .map(|found| Ok((found.stat()?.kind, found)))
        .transpose()
}

fn look(tree: &Tree, path: &str) -> Result<Option<(NodeKind, Found)>> {
    match tree.find_no_follow(path.as_bytes()) {
        Ok(found) => Ok(Some((found.stat()?.kind, found))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file systems before and after.
pub(super) type Changed = (Arc<dyn FileSystem>, Arc<dyn FileSystem>);

/// Checks that every change is there, through the reader. Errors: corrupt if one is not.
pub(super) fn all_there(
    root: &Root,
    volumes: &Volumes,
    changed: &[Changed],
    changes: &[Change],
) -> Result<()> {
    let now = |fs: &Arc<dyn FileSystem>| {
        let mut changed = changed.iter();
        let found = changed.find(|(before, _)| Arc::ptr_eq(before, fs));
        Arc::clone(found.map_or(fs, |(_, after)| after))
    };
    let top = |path: &str| -> Result<Found> {
        let found = root.tree.find(path.as_bytes())?;
        Ok(Found::new(now(found.fs()), found.node()))
    };
    let mut tree = Tree::of(top("/")?);
    for mount in root.mounts.iter().skip(1) {
        tree.mount(mount.path.as_bytes(), top(&mount.path)?)?;
    }
    for change in changes {
        let found = match in_volume(volumes, &change.path)? {
            None => look_through(&tree, change)?,
            Some((volume, inner)) => {
                let fs = volume.file_system();
                let fs = fs.ok_or_else(|| Error::unsupported("no file system"))?;
                look(&Tree::new(now(fs)), inner)?
            }
        };
        if !is_there(&change.what, found)? {
            let what = "what was to be written there is not, and nothing was written to the disk";
            return Err(Error::corrupt(change.path.clone(), what));
        }
    }
    Ok(())
}

/// A file that is changed is the one that a link leads to.
fn look_through(tree: &Tree, change: &Change) -> Result<Option<(NodeKind, Found)>> {
    match change.what {
        What::Replace { .. } | What::Append { .. } | What::Cut { .. } => {
            let found = tree.find(change.path.as_bytes())?;
            Ok(Some((found.stat()?.kind, found)))
        }
        _ => look(tree, &change.path),
    }
}

fn is_there(what: &What, found: Option<(NodeKind, Found)>) -> Result<bool> {
    Ok(match (what, found) {
        (What::Remove { .. }, None) => true,
        (What::Replace { new: bytes, .. } | What::Create { bytes, .. }, Some((kind, file))) => {
            kind == NodeKind::File && has(&file, 0, bytes)?
        }
        (What::Append { len, bytes }, Some((NodeKind::File, file))) => has(&file, *len, bytes)?,
        (What::Cut { len }, Some((NodeKind::File, file))) => file.stat()?.len_bytes == *len,
        (What::Folder { .. }, Some((kind, _))) => kind == NodeKind::Directory,
        (What::Link { target }, Some((NodeKind::Link, link))) => {
            link.read_link()? == target.as_bytes()
        }
        _ => false,
    })
}

/// Whether a file has these bytes from `offset` to its end.
fn has(file: &Found, offset: u64, bytes: &[u8]) -> Result<bool> {
    if file.stat()?.len_bytes != offset.saturating_add(bytes.len() as u64) {
        return Ok(false);
    }
    let mut found = vec![0; bytes.len()];
    Ok(file.read_at(offset, &mut found)? == bytes.len() && found == bytes)
}
