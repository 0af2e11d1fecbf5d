//! `hako p2v capture --plan`: a whole machine out of a server's disks.

#![allow(clippy::unwrap_used)] // A test fails by a panic.

mod common;

use common::{World, noise};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A server with a mirror of two disks, and a third one.
const INVENTORY: &str = r#"{"schema": 1, "hostname": "web01", "taken": 1795305600,
    "machine": {"vendor": "Dell Inc.", "model": "PowerEdge R640"},
    "firmware": {"kind": "uefi", "secure_boot": true},
    "cpu": {"sockets": 1, "cores": 4, "threads": 4}, "memory": {"total_bytes": 8589934592},
    "disks": [{"name": "sda", "bytes": 104857600, "driver": "ahci", "table": "gpt"},
              {"name": "sdb", "bytes": 104857600, "driver": "ahci", "table": "gpt"},
              {"name": "sdc", "bytes": 67108864, "driver": "ahci"}],
    "volumes": [{"name": "sda1", "on": ["sda"]}, {"name": "sdb1", "on": ["sdb"]},
                {"name": "md0", "kind": "array", "on": ["sda1", "sdb1"],
                 "array": {"level": "raid1", "n_members": 2}}],
    "mounts": [{"path": "/", "volume": "md0"}],
    "nics": [{"name": "eno1", "permanent_mac": "14:18:77:00:00:01", "is_up": true}],
    "os": {"family": "linux", "id": "debian", "version": "12"},
    "boot": {"kernels": [{"version": "6.1", "is_default": true, "drivers": [
        {"hardware": "pvscsi", "place": "initrd"}, {"hardware": "sd_mod", "place": "initrd"},
        {"hardware": "virtio-pci", "place": "initrd"}, {"hardware": "virtio-scsi", "place": "initrd"},
        {"hardware": "virtio-net", "place": "modules"}, {"hardware": "vmxnet3", "place": "modules"}
    ]}]}}"#;

fn world(target: &str) -> World {
    let world = World::new();
    world.write("inv.json", INVENTORY.as_bytes());
    let noise = noise(1, 3 * MIB as usize);
    world.raw("a.img", 100 * MIB, &[(0, &noise), (50 * MIB, &noise)]);
    world.raw("b.img", 100 * MIB, &[(0, &noise), (50 * MIB, &noise)]);
    world.raw("c.img", 64 * MIB, &[(0, b"SWAPSPACE1"), (20 * MIB, &noise)]);
    let words = [
        "--inventory",
        "inv.json",
        "-o",
        "web.toml",
        "--size",
        "as-is",
        "--target",
        target,
    ];
    let run = world.hako(["p2v", "plan"].into_iter().chain(words));
    assert_eq!(run.code, 0, "{}", run.stderr);
    world
}

fn capture(world: &World, words: &str) -> common::Run {
    let verb = ["p2v", "capture", "--json", "--plan", "web.toml"];
    world.hako(verb.into_iter().chain(words.split_whitespace()))
}

