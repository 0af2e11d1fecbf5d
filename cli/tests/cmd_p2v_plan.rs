//! `hako p2v plan`, as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Run, World};
use serde_json::Value;

const INVENTORY: &str = r#"{"schema": 1, "hostname": "web01", "taken": 1795305600,
    "machine": {"vendor": "Dell Inc.", "model": "PowerEdge R640"},
    "firmware": {"kind": "bios"}, "cpu": {"sockets": 1, "cores": 16, "threads": 16},
    "memory": {"total_bytes": 68719476736},
    "disks": [{"name": "sda", "bytes": 107374182400, "driver": "ahci", "table": "gpt",
               "last_partition_end": 107373133824},
              {"name": "sdb", "bytes": 107374182400, "driver": "ahci"}],
    "volumes": [{"name": "sda1", "on": ["sda"]}, {"name": "sdb1", "on": ["sdb"]},
                {"name": "md0", "kind": "array", "on": ["sda1", "sdb1"],
                 "array": {"level": "raid1", "n_members": 2}}],
    "mounts": [{"path": "/", "volume": "md0"}],
    "nics": [{"name": "eno1", "permanent_mac": "14:18:77:00:00:01", "is_up": true},
             {"name": "eno2", "permanent_mac": "14:18:77:00:00:02", "is_up": true}],
    "os": {"family": "linux", "id": "debian", "version": "12"},
    "boot": {"kernels": [{"version": "6.1", "is_default": true, "drivers": [
        {"hardware": "pvscsi", "place": "modules"}, {"hardware": "ahci", "place": "initrd"},
        {"hardware": "sd_mod", "place": "initrd"}, {"hardware": "virtio-pci", "place": "initrd"},
        {"hardware": "virtio-blk", "place": "initrd"}, {"hardware": "vmxnet3", "place": "modules"},
        {"hardware": "virtio-scsi", "place": "modules"}, {"hardware": "virtio-net", "place": "modules"}
    ]}]}}"#;

/// What atop printed in an hour: half of two processors, 8 GiB of 64.
fn atop() -> String {
    let head = |at: u64| format!("web01 {} 2026/11/22 00:00:00 600", 1_795_305_600 + 600 * at);
    let samples = (1..=6).map(|at| {
        let head = head(at);
        format!(
            "CPU {head} 100 16 0 60000 0 900000 0 0 0 0 0\n\
             MEM {head} 4096 16777216 14680064 0 0 0 0 0 0 0\nSEP\n"
        )
    });
    samples.collect()
}

fn world() -> World {
    let world = World::new();
    world.write("inv.json", INVENTORY.as_bytes());
    world.write("atop.txt", atop().as_bytes());
    world
}

fn plan(world: &World, words: &str) -> Run {
    world.hako(["p2v", "plan"].into_iter().chain(words.split_whitespace()))
}

