//! What a guest wrote to its console, kept in files of bounded length.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use hako_block::{Error, Result};

use super::RunFolder;

/// The log of this run, or of the last one.
const LOG: &str = "console.log";
/// What was before it in the same run.
const OLDER: &str = "console.log.1";
/// The end of the run before.
const PREVIOUS: &str = "console.previous.log";
/// All of them.
pub(super) const NAMES: [&str; 3] = [LOG, OLDER, PREVIOUS];

/// Bytes after which a new file is begun.
const MAX_BYTES: u64 = 1 << 20;

/// The log of a run.
pub(super) struct ConsoleLog {
    folder: RunFolder,
    /// None once it cannot be written any more.
    file: Option<File>,
    len: u64,
}

impl ConsoleLog {
    /// Begins the log of a new run; that of the last one is kept.
    pub(super) fn begin(folder: &RunFolder) -> Result<Self> {
        // Of a machine that was never started there is none.
        let _ = std::fs::rename(folder.file(LOG), folder.file(PREVIOUS));
        let _ = std::fs::remove_file(folder.file(OLDER));
        let path = folder.file(LOG);
        let file = new_file(&path).map_err(|error| Error::io("make", error).in_file(&path))?;
        Ok(Self {
            folder: folder.clone(),
            file: Some(file),
            len: 0,
        })
    }

    /// Adds to it. A log that cannot be written (a full file system) ends; the guest goes on.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.len >= MAX_BYTES {
            self.rotate();
        }
        let Some(file) = &mut self.file else { return };
        match file.write_all(bytes) {
            Ok(()) => self.len = self.len.saturating_add(bytes.len() as u64),
            Err(_) => self.file = None,
        }
    }

    fn rotate(&mut self) {
        let path = self.folder.file(LOG);
        let renamed = std::fs::rename(&path, self.folder.file(OLDER));
        self.file = renamed.and_then(|()| new_file(&path)).ok();
        self.len = 0;
    }

    /// Returns what is in it.
    pub(super) fn read(&self) -> Vec<u8> {
        read(&self.folder)
    }
}

/// Returns what the guest wrote in this run or, if it is off, in the last one, as far as it is kept.
pub(super) fn read(folder: &RunFolder) -> Vec<u8> {
    let parts = [OLDER, LOG].map(|name| std::fs::read(folder.file(name)).unwrap_or_default());
    parts.concat()
}

fn new_file(path: &PathBuf) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunHome;
    use std::path::Path;

    #[test]
    fn the_log_is_bounded_and_that_of_the_last_run_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let folder = RunHome::new(temp.path().join("run")).folder(Path::new("/a.vmx"));
        folder.create().unwrap();
        let mut log = ConsoleLog::begin(&folder).unwrap();
        log.write(b"first");
        assert_eq!(log.read(), b"first");
        let line = vec![b'x'; 300_000];
        for _ in 0..20 {
            log.write(&line);
        }
        log.write(b"last");
        let kept = log.read();
        assert!(kept.ends_with(b"xlast") && kept.len() > 1 << 20);
        assert!(kept.len() < 3 << 20);
        drop(log);
        assert_eq!(read(&folder), kept);
        let log = ConsoleLog::begin(&folder).unwrap();
        assert_eq!(log.read(), b"");
        let previous = std::fs::read(folder.file(PREVIOUS)).unwrap();
        assert!(previous.ends_with(b"last"));
    }
}
