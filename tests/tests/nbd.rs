//! `hako disk serve` and the clients that the world uses: libnbd's, QEMU's, the Linux kernel's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hako_block::testkit::Rng;
use hako_tests::nbd::{Server, guest, has_libnbd, nbdcopy, text};
use hako_tests::{Variant, convert, disk, disk_verb, hash, names, run_program, variants};

struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// A folder with a raw disk, `disk.raw`.
    fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        disk::make_raw(&folder.path().join("disk.raw"), size, 5);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn raw(&self) -> PathBuf {
        self.path("disk.raw")
    }

    /// Returns the disk in another format.
    fn image(&self, variant: &Variant) -> PathBuf {
        let path = self.path(&variant.file_name("image"));
        convert(&self.raw(), &path, &variant.options());
        path
    }
}

/// Every variant that can be written in place.
fn writable() -> Vec<Variant> {
    let mut writable = variants();
    writable.retain(|variant| variant.write);
    writable
}

#[test]
fn nbdcopy_and_qemu_read_every_format() {
    let world = World::new(24 << 20);
    let raw = world.raw();
    for variant in variants() {
        let image = world.image(&variant);
        let server = Server::on_port(&image, &["--from", &variant.format]);
        if has_libnbd() {
            let copy = world.path("copy.raw");
            nbdcopy(&[&server.uri, text(&copy)]);
            assert_eq!(disk::sha256(&copy), disk::sha256(&raw), "{variant:?}");
            std::fs::remove_file(copy).unwrap();
        }
        let args = ["compare", "-f", "raw", "-F", "raw", text(&raw), &server.uri];
        run_program("qemu-img", &args).ok();
        server.end();
    }
}

#[test]
fn nbdinfo_maps_what_hako_maps() {
    if !has_libnbd() {
        return;
    }
    let world = World::new(24 << 20);
    for variant in variants() {
        let image = world.image(&variant);
        let options = ["--from", &variant.format];
        let server = Server::on_port(&image, &options);
        let run = run_program("nbdinfo", &["--json", "--map", &server.uri]);
        let theirs = merged(
            run.json()
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| (entry["length"].as_u64().unwrap(), entry["type"] == 3)),
        );
        let options = [&options[..], &["--json"]].concat();
        let ours = disk_verb("map", &[&image], &options).json();
        let ours = merged(
            ours.as_array()
                .unwrap()
                .iter()
                .map(|entry| (entry["length"].as_u64().unwrap(), entry["zero"] == true)),
        );
        assert_eq!(theirs, ours, "{variant:?}");
        assert!(
            ours.len() > 5 || variant.subformat.contains("ixed"),
            "{variant:?} is one piece"
        );
        server.end();
    }
}

/// Merges neighbours of one kind.
fn merged(runs: impl Iterator<Item = (u64, bool)>) -> Vec<(u64, bool)> {
    let mut merged: Vec<(u64, bool)> = Vec::new();
    for (len, zero) in runs {
        match merged.last_mut() {
            Some(last) if last.1 == zero => last.0 += len,
            _ => merged.push((len, zero)),
        }
    }
    merged
}

#[test]
fn nbdinfo_sees_what_is_offered() {
    if !has_libnbd() {
        return;
    }
    let world = World::new((1 << 20) + 100);
    let socket = world.path("a socket");
    let options = [
        "--socket",
        text(&socket),
        "--export-name",
        "d/é 1",
        "--writable",
    ];
    let server = Server::start(&world.raw(), &options);
    let info = run_program("nbdinfo", &["--json", &server.uri]).json();
    let export = &info["exports"][0];
    assert_eq!(export["export-name"], "d/é 1");
    assert_eq!(export["export-size"], (1 << 20) + 100);
    for (key, value) in [
        ("is_read_only", false),
        ("can_df", true),
        ("can_flush", true),
        ("can_fua", true),
        ("can_multi_conn", true),
        ("can_trim", true),
        ("can_zero", true),
        ("can_fast_zero", false),
        ("can_cache", true),
    ] {
        assert_eq!(export[key], value, "{key}");
    }
    let list = run_program("nbdinfo", &["--json", "--list", &server.uri]).json();
    assert_eq!(list["exports"].as_array().unwrap().len(), 1);
    let other = format!(
        "nbd+unix:///other?socket={}",
        text(&socket).replace(' ', "%20")
    );
    assert_ne!(run_program("nbdinfo", &[&other]).code, Some(0));
    server.ask_to_end();
    server.wait().expect_code(0);
    assert_eq!(names(world.folder.path()), ["disk.raw"], "no socket");
}

