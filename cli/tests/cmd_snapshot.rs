//! `hako snapshot create`, `list` and `revert`: disks of every format, hardware, what others made.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::vms::Vms;
use serde_json::{Value, json};

/// Writes 64 KiB into a machine's image as QEMU would, at the 64 KiB of this number.
fn write(vms: &Vms, name: &str, piece: u64) {
    let format = match name.rsplit_once('.').unwrap().1 {
        "vhd" => "vpc",
        format => format,
    };
    let file = vms.path(&format!("web/{name}"));
    let command = format!("write -P {} {} 64k", piece + 1, piece << 16);
    let args = ["-f", format, "-c", &command, file.to_str().unwrap()];
    vms.world.peer("qemu-io", &args);
}

/// Returns the file that the machine's disk at a node names now.
fn live(vms: &Vms, node: &str) -> String {
    let text = vms.text("web/web.vmx");
    let key = format!("{node}.fileName = \"");
    let line = text.lines().find(|line| line.starts_with(&key)).unwrap();
    line[key.len()..].trim_end_matches('"').to_owned()
}

/// Returns the first byte of each of the first four pieces of 64 KiB that a disk shows.
fn shown(vms: &Vms, node: &str) -> [u8; 4] {
    let from = vms.path("web").join(live(vms, node));
    let from = from.to_str().unwrap();
    let args = ["disk", "convert", from, "shown.raw", "--force"];
    let run = vms.world.hako(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let bytes = vms.world.read("shown.raw");
    [0, 1, 2, 3].map(|piece| bytes[piece << 16])
}

#[test]
fn a_snapshot_keeps_the_disks_of_every_format_and_reverting_shows_them_again() {
    for (disk, new) in [
        ("8M", "web-000001.vmdk"),
        ("8M,subformat=monolithicFlat", "web-000001.vmdk"),
        ("8M,subformat=twoGbMaxExtentSparse", "web-000001.vmdk"),
        ("8M,format=qcow2", "web-000001.qcow2"),
        ("8M,format=raw", "web-000001.qcow2"),
        ("8M,format=vdi", "web-000001.qcow2"),
    ] {
        let vms = Vms::new();
        vms.done(&["create", "web", "--disk", disk]);
        let base = live(&vms, "scsi0:0");
        write(&vms, &base, 0);
        let report = vms.snapshot(&["create", "web", "clean", "--description", "a\nb"]);
        assert_eq!(report["uid"], 1, "{disk}");
        let disks = json!([{"node": "scsi0:0", "held": base, "live": new}]);
        assert_eq!(report["disks"], disks);
        assert_eq!(live(&vms, "scsi0:0"), new);
        assert_eq!(shown(&vms, "scsi0:0"), [1, 0, 0, 0], "{disk}");
        write(&vms, new, 1);
        vms.snapshot(&["create", "web", "patched"]);
        write(&vms, &live(&vms, "scsi0:0"), 2);
        assert_eq!(shown(&vms, "scsi0:0"), [1, 2, 3, 0], "{disk}");

        let listed = vms.snapshot(&["list", "web"]);
        assert_eq!(listed["current"], 2);
        assert_eq!(listed["snapshots"][0]["description"], "a\nb");
        assert_eq!(listed["snapshots"][1]["path"], "clean/patched");
        assert_eq!(listed["snapshots"][1]["disks"][0]["file"], new);

        let before = vms.names("web");
        let run = vms.run_snapshot(&["revert", "web", "clean", "--json"]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        let told: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(told["would_lose"][0]["node"], "scsi0:0");
        assert_eq!(vms.names("web"), before, "{disk}");

        let old = live(&vms, "scsi0:0");
        let report = vms.snapshot(&["revert", "web", "clean", "--yes"]);
        assert_eq!(report["removed"], json!([old]), "{disk}");
        assert_eq!(shown(&vms, "scsi0:0"), [1, 0, 0, 0], "{disk}");
        // Nothing was written since: nothing is lost.
        vms.snapshot(&["revert", "web", "clean/patched"]);
        assert_eq!(shown(&vms, "scsi0:0"), [1, 2, 0, 0], "{disk}");
        assert_eq!(vms.snapshot(&["list", "web"])["current"], 2);
    }
}

#[test]
fn vhdx_and_vhd_get_overlays_of_their_own() {
    for (disk, new) in [
        ("8M,format=vhdx", "web-000001.vhdx"),
        ("8M,format=vhd", "web-000001.vhd"),
    ] {
        let vms = Vms::new();
        vms.done(&["create", "web", "--disk", disk]);
        write(&vms, &live(&vms, "scsi0:0"), 0);
        vms.snapshot(&["create", "web", "clean"]);
        assert_eq!(live(&vms, "scsi0:0"), new);
        assert_eq!(shown(&vms, "scsi0:0"), [1, 0, 0, 0], "{disk}");
        let report = vms.snapshot(&["revert", "web", "clean"]);
        assert_eq!(report["removed"], json!([new]));
        assert_eq!(shown(&vms, "scsi0:0"), [1, 0, 0, 0], "{disk}");
        assert_eq!(
            vms.json(&["info", "web"])["drives"][0]["layers"][0]["subformat"],
            "differencing"
        );
    }
}

#[test]
fn the_list_is_as_vmware_writes_it_and_qemu_reads_the_chain() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M", "--disk", "8M"]);
    vms.snapshot(&["create", "web", "clean"]);
    let text = vms.text("web/web.vmsd");
    for line in [
        ".encoding = \"UTF-8\"",
        "snapshot.lastUID = \"1\"",
        "snapshot.current = \"1\"",
        "snapshot.numSnapshots = \"1\"",
        "snapshot0.uid = \"1\"",
        "snapshot0.filename = \"web-Snapshot1.vmsn\"",
        "snapshot0.displayName = \"clean\"",
        "snapshot0.numDisks = \"2\"",
        "snapshot0.disk0.fileName = \"web.vmdk\"",
        "snapshot0.disk1.fileName = \"web_1.vmdk\"",
        "snapshot0.disk1.node = \"scsi0:1\"",
        "hako.uid1.config = \"web-Snapshot1.vmx\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert_eq!(
        vms.names("web"),
        [
            "web-000001.vmdk",
            "web-Snapshot1.vmx",
            "web.vmdk",
            "web.vmsd",
            "web.vmx",
            "web_1-000001.vmdk",
            "web_1.vmdk",
        ]
    );
    let file = vms.path("web/web_1-000001.vmdk");
    let info = vms
        .world
        .peer("qemu-img", &["info", file.to_str().unwrap()]);
    assert!(info.contains("backing file: web_1.vmdk"), "{info}");
    // The folder still has one machine, which renames and goes as a whole.
    vms.done(&["unregister", "web"]);
    vms.done(&["register", "home/vms/web"]);
    vms.done(&["rename", "web", "mail"]);
    let listed = vms.snapshot(&["list", "mail"]);
    assert_eq!(listed["snapshots"][0]["disks"][0]["file"], "mail.vmdk");
    vms.snapshot(&["revert", "mail", "clean"]);
    assert_eq!(vms.json(&["info", "mail"])["name"], "mail");
    vms.done(&["delete", "mail", "--yes"]);
    assert!(!vms.path("mail").exists());
}

#[test]
fn reverting_restores_the_hardware_and_keeps_what_the_machine_is_known_by() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M", "--memory", "512M"]);
    vms.snapshot(&["create", "web", "clean"]);
    vms.done(&[
        "set",
        "web",
        "--memory",
        "1G",
        "--add-disk",
        "4M",
        "--add-nic",
        "bridged",
    ]);
    vms.done(&[
        "set",
        "web",
        "sched.mem.shares=high",
        "uuid.bios=56 4d 01 02 03 04 05 06-07 08 09 0a 0b 0c 0d 0e",
    ]);
    vms.done(&["rename", "web", "Web server", "--only-name"]);
    let run = vms.run_snapshot(&["revert", "Web server", "clean", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("its files stay"), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["hardware"], "snapshot");
    assert_eq!(
        report["dropped"],
        json!([{"node": "scsi0:1", "file": "web_1.vmdk"}])
    );
    assert!(vms.path("web/web_1.vmdk").exists());
    let info = vms.json(&["info", "Web server"]);
    assert_eq!(info["memory"], 512 << 20, "{info}");
    assert_eq!(info["nics"].as_array().unwrap().len(), 1);
    assert_eq!(info["drives"].as_array().unwrap().len(), 1);
    let text = vms.text("web/web.vmx");
    assert!(text.contains("sched.mem.shares = \"high\""), "{text}");
    assert!(text.contains("56 4d 01 02"), "{text}");
    // A disk that is gone by now comes back with the snapshot.
    vms.done(&["set", "Web server", "--remove-disk", "scsi0:0"]);
    vms.snapshot(&["revert", "Web server", "clean"]);
    assert_eq!(shown(&vms, "scsi0:0"), [0; 4]);
}

#[test]
fn independent_disks_take_no_part() {
    let vms = Vms::new();
    vms.done(&[
        "create",
        "web",
        "--disk",
        "8M",
        "--disk",
        "8M,mode=independent-persistent",
    ]);
    let run = vms.run_snapshot(&["create", "web", "clean", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr.contains("scsi0:1 is independent-persistent"),
        "{}",
        run.stderr
    );
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["left_alone"][0]["node"], "scsi0:1");
    assert_eq!(live(&vms, "scsi0:1"), "web_1.vmdk");
    write(&vms, "web_1.vmdk", 3);
    vms.snapshot(&["revert", "web", "clean"]);
    assert_eq!(live(&vms, "scsi0:1"), "web_1.vmdk");
    assert_eq!(shown(&vms, "scsi0:1"), [0, 0, 0, 4]);
}

#[test]
fn what_would_be_lost_is_kept_by_save_first() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M"]);
    vms.snapshot(&["create", "web", "clean"]);
    let first = live(&vms, "scsi0:0");
    write(&vms, &first, 2);
    let run = vms.run_snapshot(&["revert", "web", "clean"]);
    assert_eq!(run.code, 2);
    assert!(
        run.stdout.contains("would lose scsi0:0: 64 KiB"),
        "{}",
        run.stdout
    );
    assert!(run.stderr.contains("--save-first"), "{}", run.stderr);
    let report = vms.snapshot(&["revert", "web", "clean", "--save-first"]);
    assert_eq!(report["saved"]["name"], "before reverting to clean");
    assert_eq!(shown(&vms, "scsi0:0"), [0; 4]);
    assert!(vms.path("web").join(&first).exists());
    vms.snapshot(&["revert", "web", "before reverting to clean"]);
    assert_eq!(shown(&vms, "scsi0:0"), [0, 0, 3, 0]);
    let run = vms.run_snapshot(&["list", "web", "--tree"]);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("clean (1, "), "{lines:?}");
    assert!(
        lines[1].starts_with("└─ before reverting to clean (2, "),
        "{lines:?}"
    );
    assert_eq!(lines[2], "   └─ * present state");
    let run = vms.run_snapshot(&["list", "web"]);
    assert!(run.stdout.starts_with("UID  NAME"), "{}", run.stdout);
    assert!(
        run.stdout.contains("2*   before reverting"),
        "{}",
        run.stdout
    );
}

