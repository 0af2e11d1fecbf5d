//! Runs the binary as a user would.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test helper panics to fail the test.
#![allow(dead_code)] // Each test file is a crate of its own and uses a part.

pub mod guest;
pub mod snapshots;
pub mod vms;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

/// A folder of its own in which commands run.
pub struct World {
    folder: tempfile::TempDir,
}

/// How a run ended.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        self.names_in("")
    }

    /// What is in a folder, sorted.
    pub fn names_in(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A sparse raw disk of `size` bytes with these pieces.
    pub fn raw(&self, name: &str, size: u64, pieces: &[(u64, &[u8])]) -> PathBuf {
        use std::os::unix::fs::FileExt;
        let path = self.path(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in pieces {
            file.write_all_at(bytes, *offset).unwrap();
        }
        path
    }

    /// The binary, to run in the folder, with a home of machines in it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.folder.path());
        command.env("HAKO_HOME", self.path("home"));
        command.env("HAKO_RUN", self.path("run"));
        command
    }

    pub fn hako<I, S>(&self, args: I) -> Run
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command().args(args).output().unwrap().into()
    }

    /// Runs `hako disk …`, words split at blanks.
    pub fn disk(&self, words: &str) -> Run {
        self.hako(["disk"].into_iter().chain(words.split_whitespace()))
    }

    /// Runs `hako disk …`, which must succeed in silence, and returns what it printed.
    pub fn done(&self, words: &str) -> String {
        let run = self.disk(words);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{words}");
        run.stdout
    }

    /// Runs `hako disk … --json`, which must succeed, and returns its result.
    pub fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{words} --json"))).unwrap()
    }

    /// Runs `hako disk …`, which must fail with that code and say something like that.
    pub fn fails(&self, words: &str, code: i32, text: &str) {
        let run = self.disk(words);
        assert_eq!(run.code, code, "{words}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{words}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{words}: {}", run.stdout);
    }

    /// Runs a program of QEMU, which must succeed, and returns what it printed.
    pub fn peer(&self, program: &str, args: &[&str]) -> String {
        let output = std::process::Command::new(program)
            .args(args)
            .current_dir(self.folder.path())
            .output()
            .unwrap_or_else(|error| panic!("{program} (of qemu-utils) is needed: {error}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command line with a terminal on all three ends, and returns what it showed.
    pub fn on_terminal(&self, command: &str) -> String {
        let shown = std::process::Command::new("script")
            .args(["-qec", command, "/dev/null"])
            .current_dir(self.folder.path())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .output()
            .expect("script(1) of bsdutils is needed");
        String::from_utf8(shown.stdout).unwrap()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hako"))
}

/// Bytes that do not compress and differ with the seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
