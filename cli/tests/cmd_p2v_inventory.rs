//! `hako p2v inventory`, as a user runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // A test fails by a panic.

mod common;

use std::os::unix::fs::FileExt;

use common::{Run, World};
use serde_json::Value;

const MIB: u64 = 1 << 20;

fn inventory(world: &World, words: &str) -> Run {
    world.hako(
        ["p2v", "inventory"]
            .into_iter()
            .chain(words.split_whitespace()),
    )
}

fn json(world: &World, words: &str, code: i32) -> Value {
    let run = inventory(world, &format!("--json {words}"));
    assert_eq!(run.code, code, "{words}: {}{}", run.stderr, run.stdout);
    serde_json::from_str(&run.stdout).unwrap()
}

/// The files of a small Debian.
const FILES: &[(&str, &str)] = &[
    (
        "etc/os-release",
        "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n",
    ),
    ("etc/hostname", "web01\n"),
    ("etc/adjtime", "0.0 0 0.0\n0\nUTC\n"),
    (
        "etc/fstab",
        "UUID=6f0cd8e5-0000-4000-8000-000000000001 / ext4 errors=remount-ro 0 1\n/dev/sda2 none swap sw 0 0\n\
         nas:/export /srv/nas nfs4 ro 0 0\n",
    ),
    (
        "etc/network/interfaces",
        "auto eno1\niface eno1 inet static\n  address 192.0.2.5/24\n  gateway 192.0.2.1\n",
    ),
    (
        "etc/systemd/network/10-eno1.link",
        "[Match]\nMACAddress=14:18:77:00:00:01\n[Link]\nName=eno1\n",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/postgresql.service",
        "",
    ),
    (
        "etc/postgresql/15/main/postgresql.conf",
        "shared_buffers = 256MB\n",
    ),
    ("usr/sbin/update-initramfs", ""),
    (
        "lib/modules/6.1.0-9-amd64/modules.dep",
        "kernel/drivers/scsi/vmw_pvscsi.ko:\n",
    ),
    (
        "lib/modules/6.1.0-9-amd64/modules.builtin",
        "kernel/drivers/ata/ahci.ko\nkernel/drivers/scsi/sd_mod.ko\n",
    ),
    ("boot/vmlinuz-6.1.0-9-amd64", "kernel"),
    (
        "boot/grub/grub.cfg",
        "menuentry 'Debian' { linux /boot/vmlinuz-6.1.0-9-amd64 root=UUID=6f0cd8e5-0000-4000-8000-000000000001 ro quiet }\n",
    ),
];

