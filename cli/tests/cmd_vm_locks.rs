//! A machine that runs is refused by every verb that would change or copy it, and is not started
//! while one of them works.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::fs::File;

use common::guest::{boot_sector, eventually, is_alive, send};
use common::vms::Vms;

/// What a verb does while the machine "web" runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// It is refused with exit code 5.
    Refused,
    /// It works.
    Works,
    /// It is refused with exit code 2, which is what `compare` has for any trouble.
    Trouble,
    /// It is about no machine, or about those that run, and has tests of its own.
    Else,
}
use Does::{Else, Refused, Trouble, Works};

/// Each verb, with what is run to try it. `DISK` is the running machine's disk.
const VERBS: &[(&str, &str, Does)] = &[
    ("disk formats", "", Else),
    ("disk info", "DISK", Refused),
    ("disk info", "--force-share DISK", Works),
    ("disk create", "--force DISK 1M", Refused),
    ("disk create", "--parent DISK over.vmdk", Refused),
    ("disk convert", "DISK copy.qcow2", Refused),
    ("disk convert", "--force boot.raw DISK", Refused),
    ("disk check", "DISK", Refused),
    ("disk check", "--repair=all DISK", Refused),
    ("disk compare", "boot.raw DISK", Trouble),
    ("disk map", "DISK", Refused),
    ("disk hash", "DISK", Refused),
    ("disk set", "--adapter lsilogic DISK", Refused),
    ("disk resize", "DISK +1M", Refused),
    ("disk compact", "DISK", Refused),
    ("disk commit", "DISK", Refused),
    ("disk rebase", "--parent boot.raw DISK", Refused),
    ("disk rename", "DISK home/vms/web/other.vmdk", Refused),
    ("disk delete", "DISK", Refused),
    ("disk serve", "--socket nbd.sock DISK", Refused),
    ("disk serve", "--writable --socket nbd.sock DISK", Refused),
    ("disk ls", "DISK /", Refused),
    ("disk cat", "DISK /x", Refused),
    ("disk cp", "DISK /x .", Refused),
    ("vm create", "", Else),
    ("vm list", "", Works),
    ("vm info", "web", Works),
    ("vm set", "web --memory 128M", Refused),
    ("vm register", "", Else),
    ("vm unregister", "", Else),
    ("vm import", "", Else),
    ("vm export", "web web.ova", Refused),
    ("vm clone", "web copy", Refused),
    ("vm clone", "web copy --linked", Refused),
    ("vm rename", "web other", Refused),
    ("vm rename", "--only-name web other", Refused),
    ("vm delete", "--yes web", Refused),
    ("vm start", "web", Refused),
    ("vm stop", "", Else),
    ("vm reset", "", Else),
    ("vm pause", "", Else),
    ("vm unpause", "", Else),
    ("vm console", "", Else),
    ("vm wait", "", Else),
    ("vm stats", "", Else),
    ("snapshot create", "web new", Refused),
    ("snapshot list", "web", Works),
    ("snapshot revert", "--yes web first", Refused),
    ("snapshot delete", "web first", Refused),
    ("snapshot consolidate", "web", Refused),
    ("snapshot doctor", "web", Refused),
    ("snapshot doctor", "--repair web", Refused),
    ("backup export", "--output backup web", Refused),
    ("p2v inventory", "DISK", Refused),
    ("p2v sample", "", Else),
    ("p2v plan", "", Else),
    ("p2v capture", "DISK -o copy.qcow2", Refused),
    ("p2v adapt", "--target vmware web", Refused),
    ("p2v adapt", "--target vmware --dry-run web", Refused),
    ("p2v adapt", "--target vmware DISK", Refused),
    ("p2v verify", "web", Refused),
    ("p2v verify", "--no-boot web", Refused),
];

/// The verbs that the binary has, as the manual pages list them.
fn all_verbs(vms: &Vms) -> BTreeSet<String> {
    assert_eq!(vms.world.hako(["man", "pages"]).code, 0);
    let pages = vms.world.names_in("pages");
    let verbs = pages.iter().filter_map(|page| {
        let words = page.strip_prefix("hako-")?.strip_suffix(".1")?;
        words
            .split_once('-')
            .map(|(room, verb)| format!("{room} {verb}"))
    });
    verbs.collect()
}

/// A machine with a snapshot: its disk is `web-000001.vmdk`.
fn machine() -> Vms {
    let vms = Vms::with_guest();
    vms.snapshot(&["create", "web", "first"]);
    vms
}

