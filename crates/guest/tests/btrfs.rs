//! btrfs as mkfs.btrfs and the kernel make it, compared with what the kernel shows.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

mod aged;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hako_block::ErrorKind;
use hako_block::crc32c::Crc32c;
use hako_block::testkit::Rng;
use hako_guest::fs::btrfs::{member, open_devices};
use hako_guest::{FileSystem, NodeId, NodeKind, Tree, Volume};

use aged::life::Life;
use aged::{Compare, FileVolume, Image, Mounted, all, assert_same, assert_same_below, have, run};

const MIB: u64 = 1 << 20;
const UUID: &str = "0a1b2c3d-0000-4000-8000-00000000abcd";

const SAME: Compare = Compare {
    lookups: true,
    ..Compare::MOUNTED
};

/// Returns a new btrfs; none if it cannot be made here.
fn make(mib: u64, options: &[&str]) -> Option<Image> {
    if !have(&["mkfs.btrfs", "btrfs"]) {
        return None;
    }
    let image = Image::empty(mib * MIB);
    let mut args = vec!["-q", "-L", "Größe"];
    args.extend(options.iter().filter(|option| !option.is_empty()));
    args.push(image.text());
    run("mkfs.btrfs", &args);
    Some(image)
}

/// One btrfs on several devices.
struct Devices(Vec<Image>);

impl Devices {
    fn make(n_devices: usize, options: &[&str]) -> Option<Self> {
        if !have(&["mkfs.btrfs", "losetup"]) {
            return None;
        }
        let images: Vec<Image> = (0..n_devices).map(|_| Image::empty(300 * MIB)).collect();
        let mut args = vec!["-q"];
        args.extend(options);
        args.extend(images.iter().map(Image::text));
        run("mkfs.btrfs", &args);
        Some(Self(images))
    }

    /// Opens it on these of its devices.
    fn open(&self, devices: &[usize]) -> Arc<dyn FileSystem> {
        let volumes = devices.iter().map(|device| {
            let volume: Arc<dyn Volume> = FileVolume::open(self.0[*device].path());
            volume
        });
        open_devices(volumes.collect()).unwrap()
    }

    /// Mounts it; the loop devices must live longer than what is mounted.
    fn mount(&self, options: &str) -> Option<(Loops, Mounted)> {
        if !rustix::process::geteuid().is_root() {
            aged::skip("no root: nothing can be mounted");
            return None;
        }
        let mut loops = Loops(Vec::new());
        for image in &self.0 {
            let device = run("losetup", &["-f", "--show", image.text()]);
            loops.0.push(device.trim().to_owned());
        }
        let mut all: Vec<String> = loops.0.iter().map(|one| format!("device={one}")).collect();
        all.push(options.to_owned());
        let at = self.0[0].folder().join("mounted");
        fs::create_dir_all(&at).unwrap();
        let text = at.to_str().unwrap();
        run(
            "mount",
            &["-t", "btrfs", "-o", &all.join(","), &loops.0[0], text],
        );
        Some((loops, Mounted::at(&at)))
    }
}

struct Loops(Vec<String>);

impl Drop for Loops {
    fn drop(&mut self) {
        for device in &self.0 {
            let _ = Command::new("btrfs")
                .args(["device", "scan", "--forget", device])
                .output();
            let _ = Command::new("losetup").args(["-d", device]).output();
        }
    }
}

/// Lives a little below `root`, with texts too, which compress.
fn live(root: &Path, seed: u64, n_changes: usize, n_names: usize) {
    Life::new(root, seed, 200_000)
        .go_on(n_changes)
        .oddities()
        .crowd("crowd", n_names);
    texts(root, seed);
}

/// Writes texts of many lengths, and over pieces of them.
fn texts(root: &Path, seed: u64) {
    let mut rng = Rng::new(seed);
    let folder = root.join("texts");
    fs::create_dir(&folder).unwrap();
    for number in 0..40 {
        let len = rng.below(0..[300, 5000, 400_000][number % 3]) as usize;
        let mut text = String::new();
        while text.len() < len {
            text += &format!("line {} of some text that compresses\n", rng.below(0..5000));
        }
        let path = folder.join(format!("text{number} – 東京"));
        fs::write(&path, &text.as_bytes()[..len]).unwrap();
        if number % 2 == 0 {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.sync_all().unwrap();
            let piece = text.as_bytes()[..len.min(3000)].to_vec();
            file.write_all_at(&piece, rng.below(0..len as u64 + 1))
                .unwrap();
        }
    }
}

