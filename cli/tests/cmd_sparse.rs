//! The commands on qcow2 and sparse VMDK: units, compression, overlays, internal
//! snapshots. qemu-img is the peer.

mod common;

use common::{World, noise};
use serde_json::Value;

/// A raw disk with data here and there.
fn source(world: &World) {
    world.raw(
        "s.raw",
        8 << 20,
        &[
            (0, &noise(1, 200_000)),
            (3 << 20, &[5; 300_000]),
            (7 << 20, &noise(2, 70_000)),
        ],
    );
}

fn hash(world: &World, words: &str) -> Value {
    world.json(&format!("hash {words}"))["sha256"].clone()
}

/// The map must be what qemu-img says, byte for byte; one older than 8.2 says nothing of compression.
fn maps_alike(world: &World, image: &str, format: &str) {
    let qemu = world.peer("qemu-img", &["map", "--output=json", "-f", format, image]);
    let mut map = world.done(&format!("map --json {image}"));
    if !qemu.contains("compressed") {
        for word in ["true", "false"] {
            map = map.replace(&format!(", \"compressed\": {word}"), "");
        }
    }
    assert_eq!(map, qemu, "{image}");
}

#[test]
fn unit_is_the_cluster_or_the_grain() {
    let world = World::new();
    for (name, option, unit) in [
        ("a.qcow2", "--unit 4K", 4096),
        ("b.qcow2", "--cluster-size 2M", 2 << 20),
        ("c.vmdk", "--grain-size 128K", 128 << 10),
    ] {
        world.done(&format!("create {name} 64M {option}"));
        assert_eq!(
            world.json(&format!("info {name}"))["unit_bytes"],
            unit,
            "{name}"
        );
        let info: Value =
            serde_json::from_str(&world.peer("qemu-img", &["info", "--output=json", name]))
                .unwrap();
        assert_eq!(info["virtual-size"], 64 << 20);
        world.peer("qemu-img", &["check", name]);
    }
    world.fails("create d.qcow2 64M --unit 3K", 2, "3072");
}

#[test]
fn convert_compresses_as_told() {
    let world = World::new();
    source(&world);
    for (target, options) in [
        ("a.qcow2", "--compression zlib --level 9"),
        ("b.qcow2", "--compression zstd --threads 3"),
        ("c.qcow2", "--compression none"),
        ("d.vmdk", "--subformat streamOptimized --level 1"),
        ("e.vmdk", "--subformat monolithicSparse"),
    ] {
        world.done(&format!("convert s.raw {target} --verify {options}"));
        assert_eq!(hash(&world, target), hash(&world, "s.raw"), "{target}");
        world.done(&format!("check --data {target}"));
        world.done(&format!("compare s.raw {target}"));
        world.done(&format!("convert {target} back.raw --force"));
        assert_eq!(world.read("back.raw"), world.read("s.raw"), "{target}");
    }
    for image in ["a.qcow2", "b.qcow2", "d.vmdk"] {
        let map = world.json(&format!("map {image}"));
        let compressed = |extent: &Value| extent["compressed"] == true;
        assert!(map.as_array().unwrap().iter().any(compressed), "{image}");
        let report = world.json(&format!("check {image}"));
        assert_eq!(report["layers"][0]["corruptions"], 0);
        assert_ne!(report["layers"][0]["compressed_units"], 0, "{image}");
    }
    world.fails(
        "convert s.raw f.vmdk --subformat streamOptimized --compression zstd",
        2,
        "zstd",
    );
}

#[test]
fn stream_goes_through_a_pipe() {
    let world = World::new();
    source(&world);
    let words = "disk convert s.raw - --to vmdk --subformat streamOptimized";
    let output = world.command().args(words.split(' ')).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    world.write("d.vmdk", &output.stdout);
    world.done("compare s.raw d.vmdk");
}

