//! Guests that boot: their disks (`tests/bed/disk` makes them), machines of them, their consoles.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::{Run, hako, root, run_command, run_program, skip};

/// How long anything may take that a guest does, in seconds: a test fails on what does not come, not
/// because the machine is busy.
const PATIENCE: &str = "1800";

/// Returns the raw disk of a guest: `debian-bios`, `debian-uefi` or `fedora-like`. Without it the test
/// says that it skips.
pub fn disk(name: &str) -> Option<PathBuf> {
    let path = root().join(".peers/bed").join(name).join("disk.raw");
    if !path.exists() {
        skip(&format!("{name} is not built: tests/run does that"));
        return None;
    }
    Some(path)
}

/// Waits until fewer guests run than there are processors, in whatever process, and keeps the place.
fn turn() -> File {
    let places = std::thread::available_parallelism().map_or(1, usize::from);
    let files: Vec<File> = (0..places)
        .map(|place| std::env::temp_dir().join(format!("hako-boots-{place}.lock")))
        .map(|path| File::create(path).unwrap())
        .collect();
    loop {
        if let Some(place) = files.iter().position(|file| file.try_lock().is_ok()) {
            return files.into_iter().nth(place).unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A home of machines that run, in a folder of its own. As many tests as there are processors have
/// one at a time: an emulated guest keeps one busy. What runs is switched off at the end.
pub struct Site {
    folder: tempfile::TempDir,
    _turn: File,
}

impl Site {
    /// Waits for its turn, and makes it; none without QEMU, and the test says that it skips.
    pub fn new() -> Option<Self> {
        let qemu = Command::new("qemu-system-x86_64").arg("--version").output();
        if qemu.is_err() {
            skip("qemu-system-x86_64 is not installed: tests/run does that");
            return None;
        }
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            _turn: turn(),
        })
    }

    /// Returns a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a command that runs hako in the folder, with its home.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(hako());
        command
            .args(words)
            .current_dir(self.folder.path())
            .env("HAKO_HOME", self.path("home"))
            .env("HAKO_RUN", self.path("run"))
            .stdin(Stdio::null());
        command
    }

    /// Runs hako to its end.
    pub fn hako(&self, words: &[&str]) -> Run {
        run_command(&mut self.command(words))
    }

    /// Makes a machine `web` of a disk, as a Linux of today has it: pvscsi, vmxnet3.
    #[track_caller]
    pub fn create(&self, disk: &Path, options: &[&str]) {
        let from = ["--memory", "640M", "--from-disk", disk.to_str().unwrap()];
        self.create_of(&[&from, options].concat());
    }

    /// Makes a machine `web` for a Linux of today of what the options say.
    #[track_caller]
    pub fn create_of(&self, options: &[&str]) {
        let words = ["vm", "create", "web", "--guest-os", "debian12-64"];
        self.hako(&[&words[..], options].concat()).ok();
    }

    /// Makes a disk that has the guest run a script for sh instead of starting its system; returns
    /// the option that puts it into a machine as its second disk.
    pub fn script(&self, script: &str) -> [String; 2] {
        let folder = self.path("hako-guest");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("run"), script).unwrap();
        let raw = self.path("script.raw");
        let args = ["-c", "-f", raw.to_str().unwrap(), "-C"];
        let args = [
            &args[..],
            &[self.folder.path().to_str().unwrap(), "hako-guest"],
        ]
        .concat();
        run_program("tar", &args).ok();
        File::options()
            .write(true)
            .open(&raw)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        [
            "--from-disk".to_owned(),
            format!("{},from=raw", raw.display()),
        ]
    }

    /// Starts `web` with QEMU.
    #[track_caller]
    pub fn start(&self, options: &[&str]) -> Run {
        let words = ["vm", "start", "web", "--engine", "qemu"];
        self.hako(&[&words[..], options].concat()).expect_code(0)
    }

    /// Waits until the console of `web` has shown a text.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) {
        self.wait(&["--for-line", text]);
    }

    /// Waits until `web` is off. Returns all that it has shown on the console.
    #[track_caller]
    pub fn wait_until_off(&self) -> String {
        self.wait(&[]);
        self.log()
    }

    /// Waits until `web` uses an address. Returns what is said of it.
    #[track_caller]
    pub fn wait_for_ip(&self) -> String {
        self.wait(&["--for-ip"])
    }

    #[track_caller]
    fn wait(&self, what: &[&str]) -> String {
        let words = ["vm", "wait", "web", "--timeout", PATIENCE];
        let run = self.hako(&[&words[..], what].concat());
        let (code, stderr) = (run.code, &run.stderr);
        assert_eq!(
            code,
            Some(0),
            "waiting for {what:?}: {stderr}\n{}",
            self.log()
        );
        run.stdout
    }

    /// Returns all that `web` has shown on the console in this run, or the last.
    pub fn log(&self) -> String {
        self.hako(&["vm", "console", "--log", "web"])
            .stdout
            .replace('\r', "")
    }

    /// Returns the process ID of the runner of `web`.
    pub fn runner_pid(&self) -> i32 {
        let folders = std::fs::read_dir(self.path("run")).unwrap().flatten();
        let mut pids =
            folders.filter_map(|folder| std::fs::read_to_string(folder.path().join("pid")).ok());
        pids.next().expect("a runner").trim().parse().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.path("home").exists() {
            self.hako(&["vm", "stop", "--force", "web"]);
        }
    }
}

