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

/// Gives the machine `web` a snapshot "before" of its disk.
fn take_snapshot(vms: &Vms) {
    vms.world
        .done("create home/vms/web/web-000001.vmdk --parent home/vms/web/web.vmdk");
    vms.done(&["set", "web", "scsi0:0.fileName=web-000001.vmdk"]);
    vms.world.write(
        "home/vms/web/web.vmsd",
        b".encoding = \"UTF-8\"\nsnapshot.lastUID = \"1\"\nsnapshot.current = \"1\"\n\
          snapshot0.uid = \"1\"\nsnapshot0.displayName = \"before\"\nsnapshot0.numDisks = \"1\"\n\
          snapshot0.disk0.fileName = \"web.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n\
          snapshot.numSnapshots = \"1\"\n",
    );
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
    take_snapshot(&vms);
    vms.done(&["set", "web", "--add-disk", "1M,file=later.vmdk"]);
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

#[test]
fn a_linked_clone_stands_on_the_snapshot_and_the_parent_stays_as_it_is() {
    let vms = web("disk.raw");
    take_snapshot(&vms);
    let linked = ["clone", "web", "new", "--linked", "--snapshot", "before"];
    let told = vms.json(&linked);
    let parent = vms.path("web/web.vmdk");
    assert_eq!(told["disks"][0]["parent"], parent.to_str().unwrap());
    assert_eq!(vms.names("new"), ["new.vmdk", "new.vmsd", "new.vmx"]);
    let drives = &vms.json(&["info", "new"])["drives"];
    assert_eq!(drives[0]["layers"].as_array().unwrap().len(), 2, "{drives}");
    let web = vms.path("web");
    let compare = |a: &str, b: &str| {
        let allow = web.to_str().unwrap();
        let run = vms
            .world
            .hako(["disk", "compare", a, b, "--allow-path", allow]);
        assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    };
    compare("disk.raw", "home/vms/new/new.vmdk");
    assert!(
        vms.text("new/new.vmsd")
            .contains("sentinel0 = \"new.vmdk\"")
    );
    let inventory = String::from_utf8(vms.world.read("home/inventory")).unwrap();
    let base = format!("base {}\n", vms.path("web/web.vmx").display());
    assert!(inventory.contains(&base), "{inventory}");

    let disk = "home/vms/web/web.vmdk";
    for words in [
        &["delete", disk][..],
        &["rename", disk, "x.vmdk"],
        &["resize", disk, "1G"],
        &["commit", "home/vms/web/web-000001.vmdk"],
        &["serve", "--writable", "--once", disk],
        &["create", disk, "4M", "--force"],
        &["convert", "disk.raw", disk, "--force"],
    ] {
        let run = vms.world.hako([&["disk"], words].concat());
        assert_eq!(run.code, 2, "{words:?}: {}", run.stderr);
        assert!(
            run.stderr.contains("machine new"),
            "{words:?}: {}",
            run.stderr
        );
    }
    // What changes neither content nor what the image is known by may be done.
    vms.world.done(&format!("check --repair all {disk}"));
    vms.world
        .done(&format!("set {disk} --comment later --hw-version 19"));
    for upkeep in [&["compact", disk][..], &["check", disk]] {
        let run = vms.world.hako([&["disk"], upkeep].concat());
        assert_eq!(run.code, 0, "{upkeep:?}: {}", run.stderr);
    }
    compare("disk.raw", "home/vms/new/new.vmdk");
    vms.fails(&["rename", "web", "mail"], 2, "new");
    vms.fails(&["delete", "web", "--yes"], 2, "new");
    vms.done(&["rename", "web", "mail", "--only-name"]);
    // Not even when the clone cannot be asked.
    std::fs::rename(vms.path("new"), vms.path("away")).unwrap();
    vms.fails(&["delete", "mail", "--yes"], 2, "new");
    std::fs::rename(vms.path("away"), vms.path("new")).unwrap();

    // A clone of a clone is a clone of both; a full one of nobody.
    vms.done(&["clone", "new", "full"]);
    assert_same(&vms, "disk.raw", "home/vms/full/full.vmdk");
    vms.done(&["rename", "new", "renamed"]);
    compare("disk.raw", "home/vms/renamed/renamed.vmdk");
    vms.fails(&["delete", "mail", "--yes"], 2, "renamed");
    // Who is listed again stands where it stood.
    let run = vms.run(&["unregister", "renamed"]);
    assert!(run.stderr.contains("linked clone"), "{}", run.stderr);
    let path = vms.path("renamed");
    let allow = ["--allow-path", web.to_str().unwrap()];
    vms.done(&[&["register", path.to_str().unwrap()], &allow[..]].concat());
    let inventory = String::from_utf8(vms.world.read("home/inventory")).unwrap();
    assert!(inventory.contains(&base), "{inventory}");
    vms.done(&["delete", "renamed", "--yes"]);
    vms.done(&["delete", "mail", "--yes"]);
    assert_same(&vms, "disk.raw", "home/vms/full/full.vmdk");
}

#[test]
fn linked_clones_of_every_format_get_an_overlay_of_its_kind() {
    for (format, file, extension) in [
        ("qcow2", "web.qcow2", "qcow2"),
        ("vhdx", "web.vhdx", "vhdx"),
        ("vhd", "web.vhd", "vhd"),
        ("raw", "web.raw", "qcow2"),
        ("vdi", "web.vdi", "qcow2"),
        ("vmdk,subformat=twoGbMaxExtentFlat", "web.vmdk", "vmdk"),
    ] {
        let vms = web(&format!("disk.raw,format={format}"));
        let format = format.split(',').next().unwrap();
        let mut list = format!(
            "snapshot.lastUID = \"1\"\nsnapshot.current = \"1\"\nsnapshot0.uid = \"1\"\n\
             snapshot0.displayName = \"s\"\nsnapshot0.numDisks = \"1\"\n\
             snapshot0.disk0.fileName = \"{file}\"\nsnapshot0.disk0.node = \"scsi0:0\"\n\
             snapshot.numSnapshots = \"1\"\n"
        );
        if format != "vmdk" {
            list += &format!("hako.uid1.scsi0:0.format = \"{format}\"\n");
        }
        vms.world.write("home/vms/web/web.vmsd", list.as_bytes());
        // What the machine writes to is not for a clone to stand on.
        let linked = ["clone", "web", "new", "--linked", "--snapshot", "s"];
        vms.fails(&linked, 4, "writes to");
        let top = ["home/vms/web/top.qcow2", "--parent"];
        vms.world
            .done(&format!("create {} home/vms/web/{file}", top.join(" ")));
        vms.done(&[
            "set",
            "web",
            "scsi0:0.fileName=top.qcow2",
            "hako.scsi0:0.format=qcow2",
        ]);
        vms.done(&linked);
        let set = ["disk", "set", "--uuid", "6000c290123443218765012345678901"];
        let base = format!("home/vms/web/{file}");
        let run = vms.world.hako([&set[..], &[&base]].concat());
        let is_link = ["vhd", "vdi"].contains(&format);
        assert_eq!(run.code == 2, is_link, "{format}: {}", run.stderr);
        let disk = format!("home/vms/new/new.{extension}");
        let allow = vms.path("web");
        let words = ["disk", "compare", "disk.raw", &disk, "--allow-path"];
        let run = vms
            .world
            .hako([&words[..], &[allow.to_str().unwrap()]].concat());
        assert_eq!(run.code, 0, "{format}: {}{}", run.stdout, run.stderr);
        let drives = &vms.json(&["info", "new"])["drives"];
        assert!(drives[0]["error"].is_null(), "{drives}");
    }
}

#[test]
fn a_linked_clone_of_now_stands_on_a_snapshot_that_is_taken_if_need_be() {
    let vms = web("disk.raw");
    let run = vms.run(&["clone", "web", "a", "--linked"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr.contains("\"for a\" (1) was taken"),
        "{}",
        run.stderr
    );
    // Nothing was written since: the same snapshot does.
    vms.done(&["clone", "web", "b", "--linked"]);
    vms.done(&["set", "web", "--memory", "512M"]);
    vms.done(&["clone", "web", "c", "--linked"]);
    assert_eq!(value(&vms, "c/c.vmx", "memsize").unwrap(), "512");
    let snapshots = vms.json(&["info", "web"])["snapshots"].clone();
    assert_eq!(snapshots.as_array().unwrap().len(), 1, "{snapshots}");
    let allow = vms.path("web");
    for name in ["a", "b", "c"] {
        let disk = format!("home/vms/{name}/{name}.vmdk");
        let words = ["disk", "compare", "disk.raw", &disk, "--allow-path"];
        let run = vms
            .world
            .hako([&words[..], &[allow.to_str().unwrap()]].concat());
        assert_eq!(run.code, 0, "{name}: {}{}", run.stdout, run.stderr);
    }
}

/// Long, for the inventory is asked about each.
#[test]
fn a_thousand_linked_clones_cost_their_own_blocks_only() {
    if std::env::var_os("HAKO_ALL").is_none() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let vms = web("disk.raw,subformat=monolithicFlat");
    let run = vms.run(&["clone", "web", "c0", "--linked"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for number in 1..1000 {
        vms.done(&["clone", "web", &format!("c{number}"), "--linked"]);
    }
    let allocated = |name: String| {
        let files = vms.names(&name).into_iter();
        let blocks = files.map(|file| {
            let path = vms.path(&name).join(file);
            std::fs::metadata(path).unwrap().blocks()
        });
        blocks.sum::<u64>() * 512
    };
    let all: u64 = (0..1000)
        .map(|number| allocated(format!("c{number}")))
        .sum();
    assert!(all <= 1000 * (512 << 10), "{all} bytes");
    assert_eq!(vms.json(&["list"]).as_array().unwrap().len(), 1001);
    vms.fails(&["delete", "web", "--yes"], 2, "c0");
    let allow = vms.path("web");
    let words = [
        "disk",
        "compare",
        "disk.raw",
        "home/vms/c999/c999.vmdk",
        "--allow-path",
    ];
    let run = vms
        .world
        .hako([&words[..], &[allow.to_str().unwrap()]].concat());
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}
