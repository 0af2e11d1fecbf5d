//! A machine's folder with snapshots as VMware's products leave them, made by hand.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use super::{Run, World};

/// The machine `web` in the folder `web`.
pub struct Snapshots {
    pub world: World,
}

impl Snapshots {
    /// A machine without anything.
    pub fn new() -> Self {
        let world = World::new();
        std::fs::create_dir(world.path("web")).unwrap();
        Self { world }
    }

    /// Three snapshots, s1 to s3, and the present state on them: each layer stores 64 KiB of its
    /// own.
    pub fn of_three() -> Self {
        let machine = Self::new();
        let names = ["web", "web-000001", "web-000002", "web-000003"];
        for (index, name) in names.iter().enumerate() {
            let parent = index.checked_sub(1).map(|below| names[below]);
            machine.image(name, parent);
            machine.write(name, index as u64);
        }
        machine.vmx("web-000003");
        machine.vmsd(
            3,
            &[(1, 0, "web"), (2, 1, "web-000001"), (3, 2, "web-000002")],
        );
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.world.path("web").join(name)
    }

    pub fn names(&self) -> Vec<String> {
        self.world.names_in("web")
    }

    /// Makes a VMDK of 8 MiB, an overlay if it has a parent.
    pub fn image(&self, name: &str, parent: Option<&str>) {
        let what = match parent {
            Some(parent) => format!("--parent web/{parent}.vmdk web/{name}.vmdk"),
            None => format!("web/{name}.vmdk 8M"),
        };
        self.world.done(&format!("create {what}"));
    }

    /// Fills the 64 KiB of this number.
    pub fn write(&self, name: &str, piece: u64) {
        let file = format!("web/{name}.vmdk");
        let write = format!("write -P {} {} 64k", piece + 1, piece << 16);
        let args = ["-f", "vmdk", "-c", &write, &file];
        self.world.peer("qemu-io", &args);
    }

    pub fn vmx(&self, disk: &str) {
        let text = format!(
            "displayName = \"web\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\n\
             scsi0:0.fileName = \"{disk}.vmdk\"\n"
        );
        std::fs::write(self.path("web.vmx"), text).unwrap();
    }

    /// Lists these snapshots: uid, parent's uid or 0, disk.
    pub fn vmsd(&self, current: u32, snapshots: &[(u32, u32, &str)]) {
        let last = snapshots.iter().map(|(uid, ..)| uid).max().unwrap_or(&0);
        let mut text = format!(
            "snapshot.lastUID = \"{last}\"\nsnapshot.current = \"{current}\"\n\
             snapshot.numSnapshots = \"{}\"\n",
            snapshots.len()
        );
        for (index, (uid, parent, disk)) in snapshots.iter().enumerate() {
            let entry = format!("snapshot{index}");
            writeln!(text, "{entry}.uid = \"{uid}\"").unwrap();
            if *parent != 0 {
                writeln!(text, "{entry}.parent = \"{parent}\"").unwrap();
            }
            writeln!(
                text,
                "{entry}.displayName = \"s{uid}\"\n{entry}.numDisks = \"1\""
            )
            .unwrap();
            writeln!(text, "{entry}.disk0.node = \"scsi0:0\"").unwrap();
            writeln!(text, "{entry}.disk0.fileName = \"{disk}.vmdk\"").unwrap();
        }
        std::fs::write(self.path("web.vmsd"), text).unwrap();
    }

    /// Runs `hako snapshot VERB web/web.vmx …`.
    pub fn run(&self, verb: &str, rest: &[&str]) -> Run {
        let words = ["snapshot", verb, "web/web.vmx"];
        self.world.hako(words.iter().chain(rest))
    }

    /// Runs it, which must succeed in silence, and returns what it printed.
    #[track_caller]
    pub fn done(&self, verb: &str, rest: &[&str]) -> String {
        let run = self.run(verb, rest);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{verb} {rest:?}");
        run.stdout
    }

    #[track_caller]
    pub fn json(&self, verb: &str, rest: &[&str]) -> Value {
        let stdout = self.done(verb, &[rest, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap()
    }

    #[track_caller]
    pub fn fails(&self, verb: &str, rest: &[&str], code: i32, text: &str) {
        let run = self.run(verb, rest);
        assert_eq!(run.code, code, "{verb} {rest:?}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{verb} {rest:?}: {}", run.stderr);
    }

    /// What a disk shows, as QEMU reads it.
    pub fn shown(&self, name: &str) -> Vec<u8> {
        let to = format!("{name}.shown");
        let from = format!("web/{name}.vmdk");
        let args = ["convert", "-f", "vmdk", "-O", "raw", &from, &to];
        self.world.peer("qemu-img", &args);
        self.world.read(&to)
    }
}