/// A state as VMware's products write it, with the configuration, and memory if it is to have.
fn state(config: &[u8], has_memory: bool) -> Vec<u8> {
    let mut item = (7_u16 << 8 | 63).to_le_bytes().to_vec();
    item.extend(b"cfgFile");
    item.extend((config.len() as u64).to_le_bytes().repeat(2));
    item.extend([0, 0]);
    item.extend(config);
    item.extend([0, 0]);
    let names = if has_memory {
        &["Snapshot", "memory"][..]
    } else {
        &["Snapshot"]
    };
    let mut bytes = 0xbed2_bed2_u32.to_le_bytes().to_vec();
    bytes.extend(8_u32.to_le_bytes());
    bytes.extend((names.len() as u32).to_le_bytes());
    let offset = 12 + 80 * names.len() as u64;
    for name in names {
        let mut name = name.as_bytes().to_vec();
        name.resize(64, 0);
        bytes.extend(name);
        bytes.extend(offset.to_le_bytes());
        bytes.extend((item.len() as u64).to_le_bytes());
    }
    bytes.extend(item);
    bytes
}

/// Makes a snapshot look as one that VMware took: without our configuration.
fn as_vmware_left_it(vms: &Vms) {
    let text = vms.text("web/web.vmsd");
    let own: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("hako."))
        .collect();
    std::fs::write(vms.path("web/web.vmsd"), own.join("\n") + "\n").unwrap();
    std::fs::remove_file(vms.path("web/web-Snapshot1.vmx")).unwrap();
}

