//! An image has one writer: hako, a running QEMU or a VMware product.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hako_tests::{disk, disk_verb, hako, names, skip};

/// A QEMU that holds an image open.
struct Qemu(Child);

impl Qemu {
    /// Opens the image with qemu-io, which locks it as a running VM does; `None` if it is missing.
    fn holding(image: &Path, format: &str, read_only: bool) -> Option<Self> {
        let mut command = Command::new("qemu-io");
        command.args(["-f", format]);
        if read_only {
            command.arg("-r");
        }
        let child = command
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            skip("qemu-io is not installed: tests/run does that");
            return None;
        };
        // The prompt comes once the image is open.
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"length\n")
            .unwrap();
        let mut byte = [0; 1];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut byte).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        Some(Self(child))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        disk::make_raw(&folder.path().join("disk.raw"), 8 << 20, 1);
        Self { folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn image_that_qemu_writes_is_refused() {
    let world = World::new();
    let image = world.path("disk.raw");
    let Some(qemu) = Qemu::holding(&image, "raw", false) else {
        return;
    };
    for verb in ["hash", "map"] {
        disk_verb(verb, &[&image], &[]).expect_code(5);
    }
    disk_verb("convert", &[&image, &world.path("new.vmdk")], &[]).expect_code(5);
    assert_eq!(names(world.folder.path()), ["disk.raw"]);
    disk_verb("hash", &[&image], &["--force-share"]).ok();
    drop(qemu);
    disk_verb("hash", &[&image], &[]).ok();
}

#[test]
fn image_that_qemu_only_reads_may_be_read() {
    let world = World::new();
    let image = world.path("disk.raw");
    let Some(_qemu) = Qemu::holding(&image, "raw", true) else {
        return;
    };
    disk_verb("hash", &[&image], &[]).ok();
}

#[test]
fn target_that_qemu_writes_is_not_replaced() {
    let world = World::new();
    let (source, target) = (world.path("disk.raw"), world.path("target.raw"));
    disk::make_raw(&target, 1 << 20, 2);
    let before = disk::sha256(&target);
    let Some(_qemu) = Qemu::holding(&target, "raw", false) else {
        return;
    };
    disk_verb("convert", &[&source, &target], &["--force"]).expect_code(5);
    assert_eq!(disk::sha256(&target), before);
    assert_eq!(names(world.folder.path()), ["disk.raw", "target.raw"]);
}

#[test]
fn target_that_another_hako_writes_is_refused() {
    let world = World::new();
    let source = world.path("disk.raw");
    let target = world.path("target.raw");
    let mut first = Command::new(hako())
        .args(["disk", "convert", "--rate", "1M"])
        .args([&source, &target])
        .spawn()
        .unwrap();
    let part = world.path(".target.raw.hako-part");
    let start = Instant::now();
    while !part.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "no part appears");
        std::thread::sleep(Duration::from_millis(5));
    }
    disk_verb("convert", &[&source, &target], &[]).expect_code(5);
    first.kill().unwrap();
    first.wait().unwrap();
    disk_verb("convert", &[&source, &target], &[]).ok();
    assert_eq!(names(world.folder.path()), ["disk.raw", "target.raw"]);
}

#[test]
fn image_that_vmware_locked_is_refused() {
    let world = World::new();
    let image = world.path("disk.vmdk");
    hako_tests::convert(
        &world.path("disk.raw"),
        &image,
        &["--subformat", "monolithicFlat"],
    );
    let lock = world.path("disk.vmdk.lck");
    std::fs::create_dir(&lock).unwrap();
    std::fs::write(lock.join("M12345.lck"), b"lock").unwrap();
    disk_verb("convert", &[&world.path("disk.raw"), &image], &["--force"]).expect_code(5);
    disk_verb("hash", &[&image], &[]).expect_code(5);
    std::fs::remove_file(lock.join("M12345.lck")).unwrap();
    disk_verb("hash", &[&image], &[]).ok();
}

/// A program that only reads has the image: nothing may change under it.
#[test]
fn every_verb_that_changes_an_image_is_refused_while_qemu_has_it() {
    for (extension, qemu_format) in [
        ("vmdk", "vmdk"),
        ("qcow2", "qcow2"),
        ("vhd", "vpc"),
        ("vhdx", "vhdx"),
        ("vdi", "vdi"),
    ] {
        let world = World::new();
        let [base, top] = ["base", "top"].map(|name| world.path(&format!("{name}.{extension}")));
        disk_verb("convert", &[&world.path("disk.raw"), &base], &[]).ok();
        disk_verb("create", &[&top], &["--parent", base.to_str().unwrap()]).ok();
        let before = (
            disk::sha256(&base),
            disk::sha256(&top),
            names(world.folder.path()),
        );
        let Some(qemu) = Qemu::holding(&base, qemu_format, true) else {
            return;
        };
        let new = world.path(&format!("new.{extension}"));
        let uuid = "6000c290-1234-4321-8765-0123456789ab";
        let mut verbs: Vec<(&str, Vec<&Path>, Vec<&str>)> = vec![
            ("resize", vec![&base], vec!["+1M", "--force"]),
            ("compact", vec![&base], vec![]),
            ("check", vec![&base], vec!["--repair", "all"]),
            ("rename", vec![&base, &new], vec![]),
            ("delete", vec![&base], vec!["--force"]),
            ("commit", vec![&top], vec![]),
            ("serve", vec![&base], vec!["--writable", "--port", "0"]),
        ];
        if extension != "qcow2" {
            verbs.push(("set", vec![&base], vec!["--uuid", uuid, "--force"]));
        }
        for (verb, paths, options) in verbs {
            disk_verb(verb, &paths, &options).expect_code(5);
        }
        drop(qemu);
        let after = (
            disk::sha256(&base),
            disk::sha256(&top),
            names(world.folder.path()),
        );
        assert_eq!(before, after, "{extension}");
    }
}
