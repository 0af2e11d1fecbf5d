//! btrfs as mkfs.btrfs and the kernel make it, compared with what the kernel shows.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::ErrorKind;
use hako_block::testkit::Rng;
use hako_guest::fs::btrfs::{member, open_devices};
use hako_guest::{FileSystem, NodeId, NodeKind, Tree, Volume};
use hako_tests::guest::{
    Age, FileVolume, Mounted, Same, age, ask_everything, assert_same, open, peer,
};
use hako_tests::{all, run_program};

const SAME: Same = Same {
    unix: true,
    directory_links: true,
    times: true,
};

/// A file of so many MiB with a new btrfs; several with several devices.
struct Made {
    _folder: tempfile::TempDir,
    devices: Vec<PathBuf>,
}

impl Made {
    fn new(mib: u64, n_devices: usize, options: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let devices: Vec<PathBuf> = (0..n_devices)
            .map(|device| {
                let path = folder.path().join(format!("device{device}"));
                File::create(&path).unwrap().set_len(mib << 20).unwrap();
                path
            })
            .collect();
        let mut args = vec!["-q", "-L", "Größe"];
        args.extend(options.iter().filter(|option| !option.is_empty()));
        args.extend(devices.iter().map(|device| device.to_str().unwrap()));
        peer("mkfs.btrfs", &args)?.ok();
        Some(Self {
            _folder: folder,
            devices,
        })
    }

    fn path(&self) -> &Path {
        &self.devices[0]
    }

    fn mount(&self, options: &str) -> Option<Mounted> {
        Mounted::file(self.path(), "btrfs", options)
    }

    /// Opens the file system on these of its devices.
    fn open(&self, devices: &[usize]) -> Arc<dyn FileSystem> {
        let volumes = devices
            .iter()
            .map(|device| FileVolume::open(&self.devices[*device]));
        open_devices(volumes.collect()).unwrap()
    }
}

/// Loop devices of all devices of a file system, mounted.
struct Loops(Vec<String>);

impl Loops {
    fn mount(made: &Made, options: &str) -> Option<(Self, Mounted)> {
        let mut loops = Self(Vec::new());
        for device in &made.devices {
            let args = ["-f".as_ref(), "--show".as_ref(), device.as_os_str()];
            loops.0.push(peer("losetup", &args)?.ok().trim().to_owned());
        }
        let more = loops.0[1..].iter().map(|device| format!("device={device}"));
        let options: Vec<String> = more.chain([options.to_owned()]).collect();
        let args = ["-t", "btrfs", "-o", &options.join(","), &loops.0[0]];
        let mounted = Mounted::by("mount", &args)?;
        Some((loops, mounted))
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for device in &self.0 {
            run_program("btrfs", &["device", "scan", "--forget", device]);
            run_program("losetup", &["-d", device]);
        }
    }
}

fn young(seed: u64) -> Age {
    Age {
        seed,
        n_steps: 300,
        n_names: 120,
        unix: true,
    }
}

#[track_caller]
fn btrfs(args: &[&str]) {
    run_program("btrfs", args).ok();
}

#[test]
fn an_aged_btrfs_reads_as_mounted() {
    let Some(made) = Made::new(1024, 1, &[]) else {
        return;
    };
    let Some(mounted) = made.mount("") else {
        return;
    };
    let how = Age {
        seed: 1,
        n_steps: if all() { 40_000 } else { 2500 },
        n_names: 24_000,
        unix: true,
    };
    age(mounted.path(), how);
    mounted.unmount();
    let Some(mounted) = made.mount("ro") else {
        return;
    };
    let fs = open(made.path());
    assert!(assert_same(&*fs, fs.root(), mounted.path(), SAME) > 20_000);
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
        let Some(made) = Made::new(300, 1, &options) else {
            return;
        };
        eprintln!("mkfs.btrfs {mkfs}, mount -o {mount}");
        let Some(mounted) = made.mount(mount) else {
            return;
        };
        age(mounted.path(), young(seed as u64));
        mounted.unmount();
        let Some(mounted) = made.mount("ro") else {
            return;
        };
        let fs = open(made.path());
        assert!(assert_same(&*fs, fs.root(), mounted.path(), SAME) > 150);
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
    let source = tempfile::tempdir().unwrap();
    let how = Age {
        unix: false,
        ..young(7)
    };
    age(source.path(), how);
    let root = source.path().to_str().unwrap();
    for sector in ["4096", "8192", "16384", "65536"] {
        let options = ["-s", sector, "-n", "65536", "--rootdir", root];
        let Some(made) = Made::new(300, 1, &options) else {
            return;
        };
        let fs = open(made.path());
        assert_eq!(fs.info().block_bytes.to_string(), sector);
        let same = Same {
            directory_links: false,
            times: false,
            ..SAME
        };
        assert_same(&*fs, fs.root(), source.path(), same);
    }
}