#[test]
fn an_aged_btrfs_reads_as_mounted() {
    let Some(made) = make(1024, &[]) else {
        return;
    };
    let Some(mounted) = made.mount("btrfs", "") else {
        return;
    };
    live(mounted.path(), 1, if all() { 40_000 } else { 3000 }, 24_000);
    drop(mounted);
    let Some(mounted) = made.mount("btrfs", "ro") else {
        return;
    };
    let fs = made.open();
    assert!(assert_same(&*fs, mounted.path(), SAME) > 20_000);
    assert_eq!(fs.info().label, "Größe");
    assert!(fs.info().remarks.is_empty(), "{:?}", fs.info());
}

#[test]
fn every_way_to_make_and_mount_one_device_is_read() {
    // What mkfs is told, and mount.
    const WAYS: &[(&str, &str)] = &[
        ("", "compress-force=zlib"),
        ("--csum xxhash", "compress-force=zlib:9"),
        ("--csum sha256", "compress-force=lzo"),
        ("--csum blake2 -m single", "compress-force=zstd"),
        ("-n 4096 -m dup -d dup", "compress=lzo"),
        ("-n 65536 -O ^no-holes", "compress-force=zstd:15"),
        ("-O ^no-holes,^extref,^skinny-metadata", "nodatacow"),
        ("-M -O ^no-holes", "nodatasum"),
        ("-M -n 4096", "compress-force=lzo"),
        ("-R ^free-space-tree", "max_inline=0,autodefrag"),
        ("-m dup", "max_inline=4095,space_cache=v2"),
        ("-R quota", "flushoncommit"),
    ];
    for (seed, (mkfs, mount)) in WAYS.iter().enumerate() {
        let options: Vec<&str> = mkfs.split(' ').collect();
        let Some(made) = make(300, &options) else {
            return;
        };
        eprintln!("mkfs.btrfs {mkfs}, mount -o {mount}");
        let Some(mounted) = made.mount("btrfs", mount) else {
            return;
        };
        live(mounted.path(), seed as u64, 400, 150);
        drop(mounted);
        let Some(mounted) = made.mount("btrfs", "ro") else {
            return;
        };
        let fs = made.open();
        assert!(assert_same(&*fs, mounted.path(), SAME) > 150);
        // The superblock's features tell which compressions were used.
        let mut features = [0; 1];
        let file = File::open(made.path()).unwrap();
        file.read_exact_at(&mut features, 65536 + 0xbc).unwrap();
        assert_eq!(features[0] & 8 != 0, mount.contains("lzo"));
        assert_eq!(features[0] & 16 != 0, mount.contains("zstd"));
    }
}

#[test]
fn sectors_of_other_sizes_are_read() {
    let source = aged::folder();
    Life::new(source.path(), 7, 200_000).go_on(400);
    texts(source.path(), 7);
    let root = source.path().to_str().unwrap();
    for sector in ["4096", "8192", "16384", "65536"] {
        let options = ["-s", sector, "-n", "65536", "--rootdir", root];
        let Some(made) = make(300, &options) else {
            return;
        };
        let fs = made.open();
        assert_eq!(fs.info().block_bytes.to_string(), sector);
        let same = Compare {
            lookups: true,
            links: false,
            ..Compare::COPIED
        };
        assert_same(&*fs, source.path(), same);
    }
}