fn machine(world: &World, name: &str) -> Value {
    let run = world.hako(["vm", "info", "--json", name]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn a_plan_becomes_a_machine_of_the_disks_that_it_keeps() {
    let world = world("vmware");
    let run = capture(&world, "sdc=c.img sda=a.img --folder web");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["name"], "web01");
    assert_eq!(report["disks"][0]["source"], "sda");
    assert_eq!(report["disks"][1]["verified"], true);
    assert_eq!(
        world.names_in("web"),
        ["web01-2.vmdk", "web01.vmdk", "web01.vmx"]
    );
    world.done("compare a.img web/web01.vmdk");
    world.done("compare c.img web/web01-2.vmdk");
    for (image, mib) in [("web/web01.vmdk", 100), ("web/web01-2.vmdk", 64)] {
        let info = world.peer("qemu-img", &["info", "--output=json", image]);
        let info: Value = serde_json::from_str(&info).unwrap();
        assert_eq!(
            (&info["format"], &info["virtual-size"]),
            (&"vmdk".into(), &(mib * MIB).into())
        );
    }
    let machine = machine(&world, "web01");
    assert_eq!(machine["firmware"], "efi");
    assert_eq!(machine["secure_boot"], true);
    assert_eq!(
        (&machine["cpus"], &machine["memory"]),
        (&4.into(), &(8_u64 << 30).into())
    );
    assert_eq!(machine["guest_os"], "debian12-64");
    let drives = machine["drives"].as_array().unwrap();
    let places: Vec<_> = drives
        .iter()
        .map(|drive| {
            (
                drive["node"].as_str().unwrap(),
                drive["file"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [("scsi0:0", "web01.vmdk"), ("scsi0:1", "web01-2.vmdk")]
    );
    assert_eq!(machine["controllers"][0]["model"], "pvscsi");
    let nic = &machine["nics"][0];
    assert_eq!(
        (&nic["model"], &nic["mac"]),
        (&"vmxnet3".into(), &"14:18:77:00:00:01".into())
    );
    assert_eq!(machine["nics"].as_array().unwrap().len(), 1);
    // There is a machine of that name now.
    let again = capture(&world, "sdc=c.img sda=a.img --folder other");
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(!world.path("other").exists());
}

#[test]
fn hardware_of_qemu_and_another_name_and_format_are_taken() {
    let world = world("qemu");
    let plan = String::from_utf8(world.read("web.toml")).unwrap();
    world.write(
        "web.toml",
        plan.replacen("thin = true", "thin = false", 1).as_bytes(),
    );
    let run = capture(
        &world,
        "sdc=c.img sda=a.img --name web02 --to qcow2 --no-verify",
    );
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let vmx = String::from_utf8(world.read("home/vms/web02/web02.vmx")).unwrap();
    for line in [
        "hako.scsi0.virtualDev = \"virtio-scsi\"",
        "hako.ethernet0.virtualDev = \"virtio-net\"",
        "hako.scsi0:0.format = \"qcow2\"",
    ] {
        assert!(vmx.contains(line), "{line}: {vmx}");
    }
    world.done("check home/vms/web02/web02.qcow2");
    // What is not thin takes all of its space at once.
    let host_mib = |name: &str| {
        let image = format!("home/vms/web02/{name}.qcow2");
        let info = world.peer("qemu-img", &["info", "--output=json", &image]);
        let info: Value = serde_json::from_str(&info).unwrap();
        info["actual-size"].as_u64().unwrap() / MIB
    };
    assert!(host_mib("web02") >= 100 && host_mib("web02-2") < 10);
}

#[test]
fn a_disk_is_found_again_by_its_partition_table_and_another_one_is_refused() {
    let world = world("vmware");
    for (image, identity) in [("a.img", "0x11111111"), ("c.img", "0x22222222")] {
        let script = format!("label: dos\nlabel-id: {identity}\nstart=2048, size=4096\n");
        world.write("script", script.as_bytes());
        world.peer(
            "sh",
            &["-c", &format!("sfdisk -q --force {image} < script")],
        );
    }
    let text = String::from_utf8(world.read("web.toml")).unwrap();
    let (mut tables, mut lines) = (["11111111", "33333333", "22222222"].iter(), String::new());
    for line in text.lines() {
        lines += &format!("{line}\n");
        if line.starts_with("source = \"sd") {
            lines += &format!("table_uuid = \"{}\"\n", tables.next().unwrap());
        }
    }
    world.write("web.toml", lines.as_bytes());
    let run = capture(&world, "sda=c.img sdc=a.img");
    assert!(
        run.code == 2 && run.stderr.contains("another disk"),
        "{}",
        run.stderr
    );
    let swapped = lines
        .replace("11111111", "x")
        .replace("22222222", "11111111");
    world.write(
        "web.toml",
        swapped.replace("\"x\"", "\"44444444\"").as_bytes(),
    );
    let run = capture(&world, "sda=a.img sdc=c.img");
    assert!(run.code == 2, "{}", run.stderr);
    let said = "table_uuid 11111111, disk sda of the plan table_uuid 44444444: another disk";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    world.write("web.toml", lines.as_bytes());
    // Nobody says which is which, and in another order.
    let run = capture(&world, "c.img a.img");
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let sources: Vec<&Value> = (0..2).map(|at| &report["disks"][at]["source"]).collect();
    assert_eq!(sources, ["sda", "sdc"]);
    for (disk, copy) in [("a.img", "web01"), ("c.img", "web01-2")] {
        world.done(&format!("compare {disk} home/vms/web01/{copy}.vmdk"));
    }
}

#[test]
fn where_it_is_not_beyond_doubt_which_disk_is_which_nothing_is_copied() {
    let world = world("vmware");
    world.raw("short.img", 10 * MIB, &[]);
    for (words, text) in [
        ("a.img c.img", "which of the plan's disks is it: sda"),
        ("sda=a.img", "the plan keeps disk sdc"),
        ("sda=a.img sdb=b.img sdc=c.img", "the plan drops disk sdb"),
        ("sda=a.img sda=b.img", "disk sda is there already"),
        ("sda=a.img sdx=c.img", "the plan has no disk sdx"),
        ("sda=a.img sdc=short.img", "another disk"),
        ("sda=c.img sdc=a.img", "another disk"),
    ] {
        let run = capture(&world, words);
        assert_eq!(run.code, 2, "{words}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{words}: {}", run.stderr);
    }
    let edit = |from: &str, to: &str| {
        let text = String::from_utf8(world.read("web.toml")).unwrap();
        assert!(text.contains(from), "{text}");
        world.write("web.toml", text.replacen(from, to, 1).as_bytes());
    };
    edit("bytes = 67108864", "bytes = 134217728");
    let run = capture(&world, "sda=a.img sdc=c.img");
    assert!(
        run.code == 1 && run.stderr.contains("keeps its length"),
        "{}",
        run.stderr
    );
    edit("firmware = \"efi\"", "firmware = \"coreboot\"");
    assert_eq!(capture(&world, "sda=a.img sdc=c.img").code, 2);
    let run = world.hako(["p2v", "capture", "a.img", "c.img", "-o", "x.vmdk"]);
    assert!(
        run.code == 2 && run.stderr.contains("several disks"),
        "{}",
        run.stderr
    );
    assert!(!world.path("home/vms/web01").exists());
}