#[test]
fn subvolumes_and_snapshots_are_directories_and_the_default_one_is_the_root() {
    let Some(made) = Made::new(300, 1, &[]) else {
        return;
    };
    let Some(mounted) = made.mount("") else {
        return;
    };
    let at = |name: &str| mounted.path().join(name).to_str().unwrap().to_owned();
    btrfs(&["subvolume", "create", &at("@")]);
    btrfs(&["subvolume", "create", &at("@/var")]);
    btrfs(&["subvolume", "create", &at("@home")]);
    age(Path::new(&at("@")), young(1));
    fs::write(at("@/var/log"), "before").unwrap();
    btrfs(&["subvolume", "snapshot", "-r", &at("@"), &at("@home/snap")]);
    fs::write(at("@/var/log"), "after").unwrap();
    fs::remove_dir_all(at("@/large")).unwrap();
    btrfs(&["subvolume", "create", &at("gone")]);
    btrfs(&["subvolume", "delete", "-c", &at("gone")]);
    mounted.unmount();
    let Some(mounted) = made.mount("ro") else {
        return;
    };
    // The directory that stands for var in the snapshot has the time at which it was looked up.
    let snap = mounted.path().join("@home/snap");
    let theirs = run_program("ls", &[snap.join("var")]).ok();
    assert_eq!(theirs, "");
    let fs = open(made.path());
    let tree = Tree::new(Arc::clone(&fs));
    let var = tree.find(b"/@home/snap/var").unwrap();
    assert_eq!(var.stat().unwrap().kind, NodeKind::Directory);
    assert!(tree.entries(b"/@home/snap/var", 10).unwrap().is_empty());
    assert_eq!(tree.read(b"/@/var/log", 10).unwrap(), b"after");
    for name in ["@", "@home/snap/work", "@home/snap/large"] {
        let node = tree.find(name.as_bytes()).unwrap().node();
        assert_same(&*fs, node, &mounted.path().join(name), SAME);
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

    let Some(mounted) = made.mount("") else {
        return;
    };
    let path = mounted.path().join("@");
    btrfs(&["subvolume", "set-default", path.to_str().unwrap()]);
    mounted.unmount();
    let fs = open(made.path());
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
        let Some(made) = Made::new(300, *n_devices, &options) else {
            return;
        };
        let Some((loops, mounted)) = Loops::mount(&made, "compress=zstd") else {
            return;
        };
        eprintln!("{metadata} {data}");
        age(mounted.path(), young(seed as u64));
        mounted.unmount();
        drop(loops);
        let Some((_loops, mounted)) = Loops::mount(&made, "ro") else {
            return;
        };
        let every: Vec<usize> = (0..*n_devices).rev().collect();
        let fs = made.open(&every);
        assert!(fs.info().remarks.is_empty());
        assert_same(&*fs, fs.root(), mounted.path(), SAME);
        for devices in *enough {
            let fs = made.open(devices);
            assert!(fs.info().remarks[0].contains("devices are there"));
            assert_same(&*fs, fs.root(), mounted.path(), SAME);
        }
        let one = member(&*FileVolume::open(&made.devices[1]))
            .unwrap()
            .unwrap();
        assert_eq!((one.device, one.n_devices), (2, *n_devices as u64));
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let Some(made) = Made::new(300, 2, &["-m", "raid1", "-d", "raid0"]) else {
        return;
    };
    let Some((_loops, mounted)) = Loops::mount(&made, "max_inline=0") else {
        return;
    };
    fs::write(mounted.path().join("file"), [7; 300_000]).unwrap();
    mounted.unmount();
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
    let Some(made) = Made::new(300, 1, &["-m", "dup", "-d", "dup"]) else {
        return;
    };
    let Some(mounted) = made.mount("max_inline=0") else {
        return;
    };
    let content = Rng::new(3).bytes(1_000_000);
    fs::write(mounted.path().join("file"), &content).unwrap();
    mounted.unmount();
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
    let mut met = std::collections::BTreeSet::new();
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
    let Some(made) = Made::new(300, 1, &[]) else {
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
    let Some(made) = Made::new(300, 1, &[]) else {
        return;
    };
    assert_eq!(open(made.path()).info().kind, "btrfs");
    for (program, kind) in [("mkntfs", "ntfs"), ("mkfs.ext4", "ext4")] {
        let args = ["-q", "-F", made.path().to_str().unwrap()];
        let Some(run) = peer(program, &args) else {
            return;
        };
        run.ok();
        assert_eq!(open(made.path()).info().kind, kind);
    }
    let args = ["-q", "-f", made.path().to_str().unwrap()];
    peer("mkfs.btrfs", &args).unwrap().ok();
    assert_eq!(open(made.path()).info().kind, "btrfs");
}

/// Makes a checksum right again.
fn seal(image: &mut [u8], at: usize, len: usize) {
    let mut crc = hako_block::crc32c::Crc32c::new();
    crc.update(&image[at + 32..at + len]);
    image[at..at + 4].copy_from_slice(&crc.value().to_le_bytes());
}

/// Whatever is in nodes and superblock, with checksums that are right: no panic, no end without end.
#[test]
fn a_hostile_btrfs_is_soon_done_with() {
    let Some(made) = Made::new(120, 1, &["-n", "4096", "-m", "single"]) else {
        return;
    };
    let Some(mounted) = made.mount("compress-force=lzo") else {
        return;
    };
    let how = Age {
        n_steps: 150,
        n_names: 100,
        ..young(5)
    };
    age(mounted.path(), how);
    mounted.unmount();
    let sound = fs::read(made.path()).unwrap();
    let fsid: [u8; 16] = sound[65536 + 0x20..][..16].try_into().unwrap();
    let nodes: Vec<usize> = (1 << 20..sound.len())
        .step_by(4096)
        .filter(|at| sound[at + 0x20..].starts_with(&fsid))
        .collect();
    let mut rng = Rng::new(9);
    let mut image = sound.clone();
    for _ in 0..if all() { 5000 } else { 150 } {
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
            ask_everything(&*fs, 400);
        }
        for at in changed {
            image[at..at + 4096].copy_from_slice(&sound[at..at + 4096]);
        }
    }
    for len in [0, 65536, 69000, 70_000, 1 << 20, 30 << 20] {
        let volume: Arc<dyn Volume> = Arc::new(sound[..len].to_vec());
        if let Ok(Some(fs)) = hako_guest::fs::open(volume) {
            ask_everything(&*fs, 400);
        }
    }
}
