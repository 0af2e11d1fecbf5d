//! Verbs that change images in place: every option once, and the exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::World;

const MIB: u64 = 1 << 20;

/// A folder with `disk.raw` of 8 MiB, and the same as `base.EXT` with an overlay `top.EXT`.
fn world(extension: &str) -> World {
    let world = World::new();
    world.raw(
        "disk.raw",
        8 * MIB,
        &[(MIB, &[7; 5000]), (6 * MIB, &[9; 100_000])],
    );
    world.done(&format!("convert disk.raw base.{extension}"));
    world.done(&format!("create top.{extension} --parent base.{extension}"));
    world
}

fn write(world: &World, image: &str, format: &str, command: &str) {
    world.peer("qemu-io", &["-f", format, "-c", command, image]);
}

#[test]
fn resize_grows_and_shrinks_but_cuts_no_data_unasked() {
    let world = world("qcow2");
    let size = |image: &str| {
        world.json(&format!("info {image}"))["virtual_size"]
            .as_u64()
            .unwrap()
    };
    let result = world.json("resize top.qcow2 16M");
    assert_eq!(result["old_size"], 8 * MIB);
    assert_eq!(result["virtual_size"], 16 * MIB);
    world.done("resize top.qcow2 +4M");
    assert_eq!(size("top.qcow2"), 20 * MIB);
    world.fails("resize top.qcow2 -4M", 2, "--shrink");
    world.done("resize top.qcow2 -4M --shrink");
    assert_eq!(size("top.qcow2"), 16 * MIB);
    world.fails("resize top.qcow2 1000 --shrink", 2, "512");
    world.fails("resize base.qcow2 32M", 2, "top.qcow2");
    world.done("delete top.qcow2");
    world.fails("resize base.qcow2 2M --shrink", 2, "--cut-data");
    assert_eq!(size("base.qcow2"), 8 * MIB);
    world.fails("resize base.qcow2 2M --cut-data", 2, "--shrink");
    world.done("resize base.qcow2 2M --shrink --cut-data");
    assert_eq!(size("base.qcow2"), 2 * MIB);
    world.done("resize disk.raw 8M");
    world.done("create top.qcow2 --parent base.qcow2");
    world.done("resize base.qcow2 3M --force");
    world.done("resize disk.raw 9M --from raw --allow-path . --allow-devices");
}

#[test]
fn compact_gives_zeros_back() {
    let world = world("qcow2");
    world.done("delete top.qcow2");
    write(&world, "base.qcow2", "qcow2", "write -P 0 6M 1M");
    let result = world.json("compact base.qcow2");
    let bytes = |key: &str| result[key].as_u64().unwrap();
    assert!(
        bytes("allocated_size") < bytes("allocated_before"),
        "{result}"
    );
    world.peer("qemu-img", &["check", "base.qcow2"]);
    world.fails("compact missing.qcow2", 1, "missing.qcow2");
}

#[test]
fn commit_empties_keeps_or_deletes_the_overlay() {
    for (option, names) in [
        ("", ["base.qcow2", "disk.raw", "top.qcow2"].as_slice()),
        ("--keep", &["base.qcow2", "disk.raw", "top.qcow2"]),
        ("--delete", &["base.qcow2", "disk.raw"]),
    ] {
        let world = world("qcow2");
        write(&world, "top.qcow2", "qcow2", "write -P 3 3M 64k");
        world.done("convert top.qcow2 wanted.raw");
        let result = world.json(&format!("commit top.qcow2 --threads 2 {option}"));
        assert_eq!(result["data_bytes"], 65536);
        world.done("compare wanted.raw base.qcow2");
        std::fs::remove_file(world.path("wanted.raw")).unwrap();
        assert_eq!(world.names(), names, "{option}");
    }
    let world = world("qcow2");
    world.fails("commit base.qcow2", 2, "no parent");
    world.done("create other.qcow2 --parent base.qcow2");
    world.fails("commit top.qcow2", 2, "other.qcow2");
    world.done("commit top.qcow2 --force");
    world.fails("commit top.qcow2 --keep --delete", 2, "cannot be used with");
}