/// A world with `d.img`: an MBR with boot code, a Debian, and what it swaps to.
fn world() -> World {
    let world = World::new();
    for (path, text) in FILES {
        let path = world.path(&format!("tree/{path}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    world.raw("d.img", 64 * MIB, &[]);
    world.write(
        "script",
        b"label: dos\nstart=1M, size=48M, type=83, bootable\nstart=50M, size=10M, type=82\n",
    );
    world.peer("sh", &["-c", "sfdisk -q d.img < script"]);
    world.raw("root", 48 * MIB, &[]);
    world.raw("swap", 10 * MIB, &[]);
    let uuid = "6f0cd8e5-0000-4000-8000-000000000001";
    world.peer(
        "mke2fs",
        &[
            "-q", "-F", "-t", "ext4", "-L", "root", "-U", uuid, "-d", "tree", "root",
        ],
    );
    world.peer(
        "mkswap",
        &["-q", "-U", "6f0cd8e5-0000-4000-8000-000000000002", "swap"],
    );
    let disk = std::fs::File::options()
        .write(true)
        .open(world.path("d.img"))
        .unwrap();
    disk.write_all_at(b"\xeb\x63\x90GRUB", 0).unwrap();
    disk.write_all_at(&world.read("root"), MIB).unwrap();
    disk.write_all_at(&world.read("swap"), 50 * MIB).unwrap();
    world
}

#[test]
fn a_machine_is_known_by_the_image_of_its_disk() {
    let world = world();
    let known = json(&world, "d.img", 0);
    assert_eq!(
        (&known["schema"], &known["source"]),
        (&1.into(), &"images".into())
    );
    assert_eq!(known["hostname"], "web01");
    assert_eq!(known["firmware"]["kind"], "bios");
    assert_eq!(known["os"]["id"], "debian");
    assert_eq!(known["os"]["clock_is_local"], false);
    assert_eq!(known["disks"][0]["table"], "dos");
    assert_eq!(known["disks"][0]["last_partition_end"], 60 * MIB);
    // What sfdisk and blkid say.
    let table: Value = serde_json::from_str(&world.peer("sfdisk", &["-J", "d.img"])).unwrap();
    let table = &table["partitiontable"];
    let id = table["id"].as_str().unwrap().trim_start_matches("0x");
    assert_eq!(known["disks"][0]["table_uuid"], id);
    let volumes = known["volumes"].as_array().unwrap();
    assert_eq!(volumes.len(), 2);
    for (volume, (part, image)) in volumes.iter().zip(
        table["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .zip(["root", "swap"]),
    ) {
        assert_eq!(volume["on"][0], "disk");
        assert_eq!(
            volume["partition"]["start"],
            part["start"].as_u64().unwrap() * 512
        );
        assert_eq!(volume["bytes"], part["size"].as_u64().unwrap() * 512);
        assert_eq!(volume["partition"]["kind"], part["type"]);
        let told = world.peer("blkid", &["-p", "-o", "export", image]);
        let tag = |key: &str| {
            told.lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap_or_default()
        };
        assert_eq!(volume["content"]["kind"], tag("TYPE="));
        assert_eq!(volume["content"]["uuid"], tag("UUID="));
        assert_eq!(volume["content"]["label"], tag("LABEL="));
    }
    let mounts = known["mounts"].as_array().unwrap();
    assert_eq!(
        (&mounts[0]["path"], &mounts[0]["volume"]),
        (&"/".into(), &"p1".into())
    );
    assert_eq!(
        (&mounts[1]["path"], &mounts[1]["is_remote"]),
        (&"/srv/nas".into(), &true.into())
    );
    assert_eq!(
        (&known["swaps"][0]["volume"], &known["swaps"][0]["fstab"]),
        (&"p2".into(), &"/dev/sda2".into())
    );
    let nic = &known["nics"][0];
    assert_eq!(
        (&nic["name"], &nic["permanent_mac"]),
        (&"eno1".into(), &"14:18:77:00:00:01".into())
    );
    assert_eq!(
        (&nic["addresses"][0], &nic["method"]),
        (&"192.0.2.5/24".into(), &"static".into())
    );
    assert_eq!(known["boot"]["loader"], "grub");
    assert_eq!(known["boot"]["kernel"], "6.1.0-9-amd64");
    assert_eq!(known["boot"]["initrd_tool"], "initramfs-tools");
    let drivers = known["boot"]["kernels"][0]["drivers"].as_array().unwrap();
    let place = |name: &str| &drivers.iter().find(|one| one["hardware"] == name).unwrap()["place"];
    assert_eq!(
        (place("ahci"), place("pvscsi")),
        (&"builtin".into(), &"modules".into())
    );
    assert_eq!(known["services"][0]["reserved_bytes"], 256 * MIB);
    let codes: Vec<&str> = known["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect();
    for code in ["kernel-names", "remote-mount", "database"] {
        assert!(codes.contains(&code), "{codes:?}");
    }
    assert!(known["volumes"][0]["used_bytes"].is_null());
    let deep = json(&world, "--deep --from raw --guest-sector-size 512 d.img", 0);
    assert!((MIB..20 * MIB).contains(&deep["volumes"][0]["used_bytes"].as_u64().unwrap()));
    assert_eq!(deep["volumes"][1]["used_bytes"], 4096);
}

/// Makes `e.img`: a GPT with an EFI system partition with loaders, a partition for the rest of GRUB's boot
/// code, and a root with these files; `code`: what the first sector begins with.
fn with_both(world: &World, code: &[u8], files: &[(&str, &str)]) {
    let tree = world.path("both");
    let _ = std::fs::remove_dir_all(&tree);
    for (path, text) in files.iter().chain(&[("etc/os-release", "ID=debian\n")]) {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::create_dir_all(tree.join("usr/lib")).unwrap();
    world.raw("e.img", 64 * MIB, &[]);
    let script = "label: gpt\nstart=1M, size=8M, type=U\nstart=10M, size=1M, \
        type=21686148-6449-6E6F-744E-656564454649\nstart=12M, size=40M, type=L\n";
    world.write("script", script.as_bytes());
    world.peer("sh", &["-c", "sfdisk -q e.img < script"]);
    world.raw("esp", 8 * MIB, &[]);
    world.peer("mkfs.vfat", &["esp"]);
    world.peer("mmd", &["-i", "esp", "::/EFI", "::/EFI/debian"]);
    world.raw("root", 40 * MIB, &[]);
    let words = ["-q", "-F", "-t", "ext4", "-d", "both", "root"];
    world.peer("mke2fs", &words);
    let disk = std::fs::File::options()
        .write(true)
        .open(world.path("e.img"))
        .unwrap();
    disk.write_all_at(code, 0).unwrap();
    disk.write_all_at(&world.read("esp"), MIB).unwrap();
    disk.write_all_at(&world.read("root"), 12 * MIB).unwrap();
}

#[test]
fn of_bios_and_uefi_the_one_that_the_system_uses_is_taken_and_both_are_told() {
    let world = World::new();
    let (code, fstab) = (
        &b"\xeb\x63\x90GRUB"[..],
        "UUID=1-1 /boot/efi vfat umask=0077 0 1\n",
    );
    let core = ("boot/grub/i386-pc/core.img", "x");
    let efi = ("boot/grub/x86_64-efi/core.efi", "x");
    let mounted = ("etc/fstab", fstab);
    for (files, kind) in [
        (&[core][..], "bios"),
        (&[efi], "uefi"),
        (&[core, efi], "bios"),
        (&[core, efi, mounted], "uefi"),
        (&[core, mounted], "uefi"),
        (&[], "uefi"),
    ] {
        with_both(&world, code, files);
        let known = json(&world, "e.img", 0);
        let firmware = &known["firmware"];
        assert_eq!(
            (&firmware["kind"], &firmware["starts_both"]),
            (&kind.into(), &true.into())
        );
        let why = firmware["why"].as_str().unwrap();
        let all = "p1 has its loaders, disk has boot code, and p2 the rest; ";
        assert!(why.starts_with(all), "{files:?}: {why}");
        let mut findings = known["findings"].as_array().unwrap().iter();
        assert!(
            findings.any(|one| one["code"] == "two-firmwares"),
            "{known:#}"
        );
    }
    // Without code in the first sector a BIOS starts nothing.
    with_both(&world, &[], &[core]);
    let known = json(&world, "e.img", 0);
    let firmware = &known["firmware"];
    assert_eq!(
        (&firmware["kind"], &firmware["starts_both"]),
        (&"uefi".into(), &false.into())
    );
    assert_eq!(firmware["why"], "p1 has its loaders");
}

/// A world with `w.img`: an NTFS with a Windows on it; none if NTFS cannot be mounted here.
fn windows() -> Option<World> {
    let world = World::new();
    world.raw("w.img", 32 * MIB, &[]);
    world.peer("mkntfs", &["-q", "-F", "-Q", "w.img"]);
    std::fs::create_dir(world.path("mnt")).unwrap();
    let script = "ntfs-3g w.img mnt && mkdir -p mnt/Windows/System32/config && umount mnt";
    let made = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(world.path("."))
        .status()
        .unwrap();
    if !made.success() {
        assert!(std::env::var_os("CI").is_none(), "NTFS cannot be mounted");
        eprintln!("skipped: NTFS cannot be mounted");
    }
    made.success().then_some(world)
}

#[test]
fn what_is_not_done_for_windows_is_said() {
    let Some(world) = windows() else { return };
    let known = json(&world, "w.img", 0);
    assert_eq!(known["os"]["family"], "windows");
    let mut findings = known["findings"].as_array().unwrap().iter();
    let found = findings.find(|one| one["code"] == "windows").unwrap();
    assert!(
        found["what"]
            .as_str()
            .unwrap()
            .contains("changes nothing in it")
    );
    world.write("w.json", known.to_string().as_bytes());
    // How large it is to be its disk does not say.
    let words = ["p2v", "plan", "--inventory", "w.json", "--json"];
    let plan = world.hako(words);
    assert_eq!(plan.code, 3, "{}", plan.stderr);
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let codes: Vec<&Value> = plan["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["code"])
        .collect();
    assert!(codes.contains(&&"windows".into()), "{plan:#}");
    let disk = plan["disks"][0]["controller"].as_str().unwrap();
    assert!(matches!(disk, "sata" | "nvme"), "{plan:#}");
    let before = world.read("w.img");
    let adapt = world.hako(["p2v", "adapt", "w.img", "--target", "vmware"]);
    assert_eq!(adapt.code, 1, "{}", adapt.stderr);
    for text in [
        "Windows, in which hako changes nothing",
        "SATA or NVMe",
        "e1000e",
    ] {
        assert!(adapt.stderr.contains(text), "{}", adapt.stderr);
    }
    assert!(world.read("w.img") == before);
    let create = [
        "vm",
        "create",
        "win",
        "--guest-os",
        "windows2019srv-64",
        "--from-disk",
        "w.img",
    ];
    assert_eq!(world.hako(create).code, 0);
    let verify = world.hako(["p2v", "verify", "win", "--json"]);
    assert_eq!(verify.code, 3, "{}", verify.stderr);
    let report: Value = serde_json::from_str(&verify.stdout).unwrap();
    let mut checks = report["checks"].as_array().unwrap().iter();
    let boot = checks.find(|check| check["about"] == "boot").unwrap();
    assert!(
        boot["notes"][0].as_str().unwrap().contains("Windows"),
        "{report:#}"
    );
}

#[test]
fn people_get_a_page_and_what_to_do() {
    let world = world();
    let run = inventory(&world, "d.img");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    for text in [
        "web01",
        "Debian GNU/Linux 12",
        "192.0.2.5/24",
        "builtin: ahci, sd_mod",
        "warning kernel-names: p2: fstab swaps to /dev/sda2",
        "hako p2v adapt",
    ] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    // Suspended: it stands in the way.
    let disk = std::fs::File::options()
        .write(true)
        .open(world.path("d.img"))
        .unwrap();
    disk.write_all_at(b"S1SUSPEND\0", 50 * MIB + 4086).unwrap();
    let run = inventory(&world, "d.img");
    assert_eq!(run.code, 3);
    assert!(
        run.stdout.contains("blocker hibernated: p2"),
        "{}",
        run.stdout
    );
    for (words, code, text) in [
        ("--root /tmp d.img", 2, "--root"),
        ("--root tree", 2, "/proc"),
        ("--guest-sector-size 512", 2, ""),
        ("no.img", 1, "no.img"),
    ] {
        let run = inventory(&world, words);
        assert_eq!(run.code, code, "{words}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{words}: {}", run.stderr);
    }
}

/// A server's `/proc` and `/sys` below `root`, as little as `sample` and `inventory` need.
fn server(world: &World) {
    for (path, text) in [
        ("proc/uptime", "1000.00 2000.00\n"),
        (
            "proc/stat",
            "cpu 100 0 50 800 20 0 0 0 0 0\ncpu0 100 0 50 800 20 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n",
        ),
        (
            "proc/meminfo",
            "MemTotal: 8388608 kB\nMemFree: 100 kB\nMemAvailable: 4194304 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        ),
        (
            "proc/cpuinfo",
            "processor : 0\nphysical id : 0\ncore id : 0\n\nprocessor : 1\nphysical id : 0\ncore id : 1\n",
        ),
        ("proc/vmstat", "pswpin 0\npswpout 0\n"),
        ("proc/diskstats", "8 0 sda 1 0 2 3 4 5 6 7 8 9 10\n"),
        ("proc/net/dev", "eno1: 5 6 0 0 0 0 0 0 7 8 0 0 0 0 0 0\n"),
        (
            "proc/sys/kernel/random/boot_id",
            "00000000-0000-0000-0000-000000000001\n",
        ),
        ("proc/sys/kernel/hostname", "web01\n"),
        ("proc/sys/kernel/osrelease", "6.1.0-9-amd64\n"),
        (
            "proc/self/mountinfo",
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
        ),
        ("proc/swaps", "Filename Type Size Used Priority\n"),
        ("sys/block/sda/size", "131072\n"),
        ("sys/block/sda/dev", "8:0\n"),
        ("sys/block/sda/sda1/partition", "1\n"),
        ("sys/block/sda/sda1/start", "2048\n"),
        ("sys/block/sda/sda1/size", "98304\n"),
        ("sys/block/sda/sda1/dev", "8:1\n"),
        ("sys/class/net/eno1/type", "1\n"),
        ("sys/class/net/eno1/address", "14:18:77:00:00:01\n"),
        ("sys/class/net/eno1/addr_assign_type", "0\n"),
        ("sys/class/net/eno1/operstate", "up\n"),
        ("sys/class/net/eno1/device/vendor", "1\n"),
        ("sys/firmware/acpi/x", ""),
    ] {
        let path = world.path(&format!("tree/{path}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::create_dir_all(world.path("tree/dev")).unwrap();
    std::fs::copy(world.path("d.img"), world.path("tree/dev/sda")).unwrap();
}

#[test]
fn from_the_inventory_of_a_server_and_a_sample_a_plan_is_made() {
    let world = world();
    server(&world);
    let known = json(&world, "--root tree", 0);
    assert_eq!(
        (&known["source"], &known["hostname"]),
        (&"running".into(), &"web01".into())
    );
    assert_eq!(known["cpu"]["threads"], 2);
    assert_eq!(known["volumes"][0]["content"]["kind"], "ext4");
    assert_eq!(known["volumes"][0]["partition"]["kind_name"], "Linux");
    assert_eq!(
        (
            &known["mounts"][0]["volume"],
            &known["nics"][0]["permanent_mac"]
        ),
        (&"sda1".into(), &"14:18:77:00:00:01".into())
    );
    world.write("inv.json", known.to_string().as_bytes());
    let words = "p2v sample --root tree --interval 100ms --for 1s --out web01.samples";
    let run = world.hako(words.split(' '));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let words = "p2v plan --inventory inv.json --history web01.samples --json";
    let run = world.hako(words.split(' '));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let plan: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(plan["source"]["host"], "web01");
    assert_eq!(
        (&plan["cpu"]["as_is"], &plan["memory"]["as_is_mib"]),
        (&2.into(), &8192.into())
    );
    // The kernel has AHCI's driver built in, and pvscsi's as a module only.
    assert_eq!(
        (&plan["disks"][0]["source"], &plan["disks"][0]["controller"]),
        (&"sda".into(), &"sata".into())
    );
    assert_eq!(
        (&plan["nics"][0]["mac"], &plan["nics"][0]["action"]),
        (&"14:18:77:00:00:01".into(), &"keep".into())
    );
    // And from the image alone.
    world.write(
        "image.json",
        json(&world, "d.img", 0).to_string().as_bytes(),
    );
    let words = "p2v plan --inventory image.json --size 2,4G --target qemu --json";
    let run = world.hako(words.split(' '));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let plan: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (&plan["cpu"]["count"], &plan["disks"][0]["source"]),
        (&2.into(), &"disk".into())
    );
    assert_eq!(plan["nics"][0]["mac"], "14:18:77:00:00:01");
}

#[test]
fn the_system_that_runs_is_as_other_programs_see_it() {
    let world = World::new();
    let run = inventory(&world, "--json");
    assert!(matches!(run.code, 0 | 3), "{}", run.stderr);
    let known: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(known["boot"]["kernel"], world.peer("uname", &["-r"]).trim());
    assert_eq!(
        known["cpu"]["threads"].to_string(),
        world.peer("nproc", &["--all"]).trim()
    );
    let listed: Value =
        serde_json::from_str(&world.peer("lsblk", &["-J", "-b", "-d", "-o", "NAME,SIZE,TYPE"]))
            .unwrap();
    let listed = listed["blockdevices"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let disks = known["disks"].as_array().unwrap();
    for device in listed.iter().filter(|device| device["type"] == "disk") {
        let name = device["name"].as_str().unwrap();
        if ["loop", "zram", "ram", "nbd", "fd"]
            .iter()
            .any(|begin| name.starts_with(begin))
        {
            continue;
        }
        let ours = disks.iter().find(|disk| disk["name"] == name);
        let ours = ours.unwrap_or_else(|| panic!("{name} is not among {disks:?}"));
        assert_eq!(
            ours["bytes"].to_string(),
            device["size"].to_string().trim_matches('"')
        );
    }
    let links: Value = serde_json::from_str(&world.peer("ip", &["-j", "address"])).unwrap();
    for nic in known["nics"].as_array().unwrap() {
        let link = links
            .as_array()
            .unwrap()
            .iter()
            .find(|link| link["ifname"] == nic["name"])
            .unwrap();
        assert_eq!(nic["mac"], link["address"]);
        for address in link["addr_info"].as_array().unwrap() {
            if address["scope"] == "global" {
                let text = format!(
                    "{}/{}",
                    address["local"].as_str().unwrap(),
                    address["prefixlen"]
                );
                assert!(
                    nic["addresses"].as_array().unwrap().contains(&text.into()),
                    "{nic}"
                );
            }
        }
    }
}
