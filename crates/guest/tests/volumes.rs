//! Partition tables, volume groups, FAT and ISO 9660 as others make them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

mod aged;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::testkit::Rng;
use hako_guest::partitions::{self, PartitionKind};
use hako_guest::volume::read_vec;
use hako_guest::{Tree, Volume, Volumes};

use aged::{Compare, FileVolume, Image, assert_same, have, run, skip, torture};

const MIB: u64 = 1 << 20;

fn sparse(path: &Path, len: u64) {
    File::create(path).unwrap().set_len(len).unwrap();
}

/// Runs a line of a shell, which must succeed.
#[track_caller]
fn shell(line: &str) -> String {
    run("sh", &["-c", line])
}

/// A disk with sectors of a size of its own.
struct OfSectors(Arc<dyn Volume>, u32);

impl Volume for OfSectors {
    fn len_bytes(&self) -> u64 {
        self.0.len_bytes()
    }

    fn sector_bytes(&self) -> u32 {
        self.1
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> hako_block::Result<()> {
        self.0.read_at(offset, buf)
    }
}

#[test]
fn partition_tables_are_read_as_sfdisk_lists_them() {
    if !have(&["sfdisk"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    for (size, script) in [
        (
            512,
            "label: dos\nsize=10M, type=83, bootable\nsize=20M, type=5\nsize=4M, type=82\n\nsize=3M, type=8e\nsize=2M, type=83\nsize=1M, type=fd\n",
        ),
        (512, "label: dos\nstart=63, size=1000, type=c\ntype=f\n"),
        (
            512,
            "label: gpt\nsize=5M, type=U, name=\"EFI ü\"\nsize=1M, type=21686148-6449-6E6F-744E-656564454649\ntype=L, name=root\n",
        ),
        (
            4096,
            "label: gpt\nsize=5M, type=U\nsize=8M, type=L, name=four\n",
        ),
        (
            4096,
            "label: dos\nsize=10M, type=83\nsize=20M, type=5\nsize=4M, type=83\nsize=3M, type=83\n",
        ),
    ] {
        sparse(&image, 64 * MIB);
        fs::write(folder.path().join("script"), script).unwrap();
        let at = folder.path().display();
        let Some(loops) = Loops::over(std::slice::from_ref(&image), size) else {
            return;
        };
        let device = &loops.0[0];
        shell(&format!(
            "sfdisk -q --no-reread --no-tell-kernel {device} < {at}/script 2>&1"
        ));
        let listed = shell(&format!("sfdisk --json {device}"));
        drop(loops);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let disk = OfSectors(FileVolume::open(&image), size);
        let table = partitions::read(&disk).unwrap().unwrap();
        assert_eq!(table.remarks, Vec::<String>::new(), "{script}");
        assert_eq!(table.kind.name(), listed["partitiontable"]["label"]);
        let expected = listed["partitiontable"]["partitions"].as_array().unwrap();
        let expected = expected
            .iter()
            .filter(|part| !matches!(part["type"].as_str(), Some("5" | "f")));
        let mut ours = table.partitions.iter();
        for part in expected {
            let own = ours.next().expect("one more partition");
            assert!(
                part["node"]
                    .as_str()
                    .unwrap()
                    .ends_with(&own.number.to_string())
            );
            assert_eq!(part["start"], own.start / u64::from(size));
            assert_eq!(part["size"], own.len / u64::from(size));
            assert_eq!(part["type"], own.kind.to_string());
            assert_eq!(part["name"].as_str().unwrap_or(""), own.label);
            assert_eq!(part["bootable"] == true, own.bootable);
            if matches!(own.kind, PartitionKind::Gpt(_)) {
                assert_eq!(part["uuid"], own.uuid.to_uppercase());
            }
        }
        assert!(ours.next().is_none());
    }
}

/// Loop devices over files; they are let go when dropped.
struct Loops(Vec<String>);

impl Loops {
    fn over(files: &[PathBuf], sector_bytes: u32) -> Option<Self> {
        let mut loops = Self(Vec::new());
        for file in files {
            let device = shell(&format!(
                "losetup -b {sector_bytes} -f --show {} || true",
                file.display()
            ));
            if device.is_empty() {
                skip("no loop devices here: LVM's own tools have nothing to work on");
                return None;
            }
            loops.0.push(device.trim().to_owned());
        }
        Some(loops)
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for device in &self.0 {
            shell(&format!("losetup -d {device} || true"));
        }
    }
}

/// Runs a command of LVM on these devices only, without the kernel's device-mapper.
#[track_caller]
fn lvm(line: &str, loops: &Loops) -> String {
    let filter: Vec<_> = loops
        .0
        .iter()
        .map(|device| format!("\"a|^{device}$|\""))
        .collect();
    let filter = filter.join(",");
    shell(&format!(
        "LVM_SUPPRESS_FD_WARNINGS=1 lvm {line} --driverloaded n --config 'devices {{ \
         use_devicesfile=0 filter=[{filter},\"r|.*|\"] }} global {{ locking_type=0 }}' 2>/dev/null"
    ))
}

#[test]
fn logical_volumes_are_where_lvs_says_they_are() {
    if !have(&["lvm", "losetup"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..3)
        .map(|n| folder.path().join(format!("pv{n}")))
        .collect();
    let mut rng = Rng::new(3);
    for file in &files {
        let noise: Vec<u8> = (0..24 * MIB / 8)
            .flat_map(|_| rng.next_u64().to_le_bytes())
            .collect();
        fs::write(file, noise).unwrap();
    }
    let Some(loops) = Loops::over(&files, 512) else {
        return;
    };
    lvm(
        &format!(
            "pvcreate -q -ff -y --metadatacopies 2 {}",
            loops.0.join(" ")
        ),
        &loops,
    );
    lvm(
        &format!("vgcreate -q -s 64k hako-vg {}", loops.0.join(" ")),
        &loops,
    );
    // Many small changes push the text round its ring.
    for n in 0..40 {
        lvm(
            &format!(
                "lvcreate -q -y -an -Zn -Wn -l {} -n x{n} hako-vg",
                1 + n % 5
            ),
            &loops,
        );
    }
    for n in (0..40).step_by(2) {
        lvm(&format!("lvremove -q -y hako-vg/x{n}"), &loops);
    }
    lvm("lvcreate -q -y -an -Zn -Wn -l 200 -n frag hako-vg", &loops);
    lvm(
        "lvcreate -q -y -an -Zn -Wn -i 3 -I 16k -l 60 -n str-ipes hako-vg",
        &loops,
    );
    lvm("lvextend -q -y -l +20 hako-vg/x1", &loops);
    let map = lvm(
        "lvs --noheadings --separator \";\" -o lv_name,seg_start_pe,seg_size_pe,stripesize,seg_pe_ranges \
         --units b --nosuffix hako-vg",
        &loops,
    );
    let start: u64 = lvm("pvs --noheadings -o pe_start --units b --nosuffix", &loops)
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let devices = loops.0.clone();
    drop(loops);
    let expected = content_of(&map, start, &devices, &files);
    for order in [[0, 1, 2], [2, 0, 1]] {
        let disks = order.map(|disk| FileVolume::open(&files[disk]) as Arc<dyn Volume>);
        let volumes = Volumes::of(disks.to_vec()).unwrap();
        assert_eq!(volumes.remarks(), Vec::<String>::new());
        assert_eq!(volumes.list().len(), 3 + expected.len());
        for (name, content) in &expected {
            let found = volumes.find(&format!("hako-vg/{name}"))[0];
            let volume = found.volume.as_ref().unwrap();
            assert_eq!(volume.len_bytes(), content.len() as u64, "{name}");
            let read = read_vec(&**volume, 0, content.len()).unwrap();
            assert!(read == *content, "{name}");
        }
        let mapper = volumes.find("/dev/mapper/hako--vg-str--ipes");
        assert_eq!(mapper[0].name, "hako-vg/str-ipes");
    }
    // Without one of the disks: what needs it is named, what does not is read.
    let two = [1, 2].map(|disk| FileVolume::open(&files[disk]) as Arc<dyn Volume>);
    let volumes = Volumes::of(two.to_vec()).unwrap();
    let is_there = |name: &str| volumes.find(&format!("hako-vg/{name}"))[0].volume.is_some();
    assert!(!is_there("str-ipes") && !volumes.remarks().is_empty());
}

/// Puts the content of logical volumes together by the map that lvs prints: an extent is 64 KiB.
fn content_of(
    map: &str,
    start: u64,
    devices: &[String],
    files: &[PathBuf],
) -> Vec<(String, Vec<u8>)> {
    const EXTENT: u64 = 64 << 10;
    let mut volumes: Vec<(String, Vec<u8>)> = Vec::new();
    let mut rows: Vec<Vec<&str>> = map
        .lines()
        .map(|line| line.trim().split(';').collect())
        .collect();
    rows.sort_by_key(|row| (row[0].to_owned(), row[1].parse::<u64>().unwrap()));
    for row in rows {
        let mut ranges = row[4].split_whitespace().map(|range| {
            let (device, extents) = range.rsplit_once(':').unwrap();
            let (first, last) = extents.split_once('-').unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            let disk = devices.iter().position(|known| known == device).unwrap();
            let mut bytes = vec![0; ((last - first + 1) * EXTENT) as usize];
            let file = File::open(&files[disk]).unwrap();
            file.read_exact_at(&mut bytes, start + first * EXTENT)
                .unwrap();
            bytes
        });
        let stripe: usize = row[3].parse().unwrap();
        let content = match stripe {
            0 => ranges.next().unwrap(),
            stripe => {
                let stripes: Vec<Vec<u8>> = ranges.collect();
                let n_rows = stripes[0].chunks(stripe).count();
                let row = |row| {
                    stripes
                        .iter()
                        .map(move |bytes| &bytes[row * stripe..][..stripe])
                };
                (0..n_rows).flat_map(row).flatten().copied().collect()
            }
        };
        match volumes.last_mut() {
            Some((name, whole)) if name == row[0] => whole.extend(content),
            _ => volumes.push((row[0].to_owned(), content)),
        }
    }
    volumes
}

/// What FAT and Joliet keep.
const NAMES_AND_CONTENT: Compare = Compare {
    is_same: false,
    links: false,
    owners: false,
    times: false,
    lookups: true,
};

#[test]
fn an_aged_fat_is_read_as_mtools_reads_it() {
    for (options, mib) in [
        ("-F 12 -s 2", 3),
        ("-F 16", 20),
        ("-F 32 -s 1", 40),
        ("-F 32", 300),
    ] {
        if !have(&["mkfs.vfat", "mcopy"]) {
            return;
        }
        let image = Image::empty(mib * MIB);
        let at = image.folder().display();
        shell(&format!(
            "mkfs.vfat {options} -n LABEL -i 1234abcd {at}/image"
        ));
        age_fat(image.folder(), mib);
        fs::create_dir(image.folder().join("out")).unwrap();
        shell(&format!("mcopy -s -m -n -i {at}/image '::*' {at}/out"));
        let fs = image.open();
        assert_eq!(
            (&*fs.info().uuid, &*fs.info().label),
            ("1234-ABCD", "LABEL")
        );
        let n = assert_same(&*fs, &image.folder().join("out"), NAMES_AND_CONTENT);
        assert!(n > 20, "{n}");
    }
}

/// Copies files in and deletes some of them, again and again.
fn age_fat(folder: &Path, mib: u64) {
    let at = folder.display();
    let mut rng = Rng::new(mib);
    shell(&format!(
        "mmd -i {at}/image ::/sub '::/a long directory name'"
    ));
    for round in 0..4 {
        let mut lines = String::new();
        for n in 0..12 {
            let name = match n % 3 {
                0 => format!("F{round}{n}.BIN"),
                1 => format!("a long name, number {round} of {n}.text"),
                _ => format!("Ünïcode-{round}-{n}"),
            };
            let len = rng.below(0..mib * 6000) as usize;
            let bytes: Vec<u8> = (0..len / 8 + 1)
                .flat_map(|_| rng.next_u64().to_le_bytes())
                .collect();
            fs::write(folder.join(&name), &bytes[..len]).unwrap();
            let below = ["", "sub/", "a long directory name/"][n % 3];
            lines += &format!("mcopy -m -o -i {at}/image '{at}/{name}' '::/{below}' || exit 1\n");
            if rng.one_in(2) {
                lines += &format!("mdel -i {at}/image '::/{below}{name}'\n");
            }
        }
        shell(&format!("export LC_ALL=C.UTF-8; {lines}"));
    }
}

/// A tree with everything that Rock Ridge keeps.
fn tree(folder: &Path) {
    fs::create_dir_all(folder.join("1/2/3")).unwrap();
    fs::write(folder.join("1/2/3/file"), "three").unwrap();
    fs::create_dir(folder.join("many")).unwrap();
    for n in 0..300 {
        let name = format!("a name that is rather long, and so fills sectors {n}");
        fs::write(folder.join("many").join(name), vec![n as u8; n * 37]).unwrap();
    }
    fs::write(folder.join("UPPER and lower.Txt"), "case").unwrap();
    fs::write(folder.join("x".repeat(200)), "long").unwrap();
    symlink("../many/./x", folder.join("1/link")).unwrap();
    symlink("/absolute/target", folder.join("absolute")).unwrap();
    // Links that do not fit into a record genisoimage writes wrong.
    symlink(format!("../{}/./y", "y".repeat(60)), folder.join("far")).unwrap();
    shell(&format!(
        "chmod 4711 '{}/UPPER and lower.Txt'",
        folder.display()
    ));
    shell(&format!(
        "find {} -exec touch -h -d @1700000000 {{}} +",
        folder.display()
    ));
}

#[test]
fn iso_images_of_genisoimage_are_read() {
    if !have(&["genisoimage", "blkid"]) {
        return;
    }
    let image = Image::empty(0);
    let at = image.folder().display();
    let source = image.folder().join("tree");
    fs::create_dir(&source).unwrap();
    tree(&source);
    for (options, unix) in [
        ("-R", true),
        ("-R -J -joliet-long", true),
        ("-J -joliet-long", false),
    ] {
        if !unix {
            // Joliet has neither links nor names as long.
            shell(&format!("cd {at}/tree && rm -r 1 absolute far xxx*"));
        }
        shell(&format!(
            "genisoimage -quiet {options} -V 'MY DISC' -o {at}/image {at}/tree 2>&1"
        ));
        let fs = image.open();
        assert_eq!((fs.info().kind, &*fs.info().label), ("iso9660", "MY DISC"));
        let blkid = shell(&format!("blkid -p -s UUID -o value {at}/image || true"));
        assert_eq!(blkid.trim(), fs.info().uuid);
        let compare = Compare {
            owners: unix,
            times: unix,
            ..NAMES_AND_CONTENT
        };
        let n = assert_same(&*fs, &source, compare);
        assert!(n > 300, "{n}");
    }
    directories_that_were_moved_are_in_their_place(&image);
    let mut bytes = fs::read(image.path()).unwrap();
    bytes.truncate(200 << 10);
    torture(&bytes, 150, std::time::Duration::from_secs(10));
}

/// Rock Ridge moves what lies deeper than eight directories.
fn directories_that_were_moved_are_in_their_place(image: &Image) {
    let at = image.folder().display();
    shell(&format!(
        "mkdir -p {at}/far/1/2/3/4/5/6/7/8/9/10 && echo deep > {at}/far/1/2/3/4/5/6/7/8/9/10/file && \
         genisoimage -quiet -R -o {at}/far.iso {at}/far 2>&1"
    ));
    let fs = hako_guest::fs::open(FileVolume::open(&image.folder().join("far.iso")));
    let tree = Tree::new(fs.unwrap().unwrap());
    let content = tree.read(b"1/2/3/4/5/6/7/8/9/10/file", 100).unwrap();
    assert_eq!(content, b"deep\n");
    let top: Vec<_> = tree
        .entries(b"/", 10)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(top, [b"1".to_vec(), b"rr_moved".to_vec()]);
    assert!(tree.entries(b"/rr_moved", 10).unwrap().is_empty());
}
