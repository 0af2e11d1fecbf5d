//! `hako vm start`, `stop`, `reset`, `pause`, `unpause`, `wait`, `stats`, and what the list says,
//! with QEMU and a guest of one sector.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Command, Stdio};

use common::binary;
use common::guest::{boot_sector, eventually, is_alive, send};
use common::vms::Vms;

#[test]
fn a_machine_runs_in_a_process_of_its_own_until_its_guest_is_off() {
    let vms = Vms::with_guest();
    let status = vms.start_guest(&["--engine", "qemu", "--boot", "firmware"]);
    assert_eq!(status["state"], "running");
    assert_eq!(status["engine"], "qemu");
    assert!(["kvm", "tcg"].contains(&status["accelerator"].as_str().unwrap()));
    assert_eq!(vms.state("web"), "running");
    let info = vms.json(&["info", "web"]);
    for key in ["engine", "pid", "runner_pid", "started_us", "console"] {
        assert_eq!(info["run"][key], status[key], "{key}");
    }
    let text = vms.done(&["info", "web"]);
    for part in ["running since 20", "qemu, ", "console.sock", "vnc.sock"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // It has a session of its own, and nothing of ours.
    let pid = status["runner_pid"].to_string();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split(' ').nth(4).unwrap();
    assert_eq!(session, pid);
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(cwd, std::path::Path::new("/"));
    vms.fails(&["start", "web"], 5, "already");
    vms.done(&["stop", "web"]);
    assert_eq!(vms.state("web"), "stopped");
    eventually("both are gone", || {
        !is_alive(&status["pid"]) && !is_alive(&status["runner_pid"])
    });
    assert!(vms.runner_log().contains("the guest has shut down"));
    assert!(vms.done(&["console", "--log", "web"]).contains("bye"));
    // What is off already is left alone.
    vms.done(&["stop", "web"]);
    for verb in ["pause", "unpause", "reset", "stats", "console"] {
        vms.fails(&[verb, "web"], 1, "does not run");
        vms.fails(&[verb, "nobody"], 6, "nobody");
    }
    assert_eq!(vms.json(&["info", "web"])["run"], serde_json::Value::Null);
}

#[test]
fn a_machine_is_paused_reset_and_waited_for() {
    let vms = Vms::with_guest();
    vms.fails(
        &["wait", "web", "--state", "running", "--timeout", "0.1"],
        124,
        "time is up",
    );
    vms.start_guest(&[]);
    vms.done(&["pause", "web"]);
    assert_eq!(vms.state("web"), "paused");
    assert_eq!(vms.done(&["wait", "web", "--state", "paused"]), "paused\n");
    vms.fails(
        &["wait", "web", "--state", "running", "--timeout", "0.1"],
        124,
        "time is up",
    );
    vms.done(&["unpause", "web"]);
    assert_eq!(
        vms.json(&["wait", "web", "--state", "running"])["state"],
        "running"
    );
    vms.done(&["reset", "web"]);
    let twice = "guest ready> .*guest ready>";
    vms.done(&[
        "wait",
        "web",
        "--for-line",
        twice,
        "--regex",
        "--timeout",
        "60",
    ]);
    vms.fails(
        &["wait", "web", "--for-line", "(", "--regex"],
        2,
        "--for-line",
    );
    let late = ["wait", "web", "--for-line", "never", "--timeout", "0.3"];
    vms.fails(&late, 124, "time is up");
    let silent = ["wait", "web", "--for-ip", "--timeout", "0.3"];
    vms.fails(&silent, 124, "time is up");
    let stats = vms.json(&["stats", "web"]);
    assert!(stats["cpu_us"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["disks"][0]["reads"].as_u64().unwrap() > 0, "{stats}");
    assert!(vms.done(&["stats", "web"]).contains("CPU time"));
    // Who waits is told when it goes off.
    let mut command = Command::new(binary());
    let waiting = command
        .args(["vm", "wait", "web", "--for-line", "never"])
        .env("HAKO_HOME", vms.world.path("home"))
        .env("HAKO_RUN", vms.world.path("run"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let rates = command_line(&vms, &["stats", "web", "--interval", "0.2"]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    vms.done(&["stop", "--force", "web"]);
    let waited = waiting.wait_with_output().unwrap();
    assert_eq!(waited.status.code(), Some(1));
    let rates = rates.wait_with_output().unwrap();
    assert_eq!(rates.status.code(), Some(0));
    assert!(String::from_utf8(rates.stdout).unwrap().contains("/s read"));
    assert_eq!(vms.done(&["wait", "web"]), "stopped\n");
    let gone = ["wait", "web", "--for-line", "ready", "--timeout", "1"];
    vms.fails(&gone, 1, "does not run");
}

fn command_line(vms: &Vms, args: &[&str]) -> std::process::Child {
    let mut command = Command::new(binary());
    command.arg("vm").args(args);
    command.env("HAKO_HOME", vms.world.path("home"));
    command.env("HAKO_RUN", vms.world.path("run"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_guest_that_does_not_obey_is_switched_off_only_by_force() {
    let vms = Vms::new();
    // It has nothing to boot, and sits in its firmware.
    vms.done(&["create", "web", "--disk", "1M", "--nic", "none"]);
    vms.start(&[]);
    vms.fails(&["stop", "web", "--timeout", "0.5"], 124, "--force");
    assert_eq!(vms.state("web"), "running");
    vms.done(&["stop", "web", "--timeout", "0.5", "--force"]);
    assert_eq!(vms.state("web"), "stopped");
    vms.start(&[]);
    vms.done(&["pause", "web"]);
    vms.done(&["stop", "web", "--force"]);
    assert_eq!(vms.state("web"), "stopped");
}

#[test]
fn a_runner_that_was_killed_leaves_nothing_that_matters() {
    let vms = Vms::with_guest();
    let first = vms.start_guest(&[]);
    send("-KILL", &first["runner_pid"]);
    eventually("QEMU ends with its runner", || {
        !is_alive(&first["pid"]) && !is_alive(&first["runner_pid"])
    });
    assert!(
        vms.run_folder().join("control.sock").exists(),
        "a stale one"
    );
    assert_eq!(vms.state("web"), "stopped");
    vms.done(&["stop", "web"]);
    vms.fails(&["pause", "web"], 1, "does not run");
    vms.done(&["set", "web", "--memory", "32M"]);
    // A number in a stale file is nobody's.
    let pid = vms.run_folder().join("pid");
    let mut other = Command::new("sleep").arg("100").spawn().unwrap();
    std::fs::write(pid, other.id().to_string()).unwrap();
    vms.done(&["stop", "web", "--force"]);
    assert!(other.try_wait().unwrap().is_none(), "it is not signalled");
    let second = vms.start_guest(&[]);
    assert_ne!(first["runner_pid"], second["runner_pid"]);
    assert!(other.try_wait().unwrap().is_none(), "it is not signalled");
    other.kill().unwrap();
    other.wait().unwrap();
    // A runner that hangs is killed by force, and by nothing less.
    send("-STOP", &second["runner_pid"]);
    assert_eq!(vms.state("web"), "running");
    let run = vms.run(&["stop", "web", "--force"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("killed"), "{}", run.stderr);
    assert_eq!(vms.state("web"), "stopped");
    assert!(!is_alive(&second["pid"]));
}

#[test]
fn a_runner_lets_its_guest_shut_down_when_it_is_asked_to_end() {
    let vms = Vms::with_guest();
    let status = vms.start_guest(&[]);
    send("-HUP", &status["runner_pid"]);
    send("-TERM", &status["runner_pid"]);
    assert_eq!(vms.done(&["wait", "web", "--timeout", "60"]), "stopped\n");
    assert!(vms.done(&["console", "--log", "web"]).contains("bye"));
}

#[test]
fn a_start_that_fails_says_why_and_leaves_no_lock() {
    let vms = Vms::with_guest();
    vms.fails(
        &["start", "web", "--boot", "firmware", "--boot-entry", "1"],
        2,
        "--boot-entry",
    );
    vms.fails(&["start", "web", "--cdrom", "none.iso"], 1, "none.iso");
    vms.fails(&["start", "web", "--engine", "xen"], 2, "xen");
    vms.fails(&["start", "nobody"], 6, "nobody");
    std::fs::rename(vms.path("web/web.vmdk"), vms.path("web/gone.vmdk")).unwrap();
    vms.fails(&["start", "web"], 1, "web.vmdk");
    assert_eq!(vms.state("web"), "stopped");
    std::fs::rename(vms.path("web/gone.vmdk"), vms.path("web/web.vmdk")).unwrap();
    vms.start_guest(&[]);
    vms.done(&["stop", "web"]);
}

#[test]
fn writes_are_kept_or_discarded_as_the_user_wants() {
    let vms = Vms::with_guest();
    let content = || vms.world.json("hash home/vms/web/web.vmdk")["sha256"].to_string();
    let before = content();
    for (flags, is_kept) in [(&["--discard-writes"][..], false), (&[], true)] {
        let status = vms.start_guest(flags);
        assert_eq!(status["discard_writes"], !is_kept);
        let mut command = vms.world.command();
        command.args(["vm", "console", "web"]).write_stdin("wq");
        assert!(command.output().unwrap().status.success());
        vms.done(&["wait", "web", "--timeout", "60"]);
        let log = vms.done(&["console", "--log", "web"]);
        assert!(log.contains("written"), "{log}");
        assert_eq!(content() != before, is_kept);
    }
    vms.world.done("convert home/vms/web/web.vmdk after.raw");
    assert_eq!(vms.world.read("after.raw")[512..1024], boot_sector());
}

#[test]
fn what_is_named_for_one_run_is_used_in_that_run() {
    let vms = Vms::with_guest();
    vms.world.raw("cd.iso", 2 << 20, &[(1 << 20, b"content")]);
    std::fs::create_dir(vms.world.path("beside")).unwrap();
    std::fs::rename(vms.path("web/web.vmdk"), vms.world.path("beside/web.vmdk")).unwrap();
    let beside = vms.world.path("beside").display().to_string();
    let text = vms.text("web/web.vmx");
    let text = text.replace("\"web.vmdk\"", &format!("\"{beside}/web.vmdk\""));
    std::fs::write(vms.path("web/web.vmx"), &text).unwrap();
    vms.fails(&["start", "web"], 1, "absolute path");
    vms.start_guest(&["--allow-path", &beside, "--cdrom", "cd.iso"]);
    let disks = vms.json(&["stats", "web"])["disks"].clone();
    assert_eq!(disks.as_array().unwrap().len(), 2, "{disks}");
    vms.done(&["stop", "web"]);
    assert_eq!(vms.text("web/web.vmx"), text);
}

#[test]
fn attached_it_stays_until_the_guest_is_off_and_passes_signals_on() {
    let vms = Vms::with_guest();
    let attached = command_line(&vms, &["start", "--attach", "web"]);
    vms.done(&["wait", "web", "--state", "running", "--timeout", "60"]);
    vms.done(&["wait", "web", "--for-line", "ready>", "--timeout", "60"]);
    vms.done(&["stop", "web"]);
    let ended = attached.wait_with_output().unwrap();
    let stdout = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(stdout.contains("guest ready> \r\nbye"), "{stdout}");
    let attached = command_line(&vms, &["start", "--attach", "web"]);
    vms.done(&["wait", "web", "--state", "running", "--timeout", "60"]);
    vms.done(&["wait", "web", "--for-line", "ready>", "--timeout", "60"]);
    send("-TERM", &attached.id().into());
    let ended = attached.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(143));
    assert!(String::from_utf8(ended.stdout).unwrap().contains("bye"));
    assert_eq!(vms.state("web"), "stopped");
}

#[test]
fn a_service_is_a_unit_that_systemd_takes() {
    let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/hako@.service");
    let text = std::fs::read_to_string(unit).unwrap();
    let verbs: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("=/usr/bin/hako "))
        .map(|(_, words)| words)
        .collect();
    assert_eq!(verbs.len(), 2, "{text}");
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "systemd-analyze is needed"
        );
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    assert!(version.status.success());
    let vms = Vms::new();
    let here = text.replace("/usr/bin/hako", binary().to_str().unwrap());
    let path = vms.world.write("hako@.service", here.as_bytes());
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    let about_us: Vec<&str> = said.lines().filter(|line| line.contains("hako")).collect();
    assert!(about_us.is_empty(), "{said}");
}