#[test]
fn rebase_changes_the_parent_and_not_the_content() {
    let world = world("qcow2");
    write(&world, "top.qcow2", "qcow2", "write -P 3 3M 64k");
    world.done("convert top.qcow2 wanted.raw");
    world.done("create other.qcow2 8M");
    let result =
        world.json("rebase top.qcow2 --parent other.qcow2 --parent-format qcow2 --threads 1");
    assert!(
        result["data_bytes"].as_u64().unwrap() >= 105_000,
        "{result}"
    );
    world.done("compare wanted.raw top.qcow2");
    world.done("rebase top.qcow2 --no-parent");
    world.done("compare wanted.raw top.qcow2");
    assert!(world.json("info top.qcow2")["layers"][0]["parent"].is_null());
    world.done("create new.qcow2 --parent base.qcow2");
    std::fs::rename(world.path("base.qcow2"), world.path("moved.qcow2")).unwrap();
    world.fails("rebase new.qcow2 -b moved.qcow2", 1, "base.qcow2");
    world.done("rebase new.qcow2 -u -b moved.qcow2 -F qcow2");
    world.done("compare disk.raw new.qcow2");
    world.fails("rebase new.qcow2", 2, "--parent");
    world.fails("rebase new.qcow2 -b new.qcow2 --unsafe", 2, "own parent");
}

#[test]
fn parent_whose_format_nobody_recorded_is_refused_until_it_is() {
    let world = world("qcow2");
    // What qemu-img before version 6.1 wrote when nobody said -F: a name, and no format.
    let path = world.path("top.qcow2");
    let mut bytes = std::fs::read(&path).unwrap();
    let extension = 0xe279_2aca_u32.to_be_bytes();
    let at = bytes
        .windows(4)
        .position(|window| window == extension)
        .unwrap();
    // An unknown extension instead is one that every reader skips.
    bytes[at..at + 4].copy_from_slice(b"none");
    std::fs::write(&path, bytes).unwrap();
    world.fails("hash top.qcow2", 1, "does not record the format");
    world.done("rebase --unsafe --parent base.qcow2 --parent-format qcow2 top.qcow2");
    world.done("compare top.qcow2 disk.raw");
}

#[test]
fn disk_of_a_suspended_machine_is_read_and_not_changed() {
    let world = world("vmdk");
    world.done("convert disk.raw other.vmdk");
    let vmx = |state: &str| {
        format!(
            "displayName = \"web\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\n\
             scsi0:0.fileName = \"top.vmdk\"\ncheckpoint.vmState = \"{state}\"\n"
        )
    };
    world.write("web.vmx", vmx("web.vmss").as_bytes());
    for verb in [
        "resize top.vmdk +1M",
        "commit top.vmdk",
        "resize base.vmdk +1M --force",
        "check --repair all base.vmdk",
        "rename base.vmdk new.vmdk",
        "delete top.vmdk",
    ] {
        world.fails(verb, 5, "suspended");
    }
    world.done("compare top.vmdk disk.raw");
    world.done("resize other.vmdk +1M");
    world.write("web.vmx", vmx("").as_bytes());
    world.done("commit top.vmdk");
}

