//! `hako vm console`: on a terminal, in scripts, several at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use common::binary;
use common::vms::Vms;

fn console(vms: &Vms, args: &[&str]) -> Child {
    Command::new(binary())
        .args(["vm", "console", "web"])
        .args(args)
        .env("HAKO_HOME", vms.world.path("home"))
        .env("HAKO_RUN", vms.world.path("run"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[track_caller]
fn expect(child: &mut Child, text: &str) {
    let mut seen = String::new();
    let mut byte = [0];
    while !seen.contains(text) {
        let n = child.stdout.as_mut().unwrap().read(&mut byte).unwrap();
        assert_eq!(n, 1, "it ended after {seen:?}");
        seen.push(char::from(byte[0]));
    }
}

#[test]
fn several_watch_and_each_may_type() {
    let vms = Vms::with_guest();
    vms.start_guest(&[]);
    let mut first = console(&vms, &["--replay"]);
    let mut second = console(&vms, &["--replay"]);
    for watcher in [&mut first, &mut second] {
        expect(watcher, "guest ready> ");
    }
    first.stdin.as_mut().unwrap().write_all(b"abc").unwrap();
    for watcher in [&mut first, &mut second] {
        expect(watcher, "abc");
    }
    // One that has no more to type still watches.
    drop(first.stdin.take());
    second.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    for watcher in [&mut first, &mut second] {
        expect(watcher, "x");
    }
    // The socket is for other programs, too.
    let path = vms.run_folder().join("console.sock");
    let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    socket.write_all(b"yz").unwrap();
    expect(&mut second, "yz");
    second.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    for watcher in [first, second] {
        let ended = watcher.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0));
    }
    let mut rest = String::new();
    socket.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "yz");
    let log = vms.done(&["console", "--log", "web"]);
    assert!(log.ends_with("guest ready> abcxyz"), "{log}");
}

#[test]
fn the_terminal_is_as_it_was_after_each_way_out() {
    let vms = Vms::with_guest();
    vms.start_guest(&[]);
    let hako = binary().display().to_string();
    let end = "(sleep 1; kill -TERM `cat pid`) & ";
    // A key, a signal, the machine's end.
    for (typed, beside, said) in [
        ("(sleep 1; printf 'a\\035'; sleep 1)", "", "left"),
        ("sleep 3", end, ""),
        ("(sleep 1; printf q; sleep 1)", "", "the machine is off"),
    ] {
        vms.world.write(
            "inner",
            format!(
                "stty -a > before; {beside}sh -c 'echo $$ > pid; exec {hako} vm console web'; \
                 stty -a > after\n"
            )
            .as_bytes(),
        );
        let script = format!("{typed} | script -qec 'sh inner' /dev/null");
        let shown = Command::new("sh")
            .args(["-c", &script])
            .current_dir(vms.world.path(""))
            .env("HAKO_HOME", vms.world.path("home"))
            .env("HAKO_RUN", vms.world.path("run"))
            .env("TERM", "xterm")
            .output()
            .expect("script(1) of bsdutils is needed");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("web: connected; Ctrl-] leaves"), "{shown}");
        assert!(shown.contains(said), "{said} in {shown}");
        let (before, after) = (vms.world.read("before"), vms.world.read("after"));
        assert!(!before.is_empty());
        assert_eq!(before, after, "{typed}");
    }
}

#[test]
fn a_console_that_nobody_reads_any_more_ends() {
    let vms = Vms::with_guest();
    vms.start_guest(&[]);
    let mut watcher = console(&vms, &[]);
    drop(watcher.stdout.take());
    watcher.stdin.as_mut().unwrap().write_all(b"abc").unwrap();
    let ended = watcher.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(vms.state("web"), "running");
}
