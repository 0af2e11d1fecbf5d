//! `hako vm`: every verb and option once, and the exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::PathBuf;

use common::{Run, World};
use serde_json::Value;

/// A folder with a home of machines in it.
struct Vms {
    world: World,
}

impl Vms {
    fn new() -> Self {
        Self {
            world: World::new(),
        }
    }

    fn run(&self, args: &[&str]) -> Run {
        let mut command = self.world.command();
        command.env("HAKO_HOME", self.world.path("home"));
        command.arg("vm").args(args).output().unwrap().into()
    }

    /// Runs `hako vm …`, which must succeed in silence.
    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        run.stdout
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let stdout = self.done(&[args, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, text: &str) {
        let run = self.run(args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{args:?}: {}", run.stderr);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path("home/vms").join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The state that the list shows.
    fn state(&self, name: &str) -> String {
        let list = self.json(&["list"]);
        let rows = list.as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        row["state"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_machine_is_made_of_what_was_said_and_what_suits_its_guest() {
    let vms = Vms::new();
    vms.world.write("debian.iso", &[0; 4096]);
    let made = vms.json(&[
        "create",
        "web",
        "--cpus",
        "4,2",
        "--memory",
        "512M",
        "--guest-os",
        "debian12-64",
        "--disk",
        "1G",
        "--disk",
        "2G,bus=nvme,format=qcow2,mode=independent-persistent",
        "--disk",
        "1G,controller=lsilogic,subformat=monolithicFlat,file=data.vmdk",
        "--nic",
        "bridged",
        "--nic",
        "network=VMnet5,model=e1000,mac=00:50:56:01:02:03",
        "--cdrom",
        "debian.iso",
        "--firmware",
        "efi",
        "--annotation",
        "two\nlines",
        "--hardware-version",
        "18",
    ]);
    assert_eq!(made["vmx"], vms.path("web/web.vmx").to_str().unwrap());
    assert_eq!(
        vms.names("web"),
        [
            "data-flat.vmdk",
            "data.vmdk",
            "web.qcow2",
            "web.vmdk",
            "web.vmx"
        ]
    );
    let info = vms.json(&["info", "web"]);
    assert_eq!(info["state"], "stopped");
    assert_eq!(
        (&info["cpus"], &info["cores_per_socket"]),
        (&4.into(), &2.into())
    );
    assert_eq!(info["memory"], 512 << 20);
    assert_eq!(info["firmware"], "efi");
    assert_eq!(info["hardware_version"], 18);
    assert_eq!(info["annotation"], "two\nlines");
    let controllers = info["controllers"].as_array().unwrap();
    let scsi = |number: u64| {
        let found = |c: &&Value| c["bus"] == "scsi" && c["number"] == number;
        controllers.iter().find(found).unwrap()["model"].clone()
    };
    assert_eq!((scsi(0), scsi(1)), ("pvscsi".into(), "lsilogic".into()));
    let drives = info["drives"].as_array().unwrap();
    let drive = |node: &str| drives.iter().find(|drive| drive["node"] == node).unwrap();
    assert_eq!(drive("scsi0:0")["file"], "web.vmdk");
    assert_eq!(drive("scsi0:0")["virtual_size"], 1 << 30);
    assert_eq!(drive("scsi0:0")["format"], "vmdk");
    assert_eq!(drive("nvme0:0")["recorded_format"], "qcow2");
    assert_eq!(drive("nvme0:0")["mode"], "independent-persistent");
    assert_eq!(drive("scsi1:0")["layers"][0]["subformat"], "monolithicFlat");
    assert!(
        drive("sata0:0")["file"]
            .as_str()
            .unwrap()
            .ends_with("debian.iso")
    );
    assert_eq!(info["nics"][0]["model"], "vmxnet3");
    assert_eq!(info["nics"][1]["mac"], "00:50:56:01:02:03");
    assert_eq!(info["nics"][1]["network_name"], "VMnet5");
    assert_eq!(info["oddities"], Value::Array(vec![]));
    let shown = vms.done(&["info", "web"]);
    assert!(shown.contains("guest OS:        debian12-64"), "{shown}");
    let list = vms.done(&["list"]);
    assert!(list.contains("web   stopped  4     512 MiB"), "{list}");
}

#[test]
fn windows_gets_other_hardware_than_linux() {
    let vms = Vms::new();
    vms.done(&["create", "w", "--guest-os", "windows11-64", "--disk", "1G"]);
    let info = vms.json(&["info", "w"]);
    assert_eq!(info["drives"][0]["node"], "nvme0:0");
    assert_eq!(info["nics"][0]["model"], "e1000e");
    assert_eq!(info["firmware"], "efi");
    vms.done(&[
        "create",
        "old",
        "--guest-os",
        "windows7-64",
        "--disk",
        "1G",
        "--nic",
        "none",
    ]);
    let info = vms.json(&["info", "old"]);
    assert!(info.to_string().contains("lsisas1068"), "{info}");
    assert_eq!(info["nics"], Value::Array(vec![]));
}

#[test]
fn an_image_is_copied_into_the_folder_or_used_where_it_is_if_that_is_there() {
    let vms = Vms::new();
    vms.world.raw("disk.raw", 8 << 20, &[(1 << 20, &[7; 5000])]);
    vms.world.peer(
        "qemu-img",
        &["convert", "-O", "qcow2", "disk.raw", "disk.qcow2"],
    );
    vms.done(&["create", "copy", "--from-disk", "disk.qcow2,bus=sata"]);
    assert_eq!(vms.names("copy"), ["copy.vmdk", "copy.vmx"]);
    vms.world.done("compare disk.raw home/vms/copy/copy.vmdk");
    std::fs::create_dir(vms.world.path("here")).unwrap();
    let image = vms.world.path("here/disk.qcow2");
    std::fs::copy(vms.world.path("disk.qcow2"), &image).unwrap();
    vms.done(&[
        "create",
        "here",
        "--folder",
        "here",
        "--from-disk",
        "here/disk.qcow2",
    ]);
    let info = vms.json(&["info", "here"]);
    assert_eq!(info["drives"][0]["file"], "disk.qcow2");
    assert_eq!(info["drives"][0]["recorded_format"], "qcow2");
    assert!(vms.world.path("here/here.vmx").exists());
    vms.fails(
        &["create", "here2", "--folder", "here"],
        1,
        "in this folder already",
    );
}

#[test]
fn seed_is_an_iso_that_others_read() {
    let vms = Vms::new();
    vms.world
        .write("user-data", b"#cloud-config\nhostname: web\n");
    vms.world.write("network-config", b"version: 2\n");
    vms.done(&["create", "web", "--cloud-init", "user-data"]);
    let info = vms.json(&["info", "web"]);
    assert_eq!(info["drives"][0]["file"], "web-seed.iso");
    let run = vms.run(&["create", "two", "--cloud-init", "."]);
    assert!(run.stderr.contains("left out"), "{}", run.stderr);
    vms.fails(
        &["create", "three", "--cloud-init", "nothing"],
        1,
        "no such file",
    );
    let run = vms.run(&["create", "four", "--cloud-init", "network-config"]);
    assert!(run.stderr.contains("will ignore it"), "{}", run.stderr);
}

#[test]
fn kernel_is_copied_and_recorded() {
    let vms = Vms::new();
    vms.world.write("vmlinuz", b"kernel");
    vms.world.write("initrd.img", b"initrd");
    vms.done(&[
        "create",
        "web",
        "--kernel",
        "vmlinuz",
        "--initrd",
        "initrd.img",
        "--cmdline",
        "quiet",
    ]);
    assert_eq!(vms.names("web"), ["initrd.img", "vmlinuz", "web.vmx"]);
    let info = vms.json(&["info", "web"]);
    assert_eq!(info["direct_boot"]["cmdline"], "quiet");
    vms.fails(&["create", "x", "--cmdline", "quiet"], 2, "--kernel");
}

#[test]
fn sockets_stay_as_large_as_they_are_where_that_is_possible() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--cpus", "4,2"]);
    for (cpus, cores_per_socket) in [("8", 2), ("3", 1), ("4,4", 4), ("8", 4)] {
        vms.done(&["set", "web", "--cpus", cpus]);
        let info = vms.json(&["info", "web"]);
        assert_eq!(info["cores_per_socket"], cores_per_socket, "{cpus}");
    }
}

#[test]
fn what_cannot_be_created_leaves_nothing() {
    let vms = Vms::new();
    for (args, code, text) in [
        (vec!["--memory", "510M"], 2, "4 MiB"),
        (vec!["--cpus", "4,3"], 2, "multiple"),
        (vec!["--disk", "0"], 2, "0 bytes"),
        (vec!["--disk", "1G,bus=usb"], 2, "usb"),
        (
            vec!["--disk", "1G,node=scsi0:0", "--disk", "1G,node=scsi0:0"],
            2,
            "scsi0:0",
        ),
        (vec!["--disk", "1G,file=../x.vmdk"], 2, "plain file name"),
        (vec!["--disk", "1G,controller=fast"], 2, "fast"),
        (vec!["--nic", "nat,model=fast"], 2, "fast"),
        (vec!["--guest-os", "a b"], 2, "a b"),
        (vec!["--from-disk", "missing.vmdk"], 1, "missing.vmdk"),
        (vec!["--cdrom", "missing.iso"], 1, "missing.iso"),
        (vec!["--firmware", "uboot"], 2, "bios or efi"),
        (vec!["--nic", "none", "--nic", "nat"], 2, "none"),
    ] {
        vms.fails(&[vec!["create", "web"], args].concat(), code, text);
        assert!(
            vms.names("").is_empty() || !vms.path("").exists(),
            "{:?}",
            vms.names("")
        );
    }
    for name in ["", "a/b", ".web", "web.vmx"] {
        vms.fails(&["create", name], 2, "name");
    }
    assert_eq!(vms.done(&["list"]), "");
    vms.done(&["create", "web"]);
    vms.fails(&["create", "web"], 1, "already");
}

#[test]
fn set_changes_the_lines_it_must_and_no_other() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--guest-os", "ubuntu-64", "--disk", "1G"]);
    let before = vms.text("web/web.vmx");
    let changed = vms.json(&["set", "web", "--memory", "4G"]);
    assert_eq!(changed["changed"]["memsize"], "4096");
    let after = vms.text("web/web.vmx");
    let differing = before.lines().zip(after.lines()).filter(|(a, b)| a != b);
    assert_eq!(differing.count(), 1);
    assert_eq!(before.lines().count(), after.lines().count());
    vms.done(&[
        "set",
        "web",
        "--cpus",
        "2",
        "--boot-order",
        "cdrom,hdd",
        "--annotation",
        "note",
        "--cpu-reservation",
        "500",
        "--cpu-limit",
        "2000",
        "--cpu-shares",
        "high",
        "--memory-reservation",
        "1G",
        "--memory-limit",
        "2G",
        "--memory-shares",
        "3000",
        "--firmware",
        "efi",
        "--guest-os",
        "debian12-64",
        "tools.syncTime=TRUE",
        "guestinfo.x=a=b",
    ]);
    let info = vms.json(&["info", "web"]);
    assert_eq!(info["cpus"], 2);
    assert_eq!(info["boot_order"], serde_json::json!(["cdrom", "hdd"]));
    assert_eq!(info["cpu_share"]["limit_mhz"], 2000);
    assert_eq!(info["cpu_share"]["shares"], "high");
    assert_eq!(info["memory_share"]["reservation_mib"], 1024);
    assert_eq!(info["memory_share"]["shares"], 3000);
    assert_eq!(info["firmware"], "efi");
    assert!(vms.text("web/web.vmx").contains("guestinfo.x = \"a=b\""));
    vms.done(&[
        "set",
        "web",
        "--unset",
        "guestinfo.x",
        "--cpu-limit",
        "none",
    ]);
    let text = vms.text("web/web.vmx");
    assert!(!text.contains("guestinfo.x"));
    assert!(vms.json(&["info", "web"])["cpu_share"]["limit_mhz"].is_null());
    vms.fails(&["set", "web", "--unset", "guestinfo.x"], 2, "guestinfo.x");
    vms.fails(&["set", "web"], 2, "required");
    assert_eq!(vms.text("web/web.vmx"), text);
}

#[test]
fn set_adds_and_removes_devices() {
    let vms = Vms::new();
    vms.world.write("a.iso", &[0; 2048]);
    vms.world.raw("other.raw", 1 << 20, &[]);
    vms.done(&["create", "web", "--guest-os", "ubuntu-64", "--disk", "1G"]);
    let added = vms.json(&["set", "web", "--add-disk", "2G", "--add-nic", "bridged"]);
    assert_eq!(added["added"], serde_json::json!(["scsi0:1"]));
    assert!(vms.path("web/web_1.vmdk").exists());
    vms.done(&[
        "set",
        "web",
        "--attach-disk",
        "other.raw",
        "--cdrom",
        "a.iso",
    ]);
    let info = vms.json(&["info", "web"]);
    let files: Vec<_> = info["drives"]
        .as_array()
        .unwrap()
        .iter()
        .map(|drive| &drive["kind"])
        .collect();
    assert_eq!(files, ["cd-image", "disk", "disk", "disk"]);
    assert_eq!(
        info["drives"][3]["format"], "raw",
        "outside its folder, with consent"
    );
    vms.done(&["set", "web", "--cdrom", "none"]);
    vms.done(&["set", "web", "--cdrom", "sata0:0=a.iso"]);
    vms.fails(
        &["set", "web", "--cdrom", "sata0:5=a.iso"],
        2,
        "no CD drive",
    );
    let removed = vms.json(&["set", "web", "--remove-disk", "scsi0:1", "--delete-file"]);
    assert_eq!(removed["deleted"].as_array().unwrap().len(), 1);
    assert!(!vms.path("web/web_1.vmdk").exists());
    vms.done(&[
        "set",
        "web",
        "--remove-disk",
        "scsi0:2",
        "--remove-nic",
        "1",
    ]);
    assert!(vms.world.path("other.raw").exists());
    vms.fails(&["set", "web", "--remove-disk", "scsi0:2"], 2, "no drive");
    vms.fails(&["set", "web", "--remove-nic", "7"], 2, "network card 7");
}

#[test]
fn set_refuses_what_would_break_the_machine() {
    let vms = Vms::new();
    vms.world.raw("free.raw", 1 << 20, &[]);
    for name in ["web", "mail"] {
        vms.done(&["create", name, "--disk", "1G"]);
    }
    let text = vms.text("web/web.vmx");
    let mail = vms.path("mail/mail.vmdk");
    let mail = mail.to_str().unwrap();
    for (args, code, text) in [
        (vec!["--memory", "1G", "memsize=1023"], 2, "4 MiB"),
        (vec!["memsize=lots"], 2, "lots"),
        (vec!["numvcpus=3", "cpuid.coresPerSocket=2"], 2, "divide"),
        (vec!["--add-disk", "1G,node=scsi0:0"], 2, "scsi0:0"),
        (vec!["--attach-disk", mail], 2, "mail"),
        (
            vec!["--attach-disk", "home/vms/web/web.vmdk"],
            2,
            "share it",
        ),
        (vec!["--attach-disk", "missing.vmdk"], 1, "missing.vmdk"),
        (
            vec!["scsi0:1.present=TRUE", "scsi0:1.fileName=gone.vmdk"],
            1,
            "gone.vmdk",
        ),
        (
            vec!["--memory-reservation", "2G", "--memory-limit", "1G"],
            2,
            "limit",
        ),
    ] {
        vms.fails(&[vec!["set", "web"], args].concat(), code, text);
    }
    assert_eq!(vms.text("web/web.vmx"), text);
    assert_eq!(vms.names("web"), ["web.vmdk", "web.vmx"]);
}

#[test]
fn running_or_suspended_machine_is_shown_and_not_changed() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "1G"]);
    let refused = |vms: &Vms| {
        for args in [
            &["set", "web", "--memory", "1G"][..],
            &["rename", "web", "mail"],
            &["rename", "web", "mail", "--only-name"],
            &["delete", "web", "--yes"],
        ] {
            let run = vms.run(args);
            assert_eq!(run.code, 5, "{args:?}: {}", run.stderr);
        }
    };
    for lock in ["web/web.vmx.lck", "web/web.vmdk.lck"] {
        std::fs::create_dir(vms.path(lock)).unwrap();
        assert_eq!(vms.state("web"), "stopped", "an empty folder of locks");
        std::fs::write(vms.path(lock).join("M1.lck"), b"").unwrap();
        assert_eq!(vms.state("web"), "running", "{lock}");
        refused(&vms);
        std::fs::remove_dir_all(vms.path(lock)).unwrap();
    }
    std::fs::write(vms.path("web/web-1a2b.vmss"), b"memory").unwrap();
    assert_eq!(vms.state("web"), "suspended");
    refused(&vms);
    std::fs::remove_file(vms.path("web/web-1a2b.vmss")).unwrap();
    let text = vms.text("web/web.vmx");
    std::fs::write(
        vms.path("web/web.vmx"),
        format!("{text}checkpoint.vmState = \"web.vmss\"\n"),
    )
    .unwrap();
    assert_eq!(vms.state("web"), "suspended");
    refused(&vms);
    std::fs::write(vms.path("web/web.vmx"), text).unwrap();
    let socket = vms.world.path("socket");
    let mut qemu = std::process::Command::new("qemu-nbd")
        .args(["-f", "vmdk", "--socket"])
        .args([&socket, &vms.path("web/web.vmdk")])
        .spawn()
        .expect("qemu-nbd (of qemu-utils) is needed");
    // It listens before it opens the disk.
    let start = std::time::Instant::now();
    while vms.state("web") != "running" {
        assert!(start.elapsed().as_secs() < 60, "QEMU has its disk open");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    refused(&vms);
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    assert_eq!(vms.state("web"), "stopped");
}

#[test]
fn register_and_unregister_touch_no_file() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "1G"]);
    let text = vms.text("web/web.vmx");
    vms.done(&["unregister", "web"]);
    assert_eq!(vms.json(&["list"]), Value::Array(vec![]));
    vms.fails(&["info", "web"], 6, "web");
    vms.fails(&["unregister", "web"], 6, "web");
    vms.done(&["info", "home/vms/web/web.vmx"]);
    vms.done(&["register", "home/vms/web"]);
    vms.fails(&["register", "home/vms/web/web.vmx"], 1, "already");
    assert_eq!(vms.text("web/web.vmx"), text);
    // Another one of that name needs another.
    std::fs::create_dir(vms.world.path("copy")).unwrap();
    std::fs::copy(vms.path("web/web.vmx"), vms.world.path("copy/web.vmx")).unwrap();
    vms.fails(&["register", "copy"], 1, "--name");
    vms.done(&["register", "copy", "--name", "twin"]);
    assert_eq!(vms.json(&["info", "twin"])["name"], "twin");
    // One that is gone is listed as missing, and can be taken out.
    std::fs::remove_dir_all(vms.world.path("copy")).unwrap();
    let list = vms.json(&["list"]);
    assert!(list.to_string().contains("\"missing\""), "{list}");
    vms.fails(&["info", "copy"], 6, "copy");
    vms.done(&["unregister", "copy"]);
    vms.fails(&["register", "nowhere/x.vmx"], 6, "x.vmx");
}