#[test]
fn a_snapshot_of_vmwares_is_gone_back_to_with_its_hardware_and_without_memory() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M", "--memory", "512M"]);
    let config = vms.text("web/web.vmx");
    vms.snapshot(&["create", "web", "clean"]);
    as_vmware_left_it(&vms);
    vms.done(&["set", "web", "--memory", "1G"]);
    let memory = |vms: &Vms| vms.json(&["info", "web"])["memory"].as_u64().unwrap() >> 20;
    // Without its state, disks alone go back.
    let run = vms.run_snapshot(&["revert", "web", "clean"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("hardware stays"), "{}", run.stderr);
    assert_eq!(memory(&vms), 1024);
    let path = vms.path("web/web-Snapshot1.vmsn");
    std::fs::write(&path, state(config.as_bytes(), false)).unwrap();
    vms.snapshot(&["revert", "web", "clean"]);
    assert_eq!(memory(&vms), 512);
    // With memory, in the state or beside it.
    let with_memory = |vms: &Vms| {
        assert_eq!(
            vms.snapshot(&["list", "web"])["snapshots"][0]["memory"],
            true
        );
        vms.snapshot_fails(&["revert", "web", "clean"], 2, "--discard-memory");
        let run = vms.run_snapshot(&["revert", "web", "clean", "--discard-memory"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("power failure"), "{}", run.stderr);
    };
    let suspended = format!("{config}checkpoint.vmState = \"web-Snapshot1.vmsn\"\n");
    std::fs::write(&path, state(suspended.as_bytes(), true)).unwrap();
    with_memory(&vms);
    assert_eq!(vms.state("web"), "stopped");
    std::fs::write(&path, state(config.as_bytes(), false)).unwrap();
    std::fs::write(vms.path("web/web-Snapshot1.vmem"), b"memory").unwrap();
    with_memory(&vms);
    std::fs::write(&path, b"nothing that is known").unwrap();
    with_memory(&vms);
}

#[test]
fn a_snapshot_is_named_by_name_number_or_path_and_never_guessed() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M"]);
    for name in ["clean", "patched"] {
        vms.snapshot(&["create", "web", name]);
    }
    vms.snapshot(&["revert", "web", "clean"]);
    vms.snapshot(&["create", "web", "patched"]);
    vms.snapshot_fails(
        &["revert", "web", "patched"],
        2,
        "uid:2 (clean/patched), uid:3",
    );
    for name in ["2", "uid:2"] {
        assert_eq!(vms.snapshot(&["revert", "web", name])["uid"], 2);
    }
    vms.snapshot_fails(&["revert", "web", "nobody"], 1, "no snapshot");
    vms.snapshot_fails(&["revert", "mail", "clean"], 6, "mail");
    for name in ["", " x", "a/b", "uid:x", "17", "a\nb"] {
        vms.snapshot_fails(&["create", "web", name], 2, "name");
    }
    assert_eq!(
        vms.snapshot(&["list", "web"])["snapshots"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn machines_that_run_are_suspended_or_encrypted_are_left_alone() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M"]);
    vms.snapshot(&["create", "web", "clean"]);
    let refused = |code: i32, text: &str| {
        vms.snapshot_fails(&["create", "web", "more"], code, text);
        vms.snapshot_fails(&["revert", "web", "clean"], code, text);
    };
    let lock = vms.path("web/web.vmx.lck");
    std::fs::create_dir(&lock).unwrap();
    std::fs::write(lock.join("M1.lck"), b"").unwrap();
    refused(5, "runs");
    assert_eq!(vms.snapshot(&["list", "web"])["current"], 1);
    std::fs::remove_dir_all(&lock).unwrap();
    std::fs::write(vms.path("web/web-1a2b.vmss"), b"memory").unwrap();
    refused(5, "suspended");
    std::fs::remove_file(vms.path("web/web-1a2b.vmss")).unwrap();
    let secret = "encryption.keySafe = \"x\"\nencryption.data = \"y\"\n";
    for name in ["web/web.vmsd", "web/web.vmx"] {
        let text = vms.text(name);
        std::fs::write(vms.path(name), format!("{text}{secret}")).unwrap();
        refused(1, "encrypted");
        std::fs::write(vms.path(name), text).unwrap();
    }
    vms.snapshot(&["create", "web", "more"]);
}

#[test]
fn esxis_deltas_get_no_snapshot() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M,subformat=vmfs"]);
    let cid = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("CID=")).unwrap();
        line["CID=".len()..].to_owned()
    };
    let parent = cid(&vms.text("web/web.vmdk"));
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=11112222\nparentCID={parent}\n\
         createType=\"vmfsSparse\"\nparentFileNameHint=\"web.vmdk\"\n\
         RW 16384 VMFSSPARSE \"web-000001-delta.vmdk\"\n\n#DDB\n"
    );
    vms.snapshot_fails(&["create", "web", "clean"], 1, "is vmfs, a disk of ESXi");
    std::fs::write(vms.path("web/web-000001.vmdk"), descriptor).unwrap();
    let mut delta = b"COWD".to_vec();
    for number in [1_u32, 3, 16384, 1, 4, 4, 8] {
        delta.extend(number.to_le_bytes());
    }
    delta.resize(4096, 0);
    std::fs::write(vms.path("web/web-000001-delta.vmdk"), delta).unwrap();
    vms.done(&["set", "web", "scsi0:0.fileName=web-000001.vmdk"]);
    vms.snapshot_fails(&["create", "web", "clean"], 1, "vmfsSparse");
    vms.snapshot_fails(&["create", "web", "clean"], 1, "hint:");
    assert!(!vms.path("web/web.vmsd").exists());
    assert_eq!(
        vms.json(&["info", "web"])["drives"][0]["layers"][0]["subformat"],
        "vmfsSparse"
    );
    // The way out.
    vms.done(&["clone", "web", "hosted", "--format", "vmdk"]);
    vms.snapshot(&["create", "hosted", "clean"]);
}

