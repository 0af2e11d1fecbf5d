//! `hako vm` killed at every system call that changes a file: a machine is whole or not there, is
//! found, and the next run completes what was begun.

use std::ops::Deref;
use std::path::Path;

use hako_tests::machines::{Machines, has_strace};
use hako_tests::{disk_verb, hako, names};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A home of machines that is put back as it was before every trial.
struct World(Machines);

impl Deref for World {
    type Target = Machines;

    fn deref(&self) -> &Machines {
        &self.0
    }
}

impl World {
    fn new() -> Self {
        Self(Machines::new(4 * MIB))
    }

    #[track_caller]
    fn vm(&self, words: &[&str]) -> Value {
        let stdout = self.run(&[&["vm", "--json"], words].concat());
        serde_json::from_slice(&stdout).unwrap_or_default()
    }

    /// Makes a machine with a chain of two layers in split files, a second disk, a list of
    /// snapshots and what else belongs to one; keeps it as what every trial begins with.
    fn make_template(&self) {
        let raw = "disk.raw,subformat=twoGbMaxExtentSparse";
        self.vm(&[
            "create",
            "old",
            "--from-disk",
            raw,
            "--disk",
            "8M,format=qcow2",
        ]);
        let folder = self.path("home/vms/old");
        let overlay = folder.join("old-000001.vmdk");
        let parent = folder.join("old.vmdk");
        disk_verb(
            "create",
            &[&overlay],
            &["--parent", parent.to_str().unwrap()],
        )
        .ok();
        self.vm(&["set", "old", "scsi0:0.fileName=old-000001.vmdk"]);
        for (name, text) in [
            ("old.nvram", "nvram"),
            ("vmware.log", "log"),
            (
                "old.vmsd",
                "snapshot.lastUID = \"1\"\nsnapshot.current = \"1\"\nsnapshot0.uid = \"1\"\n\
                 snapshot0.displayName = \"before\"\nsnapshot0.numDisks = \"1\"\n\
                 snapshot0.disk0.fileName = \"old.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n\
                 snapshot.numSnapshots = \"1\"\n",
            ),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        self.copy("home", "template");
    }

    /// Returns what the guest sees on the machine's first disk, and that all its files are there.
    #[track_caller]
    fn assert_whole(&self, name: &str, about: &str) {
        let info = self.vm(&["info", name]);
        for drive in info["drives"].as_array().unwrap() {
            assert!(drive["error"].is_null(), "{about}: {drive}");
        }
        let disk = info["drives"][0]["layers"][0]["file"].as_str().unwrap();
        self.assert_same(Path::new(disk), about);
        let vmx = Path::new(info["vmx"].as_str().unwrap());
        for snapshot in info["snapshots"].as_array().unwrap() {
            let file = snapshot["disks"][0]["file"].as_str().unwrap();
            assert!(vmx.with_file_name(file).exists(), "{about}: {file}");
        }
    }
}

/// Kills `hako vm …` everywhere; see [`Machines::kill_everywhere`].
fn kill_everywhere(world: &World, words: &[&str], look: impl FnMut(&str)) -> usize {
    world.kill_everywhere(&[&["vm"], words].concat(), 1, look)
}

#[test]
fn renaming_killed_anywhere_leaves_a_whole_machine_under_either_name() {
    if !has_strace() {
        return;
    }
    let world = World::new();
    world.make_template();
    let words = ["rename", "old", "new"];
    let mut n_old = 0;
    let n_killed = kill_everywhere(&world, &words, |about| {
        let list = world.vm(&["list"]);
        assert_eq!(list.as_array().unwrap().len(), 1, "{about}: {list}");
        assert_eq!(list[0]["state"], "stopped", "{about}");
        let mut old = world.command(hako());
        if old.args(["vm", "info", "old"]).status().unwrap().success() {
            n_old += 1;
            world.assert_whole("old", about);
            world.vm(&words);
        } else {
            world.assert_whole("new", about);
        }
        world.assert_whole("new", &format!("{about}, again"));
        assert_eq!(names(&world.path("home/vms")), ["new"], "{about}");
        assert_eq!(
            names(&world.path("home/vms/new")),
            [
                "new-000001.vmdk",
                "new-s001.vmdk",
                "new.nvram",
                "new.qcow2",
                "new.vmdk",
                "new.vmsd",
                "new.vmx",
                "vmware.log"
            ],
            "{about}"
        );
    });
    assert!(
        n_killed > 40 && n_old > 40,
        "{n_killed} kills, {n_old} unfinished"
    );
}

#[test]
fn creation_killed_anywhere_leaves_no_machine_or_the_whole_one() {
    if !has_strace() {
        return;
    }
    let world = World::new();
    std::fs::create_dir(world.path("template")).unwrap();
    let words = ["create", "web", "--from-disk", "disk.raw", "--disk", "1M"];
    let n_killed = kill_everywhere(&world, &words, |about| {
        let info = world.command(hako()).args(["vm", "info", "web"]).status();
        if info.unwrap().success() {
            world.assert_whole("web", about);
        } else {
            world.vm(&words);
            world.assert_whole("web", &format!("{about}, again"));
        }
        assert_eq!(names(&world.path("home/vms")), ["web"], "{about}");
    });
    assert!(n_killed > 10, "{n_killed} kills");
}

#[test]
fn cloning_killed_anywhere_leaves_no_clone_or_the_whole_one() {
    if !has_strace() {
        return;
    }
    let world = World::new();
    world.make_template();
    let full = ["clone", "old", "new"];
    let linked = [&full[..], &["--linked", "--snapshot", "before"]].concat();
    for words in [&full[..], &linked] {
        let n_killed = kill_everywhere(&world, words, |about| {
            world.assert_whole("old", about);
            let info = world.command(hako()).args(["vm", "info", "new"]).status();
            if !info.unwrap().success() {
                world.vm(words);
            }
            world.assert_whole("new", about);
            assert_eq!(names(&world.path("home/vms")), ["new", "old"], "{about}");
            let list = world.vm(&["list"]);
            assert_eq!(list.as_array().unwrap().len(), 2, "{about}: {list}");
        });
        assert!(n_killed > 10, "{words:?}: {n_killed} kills");
    }
}

#[test]
fn linked_cloning_of_now_killed_anywhere_takes_one_snapshot_and_no_more() {
    if !has_strace() {
        return;
    }
    let world = World::new();
    world.make_template();
    let words = ["clone", "old", "new", "--linked"];
    let mut n_taken = 0;
    let n_killed = kill_everywhere(&world, &words, |about| {
        let info = world.command(hako()).args(["vm", "info", "new"]).status();
        if !info.unwrap().success() {
            let taken = world.vm(&["info", "old"])["snapshots"]
                .as_array()
                .unwrap()
                .len();
            n_taken += taken - 1;
            world.vm(&words);
        }
        world.assert_whole("old", about);
        world.assert_whole("new", about);
        assert_eq!(names(&world.path("home/vms")), ["new", "old"], "{about}");
        let snapshots = world.vm(&["info", "old"])["snapshots"].clone();
        let taken: Vec<&Value> = snapshots.as_array().unwrap().iter().collect();
        assert_eq!(taken.len(), 2, "{about}: {snapshots}");
        assert_eq!(taken[1]["name"], "for new", "{about}");
        world.run(&["snapshot", "doctor", "old"]);
    });
    assert!(
        n_killed > 20 && n_taken > 5,
        "{n_killed} kills, {n_taken} after the snapshot"
    );
}

#[test]
fn deletion_killed_anywhere_is_completed_by_the_next() {
    if !has_strace() {
        return;
    }
    let world = World::new();
    world.make_template();
    let words = ["delete", "old", "--yes"];
    let n_killed = kill_everywhere(&world, &words, |about| {
        let list = world.vm(&["list"]);
        if !list.as_array().unwrap().is_empty() {
            world.vm(&words);
        }
        assert!(names(&world.path("home/vms")).is_empty(), "{about}");
        assert_eq!(world.vm(&["list"]), Value::Array(vec![]), "{about}");
    });
    assert!(n_killed > 10, "{n_killed} kills");
}
