//! `hako vm create`: every option, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::vms::Vms;
use serde_json::Value;

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