#[test]
fn a_state_whose_snapshot_was_deleted_is_not_thrown_away_unasked() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M"]);
    write(&vms, "web.vmdk", 0);
    vms.snapshot(&["create", "web", "one"]);
    write(&vms, "web-000001.vmdk", 1);
    vms.snapshot(&["create", "web", "two"]);
    vms.snapshot(&["revert", "web", "one"]);
    // The machine is where "one" was, and nothing was written since; no snapshot says so any more.
    vms.snapshot(&["delete", "web", "one", "--yes"]);
    vms.snapshot_fails(&["revert", "web", "two"], 2, "--yes");
    vms.snapshot(&["revert", "web", "two", "--save-first"]);
    assert_eq!(shown(&vms, "scsi0:0"), [1, 2, 0, 0]);
    vms.snapshot(&["revert", "web", "uid:3"]);
    assert_eq!(shown(&vms, "scsi0:0"), [1, 0, 0, 0]);
}

#[test]
fn disk_verbs_leave_alone_what_a_snapshot_holds() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M"]);
    vms.snapshot(&["create", "web", "one"]);
    write(&vms, "web-000001.vmdk", 1);
    vms.snapshot(&["create", "web", "two"]);
    vms.snapshot(&["revert", "web", "one", "--yes"]);
    // Of a list in a folder that nobody lists, too.
    std::fs::rename(vms.path("web"), vms.world.path("web")).unwrap();
    let before = vms.world.names_in("web");
    let (base, held) = ("web/web.vmdk", "web/web-000001.vmdk");
    for words in [
        &["commit", "web/web-000003.vmdk"][..],
        &["commit", held, "--delete"],
        &["delete", held],
        &["delete", base],
        &["rename", held, "x.vmdk"],
        &["resize", base, "1G"],
        &["serve", held, "--writable", "--once"],
        &["create", held, "4M", "--force"],
        &["convert", base, held, "--force"],
    ] {
        let run = vms.world.hako([&["disk"], words].concat());
        assert_eq!(run.code, 2, "{words:?}: {}", run.stderr);
        assert!(
            run.stderr.contains("snapshot "),
            "{words:?}: {}",
            run.stderr
        );
        assert!(run.stderr.contains("hint: "), "{words:?}: {}", run.stderr);
        assert_eq!(vms.world.names_in("web"), before, "{words:?}");
    }
    // The present state is the user's.
    vms.world.done("resize web/web-000003.vmdk 9M");
    vms.world
        .done("create web/web-000003.vmdk --parent web/web.vmdk --force");
    // Whoever knows better says so.
    vms.world.done(&format!("resize {base} 1G --force"));
    vms.world.done(&format!("delete {held} --force"));
}