#[test]
fn set_changes_what_a_descriptor_says() {
    let world = world("vmdk");
    let content_id = world.json("info base.vmdk")["content_id"].clone();
    world
        .done("set base.vmdk --adapter ide --hw-version 19 --tools-version 12345 --comment rack-7");
    world.done("set base.vmdk --uuid 6000c290-1234-4321-8765-0123456789ab");
    let info = world.json("info base.vmdk");
    assert_eq!(info["content_id"], content_id);
    let details = info["layers"][0]["details"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let details = if details.is_empty() {
        info["details"].as_object().unwrap().clone()
    } else {
        details
    };
    assert_eq!(details["adapter"], "ide");
    assert_eq!(details["hw_version"], "19");
    assert_eq!(details["comment"], "rack-7");
    world.done("compare base.vmdk top.vmdk");
    world.fails("set base.vmdk", 2, "required");
    world.fails("set base.vmdk --uuid 12", 2, "hexadecimal");
    world.done("convert disk.raw base.qcow2");
    world.fails("set base.qcow2 --adapter ide", 1, "adapter");
}

#[test]
fn rename_takes_every_file_and_reference_along() {
    let world = World::new();
    world.raw("disk.raw", 8 * MIB, &[(MIB, &[7; 5000])]);
    world.done("convert disk.raw a.vmdk --subformat monolithicFlat");
    world.done("create top.vmdk --parent a.vmdk");
    let result = world.json("rename a.vmdk b.vmdk");
    assert_eq!(result["files"].as_array().unwrap().len(), 2);
    assert_eq!(result["overlays"].as_array().unwrap().len(), 1);
    assert_eq!(
        world.names(),
        ["b-flat.vmdk", "b.vmdk", "disk.raw", "top.vmdk"]
    );
    world.done("compare disk.raw top.vmdk");
    world.fails("rename b.vmdk disk.raw", 1, "exists");
    world.fails("rename b.vmdk /tmp/b.vmdk", 2, "another folder");
    world.done("rename b.vmdk c.vmdk --from vmdk");
}

#[test]
fn delete_takes_every_file_and_spares_what_others_stand_on() {
    let world = World::new();
    world.raw("disk.raw", 8 * MIB, &[(MIB, &[7; 5000])]);
    world.done("convert disk.raw a.vmdk --subformat monolithicFlat");
    world.done("create top.vmdk --parent a.vmdk");
    world.fails("delete a.vmdk", 2, "top.vmdk");
    let result = world.json("delete --force a.vmdk");
    assert_eq!(result["deleted"].as_array().unwrap().len(), 2);
    assert_eq!(world.names(), ["disk.raw", "top.vmdk"]);
    world.done("create x.qcow2 1M");
    world.done("create y.qcow2 1M");
    world.done("delete x.qcow2 y.qcow2");
    assert_eq!(world.names(), ["disk.raw", "top.vmdk"]);
    world.fails("delete", 2, "required");
}

#[test]
fn repair_saves_what_it_overwrites_and_can_be_undone() {
    let world = World::new();
    world.raw(
        "disk.raw",
        8 * MIB,
        &[(MIB, &[7; 5000]), (6 * MIB, &[9; 100_000])],
    );
    world.done("convert disk.raw a.qcow2");
    // The refcount of the last cluster, in the first refcount block: 1 becomes 3, a leak.
    let mut bytes = world.read("a.qcow2");
    let be = |at: usize, n: usize| {
        bytes[at..at + n]
            .iter()
            .fold(0usize, |all, byte| all << 8 | usize::from(*byte))
    };
    let block = be(be(48, 8), 8);
    let last = bytes.len().div_ceil(65536) - 1;
    bytes[block + 2 * last + 1] = 3;
    let damaged = bytes.clone();
    std::fs::write(world.path("a.qcow2"), &bytes).unwrap();
    assert_eq!(world.disk("check a.qcow2").code, 3);
    let run = world.disk("check --repair leaks a.qcow2");
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("a.qcow2.saved"), "{}", run.stdout);
    world.peer("qemu-img", &["check", "a.qcow2"]);
    world.done("compare disk.raw a.qcow2");
    world.done("check --undo a.qcow2.saved a.qcow2");
    assert!(world.read("a.qcow2") == damaged);
    let result = world.json("check -r all a.qcow2");
    assert!(
        result["saved"]
            .as_str()
            .unwrap()
            .ends_with("a.qcow2.saved-2")
    );
    assert_eq!(result["after"]["leaks"], 0);
    // A sound image needs nothing, and nothing is saved.
    let result = world.json("check --repair all a.qcow2");
    assert!(result["saved"].is_null() && result["repaired"].as_array().unwrap().is_empty());
    world.fails("check --undo disk.raw a.qcow2", 4, "first line");
    world.fails("check --repair all disk.raw", 1, "repaired");
}

/// qemu calls a VHD "vpc": a backing format of that name is read, and written.
#[test]
fn qcow2_over_a_vhd_is_the_same_to_qemu() {
    let world = World::new();
    world.raw("disk.raw", 8 * MIB, &[(MIB, &[7; 5000])]);
    world.done("convert disk.raw base.vhd");
    world.done("create ours.qcow2 --parent base.vhd");
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "base.vhd",
        "-F",
        "vpc",
        "theirs.qcow2",
    ];
    world.peer("qemu-img", &create);
    for image in ["ours.qcow2", "theirs.qcow2"] {
        world.done(&format!("compare disk.raw {image}"));
        world.peer(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "qcow2", "disk.raw", image],
        );
        world.done(&format!("rebase --unsafe -b base.vhd {image}"));
        world.peer(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "qcow2", "disk.raw", image],
        );
    }
}
