//! `hako p2v capture`: what is in use of a disk, as a new image.

#![allow(clippy::unwrap_used)] // A test fails by a panic.

mod common;

use std::os::unix::fs::FileExt;

use common::{World, noise};

const MIB: u64 = 1 << 20;

/// A world with `d.img`: an MBR with a FAT in which files were removed, and a swap area; everything
/// that is free is full of noise.
fn world() -> World {
    let world = World::new();
    let mut record = [0_u8; 512];
    for (at, kind, start, mib) in [(446, 0x0c, 2048_u32, 64_u32), (462, 0x82, 133_120, 30)] {
        record[at + 4] = kind;
        record[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        record[at + 12..at + 16].copy_from_slice(&(mib * 2048).to_le_bytes());
    }
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    let noise = noise(1, MIB as usize);
    let pieces: Vec<(u64, &[u8])> = (0..100).map(|n| (n * MIB, &noise[..])).collect();
    world.raw("d.img", 100 * MIB, &pieces);
    world.raw("fat", 64 * MIB, &pieces[..64]);
    world.peer("mkfs.vfat", &["-F", "32", "-s", "1", "fat"]);
    for name in ["a", "b", "c"] {
        world.write(name, &noise[..300_000]);
        world.peer("mcopy", &["-i", "fat", name, "::/"]);
    }
    world.peer("mdel", &["-i", "fat", "::/b"]);
    let disk = std::fs::File::options()
        .write(true)
        .open(world.path("d.img"))
        .unwrap();
    disk.write_all_at(&record, 0).unwrap();
    disk.write_all_at(&world.read("fat"), MIB).unwrap();
    disk.write_all_at(b"SWAPSPACE2", 65 * MIB + 4086).unwrap();
    world
}

/// Runs `hako p2v …`, which must succeed in silence, and returns what it printed.
fn done(world: &World, words: &str) -> String {
    let run = world.hako(["p2v"].into_iter().chain(words.split_whitespace()));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{words}");
    run.stdout
}

/// Runs `hako p2v … --json`, and returns its result.
fn json(world: &World, words: &str) -> serde_json::Value {
    serde_json::from_str(&done(world, &format!("{words} --json"))).unwrap()
}

/// Runs `hako p2v …`, which must fail with that code and say something like that.
fn fails(world: &World, words: &str, code: i32, text: &str) {
    let run = world.hako(["p2v"].into_iter().chain(words.split_whitespace()));
    assert_eq!(run.code, code, "{words}: {}", run.stderr);
    assert!(run.stderr.contains(text), "{words}: {}", run.stderr);
}

#[test]
fn only_what_is_in_use_is_in_the_copy() {
    let world = world();
    let report = json(&world, "capture d.img -o d.qcow2");
    assert_eq!(report["virtual_size"], 100 * MIB);
    assert_eq!(report["verified"], true);
    assert_eq!(report["format"], "qcow2");
    let used = report["used_bytes"].as_u64().unwrap();
    // The beginning, what is behind the swap area, FAT's tables, two files.
    assert!((7 * MIB..8 * MIB).contains(&used), "{used}");
    assert_eq!(report["skipped_bytes"], 100 * MIB - used);
    let volumes = report["volumes"].as_array().unwrap();
    let names: Vec<_> = volumes
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["disk", "p1", "p2"]);
    assert_eq!(volumes[1]["type"], "vfat");
    assert_eq!(volumes[2]["used_bytes"], 4096);
    assert_eq!(volumes[2]["whole"], false);
    world.done("convert --to raw d.qcow2 copy.img");
    let (copy, disk) = (world.read("copy.img"), world.read("d.img"));
    let same =
        |from: u64, to: u64| copy[from as usize..to as usize] == disk[from as usize..to as usize];
    assert!(same(0, MIB) && same(65 * MIB, 65 * MIB + 4096) && same(95 * MIB, 100 * MIB));
    assert!(copy[66 << 20..90 << 20].iter().all(|byte| *byte == 0));
    world.write("fat", &copy[1 << 20..65 << 20]);
    world.peer("fsck.vfat", &["-n", "fat"]);
    for name in ["a", "c"] {
        world.peer(
            "mcopy",
            &["-n", "-i", "fat", &format!("::/{name}"), "copied"],
        );
        assert_eq!(world.read("copied"), world.read(name));
        std::fs::remove_file(world.path("copied")).unwrap();
    }
}

#[test]
fn it_goes_through_a_pipe_in_one_pass_and_says_what_it_did() {
    let world = world();
    let table = done(
        &world,
        "capture d.img -o d.vmdk --subformat streamOptimized --no-verify",
    );
    assert!(table.lines().nth(2).unwrap().starts_with("p1 "), "{table}");
    assert!(table.contains("skipped"), "{table}");
    let piped = world
        .command()
        .args("p2v capture --to vmdk --subformat streamOptimized d.img -o -".split(' '))
        .output()
        .unwrap();
    assert!(piped.status.success());
    world.write("piped.vmdk", &piped.stdout);
    world.done("compare d.vmdk piped.vmdk");
    world.done("check piped.vmdk");
    assert!((piped.stdout.len() as u64) < 12 * MIB);
}

