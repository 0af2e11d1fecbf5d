//! What the black-box tests share: the binary under test, its peers, real images, disks to try.
//!
//! The tests run the `hako` that `HAKO_BIN` names (`tests/run` sets it to the static release
//! build), else the newest one in `target/`.

pub mod bed;
pub mod corpus;
pub mod disk;
pub mod fuzz;
pub mod guest;
pub mod guests;
pub mod machines;
pub mod nbd;
pub mod nested;
pub mod peers;
pub mod states;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// Returns the binary under test.
pub fn hako() -> PathBuf {
    if let Some(path) = std::env::var_os("HAKO_BIN") {
        return path.into();
    }
    let modified = |path: &PathBuf| {
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    ["target/release/hako", "target/debug/hako"]
        .into_iter()
        .map(|path| root().join(path))
        .filter(|path| path.exists())
        .max_by_key(modified)
        .expect("no hako is built: cargo build, or tests/run")
}

/// Returns whether the long matrices run too (`tests/run --all`).
pub fn all() -> bool {
    std::env::var_os("HAKO_ALL").is_some()
}

/// Says that a test does not run, and why. In CI that is a failure: the machine has everything.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "in CI nothing may be skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// What a finished command said.
pub struct Run {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    fn of(line: String, output: Output) -> Self {
        Self {
            line,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics unless the exit code is 0. Returns standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        self.expect_code(0).stdout
    }

    /// Panics unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "{}\nexit code {:?}, should be {code}\n{}{}",
            self.line,
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Panics unless the command failed in an orderly way: an exit code of its own, and a message.
    #[track_caller]
    pub fn refused(self) -> Self {
        let orderly = self.code.is_some_and(|code| (1..=8).contains(&code));
        assert!(
            orderly && !self.stderr.trim().is_empty() && !self.stderr.contains("panicked"),
            "{}\nnot refused in an orderly way: exit code {:?}\n{}{}",
            self.line,
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Parses standard output as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Runs a program to its end.
pub fn run_program<A: AsRef<OsStr>>(program: impl AsRef<Path>, args: &[A]) -> Run {
    run_command(
        Command::new(program.as_ref())
            .args(args)
            .stdin(Stdio::null()),
    )
}

/// Runs a command to its end.
pub fn run_command(command: &mut Command) -> Run {
    let line = format!("{command:?}");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    Run::of(line, output)
}

/// Runs `hako` to its end.
pub fn run<A: AsRef<OsStr>>(args: &[A]) -> Run {
    run_program(hako(), args)
}

/// Runs `hako` to its end. Returns also the most memory it took, in bytes.
pub fn measure<A: AsRef<OsStr>>(args: &[A]) -> (Run, u64) {
    const SCRIPT: &str = "import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], 'w').write(str(peak))
sys.exit(code)";
    let peak = tempfile::NamedTempFile::new().unwrap();
    let hako = hako();
    let mut all: Vec<&OsStr> = vec!["-c".as_ref(), SCRIPT.as_ref()];
    all.extend([peak.path().as_os_str(), hako.as_os_str()]);
    all.extend(args.iter().map(AsRef::as_ref));
    let run = run_program("python3", &all);
    let kilobytes: u64 = std::fs::read_to_string(peak.path())
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("{}: {}", run.line, run.stderr));
    (run, kilobytes * 1024)
}

/// Runs `hako disk VERB PATHS… OPTIONS…`.
pub fn disk_verb(verb: &str, paths: &[&Path], options: &[&str]) -> Run {
    let mut args: Vec<&OsStr> = vec!["disk".as_ref(), verb.as_ref()];
    args.extend(paths.iter().map(|path| path.as_os_str()));
    args.extend(options.iter().map(OsStr::new));
    run(&args)
}

/// Converts, which must succeed.
#[track_caller]
pub fn convert(from: &Path, to: &Path, options: &[&str]) {
    disk_verb("convert", &[from, to], options).ok();
}

/// Returns what `hako disk hash` says of an image.
#[track_caller]
pub fn hash(path: &Path, options: &[&str]) -> String {
    let text = disk_verb("hash", &[path], options).ok();
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// One creatable variant, as `hako disk formats` lists it.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The format ("vmdk").
    pub format: String,
    /// The subformat; empty for a format without.
    pub subformat: String,
    /// The usual extension.
    pub extension: String,
    /// Whether it can be written to a pipe.
    pub pipe: bool,
    /// Whether it can be written in place.
    pub write: bool,
}

impl Variant {
    /// Returns the options of convert and create that choose it.
    pub fn options(&self) -> Vec<&str> {
        let mut options = vec!["--to", &self.format];
        if !self.subformat.is_empty() {
            options.extend(["--subformat", &self.subformat]);
        }
        options
    }

    /// Returns a file name that tells it from the others.
    pub fn file_name(&self, stem: &str) -> String {
        format!("{stem}-{}.{}", self.subformat, self.extension)
    }
}

/// Returns every creatable variant.
pub fn variants() -> Vec<Variant> {
    let table = run(&["disk", "formats", "--json"]).json();
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or("").to_owned();
    table["formats"]
        .as_array()
        .expect("a list of formats")
        .iter()
        .filter(|row| row["create"] == true)
        .filter(|row| row["subformat"] != "differencing" && row["subformat"] != "diff")
        .map(|row| Variant {
            format: text(row, "format"),
            subformat: text(row, "subformat"),
            extension: row["extensions"][0].as_str().unwrap_or("").to_owned(),
            pipe: row["pipe"] == true,
            write: row["write"] == true,
        })
        .collect()
}

/// Returns the names in a folder, sorted, hidden ones too.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
