//! The outer machine of the test bed: a Debian kernel with device-mapper, MD, every file system and
//! AMD's KVM, which this machine's own kernel may lack. `tests/bed/outer` builds it, `tests/bed/run`
//! runs scripts in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Run, root, run_program, skip};

/// One run of a script in the outer machine: a folder that it shares, and disks.
pub struct Bed {
    folder: tempfile::TempDir,
    words: Vec<String>,
}

impl Bed {
    /// Makes a run of `script`, for bash; it is in the shared folder, /work. None, and the test says
    /// that it skips, if the outer machine is not built.
    pub fn new(script: &str) -> Option<Self> {
        if !root().join(".peers/bed/outer/made-of").exists() {
            skip("the test bed is not built: tests/run does that");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        std::fs::write(&run, format!("set -euo pipefail\n{script}")).unwrap();
        std::fs::set_permissions(run, PermissionsExt::from_mode(0o755)).unwrap();
        Some(Self {
            folder,
            words: Vec::new(),
        })
    }

    /// Adds a raw file as the next disk: /dev/disk0, /dev/disk1 and so on.
    pub fn disk(self, path: &Path) -> Self {
        self.disk_with_sectors_of(512, path)
    }

    /// Adds a raw file as the next disk, with sectors of 512 or 4096 bytes.
    pub fn disk_with_sectors_of(mut self, sector_bytes: u32, path: &Path) -> Self {
        let disk = format!("{},{sector_bytes}", path.display());
        self.words.extend(["--disk".to_owned(), disk]);
        self
    }

    /// Gives up after so many seconds.
    pub fn seconds(mut self, seconds: u32) -> Self {
        self.words
            .extend(["--seconds".to_owned(), seconds.to_string()]);
        self
    }

    /// Returns a path in the shared folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the script to its end.
    pub fn run(&self) -> Run {
        let mut words = self.words.clone();
        words.push(self.folder.path().display().to_string());
        run_program(root().join("tests/bed/run"), &words)
    }
}
