//! `hako vm start --engine kvm` with the engine's own tiny guest, which runs on any KVM: no Linux has
//! to come up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;
#[path = "../../crates/engine/tests/tiny/mod.rs"]
mod tiny;

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use common::Run;
use common::guest::eventually;
use common::vms::Vms;
use serde_json::Value;

/// A megabyte that tells where it is from.
fn content() -> Vec<u8> {
    (0..1u32 << 20)
        .map(|at| (at / 512 * 3 + at) as u8)
        .collect()
}

/// Returns machines with "web", whose disk holds [`content`]; none, said so, without a KVM.
fn machines(disk: &str) -> Option<Vms> {
    let kvm = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    if let Err(error) = kvm {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI needs /dev/kvm: {error}"
        );
        println!("skipped: /dev/kvm: {error}");
        return None;
    }
    let vms = Vms::new();
    std::fs::write(vms.world.path("tiny"), tiny::guest()).unwrap();
    vms.world.raw("disk.raw", 1 << 20, &[(0, &content())]);
    let from = format!("disk.raw{disk}");
    let words = [
        "create",
        "web",
        "--memory",
        "32M",
        "--nic",
        "none",
        "--from-disk",
    ];
    vms.done(&[&words[..], &[&from]].concat());
    Some(vms)
}

/// Starts "web" with the tiny guest, which is told what to do.
fn start(vms: &Vms, words: &str, flags: &[&str]) -> Value {
    let kernel = ["--engine", "kvm", "--kernel", "tiny", "--cmdline", words];
    vms.start(&[&kernel[..], flags].concat())
}

fn wait_for(vms: &Vms, what: &str) {
    let wait = ["wait", "web", "--regex", "--timeout", "300", "--for-line"];
    vms.done(&[&wait[..], &[what]].concat());
}

/// Types on the console of "web".
fn say(vms: &Vms, words: &str) {
    let socket = vms.run_folder().join("console.sock");
    let mut console = UnixStream::connect(socket).unwrap();
    console.write_all(words.as_bytes()).unwrap();
}

/// Adds lines to the text of "web".
fn append(vms: &Vms, lines: &str) {
    let text = vms.text("web/web.vmx");
    std::fs::write(vms.path("web/web.vmx"), text + lines).unwrap();
}

fn log(vms: &Vms) -> String {
    vms.done(&["console", "--log", "web"])
}

/// Checks that what a guest talks to is behind walls: it cannot start a program, to begin with.
fn assert_shut_in(runner: &Value) {
    let threads = std::fs::read_dir(format!("/proc/{runner}/task")).unwrap();
    let mut found = Vec::new();
    for thread in threads.map(|thread| thread.unwrap().path()) {
        let name = std::fs::read_to_string(thread.join("comm")).unwrap();
        let status = std::fs::read_to_string(thread.join("status")).unwrap();
        let has = |line: &str| status.lines().any(|one| one == line);
        if has("Seccomp:\t2") && has("NoNewPrivs:\t1") {
            found.push(name.trim().to_owned());
        }
    }
    for name in ["vcpu0", "keeper", "typist"] {
        assert!(found.iter().any(|one| one == name), "{name}: {found:?}");
    }
}