/// What a console has shown, and that it has ended.
type Shown = Arc<(Mutex<(String, bool)>, Condvar)>;

/// A connection to the console of `web`, both ways.
pub struct Console {
    client: Child,
    keyboard: ChildStdin,
    shown: Shown,
    seen: usize,
}

impl Console {
    /// Connects.
    pub fn of(site: &Site) -> Self {
        let mut client = site
            .command(&["vm", "console", "web"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let keyboard = client.stdin.take().unwrap();
        let mut screen = client.stdout.take().unwrap();
        let shown = Shown::default();
        let teller = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let n = screen.read(&mut chunk).unwrap_or(0);
                let mut told = teller.0.lock().unwrap();
                told.0.push_str(&String::from_utf8_lossy(&chunk[..n]));
                told.1 = n == 0;
                teller.1.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        Self {
            client,
            keyboard,
            shown,
            seen: 0,
        }
    }

    /// Logs in as root, once the login is asked for, and has the shell say nothing by itself.
    pub fn log_in(&mut self) {
        self.type_line("");
        for (asked, answer) in [("login:", "root"), ("Password:", "root")] {
            self.expect(asked);
            self.type_line(answer);
        }
        self.expect("root@guest");
        self.type_line("stty -echo; PS1=; bind 'set enable-bracketed-paste off'");
    }

    /// Runs a command in the shell. Returns what it prints, without white space around it.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        self.type_line(&format!("echo; echo begin; {command}; echo end"));
        self.expect("begin");
        self.expect("\nend").replace('\r', "").trim().to_owned()
    }

    /// Answers the question for the passphrase of a disk. cryptsetup asks, then switches the echo off, and
    /// what was typed before that is thrown away.
    pub fn unlock(&mut self, passphrase: &str) {
        self.expect("Please unlock disk");
        std::thread::sleep(Duration::from_secs(5));
        self.type_line(passphrase);
        self.expect("set up successfully");
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        self.keyboard
            .write_all(format!("{line}\r").as_bytes())
            .unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits for a text behind what was waited for before. Returns what came before it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(PATIENCE.parse().unwrap());
        let mut told = self.shown.0.lock().unwrap();
        loop {
            if let Some(at) = told.0[self.seen..].find(text) {
                let before = told.0[self.seen..self.seen + at].to_owned();
                self.seen += at + text.len();
                return before;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !told.1 && !left.is_zero(),
                "no {text:?} on the console: {}",
                told.0
            );
            told = self.shown.1.wait_timeout(told, left).unwrap().0;
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