#[test]
fn subvolumes_and_snapshots_are_directories_and_the_default_one_is_the_root() {
    let Some(made) = make(300, &[]) else {
        return;
    };
    let Some(mounted) = made.mount("btrfs", "") else {
        return;
    };
    let at = |name: &str| mounted.path().join(name).to_str().unwrap().to_owned();
    run("btrfs", &["subvolume", "create", &at("@")]);
    run("btrfs", &["subvolume", "create", &at("@/var")]);
    run("btrfs", &["subvolume", "create", &at("@home")]);
    live(Path::new(&at("@")), 1, 400, 150);
    fs::write(at("@/var/log"), "before").unwrap();
    run(
        "btrfs",
        &["subvolume", "snapshot", "-r", &at("@"), &at("@home/snap")],
    );
    fs::write(at("@/var/log"), "after").unwrap();
    fs::remove_dir_all(at("@/crowd")).unwrap();
    run("btrfs", &["subvolume", "create", &at("gone")]);
    run("btrfs", &["subvolume", "delete", "-c", &at("gone")]);
    drop(mounted);
    let Some(mounted) = made.mount("btrfs", "ro") else {
        return;
    };
    // The directory that stands for var in the snapshot has the time at which it was looked up.
    let snap = mounted.path().join("@home/snap");
    assert_eq!(run("ls", &[snap.join("var").to_str().unwrap()]), "");
    let fs = made.open();
    let tree = Tree::new(Arc::clone(&fs));
    let var = tree.find(b"/@home/snap/var").unwrap();
    assert_eq!(var.stat().unwrap().kind, NodeKind::Directory);
    assert!(tree.entries(b"/@home/snap/var", 10).unwrap().is_empty());
    assert_eq!(tree.read(b"/@/var/log", 10).unwrap(), b"after");
    for name in ["@", "@home/snap/texts", "@home/snap/crowd"] {
        let node = tree.find(name.as_bytes()).unwrap().node();
        assert_same_below(&*fs, node, &mounted.path().join(name), SAME);
    }
    assert_eq!(
        fs.root(),
        NodeId {
            tree: 5,
            number: 256
        }
    );
    let at = tree.find(b"@").unwrap().node();
    drop(mounted);

    let Some(mounted) = made.mount("btrfs", "") else {
        return;
    };
    let path = mounted.path().join("@");
    run(
        "btrfs",
        &["subvolume", "set-default", path.to_str().unwrap()],
    );
    drop(mounted);
    let fs = made.open();
    assert_eq!(fs.root(), at);
    assert_eq!(Tree::new(fs).read(b"/var/log", 10).unwrap(), b"after");
}

