//! `hako disk create` and `convert`: what makes new images.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{World, binary, noise};

/// A raw disk with data, zeros written out and holes; its content.
fn source(world: &World) -> Vec<u8> {
    let (a, b) = (noise(1, 300_000), noise(2, 65_536));
    world.raw(
        "s.raw",
        4 << 20,
        &[(0, &a), (1 << 20, &[0; 65536]), (3 << 20, &b)],
    );
    world.read("s.raw")
}

#[test]
fn create_makes_an_empty_disk_of_the_size() {
    let world = World::new();
    world.done("create d.raw 1.5M");
    assert_eq!(world.read("d.raw").len(), 3 << 19);
    let created = world.json("create e.img 1GiB");
    assert_eq!(created["virtual_size"], 1 << 30);
    assert_eq!(created["format"], "raw");
    assert_eq!(world.names(), ["d.raw", "e.img"]);
}

#[test]
fn create_takes_the_format_from_the_name_or_from_to() {
    let world = World::new();
    world.fails("create disk 1M", 2, "hint: say it with --to FORMAT");
    world.done("create disk 1M --to raw");
    assert_eq!(world.names(), ["disk"]);
    world.fails("create d.raw 1M --to floppy", 2, "possible values");
}

#[test]
fn short_options_mean_what_they_mean_to_qemu_img() {
    let world = World::new();
    let content = source(&world);
    std::fs::rename(world.path("s.raw"), world.path("s")).unwrap();
    world.done("convert -f raw -O vmdk s new");
    world.done("compare -f raw -F vmdk s new");
    world.done("convert -f vmdk -O raw new back");
    assert!(world.read("back") == content);
}

#[test]
fn create_refuses_a_size_that_is_no_size() {
    let world = World::new();
    for (words, text) in [
        ("create d.raw", "required"),
        ("create d.raw .5G", "write it like 512"),
        ("create d.raw 1000", "no multiple of 512"),
        ("create d.raw 1X", "unknown unit"),
        ("create d.raw 99999E", "too large"),
    ] {
        world.fails(words, 2, text);
    }
    assert!(world.names().is_empty());
}

#[test]
fn create_replaces_only_by_force() {
    let world = World::new();
    world.write("d.raw", b"precious");
    world.fails("create d.raw 1M", 1, "exists already");
    assert_eq!(world.read("d.raw"), b"precious");
    world.done("create d.raw 1M --force");
    assert_eq!(world.read("d.raw").len(), 1 << 20);
}