#[test]
fn rename_takes_every_file_and_reference_along() {
    let vms = Vms::new();
    vms.world.raw("disk.raw", 8 << 20, &[(1 << 20, &[7; 5000])]);
    vms.world.write("user-data", b"#cloud-config\n");
    vms.done(&[
        "create",
        "web",
        "--from-disk",
        "disk.raw,subformat=twoGbMaxExtentSparse",
        "--disk",
        "1G,format=qcow2",
        "--cloud-init",
        "user-data",
    ]);
    let folder = vms.path("web");
    let disk = |words: &str| vms.world.done(words);
    disk("create home/vms/web/web-000001.vmdk --parent home/vms/web/web.vmdk");
    vms.done(&[
        "set",
        "web",
        "scsi0:0.fileName=web-000001.vmdk",
        "extendedConfigFile=web.vmxf",
    ]);
    for (name, text) in [
        ("web.nvram", "nvram"),
        (
            "web.vmxf",
            "<Foundry><vmxPathName type=\"string\">web.vmx</vmxPathName></Foundry>",
        ),
        ("vmware.log", "log"),
        ("notes.txt", "mine"),
        (
            "web.vmsd",
            ".encoding = \"UTF-8\"\nsnapshot.lastUID = \"1\"\nsnapshot.current = \"1\"\n\
          snapshot0.uid = \"1\"\nsnapshot0.filename = \"web-Snapshot1.vmsn\"\n\
          snapshot0.displayName = \"before\"\nsnapshot0.numDisks = \"1\"\n\
          snapshot0.disk0.fileName = \"web.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n\
          snapshot.numSnapshots = \"1\"\n",
        ),
        ("web-Snapshot1.vmsn", "state"),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let run = vms.run(&["rename", "web", "Mail 2"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("keeps the old names"), "{}", run.stderr);
    assert!(!folder.exists());
    let names = vms.names("Mail 2");
    assert_eq!(
        names,
        [
            "Mail 2-000001.vmdk",
            "Mail 2-Snapshot1.vmsn",
            "Mail 2-s001.vmdk",
            "Mail 2-seed.iso",
            "Mail 2.nvram",
            "Mail 2.qcow2",
            "Mail 2.vmdk",
            "Mail 2.vmsd",
            "Mail 2.vmx",
            "Mail 2.vmxf",
            "notes.txt",
            "vmware.log"
        ]
    );
    let info = vms.json(&["info", "Mail 2"]);
    assert_eq!(info["name"], "Mail 2");
    assert_eq!(info["snapshots"][0]["disks"][0]["file"], "Mail 2.vmdk");
    let chain = &info["drives"][1];
    assert_eq!(chain["node"], "scsi0:0");
    assert_eq!(chain["layers"].as_array().unwrap().len(), 2);
    for name in ["Mail 2.vmx", "Mail 2.vmsd", "Mail 2.vmxf"] {
        let text = vms.text(&format!("Mail 2/{name}"));
        assert!(!text.contains("web"), "{name}: {text}");
    }
    let same = vms.world.hako([
        "disk",
        "compare",
        "disk.raw",
        "home/vms/Mail 2/Mail 2-000001.vmdk",
    ]);
    assert_eq!(same.code, 0, "{}", same.stderr);
    vms.fails(&["info", "web"], 6, "web");
    vms.done(&["rename", "Mail 2", "Post", "--only-name"]);
    assert_eq!(vms.json(&["info", "Post"])["name"], "Post");
    assert!(vms.path("Mail 2/Mail 2.vmx").exists());
}

#[test]
fn rename_refuses_names_that_are_taken() {
    let vms = Vms::new();
    for name in ["web", "mail"] {
        vms.done(&["create", name, "--disk", "1G"]);
    }
    vms.fails(&["rename", "web", "mail"], 1, "mail");
    vms.fails(&["rename", "web", "mail", "--only-name"], 1, "mail");
    vms.fails(&["rename", "web", "a/b"], 2, "/");
    vms.fails(&["rename", "nobody", "somebody"], 6, "nobody");
    vms.world.write("home/vms/web/new.vmdk", b"foreign");
    vms.fails(&["rename", "web", "new"], 1, "new.vmdk");
    let inventory = String::from_utf8(vms.world.read("home/inventory")).unwrap();
    assert!(!inventory.contains("to "), "{inventory}");
    assert_eq!(vms.names("web"), ["new.vmdk", "web.vmdk", "web.vmx"]);
}

#[test]
fn delete_tells_first_and_keeps_what_is_foreign() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "1G,subformat=monolithicFlat"]);
    for name in [
        "web.nvram",
        "vmware-0.log",
        "web.vmsd",
        ".web.vmx.hako-part",
    ] {
        std::fs::write(vms.path("web").join(name), b"").unwrap();
    }
    std::fs::create_dir(vms.path("web/web.vmx.lck")).unwrap();
    vms.world.write("home/vms/web/diary.txt", b"mine");
    let run = vms.run(&["delete", "web"]);
    assert_eq!(run.code, 2);
    assert!(
        run.stdout.contains("web-flat.vmdk") && run.stdout.contains("keep   "),
        "{}",
        run.stdout
    );
    assert!(vms.path("web/web-flat.vmdk").exists());
    let run = vms.run(&["delete", "web", "--yes"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("diary.txt"), "{}", run.stderr);
    assert_eq!(vms.names("web"), ["diary.txt"]);
    assert_eq!(vms.done(&["list"]), "");
    vms.fails(&["delete", "web", "--yes"], 6, "web");
    vms.done(&["create", "clean", "--disk", "1G"]);
    vms.done(&["delete", "clean", "--yes"]);
    assert!(!vms.path("clean").exists());
}