#[test]
fn all_blocks_and_what_is_not_understood_are_copied_as_a_whole() {
    let world = world();
    let all = json(
        &world,
        "capture --all-blocks --threads 2 --rate 1G d.img -o all.img",
    );
    assert_eq!(all["skipped_bytes"], 0);
    world.done("compare all.img d.img");
    // With the table gone nobody knows what is free.
    let disk = std::fs::File::options()
        .write(true)
        .open(world.path("d.img"))
        .unwrap();
    disk.write_all_at(&[7; 512], 0).unwrap();
    let whole = json(&world, "capture --guest-sector-size 512 d.img -o whole.img");
    assert_eq!(whole["volumes"][0]["whole"], true);
    assert!(
        whole["volumes"][0]["notes"][0]
            .as_str()
            .unwrap()
            .contains("not known")
    );
    world.done("compare whole.img d.img");
}

#[test]
fn what_is_there_is_not_replaced_and_what_is_read_not_written() {
    let world = world();
    world.write("there.img", b"mine");
    fails(&world, "capture d.img -o there.img", 1, "exists");
    fails(&world, "capture d.img -o d.img --force", 2, "");
    fails(&world, "capture no.img -o x.img", 1, "no.img");
    fails(&world, "capture d.img -o x.unknown", 2, "format");
    assert_eq!(world.read("there.img"), b"mine");
    done(
        &world,
        "capture --keep-swap-files --with d.img d.img -o there.img --force",
    );
    assert_eq!(world.read("there.img").len() as u64, 100 * MIB);
}

/// A file system with files, half of which were removed again, on which the rest is noise.
fn ext4(world: &World, name: &str) {
    let noise = noise(2, MIB as usize);
    let pieces: Vec<(u64, &[u8])> = (0..48).map(|n| (n * MIB, &noise[..])).collect();
    world.raw(name, 48 * MIB, &pieces);
    std::fs::create_dir(world.path("tree")).unwrap();
    for n in 0..40 {
        world.write(&format!("tree/f{n}"), &noise[n * 7..n * 9000 + 50]);
    }
    world.peer("mke2fs", &["-q", "-F", "-t", "ext4", "-d", "tree", name]);
    for n in (0..40).step_by(2) {
        world.peer("debugfs", &["-w", "-R", &format!("rm f{n}"), name]);
        std::fs::remove_file(world.path(&format!("tree/f{n}"))).unwrap();
    }
    // What debugfs left unsettled is mended before; that it was is no failure.
    let _ = std::process::Command::new("e2fsck")
        .args(["-fy", name])
        .current_dir(world.path("."))
        .output()
        .unwrap();
}

/// Asserts that `image`, raw, is sound and has the files.
fn has_the_tree(world: &World, image: &str) {
    world.peer("e2fsck", &["-fn", image]);
    let out = format!("out-{image}");
    std::fs::create_dir(world.path(&out)).unwrap();
    world.peer("debugfs", &["-R", &format!("rdump / {out}"), image]);
    world.peer("diff", &["-r", "-x", "lost+found", "tree", &out]);
}

#[test]
fn a_file_system_in_the_copy_is_sound_and_what_was_free_in_it_is_not_there() {
    let world = World::new();
    ext4(&world, "e.img");
    for (target, flags) in [
        ("c.img", ""),
        ("c.qcow2", "--no-verify"),
        ("c.vmdk", "--subformat streamOptimized"),
        ("c.vhdx", "--threads 1"),
    ] {
        let report = json(&world, &format!("capture {flags} e.img -o {target}"));
        assert_eq!(report["verified"], !flags.contains("no-verify"), "{target}");
        assert_eq!(report["volumes"][0]["type"], "ext4");
        let raw = format!("raw-{target}");
        world.done(&format!("convert --to raw {target} {raw}"));
        has_the_tree(&world, &raw);
        let free = noise(2, MIB as usize);
        let copy = world.read(&raw);
        let last = &copy[46 * MIB as usize..47 * MIB as usize];
        assert!(
            last != &free[..] && last.iter().all(|byte| *byte == 0),
            "{target}"
        );
    }
}

/// A world with `d.img`: a GPT with an NTFS in which a file was removed; the rest is noise.
fn ntfs() -> World {
    let world = World::new();
    let noise = noise(3, MIB as usize);
    let pieces: Vec<(u64, &[u8])> = (0..60).map(|n| (n * MIB, &noise[..])).collect();
    world.raw("ntfs", 60 * MIB, &pieces);
    world.peer("mkntfs", &["-q", "-F", "-f", "ntfs"]);
    for (name, len) in [("a", 700_000), ("b", 900_000), ("pagefile.sys", 3 << 20)] {
        world.write(name, &noise.repeat(4)[..len]);
        world.peer("ntfscp", &["-q", "ntfs", name, name]);
    }
    world
}

