//! `hako p2v adapt`, as a user runs it: on a disk that mke2fs and mkfs.vfat made, looked at by
//! e2fsck, debugfs, fsck.vfat and mtools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Run, World};
use hako_guest::cpio::Writer;
use serde_json::Value;

const ESP_AT: u64 = 1 << 20;
const ESP_BYTES: u64 = 16 << 20;
const ROOT_AT: u64 = ESP_AT + ESP_BYTES;
const ROOT_BYTES: u64 = 64 << 20;

const FSTAB: &str =
    "/dev/sda2 / ext4 errors=remount-ro 0 1\n/dev/sda1 /boot/efi/ vfat umask=0077 0 1\n";
const GRUB: &str = "menuentry 'Debian' {\n\tlinux /boot/vmlinuz-6.1 root=/dev/sda2 ro quiet\n\
    \tinitrd /boot/initrd.img-6.1\n}\n";
const UUID: &str = "11111111-2222-3333-4444-555555555555";

fn has_peers() -> bool {
    let programs = [
        "mke2fs",
        "e2fsck",
        "debugfs",
        "mkfs.vfat",
        "fsck.vfat",
        "mcopy",
    ];
    let is_there = |program: &&str| Command::new(program).arg("--help").output().is_ok();
    match programs.iter().find(|program| !is_there(program)) {
        None => true,
        Some(missing) => {
            assert!(std::env::var_os("CI").is_none(), "{missing} is missing");
            eprintln!("skipped: {missing} is not installed");
            false
        }
    }
}

#[track_caller]
fn run(program: &str, words: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{program} {words:?}: {said}{shown}"
    );
    output.stdout
}

fn initrd() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for folder in [
        "usr",
        "usr/lib",
        "usr/lib/modules",
        "scripts",
        "scripts/init-top",
    ] {
        writer.directory(folder.as_bytes()).unwrap();
    }
    let files = [
        "scripts/functions",
        "scripts/init-top/udev",
        "usr/lib/modules/6.1/kernel/ahci.ko",
    ];
    for path in files {
        writer.file(path.as_bytes(), 0o644, b"x").unwrap();
    }
    writer.finish().unwrap()
}

/// Makes the disk of a server that was installed for other hardware.
fn server() -> World {
    server_with(&[])
}