#[test]
fn an_overlay_beside_an_image_keeps_it_from_being_replaced_or_given_a_uuid() {
    let vms = Vms::new();
    let uuid = "--uuid 6000c290123443218765012345678901";
    vms.world.done("create a.vhd 4M");
    vms.world.done("create b.vhd --parent a.vhd");
    vms.world
        .fails(&format!("set a.vhd {uuid}"), 2, "knows it by its UUID");
    vms.world.done(&format!("set b.vhd {uuid}"));
    vms.world.done(&format!("set a.vhd {uuid} --force"));
    vms.world.done("create a.qcow2 1M");
    vms.world.done("create b.qcow2 --parent a.qcow2");
    vms.world
        .fails("create a.qcow2 2M --force", 2, "b.qcow2 stands on it");
    vms.world
        .fails("convert b.qcow2 a.qcow2 --force", 2, "b.qcow2 stands on it");
    vms.world.done("create b.qcow2 2M --force");
    vms.world.done("create a.qcow2 2M --force");
}

#[test]
fn a_snapshot_keeps_the_firmwares_settings() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M"]);
    vms.done(&["set", "web", "nvram=web.nvram", "hako.nvram=web-vars.fd"]);
    // Before the first start there are none.
    vms.snapshot(&["create", "web", "new"]);
    let settings = |nvram: &str, variables: &str| {
        std::fs::write(vms.path("web/web.nvram"), nvram).unwrap();
        std::fs::write(vms.path("web/web-vars.fd"), variables).unwrap();
    };
    settings("a", "b");
    vms.snapshot(&["create", "web", "old"]);
    let copies = ["web-Snapshot2.nvram", "web-Snapshot2.hako.nvram"];
    let read = |name: &str| vms.text(&format!("web/{name}"));
    assert_eq!(copies.map(read), ["a", "b"]);
    settings("x", "y");
    vms.snapshot_fails(&["revert", "web", "old"], 2, "--yes");
    vms.snapshot(&["revert", "web", "old", "--save-first"]);
    assert_eq!(["web.nvram", "web-vars.fd"].map(read), ["a", "b"]);
    vms.snapshot(&["revert", "web", "uid:3"]);
    assert_eq!(["web.nvram", "web-vars.fd"].map(read), ["x", "y"]);
    vms.snapshot(&["revert", "web", "new"]);
    assert_eq!(["web.nvram", "web-vars.fd"].map(read), ["x", "y"]);

    // They go with the snapshot wherever that goes.
    vms.done(&["clone", "web", "copy", "--snapshot", "old"]);
    assert_eq!(vms.text("copy/copy.nvram"), "a");
    assert_eq!(vms.text("copy/copy.hako-efivars.fd"), "b");
    vms.done(&["rename", "web", "mail"]);
    vms.snapshot(&["revert", "mail", "old"]);
    assert_eq!(vms.text("mail/mail.nvram"), "a");
    vms.snapshot(&["delete", "mail", "uid:3", "--yes"]);
    assert!(!vms.path("mail/mail-Snapshot3.nvram").exists());
    vms.snapshot(&["doctor", "mail"]);

    // A copy that is lost is told; what the text calls NVRAM and is none is left alone.
    std::fs::remove_file(vms.path("mail/mail-Snapshot2.nvram")).unwrap();
    let run = vms.run_snapshot(&["doctor", "mail"]);
    assert!(
        run.stdout.contains("mail-Snapshot2.nvram"),
        "{}",
        run.stdout
    );
    let run = vms.run_snapshot(&["revert", "mail", "old"]);
    assert!(run.stderr.contains("settings stay"), "{}", run.stderr);
    vms.done(&["set", "mail", "hako.nvram=mail.vmdk"]);
    let disk = std::fs::read(vms.path("mail/mail.vmdk")).unwrap();
    let run = vms.run_snapshot(&["revert", "mail", "old"]);
    assert!(run.stderr.contains("no file for them"), "{}", run.stderr);
    assert!(std::fs::read(vms.path("mail/mail.vmdk")).unwrap() == disk);
    std::fs::write(vms.path("x.fd"), "x").unwrap();
    vms.done(&["set", "mail", "hako.nvram=../x.fd"]);
    let run = vms.run_snapshot(&["create", "mail", "more"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("does not keep"), "{}", run.stderr);
}