#[test]
fn nbdcopy_and_qemu_fill_every_writable_format() {
    let world = World::new(20 << 20);
    let raw = world.raw();
    for variant in writable() {
        let what = format!("{variant:?}");
        let image = world.path(&variant.file_name("target"));
        let from = ["--from", &variant.format];
        let create = || {
            let options = [&variant.options()[..], &["--force"]].concat();
            disk_verb("create", &[&image, Path::new("20M")], &options).ok();
        };
        let sound = |what: &str| {
            disk_verb("check", &[&image], &from).expect_code(0);
            assert_eq!(hash(&image, &from), disk::sha256(&raw), "{what}");
        };
        create();
        let socket = world.path("socket");
        let options = [&from[..], &["--writable", "--socket", text(&socket)]].concat();
        if has_libnbd() {
            let server = Server::start(&image, &options);
            nbdcopy(&["--flush", text(&raw), &server.uri]);
            // What was flushed is safe, whatever becomes of the server.
            server.kill();
            assert!(socket.exists(), "a killed server leaves its socket behind");
            sound(&what);
            create();
        }
        let server = Server::start(&image, &options);
        let args = [
            "convert",
            "-n",
            "-f",
            "raw",
            "-O",
            "raw",
            text(&raw),
            &server.uri,
        ];
        run_program("qemu-img", &args).ok();
        run_program(
            "qemu-img",
            &["bench", "-f", "raw", "-c", "2000", "-s", "4k", &server.uri],
        )
        .ok();
        server.end();
        sound(&what);
    }
}

#[test]
fn qemu_io_changes_every_writable_format_as_it_changes_raw() {
    const STEPS: &[&str] = &[
        "write -P 1 1000 70001",
        "aio_write -P 2 2M 3M",
        "aio_flush",
        "write -z 2500k 100k",
        "write -z -u 3001k 900k",
        "write -z 4199k 1333",
        "write -P 3 -f 5242879 2",
        "flush",
        "writev -P 4 6M 512 1024 4096",
        "write -P 5 16776k 440k",
        "read -P 2 2100k 100k",
        "read -P 0 2500k 100k",
    ];
    let world = World::new((16 << 20) + (440 << 10) + (392 << 10));
    for variant in writable() {
        let image = world.image(&variant);
        let raw = world.path("changed.raw");
        std::fs::copy(world.raw(), &raw).unwrap();
        let server = Server::on_port(&image, &["--from", &variant.format, "--writable"]);
        for target in [&server.uri, text(&raw)] {
            let mut args = vec!["-f", "raw", target];
            STEPS.iter().for_each(|step| args.extend(["-c", step]));
            let said = run_program("qemu-io", &args).ok();
            assert!(!said.contains("failed"), "{variant:?}: {said}");
        }
        server.end();
        disk_verb("check", &[&image], &["--from", &variant.format]).expect_code(0);
        let changed = hash(&image, &["--from", &variant.format]);
        assert_eq!(changed, disk::sha256(&raw), "{variant:?}");
    }
}

