//! `hako vm set`: every option, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::vms::Vms;

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