#[test]
fn uefi_variables_go_wherever_the_machine_goes() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M", "--firmware", "efi"]);
    vms.snapshot(&["create", "web", "new"]);
    // As an engine leaves them: no key names them.
    let variables = "web/web.hako-efivars.fd";
    std::fs::write(vms.path(variables), "a").unwrap();
    vms.snapshot(&["create", "web", "old"]);
    std::fs::write(vms.path(variables), "b").unwrap();
    let clone = |words: &[&str]| {
        let run = vms.run(&[&["clone", "web"], words].concat());
        assert_eq!(run.code, 0, "{words:?}: {}", run.stderr);
    };
    clone(&["now"]);
    assert_eq!(vms.text("now/now.hako-efivars.fd"), "b");
    clone(&["linked", "--linked"]);
    assert_eq!(vms.text("linked/linked.hako-efivars.fd"), "b");
    clone(&["then", "--snapshot", "old"]);
    assert_eq!(vms.text("then/then.hako-efivars.fd"), "a");
    clone(&["first", "--snapshot", "new"]);
    assert_eq!(vms.names("first"), ["first.vmdk", "first.vmx"]);
    vms.snapshot(&["revert", "web", "old", "--yes"]);
    assert_eq!(vms.text(variables), "a");
    vms.done(&["delete", "linked", "--yes"]);
    assert!(!vms.path("linked").exists());
    // A clone's text names them: renamed once more, they are found.
    for (old, new) in [("web", "mail"), ("then", "thus")] {
        vms.done(&["rename", old, new]);
        assert_eq!(vms.text(&format!("{new}/{new}.hako-efivars.fd")), "a");
        let vmx = vms.text(&format!("{new}/{new}.vmx"));
        assert!(!vmx.contains(&format!("{old}.hako-efivars")), "{vmx}");
        vms.done(&["delete", new, "--yes"]);
        assert!(!vms.path(new).exists());
    }
}

