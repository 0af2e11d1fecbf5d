//! A folder with all that is in it, which appears under its final name only when it is whole.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, RenameFlags};

use crate::gate::{file_name, file_names, sync_folder_of};
use crate::staging::PART_SUFFIX;
use crate::{Error, ErrorKind, Result};

/// A new folder: `.NAME.hako-part` until [`StagedTree::commit`]. Dropping it removes it with all
/// that is in it. What a killed run left behind is cleared by the next one with the same target: a
/// part that nobody holds locked is debris.
pub struct StagedTree {
    target: PathBuf,
    part: PathBuf,
    /// Tells a live part from debris, where the file system has locks.
    _lock: File,
    cleared: Vec<String>,
    is_done: bool,
    /// The extension of the files that come last into a folder that exists.
    last: Option<&'static str>,
}

impl StagedTree {
    /// Makes the folder. Errors: [`ErrorKind::Exists`] if there is something under the final name,
    /// [`ErrorKind::Locked`] if another run is making it.
    pub fn new(target: &Path) -> Result<Self> {
        refuse_existing(target)?;
        Self::begin(target, None)
    }

    /// Like [`StagedTree::new`] for a folder that may exist: what is made is moved into it, file
    /// after file, those with the extension `last` in the end. No file there is replaced.
    pub fn filling(target: &Path, last: &'static str) -> Result<Self> {
        if !target.is_dir() {
            refuse_existing(target)?;
        }
        Self::begin(target, Some(last))
    }

    fn begin(target: &Path, last: Option<&'static str>) -> Result<Self> {
        let name = file_name(target)?;
        let part = target.with_file_name(format!(".{name}{PART_SUFFIX}"));
        let mut cleared = Vec::new();
        if part.symlink_metadata().is_ok() {
            clear(&part)?;
            cleared.push(format!(".{name}{PART_SUFFIX}"));
        }
        std::fs::create_dir(&part)
            .map_err(|error| Error::io("create the folder", error).in_file(&part))?;
        let lock = lock(&part)?;
        Ok(Self {
            target: target.to_path_buf(),
            part,
            _lock: lock,
            cleared,
            is_done: false,
            last,
        })
    }

    /// Returns where the folder is for now.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Returns the final path.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Returns the name of what an earlier, killed run had left behind and this one removed.
    pub fn cleared(&self) -> &[String] {
        &self.cleared
    }

    /// Gives the folder its final name and returns once that is on stable storage. The files in it
    /// must have been synced.
    pub fn commit(mut self) -> Result<()> {
        sync_folder_of(&self.part.join("any"))?;
        if let Some(last) = self.last.filter(|_| self.target.is_dir()) {
            return self.move_files(last);
        }
        let cwd = rustix::fs::CWD;
        let (from, to) = (&self.part, &self.target);
        let renamed = match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
            // A file system or kernel without the flag: the name was checked before.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                refuse_existing(to)?;
                rustix::fs::renameat(cwd, from, cwd, to)
            }
            result => result,
        };
        renamed.map_err(|error| Error::io("give the new folder its name", error).in_file(to))?;
        self.is_done = true;
        sync_folder_of(to)
    }

    /// Gives every file a name in the folder that exists; the part goes with those it has.
    fn move_files(&self, last: &str) -> Result<()> {
        let mut names = file_names(&self.part)?;
        names.sort_by_key(|name| Path::new(name).extension() == Some(last.as_ref()));
        let mut moved = Vec::new();
        for name in names {
            let (from, to) = (self.part.join(&name), self.target.join(&name));
            // A link never replaces a file.
            if let Err(error) = std::fs::hard_link(&from, &to) {
                for path in moved {
                    let _ = std::fs::remove_file(path);
                }
                return Err(Error::io("create", error).in_file(&to));
            }
            moved.push(to);
        }
        sync_folder_of(&self.target.join("any"))
    }
}

impl Drop for StagedTree {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = std::fs::remove_dir_all(&self.part);
        }
    }
}

fn refuse_existing(target: &Path) -> Result<()> {
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Exists, "exists already")
        .in_file(target)
        .hint("choose another name"))
}

/// Removes the part of a killed run.
fn clear(part: &Path) -> Result<()> {
    let failed = |error| Error::io("clear what a killed run left behind", error).in_file(part);
    if !part.symlink_metadata().map_err(failed)?.is_dir() {
        return std::fs::remove_file(part).map_err(failed);
    }
    let _lock = lock(part)?;
    std::fs::remove_dir_all(part).map_err(failed)
}

fn lock(part: &Path) -> Result<File> {
    let failed = |error| Error::io("open", error).in_file(part);
    let taken =
        || Error::new(ErrorKind::Locked, "another hako is writing this target").in_file(part);
    let folder = File::open(part).map_err(failed)?;
    let locked = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive);
    // Another error: some network file systems have no locks to give.
    if locked == Err(rustix::io::Errno::WOULDBLOCK) {
        return Err(taken());
    }
    // Another run may have renamed or removed it between open and lock.
    let (ours, named) = (folder.metadata(), std::fs::symlink_metadata(part));
    match (ours, named) {
        (Ok(ours), Ok(named)) if (ours.dev(), ours.ino()) == (named.dev(), named.ino()) => {
            Ok(folder)
        }
        _ => Err(taken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("vm");
        let tree = StagedTree::new(&target).unwrap();
        std::fs::write(tree.path().join("a"), b"a").unwrap();
        assert!(!target.exists());
        assert_eq!(
            StagedTree::new(&target).err().unwrap().kind(),
            ErrorKind::Locked
        );
        drop(tree);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let tree = StagedTree::new(&target).unwrap();
        std::fs::write(tree.path().join("a"), b"a").unwrap();
        tree.commit().unwrap();
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"a");
        assert_eq!(
            StagedTree::new(&target).err().unwrap().kind(),
            ErrorKind::Exists
        );
    }

    #[test]
    fn what_a_killed_run_left_behind_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join(".vm.hako-part");
        std::fs::create_dir(&part).unwrap();
        std::fs::write(part.join("debris"), b"x").unwrap();
        let tree = StagedTree::new(&folder.path().join("vm")).unwrap();
        assert_eq!(tree.cleared(), [".vm.hako-part"]);
        tree.commit().unwrap();
        assert!(!folder.path().join("vm/debris").exists());
    }

    #[test]
    fn a_folder_that_exists_is_filled_and_nothing_in_it_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("vm");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("theirs"), b"theirs").unwrap();
        let fill = |name: &str| {
            let tree = StagedTree::filling(&target, "vmx").unwrap();
            std::fs::write(tree.path().join("a.vmx"), b"ours").unwrap();
            std::fs::write(tree.path().join(name), b"ours").unwrap();
            tree.commit()
        };
        assert!(fill("theirs").is_err());
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
        fill("b").unwrap();
        assert_eq!(std::fs::read(target.join("a.vmx")).unwrap(), b"ours");
        assert_eq!(std::fs::read(target.join("theirs")).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(
            StagedTree::filling(&target.join("b"), "vmx").is_err(),
            "no folder"
        );
    }

    #[test]
    fn what_took_the_name_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("vm");
        let tree = StagedTree::new(&target).unwrap();
        std::fs::create_dir(&target).unwrap();
        assert!(tree.commit().is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
