//! `hako snapshot doctor`, run as a user would.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test panics to fail.

mod common;

use common::snapshots::Snapshots;
use serde_json::json;

#[test]
fn a_sound_machine_is_told_so_by_silence() {
    let machine = Snapshots::of_three();
    assert_eq!(machine.done("doctor", &[]), "");
    let told = machine.json("doctor", &["--repair"]);
    assert_eq!(
        told,
        json!({
            "name": "web", "findings": [], "repaired": [], "recovered": null, "saved": [],
            "failures": [],
        })
    );
}

#[test]
fn what_hako_itself_has_made_is_sound() {
    let machine = Snapshots::new();
    machine.image("web", None);
    machine.vmx("web");
    for name in ["clean", "patched"] {
        machine.done("create", &[name]);
        assert_eq!(machine.done("doctor", &[]), "");
    }
    machine.write("web-000002", 3);
    machine.done("revert", &["clean", "--save-first"]);
    assert_eq!(machine.done("doctor", &[]), "");
    machine.done("delete", &["patched", "--yes"]);
    assert_eq!(machine.done("doctor", &[]), "");
    machine.done("consolidate", &[]);
    machine.done("delete", &["--all", "--yes"]);
    assert_eq!(machine.done("doctor", &[]), "");
}

#[test]
fn a_finding_says_what_it_is_what_follows_and_what_to_do() {
    let machine = Snapshots::of_three();
    machine.image("web-000004", Some("web"));
    let run = machine.run("doctor", &[]);
    assert_eq!((run.code, run.stderr.as_str()), (1, ""));
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], "unreferenced-delta: web-000004.vmdk");
    assert!(
        lines[1].starts_with("  what: nothing refers to it"),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("  then: it takes space"), "{lines:?}");
    assert!(
        lines[3].starts_with("  do:   `--repair` removes it"),
        "{lines:?}"
    );
    let run = machine.run("doctor", &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(told["findings"][0]["kind"], "unreferenced-delta");
    assert_eq!(told["findings"][0]["repairable"], true);

    let run = machine.run("doctor", &["--repair"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(
        run.stdout
            .starts_with("repaired unreferenced-delta: web-000004.vmdk")
    );
    assert_eq!(machine.done("doctor", &[]), "");
}

#[test]
fn what_is_left_after_a_repair_is_told_by_the_exit_status() {
    let machine = Snapshots::of_three();
    let list = std::fs::read_to_string(machine.path("web.vmsd")).unwrap();
    let list = list.replace("numSnapshots = \"3\"", "numSnapshots = \"8\"");
    std::fs::write(machine.path("web.vmsd"), &list).unwrap();
    machine.image("web-000004", Some("web"));
    machine.write("web-000004", 5);
    let run = machine.run("doctor", &["--repair", "--json"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(told["repaired"][0]["kind"], "wrong-list");
    assert_eq!(told["findings"].as_array().unwrap().len(), 1);
    assert_eq!(told["findings"][0]["repairable"], false);
    let saved = told["saved"][0].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(saved).unwrap(), list);
    assert!(machine.path("web-000004.vmdk").exists());
}

#[test]
fn a_machine_that_runs_or_is_not_there_is_refused() {
    let machine = Snapshots::of_three();
    std::fs::create_dir(machine.path("web.vmx.lck")).unwrap();
    std::fs::write(machine.path("web.vmx.lck/M1.lck"), b"elsewhere 7-1(vmx)").unwrap();
    let run = machine.run("doctor", &[]);
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.contains("other-lock: web.vmx.lck"),
        "{}",
        run.stdout
    );
    machine.fails("doctor", &["--repair"], 5, "VMware");
    let run = machine.world.hako(["snapshot", "doctor", "none"]);
    assert_eq!(run.code, 6, "{}", run.stderr);
}
