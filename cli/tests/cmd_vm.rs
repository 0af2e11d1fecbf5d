//! `hako vm list`, `info`, `register`, `unregister`, and what holds for every verb: states, names,
//! the gate.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::vms::Vms;
use serde_json::Value;

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
