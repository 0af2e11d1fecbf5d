//! Block devices as sources and targets, on a loop device.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hako_tests::{run, run_program, skip};

/// A loop device; detached when dropped.
struct Loop(String);

impl Loop {
    /// Attaches a file, if this machine has loop devices and lets us.
    fn attach(file: &Path) -> Option<Self> {
        let file = file.to_str().unwrap();
        let attached = run_program("losetup", &["--find", "--show", file]);
        (attached.code == Some(0)).then(|| Self(attached.stdout.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run_program("losetup", &["--detach", &self.0]);
    }
}

const DEVICE_BYTES: u64 = 8 << 20;

/// A folder with a device full of old bytes, and a smaller disk with data, zeros and a hole.
fn world() -> Option<(tempfile::TempDir, Loop)> {
    let folder = tempfile::tempdir().unwrap();
    let backing = folder.path().join("backing");
    std::fs::write(&backing, vec![0xee; DEVICE_BYTES as usize]).unwrap();
    let mut disk = vec![0; 6 << 20];
    disk[..100_000].fill(1);
    disk[5 << 20..].fill(2);
    std::fs::write(folder.path().join("disk.raw"), disk).unwrap();
    match Loop::attach(&backing) {
        Some(device) => Some((folder, device)),
        None => {
            skip("no loop device can be attached (needs root)");
            None
        }
    }
}

#[test]
fn device_is_written_in_place_and_its_old_bytes_do_not_show() {
    let Some((folder, device)) = world() else {
        return;
    };
    let disk = folder.path().join("disk.raw");
    let disk = disk.to_str().unwrap();
    run(&["disk", "convert", "--verify", disk, &device.0]).ok();
    let written = std::fs::read(&device.0).unwrap();
    let source = std::fs::read(disk).unwrap();
    assert!(written[..source.len()] == source);

    let info = run(&["disk", "info", "--json", &device.0]).json();
    assert_eq!(info["format"], "raw");
    assert_eq!(info["virtual_size"], DEVICE_BYTES);
    let copy = folder.path().join("copy.vmdk");
    let copy = copy.to_str().unwrap();
    run(&["disk", "convert", &device.0, copy]).ok();
    run(&["disk", "compare", &device.0, copy]).ok();

    run(&["disk", "convert", "--to", "qcow2", disk, &device.0]).ok();
    run_program("qemu-img", &["check", "-f", "qcow2", &device.0]).ok();
    run(&[
        "disk", "compare", "-f", "raw", "-F", "qcow2", disk, &device.0,
    ])
    .ok();
}

#[test]
fn device_that_is_too_small_or_in_use_is_refused_untouched() {
    const O_EXCL: i32 = 0o200;
    let Some((folder, device)) = world() else {
        return;
    };
    let large = folder.path().join("large.raw");
    std::fs::write(&large, vec![3; DEVICE_BYTES as usize + 512]).unwrap();
    run(&["disk", "convert", large.to_str().unwrap(), &device.0]).expect_code(8);

    let disk = folder.path().join("disk.raw");
    let holder = OpenOptions::new()
        .read(true)
        .custom_flags(O_EXCL)
        .open(&device.0)
        .unwrap();
    run(&["disk", "convert", disk.to_str().unwrap(), &device.0]).expect_code(5);
    drop(holder);
    let old = std::fs::read(&device.0).unwrap();
    assert!(old.iter().all(|byte| *byte == 0xee));
}