#[test]
fn several_devices_are_read_and_as_few_as_hold_a_copy() {
    // Profiles of metadata and data, how many devices, and which of them are enough.
    const PROFILES: &[(&str, &str, usize, &[&[usize]])] = &[
        ("raid1", "raid0", 3, &[]),
        ("raid1", "raid1", 2, &[&[0], &[1]]),
        ("raid1c3", "raid1", 3, &[&[0, 1], &[1, 2], &[0, 2]]),
        ("raid1c4", "raid10", 4, &[&[0, 1, 3]]),
        ("raid10", "raid10", 4, &[&[1, 2, 3], &[0, 1, 2]]),
        ("raid0", "single", 2, &[]),
        ("dup", "raid1c3", 3, &[]),
    ];
    for (seed, (metadata, data, n_devices, enough)) in PROFILES.iter().enumerate() {
        let options = ["-m", metadata, "-d", data];
        let Some(made) = Devices::make(*n_devices, &options) else {
            return;
        };
        let Some((loops, mounted)) = made.mount("compress=zstd") else {
            return;
        };
        eprintln!("{metadata} {data}");
        live(mounted.path(), seed as u64, 400, 150);
        drop(mounted);
        drop(loops);
        let Some((_loops, mounted)) = made.mount("ro") else {
            return;
        };
        let every: Vec<usize> = (0..*n_devices).rev().collect();
        let fs = made.open(&every);
        assert!(fs.info().remarks.is_empty());
        assert_same(&*fs, mounted.path(), SAME);
        for devices in *enough {
            let fs = made.open(devices);
            assert!(fs.info().remarks[0].contains("devices are there"));
            assert_same(&*fs, mounted.path(), SAME);
        }
        let one = member(&*FileVolume::open(made.0[1].path()))
            .unwrap()
            .unwrap();
        assert_eq!((one.device, one.n_devices), (2, *n_devices as u64));
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let Some(made) = Devices::make(2, &["-m", "raid1", "-d", "raid0"]) else {
        return;
    };
    let Some((_loops, mounted)) = made.mount("max_inline=0") else {
        return;
    };
    fs::write(mounted.path().join("file"), [7; 300_000]).unwrap();
    drop(mounted);
    let fs = made.open(&[0]);
    let error = Tree::new(fs).read(b"file", 1 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("device 2 of 2 is not there"),
        "{error}"
    );
}

#[test]
fn a_damaged_copy_is_passed_over_and_damage_to_all_is_told() {
    let Some(made) = make(300, &["-m", "dup", "-d", "dup"]) else {
        return;
    };
    let Some(mounted) = made.mount("btrfs", "max_inline=0") else {
        return;
    };
    let content = Rng::new(3).bytes(1_000_000);
    fs::write(mounted.path().join("file"), &content).unwrap();
    drop(mounted);
    let mut image = fs::read(made.path()).unwrap();
    let needle = &content[500_000..500_064];
    let copies: Vec<usize> = (0..image.len() - 64)
        .step_by(32)
        .filter(|at| image[*at..].starts_with(needle))
        .collect();
    assert_eq!(copies.len(), 2, "data is not there twice");
    let read = |image: &[u8]| {
        let volume: Arc<dyn Volume> = Arc::new(image.to_vec());
        let tree = Tree::new(open_devices(vec![volume])?);
        tree.read(b"file", 2_000_000)
    };
    image[copies[0]] ^= 1;
    assert!(read(&image).unwrap() == content);
    image[copies[0]] ^= 1;
    image[copies[1]] ^= 1;
    assert!(read(&image).unwrap() == content);
    image[copies[0]] ^= 1;
    let error = read(&image).unwrap_err();
    assert!(error.to_string().contains("wrong checksum"), "{error}");

    // The first superblock, and each node's first copy: every node begins with its checksum.
    image[copies[0]] ^= 1;
    image[65536 + 100] ^= 1;
    let fsid: [u8; 16] = image[(64 << 20) + 0x20..][..16].try_into().unwrap();
    let mut met = BTreeSet::new();
    for at in (1 << 20..image.len()).step_by(16384) {
        let logical: [u8; 8] = image[at + 0x30..][..8].try_into().unwrap();
        let is_node = at != 64 << 20 && image[at + 0x20..].starts_with(&fsid);
        if is_node && met.insert(logical) {
            image[at + 200] ^= 1;
        }
    }
    assert!(met.len() > 5);
    assert!(read(&image).unwrap() == content);
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let Some(made) = make(300, &[]) else {
        return;
    };
    let image = fs::read(made.path()).unwrap();
    let refused = |bit: u32| {
        let mut image = image[..3 << 20].to_vec();
        let at = 65536 + 0xbc + bit as usize / 8;
        image[at] |= 1 << (bit % 8);
        seal(&mut image, 65536, 4096);
        let volume: Arc<dyn Volume> = Arc::new(image);
        let error = hako_guest::fs::open(volume).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        error.to_string()
    };
    assert!(refused(12).contains("zoned"));
    assert!(refused(13).contains("extent-tree-v2"));
    assert!(refused(14).contains("raid-stripe-tree"));
    assert!(refused(40).contains("bit 40"));
}

#[test]
fn what_was_made_over_a_btrfs_is_found_and_not_what_was_there() {
    let Some(made) = make(300, &[]) else {
        return;
    };
    assert_eq!(made.open().info().kind, "btrfs");
    for (program, kind) in [("mkntfs", "ntfs"), ("mkfs.ext4", "ext4")] {
        let args = ["-q", "-F", made.path().to_str().unwrap()];
        run(program, &args);
        assert_eq!(made.open().info().kind, kind);
    }
    let args = ["-q", "-f", made.path().to_str().unwrap()];
    run("mkfs.btrfs", &args);
    assert_eq!(made.open().info().kind, "btrfs");
}

#[test]
fn an_unclean_btrfs_reads_as_of_its_last_commit_and_says_so() {
    let Some(made) = make(300, &[]) else {
        return;
    };
    let Some(mounted) = made.mount("btrfs", "commit=300") else {
        return;
    };
    live(mounted.path(), 11, 400, 150);
    fs::write(mounted.path().join("file"), "committed").unwrap();
    run(
        "btrfs",
        &["filesystem", "sync", mounted.path().to_str().unwrap()],
    );
    let kept = aged::folder();
    let all = format!("{}/.", mounted.path().display());
    run("cp", &["-a", &all, kept.path().to_str().unwrap()]);
    fs::write(mounted.path().join("file"), "synced, and longer").unwrap();
    File::open(mounted.path().join("file"))
        .unwrap()
        .sync_all()
        .unwrap();
    let fs = made.copy().open();
    let remarks = fs.info().remarks.clone();
    assert!(remarks[0].contains("log"), "{remarks:?}");
    let same = Compare {
        times: true,
        ..Compare::COPIED
    };
    assert_same(&*fs, kept.path(), same);
    assert_eq!(Tree::new(fs).read(b"file", 100).unwrap(), b"committed");
}

#[test]
fn a_changed_identity_is_shown_and_nodes_with_the_old_one_are_read() {
    let source = aged::folder();
    fs::write(source.path().join("file"), "content").unwrap();
    let Some(made) = make(300, &["--rootdir", source.path().to_str().unwrap()]) else {
        return;
    };
    let args = ["-M", UUID, made.path().to_str().unwrap()];
    run("btrfstune", &args);
    let fs = made.open();
    assert_eq!(fs.info().uuid, UUID);
    assert_eq!(Tree::new(fs).read(b"file", 10).unwrap(), b"content");
}

#[test]
fn names_of_the_same_hash_are_told_apart() {
    let hash = |name: &str| {
        let mut crc = Crc32c::from_state(!1);
        crc.update(name.as_bytes());
        crc.state()
    };
    let mut rng = Rng::new(4);
    let mut met = HashMap::new();
    let same: Vec<[String; 2]> = (0..400_000)
        .map(|_| format!("{:016x}", rng.next_u64()))
        .filter_map(|name| {
            let other = met.insert(hash(&name), name.clone());
            other.map(|other| [name, other])
        })
        .take(3)
        .collect();
    assert!(!same.is_empty());
    let Some(made) = make(300, &[]) else {
        return;
    };
    let Some(mounted) = made.mount("btrfs", "") else {
        return;
    };
    for name in same.iter().flatten() {
        fs::write(mounted.path().join(name), name).unwrap();
    }
    drop(mounted);
    let tree = Tree::new(made.open());
    for name in same.iter().flatten() {
        assert_eq!(tree.read(name.as_bytes(), 100).unwrap(), name.as_bytes());
    }
}

#[test]
fn threads_read_one_btrfs_at_once() {
    let Some(made) = make(300, &["-n", "4096"]) else {
        return;
    };
    let Some(mounted) = made.mount("btrfs", "compress-force=zstd") else {
        return;
    };
    live(mounted.path(), 12, 400, 150);
    drop(mounted);
    let Some(mounted) = made.mount("btrfs", "ro") else {
        return;
    };
    let fs = made.open();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_same(&*fs, mounted.path(), SAME));
        }
    });
}

