//! A home of machines, and commands on it that are killed at a system call.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::{disk, disk_verb, hako, skip};

/// System calls that change what is on the disk.
pub const CHANGING_CALLS: &[&str] = &[
    "link",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "fsync",
    "fdatasync",
    "ftruncate",
    "pwrite64",
    "write",
    "fallocate",
];

/// Returns what strace is told to kill a command at its `n`th `call`; the command follows.
fn killing(call: &str, n: usize) -> [String; 8] {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let words = ["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    words.map(str::to_owned)
}

/// Returns whether strace is there to kill a command; without it the test says that it skips.
pub fn has_strace() -> bool {
    let found = Command::new("strace").arg("--version").output().is_ok();
    if !found {
        skip("strace is not installed: tests/run does that");
    }
    found
}

/// A folder with a home of machines, and the dense disk `disk.raw`.
pub struct Machines {
    folder: tempfile::TempDir,
}

impl Machines {
    /// Makes it, with a disk of so many bytes.
    pub fn new(disk_bytes: u64) -> Self {
        let machines = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        disk::make_dense(&machines.path("disk.raw"), disk_bytes, 7);
        machines
    }

    /// Returns a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a command that runs in the folder, with its home, in silence.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(self.folder.path())
            .env("HAKO_HOME", self.path("home"))
            .env("SOURCE_DATE_EPOCH", "1795339815")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs hako, which must succeed, and returns what it printed.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Vec<u8> {
        let mut command = self.command(hako());
        let command = command.args(words).stdout(Stdio::piped());
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{words:?}: {said}");
        output.stdout
    }

    /// Runs hako and kills it at its `n`th `call`; returns how it ended, if it was through before.
    pub fn killed(&self, words: &[&str], call: &str, n: usize) -> Option<ExitStatus> {
        let mut command = self.command("strace");
        let command = command.args(killing(call, n)).arg(hako()).args(words);
        let status = command.status().unwrap();
        status.signal().is_none().then_some(status)
    }

    /// Copies a folder, instead of what is there.
    pub fn copy(&self, from: &str, to: &str) {
        let _ = std::fs::remove_dir_all(self.path(to));
        let mut copy = self.command("cp");
        let status = copy.args(["-a", from, to]).status().unwrap();
        assert!(status.success());
    }

    /// Kills hako at the first call of each name that changes something, the next after `every`
    /// and so on, each time with `template` as its home, until it is through before its turn.
    /// Returns how often it was killed.
    pub fn kill_everywhere(
        &self,
        words: &[&str],
        every: usize,
        mut look: impl FnMut(&str),
    ) -> usize {
        let mut n_killed = 0;
        for (number, call) in CHANGING_CALLS.iter().enumerate() {
            for n in (1 + number % every..).step_by(every) {
                self.copy("template", "home");
                if let Some(status) = self.killed(words, call, n) {
                    assert!(status.success(), "{words:?} at {call} {n}: {status}");
                    break;
                }
                look(&format!("{words:?} killed at {call} {n}"));
                n_killed += 1;
            }
        }
        n_killed
    }

    /// Compares an image, which may stand on others in the folder, with `disk.raw`.
    #[track_caller]
    pub fn assert_same(&self, image: &Path, about: &str) {
        let folder = self.folder.path().to_string_lossy();
        let allow = ["--allow-path", &folder];
        let run = disk_verb("compare", &[&self.path("disk.raw"), image], &allow);
        assert_eq!(run.code, Some(0), "{about}: {}{}", run.stdout, run.stderr);
    }
}