fn json(world: &World, words: &str) -> Value {
    let run = plan(world, &format!("--inventory inv.json --json {words}"));
    assert!(run.code == 0, "{words}: {}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn a_plan_is_printed_written_edited_and_checked() {
    let world = world();
    let run = plan(&world, "--inventory inv.json --history atop.txt");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.starts_with("# "), "{}", run.stdout);
    for line in [
        "as_is = 16",
        "measured = 2",
        "as_is_mib = 65536",
        "confidence = \"low\"",
    ] {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
    let summary = plan(
        &world,
        "--inventory inv.json --history atop.txt -o web01.toml",
    );
    assert_eq!(summary.code, 0, "{}", summary.stderr);
    assert_eq!(world.read("web01.toml"), run.stdout.as_bytes());
    for text in [
        "processors  16",
        "sata sata0:0, 100 GiB",
        "a mirror of sda (md0)",
        "6 samples",
    ] {
        assert!(summary.stdout.contains(text), "{text}: {}", summary.stdout);
    }
    // What a person has edited is not replaced by accident.
    let again = plan(&world, "--inventory inv.json -o web01.toml");
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert_eq!(world.read("web01.toml"), run.stdout.as_bytes());
    let forced = plan(
        &world,
        "--inventory inv.json --history atop.txt -o web01.toml --force",
    );
    assert_eq!(forced.code, 0, "{}", forced.stderr);
    let edited = run.stdout.replacen("count = 2 ", "count = 3 ", 1);
    world.write("web01.toml", edited.as_bytes());
    let checked = plan(&world, "--check web01.toml");
    assert!(
        checked.code == 2 && checked.stderr.contains("sockets of 2"),
        "{}",
        checked.stderr
    );
    let edited = edited.replace("cores_per_socket = 2", "cores_per_socket = 1");
    world.write("web01.toml", edited.as_bytes());
    let checked = plan(&world, "--check web01.toml --inventory inv.json");
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    assert!(
        checked.stdout.contains("processors  16"),
        "{}",
        checked.stdout
    );
    world.write("web01.toml", edited.replace("sda", "sdx").as_bytes());
    let checked = plan(&world, "--check web01.toml --inventory inv.json");
    assert_eq!(checked.code, 2);
    assert!(
        checked.stderr.contains("disk sda: the server has it"),
        "{}",
        checked.stderr
    );
    world.write("web01.toml", edited.replace("[cpu]", "[gpu]").as_bytes());
    let checked = plan(&world, "--check web01.toml");
    assert!(
        checked.code == 2 && checked.stderr.contains("line "),
        "{}",
        checked.stderr
    );
}

#[test]
fn every_option_does_what_it_says() {
    let world = world();
    let default = json(&world, "");
    assert_eq!(default["machine"]["target"], "vmware");
    assert_eq!(default["machine"]["name"], "web01");
    assert_eq!(default["cpu"]["count"], 16);
    assert_eq!(default["disks"][1]["action"], "drop");
    assert_eq!(default["nics"][0]["network"], "bridged");
    let measured = json(&world, "--history atop.txt");
    assert_eq!(
        [&measured["cpu"]["count"], &measured["memory"]["mib"]],
        [2, 12800]
    );
    assert_eq!(
        json(&world, "--history atop.txt --size as-is")["cpu"]["count"],
        16
    );
    assert_eq!(
        json(&world, "--history atop.txt --size measured")["cpu"]["count"],
        2
    );
    let said = json(&world, "--history atop.txt --size 4,16G");
    assert_eq!([&said["cpu"]["count"], &said["memory"]["mib"]], [4, 16384]);
    assert_eq!(said["cpu"]["measured"], 2);
    for (target, controller, card) in [
        ("vmware", "sata", "vmxnet3"),
        ("kvm", "virtio-blk", "virtio-net"),
        ("qemu", "virtio-blk", "virtio-net"),
    ] {
        let plan = json(&world, &format!("--target {target}"));
        assert_eq!(plan["disks"][0]["controller"], controller, "{target}");
        assert_eq!(plan["nics"][0]["model"], card, "{target}");
    }
    assert_eq!(json(&world, "--name new")["machine"]["name"], "new");
    assert_eq!(json(&world, "--keep-mirrors")["disks"][1]["action"], "keep");
    let mapped = json(&world, "--network eno2=Storage --network nat");
    assert_eq!(
        [&mapped["nics"][0]["network"], &mapped["nics"][1]["network"]],
        ["nat", "Storage"]
    );
    // With both there is a file and JSON.
    let both = json(&world, "--output both.toml");
    assert_eq!(both, default);
    let checked = plan(&world, "--check both.toml --json");
    assert_eq!(
        serde_json::from_str::<Value>(&checked.stdout).unwrap(),
        default
    );
    let mut command = world.command();
    command.args(["p2v", "plan", "--inventory", "-", "--json"]);
    let run: Run = command.write_stdin(INVENTORY).output().unwrap().into();
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), default);
}

#[test]
fn blockers_end_it_with_3_until_somebody_saw_to_them() {
    let world = world();
    let blocked = INVENTORY.replacen(
        "\"schema\": 1,",
        "\"schema\": 1, \"findings\": [{\"level\": \"blocker\", \"code\": \"tpm-bound-luks\",
         \"what\": \"its key is in the TPM\", \"advice\": \"add a passphrase\"}],",
        1,
    );
    world.write("inv.json", blocked.as_bytes());
    let run = plan(&world, "--inventory inv.json -o p.toml");
    assert_eq!(run.code, 3);
    assert!(
        run.stderr.contains("blocker tpm-bound-luks"),
        "{}",
        run.stderr
    );
    let check = "--check p.toml --inventory inv.json";
    assert_eq!(plan(&world, check).code, 3);
    let text = String::from_utf8(world.read("p.toml")).unwrap();
    let cut = text.find("[[findings]]").unwrap();
    world.write("p.toml", &text.as_bytes()[..cut]);
    assert_eq!(plan(&world, check).code, 3);
    world.write(
        "p.toml",
        text.replacen("accepted = false", "accepted = true", 1)
            .as_bytes(),
    );
    let run = plan(&world, check);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn what_is_wrong_is_said() {
    let world = world();
    world.write("binary", &[0x96, 0xd5, 0, 0]);
    world.write("text", b"hello");
    world.write("bad.json", b"{\"schema\": 9}");
    world.write("cut", &[b"HAKOSMPL".as_slice(), &[0; 9000]].concat());
    for (words, code, text) in [
        ("", 2, "--inventory"),
        ("--inventory nowhere", 1, "nowhere"),
        ("--inventory text", 4, "text"),
        ("--inventory bad.json", 1, "schema 9"),
        ("--inventory inv.json --history binary", 1, "sadf -j"),
        ("--inventory inv.json --history text", 1, "hako p2v sample"),
        ("--inventory inv.json --history cut", 1, "version 0"),
        ("--inventory inv.json --size huge", 2, "as-is"),
        ("--inventory inv.json --target xen", 2, "vmware"),
        ("--inventory inv.json --network eth9=nat", 2, "eth9"),
        ("--inventory inv.json --network =nat", 2, "bridged"),
        ("--inventory inv.json --force", 2, "--output"),
        (
            "--inventory inv.json -o nowhere/p.toml",
            1,
            "no such folder",
        ),
        ("--check nowhere", 1, "nowhere"),
        ("--check inv.json --size 4", 2, "--size"),
        ("--check inv.json", 2, "line 1"),
    ] {
        let run = plan(&world, words);
        assert_eq!(run.code, code, "{words}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{words}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{words}: {}", run.stdout);
    }
}
