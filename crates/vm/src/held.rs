//! Who may use a machine at the same time: a lock (flock) on its folder. It leaves nothing behind
//! when its holder is killed, and stays when the folder is renamed.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use hako_block::{Error, ErrorKind, Result};

/// Keeps others away from a machine until it is dropped.
#[derive(Debug)]
pub struct Held {
    /// Keeps the lock; none on a file system that has no locks.
    _folder: Option<File>,
}

impl Held {
    /// Runs or changes the machine in `folder`: nobody else uses it meanwhile. Errors:
    /// [`ErrorKind::Locked`] if somebody does.
    pub fn alone(folder: &Path) -> Result<Self> {
        const TRIES: u32 = 10;
        for _ in 1..TRIES {
            match Self::take(folder, File::try_lock) {
                // Who only looks what the machine does holds it for a moment.
                Err(error) if error.kind() == ErrorKind::Locked => {
                    std::thread::sleep(Duration::from_millis(30));
                }
                taken => return taken,
            }
        }
        Self::take(folder, File::try_lock)
    }

    /// Reads the machine in `folder`: nobody runs or changes it meanwhile.
    pub fn reading(folder: &Path) -> Result<Self> {
        Self::take(folder, File::try_lock_shared)
    }

    fn take(
        folder: &Path,
        lock: impl FnOnce(&File) -> std::result::Result<(), TryLockError>,
    ) -> Result<Self> {
        let file = File::open(folder).map_err(|error| Error::io("open", error).in_file(folder))?;
        match lock(&file) {
            Ok(()) => Ok(Self {
                _folder: Some(file),
            }),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Locked,
                "another hako runs, reads or changes this machine",
            )
            .in_file(folder)
            .hint("`hako vm list` shows whether it runs, and `hako vm stop` stops it")),
            // Some network file systems have no locks to give.
            Err(TryLockError::Error(_)) => Ok(Self { _folder: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_a_change_is_alone() {
        let folder = tempfile::tempdir().unwrap();
        let locked = |held: Result<Held>| held.unwrap_err().kind() == ErrorKind::Locked;
        let readers = [(); 2].map(|()| Held::reading(folder.path()).unwrap());
        assert!(locked(Held::alone(folder.path())));
        drop(readers);
        let _alone = Held::alone(folder.path()).unwrap();
        assert!(locked(Held::alone(folder.path())));
        assert!(locked(Held::reading(folder.path())));
    }

    #[test]
    fn lock_stays_when_the_folder_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        let _alone = Held::alone(&old).unwrap();
        std::fs::rename(&old, &new).unwrap();
        assert!(Held::alone(&new).is_err());
    }
}
