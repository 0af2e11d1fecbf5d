//! Runs `hako vm` as a user would.

use std::path::PathBuf;

use serde_json::Value;

use super::{Run, World};

/// A folder with a home of machines in it.
pub struct Vms {
    pub world: World,
}

impl Vms {
    pub fn new() -> Self {
        Self {
            world: World::new(),
        }
    }

    pub fn run(&self, args: &[&str]) -> Run {
        let mut command = self.world.command();
        command.arg("vm").args(args).output().unwrap().into()
    }

    /// Runs `hako vm …`, which must succeed in silence.
    #[track_caller]
    pub fn done(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        run.stdout
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let stdout = self.done(&[args, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap()
    }

    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32, text: &str) {
        let run = self.run(args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{args:?}: {}", run.stderr);
    }

    /// Runs `hako snapshot …`.
    pub fn run_snapshot(&self, args: &[&str]) -> Run {
        let mut command = self.world.command();
        command.arg("snapshot").args(args).output().unwrap().into()
    }

    /// Runs `hako snapshot … --json`, which must succeed in silence.
    #[track_caller]
    pub fn snapshot(&self, args: &[&str]) -> Value {
        let run = self.run_snapshot(&[args, &["--json"]].concat());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Runs `hako snapshot …`, which must fail so.
    #[track_caller]
    pub fn snapshot_fails(&self, args: &[&str], code: i32, text: &str) {
        let run = self.run_snapshot(args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{args:?}: {}", run.stderr);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.world.path("home/vms").join(name)
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn names(&self, folder: &str) -> Vec<String> {
        self.world.names_in(&format!("home/vms/{folder}"))
    }

    /// The state that the list shows.
    pub fn state(&self, name: &str) -> String {
        let list = self.json(&["list"]);
        let rows = list.as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        row["state"].as_str().unwrap().to_owned()
    }
}