#[test]
fn chains_are_served_as_the_guest_sees_them() {
    let world = World::new(8 << 20);
    let base = world.path("base.qcow2");
    convert(&world.raw(), &base, &[]);
    let overlay = world.path("overlay.qcow2");
    let base_hash = disk::sha256(&base);
    disk_verb("create", &[&overlay], &["--parent", text(&base)]).ok();
    let server = Server::on_port(&overlay, &["--writable"]);
    let steps = [
        "-c",
        "write -P 7 100001 3",
        "-c",
        "write -z 1M 1M",
        "-c",
        "discard 3M 64k",
    ];
    run_program(
        "qemu-io",
        &[&["-f", "raw", &server.uri], &steps[..]].concat(),
    )
    .ok();
    let args = [
        "compare",
        "-f",
        "raw",
        "-F",
        "qcow2",
        "-U",
        &server.uri,
        text(&overlay),
    ];
    run_program("qemu-io", &["-f", "raw", "-c", "flush", &server.uri]).ok();
    run_program("qemu-img", &args).ok();
    server.end();
    assert_eq!(disk::sha256(&base), base_hash, "the parent is only read");
    let raw = world.raw();
    let steps = [
        "-c",
        "write -P 7 100001 3",
        "-c",
        "write -z 1M 1M",
        "-c",
        "write -z 3M 64k",
    ];
    run_program(
        "qemu-io",
        &[&["-f", "raw", text(&raw)], &steps[..]].concat(),
    )
    .ok();
    assert_eq!(hash(&overlay, &[]), disk::sha256(&raw));
    disk_verb("check", &[&overlay], &[]).expect_code(0);
}

#[test]
fn locks_are_honoured() {
    let world = World::new(1 << 20);
    let raw = world.raw();
    let server = Server::on_port(&raw, &["--writable"]);
    for options in [&["--writable"][..], &[]] {
        let options = [options, &["--port", "0"]].concat();
        disk_verb("serve", &[&raw], &options).expect_code(5);
    }
    disk_verb("hash", &[&raw], &[]).expect_code(5);
    server.end();
    let server = Server::on_port(&raw, &[]);
    disk_verb("hash", &[&raw], &[]).ok();
    disk_verb("serve", &[&raw], &["--writable", "--port", "0"]).expect_code(5);
    let other = Server::on_port(&raw, &[]);
    let port = server.port().to_string();
    disk_verb("serve", &[&raw], &["--port", &port]).expect_code(5);
    other.end();
    server.end();
}

#[test]
fn read_only_is_the_default_and_the_file_does_not_change() {
    let world = World::new(1 << 20);
    let before = disk::sha256(&world.raw());
    let server = Server::on_port(&world.raw(), &[]);
    let args = ["-f", "raw", "-c", "write 0 512", &server.uri];
    assert_ne!(run_program("qemu-io", &args).code, Some(0));
    server.end();
    assert_eq!(disk::sha256(&world.raw()), before);
}

#[test]
fn wrong_usage_is_told() {
    let world = World::new(1 << 20);
    for (options, code) in [
        (&["--bind", "localhost"][..], 2),
        (&["--bind", "127.0.0.1:5", "--port", "5"], 2),
        (&["--socket", "x", "--port", "5"], 2),
        (&["--writable", "--salvage"], 2),
        (&["--writable", "--force-share"], 2),
        (&["--max-clients", "0"], 2),
        (&["--socket", "/nonexistent/socket"], 1),
        (&["--bind", "192.0.2.1"], 1),
    ] {
        disk_verb("serve", &[&world.raw()], options)
            .expect_code(code)
            .refused();
    }
    let precious = world.path("precious");
    std::fs::write(&precious, b"data").unwrap();
    let options = ["--socket", text(&precious)];
    disk_verb("serve", &[&world.raw()], &options).refused();
    assert_eq!(std::fs::read(&precious).unwrap(), b"data");
}

#[test]
fn once_pid_file_and_json_do_what_they_say() {
    if !has_libnbd() {
        return;
    }
    let world = World::new(4 << 20);
    let pid_file = world.path("pid");
    let options = ["--once", "--json", "--pid-file", text(&pid_file)];
    let server = Server::on_port(&world.raw(), &options);
    let said: serde_json::Value = serde_json::from_str(&server.uri).unwrap();
    assert_eq!(said["virtual_size"], 4 << 20);
    assert_eq!(said["writable"], false);
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert_eq!(said["pid"].to_string(), pid.trim());
    nbdcopy(&[said["uri"].as_str().unwrap(), text(&world.path("copy"))]);
    server.wait().expect_code(0);
    assert!(!pid_file.exists());
}