#[test]
fn delete_and_rename_refuse_what_others_stand_on() {
    let vms = Vms::new();
    vms.done(&["create", "base", "--disk", "1G"]);
    std::fs::create_dir(vms.path("clone")).unwrap();
    let base = vms.path("base/base.vmdk");
    vms.world.disk(&format!(
        "create home/vms/clone/clone.vmdk --parent {}",
        base.display()
    ));
    vms.done(&[
        "create",
        "clone",
        "--from-disk",
        "home/vms/clone/clone.vmdk",
        "--allow-path",
        vms.path("base").to_str().unwrap(),
    ]);
    assert_eq!(
        vms.json(&["info", "clone"])["drives"][0]["layers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    vms.fails(&["delete", "base", "--yes"], 2, "clone");
    vms.fails(&["rename", "base", "ground"], 2, "clone");
    vms.fails(
        &["set", "base", "--remove-disk", "scsi0:0", "--delete-file"],
        2,
        "clone",
    );
    vms.done(&["rename", "clone", "twin"]);
    vms.done(&["delete", "twin", "--yes"]);
    assert!(base.exists());
    vms.world
        .done("create home/vms/base/extra.vmdk --parent home/vms/base/base.vmdk");
    vms.fails(&["delete", "base", "--yes"], 2, "extra.vmdk");
}

#[test]
fn a_name_of_two_machines_is_asked_back() {
    let vms = Vms::new();
    vms.done(&["create", "web"]);
    vms.done(&["create", "mail"]);
    let text = vms
        .text("mail/mail.vmx")
        .replace("displayName = \"mail\"", "displayName = \"web\"");
    std::fs::write(vms.path("mail/mail.vmx"), text).unwrap();
    vms.fails(&["info", "web"], 2, "2 machines");
    vms.done(&["info", "mail"]);
}

#[test]
fn an_encrypted_machine_is_shown_and_not_changed() {
    let vms = Vms::new();
    std::fs::create_dir(vms.world.path("secret")).unwrap();
    let text = "config.version = \"8\"\ndisplayName = \"secret\"\n\
                encryption.keySafe = \"vmware:key/list/(pair/(phrase/x))\"\n\
                encryption.data = \"AAAA\"\n";
    vms.world.write("secret/secret.vmx", text.as_bytes());
    vms.done(&["register", "secret"]);
    assert_eq!(vms.json(&["info", "secret"])["encryption"], "full");
    for change in [
        &["--memory", "1G"][..],
        &["annotation=x"],
        &["--add-disk", "1G"],
    ] {
        vms.fails(&[&["set", "secret"], change].concat(), 1, "encrypted");
    }
    vms.fails(&["rename", "secret", "open"], 1, "encrypted");
    vms.fails(&["rename", "secret", "open", "--only-name"], 1, "encrypted");
    assert_eq!(vms.world.read("secret/secret.vmx"), text.as_bytes());
    let names: Vec<_> = std::fs::read_dir(vms.world.path("secret"))
        .unwrap()
        .collect();
    assert_eq!(names.len(), 1);
    vms.done(&["info", "secret"]);
}

#[test]
fn a_disk_is_never_probed() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "1M,format=qcow2"]);
    vms.done(&["info", "web"]);
    vms.fails(
        &[
            "set",
            "web",
            "scsi0:1.present=TRUE",
            "scsi0:1.fileName=web.qcow2",
        ],
        1,
        "hako.NODE.format=qcow2",
    );
    let text = vms
        .text("web/web.vmx")
        .replace("hako.scsi0:0.format = \"qcow2\"\n", "");
    std::fs::write(vms.path("web/web.vmx"), text).unwrap();
    let info = vms.json(&["info", "web"]);
    assert!(info["drives"][0]["error"].is_string(), "{info}");
}

