//! The commands on VMDK: descriptors, extent files, the gate, salvage.

mod common;

use common::{World, noise};

/// A descriptor of one extent line.
fn descriptor(create_type: &str, extent: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\n\n{extent}\n\n\
         ddb.adapterType = \"ide\"\nddb.virtualHWVersion = \"4\"\n"
    )
}

#[test]
fn create_writes_the_subformat_adapter_and_hardware_version_asked_for() {
    let world = World::new();
    world.done("create d.vmdk 10M --subformat monolithicflat --adapter BusLogic --hw-version 13");
    assert_eq!(world.names(), ["d-flat.vmdk", "d.vmdk"]);
    let info = world.json("info d.vmdk");
    assert_eq!(info["format"], "vmdk");
    assert_eq!(info["subformat"], "monolithicFlat");
    assert_eq!(info["virtual_size"], 10 << 20);
    assert_eq!(info["files"][0], "d.vmdk");
    assert!(info["files"][1].as_str().unwrap().ends_with("/d-flat.vmdk"));
    assert_eq!(info["content_id"].as_str().unwrap().len(), 8);
    let text = world.done("info d.vmdk");
    for line in [
        "format:          vmdk monolithicFlat",
        "adapter:         buslogic",
        "hw version:      13",
    ] {
        assert!(text.contains(line), "{text}");
    }
    world.done("check d.vmdk");
    world.fails(
        "create e.vmdk 1M --subformat nonsense",
        2,
        "possible values",
    );
}

#[test]
fn convert_there_and_back_keeps_the_content() {
    let world = World::new();
    world.raw(
        "s.raw",
        5 << 20,
        &[(4096, &noise(1, 100_000)), (4 << 20, &noise(2, 5000))],
    );
    for subformat in ["monolithicFlat", "twoGbMaxExtentFlat", "vmfs"] {
        world.done(&format!(
            "convert s.raw d.vmdk --force --verify --subformat {subformat}"
        ));
        assert_eq!(
            world.done("compare s.raw d.vmdk"),
            "Images are identical.\n"
        );
        world.done("convert d.vmdk back.raw --force --to raw");
        assert_eq!(world.read("back.raw"), world.read("s.raw"));
        world.done("check --data d.vmdk");
    }
    let hash = |file: &str| world.json(&format!("hash {file}"))["sha256"].clone();
    assert_eq!(hash("d.vmdk"), hash("s.raw"));
}

#[test]
fn map_names_the_extent_file() {
    let world = World::new();
    world.raw("s.raw", 1 << 20, &[(65536, &noise(1, 65536))]);
    world.done("convert s.raw d.vmdk --subformat monolithicFlat");
    let table = world.done("map d.vmdk");
    let row: Vec<_> = table.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(row[..5], ["0x10000", "0x10000", "data", "0", "0x10000"]);
    assert!(row[5].ends_with("/d-flat.vmdk"), "{table}");
}

#[test]
fn flat_format_does_not_go_to_a_pipe() {
    let world = World::new();
    world.raw("s.raw", 1 << 20, &[]);
    world.fails(
        "convert s.raw - --to vmdk --subformat monolithicFlat",
        1,
        "pipe",
    );
}

#[test]
fn extent_file_outside_the_folder_needs_allow_path() {
    let world = World::new();
    for folder in ["vm", "other"] {
        std::fs::create_dir(world.path(folder)).unwrap();
    }
    world.raw("other/d-flat.vmdk", 1 << 20, &[(0, &[1; 512])]);
    let extent = "RW 2048 FLAT \"../other/d-flat.vmdk\" 0";
    world.write("vm/d.vmdk", descriptor("monolithicFlat", extent).as_bytes());
    for verb in ["info", "map", "hash", "check"] {
        world.fails(
            &format!("{verb} vm/d.vmdk"),
            1,
            "hint: if you trust the image, add --allow-path",
        );
        let run = world.disk(&format!(
            "{verb} vm/d.vmdk --allow-path nowhere --allow-path other"
        ));
        assert_eq!(run.code, 0, "{verb}: {}", run.stderr);
    }
    world.fails("convert vm/d.vmdk d.raw", 1, "--allow-path");
    world.done("convert vm/d.vmdk d.raw --allow-path other");
    world.fails("compare vm/d.vmdk d.raw", 2, "--allow-path");
    world.done("compare vm/d.vmdk d.raw --allow-path other");
}

#[test]
fn device_needs_allow_devices() {
    let world = World::new();
    let Some(device) = readable_device() else {
        println!("skipped: no block device that may be read");
        return;
    };
    let extent = format!("RW 8 FLAT \"{device}\" 0");
    world.write("d.vmdk", descriptor("fullDevice", &extent).as_bytes());
    world.fails("info d.vmdk", 1, "--allow-devices");
    let run = world.disk("info d.vmdk --allow-devices");
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// A block device of 4 KiB or more that can be opened.
fn readable_device() -> Option<String> {
    std::fs::read_dir("/sys/block")
        .ok()?
        .flatten()
        .filter(|entry| {
            let size = std::fs::read_to_string(entry.path().join("size")).unwrap_or_default();
            size.trim()
                .parse::<u64>()
                .is_ok_and(|n_sectors| n_sectors >= 8)
        })
        .map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy()))
        .find(|device| std::fs::File::open(device).is_ok())
}

#[test]
fn truncated_image_is_refused_and_salvaged_on_request_with_exit_3() {
    let world = World::new();
    let start = noise(1, 65536);
    world.raw("s.raw", 1 << 20, &[(0, &start)]);
    world.done("convert s.raw d.vmdk --subformat monolithicFlat");
    let flat = std::fs::OpenOptions::new()
        .write(true)
        .open(world.path("d-flat.vmdk"))
        .unwrap();
    flat.set_len(65536).unwrap();
    for verb in [
        "info d.vmdk",
        "map d.vmdk",
        "hash d.vmdk",
        "convert d.vmdk x.raw",
    ] {
        world.fails(verb, 4, "--salvage");
    }
    let run = world.disk("check d.vmdk");
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(run.stdout.contains("corruption: "), "{}", run.stdout);
    let report: serde_json::Value =
        serde_json::from_str(&world.disk("check d.vmdk --json").stdout).unwrap();
    assert_eq!(report["layers"][0]["corruptions"], 1);
    assert_eq!(report["layers"][0]["findings"][0]["severity"], "corruption");

    for verb in ["map", "hash", "convert"] {
        let target = if verb == "convert" { "x.raw" } else { "" };
        let run = world.disk(&format!("{verb} --salvage d.vmdk {target}"));
        assert_eq!(run.code, 3, "{verb}");
        assert!(run.stderr.contains("hako: warning: ") && run.stderr.contains("read as zeros"));
    }
    assert_eq!(world.read("x.raw"), world.read("s.raw"));
    let info = world.json("info --salvage d.vmdk");
    assert_eq!(info["oddities"].as_array().unwrap().len(), 1);
    let run = world.disk("hash --salvage --json d.vmdk");
    let warning: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert!(
        warning["warning"]
            .as_str()
            .unwrap()
            .contains("read as zeros")
    );
}

#[test]
fn name_in_an_image_does_not_reach_the_terminal_as_it_is() {
    let world = World::new();
    let extent = "RW 2048 FLAT \"\x1b[31mred\" 0";
    world.write("d.vmdk", descriptor("monolithicFlat", extent).as_bytes());
    let run = world.disk("info d.vmdk");
    assert_ne!(run.code, 0);
    assert!(!run.stderr.contains('\x1b'), "{:?}", run.stderr);
}