#[track_caller]
fn try_all(vms: &Vms, disk: &str, because: &str) {
    let before = vms.text("web/web.vmx");
    for (verb, args, does) in VERBS {
        let args = args.replace("DISK", disk);
        let words = verb.split(' ').chain(args.split_whitespace());
        let expected = match does {
            Else => continue,
            Works => 0,
            Refused => 5,
            Trouble => 2,
        };
        let run = vms.world.hako(words);
        let said = format!("{because}: {verb} {args}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.code, expected, "{said}");
        assert!(!vms.world.path("copy.qcow2").exists(), "{said}");
        assert!(!vms.world.path("over.vmdk").exists(), "{said}");
    }
    assert_eq!(vms.text("web/web.vmx"), before);
}

#[test]
fn every_verb_is_in_the_table() {
    let vms = Vms::new();
    let listed: BTreeSet<String> = VERBS.iter().map(|(verb, ..)| (*verb).to_owned()).collect();
    assert_eq!(listed, all_verbs(&vms));
}

#[test]
fn a_machine_that_runs_is_refused_by_all_that_would_change_or_copy_it() {
    let vms = machine();
    vms.start_guest(&[]);
    try_all(&vms, "home/vms/web/web-000001.vmdk", "it runs");
    vms.done(&["pause", "web"]);
    vms.fails(&["set", "web", "--memory", "128M"], 5, "");
    vms.done(&["stop", "--force", "web"]);
    vms.done(&["set", "web", "--memory", "128M"]);
    vms.snapshot(&["revert", "--yes", "web", "first"]);
}

#[test]
fn in_whatever_format_a_disk_that_runs_is_locked_and_written_to() {
    for format in ["raw", "qcow2", "vdi", "vhd", "vhdx"] {
        let vms = Vms::new();
        vms.world.raw("boot.raw", 1 << 20, &[(0, &boot_sector())]);
        let disk = format!("boot.raw,format={format}");
        vms.done(&["create", "web", "--from-disk", &disk, "--nic", "none"]);
        let info = vms.json(&["info", "web"]);
        let file = info["drives"][0]["layers"][0]["file"]
            .as_str()
            .unwrap()
            .to_owned();
        for flags in [&["--discard-writes"][..], &[]] {
            vms.start_guest(flags);
            let mut command = vms.world.command();
            command.args(["vm", "console", "web"]).write_stdin("w");
            let typing = command.timeout(std::time::Duration::from_secs(1));
            let _ = typing.output();
            vms.done(&["wait", "web", "--for-line", "written", "--timeout", "60"]);
            for verb in ["resize", "hash", "convert"] {
                let more = match verb {
                    "resize" => "+1M",
                    "convert" => "copy.qcow2",
                    _ => "",
                };
                let words = ["disk", verb, &file]
                    .into_iter()
                    .chain(more.split_whitespace());
                let run = vms.world.hako(words);
                // Who discards what is written only reads the disk, and lets others read it.
                let may_read = !flags.is_empty() && verb != "resize";
                let said = format!("{format} {flags:?} {verb}: {}", run.stderr);
                assert!(run.code == 5 || (may_read && run.code == 0), "{said}");
                let _ = std::fs::remove_file(vms.world.path("copy.qcow2"));
            }
            vms.done(&["stop", "web"]);
            let copy = ["disk", "convert", "--force", &file, "copy.raw"];
            let run = vms.world.hako(copy);
            assert_eq!(run.code, 0, "{}", run.stderr);
            let is_written = vms.world.read("copy.raw")[512..1024] == boot_sector();
            assert_eq!(is_written, flags.is_empty(), "{format} {flags:?}");
        }
    }
}

#[test]
fn the_base_of_a_clone_that_runs_is_not_changed() {
    let vms = machine();
    vms.done(&["clone", "web", "clone", "--linked", "--snapshot", "first"]);
    let run = vms.run(&["start", "clone"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let base = "home/vms/web/web.vmdk";
    for (words, codes) in [
        (format!("disk resize {base} +1M"), [2, 5]),
        (format!("disk delete {base}"), [2, 5]),
        (format!("disk convert --force boot.raw {base}"), [2, 5]),
        (format!("disk serve --writable --socket s {base}"), [2, 5]),
        ("vm delete --yes web".to_owned(), [2, 5]),
        ("snapshot delete web first".to_owned(), [2, 5]),
    ] {
        let run = vms.world.hako(words.split_whitespace());
        assert!(
            codes.contains(&run.code),
            "{words}: {} {}",
            run.code,
            run.stderr
        );
    }
    // The machine that it was made of may run beside it.
    vms.start_guest(&[]);
    vms.done(&["stop", "web"]);
    vms.done(&["stop", "--force", "clone"]);
}

#[test]
fn a_machine_is_not_started_while_something_else_uses_it() {
    let vms = machine();
    let folder = File::open(vms.path("web")).unwrap();
    for shared in [false, true] {
        match shared {
            true => folder.lock_shared().unwrap(),
            false => folder.lock().unwrap(),
        }
        vms.fails(&["start", "web"], 5, "another hako");
        if !shared {
            // What holds it may well run it. Who only reads it does not.
            vms.fails(&["stop", "web"], 5, "in use");
        }
        folder.unlock().unwrap();
    }
    // Nor on a disk that QEMU writes to.
    let mut nbd = std::process::Command::new("qemu-nbd")
        .args(["-f", "vmdk", "--socket"])
        .args([vms.world.path("s"), vms.path("web/web-000001.vmdk")])
        .spawn()
        .expect("qemu-nbd (of qemu-utils) is needed");
    eventually("QEMU has it open", || vms.state("web") == "running");
    vms.fails(&["start", "web"], 5, "web");
    nbd.kill().unwrap();
    nbd.wait().unwrap();
    vms.start_guest(&[]);
}

#[test]
fn locks_of_a_runner_that_was_killed_block_nobody() {
    let vms = machine();
    let status = vms.start_guest(&[]);
    send("-KILL", &status["runner_pid"]);
    eventually("QEMU ends with its runner", || !is_alive(&status["pid"]));
    vms.done(&["set", "web", "--memory", "128M"]);
    vms.snapshot(&["revert", "--yes", "web", "first"]);
    vms.start_guest(&[]);
    vms.done(&["stop", "web"]);
}

#[test]
fn what_would_spoil_a_snapshot_is_not_started() {
    let vms = machine();
    let text = vms.text("web/web.vmx");
    let spoiled = text.replace("web-000001.vmdk", "web.vmdk");
    std::fs::write(vms.path("web/web.vmx"), spoiled).unwrap();
    vms.fails(&["start", "web"], 2, "web.vmdk");
    vms.start_guest(&["--discard-writes"]);
    vms.done(&["stop", "web"]);
}