#[test]
fn map_is_that_of_qemu_img() {
    let world = World::new();
    source(&world);
    for (image, options) in [
        ("a.qcow2", ""),
        ("b.qcow2", "--compression zlib"),
        ("c.vmdk", "--subformat monolithicSparse"),
        ("d.vmdk", "--subformat streamOptimized"),
    ] {
        world.done(&format!("convert s.raw {image} {options}"));
        maps_alike(&world, image, image.split_once('.').unwrap().1);
    }
}

#[test]
fn overlay_is_created_shown_flattened_and_converted_alone() {
    let world = World::new();
    source(&world);
    world.done("convert s.raw base.qcow2");
    world.done("create top.qcow2 --parent base.qcow2");
    world.peer(
        "qemu-io",
        &[
            "-c",
            "write -P 9 1M 64k",
            "-c",
            "write -z 7M 64k",
            "top.qcow2",
        ],
    );

    let info = world.json("info top.qcow2");
    assert_eq!(info["virtual_size"], 8 << 20);
    assert_eq!(info["parent"]["name"], "base.qcow2");
    let chain = world.json("info --chain top.qcow2");
    assert_eq!(chain["layers"].as_array().unwrap().len(), 2);
    assert!(
        world
            .done("info top.qcow2")
            .contains("parent:          base.qcow2 (qcow2)\n")
    );
    maps_alike(&world, "top.qcow2", "qcow2");
    let checked = world.json("check --chain --data top.qcow2");
    assert_eq!(checked["layers"].as_array().unwrap().len(), 2);
    assert_eq!(
        world.json("check top.qcow2")["layers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    world.done("convert top.qcow2 flat.raw");
    world.peer(
        "qemu-img",
        &["convert", "-O", "raw", "top.qcow2", "peer.raw"],
    );
    assert_eq!(world.read("flat.raw"), world.read("peer.raw"));

    world.done("convert --layer 0 --parent base.qcow2 top.qcow2 again.qcow2 --verify");
    assert_eq!(hash(&world, "again.qcow2"), hash(&world, "flat.raw"));
    assert_eq!(
        world.json("info again.qcow2")["parent"]["name"],
        "base.qcow2"
    );
    world.done("convert --layer 1 top.qcow2 lower.raw");
    assert_eq!(world.read("lower.raw"), world.read("s.raw"));
    world.fails("convert --layer 2 top.qcow2 x.raw", 2, "no layer 2");
}

#[test]
fn overlay_of_a_vmdk_checks_its_parent() {
    let world = World::new();
    source(&world);
    world.done("convert s.raw base.vmdk");
    world.done("create top.vmdk --parent base.vmdk");
    assert_eq!(hash(&world, "top.vmdk"), hash(&world, "s.raw"));
    assert_eq!(
        world.json("info --chain top.vmdk")["layers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    // Another base under the same name has another CID. hako does not put it there itself.
    world.fails("convert s.raw base.vmdk --force", 2, "stands on it");
    world.done("convert s.raw other.vmdk");
    std::fs::rename(world.path("other.vmdk"), world.path("base.vmdk")).unwrap();
    world.fails("hash top.vmdk", 4, "parentCID");
    let run = world.disk("info --chain top.vmdk");
    assert_eq!(run.code, 4);
    assert!(run.stdout.contains("parentCID:"), "{}", run.stdout);
}

#[test]
fn info_of_an_overlay_needs_no_parent() {
    let world = World::new();
    world.done("create base.qcow2 1M");
    world.done("create top.qcow2 --parent base.qcow2");
    std::fs::remove_file(world.path("base.qcow2")).unwrap();
    assert_eq!(world.json("info top.qcow2")["parent"]["name"], "base.qcow2");
    let run = world.disk("info --chain top.qcow2");
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.starts_with("file:            top.qcow2\n"),
        "{}",
        run.stdout
    );
    assert!(run.stderr.contains("base.qcow2"), "{}", run.stderr);
    world.fails(
        "hash top.qcow2",
        1,
        "hint: the parent of top.qcow2 is missing",
    );
}

#[test]
fn parent_outside_the_folder_is_created_with_a_warning() {
    let world = World::new();
    std::fs::create_dir(world.path("vm")).unwrap();
    world.done("create base.qcow2 1M");
    let run = world.disk("create vm/top.qcow2 --parent base.qcow2");
    assert_eq!(run.code, 0);
    assert!(run.stderr.contains("needs --allow-path"), "{}", run.stderr);
    world.fails("hash vm/top.qcow2", 1, "--allow-path");
    world.done("hash vm/top.qcow2 --allow-path .");
}

#[test]
fn parent_format_comes_from_from() {
    let world = World::new();
    world.raw("base.bin", 1 << 20, &[(0, &[3; 512])]);
    world.fails("create top.qcow2 --parent base.bin", 1, "--from raw");
    world.done("create top.qcow2 --parent base.bin --from raw");
    assert_eq!(world.json("info top.qcow2")["parent"]["format"], "raw");
    world.done("compare top.qcow2 base.bin --from-b raw");
}

#[test]
fn snapshot_shows_the_state_it_kept() {
    let world = World::new();
    source(&world);
    world.done("convert s.raw d.qcow2");
    let before = hash(&world, "d.qcow2");
    world.peer("qemu-img", &["snapshot", "-c", "before", "d.qcow2"]);
    world.peer("qemu-io", &["-c", "write -P 9 0 1M", "d.qcow2"]);
    assert_ne!(hash(&world, "d.qcow2"), before);
    for name in ["before", "1"] {
        assert_eq!(hash(&world, &format!("d.qcow2 --snapshot {name}")), before);
    }
    assert!(world.done("info d.qcow2").contains("before"));
    world.done("info d.qcow2 --snapshot before");
    world.done("convert d.qcow2 old.raw --snapshot before");
    assert_eq!(world.read("old.raw"), world.read("s.raw"));
    assert_eq!(world.disk("compare d.qcow2 s.raw").code, 1);
    world.done("compare d.qcow2 s.raw --snapshot before");
    world.done("compare s.raw d.qcow2 --snapshot-b before");
    assert_ne!(
        world.json("map d.qcow2 --snapshot before"),
        world.json("map d.qcow2")
    );
    world.fails("hash d.qcow2 --snapshot nonsense", 1, "nonsense");
}

#[test]
fn leak_is_exit_3_and_damage_exit_4() {
    let world = World::new();
    source(&world);
    world.done("convert s.raw d.qcow2");
    let image = world.read("d.qcow2");
    let number = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap()) as usize;
    let block = number(number(48));

    // A cluster at the end that is counted, but that nothing refers to.
    let mut leaky = image.clone();
    leaky.resize(image.len().next_multiple_of(65536) + 65536, 0);
    let cluster = leaky.len() / 65536 - 1;
    leaky[block + 2 * cluster + 1] = 1;
    world.write("leaky.qcow2", &leaky);
    let run = world.disk("check leaky.qcow2");
    assert_eq!((run.code, run.stderr.as_str()), (3, ""));
    assert!(run.stdout.contains(": leak: "), "{}", run.stdout);
    assert!(
        run.stdout.contains("1 leak, 64 KiB leaked"),
        "{}",
        run.stdout
    );

    // The L1 table's first entry leads out of the file.
    let mut damaged = image.clone();
    let l1 = number(40);
    damaged[l1..l1 + 8].copy_from_slice(&(1u64 << 63 | 1 << 40).to_be_bytes());
    world.write("damaged.qcow2", &damaged);
    let run = world.disk("check damaged.qcow2 --json");
    assert_eq!(run.code, 4);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_ne!(report["layers"][0]["corruptions"], 0);
    world.fails("hash damaged.qcow2", 4, "damaged.qcow2: ");
}
