//! `hako p2v sample`, as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Run, World, binary};
use serde_json::Value;

/// A made-up server.
fn server(world: &World) -> PathBuf {
    let root = world.path("root");
    for (name, text) in [
        ("proc/sys/kernel/hostname", "web01\n"),
        (
            "proc/sys/kernel/random/boot_id",
            "01020304-0506-0708-090a-0b0c0d0e0f10\n",
        ),
        ("proc/uptime", "1000.25 1.00\n"),
        ("proc/stat", "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4\n"),
        (
            "proc/meminfo",
            "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\n",
        ),
        ("proc/diskstats", "8 0 sda 11 0 16 0 12 0 32 0 0 70 80\n"),
        (
            "proc/net/dev",
            "eth0:5000 6 0 0 0 0 0 0 7000 8 0 0 0 0 0 0\n",
        ),
        ("sys/block/sda/size", "1\n"),
        ("sys/class/net/eth0/device/vendor", "1\n"),
    ] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}

fn sample(world: &World, words: &str) -> Run {
    world.hako(
        ["p2v", "sample"]
            .into_iter()
            .chain(words.split_whitespace()),
    )
}

fn start(world: &World, words: &str) -> Child {
    std::process::Command::new(binary())
        .args(["p2v", "sample"])
        .args(words.split_whitespace())
        .current_dir(world.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the file holds so many records.
fn until_written(file: &Path, n: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while records(file).len() < n {
        assert!(Instant::now() < deadline, "{n} records never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(number)
}

/// CRC-32C, a bit at a time: nothing of hako's own.
fn crc32c(bytes: &[u8]) -> u64 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    u64::from(!crc)
}

/// The records of a ring, by number, read as the format is documented.
fn records(file: &Path) -> Vec<Vec<u8>> {
    let Ok(bytes) = std::fs::read(file) else {
        return Vec::new();
    };
    let mut records: Vec<Vec<u8>> = bytes[4096..]
        .chunks(number::<4>(&bytes, 12) as usize)
        .filter(|slot| number::<4>(slot, 0) == crc32c(&slot[4..]))
        .map(<[u8]>::to_vec)
        .collect();
    records.sort_by_key(|record| number::<8>(record, 8));
    records
}

#[test]
fn samples_are_in_the_file_as_the_format_says() {
    let world = World::new();
    let root = server(&world);
    let words = "--root root --interval 100ms --for 500ms --json";
    let run = sample(&world, words);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    // Named after the server.
    assert_eq!(said["file"], "web01.samples");
    assert_eq!(said["complete"], true);
    let file = world.path("web01.samples");
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(&bytes[..8], b"HAKOSMPL");
    assert_eq!(number::<4>(&bytes, 8), 1);
    assert_eq!([number::<8>(&bytes, 16), number::<8>(&bytes, 24)], [6, 100]);
    assert_eq!(number::<8>(&bytes, 32), 500);
    assert_eq!(&bytes[44..50], b"web01\0");
    let header = [&bytes[44..108], &bytes[..40]].concat();
    assert_eq!(number::<4>(&bytes, 40), crc32c(&header));
    let records = records(&file);
    assert_eq!(said["held_samples"], records.len());
    assert!((2..=6).contains(&records.len()));
    for (at, record) in records.iter().enumerate() {
        assert_eq!(number::<8>(record, 8), at as u64);
        assert_eq!(number::<8>(record, 24), 1_000_250);
        assert_eq!(
            record[32..48],
            std::array::from_fn::<u8, 16, _>(|at| at as u8 + 1)
        );
        assert_eq!([number::<4>(record, 48), number::<2>(record, 52)], [1, 2]);
        assert_eq!([number::<8>(record, 56), number::<8>(record, 112)], [1, 8]);
        assert_eq!(
            [number::<8>(record, 120), number::<8>(record, 136)],
            [1000, 400]
        );
        // No pressure there.
        assert_eq!(number::<2>(record, 306), 0);
        assert_eq!(&record[320..325], b"\x01sda\0");
        assert_eq!(
            [number::<8>(record, 336), number::<8>(record, 344)],
            [11, 8192]
        );
        assert_eq!(&record[384..390], b"\x02eth0\0");
        assert_eq!(
            [number::<8>(record, 408), number::<8>(record, 424)],
            [5000, 7000]
        );
    }
    // Its time is over.
    std::thread::sleep(Duration::from_millis(200));
    let again = sample(&world, words);
    let said: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((said["new_samples"].as_u64(), again.code), (Some(0), 0));
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn signals_end_it_cleanly_and_it_goes_on_after_any_end() {
    let world = World::new();
    server(&world);
    let file = world.path("s");
    let words = "--root root --interval 100ms --for 1h --out s";
    let mut so_far = 0;
    for (signal, code) in [
        ("TERM", Some(0)),
        ("KILL", None),
        ("INT", Some(0)),
        ("HUP", Some(0)),
    ] {
        let mut child = start(&world, words);
        until_written(&file, so_far + 3);
        let pid = child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &pid])
            .status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        let numbers: Vec<u64> = records(&file)
            .iter()
            .map(|record| number::<8>(record, 8))
            .collect();
        assert_eq!(
            numbers,
            (0..numbers.len() as u64).collect::<Vec<_>>(),
            "{signal}"
        );
        assert!(numbers.len() >= so_far + 3);
        so_far = numbers.len();
    }
    // A record that was being written when the power went.
    let mut bytes = std::fs::read(&file).unwrap();
    let at = 4096 + (so_far - 1) * number::<4>(&bytes, 12) as usize;
    bytes[at + 200..at + 300].fill(0xee);
    std::fs::write(&file, bytes).unwrap();
    let child = start(&world, words);
    until_written(&file, so_far + 2);
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill").arg(&pid).status();
    assert!(sent.unwrap().success());
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.code, 0);
    assert!(run.stderr.contains("1 damaged record"), "{}", run.stderr);
}

#[test]
fn an_endless_one_keeps_the_latest() {
    let world = World::new();
    server(&world);
    let file = world.path("s");
    let words = "--root root --interval 100ms --for 300ms --endless --out s";
    let mut child = start(&world, words);
    let deadline = Instant::now() + Duration::from_secs(60);
    while records(&file)
        .first()
        .is_none_or(|oldest| number::<8>(oldest, 8) < 4)
    {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    // A second one may not write, too.
    let second = sample(&world, words);
    assert_eq!(second.code, 5, "{}", second.stderr);
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill").arg(&pid).status();
    assert!(sent.unwrap().success());
    assert!(child.wait().unwrap().success());
    assert_eq!(records(&file).len(), 4);
}

/// On this machine itself.
#[test]
fn the_system_that_it_runs_on_is_sampled() {
    let world = World::new();
    let mut child = start(&world, "--interval 100ms --for 1h --out s");
    until_written(&world.path("s"), 20);
    let pid = child.id().to_string();
    std::process::Command::new("kill")
        .arg(&pid)
        .status()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let record = records(&world.path("s")).pop().unwrap();
    assert!(number::<8>(&record, 120) > 0 && number::<4>(&record, 48) > 0);
}

#[test]
fn what_cannot_be_is_refused() {
    let world = World::new();
    server(&world);
    world.write("other", b"precious");
    for (words, code, text) in [
        ("--interval 1w", 2, "15s, 500ms"),
        ("--interval 10ms", 2, "at least"),
        ("--for 1s", 2, "samples"),
        ("--out other", 4, "cut short"),
        ("--root nowhere --out s", 1, "proc/uptime"),
        ("--root nowhere", 2, "no name"),
        ("--out nowhere/s", 1, "no such folder"),
    ] {
        let run = sample(
            &world,
            &format!("--root root {words}").replace("--root root --root", "--root"),
        );
        assert_eq!(run.code, code, "{words}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{words}: {}", run.stderr);
    }
    assert_eq!(world.read("other"), b"precious");
    let done = sample(&world, "--root root --interval 100ms --for 200ms --out s");
    assert_eq!(done.code, 0, "{}", done.stderr);
    let run = sample(&world, "--root root --interval 1s --out s");
    assert!(
        run.code == 2 && run.stderr.contains("another interval"),
        "{}",
        run.stderr
    );
}
