//! `hako disk formats`, `info`, `map`, `hash`: what only looks.

mod common;

use common::{World, noise};
use serde_json::json;

#[test]
fn formats_prints_a_row_for_each_variant() {
    let world = World::new();
    let table = world.done("formats");
    assert!(table.starts_with("format "), "{table}");
    let row = table.lines().find(|line| line.starts_with("raw ")).unwrap();
    assert_eq!(
        row.split_whitespace().take(6).collect::<Vec<_>>(),
        ["raw", "-", "yes", "yes", "yes", "yes"]
    );
    let formats = world.json("formats");
    let rows = formats["formats"].as_array().unwrap();
    assert_eq!(rows.len(), table.lines().count() - 1);
    assert_eq!(rows[0]["extensions"], json!(["raw", "img", "dd"]));
}

#[test]
fn info_shows_sizes_for_people_and_for_programs() {
    let world = World::new();
    world.raw("d.raw", 3 << 20, &[(1 << 20, &[1; 4096])]);
    let text = world.done("info d.raw");
    assert!(
        text.contains("virtual size:    3 MiB (3145728 bytes)\n"),
        "{text}"
    );
    assert!(text.contains("format:          raw\n"), "{text}");
    let info = world.json("info d.raw");
    assert_eq!(info["virtual_size"], 3 << 20);
    assert_eq!(info["format"], "raw");
    assert_eq!(info["files"], json!(["d.raw"]));
    assert!(info["allocated_size"].as_u64().unwrap() < 3 << 20);
}

#[test]
fn info_lists_oddities() {
    let world = World::new();
    world.raw("d.raw", 1000, &[]);
    let text = world.done("info d.raw");
    assert!(
        text.contains("odd:             size 1000 is no multiple"),
        "{text}"
    );
    assert_eq!(
        world.json("info d.raw")["oddities"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn info_chain_shows_layers() {
    let world = World::new();
    world.raw("d.raw", 512, &[]);
    let chain = world.json("info --chain d.raw");
    assert_eq!(chain["layers"][0]["format"], "raw");
}

#[test]
fn raw_is_never_guessed_but_from_says_it() {
    let world = World::new();
    world.raw("disk.bin", 512, &[]);
    world.fails(
        "info disk.bin",
        1,
        "hint: if it is a raw disk, say so: --from raw",
    );
    assert_eq!(world.json("info --from raw disk.bin")["format"], "raw");
    world.fails("info --from floppy disk.bin", 2, "possible values");
}

#[test]
fn missing_file_is_a_failure() {
    let world = World::new();
    world.fails(
        "info nope.raw",
        1,
        "hako: nope.raw: open: no such file or directory",
    );
}

#[test]
fn errors_are_json_where_results_are() {
    let world = World::new();
    let run = world.disk("info --json nope.raw");
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "not-found");
    assert_eq!(error["error"]["file"], "nope.raw");
}

#[test]
fn map_has_the_keys_of_qemu_img_and_merges_runs() {
    let world = World::new();
    world.raw("d.raw", 1 << 20, &[(65536, &noise(1, 65536))]);
    let text = world.done("map d.raw --json");
    assert_eq!(
        text,
        concat!(
            r#"[{ "start": 0, "length": 65536, "depth": 0, "present": true, "zero": true, "data": false, "compressed": false, "offset": 0},"#,
            "\n",
            r#"{ "start": 65536, "length": 65536, "depth": 0, "present": true, "zero": false, "data": true, "compressed": false, "offset": 65536},"#,
            "\n",
            r#"{ "start": 131072, "length": 917504, "depth": 0, "present": true, "zero": true, "data": false, "compressed": false, "offset": 131072}]"#,
            "\n"
        )
    );
    let table = world.done("map d.raw");
    let row: Vec<_> = table.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(row, ["0x10000", "0x10000", "data", "0", "0x10000", "d.raw"]);
}

#[test]
fn map_of_an_empty_disk_is_an_empty_array() {
    let world = World::new();
    world.raw("d.raw", 0, &[]);
    assert_eq!(world.json("map d.raw"), json!([]));
}

#[test]
fn hash_prints_what_sha256sum_prints() {
    let world = World::new();
    world.raw(
        "d.raw",
        (5 << 20) + 512,
        &[(0, &noise(1, 100_000)), (4 << 20, &noise(2, 70_000))],
    );
    let expected = std::process::Command::new("sha256sum")
        .arg("d.raw")
        .current_dir(world.path(""))
        .output()
        .unwrap();
    let expected = String::from_utf8(expected.stdout).unwrap();
    assert_eq!(world.done("hash d.raw"), expected);
    assert_eq!(world.done("hash --threads 1 d.raw"), expected);
    let hash = world.json("hash d.raw");
    assert!(expected.starts_with(hash["sha256"].as_str().unwrap()));
    assert_eq!(hash["virtual_size"], (5 << 20) + 512);
}

#[test]
fn hash_of_nothing_is_the_hash_of_nothing() {
    let world = World::new();
    world.raw("d.raw", 0, &[]);
    assert!(
        world
            .done("hash d.raw")
            .starts_with("e3b0c44298fc1c149afbf4c8996fb924")
    );
}

#[test]
fn image_in_use_is_exit_5_unless_shared_by_force() {
    let world = World::new();
    world.raw("d.raw", 512, &[]);
    // What a VMware product does.
    std::fs::create_dir(world.path("d.raw.lck")).unwrap();
    world.write("d.raw.lck/M12345.lck", b"");
    for verb in ["info", "map", "hash"] {
        world.fails(&format!("{verb} d.raw"), 5, "locked by a VMware product");
        world.done(&format!("{verb} --force-share d.raw"));
        world.done(&format!("{verb} -U d.raw"));
    }
}

#[test]
fn result_that_cannot_be_written_is_an_error() {
    let world = World::new();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let run = std::process::Command::new(common::binary())
        .args(["disk", "formats"])
        .current_dir(world.path(""))
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(8));
    let text = String::from_utf8(run.stderr).unwrap();
    assert!(
        text.contains("standard output: write: no space left"),
        "{text}"
    );
}

#[test]
fn reader_that_goes_away_ends_it_quietly() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(common::binary())
        .args(["disk", "formats"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    // The whole table may have been in the pipe before its end was closed.
    assert!(
        matches!(ended.status.code(), Some(0 | 141)),
        "{:?}",
        ended.status
    );
    assert!(ended.stderr.is_empty());
}
