//! `hako snapshot delete` and `consolidate`, run as a user would.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test panics to fail.

mod common;

use common::snapshots::Snapshots;
use serde_json::json;

#[test]
fn delete_tells_what_it_means_and_does_it_with_yes() {
    let machine = Snapshots::of_three();
    let before = machine.names();
    let run = machine.run("delete", &["s2"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("--yes"), "{}", run.stderr);
    assert_eq!(
        run.stdout,
        "would delete snapshot 2 \"s2\"\n\
         would merge  web-000002.vmdk into web-000001.vmdk (64 KiB)\n\
         would remove web-000002.vmdk\n"
    );
    assert_eq!(machine.names(), before);

    let shown = ["web", "web-000002", "web-000003"].map(|name| machine.shown(name));
    machine.done("delete", &["s2", "--yes"]);
    let now = ["web", "web-000001", "web-000003"].map(|name| machine.shown(name));
    assert!(shown == now);
    assert!(!machine.path("web-000002.vmdk").exists());
    let info = machine.world.hako(["vm", "info", "web/web.vmx", "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
    let uids = info["snapshots"].as_array().unwrap().iter();
    let uids: Vec<_> = uids.map(|one| (&one["uid"], &one["parent"])).collect();
    assert_eq!(uids, [(&json!(1), &json!(null)), (&json!(3), &json!(1))]);
}

#[test]
fn delete_tells_scripts_the_same() {
    let machine = Snapshots::of_three();
    let run = machine.run("delete", &["s1", "--json"]);
    assert_eq!(run.code, 2);
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let merges = json!([{"image": "web-000001.vmdk", "into": "web.vmdk", "bytes": 65536}]);
    assert_eq!(told["would_delete"], json!([{"uid": 1, "name": "s1"}]));
    assert_eq!(told["merges"], merges);
    let told = machine.json("delete", &["s1", "--yes"]);
    assert_eq!(
        told,
        json!({
            "name": "web",
            "deleted": [{"uid": 1, "name": "s1"}],
            "merges": merges,
            "files": ["web-000001.vmdk"],
            "kept": [],
            "warnings": [],
        })
    );
}

#[test]
fn a_branch_and_all_snapshots_go_at_once() {
    let machine = Snapshots::of_three();
    let shown = machine.shown("web-000003");
    let told = machine.json("delete", &["s1/s2", "--children", "--yes"]);
    assert_eq!(told["deleted"].as_array().unwrap().len(), 2);
    let told = machine.json("delete", &["--all", "--yes"]);
    assert_eq!(told["deleted"].as_array().unwrap().len(), 1);
    assert_eq!(machine.names(), ["web.vmdk", "web.vmsd", "web.vmx"]);
    assert!(machine.shown("web") == shown);
    machine.fails("delete", &["--all", "--yes"], 1, "no snapshots");
}

#[test]
fn what_cannot_be_deleted_is_refused() {
    let machine = Snapshots::of_three();
    machine.fails("delete", &[], 2, "SNAP");
    machine.fails("delete", &["s1", "--all"], 2, "cannot be used with");
    machine.fails("delete", &["--all", "--children"], 2, "cannot be used with");
    machine.fails("delete", &["s9", "--yes"], 1, "no snapshot \"s9\"");
    std::fs::create_dir(machine.path("web.vmx.lck")).unwrap();
    std::fs::write(machine.path("web.vmx.lck/M1.lck"), b"x").unwrap();
    machine.fails("delete", &["s1", "--yes"], 5, "VMware");
    let run = machine.world.hako(["snapshot", "delete", "none", "s1"]);
    assert_eq!(run.code, 6, "{}", run.stderr);
}

#[test]
fn consolidate_merges_what_no_snapshot_needs() {
    let machine = Snapshots::of_three();
    machine.vmsd(3, &[(1, 0, "web"), (3, 1, "web-000002")]);
    let shown = ["web", "web-000002", "web-000003"].map(|name| machine.shown(name));
    let told = machine.json("consolidate", &[]);
    assert_eq!(
        told,
        json!({
            "name": "web",
            "merges": [{"image": "web-000002.vmdk", "into": "web-000001.vmdk", "bytes": 65536}],
            "files": ["web-000002.vmdk"],
            "kept": [],
            "warnings": [],
        })
    );
    let now = ["web", "web-000001", "web-000003"].map(|name| machine.shown(name));
    assert!(shown == now);
    let before = machine.names();
    machine.done("consolidate", &[]);
    assert_eq!(machine.names(), before);
}

#[test]
fn consolidate_tells_what_stays() {
    let machine = Snapshots::of_three();
    machine.vmsd(0, &[]);
    machine.image("web-000004", Some("web"));
    let run = machine.run("consolidate", &[]);
    assert_eq!(run.code, 0);
    assert!(
        run.stderr.contains("web.vmdk stays: 2 images"),
        "{}",
        run.stderr
    );
    assert_eq!(
        machine.names(),
        [
            "web-000001.vmdk",
            "web-000004.vmdk",
            "web.vmdk",
            "web.vmsd",
            "web.vmx"
        ]
    );
}

#[test]
fn qcow2_with_snapshots_of_its_own_is_not_removed() {
    let machine = Snapshots::new();
    machine.world.done("create web/web.qcow2 8M");
    machine
        .world
        .done("create --parent web/web.qcow2 web/web-000001.qcow2");
    let vmx = "displayName = \"web\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\n\
               scsi0:0.fileName = \"web-000001.qcow2\"\nhako.scsi0:0.format = \"qcow2\"\n";
    std::fs::write(machine.path("web.vmx"), vmx).unwrap();
    let vmsd = "snapshot.lastUID = \"1\"\nsnapshot.current = \"1\"\n\
                snapshot.numSnapshots = \"1\"\nsnapshot0.uid = \"1\"\n\
                snapshot0.displayName = \"s1\"\nsnapshot0.numDisks = \"1\"\n\
                snapshot0.disk0.node = \"scsi0:0\"\nsnapshot0.disk0.fileName = \"web.qcow2\"\n\
                hako.uid1.scsi0:0.format = \"qcow2\"\n";
    std::fs::write(machine.path("web.vmsd"), vmsd).unwrap();
    let inner = ["snapshot", "-c", "inner", "web/web-000001.qcow2"];
    machine.world.peer("qemu-img", &inner);
    let before = machine.names();
    let run = machine.run("delete", &["s1", "--yes"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("snapshots inside"), "{}", run.stderr);
    assert_eq!(machine.names(), before);
}