#[test]
fn addresses_that_others_reach_are_warned_about() {
    let world = World::new(1 << 20);
    let server = Server::on_port(&world.raw(), &["--bind", "0.0.0.0"]);
    server.ask_to_end();
    let run = server.wait().expect_code(0);
    assert!(
        run.stderr.contains("neither encryption nor a password"),
        "{}",
        run.stderr
    );
}

#[test]
fn clients_under_load_are_right_though_one_is_killed() {
    let world = World::new(32 << 20);
    const PART: u64 = 4 << 20;
    for variant in writable() {
        let image = world.path(&variant.file_name("load"));
        disk_verb("create", &[&image, Path::new("32M")], &variant.options()).ok();
        let socket = world.path("socket");
        let options = [
            "--from",
            &variant.format,
            "--writable",
            "--socket",
            text(&socket),
        ];
        let server = Server::start(&image, &options);
        let parts: Vec<PathBuf> = (0..4)
            .map(|number| {
                let path = world.path(&format!("part{number}"));
                disk::make_raw(&path, PART, 100 + number);
                path
            })
            .collect();
        // A client that writes as fast as it can, killed with requests in flight.
        let half = window(&socket, 4 * PART, 4 * PART);
        let mut victim = Command::new("qemu-img")
            .args(["bench", "--image-opts", "-w", "-c", "10000000", "-d", "32"])
            .args(["-s", "9000", "-S", "65536", "--pattern", "9", &half])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::scope(|scope| {
            for (part, number) in parts.iter().zip(0u64..) {
                let socket = &socket;
                scope.spawn(move || write_and_read_back(part, socket, number * PART));
            }
            std::thread::sleep(Duration::from_millis(150));
            assert!(victim.try_wait().unwrap().is_none(), "it writes still");
            victim.kill().unwrap();
            victim.wait().unwrap();
        });
        server.end();
        disk_verb("check", &[&image], &["--from", &variant.format]).expect_code(0);
        let whole = world.path("whole.raw");
        disk_verb(
            "convert",
            &[&image, &whole],
            &["--from", &variant.format, "--force"],
        )
        .ok();
        let whole = std::fs::read(&whole).unwrap();
        for (part, number) in parts.iter().zip(0..) {
            let start = number * PART as usize;
            let part = std::fs::read(part).unwrap();
            assert!(
                whole[start..start + part.len()] == part,
                "{variant:?}: part {number}"
            );
        }
        assert!(
            whole[4 * PART as usize..]
                .iter()
                .all(|byte| [0, 9].contains(byte)),
            "{variant:?}: what the killed client wrote is there or not, and nothing else"
        );
    }
}

/// Writes a file to its place on the served disk and compares, several times.
#[track_caller]
fn write_and_read_back(part: &Path, socket: &Path, offset: u64) {
    let window = window(socket, offset, part.metadata().unwrap().len());
    let part = text(part);
    let file = format!("driver=raw,file.driver=file,file.filename={part}");
    for _ in 0..3 {
        let copy = [
            "convert",
            "-n",
            "-f",
            "raw",
            "--target-image-opts",
            part,
            &window,
        ];
        run_program("qemu-img", &copy).ok();
        run_program("qemu-img", &["compare", "--image-opts", &file, &window]).ok();
    }
}

/// Returns how QEMU is told to use a part of a served disk.
fn window(socket: &Path, offset: u64, len: u64) -> String {
    let socket = text(socket);
    format!("driver=raw,offset={offset},size={len},file.driver=nbd,file.path={socket}")
}

