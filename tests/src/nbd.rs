//! A running `hako disk serve`, and the clients to try on it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Run, hako, run_program, skip};

/// A server that runs until it is ended or dropped.
pub struct Server {
    /// Where it serves.
    pub uri: String,
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `hako disk serve IMAGE OPTIONS…` and waits until it listens.
    #[track_caller]
    pub fn start(image: &Path, options: &[&str]) -> Self {
        let mut child = Command::new(hako())
            .args(["disk", "serve"])
            .arg(image)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut uri = String::new();
        stdout.read_line(&mut uri).unwrap();
        if uri.is_empty() {
            let mut stderr = String::new();
            let _ = child.stderr.take().unwrap().read_to_string(&mut stderr);
            panic!("it does not serve: {stderr}");
        }
        Self {
            uri: uri.trim().to_owned(),
            child,
            _stdout: stdout,
        }
    }

    /// Starts it on any free TCP port.
    #[track_caller]
    pub fn on_port(image: &Path, options: &[&str]) -> Self {
        Self::start(image, &[options, &["--port", "0"]].concat())
    }

    /// Returns the TCP port.
    pub fn port(&self) -> u16 {
        let (_, tail) = self.uri.rsplit_once(':').unwrap();
        tail.split('/').next().unwrap().parse().unwrap()
    }

    /// Returns the most memory that it took so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let kilobytes: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        kilobytes * 1024
    }

    /// Sends it SIGTERM.
    pub fn ask_to_end(&self) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself. Returns what it said besides.
    #[track_caller]
    pub fn wait(mut self) -> Run {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().unwrap();
        pipe.read_to_string(&mut stderr).unwrap();
        Run {
            line: format!("hako disk serve on {}", self.uri),
            code: status.code(),
            stdout: String::new(),
            stderr,
        }
    }

    /// Ends it by SIGTERM, which must go well.
    #[track_caller]
    pub fn end(self) {
        self.ask_to_end();
        let run = self.wait().expect_code(0);
        assert!(run.stderr.is_empty(), "{}: {}", run.line, run.stderr);
    }

    /// Ends it by SIGKILL: it can do nothing about that.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns whether nbdcopy and nbdinfo are there.
pub fn has_libnbd() -> bool {
    let has = Command::new("nbdcopy").arg("--version").output().is_ok();
    if !has {
        skip("nbdcopy is not installed: tests/run does that");
    }
    has
}

/// Runs nbdcopy, which must succeed.
#[track_caller]
pub fn nbdcopy(args: &[&str]) {
    run_program("nbdcopy", args).ok();
}

/// Returns a path as text, for command lines.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the script that boots a guest whose kernel is a client; `None` if it is missing.
pub fn guest() -> Option<PathBuf> {
    let boot = crate::root().join(".peers/nbd-guest/boot");
    if boot.exists() {
        return Some(boot);
    }
    skip("no .peers/nbd-guest: tests/run makes it");
    None
}