#[test]
fn create_allocates_as_told() {
    let world = World::new();
    let allocated = |how: &str| {
        world.done(&format!("create {how}.raw 1M --allocation {how}"));
        world.json(&format!("info {how}.raw"))["allocated_size"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(allocated("thin"), 0);
    assert!(allocated("lazy") >= 1 << 20);
    assert!(allocated("eager") >= 1 << 20);
}

#[test]
fn options_that_a_format_does_not_have_are_refused() {
    let world = World::new();
    source(&world);
    for option in [
        "--unit 64K",
        "--adapter ide",
        "--hw-version 13",
        "--compression zlib",
        "--level 3",
    ] {
        let name = option.split(' ').next().unwrap();
        world.fails(&format!("create d.raw 1M {option}"), 2, name);
        world.fails(&format!("convert s.raw d.raw {option}"), 2, name);
    }
    assert_eq!(world.names(), ["s.raw"]);
    world.done("convert s.raw d.raw --compression none");
}

#[test]
fn from_without_a_parent_is_refused() {
    let world = World::new();
    world.fails(
        "create d.raw 1M --from raw",
        2,
        "hint: the format of the new image is --to",
    );
    world.fails("convert s.raw d.raw --parent p.raw", 2, "--layer");
}

#[test]
fn convert_copies_the_content() {
    let world = World::new();
    let content = source(&world);
    world.done("convert s.raw d.raw");
    assert_eq!(world.read("d.raw"), content);
    for options in [
        "--verify",
        "--threads 1",
        "--threads 4 --rate 1G",
        "--layer 0",
        "--allocation eager",
    ] {
        world.done(&format!("convert s.raw d.raw --force {options}"));
        assert_eq!(world.read("d.raw"), content, "{options}");
    }
    assert_eq!(world.names(), ["d.raw", "s.raw"]);
}

#[test]
fn convert_reports_as_json_and_with_v_in_words() {
    let world = World::new();
    source(&world);
    let report = world.json("convert s.raw d.raw --verify");
    assert_eq!(report["virtual_size"], 4 << 20);
    assert_eq!(report["verified"], true);
    let bytes = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(bytes("data_bytes") + bytes("zero_bytes"), 4 << 20);
    let run = world.disk("convert s.raw e.raw -v");
    assert!(
        run.stderr.starts_with("e.raw: 4 MiB, of it "),
        "{}",
        run.stderr
    );
    let run = world.disk("convert s.raw f.raw -v --verify");
    assert!(run.stderr.contains(", verified, in "), "{}", run.stderr);
}

#[test]
fn convert_shows_its_phases() {
    let world = World::new();
    source(&world);
    let run = world.disk("convert s.raw d.raw --verify --progress json");
    let phases: Vec<_> = run
        .stderr
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["phase"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(phases, ["copy", "verify"]);
}

#[test]
fn convert_reads_standard_input_and_writes_standard_output() {
    let world = World::new();
    let content = source(&world);
    let run = |words: &str, input: &[u8]| {
        let output = world
            .command()
            .args(["disk", "convert"])
            .args(words.split(' '))
            .write_stdin(input)
            .output()
            .unwrap();
        (output.status.code(), output.stdout)
    };
    assert_eq!(run("s.raw - --to raw", b""), (Some(0), content.clone()));
    assert_eq!(
        run("--from raw - - --to raw --json", &content),
        (Some(0), content.clone())
    );
    assert_eq!(run("--from raw - d.raw", &content).0, Some(0));
    assert_eq!(world.read("d.raw"), content);
    world.fails("convert s.raw -", 2, "--to FORMAT");
}

#[test]
fn image_does_not_go_to_a_terminal() {
    let world = World::new();
    source(&world);
    let hako = binary().display();
    let shown = world.on_terminal(&format!("{hako} disk convert --to raw s.raw -"));
    assert!(shown.contains("standard output is a terminal"), "{shown:?}");
}

#[test]
fn convert_replaces_only_by_force_and_never_its_source() {
    let world = World::new();
    let content = source(&world);
    world.write("d.raw", b"precious");
    world.fails("convert s.raw d.raw", 1, "exists already");
    assert_eq!(world.read("d.raw"), b"precious");
    world.fails("convert s.raw s.raw --force", 2, "is the source itself");
    assert_eq!(world.read("s.raw"), content);
    world.done("convert s.raw d.raw --force");
    assert_eq!(world.read("d.raw"), content);
}

#[test]
fn debris_of_a_killed_run_is_cleared_and_named() {
    let world = World::new();
    source(&world);
    world.write(".d.raw.hako-part", b"debris");
    let run = world.disk("convert s.raw d.raw");
    assert_eq!(run.code, 0);
    assert!(
        run.stderr.contains("warning: removed .d.raw.hako-part"),
        "{}",
        run.stderr
    );
    assert_eq!(world.names(), ["d.raw", "s.raw"]);
    world.write(".d.raw.hako-part", b"debris");
    let run = world.disk("convert s.raw d.raw --force --quiet");
    assert!(run.stderr.is_empty(), "{}", run.stderr);
}

#[test]
fn signal_unwinds_and_the_exit_code_says_which() {
    let world = World::new();
    world.raw("s.raw", 8 << 20, &[(0, &noise(1, 8 << 20))]);
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let child = std::process::Command::new(binary())
            .args(["disk", "convert", "s.raw", "d.raw", "--rate", "256K"])
            .current_dir(world.path(""))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(|| world.names().len() == 2);
        kill(child.id(), signal);
        let began = Instant::now();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(
            String::from_utf8(ended.stderr).unwrap(),
            "hako: cancelled\n"
        );
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(world.names(), ["s.raw"], "debris after SIG{signal}");
    }
}

#[test]
fn signal_ends_the_wait_for_standard_input() {
    let world = World::new();
    let mut child = std::process::Command::new(binary())
        .args(["disk", "convert", "--from", "raw", "-", "d.raw"])
        .current_dir(world.path(""))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    kill(child.id(), "INT");
    assert_eq!(ends_soon(&mut child), Some(130));
    assert!(world.names().is_empty());
}

#[test]
fn second_signal_ends_it_at_once() {
    let world = World::new();
    world.raw("s.raw", 1 << 20, &[(0, &noise(1, 1 << 20))]);
    // Nobody reads the pipe: the first signal finds the work in a write that never ends.
    let mut child = std::process::Command::new(binary())
        .args(["disk", "convert", "--to", "raw", "s.raw", "-"])
        .current_dir(world.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    kill(child.id(), "TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None);
    kill(child.id(), "INT");
    assert_eq!(ends_soon(&mut child), Some(130));
}

#[test]
fn signal_stops_a_long_run_of_zeros() {
    let world = World::new();
    world.raw("s.raw", 1 << 40, &[]);
    for verb in ["hash s.raw", "convert --to raw s.raw -"] {
        let mut child = std::process::Command::new(binary())
            .arg("disk")
            .args(verb.split(' '))
            .current_dir(world.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        kill(child.id(), "TERM");
        assert_eq!(ends_soon(&mut child), Some(143), "{verb}");
    }
}

#[test]
fn signal_stops_an_eager_create() {
    let world = World::new();
    let mut child = std::process::Command::new(binary())
        .args(["disk", "create", "d.raw", "2G", "--allocation", "eager"])
        .current_dir(world.path(""))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| world.names().len() == 1);
    kill(child.id(), "INT");
    assert_eq!(ends_soon(&mut child), Some(130));
    assert!(world.names().is_empty());
}

#[test]
fn reader_that_goes_away_ends_a_conversion_quietly() {
    let world = World::new();
    world.raw("s.raw", 4 << 20, &[(0, &noise(1, 4 << 20))]);
    let mut child = std::process::Command::new(binary())
        .args(["disk", "convert", "--to", "raw", "s.raw", "-"])
        .current_dir(world.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(141));
    assert!(ended.stderr.is_empty());
}

#[test]
fn signal_that_was_ignored_at_the_start_stays_ignored() {
    let world = World::new();
    world.raw("s.raw", 1 << 20, &[(0, &noise(1, 1 << 20))]);
    let mut child = std::process::Command::new("sh")
        .args([
            "-c",
            "trap '' HUP; exec \"$0\" disk convert s.raw d.raw --rate 1M",
        ])
        .arg(binary())
        .current_dir(world.path(""))
        .spawn()
        .unwrap();
    wait_for(|| world.names().len() == 2);
    kill(child.id(), "HUP");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Waits for the end, not for ever, and returns the exit code.
fn ends_soon(child: &mut std::process::Child) -> Option<i32> {
    wait_for(|| matches!(child.try_wait(), Ok(Some(_))));
    child.wait().ok()?.code()
}

fn kill(id: u32, signal: &str) {
    let done = std::process::Command::new("sh")
        .args(["-c", &format!("kill -{signal} {id}")])
        .status()
        .is_ok_and(|status| status.success());
    assert!(done);
}

fn wait_for(mut ready: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
}
