//! The gate: what an image names is opened only below its own folder.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hako_tests::{Run, disk_verb};

/// A folder with an image that names something, and a file outside that it must not reach.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vm", "outside"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("outside/secret"), [0x5e; 65536]).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a VMDK whose one extent is the named file.
    fn vmdk_naming(&self, extent: &str) -> PathBuf {
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
             createType=\"monolithicFlat\"\nRW 128 FLAT \"{extent}\" 0\n\
             ddb.adapterType = \"ide\"\n"
        );
        let path = self.path("vm/disk.vmdk");
        std::fs::write(&path, text).unwrap();
        path
    }
}

#[track_caller]
fn refused_by_the_gate(image: &Path) {
    for verb in ["hash", "info"] {
        let run = disk_verb(verb, &[image], &["--json"]).refused();
        assert!(
            run.stderr.contains("\"gate\""),
            "{}{}",
            run.line,
            run.stderr
        );
    }
}

/// With the folder allowed, what the extent holds is what the disk holds.
#[track_caller]
fn opens_when_allowed(image: &Path, options: &[&str]) -> Run {
    let run = disk_verb("hash", &[image], options);
    assert_eq!(run.code, Some(0), "{}{}", run.line, run.stderr);
    run
}

#[test]
fn absolute_path_is_refused_unless_allowed() {
    let world = World::new();
    let outside = world.path("outside");
    let image = world.vmdk_naming(outside.join("secret").to_str().unwrap());
    refused_by_the_gate(&image);
    opens_when_allowed(&image, &["--allow-path", outside.to_str().unwrap()]);
    // The folder that was allowed, not one whose name begins the same.
    let almost = world.path("out");
    std::fs::create_dir(&almost).unwrap();
    disk_verb(
        "hash",
        &[&image],
        &["--allow-path", almost.to_str().unwrap()],
    )
    .refused();
}

#[test]
fn path_through_dot_dot_is_refused_unless_allowed() {
    let world = World::new();
    let image = world.vmdk_naming("../outside/secret");
    refused_by_the_gate(&image);
    let outside = world.path("outside");
    opens_when_allowed(&image, &["--allow-path", outside.to_str().unwrap()]);
}

#[test]
fn symlink_out_of_the_folder_is_refused_and_one_inside_opens() {
    let world = World::new();
    symlink("../outside/secret", world.path("vm/link")).unwrap();
    refused_by_the_gate(&world.vmdk_naming("link"));
    symlink("../outside", world.path("vm/folder")).unwrap();
    refused_by_the_gate(&world.vmdk_naming("folder/secret"));
    std::fs::write(world.path("vm/inside"), [1; 65536]).unwrap();
    symlink("inside", world.path("vm/link-in")).unwrap();
    opens_when_allowed(&world.vmdk_naming("link-in"), &[]);
}

#[test]
fn device_fifo_and_folder_are_refused() {
    let world = World::new();
    for name in [
        "/dev/null",
        "/dev/zero",
        "/dev/vda",
        "/dev/sda",
        "/dev/loop0",
    ] {
        if Path::new(name).exists() {
            refused_by_the_gate(&world.vmdk_naming(name));
        }
    }
    let fifo = world.path("vm/fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    refused_by_the_gate(&world.vmdk_naming("fifo"));
    refused_by_the_gate(&world.vmdk_naming("."));
}

/// A qcow2 header, version 3, that names a backing file of raw format.
fn qcow2_naming(backing: &str) -> Vec<u8> {
    let mut file = vec![0; 6 * 65536];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(8, &512u64.to_be_bytes());
    put(16, &(backing.len() as u32).to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &65536u64.to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &(3u64 * 65536).to_be_bytes());
    put(48, &65536u64.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(104, &0xe279_2acau32.to_be_bytes());
    put(108, &3u32.to_be_bytes());
    put(112, b"raw");
    put(512, backing.as_bytes());
    put(65536, &(2u64 * 65536).to_be_bytes());
    for cluster in 0..4 {
        put(2 * 65536 + cluster * 2, &1u16.to_be_bytes());
    }
    file
}

#[test]
fn qcow2_backing_file_goes_through_the_gate() {
    let world = World::new();
    let outside = world.path("outside");
    let image = world.path("vm/disk.qcow2");
    for name in [
        outside.join("secret").to_str().unwrap(),
        "../outside/secret",
        "/etc/passwd",
    ] {
        std::fs::write(&image, qcow2_naming(name)).unwrap();
        let run = disk_verb("hash", &[&image], &["--json"]).refused();
        assert!(run.stderr.contains("\"gate\""), "{}", run.stderr);
    }
    std::fs::write(&image, qcow2_naming("../outside/secret")).unwrap();
    let allowed = ["--allow-path", outside.to_str().unwrap()];
    let run = opens_when_allowed(&image, &allowed);
    let secret = hako_tests::disk::sha256(&outside.join("secret"));
    assert!(run.stdout.starts_with(&secret), "{}", run.stdout);
}
