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

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, Result};

/// Bytes that a socket's path may have, the final zero left out (unix(7), `sun_path`).
const MAX_SOCKET_PATH_BYTES: usize = 107;

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