#[test]
fn what_is_no_vmx_is_listed_as_unreadable() {
    let vms = Vms::new();
    vms.done(&["create", "web"]);
    std::fs::write(vms.path("web/web.vmx"), b"\0\0\0").unwrap();
    assert_eq!(vms.state("web"), "unreadable");
    assert!(vms.done(&["list"]).contains("unreadable"));
    vms.done(&["unregister", "web"]);
    std::fs::create_dir_all(vms.world.path("home")).unwrap();
    vms.world.write("home/inventory", b"nonsense\n");
    vms.fails(&["list"], 4, "line 1");
}

#[test]
fn names_beyond_the_folder_need_consent() {
    let vms = Vms::new();
    vms.world.raw("disk.raw", 1 << 20, &[]);
    vms.done(&["create", "web"]);
    let disk = vms.world.path("disk.raw");
    let raw = [
        "scsi0.present=TRUE".to_owned(),
        "scsi0:0.present=TRUE".to_owned(),
        format!("scsi0:0.fileName={}", disk.display()),
        "hako.scsi0:0.format=raw".to_owned(),
    ];
    let set: Vec<&str> = ["set", "web"]
        .into_iter()
        .chain(raw.iter().map(String::as_str))
        .collect();
    vms.fails(&set, 1, "absolute path out of the image's folder");
    let folder = disk.parent().unwrap().to_str().unwrap();
    vms.done(&[&set[..], &["--allow-path", folder]].concat());
    assert!(vms.json(&["info", "web"])["drives"][0]["error"].is_string());
    let shown = vms.json(&["info", "web", "--allow-path", folder]);
    assert_eq!(shown["drives"][0]["format"], "raw");
    vms.done(&["unregister", "web"]);
    vms.done(&["register", "home/vms/web", "--allow-path", folder]);
    assert_eq!(vms.json(&["info", "web"])["drives"][0]["format"], "raw");
}
