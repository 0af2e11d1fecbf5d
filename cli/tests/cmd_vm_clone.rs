//! `hako vm clone`: the same content, and nothing else the same.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::vms::Vms;
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// Returns the value of a key in a machine's text.
fn value(vms: &Vms, file: &str, key: &str) -> Option<String> {
    let text = vms.text(file);
    let line = text
        .lines()
        .find(|line| line.split(" = ").next() == Some(key))?;
    Some(line.split('"').nth(1).unwrap().to_owned())
}

/// Makes the machine `web` with a disk of content.
fn web(disk: &str) -> Vms {
    let vms = Vms::new();
    vms.world.raw(
        "disk.raw",
        8 * MIB,
        &[(MIB, &[7; 5000]), (6 * MIB, &[9; 700])],
    );
    vms.done(&["create", "web", "--from-disk", disk]);
    vms
}

#[track_caller]
fn assert_same(vms: &Vms, a: &str, b: &str) {
    let run = vms.world.hako(["disk", "compare", a, b]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

#[test]
fn clone_has_the_content_and_an_identity_of_its_own() {
    let vms = web("disk.raw,subformat=twoGbMaxExtentSparse");
    vms.done(&[
        "set",
        "web",
        "--add-nic",
        "bridged,mac=00:50:56:01:02:03",
        "uuid.bios=56 4d 00 00 00 00 00 00-00 00 00 00 00 00 00 01",
        "uuid.location=56 4d 00 00 00 00 00 00-00 00 00 00 00 00 00 01",
        "vc.uuid=52 4d 00 00 00 00 00 00-00 00 00 00 00 00 00 01",
        "vm.genid=1",
        "ethernet0.addressType=generated",
        "ethernet0.generatedAddress=00:0c:29:01:02:03",
        "ethernet0.generatedAddressOffset=0",
        "extendedConfigFile=web.vmxf",
        &format!("workingDir={}", vms.path("web").display()),
        &format!("serial0.fileName={}", vms.path("web/serial.log").display()),
        "sched.swap.derivedName=/vmfs/volumes/1/web/web-1.vswp",
    ]);
    vms.world.write("home/vms/web/web.nvram", b"settings");
    vms.world.write("home/vms/web/web.vmxf", b"<Foundry/>");
    let run = vms.run(&["clone", "web", "new", "--json", "--verify"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr.contains("ethernet1: its address was chosen"),
        "{}",
        run.stderr
    );
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(told["disks"][0]["file"], "new.vmdk");
    assert_eq!(told["disks"][0]["virtual_size"], 8 * MIB);
    assert_eq!(
        vms.names("new"),
        ["new-s001.vmdk", "new.nvram", "new.vmdk", "new.vmx"]
    );
    assert_same(&vms, "disk.raw", "home/vms/new/new.vmdk");
    assert_eq!(vms.text("new/new.nvram"), "settings");
    let key = |key: &str| value(&vms, "new/new.vmx", key);
    assert_eq!(key("displayName").unwrap(), "new");
    assert_eq!(key("nvram").unwrap(), "new.nvram");
    assert_eq!(key("serial0.fileName").unwrap(), "serial.log");
    for new in ["uuid.bios", "vc.uuid", "vm.genid", "ethernet1.address"] {
        let old = value(&vms, "web/web.vmx", new);
        assert!(key(new).is_some() && key(new) != old, "{new}: {old:?}");
    }
    assert!(key("ethernet1.address").unwrap().starts_with("00:50:56:"));
    for gone in [
        "uuid.location",
        "ethernet0.generatedAddress",
        "ethernet0.generatedAddressOffset",
        "extendedConfigFile",
        "workingDir",
        "sched.swap.derivedName",
    ] {
        assert_eq!(key(gone), None, "{gone}");
    }
    assert!(!vms.text("new/new.vmx").contains("/web/"));
    assert_eq!(vms.json(&["info", "new"])["name"], "new");
    assert_eq!(vms.json(&["list"]).as_array().unwrap().len(), 2);
    vms.done(&["delete", "new", "--yes"]);
    assert!(!vms.path("new").exists());
}

#[test]
fn disks_keep_format_and_variant_unless_another_is_asked_for() {
    let vms = web("disk.raw,subformat=monolithicFlat");
    vms.done(&["set", "web", "--add-disk", "4M,format=qcow2"]);
    vms.done(&["set", "web", "--add-disk", "4M,format=raw"]);
    vms.world
        .done("create home/vms/web/web-000001.vmdk --parent home/vms/web/web.vmdk");
    vms.done(&["set", "web", "scsi0:0.fileName=web-000001.vmdk"]);
    vms.done(&["clone", "web", "same"]);
    let names = vms.names("same");
    assert_eq!(
        names,
        [
            "same-flat.vmdk",
            "same.vmdk",
            "same.vmx",
            "same_1.qcow2",
            "same_2.raw"
        ]
    );
    assert_same(&vms, "disk.raw", "home/vms/same/same.vmdk");
    let info = vms.json(&["info", "same"]);
    for drive in info["drives"].as_array().unwrap() {
        assert!(drive["error"].is_null(), "{drive}");
    }
    vms.done(&[
        "clone",
        "web",
        "other",
        "--format",
        "vmdk",
        "--subformat",
        "monolithicSparse",
        "--threads",
        "1",
        "--rate",
        "100M",
    ]);
    assert_eq!(
        vms.names("other"),
        ["other.vmdk", "other.vmx", "other_1.vmdk", "other_2.vmdk"]
    );
    assert_same(&vms, "disk.raw", "home/vms/other/other.vmdk");
    vms.fails(&["clone", "web", "x", "--subformat", "vmfs"], 2, "--format");
}

#[test]
fn cds_outside_stay_where_they_are_and_the_rest_comes_along() {
    let vms = Vms::new();
    vms.world.write("tools.iso", &[1; 4096]);
    vms.world.write("user-data", b"#cloud-config\n");
    vms.world.write("vmlinuz", b"kernel");
    vms.done(&[
        "create",
        "web",
        "--disk",
        "1M",
        "--cdrom",
        "tools.iso",
        "--cloud-init",
        "user-data",
        "--kernel",
        "vmlinuz",
    ]);
    let clone = vms.world.path("elsewhere");
    let run = vms.run(&["clone", "web", "new", "--folder", "elsewhere"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("cloud-init"), "{}", run.stderr);
    assert_eq!(
        vms.world.names_in("elsewhere"),
        ["new-seed.iso", "new.vmdk", "new.vmx", "vmlinuz"]
    );
    let drives = &vms.json(&["info", "new"])["drives"];
    let drives = drives.as_array().unwrap();
    let files = drives.iter().filter_map(|drive| drive["file"].as_str());
    let files: Vec<&str> = files.collect();
    let iso = vms.world.path("tools.iso");
    assert!(files.contains(&iso.to_str().unwrap()), "{files:?}");
    assert!(files.contains(&"new-seed.iso"), "{files:?}");
    // A clone of the clone finds the CD, too.
    let run = vms.run(&["clone", clone.to_str().unwrap(), "third"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    vms.done(&["delete", "new", "--yes"]);
    assert!(!clone.exists() && iso.exists());
}

#[test]
fn what_cannot_be_cloned_is_refused_and_nothing_is_left() {
    let vms = web("disk.raw");
    vms.fails(&["clone", "nobody", "new"], 6, "nobody");
    vms.fails(&["clone", "web", "a/b"], 2, "/");
    vms.fails(&["clone", "web", "web"], 1, "listed already");
    vms.fails(
        &["clone", "web", "new", "--snapshot", "x"],
        1,
        "no snapshot",
    );
    vms.world.write("taken", b"");
    vms.fails(&["clone", "web", "new", "--folder", "taken"], 1, "exists");
    std::fs::create_dir(vms.path("web/web.vmx.lck")).unwrap();
    vms.world.write("home/vms/web/web.vmx.lck/M1.lck", b"");
    vms.fails(&["clone", "web", "new"], 5, "web.vmx");
    assert_eq!(vms.world.names_in("home/vms"), ["web"]);
    assert_eq!(vms.json(&["list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_snapshot_is_cloned_flattened() {
    let vms = web("disk.raw");
    vms.world
        .done("create home/vms/web/web-000001.vmdk --parent home/vms/web/web.vmdk");
    vms.done(&["set", "web", "scsi0:0.fileName=web-000001.vmdk"]);
    vms.done(&["set", "web", "--add-disk", "1M,file=later.vmdk"]);
    vms.world.write(
        "home/vms/web/web.vmsd",
        b".encoding = \"UTF-8\"\nsnapshot.lastUID = \"1\"\nsnapshot.current = \"1\"\n\
          snapshot0.uid = \"1\"\nsnapshot0.displayName = \"before\"\nsnapshot0.numDisks = \"1\"\n\
          snapshot0.disk0.fileName = \"web.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n\
          snapshot.numSnapshots = \"1\"\n",
    );
    for (name, snapshot) in [("a", "before"), ("b", "1")] {
        let run = vms.run(&["clone", "web", name, "--snapshot", snapshot]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("scsi0:1 is left out"), "{}", run.stderr);
        assert_eq!(
            vms.names(name),
            [format!("{name}.vmdk"), format!("{name}.vmx")]
        );
        assert_same(&vms, "disk.raw", &format!("home/vms/{name}/{name}.vmdk"));
    }
}