#[test]
fn a_machine_of_our_own_is_talked_to_paused_reset_and_switched_off() {
    let Some(vms) = machines("") else { return };
    let status = start(&vms, "echo reset", &[]);
    assert_eq!(
        (&status["engine"], &status["accelerator"]),
        (&"kvm".into(), &"kvm".into())
    );
    assert_eq!(status["pid"], status["runner_pid"]);
    assert_eq!(status["direct_boot"], false);
    wait_for(&vms, "echo");
    assert_shut_in(&status["runner_pid"]);
    vms.done(&["pause", "web"]);
    assert_eq!(vms.state("web"), "paused");
    vms.done(&["unpause", "web"]);
    say(&vms, "hako ");
    wait_for(&vms, "HAKO");
    // The reset button, then the guest's own reset.
    vms.done(&["reset", "web"]);
    let begins = |n| {
        eventually("it begins anew", || {
            log(&vms).matches("echo\n").count() == n
        });
    };
    begins(2);
    say(&vms, "again.");
    begins(3);
    assert!(log(&vms).contains("AGAIN"));
    let stats = vms.json(&["stats", "web"]);
    assert!(stats["cpu_us"].as_u64().unwrap() > 0, "{stats}");
    vms.done(&["stop", "--force", "web"]);
    assert_eq!(vms.state("web"), "stopped");
    let log = vms.runner_log();
    for line in ["runs: kvm", "paused", "goes on", "reset", "switched off"] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn a_guest_of_our_own_machine_hears_the_power_button() {
    let Some(vms) = machines("") else { return };
    start(&vms, "button", &[]);
    wait_for(&vms, "waiting for the button");
    vms.done(&["stop", "web"]);
    assert_eq!(vms.state("web"), "stopped");
    assert!(log(&vms).contains("pressed"));
    assert!(vms.runner_log().contains("the guest has shut down"));
}

#[test]
fn a_guest_that_does_not_listen_is_asked_again() {
    let Some(vms) = machines("") else { return };
    start(&vms, "echo", &[]);
    wait_for(&vms, "echo");
    vms.fails(&["stop", "web", "--timeout", "6"], 124, "runs still");
    let pressed = vms.runner_log().matches("asked for power-button").count();
    assert_eq!(pressed, 2);
    vms.done(&["stop", "--force", "web"]);
}

#[test]
fn what_a_guest_writes_is_in_its_vmdk_unless_it_is_discarded() {
    let Some(vms) = machines("") else { return };
    let sum = content()[512..512 + 4096].iter().fold(0u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let said = format!("sectors 2048\nread 0\nsum {sum}\nwrite 0\nflush 0\npast 1\noff\n");
    let written: Vec<u8> = (0..4096u32).map(|at| (at * 7) as u8).collect();
    let disk = || {
        let raw = vms.world.path("after.raw");
        let mut convert = vms.world.command();
        let vmdk = vms.path("web/web.vmdk");
        let _ = std::fs::remove_file(&raw);
        convert.args(["disk", "convert"]).arg(vmdk).arg(&raw);
        assert!(convert.output().unwrap().status.success());
        std::fs::read(raw).unwrap()
    };
    for (flags, is_kept) in [(&["--discard-writes"][..], false), (&[], true)] {
        start(&vms, "block echo", flags);
        wait_for(&vms, "past 1");
        let stats = vms.json(&["stats", "web"])["disks"][0].clone();
        assert_eq!(stats["writes"], 1, "{stats}");
        assert_eq!(stats["written_bytes"], 4096, "{stats}");
        assert_eq!(stats["flushes"], 1, "{stats}");
        say(&vms, ".");
        eventually("it is off", || vms.state("web") == "stopped");
        assert!(
            log(&vms)
                .replace('\r', "")
                .contains(&said[..said.len() - 4])
        );
        let mut expected = content();
        if is_kept {
            expected[9 * 512..9 * 512 + 4096].copy_from_slice(&written);
        }
        assert!(disk() == expected, "kept: {is_kept}");
    }
}

#[test]
fn what_our_own_engine_lacks_is_said_and_is_left_to_qemu() {
    let Some(vms) = machines("") else { return };
    let kvm = |flags: &[&str], code, text: &str| {
        vms.fails(
            &[&["start", "web", "--engine", "kvm"], flags].concat(),
            code,
            text,
        );
    };
    vms.done(&["set", "web", "hako.onNoSpace=panic"]);
    kvm(&["--kernel", "tiny"], 2, "hako.onNoSpace");
    vms.done(&["set", "web", "hako.onNoSpace=report"]);
    kvm(&["--boot", "firmware"], 1, "no firmware");
    kvm(&["--cdrom", "disk.raw"], 1, "no CD drives");
    // There is no system on the disk.
    kvm(&[], 1, "no boot entry");
    kvm(&["--kernel", "disk.raw"], 4, "no kernel");
    vms.fails(&["start", "web", "--initrd", "tiny"], 2, "--kernel");
    vms.fails(
        &["start", "web", "--kernel", "tiny", "--boot", "direct"],
        2,
        "--boot",
    );
    vms.fails(&["start", "web", "--kernel", "missing"], 1, "missing");
    // Without the processor's help, or without a system to boot, it is QEMU.
    let run = vms.run(&["start", "web"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr.contains("QEMU runs it, not hako: "),
        "{}",
        run.stderr
    );
    assert_eq!(vms.json(&["info", "web"])["run"]["engine"], "qemu");
    vms.done(&["stop", "--force", "web"]);
}

#[test]
fn no_program_is_started_beside_a_machine_that_is_left_to_qemu() {
    let Some(vms) = machines("") else { return };
    append(
        &vms,
        "ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"nat\"\n",
    );
    let (folder, asked) = (vms.world.path("bin"), vms.world.path("asked"));
    let passt = folder.join("passt");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&passt, format!("#!/bin/sh\necho >{}\n", asked.display())).unwrap();
    std::fs::set_permissions(&passt, Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", folder.display());
    let start = |flags: &[&str]| {
        let mut command = vms.world.command();
        command.env("PATH", &path).args(["vm", "start", "web"]);
        let run: Run = command.args(flags).output().unwrap().into();
        assert_eq!(run.code, 0, "{}", run.stderr);
        let is_asked = asked.exists();
        vms.done(&["stop", "--force", "web"]);
        (run.stderr, is_asked)
    };
    // There is no system on the disk, which is seen last.
    let (said, is_asked) = start(&[]);
    assert!(said.contains("QEMU runs it, not hako: "), "{said}");
    assert!(!is_asked, "{said}");
    let (said, is_asked) = start(&["--engine", "kvm", "--kernel", "tiny", "--cmdline", "echo"]);
    assert!(is_asked, "{said}");
}

#[test]
fn what_a_vmx_says_of_serial_ports_and_networks_is_told() {
    let Some(vms) = machines("") else { return };
    append(
        &vms,
        "serial0.present = \"TRUE\"\nserial0.fileType = \"file\"\n\
         serial0.fileName = \"com1.log\"\nethernet0.present = \"TRUE\"\n\
         ethernet0.connectionType = \"hostonly\"\nethernet1.present = \"TRUE\"\n\
         ethernet1.connectionType = \"bridged\"\nethernet1.startConnected = \"FALSE\"\n",
    );
    let status = start(&vms, "echo", &[]);
    let notes = status["notes"].to_string();
    for note in [
        "serial0 is the console alone",
        "ethernet0 is on a network of its own",
    ] {
        assert!(notes.contains(note), "{note}: {notes}");
    }
    assert!(!notes.contains("ethernet1"), "{notes}");
    vms.done(&["stop", "--force", "web"]);
    // Whoever made the VMX gets at no interface of the host that nobody made for a machine.
    append(&vms, "hako.ethernet0.tap = \"lo\"\n");
    vms.fails(
        &["start", "web", "--engine", "kvm", "--kernel", "tiny"],
        1,
        "no TAP interface",
    );
}

#[test]
fn a_card_is_plugged_into_sockets_of_the_machine_s_folder() {
    let Some(vms) = machines("") else { return };
    append(
        &vms,
        "ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"hostonly\"\n",
    );
    let refused = |socket: &str, code, text: &str| {
        vms.done(&["set", "web", &format!("hako.ethernet0.socket={socket}")]);
        let words = ["start", "web", "--engine", "kvm", "--kernel", "tiny"];
        vms.fails(&words, code, text);
    };
    refused("stream:switch.sock", 1, "a switch, another machine");
    refused(
        "stream:/run/systemd/private",
        1,
        "not in the machine's folder",
    );
    refused("switch.sock", 2, "is not like");
    // A frame comes back with its bytes the other way round, on either kind of socket.
    let (frame, back): (Vec<u8>, Vec<u8>) = ((0..60).collect(), (0..60).rev().collect());
    vms.done(&["set", "web", "hako.ethernet0.socket=stream:switch.sock"]);
    let listener = UnixListener::bind(vms.path("web/switch.sock")).unwrap();
    let status = start(&vms, "net", &[]);
    assert_eq!(status["notes"], serde_json::json!([]));
    let (mut switch, _) = listener.accept().unwrap();
    wait_for(&vms, "listening");
    switch
        .write_all(&[&[0, 0, 0, 60][..], &frame].concat())
        .unwrap();
    let mut got = [0; 64];
    switch.read_exact(&mut got).unwrap();
    assert_eq!(got[4..], back);
    drop(switch);
    eventually("it is told", || {
        vms.runner_log()
            .contains("ethernet0 has no network any more")
    });
    vms.done(&["stop", "--force", "web"]);
    vms.done(&[
        "set",
        "web",
        "hako.ethernet0.socket=dgram:peer.sock,own.sock",
    ]);
    let peer = UnixDatagram::bind(vms.path("web/peer.sock")).unwrap();
    start(&vms, "net", &[]);
    wait_for(&vms, "listening");
    peer.send_to(&frame, vms.path("web/own.sock")).unwrap();
    assert_eq!(peer.recv(&mut got).unwrap(), 60);
    assert_eq!(got[..60], back);
    vms.done(&["stop", "--force", "web"]);
    assert!(!vms.path("web/own.sock").exists());
}
