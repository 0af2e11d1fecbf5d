//! The state of running machines: below one folder a folder for each, which a .vmx is found by.
//!
//! ```text
//! RUN/                      0700
//!   0123456789abcdef/       0700, a digest of the path of the .vmx
//!     vmx                   that path
//!     lock                  the runner holds it (flock) while it lives: all else may be stale
//!     pid                   its process ID, for people
//!     control.sock          0600, see `protocol`
//!     console.sock          0600, the guest's serial port as it is
//!     console.log           what the guest wrote there in this run, or the last
//!     console.log.1         and before that in the same run
//!     console.previous.log  the end of the run before
//!     runner.log            what the runner and its engine have said
//! ```
//!
//! An engine puts its own sockets there. Nothing in it is worth keeping but the logs.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, Result};

use super::console_log;

/// Bytes that a socket's path may have, the final zero left out (unix(7), `sun_path`).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The file that the runner locks.
const LOCK: &str = "lock";
/// The file that holds the path of the .vmx.
const VMX: &str = "vmx";
/// The file that holds the runner's process ID.
const PID: &str = "pid";
/// What the runner and its engine have said.
const RUNNER_LOG: &str = "runner.log";
/// That of runs before.
const OLD_RUNNER_LOG: &str = "runner.log.1";

/// Bytes after which a run begins a new log.
const MAX_LOG_BYTES: u64 = 1 << 20;

/// Where the state of this user's running machines is. Which folder that is, is for the program to
/// decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHome {
    /// The folder of all of it.
    pub root: PathBuf,
}

impl RunHome {
    /// Returns the one in the folder `root`, which need not exist. It should be free of symlinks:
    /// the same path for whoever starts and whoever looks.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the folder of the machine of a .vmx, which is absolute; it need not exist.
    pub fn folder(&self, vmx: &Path) -> RunFolder {
        let digest = blake3::hash(vmx.as_os_str().as_bytes()).to_hex();
        let short = digest.get(..16).unwrap_or_default();
        RunFolder {
            path: self.root.join(short),
        }
    }
}

impl RunHome {
    /// Removes the folders of machines that are gone and do not run.
    pub(super) fn sweep(&self) {
        let entries = std::fs::read_dir(&self.root);
        for entry in entries.into_iter().flatten().flatten() {
            let folder = RunFolder { path: entry.path() };
            let Ok(vmx) = std::fs::read(folder.file(VMX)) else {
                continue;
            };
            if !Path::new(OsStr::from_bytes(&vmx)).exists()
                && let Ok(_lock) = folder.lock()
            {
                // What cannot be removed is left to the next start.
                let _ = std::fs::remove_dir_all(folder.path());
            }
        }
    }
}

