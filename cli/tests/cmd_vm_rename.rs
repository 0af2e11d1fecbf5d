//! `hako vm rename` and `hako vm delete`: every file and reference, and what others stand on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::vms::Vms;

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