/// Puts the NTFS into a disk.
fn partitioned(world: &World, image: &str) {
    world.raw(image, 64 * MIB, &[]);
    world.write(
        "script",
        b"label: gpt\nstart=2M, size=60M, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n",
    );
    world.peer("sh", &["-c", &format!("sfdisk -q {image} < script")]);
    let disk = std::fs::File::options()
        .write(true)
        .open(world.path(image))
        .unwrap();
    disk.write_all_at(&world.read("ntfs"), 2 * MIB).unwrap();
}

#[test]
fn what_windows_swaps_to_is_zeros_unless_it_is_hibernated() {
    let world = ntfs();
    partitioned(&world, "d.img");
    let content = |image: &str, name: &str| {
        world.done(&format!("convert --force --to raw {image} raw.img"));
        let raw = world.read("raw.img");
        world.write("part", &raw[2 << 20..62 << 20]);
        let run = std::process::Command::new("ntfscat")
            .args(["part", name])
            .current_dir(world.path("."))
            .output()
            .unwrap();
        assert!(run.status.success(), "{name}");
        run.stdout
    };
    let report = json(&world, "capture d.img -o c.vhdx");
    let volume = &report["volumes"][1];
    assert_eq!(volume["type"], "ntfs");
    assert_eq!(volume["swap_file_bytes"], 3 * MIB);
    assert!(
        report["used_bytes"].as_u64().unwrap() < 12 * MIB,
        "{report}"
    );
    for name in ["a", "b"] {
        assert!(content("c.vhdx", name) == world.read(name), "{name}");
    }
    assert!(
        content("c.vhdx", "pagefile.sys")
            .iter()
            .all(|byte| *byte == 0)
    );
    world.peer("ntfsfix", &["-n", "part"]);
    json(&world, "capture --keep-swap-files d.img -o kept.img");
    assert!(content("kept.img", "pagefile.sys") == world.read("pagefile.sys"));
    // Hibernated, or shut down to start fast: its memory is in hiberfil.sys, and nothing is left out.
    world.write("hiberfil.sys", &[&b"hibr"[..], &[5; 200_000]].concat());
    world.peer("ntfscp", &["-q", "ntfs", "hiberfil.sys", "hiberfil.sys"]);
    partitioned(&world, "h.img");
    let report = json(&world, "capture h.img -o h.qcow2");
    assert_eq!(report["volumes"][1]["swap_file_bytes"], 0);
    for name in ["hiberfil.sys", "pagefile.sys"] {
        assert!(content("h.qcow2", name) == world.read(name), "{name}");
    }
}

#[test]
fn what_is_written_to_meanwhile_is_not_copied() {
    let world = World::new();
    ext4(&world, "e.img");
    // So slow that there is time to write.
    let run = std::process::Command::new(common::binary())
        .current_dir(world.path("."))
        .args("p2v capture --all-blocks --threads 1 --rate 20M e.img -o c.img".split(' '))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let part = world.path(".c.img.hako-part");
    while !part.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let disk = std::fs::File::options()
        .write(true)
        .open(world.path("e.img"))
        .unwrap();
    disk.write_all_at(b"x", 47 * MIB).unwrap();
    let ended = run.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("written to while"));
    assert!(!world.path("c.img").exists() && !part.exists());
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let world = World::new();
    ext4(&world, "e.img");
    world.done("convert e.img e.qcow2");
    let file = std::fs::File::options()
        .write(true)
        .open(world.path("e.qcow2"))
        .unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len / 8).unwrap();
    let before = world.names();
    for target in ["c.img", "c.qcow2", "c.vmdk --subformat streamOptimized"] {
        let words = format!("p2v capture e.qcow2 -o {target}");
        let run = world.hako(words.split(' '));
        assert_ne!(run.code, 0, "{target}");
        assert!(
            !run.stderr.is_empty() && !run.stderr.contains("panic"),
            "{target}"
        );
        assert_eq!(world.names(), before, "{target}");
    }
}

#[test]
fn a_device_is_copied_when_nobody_uses_it() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/loop-control").exists()
    {
        assert!(
            std::env::var_os("CI").is_none(),
            "in CI nothing may be skipped"
        );
        return;
    }
    let world = World::new();
    ext4(&world, "e.img");
    let device = world.peer("losetup", &["-f", "--show", "e.img"]);
    let device = device.trim();
    std::fs::create_dir(world.path("mounted")).unwrap();
    world.peer("mount", &["-o", "ro", device, "mounted"]);
    fails(&world, &format!("capture {device} -o c.img"), 5, "mounted");
    assert!(!world.path("c.img").exists());
    world.peer("umount", &["mounted"]);
    done(&world, &format!("capture {device} -o c.img"));
    world.peer("losetup", &["-d", device]);
    has_the_tree(&world, "c.img");
}
