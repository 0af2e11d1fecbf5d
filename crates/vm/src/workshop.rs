//! The folder of a machine that is being made: `.NAME.hako-part` beside its place, until it is
//! whole. A live one is locked; one that nobody locks is debris of a killed run.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use hako_block::gate::{file_names, sync_folder_of};
use hako_block::staging::PART_SUFFIX;
use hako_block::{Error, ErrorKind, Result};

use crate::Held;

/// A folder that is being filled. Dropped undelivered, it is gone.
pub(crate) struct Workshop {
    folder: PathBuf,
    target: PathBuf,
    cleared: Vec<String>,
    is_delivered: bool,
    _held: Held,
}

impl Workshop {
    /// Begins the folder `target`, which must not exist, or hold no .vmx.
    pub(crate) fn open(target: &Path) -> Result<Self> {
        let name = target
            .file_name()
            .ok_or_else(|| Error::invalid("names no folder").in_file(target))?;
        refuse_machine(target)?;
        let folder = target.with_file_name(format!(".{}{PART_SUFFIX}", name.to_string_lossy()));
        let failed = |error| Error::io("create", error).in_file(&folder);
        let mut cleared = Vec::new();
        if folder.symlink_metadata().is_ok() {
            let held = Held::alone(&folder)?;
            std::fs::remove_dir_all(&folder).map_err(failed)?;
            drop(held);
            cleared.push(format!(
                "removed {}, which a killed run had left behind",
                folder.display()
            ));
        }
        std::fs::create_dir(&folder).map_err(failed)?;
        let held = Held::alone(&folder)?;
        Ok(Self {
            folder,
            target: target.to_path_buf(),
            cleared,
            is_delivered: false,
            _held: held,
        })
    }

    /// Returns the folder to write to.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says what of an earlier, killed run was removed.
    pub(crate) fn cleared(&self) -> &[String] {
        &self.cleared
    }

    /// Writes a new file.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        use std::io::Write;
        let path = self.folder.join(name);
        let failed = |error| Error::io("write", error).in_file(&path);
        let mut file = create_new(&path).map_err(failed)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }

    /// Copies a file into it.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        let mut source =
            File::open(from).map_err(|error| Error::io("open", error).in_file(from))?;
        let failed = |error| Error::io("write", error).in_file(&path);
        let mut file = create_new(&path).map_err(failed)?;
        std::io::copy(&mut source, &mut file)
            .and_then(|_| file.sync_all())
            .map_err(failed)
    }

    /// Gives the folder its name; into one that exists the files go one by one, the .vmx last.
    /// Returns once that is on stable storage.
    pub(crate) fn deliver(mut self) -> Result<()> {
        refuse_machine(&self.target)?;
        sync_folder_of(&self.folder.join("any"))?;
        if self.target.is_dir() {
            self.move_files()?;
        } else {
            std::fs::rename(&self.folder, &self.target).map_err(|error| {
                Error::io("give the folder its name", error).in_file(&self.target)
            })?;
            self.is_delivered = true;
        }
        sync_folder_of(&self.target)
    }

    fn move_files(&self) -> Result<()> {
        let mut names = file_names(&self.folder)?;
        names.sort_by_key(|name| Path::new(name).extension() == Some("vmx".as_ref()));
        let mut moved = Vec::new();
        for name in names {
            let (from, to) = (self.folder.join(&name), self.target.join(&name));
            // A link never replaces a file; the workshop's own name goes with the workshop.
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

impl Drop for Workshop {
    fn drop(&mut self) {
        if !self.is_delivered {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn create_new(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Refuses a folder that holds a machine already, or is none.
fn refuse_machine(folder: &Path) -> Result<()> {
    let exists = |path: &Path, what: &str| {
        Err(Error::new(ErrorKind::Exists, what)
            .in_file(path)
            .hint("choose another name or --folder; `hako vm register` lists one that is there"))
    };
    match folder.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(metadata) if !metadata.is_dir() => return exists(folder, "exists already"),
        Ok(_) => (),
    }
    let names = file_names(folder)?;
    let vmx = names
        .iter()
        .find(|name| Path::new(name).extension() == Some("vmx".as_ref()));
    match vmx {
        Some(name) => exists(
            &folder.join(name),
            "there is a machine in this folder already",
        ),
        None => Ok(()),
    }
}
