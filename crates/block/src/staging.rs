//! Targets that appear under their final names only when they are whole: written beside, synced,
//! renamed, folder synced.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, OFlags, RenameFlags};

use crate::gate::{file_name, folder_of, sync_folder_of};
use crate::{Access, Error, ErrorKind, FileStorage, Opened, Resolver, Result, Storage};

/// Where a format creates the further files of an image (extent files), by their final names.
pub trait Outputs: Send + Sync {
    /// Creates an empty file beside the image's main file.
    fn create(&self, name: &str) -> Result<Arc<dyn Storage>>;
}

/// Suffix of a file that is being written; the name begins with a dot.
pub const PART_SUFFIX: &str = ".hako-part";

/// The files of one image that is being written: `.NAME.hako-part` until [`StagedFolder::commit`].
/// Dropping it removes them. What a killed run left behind is cleared by the next one with the
/// same target: a part that nobody holds locked is debris. Clones share it.
#[derive(Clone)]
pub struct StagedFolder(Arc<Staged>);

struct Staged {
    folder: PathBuf,
    main: String,
    overwrite: bool,
    cleared: Vec<String>,
    parts: Mutex<BTreeMap<String, Part>>,
}

struct Part {
    /// Holds the advisory lock that tells a live part from debris.
    _lock: File,
    storage: Arc<FileStorage>,
}

impl StagedFolder {
    /// Prepares to write the image `target`. With `overwrite` an image of that name is replaced
    /// at the commit; without, an existing file is [`ErrorKind::Exists`].
    pub fn new(target: &Path, overwrite: bool) -> Result<Self> {
        let main = file_name(target)?;
        let folder = folder_of(target).to_path_buf();
        if !folder.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, "no such folder").in_file(folder));
        }
        let mut staged = Staged {
            folder,
            main,
            overwrite,
            cleared: Vec::new(),
            parts: Mutex::new(BTreeMap::new()),
        };
        staged.refuse_existing(&staged.main)?;
        staged.clear_debris();
        Ok(Self(Arc::new(staged)))
    }

    /// Returns the names of what an earlier, killed run had left behind and this one removed.
    pub fn cleared(&self) -> &[String] {
        &self.0.cleared
    }

    /// Creates the main file.
    pub fn create_main(&self) -> Result<Arc<dyn Storage>> {
        self.0.create(&self.0.main)
    }

    /// Returns the main file's final name.
    pub fn main_name(&self) -> &str {
        &self.0.main
    }

    /// Opens what has been written so far, for verifying it before the commit.
    pub fn reopen_main(&self) -> Result<Opened> {
        self.open(&self.0.main, Access::ReadOnly)
    }

    /// Gives the files their final names, the main file last, and returns once that is on stable
    /// storage. The files themselves must have been synced.
    pub fn commit(self) -> Result<()> {
        self.0.commit()
    }
}

impl Outputs for StagedFolder {
    fn create(&self, name: &str) -> Result<Arc<dyn Storage>> {
        self.0.create(name)
    }
}

impl Resolver for StagedFolder {
    fn open(&self, name: &str, _access: Access) -> Result<Opened> {
        let parts = self.0.parts();
        let part = parts.get(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "is no part of the new image").in_file(name)
        })?;
        let storage: Arc<dyn Storage> = part.storage.clone();
        Ok(Opened {
            storage,
            name: name.to_owned(),
            resolver: Arc::new(self.clone()),
        })
    }

    fn replace(&self, name: &str, _bytes: &[u8]) -> Result<()> {
        Err(Error::read_only().in_file(name))
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.0.parts().keys().cloned().collect())
    }
}