#[test]
fn hostile_clients_disturb_nobody_and_take_no_memory() {
    let world = World::new(40 << 20);
    let before = std::fs::read(world.raw()).unwrap();
    let server = Server::on_port(&world.raw(), &["--writable", "--max-clients", "8"]);
    let mut rng = Rng::new(1);
    let mut held = Vec::new();
    for round in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let _ = stream.read(&mut [0; 18]);
        let message = match round % 6 {
            0 => rng.bytes(1000),
            1 => [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 7], &[0xff; 4]].concat(),
            2 => entered(WRITE, u32::MAX),
            // Half a write of 32 MiB.
            3 => [entered(WRITE, 32 << 20), vec![0; 1 << 20]].concat(),
            // Reads of 32 MiB that nobody takes.
            4 => [
                entered(READ, 32 << 20),
                request(READ, 32 << 20).repeat(1000),
            ]
            .concat(),
            _ => entered(0xffff, u32::MAX),
        };
        // The server may hang up before it has heard everything.
        let _ = stream.write_all(&message);
        // Some stay, the others go in the middle.
        if round % 4 == 3 && held.len() < 7 {
            held.push(stream);
        }
    }
    // The places of those that are gone are free again.
    std::thread::sleep(Duration::from_millis(500));
    run_program("qemu-img", &["info", &server.uri]).ok();
    drop(held);
    let peak = server.peak_memory();
    assert!(peak < 100 << 20, "{} MiB", peak >> 20);
    server.ask_to_end();
    server.wait().expect_code(0);
    // The halves of writes were zeros at the beginning; nothing else may have changed.
    let after = std::fs::read(world.raw()).unwrap();
    assert!(after[1 << 20..] == before[1 << 20..]);
    let begun = after.iter().zip(&before).take(1 << 20);
    assert!(
        begun
            .into_iter()
            .all(|(after, before)| after == before || *after == 0)
    );
}

const READ: u16 = 0;
const WRITE: u16 = 1;

/// Returns what a client sends to enter the transmission phase, and one request.
fn entered(kind: u16, len: u32) -> Vec<u8> {
    let option = [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 1], &[0; 4]].concat();
    [option, request(kind, len)].concat()
}

/// Returns a request at the disk's beginning.
fn request(kind: u16, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend([0; 2]);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0; 16]);
    bytes.extend(len.to_be_bytes());
    bytes
}

/// Most seconds that a guest may take on a machine that does much else.
const GUEST_SECONDS: u64 = 300;

#[test]
fn the_kernels_client_reads_and_writes_from_a_guest() {
    let Some(boot) = guest() else { return };
    let world = World::new(16 << 20);
    let mut expected = std::fs::read(world.raw()).unwrap();
    let image = world.path("image.qcow2");
    convert(&world.raw(), &image, &[]);
    let server = Server::on_port(&image, &["--writable", "--export-name", "disk"]);
    let args = [
        GUEST_SECONDS.to_string(),
        boot.display().to_string(),
        server.port().to_string(),
    ];
    let console = run_program("timeout", &args).stdout;
    server.end();
    let said = |word: &str| {
        let line = format!("GUEST {word}");
        let found = console
            .lines()
            .find_map(|said| said.trim().strip_prefix(&line));
        found
            .unwrap_or_else(|| panic!("no {word:?} from the guest:\n{console}"))
            .trim_end_matches('-')
            .trim()
            .to_owned()
    };
    assert_eq!(said("size"), (16 << 20).to_string());
    assert_eq!(said("before"), disk::sha256(&world.raw()), "{console}");
    // What the guest's init does.
    expected.copy_within(0..1 << 20, 5 << 20);
    expected[777..777 + 18].copy_from_slice(b"written by a guest");
    expected[9 << 20..10 << 20].fill(0);
    let raw = world.path("expected.raw");
    std::fs::write(&raw, &expected).unwrap();
    assert_eq!(said("after"), disk::sha256(&raw), "{console}");
    said("discarded");
    said("done");
    disk_verb("check", &[&image], &[]).expect_code(0);
    let whole = world.path("whole.raw");
    convert(&image, &whole, &[]);
    let whole = std::fs::read(&whole).unwrap();
    let discarded = 12 << 20..13 << 20;
    assert!(whole[..discarded.start] == expected[..discarded.start]);
    assert!(whole[discarded.end..] == expected[discarded.end..]);
}