#[test]
fn a_snapshot_of_a_huge_disk_is_made_of_few_files() {
    let vms = Vms::new();
    // What one file holds, one more sector, and the largest that Workstation runs.
    let one_file = (2_u64 << 40) - (1 << 30);
    for (name, size, n_files) in [
        ("one", one_file, 1),
        ("few", one_file + 512, 1 + 3),
        ("huge", 8 << 40, 1 + 9),
    ] {
        let disk = format!("{},subformat=monolithicFlat", size);
        vms.done(&["create", name, "--disk", &disk]);
        vms.snapshot(&["create", name, "clean"]);
        let names = vms.world.names_in(&format!("home/vms/{name}"));
        let new = format!("{name}-000001");
        let new = names.iter().filter(|file| file.starts_with(&new));
        assert_eq!(new.count(), n_files, "{names:?}");
        let overlay = format!("home/vms/{name}/{name}-000001.vmdk");
        let command = format!("write -P 7 {} 64k", size - 65536);
        let args = ["-f", "vmdk", "-c", &command, &overlay];
        vms.world.peer("qemu-io", &args);
        let checked = vms.world.json(&format!("check --data {overlay}"));
        assert_eq!(checked["layers"][0]["corruptions"], 0);
        vms.snapshot(&["delete", name, "clean", "--yes"]);
        let base = format!("home/vms/{name}/{name}.vmdk");
        let command = format!("read -P 7 {} 64k", size - 65536);
        let args = ["-r", "-f", "vmdk", "-c", &command, &base];
        vms.world.peer("qemu-io", &args);
    }
}