impl Staged {
    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}{PART_SUFFIX}"))
    }

    fn refuse_existing(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        if self.overwrite || path.symlink_metadata().is_err() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Exists, "exists already")
            .in_file(path)
            .hint("choose another name, or replace it with --force"))
    }

    /// Removes parts of this target that no live process holds.
    fn clear_debris(&mut self) {
        let stem = self
            .main
            .rsplit_once('.')
            .map_or(self.main.as_str(), |(stem, _)| stem);
        let prefix = format!(".{stem}");
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let inner = name
                .strip_suffix(PART_SUFFIX)
                .and_then(|name| name.strip_prefix(&prefix));
            // ".disk.vmdk", ".disk-s001.vmdk", ".disk-flat.vmdk", but not ".disk2.vmdk".
            if !inner.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-'])) {
                continue;
            }
            let path = entry.path();
            let live = File::open(&path).map_or(true, |file| !try_lock(&file));
            if !live && std::fs::remove_file(&path).is_ok() {
                self.cleared.push(name);
            }
        }
    }

    fn create(&self, name: &str) -> Result<Arc<dyn Storage>> {
        if Path::new(name).components().count() != 1 || name == ".." {
            return Err(Error::invalid("is not a plain file name").in_file(name));
        }
        self.refuse_existing(name)?;
        let path = self.part_path(name);
        let lock = self.open_locked(&path)?;
        let failed = |error: std::io::Error| Error::io("create", error).in_file(&path);
        lock.set_len(0).map_err(failed)?;
        let file = lock.try_clone().map_err(failed)?;
        let storage = Arc::new(FileStorage::from_file(file, &path, true)?);
        let part = Part {
            _lock: lock,
            storage: storage.clone(),
        };
        self.parts().insert(name.to_owned(), part);
        Ok(storage)
    }

    /// Opens (or creates) a part and takes the lock that marks it live.
    fn open_locked(&self, path: &Path) -> Result<File> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(path)
                .map_err(|error| Error::io("create", error).in_file(path))?;
            if !try_lock(&file) {
                return Err(
                    Error::new(ErrorKind::Locked, "another hako is writing this target")
                        .in_file(path),
                );
            }
            // Another run may have renamed or removed the file between open and lock.
            let same = match (file.metadata(), std::fs::symlink_metadata(path)) {
                (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
                _ => false,
            };
            if same {
                return Ok(file);
            }
        }
    }

    fn commit(&self) -> Result<()> {
        let mut parts = self.parts();
        let main = self.folder.join(&self.main);
        if self.overwrite && parts.len() > 1 && main.symlink_metadata().is_ok() {
            // An old descriptor must never be seen beside new extent files.
            std::fs::remove_file(&main)
                .map_err(|error| Error::io("remove the old image", error).in_file(&main))?;
            sync_folder_of(&main)?;
        }
        let mut names: Vec<String> = parts
            .keys()
            .filter(|name| **name != self.main)
            .cloned()
            .collect();
        if !names.is_empty() {
            for name in &names {
                self.rename_part(name)?;
            }
            sync_folder_of(&main)?;
        }
        self.rename_part(&self.main)?;
        names.push(self.main.clone());
        for name in names {
            parts.remove(&name);
        }
        sync_folder_of(&main)
    }

    fn rename_part(&self, name: &str) -> Result<()> {
        let (from, to) = (self.part_path(name), self.folder.join(name));
        let cwd = rustix::fs::CWD;
        let renamed = if self.overwrite {
            rustix::fs::renameat(cwd, &from, cwd, &to)
        } else {
            match rustix::fs::renameat_with(cwd, &from, cwd, &to, RenameFlags::NOREPLACE) {
                // A file system or kernel without the flag: the name was checked before.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    self.refuse_existing(name)?;
                    rustix::fs::renameat(cwd, &from, cwd, &to)
                }
                result => result,
            }
        };
        renamed.map_err(|error| Error::io("give the new image its name", error).in_file(&to))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for name in self.parts().keys() {
            let _ = std::fs::remove_file(self.part_path(name));
        }
    }
}

fn try_lock(file: &File) -> bool {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_only_at_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let staged = StagedFolder::new(&folder.path().join("d.vmdk"), false).unwrap();
        staged.create_main().unwrap().write_at(0, b"main").unwrap();
        staged
            .create("d-flat.vmdk")
            .unwrap()
            .write_at(0, b"flat")
            .unwrap();
        assert_eq!(
            names(folder.path()),
            [".d-flat.vmdk.hako-part", ".d.vmdk.hako-part"]
        );
        staged.commit().unwrap();
        assert_eq!(names(folder.path()), ["d-flat.vmdk", "d.vmdk"]);
    }

    #[test]
    fn dropping_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let staged = StagedFolder::new(&folder.path().join("d"), false).unwrap();
        staged.create_main().unwrap();
        drop(staged);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn existing_target_is_refused_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        std::fs::write(&path, b"old").unwrap();
        assert_eq!(
            StagedFolder::new(&path, false).err().unwrap().kind(),
            ErrorKind::Exists
        );
        let staged = StagedFolder::new(&path, true).unwrap();
        staged.create_main().unwrap().write_at(0, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        staged.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn debris_is_cleared_but_live_parts_are_locked() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("d.vmdk");
        for name in [
            ".d.vmdk.hako-part",
            ".d-s001.vmdk.hako-part",
            ".d2.vmdk.hako-part",
        ] {
            std::fs::write(folder.path().join(name), b"junk").unwrap();
        }
        let staged = StagedFolder::new(&target, false).unwrap();
        assert_eq!(staged.cleared().len(), 2);
        assert_eq!(names(folder.path()), [".d2.vmdk.hako-part"]);
        let main = staged.create_main().unwrap();
        assert_eq!(main.len_bytes().unwrap(), 0);
        let second = StagedFolder::new(&target, false).unwrap();
        assert_eq!(
            second.create_main().err().unwrap().kind(),
            ErrorKind::Locked
        );
    }
}
