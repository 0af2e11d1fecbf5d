//! `hako disk ls`, `cat` and `cp`: what is in a guest's disk.

#![allow(clippy::unwrap_used)] // A test fails by a panic.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::World;
use serde_json::json;

/// A world with `d.img`: a FAT in partition 1 of an MBR with two, filled by mtools.
fn world() -> World {
    let world = World::new();
    let mut record = [0_u8; 512];
    for (at, start, sectors) in [(446, 2048_u32, 20480_u32), (462, 22528, 2048)] {
        record[at + 4] = 0x0c;
        record[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        record[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    world.raw("d.img", 12 << 20, &[(0, &record)]);
    world.raw("fat", 10 << 20, &[]);
    world.peer("mkfs.vfat", &["-n", "ESP", "-i", "12abcdef", "fat"]);
    world.write("Grub Config.cfg", b"set timeout=5\n");
    let mut kernel = vec![0; 3 << 20];
    kernel[..5].copy_from_slice(b"first");
    kernel[3 << 19..(3 << 19) + 70_000].fill(7);
    world.write("kernel", &kernel);
    world.peer("mmd", &["-i", "fat", "::/EFI", "::/EFI/debian"]);
    world.peer(
        "mcopy",
        &["-m", "-i", "fat", "Grub Config.cfg", "::/EFI/debian"],
    );
    world.peer("mcopy", &["-i", "fat", "kernel", "::/"]);
    world.peer(
        "dd",
        &[
            "if=fat",
            "of=d.img",
            "bs=1M",
            "seek=1",
            "conv=notrunc",
            "status=none",
        ],
    );
    world
}

#[test]
fn ls_lists_volumes_for_people_and_for_programs() {
    let world = world();
    let table = world.done("ls d.img");
    let row = table.lines().nth(2).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[..6], ["p1", "10", "MiB", "vfat", "ESP", "12AB-CDEF"]);
    let volumes = world.json("ls d.img");
    assert_eq!(volumes["volumes"][1]["partition"]["start"], 1 << 20);
    assert_eq!(volumes["volumes"][1]["type"], "vfat");
    assert_eq!(volumes["volumes"][2]["readable"], false);
    world.fails("ls -l d.img", 2, "name a path");
}

#[test]
fn ls_lists_files_short_long_and_recursive() {
    let world = world();
    assert_eq!(world.done("ls d.img /"), "EFI\nkernel\n");
    assert_eq!(world.done("ls d.img:p1"), "EFI\nkernel\n");
    assert_eq!(
        world.done("ls -R d.img:LABEL=ESP /EFI"),
        "debian\ndebian/Grub Config.cfg\n"
    );
    let long = world.done("ls --long d.img:1 kernel");
    assert!(
        long.starts_with("-rw-r--r--  1     0     0    3145728 20"),
        "{long}"
    );
    assert!(long.ends_with(" kernel\n"), "{long}");
    let files = world.json("ls --recursive d.img EFI");
    assert_eq!(files["entries"][1]["name"], "debian/Grub Config.cfg");
    assert_eq!(files["entries"][1]["length"], 14);
    assert_eq!(files["volume"], "p1");
}

#[test]
fn cat_prints_a_file_whatever_the_format_of_the_disk() {
    let world = world();
    assert_eq!(world.done("convert d.img d.vmdk"), "");
    for image in ["d.img", "d.vmdk:p1", "d.vmdk:UUID=12ab-cdef"] {
        let args = ["disk", "cat", image, "/efi/DEBIAN/grub config.CFG"];
        let run = world.hako(args);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (0, "set timeout=5\n"),
            "{}",
            run.stderr
        );
    }
    world.fails("cat d.img /EFI", 2, "no file");
    world.fails("cat d.img /nothing", 1, "nothing");
    world.fails("cat d.img:p2 /x", 1, "no file system that hako reads");
    world.fails("cat d.img:p3 /x", 1, "there are: disk (dos), p1 (vfat), p2");
    world.fails("cat none.img:p1 /x", 1, "none.img");
}

#[test]
fn without_a_volume_it_must_be_clear_which() {
    let world = world();
    world.fails("ls d.img --with d.img /", 2, "p1 (vfat), disk2p1 (vfat)");
    assert_eq!(
        world.done("ls d.img:disk2p1 --with d.img /"),
        "EFI\nkernel\n"
    );
    world.raw("empty.img", 1 << 20, &[]);
    world.fails("ls empty.img /", 1, "no file system");
}

#[test]
fn an_mbr_of_large_sectors_is_read_as_told() {
    let world = world();
    let mut disk = world.read("d.img");
    for (at, start, sectors) in [(446, 256_u32, 2560_u32), (462, 2816, 256)] {
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    world.write("d4k.img", &disk);
    assert_eq!(
        world.done("ls d4k.img:p1 --sector-size 4096"),
        "EFI\nkernel\n"
    );
    world.fails("ls d4k.img:p1", 1, "p1");
}

#[test]
fn cp_copies_a_file_with_its_time_and_its_holes() {
    let world = world();
    let host = |name: &str| world.path(name).metadata().unwrap();
    std::fs::create_dir(world.path("out")).unwrap();
    world.done("cp d.img kernel out");
    assert_eq!(world.read("out/kernel"), world.read("kernel"));
    assert!(host("out/kernel").blocks() * 512 < 1 << 20);
    world.done("cp d.img kernel other-name");
    assert_eq!(host("other-name").permissions().mode() & 0o7777, 0o644);
    let time = world.json("ls d.img kernel")["entries"][0]["modified"]["seconds"].clone();
    assert_eq!(json!(host("other-name").mtime()), time);
    world.fails("cp d.img kernel other-name", 1, "--force");
    world.write("other-name", b"");
    world.done("cp --force d.img kernel other-name");
    assert_eq!(world.read("other-name").len(), 3 << 20);
    world.fails("cp d.img kernel no-folder/name", 1, "no-folder");
    assert_eq!(world.names_in("out"), ["kernel"]);
    let printed = world.hako(["disk", "cp", "d.img", "EFI/debian/Grub Config.cfg", "-"]);
    assert_eq!(printed.stdout, "set timeout=5\n");
}

#[test]
fn cp_copies_a_tree_whole_or_not_at_all() {
    let world = world();
    world.fails("cp d.img EFI tree", 2, "--recursive");
    world.done("cp -r d.img EFI tree");
    assert_eq!(
        world.read("tree/debian/Grub Config.cfg"),
        b"set timeout=5\n"
    );
    world.done("cp --recursive d.img EFI tree");
    assert_eq!(world.names_in("tree"), ["EFI", "debian"]);
    world.fails("cp -r d.img EFI tree", 1, "exists");
    world.fails("cp -r d.img / tree", 1, "exists");
    let copied = world.json("cp -r d.img / whole");
    assert_eq!(
        (&copied["files"], &copied["left_out"]),
        (&json!(2), &json!(0))
    );
    assert!(!world.names().iter().any(|name| name.contains("hako-part")));
}

#[test]
fn cp_merges_into_a_tree_only_when_forced_and_follows_no_link_there() {
    let world = world();
    world.done("cp -r d.img EFI tree");
    std::fs::remove_file(world.path("tree/debian/Grub Config.cfg")).unwrap();
    world.write("outside", b"mine");
    std::os::unix::fs::symlink("../../outside", world.path("tree/debian/Grub Config.cfg")).unwrap();
    world.write("tree/own", b"mine too");
    world.done("cp -r --force d.img / tree");
    assert_eq!(world.read("outside"), b"mine");
    assert_eq!(world.read("tree/own"), b"mine too");
    assert_eq!(world.names_in("tree"), ["EFI", "debian", "kernel", "own"]);
    // A link where a folder should be is not entered.
    std::fs::create_dir(world.path("far")).unwrap();
    std::fs::remove_dir_all(world.path("tree/EFI")).unwrap();
    std::os::unix::fs::symlink("../far", world.path("tree/EFI")).unwrap();
    let run = world.disk("cp -r --force d.img / tree");
    assert_ne!(run.code, 0);
    assert!(world.names_in("far").is_empty());
}

#[test]
fn an_image_whose_name_has_a_colon_is_an_image() {
    let world = world();
    std::fs::rename(world.path("d.img"), world.path("d:p9.img")).unwrap();
    assert_eq!(world.done("ls d:p9.img /EFI"), "debian\n");
    assert_eq!(world.done("ls d:p9.img:p1 /EFI"), "debian\n");
}

/// A world with `e.img`: an ext4 with what FAT does not have.
fn unix_world() -> World {
    let world = World::new();
    let tree = world.path("tree");
    std::fs::create_dir_all(tree.join("dir/closed")).unwrap();
    std::fs::write(tree.join("dir/file"), "content").unwrap();
    std::fs::hard_link(tree.join("dir/file"), tree.join("dir/same")).unwrap();
    std::fs::write(tree.join("dir/root-shell"), "#!").unwrap();
    let set_mode = |name: &str, mode| {
        std::fs::set_permissions(tree.join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    set_mode("dir/root-shell", 0o4755);
    std::os::unix::fs::symlink("/etc", tree.join("dir/away")).unwrap();
    std::os::unix::fs::symlink("file", tree.join("dir/link")).unwrap();
    world.peer("mkfifo", &["tree/dir/pipe"]);
    set_mode("dir/closed", 0o500);
    world.raw("e.img", 8 << 20, &[]);
    world.peer("mke2fs", &["-q", "-t", "ext4", "-d", "tree", "e.img"]);
    let owned = ["-w", "-R", "set_inode_field dir/file uid 1234", "e.img"];
    world.peer("debugfs", &owned);
    world
}

#[test]
fn cp_keeps_links_and_modes_and_tells_what_it_leaves_out() {
    let world = unix_world();
    let run = world.disk("cp -r e.img dir out");
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("pipe: not copied"), "{}", run.stderr);
    assert_eq!(
        world.names_in("out"),
        ["away", "closed", "file", "link", "root-shell", "same"]
    );
    let host = |name: &str| world.path(name).symlink_metadata().unwrap();
    assert_eq!(
        std::fs::read_link(world.path("out/away")).unwrap().to_str(),
        Some("/etc")
    );
    assert_eq!(host("out/closed").permissions().mode() & 0o7777, 0o500);
    // A set-id bit without the owner would be that of whoever copies.
    assert_eq!(host("out/root-shell").permissions().mode() & 0o7777, 0o755);
    assert_eq!(host("out/file").ino(), host("out/same").ino());
    assert_ne!(host("out/file").uid(), 1234);
    let long = world.done("ls -l e.img dir");
    assert!(
        long.contains(" link -> file\n") && long.contains("-rwsr-xr-x"),
        "{long}"
    );
    assert!(long.contains("prw"), "{long}");
    assert_eq!(world.done("cat e.img dir/link"), "content");
}

#[test]
fn cp_keeps_owners_when_told_to() {
    let world = unix_world();
    if world.path("e.img").metadata().unwrap().uid() != 0 {
        return world.fails("cp --owner e.img dir/file out", 1, "mode and time");
    }
    world.done("cp --owner e.img dir/file out");
    assert_eq!(world.path("out").metadata().unwrap().uid(), 1234);
    world.done("cp --owner e.img dir/root-shell shell");
    let mode = world.path("shell").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o4755);
}