/// Where the state of one machine's run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Returns its path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the path of a socket in it. Errors: [`ErrorKind::Invalid`] if no socket can have
    /// such a long one.
    pub fn socket(&self, name: &str) -> Result<PathBuf> {
        let path = self.file(name);
        if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            let what = format!("is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a socket");
            return Err(Error::invalid(what)
                .in_file(&path)
                .hint("let HAKO_RUN name a folder with a shorter path"));
        }
        Ok(path)
    }

    /// Makes it, with those above it, for nobody but this user. Errors:
    /// [`ErrorKind::PermissionDenied`] if it is another's, or open to others.
    pub fn create(&self) -> Result<()> {
        for folder in [self.path.parent(), Some(&self.path)].into_iter().flatten() {
            let failed = |error| Error::io("make", error).in_file(folder);
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(folder).map_err(failed)?;
            let found = std::fs::symlink_metadata(folder).map_err(failed)?;
            let is_own = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
            if !is_own || found.permissions().mode() & 0o077 != 0 {
                let what = "is not a folder of this user alone";
                return Err(Error::new(ErrorKind::PermissionDenied, what)
                    .in_file(folder)
                    .hint(
                        "whoever may write there may steer machines: chmod 0700, or set HAKO_RUN",
                    ));
            }
        }
        Ok(())
    }

    /// Opens the file that takes what the runner and its engine say; a long one of earlier runs is
    /// put aside. Makes the folder.
    pub fn open_log(&self) -> Result<File> {
        self.create()?;
        let path = self.file(RUNNER_LOG);
        if std::fs::metadata(&path).is_ok_and(|found| found.len() > MAX_LOG_BYTES) {
            // It only grows longer if that fails.
            let _ = std::fs::rename(&path, self.file(OLD_RUNNER_LOG));
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        let failed = |error| Error::io("open", error).in_file(&path);
        options.open(&path).map_err(failed)
    }

    /// Makes it, empty but for logs, and notes whose it is: the .vmx at `vmx`, or another file whose
    /// guest runs ([`super::GuestScript`]). It is in use as long as what is returned lives. Errors: as
    /// of [`RunFolder::create`]; [`ErrorKind::Locked`] if it is in use.
    pub fn claim(&self, vmx: &Path) -> Result<File> {
        self.create()?;
        let lock = self.lock()?;
        self.begin(vmx)?;
        Ok(lock)
    }

    /// Takes the lock that says that a runner lives. Errors: [`ErrorKind::Locked`] if one does.
    fn lock(&self) -> Result<File> {
        let path = self.file(LOCK);
        let failed = |error| Error::io("lock", error).in_file(&path);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Locked, "a runner of the machine lives").in_file(&path))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Returns whether a runner lives.
    pub fn is_in_use(&self) -> bool {
        let is_locked =
            |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        File::open(self.file(LOCK)).is_ok_and(is_locked)
    }

    /// Removes what an earlier run left but for its logs, and notes whose folder it is. Who does so
    /// has the lock.
    fn begin(&self, vmx: &Path) -> Result<()> {
        self.clear()?;
        let write = |name: &str, bytes: &[u8]| {
            let path = self.file(name);
            std::fs::write(&path, bytes).map_err(|error| Error::io("write", error).in_file(&path))
        };
        write(VMX, vmx.as_os_str().as_bytes())?;
        write(PID, format!("{}\n", std::process::id()).as_bytes())
    }

    /// Removes everything but logs, the lock, and the note whose it is.
    pub(super) fn clear(&self) -> Result<()> {
        let kept = [VMX, LOCK, RUNNER_LOG, OLD_RUNNER_LOG].into_iter();
        let kept: Vec<&str> = kept.chain(console_log::NAMES).collect();
        let failed = |error| Error::io("clear", error).in_file(&self.path);
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if kept.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            match entry.file_type().map_err(failed)?.is_dir() {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            }
            .map_err(failed)?;
        }
        Ok(())
    }

    /// Listens on a socket that only this user may connect to.
    pub(super) fn listen(&self, name: &str) -> Result<UnixListener> {
        let path = self.socket(name)?;
        let failed = |error| Error::io("listen", error).in_file(&path);
        // Nobody else gets through the folder before the mode is set.
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).map_err(failed)?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_found_by_the_vmx_and_is_the_user_s_alone() {
        let temp = tempfile::tempdir().unwrap();
        let home = RunHome::new(temp.path().join("run/hako"));
        let folder = home.folder(Path::new("/vms/web/web.vmx"));
        assert_eq!(folder, home.folder(Path::new("/vms/web/web.vmx")));
        assert_ne!(folder, home.folder(Path::new("/vms/web/mail.vmx")));
        folder.create().unwrap();
        folder.create().unwrap();
        for path in [folder.path(), home.root.as_path()] {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        let open = std::fs::Permissions::from_mode(0o750);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let error = folder.create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_a_killed_runner_left_is_cleared_but_for_the_logs() {
        let temp = tempfile::tempdir().unwrap();
        let home = RunHome::new(temp.path().join("run"));
        let vmx = temp.path().join("web.vmx");
        let folder = home.folder(&vmx);
        let log = folder.open_log().unwrap();
        assert!(!folder.is_in_use());
        let lock = folder.lock().unwrap();
        assert!(folder.is_in_use());
        assert_eq!(folder.lock().unwrap_err().kind(), ErrorKind::Locked);
        folder.begin(&vmx).unwrap();
        let listener = folder.listen("control.sock").unwrap();
        let mode = std::fs::metadata(folder.file("control.sock")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        std::fs::write(folder.file("console.log"), b"text").unwrap();
        // As if it was killed.
        drop((lock, listener, log));
        assert!(!folder.is_in_use());
        let _lock = folder.lock().unwrap();
        folder.begin(&vmx).unwrap();
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["console.log", "lock", "pid", "runner.log", "vmx"]);
    }

    #[test]
    fn folders_of_machines_that_are_gone_are_swept() {
        let temp = tempfile::tempdir().unwrap();
        let home = RunHome::new(temp.path().join("run"));
        let begun = ["gone", "there", "runs"].map(|name| {
            let vmx = temp.path().join(name);
            let folder = home.folder(&vmx);
            folder.create().unwrap();
            folder.begin(&vmx).unwrap();
            folder
        });
        std::fs::write(temp.path().join("there"), b"").unwrap();
        let _lock = begun[2].lock().unwrap();
        home.sweep();
        let left = begun.map(|folder| folder.path().exists());
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn a_socket_whose_path_is_too_long_is_told() {
        let home = RunHome::new("/run/hako");
        let folder = home.folder(Path::new("/x.vmx"));
        assert_eq!(
            folder.socket("control.sock").unwrap(),
            folder.file("control.sock")
        );
        let home = RunHome::new(format!("/{}", "long/".repeat(20)));
        let error = home.folder(Path::new("/x.vmx")).socket("control.sock");
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