#[test]
fn what_was_cut_off_is_told_refused_and_settled_by_the_next() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M"]);
    vms.snapshot(&["create", "web", "clean"]);
    let vmsd = vms.text("web/web.vmsd");
    let hash = |text: &str| {
        use std::io::Write as _;
        let mut sum = std::process::Command::new("sha256sum")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        sum.stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let out = String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap();
        out.split_whitespace().next().unwrap().to_owned()
    };
    let journal = format!(
        "hako.journal = \"1\"\nverb = \"create\"\nvmx.before = \"{}\"\nvmsd.before = \"{}\"\n\
         vmsd.after = \"x\"\nmade0.file = \"web-Snapshot2.vmx\"\ndisk0.node = \"scsi0:0\"\n\
         disk0.old = \"web-000001.vmdk\"\ndisk0.new.file = \"web-000002.vmdk\"\n\
         disk0.new.format = \"vmdk\"\n",
        hash(&vms.text("web/web.vmx")),
        hash(&vmsd)
    );
    std::fs::write(vms.path("web/web.hako-journal"), journal).unwrap();
    std::fs::write(vms.path("web/web-Snapshot2.vmx"), b"x").unwrap();
    vms.fails(
        &["set", "web", "--memory", "1G"],
        5,
        "snapshot create was cut off",
    );
    assert_eq!(vms.json(&["info", "web"])["pending"], "create");
    assert!(vms.done(&["info", "web"]).contains("was cut off"));
    let run = vms.run_snapshot(&["list", "web", "--json"]);
    assert!(run.stderr.contains("was cut off"), "{}", run.stderr);
    let run = vms.run_snapshot(&["create", "web", "second"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("it has not happened"), "{}", run.stderr);
    assert_eq!(vms.json(&["info", "web"])["pending"], Value::Null);
    assert_eq!(live(&vms, "scsi0:0"), "web-000002.vmdk");
    vms.done(&["set", "web", "--memory", "1G"]);
}

#[test]
fn long_chains_are_advised_against() {
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M,format=qcow2"]);
    for number in 1..=33 {
        let run = vms.run_snapshot(&["create", "web", &format!("s{number}")]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(
            run.stderr.contains("at most 32"),
            number > 32,
            "{}",
            run.stderr
        );
    }
    let chain = vms.json(&["info", "web"])["drives"][0]["layers"].clone();
    assert_eq!(chain.as_array().unwrap().len(), 34);
}

/// VMware's limit: a base with 255 overlays. Long, for each is made one by one.
#[test]
fn the_256th_overlay_is_refused() {
    if std::env::var_os("HAKO_ALL").is_none() {
        return;
    }
    let vms = Vms::new();
    vms.done(&["create", "web", "--disk", "8M"]);
    for number in 1..=255 {
        let run = vms.run_snapshot(&["create", "web", &format!("s{number}")]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    assert_eq!(shown(&vms, "scsi0:0"), [0; 4]);
    vms.snapshot_fails(&["create", "web", "more"], 1, "255 overlays already");
    assert_eq!(live(&vms, "scsi0:0"), "web-000255.vmdk");
    let run = vms.run_snapshot(&["revert", "web", "s1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}