/// Makes a checksum right again.
fn seal(image: &mut [u8], at: usize, len: usize) {
    let mut crc = Crc32c::new();
    crc.update(&image[at + 32..at + len]);
    image[at..at + 4].copy_from_slice(&crc.value().to_le_bytes());
}

/// Whatever is in nodes and superblock, with checksums that are right: no panic, no end without end.
#[test]
fn a_hostile_btrfs_is_soon_done_with() {
    let Some(made) = make(40, &["-n", "4096", "-M"]) else {
        return;
    };
    let Some(mounted) = made.mount("btrfs", "compress-force=lzo") else {
        return;
    };
    live(mounted.path(), 5, 150, 100);
    drop(mounted);
    let sound = fs::read(made.path()).unwrap();
    let fsid: [u8; 16] = sound[65536 + 0x20..][..16].try_into().unwrap();
    let nodes: Vec<usize> = (1 << 20..sound.len())
        .step_by(4096)
        .filter(|at| sound[at + 0x20..].starts_with(&fsid))
        .collect();
    let mut rng = Rng::new(9);
    let mut image = sound.clone();
    for _ in 0..if all() { 5000 } else { 100 } {
        let mut changed = Vec::new();
        for _ in 0..rng.below(1..12) {
            let at = match rng.one_in(12) {
                true => 65536,
                false => nodes[rng.below(0..nodes.len() as u64) as usize],
            };
            let most = if rng.one_in(3) { 4096 } else { 400 };
            let byte = at + rng.below(32..most) as usize;
            let value = [0, 1, 0x7f, 0x80, 0xff, rng.next_u64() as u8][rng.below(0..6) as usize];
            match rng.one_in(4) {
                true => image[byte..(byte + 8).min(at + 4096)].fill(value),
                false => image[byte] = value,
            }
            seal(&mut image, at, 4096);
            changed.push(at);
        }
        let volume: Arc<dyn Volume> = Arc::new(image.clone());
        if let Ok(Some(fs)) = hako_guest::fs::open(volume) {
            aged::read_all(&*fs);
        }
        for at in changed {
            image[at..at + 4096].copy_from_slice(&sound[at..at + 4096]);
        }
    }
    for len in [0, 65536, 69000, 70_000, 1 << 20, 30 << 20] {
        let volume: Arc<dyn Volume> = Arc::new(sound[..len].to_vec());
        if let Ok(Some(fs)) = hako_guest::fs::open(volume) {
            aged::read_all(&*fs);
        }
    }
}
