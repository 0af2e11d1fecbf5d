//! `hako vm start` that is interrupted, and runners that are killed at any point of it: what is told
//! afterwards is so, and the next start works.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::binary;
use common::guest::{eventually, is_alive, send};
use common::vms::Vms;
use serde_json::Value;

fn starting(vms: &Vms) -> Child {
    Command::new(binary())
        .args(["vm", "start", "web"])
        .env("HAKO_HOME", vms.world.path("home"))
        .env("HAKO_RUN", vms.world.path("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The processes whose parent is this one.
fn children(pid: u32) -> Vec<Value> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_child = |entry: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let parent: u32 = fields.split_whitespace().nth(1)?.parse().ok()?;
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        (parent == pid).then(|| number.into())
    };
    processes.filter_map(|entry| is_child(&entry)).collect()
}

/// How many points of a start are tried.
fn delays() -> impl Iterator<Item = Duration> {
    let n = if std::env::var_os("HAKO_ALL").is_some() {
        60
    } else {
        6
    };
    (0..n).map(move |step| Duration::from_millis(600 * step / n))
}

#[track_caller]
fn starts_and_stops(vms: &Vms, because: &str) {
    eventually(because, || vms.state("web") == "stopped");
    vms.start(&[]);
    vms.done(&["stop", "--force", "web"]);
    assert_eq!(vms.state("web"), "stopped");
}

#[test]
fn a_start_that_is_interrupted_has_happened_or_leaves_nothing() {
    let vms = Vms::with_guest();
    for delay in delays() {
        let child = starting(&vms);
        std::thread::sleep(delay);
        let runners = children(child.id());
        send("-INT", &child.id().into());
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        match ended.status.code() {
            Some(0) => {
                assert_eq!(vms.state("web"), "running", "{delay:?}");
                vms.done(&["stop", "--force", "web"]);
            }
            // Before it catches signals, there is none that it could answer.
            Some(130) | None => {
                eventually("the runner ends", || !runners.iter().any(is_alive));
                assert_eq!(vms.state("web"), "stopped", "{delay:?}: {stderr}");
            }
            other => panic!("{delay:?}: {other:?}: {stderr}"),
        }
        starts_and_stops(&vms, &format!("interrupted after {delay:?}"));
    }
}

#[test]
fn a_runner_that_is_killed_while_it_starts_is_told_and_blocks_nobody() {
    let vms = Vms::with_guest();
    for delay in delays() {
        let child = starting(&vms);
        let mut runners = Vec::new();
        eventually("a runner is there, or it is done", || {
            runners = children(child.id());
            !runners.is_empty() || !is_alive(&child.id().into())
        });
        std::thread::sleep(delay);
        for runner in &runners {
            send("-KILL", runner);
        }
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        match ended.status.code() {
            Some(0) => (),
            Some(1) => assert!(stderr.contains("without a word"), "{stderr}"),
            other => panic!("{delay:?}: {other:?}: {stderr}"),
        }
        starts_and_stops(&vms, &format!("killed after {delay:?}"));
    }
}

#[test]
fn of_many_that_start_it_at_once_one_does() {
    let vms = Vms::with_guest();
    let started: Vec<Child> = (0..4).map(|_| starting(&vms)).collect();
    let codes = started.into_iter().map(|child| {
        let ended = child.wait_with_output().unwrap();
        ended.status.code().unwrap()
    });
    let mut codes: Vec<i32> = codes.collect();
    codes.sort();
    assert_eq!(codes, [0, 5, 5, 5]);
    assert_eq!(vms.state("web"), "running");
}