/// Makes one with these files, too.
fn server_with(more: &[(&str, Vec<u8>)]) -> World {
    let world = World::new();
    let files = world.path("files");
    for folder in [
        "etc/systemd/system",
        "etc/udev/rules.d",
        "boot/grub",
        "boot/efi",
        "var/lib",
        "usr/lib/modules/6.1/kernel",
        "usr/lib/systemd/system",
    ] {
        std::fs::create_dir_all(files.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink("usr/lib", files.join("lib")).unwrap();
    let modules = "usr/lib/modules/6.1";
    let list = "kernel/vmw_pvscsi.ko:\nkernel/ahci.ko:\nkernel/virtio_blk.ko:\n";
    let texts = [
        ("etc/fstab", FSTAB),
        ("etc/os-release", "ID=debian\n"),
        ("boot/grub/grub.cfg", GRUB),
        ("boot/vmlinuz-6.1", "kernel"),
        ("usr/lib/systemd/system/smartd.service", ""),
        ("usr/lib/modules/6.1/modules.dep", list),
        ("usr/lib/modules/6.1/modules.builtin", "kernel/sd_mod.ko\n"),
    ];
    for (path, text) in texts {
        std::fs::write(files.join(path), text).unwrap();
    }
    for name in ["vmw_pvscsi", "ahci", "virtio_blk"] {
        let path = files.join(format!("{modules}/kernel/{name}.ko"));
        std::fs::write(path, format!("module {name}")).unwrap();
    }
    std::fs::write(files.join("boot/initrd.img-6.1"), initrd()).unwrap();
    for (path, content) in more {
        let path = files.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let root = world.raw("root.part", ROOT_BYTES, &[]);
    let words = [
        "-t",
        "ext4",
        "-q",
        "-F",
        "-U",
        UUID,
        "-d",
        files.to_str().unwrap(),
    ];
    run("mke2fs", &[&words[..], &[root.to_str().unwrap()]].concat());
    let esp = world.raw("esp.part", ESP_BYTES, &[]);
    run("mkfs.vfat", &["-i", "12AB34CD", esp.to_str().unwrap()]);
    let loaders = world.path("EFI/debian");
    std::fs::create_dir_all(&loaders).unwrap();
    for name in ["shimx64.efi", "grubx64.efi", "mmx64.efi", "fbx64.efi"] {
        std::fs::write(loaders.join(name), name.repeat(10_000)).unwrap();
    }
    let from = world.path("EFI");
    run(
        "mcopy",
        &[
            "-s",
            "-i",
            esp.to_str().unwrap(),
            from.to_str().unwrap(),
            "::",
        ],
    );
    let mut table = vec![0; 512];
    for (at, kind, start, len) in [
        (446, 0xef, ESP_AT, ESP_BYTES),
        (462, 0x83, ROOT_AT, ROOT_BYTES),
    ] {
        table[at + 4] = kind;
        table[at + 8..at + 12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
        table[at + 12..at + 16].copy_from_slice(&((len / 512) as u32).to_le_bytes());
    }
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    let parts = [
        (0, table),
        (ESP_AT, world.read("esp.part")),
        (ROOT_AT, world.read("root.part")),
    ];
    let parts: Vec<(u64, &[u8])> = parts.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    world.raw("server.raw", ROOT_AT + ROOT_BYTES + (1 << 20), &parts);
    world
}

fn adapt(world: &World, words: &str) -> Run {
    world.hako(["p2v", "adapt"].into_iter().chain(words.split_whitespace()))
}

/// The two file systems of an image, as files, found sound.
struct Parts<'a>(&'a World);

impl<'a> Parts<'a> {
    #[track_caller]
    fn of(world: &'a World, image: &str) -> Self {
        let copy = world.hako(["disk", "convert", "--force", image, "copy.raw"]);
        assert_eq!(copy.code, 0, "{}", copy.stderr);
        let bytes = world.read("copy.raw");
        let part = |at: u64, len: u64| bytes[at as usize..(at + len) as usize].to_vec();
        world.write("now.root", &part(ROOT_AT, ROOT_BYTES));
        world.write("now.esp", &part(ESP_AT, ESP_BYTES));
        let parts = Self(world);
        run("e2fsck", &["-fn", parts.path("now.root").to_str().unwrap()]);
        run(
            "fsck.vfat",
            &["-n", parts.path("now.esp").to_str().unwrap()],
        );
        parts
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path(name)
    }

    fn root(&self, path: &str) -> Vec<u8> {
        let command = format!("cat {path}");
        run(
            "debugfs",
            &["-R", &command, self.path("now.root").to_str().unwrap()],
        )
    }

    fn esp(&self, path: &str) -> Vec<u8> {
        let image = self.path("now.esp");
        run(
            "mcopy",
            &["-i", image.to_str().unwrap(), &format!("::{path}"), "-"],
        )
    }

    fn has_on_esp(&self, path: &str) -> bool {
        let image = self.path("now.esp");
        let words = ["-i", image.to_str().unwrap(), &format!("::{path}")];
        Command::new("mdir")
            .args(words)
            .output()
            .unwrap()
            .status
            .success()
    }

    /// All files of the root file system.
    fn all(&self) -> Vec<(String, Vec<u8>)> {
        let folder = tempfile::tempdir_in(self.path("")).unwrap();
        let command = format!("rdump / {}", folder.path().display());
        run(
            "debugfs",
            &["-R", &command, self.path("now.root").to_str().unwrap()],
        );
        let mut all = Vec::new();
        collect(folder.path(), folder.path(), &mut all);
        all.sort();
        all
    }
}

fn collect(top: &Path, folder: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            collect(top, &path, all);
        }
        let name = path.strip_prefix(top).unwrap().display().to_string();
        all.push((name, std::fs::read(&path).unwrap_or_default()));
    }
}

#[test]
fn a_copy_is_adapted_found_sound_and_put_back_in_any_format() {
    if !has_peers() {
        return;
    }
    let world = server();
    let made = world.hako(["disk", "convert", "server.raw", "server.vmdk"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    for image in ["server.raw", "server.vmdk"] {
        let before = Parts::of(&world, image).all();
        let untouched = world.read(image);
        let dry = adapt(&world, &format!("{image} --target vmware --dry-run --json"));
        assert_eq!((dry.code, &dry.stderr[..]), (0, ""));
        assert!(world.read(image) == untouched, "a dry run wrote");
        let plan: Value = serde_json::from_str(&dry.stdout).unwrap();
        assert_eq!(plan["done"], false);
        let paths: Vec<&str> = plan["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["path"].as_str().unwrap())
            .collect();
        assert_eq!(
            paths,
            [
                "/etc/fstab",
                "/boot/grub/grub.cfg",
                "/boot/initrd.img-6.1",
                "/boot/efi/EFI/BOOT",
                "/boot/efi/EFI/BOOT/BOOTX64.EFI",
                "/boot/efi/EFI/BOOT/grubx64.efi",
                "/boot/efi/EFI/BOOT/mmx64.efi",
            ]
        );

        let done = adapt(&world, &format!("{image} --target vmware"));
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(
            done.stdout.contains("  - /dev/sda2 / ext4"),
            "{}",
            done.stdout
        );
        assert!(
            done.stdout.contains("the module vmw_pvscsi, for pvscsi"),
            "{}",
            done.stdout
        );
        let parts = Parts::of(&world, image);
        let fstab = FSTAB.replace("/dev/sda2", &format!("UUID={UUID}"));
        let fstab = fstab.replace("/dev/sda1", "UUID=12AB-34CD");
        assert_eq!(parts.root("/etc/fstab"), fstab.as_bytes());
        let grub = GRUB.replace("/dev/sda2", &format!("UUID={UUID}"));
        assert_eq!(parts.root("/boot/grub/grub.cfg"), grub.as_bytes());
        let now = parts.root("/boot/initrd.img-6.1");
        assert!(now.starts_with(&initrd()));
        assert!(String::from_utf8_lossy(&now).contains("kernel/vmw_pvscsi.ko"));
        assert_eq!(parts.root("/var/lib/hako/adapt/kept-0"), FSTAB.as_bytes());
        for (name, copy) in [
            ("BOOTX64.EFI", "shimx64.efi"),
            ("grubx64.efi", "grubx64.efi"),
        ] {
            let content = parts.esp(&format!("/EFI/BOOT/{name}"));
            assert!(content == copy.repeat(10_000).as_bytes(), "{name}");
        }
        assert!(!parts.has_on_esp("/EFI/BOOT/fbx64.efi"));

        let again = adapt(&world, &format!("{image} --target vmware"));
        assert_eq!(again.code, 0, "{}", again.stderr);
        assert_eq!(again.stdout, "nothing is to be changed\n");
        // Another target needs more of the initrd, which is kept from the first time on.
        let more = adapt(
            &world,
            &format!("{image} --target kvm --serial-console --mask-agents"),
        );
        assert_eq!(more.code, 0, "{}", more.stderr);
        let parts = Parts::of(&world, image);
        let text = String::from_utf8(parts.root("/boot/grub/grub.cfg")).unwrap();
        assert!(
            text.contains("quiet console=tty0 console=ttyS0,115200n8\n"),
            "{text}"
        );
        let now = parts.root("/boot/initrd.img-6.1");
        assert!(String::from_utf8_lossy(&now).contains("kernel/virtio_blk.ko"));

        let undone = adapt(&world, &format!("{image} --undo"));
        assert_eq!((undone.code, &undone.stderr[..]), (0, ""));
        let parts = Parts::of(&world, image);
        assert!(parts.all() == before, "{image}");
        assert!(!parts.has_on_esp("/EFI/BOOT"));
        let again = adapt(&world, &format!("{image} --undo"));
        assert_eq!(again.stdout, "nothing is to be changed\n");
    }
}

#[test]
fn what_the_guest_changed_since_stays_when_it_is_put_back() {
    if !has_peers() {
        return;
    }
    let world = server();
    assert_eq!(adapt(&world, "server.raw --target vmware").code, 0);
    // As if the administrator had edited it.
    let mut bytes = world.read("server.raw");
    let line = format!("UUID={UUID} / ext4 errors=remount-ro 0 1");
    let ours = bytes
        .windows(line.len())
        .position(|window| window == line.as_bytes())
        .unwrap();
    bytes[ours + line.len() - 1] = b'2';
    world.write("server.raw", &bytes);
    let undone = adapt(&world, "server.raw --undo");
    assert_eq!(undone.code, 3, "{}", undone.stderr);
    assert!(
        undone
            .stderr
            .contains("/etc/fstab: the guest has changed it"),
        "{}",
        undone.stderr
    );
    let parts = Parts::of(&world, "server.raw");
    assert!(parts.root("/etc/fstab").starts_with(b"UUID="));
    assert_eq!(parts.root("/boot/initrd.img-6.1"), initrd());
}

#[test]
fn what_the_guest_made_anew_between_two_runs_is_what_undo_leads_back_to() {
    if !has_peers() {
        return;
    }
    // Of the first file that goes, the inode is the first that is free again.
    let devices = b"IDTYPE=sys_wwid\n".to_vec();
    let list = "etc/lvm/devices/system.devices";
    let world = server_with(&[(list, devices.clone())]);
    let first = adapt(&world, "server.raw --target vmware");
    assert_eq!(first.code, 0, "{}", first.stderr);
    // As if a new initrd were made, and an administrator had added a line.
    let new_initrd = initrd().repeat(5);
    let mut fstab = Parts::of(&world, "server.raw").root("/etc/fstab");
    fstab.extend(b"/dev/sda1 /mnt vfat noauto 0 0\n");
    world.write("new.initrd", &new_initrd);
    world.write("new.fstab", &fstab);
    let path = |name: &str| world.path(name).display().to_string();
    let commands = format!(
        "rm /boot/initrd.img-6.1\nwrite {} /boot/initrd.img-6.1\n\
         rm /etc/fstab\nwrite {} /etc/fstab\n",
        path("new.initrd"),
        path("new.fstab"),
    );
    world.write("commands", commands.as_bytes());
    let root = format!("{}?offset={ROOT_AT}", path("server.raw"));
    run("debugfs", &["-w", "-f", &path("commands"), &root]);
    let again = adapt(&world, "server.raw --target kvm");
    assert_eq!(again.code, 0, "{}", again.stderr);
    let parts = Parts::of(&world, "server.raw");
    assert!(parts.root("/boot/initrd.img-6.1").len() > new_initrd.len());
    assert!(
        !parts
            .root("/etc/fstab")
            .ends_with(b"/dev/sda1 /mnt vfat noauto 0 0\n")
    );

    let undone = adapt(&world, "server.raw --undo");
    assert_eq!(undone.code, 0, "{}", undone.stderr);
    let parts = Parts::of(&world, "server.raw");
    assert_eq!(parts.root("/boot/initrd.img-6.1"), new_initrd);
    assert_eq!(parts.root("/etc/fstab"), fstab);
    assert_eq!(parts.root(list), devices);
    assert!(!parts.all().iter().any(|(path, _)| path.contains("kept-")));
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    if !has_peers() {
        return;
    }
    let world = server();
    let root = world.path("root.part");
    let quiet = ["-w", "-R", "feature needs_recovery", root.to_str().unwrap()];
    run("debugfs", &quiet);
    let mut bytes = world.read("server.raw");
    bytes[ROOT_AT as usize..(ROOT_AT + ROOT_BYTES) as usize]
        .copy_from_slice(&world.read("root.part"));
    world.write("server.raw", &bytes);
    let refused = adapt(&world, "server.raw --target vmware");
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("not unmounted"),
        "{}",
        refused.stderr
    );
    assert!(world.read("server.raw") == bytes);
    let mut without = world.command();
    let without = without.args(["p2v", "adapt", "server.raw", "--target", "vmware"]);
    let without: Run = without.env("PATH", "/nowhere").output().unwrap().into();
    let is_told = |what: &str| without.stderr.contains(what);
    assert_eq!(without.code, 1, "{}", without.stderr);
    assert!(
        is_told("QEMU is not installed") && is_told("hint: install"),
        "{}",
        without.stderr
    );
    assert!(world.read("server.raw") == bytes);
    let words = [
        ("--target vmware nothing", 6),
        ("server.raw", 2),
        ("--undo --target kvm x", 2),
    ];
    for (words, code) in words {
        assert_eq!(adapt(&world, words).code, code, "{words}");
    }
}

#[test]
fn names_of_cards_are_kept_as_said_and_as_the_inventory_tells() {
    if !has_peers() {
        return;
    }
    let world = server();
    let inventory = r#"{"schema": 1, "firmware": {"kind": "bios"}, "cpu": {"threads": 1},
        "memory": {"total_bytes": 1073741824}, "disks": [{"name": "sda", "bytes": 1048576}],
        "nics": [{"name": "eno1", "mac": "02:00:00:00:00:09", "permanent_mac": "24:6e:96:aa:bb:01"},
        {"name": "eno2", "mac": "24:6e:96:aa:bb:02"}]}"#;
    world.write("server.json", inventory.as_bytes());
    world.write("other.bin", &vec![0; 1 << 20]);
    let names = "--nic eno2=24:6E:96:AA:BB:07 --inventory server.json";
    let disks = "server.raw --from raw --with other.bin --allow-path . --target vmware";
    let done = adapt(&world, &format!("{disks} {names}"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let parts = Parts::of(&world, "server.raw");
    for (name, mac) in [("eno1", "01"), ("eno2", "07")] {
        let rules = parts.root("/etc/udev/rules.d/70-persistent-net.rules");
        let rules = String::from_utf8(rules).unwrap();
        let rule = format!("ATTR{{address}}==\"24:6e:96:aa:bb:{mac}\"");
        let line = rules.lines().find(|line| line.contains(&rule));
        let end = format!("NAME=\"{name}\"");
        assert!(line.is_some_and(|line| line.ends_with(&end)), "{rules}");
    }
    let missing = adapt(&world, "server.raw --with nothing.raw --target vmware");
    assert_eq!(missing.code, 1, "{}", missing.stderr);
    for wrong in ["eno1", "eno1=x", "e/no=24:6e:96:aa:bb:01"] {
        let words = format!("server.raw --target vmware --nic {wrong}");
        assert_eq!(adapt(&world, &words).code, 2, "{wrong}");
    }
}

/// The files of a server with an older kernel, too, and texts that know its card by its address.
fn with_addresses() -> Vec<(&'static str, Vec<u8>)> {
    let netplan = "network:\n  ethernets:\n    lan:\n      match:\n        macaddress: \
        24:6e:96:aa:bb:01 # on board\n      set-name: lan\n";
    let keyfile = "[connection]\ntype=ethernet\ninterface-name=lan\n[ethernet]\n\
        mac-address=24:6E:96:AA:BB:01\n";
    let menu = format!(
        "{GRUB}{}",
        GRUB.replace("6.1", "6.0").replace("Debian", "old")
    );
    let dep = "kernel/vmw_pvscsi.ko:\nkernel/ahci.ko:\n";
    vec![
        ("etc/netplan/1.yaml", netplan.into()),
        (
            "etc/NetworkManager/system-connections/lan.nmconnection",
            keyfile.into(),
        ),
        ("boot/grub/grub.cfg", menu.into()),
        ("boot/vmlinuz-6.0", "kernel".into()),
        ("boot/initrd.img-6.0", initrd()),
        ("usr/lib/modules/6.0/modules.dep", dep.into()),
        (
            "usr/lib/modules/6.0/modules.builtin",
            "kernel/sd_mod.ko\n".into(),
        ),
        (
            "usr/lib/modules/6.0/kernel/vmw_pvscsi.ko",
            "old module".into(),
        ),
        ("usr/lib/modules/6.0/kernel/ahci.ko", "old module".into()),
    ]
}

#[test]
fn cards_are_known_by_their_new_addresses_and_every_initrd_has_its_drivers_until_it_is_put_back() {
    if !has_peers() {
        return;
    }
    let world = server_with(&with_addresses());
    let before = Parts::of(&world, "server.raw").all();
    let words = "server.raw --target vmware --nic lan=00:50:56:00:12:34";
    let shown = adapt(&world, &format!("{words} --dry-run"));
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    for text in [
        "  +         macaddress: 00:50:56:00:12:34 # on board",
        "  + mac-address=00:50:56:00:12:34",
        "append /boot/initrd.img-6.0",
        "append /boot/initrd.img-6.1",
        "lan has the address 00:50:56:00:12:34 now, not 24:6e:96:aa:bb:01",
    ] {
        assert!(shown.stdout.contains(text), "{text}: {}", shown.stdout);
    }
    assert_eq!(Parts::of(&world, "server.raw").all(), before);
    assert_eq!(adapt(&world, words).code, 0);
    let parts = Parts::of(&world, "server.raw");
    let keyfile = parts.root("/etc/NetworkManager/system-connections/lan.nmconnection");
    assert!(
        String::from_utf8(keyfile)
            .unwrap()
            .ends_with("mac-address=00:50:56:00:12:34\n")
    );
    let old = parts.root("/boot/initrd.img-6.0");
    assert!(old.starts_with(&initrd()));
    assert!(old.windows(10).any(|window| window == b"old module"));
    let again = adapt(&world, words);
    assert!(
        again.stdout.contains("nothing is to be changed"),
        "{}",
        again.stdout
    );
    assert_eq!(adapt(&world, "server.raw --undo").code, 0);
    assert_eq!(Parts::of(&world, "server.raw").all(), before);
}

#[test]
fn a_machine_is_adapted_by_its_name_and_half_changed_it_does_not_start() {
    if !has_peers() {
        return;
    }
    let vms = common::vms::Vms::new();
    let disk = server().read("server.raw");
    vms.world.write("server.raw", &disk);
    vms.done(&[
        "create",
        "web",
        "--from-disk",
        "server.raw",
        "--memory",
        "64M",
        "--nic",
        "none",
    ]);
    let run = vms.world.hako(["p2v", "adapt", "web", "--target", "qemu"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stdout.contains("the module virtio_blk"),
        "{}",
        run.stdout
    );
    let intent = vms.world.path("home/vms/web/.web.hako-adapt");
    std::fs::write(&intent, "half").unwrap();
    vms.fails(&["start", "web"], 5, "cut off");
    let run = vms
        .world
        .hako(["p2v", "adapt", "web", "--target", "qemu", "--dry-run"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    let run = vms.world.hako(["p2v", "adapt", "web", "--target", "qemu"]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    std::fs::remove_file(&intent).unwrap();
    let run = vms.world.hako(["p2v", "adapt", "web", "--undo"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}
