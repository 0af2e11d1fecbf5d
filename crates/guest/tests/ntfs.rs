//! NTFS as mkntfs and ntfs-3g make it, compared with what ntfs-3g shows.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

mod aged;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;

use hako_block::ErrorKind;
use hako_block::testkit::Rng;
use hako_guest::{NodeKind, Tree, Volume};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

use aged::life::Life;
use aged::{Compare, Image, all, assert_same, have, run};

const SAME: Compare = Compare {
    is_same: false,
    links: true,
    owners: false,
    times: true,
    lookups: true,
};

/// Returns a new NTFS; none if it cannot be made here.
fn make(mib: u64, options: &[&str]) -> Option<Image> {
    if !have(&["mkntfs", "ntfs-3g"]) {
        return None;
    }
    let image = Image::empty(mib << 20);
    let mut args = vec!["-q", "-F", "-Q", "-L", "Größe"];
    args.extend(options.iter().filter(|option| !option.is_empty()));
    args.push(image.text());
    run("mkntfs", &args);
    Some(image)
}

/// Lives a little below `root`.
fn live(root: &Path, seed: u64, n_changes: usize, n_names: usize) {
    let mut life = Life::new(root, seed, 200_000);
    life.go_on(n_changes).oddities().crowd("crowd", n_names);
    let folder = root.join("names");
    fs::create_dir(&folder).unwrap();
    for name in [
        "Größe",
        "日本語のファイル名",
        "🦀",
        "semi;colon",
        "UPPER",
        "upper",
    ] {
        fs::write(folder.join(name), name.repeat(3000)).unwrap();
    }
}

/// Sets an attribute by which ntfs-3g gives access to NTFS's own.
#[track_caller]
fn set(path: &Path, name: &str, value: &[u8]) {
    setxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A reparse point with that data.
fn reparse(tag: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [&tag.to_le_bytes(), &len.to_le_bytes(), data].concat()
}

/// The data of a symbolic link.
fn symlink_data(target: &str, flags: u32) -> Vec<u8> {
    let name = utf16(target);
    let len = (name.len() as u16).to_le_bytes();
    let names = [&[0, 0], &len[..], &len[..], &[0, 0]].concat();
    [&names, &flags.to_le_bytes()[..], &name].concat()
}

#[test]
fn an_aged_ntfs_reads_as_mounted() {
    let Some(made) = make(1024, &[]) else {
        return;
    };
    let Some(mounted) = made.mount_ntfs("special_files=wsl") else {
        return;
    };
    live(mounted.path(), 1, if all() { 30_000 } else { 2000 }, 24_000);
    drop(mounted);
    let Some(mounted) = made.mount_ntfs("ro,special_files=wsl") else {
        return;
    };
    let fs = made.open();
    assert!(assert_same(&*fs, mounted.path(), SAME) > 20_000);
    assert_eq!(fs.info().label, "Größe");
    assert!(fs.info().remarks.is_empty(), "{:?}", fs.info());
}

#[test]
fn every_way_to_make_and_mount_it_is_read() {
    // What mkntfs is told, and ntfs-3g.
    const WAYS: &[(&str, &str)] = &[
        ("-c 512", ""),
        ("-c 1024 -C", "compression"),
        ("-c 4096 -C", "compression"),
        ("-c 8192", ""),
        ("-c 65536", ""),
        ("-c 262144", ""),
        ("-c 2097152", ""),
        ("-s 4096 -c 4096 -C", "compression"),
        ("-s 1024 -c 2048", ""),
    ];
    for (seed, (mkntfs, mount)) in WAYS.iter().enumerate() {
        let options: Vec<&str> = mkntfs.split(' ').collect();
        let mib = if mkntfs.contains("2097152") {
            3000
        } else {
            300
        };
        let Some(made) = make(mib, &options) else {
            return;
        };
        eprintln!("mkntfs {mkntfs}, ntfs-3g -o {mount}");
        let Some(mounted) = made.mount_ntfs(&format!("special_files=wsl,{mount}")) else {
            return;
        };
        live(mounted.path(), seed as u64, 400, 300);
        fs::write(mounted.path().join("text"), "text ".repeat(100_000)).unwrap();
        drop(mounted);
        let Some(mounted) = made.mount_ntfs("ro,special_files=wsl") else {
            return;
        };
        let blocks = mounted.path().join("text").metadata().unwrap().blocks();
        assert_eq!(blocks < 500, mkntfs.contains("-C"), "{blocks} blocks");
        let fs = made.open();
        assert!(assert_same(&*fs, mounted.path(), SAME) > 300);
    }
}

#[test]
fn links_and_devices_of_interix_are_known() {
    let Some(made) = make(50, &[]) else {
        return;
    };
    let Some(mounted) = made.mount_ntfs("special_files=interix") else {
        return;
    };
    let at = |name: &str| mounted.path().join(name);
    symlink("ä/../target", at("link")).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    mknodat(
        CWD,
        at("null"),
        FileType::CharacterDevice,
        mode,
        makedev(1, 3),
    )
    .unwrap();
    mknodat(CWD, at("sda"), FileType::BlockDevice, mode, makedev(8, 260)).unwrap();
    drop(mounted);
    let tree = Tree::new(made.open());
    let link = tree.find_no_follow(b"link").unwrap();
    assert_eq!(link.read_link().unwrap(), "ä/../target".as_bytes());
    let device = |name: &str| {
        let stat = tree.find(name.as_bytes()).unwrap().stat().unwrap();
        (stat.kind, stat.device.unwrap())
    };
    assert_eq!(device("null"), (NodeKind::CharDevice, (1, 3)));
    assert_eq!(device("sda"), (NodeKind::BlockDevice, (8, 260)));
}

#[test]
fn names_are_found_whatever_their_case_and_those_for_dos_are_not_listed() {
    let Some(made) = make(50, &[]) else {
        return;
    };
    let Some(mounted) = made.mount_ntfs("") else {
        return;
    };
    let at = |name: &str| mounted.path().join(name);
    fs::create_dir(at("Dokumente und Ähnliches")).unwrap();
    fs::write(at("Dokumente und Ähnliches/Straße.txt"), "one").unwrap();
    set(
        &at("Dokumente und Ähnliches"),
        "system.ntfs_dos_name",
        b"DOKUME~1",
    );
    fs::create_dir(at("both")).unwrap();
    for number in 0..500 {
        fs::write(at(&format!("both/name {number}")), "lower").unwrap();
        fs::write(at(&format!("both/NAME {number}")), "UPPER").unwrap();
    }
    drop(mounted);
    let fs = made.open();
    let tree = Tree::new(Arc::clone(&fs));
    let read = |path: &str| tree.read(path.as_bytes(), 100).unwrap();
    assert_eq!(read("DOKUMENTE UND ÄHNLICHES/STRAßE.TXT"), b"one");
    assert_eq!(read("dokume~1/straße.TXT"), b"one");
    let folder = tree.stat("dokumente und ähnliches".as_bytes()).unwrap();
    assert_eq!((folder.kind, folder.links), (NodeKind::Directory, 1));
    for number in (0..500).step_by(17) {
        assert_eq!(read(&format!("both/name {number}")), b"lower");
        assert_eq!(read(&format!("both/NAME {number}")), b"UPPER");
        assert!(tree.find(format!("both/Name {number}").as_bytes()).is_ok());
    }
    assert!(tree.look_for(b"both/name 500").unwrap().is_none());
    assert!(tree.look_for(b"both/\xff").unwrap().is_none());
    let entries = tree.entries(b"/", 100).unwrap();
    let names: Vec<_> = entries.iter().map(|entry| &entry.name[..]).collect();
    assert_eq!(names, ["Dokumente und Ähnliches".as_bytes(), b"both"]);
}

#[test]
fn links_of_windows_lead_inside_the_image_and_what_is_elsewhere_is_refused_by_name() {
    let Some(made) = make(50, &[]) else {
        return;
    };
    let Some(mounted) = made.mount_ntfs("") else {
        return;
    };
    let at = |name: &str| mounted.path().join(name);
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/file"), "content").unwrap();
    let point = |name: &str, tag: u32, data: &[u8]| {
        fs::write(at(name), [7; 5000]).unwrap();
        set(&at(name), "system.ntfs_reparse_data", &reparse(tag, data));
    };
    point("relative", 0xa000_000c, &symlink_data(r"real\.\file", 1));
    point("absolute", 0xa000_000c, &symlink_data(r"\real", 0));
    point("drive", 0xa000_000c, &symlink_data(r"\??\C:\real", 0));
    let junction = symlink_data(r"\??\D:\x", 0);
    let junction = [&junction[..8], &junction[12..]].concat();
    fs::create_dir(at("junction")).unwrap();
    set(
        &at("junction"),
        "system.ntfs_reparse_data",
        &reparse(0xa000_0003, &junction),
    );
    let wof: Vec<u8> = [1_u32, 2, 1, 1]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    point("packed", 0x8000_0017, &wof);
    point("cloud", 0x9000_301a, &[0; 8]);
    point("other", 0x8000_1234, &[0; 8]);
    fs::write(at("secret"), [7; 5000]).unwrap();
    drop(mounted);

    let fs = made.open();
    let tree = Tree::new(Arc::clone(&fs));
    assert_eq!(tree.read(b"relative", 100).unwrap(), b"content");
    assert_eq!(tree.read(b"absolute/FILE", 100).unwrap(), b"content");
    let link = |name: &[u8]| tree.find_no_follow(name).unwrap().read_link().unwrap();
    assert_eq!(link(b"drive"), br"C:\real");
    assert_eq!(link(b"junction"), br"D:\x");
    assert!(tree.look_for(b"drive").unwrap().is_none());
    let refused = |name: &[u8]| {
        assert_eq!(tree.stat(name).unwrap().len_bytes, 5000);
        let error = tree.read(name, 10_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        error.to_string()
    };
    assert!(refused(b"packed").contains("LZX"));
    assert!(refused(b"cloud").contains("cloud"));
    assert!(refused(b"other").contains("0x80001234"));
    drop((fs, tree));

    // Only Windows encrypts: the flag is set by hand.
    let file = fs::OpenOptions::new()
        .write(true)
        .open(made.path())
        .unwrap();
    let image = fs::read(made.path()).unwrap();
    let name = utf16("secret");
    let record = (0..image.len() - 1024)
        .step_by(1024)
        .find(|at| {
            let record = &image[*at..at + 1024];
            record.starts_with(b"FILE")
                && record.windows(12).any(|part| part == name)
                && record[0x16] == 1
        })
        .unwrap();
    let mut attribute = record + usize::from(image[record + 0x14]);
    while image[attribute] != 0x80 {
        let len: [u8; 4] = image[attribute + 4..][..4].try_into().unwrap();
        attribute += u32::from_le_bytes(len) as usize;
    }
    file.write_all_at(&[0, 0x40], attribute as u64 + 0xc)
        .unwrap();
    let tree = Tree::new(made.open());
    assert_eq!(tree.stat(b"secret").unwrap().len_bytes, 5000);
    let error = tree.read(b"secret", 10_000).unwrap_err();
    assert!(error.to_string().contains("EFS"), "{error}");
}

#[test]
fn a_dirty_and_a_hibernated_volume_are_told() {
    let Some(made) = make(50, &[]) else {
        return;
    };
    let Some(mounted) = made.mount_ntfs("") else {
        return;
    };
    fs::write(
        mounted.path().join("hiberfil.sys"),
        [&b"HIBR"[..], &[0; 8192]].concat(),
    )
    .unwrap();
    drop(mounted);
    let remarks = made.open().info().remarks.clone();
    assert!(remarks[0].contains("hibernated"), "{remarks:?}");
    let Some(made) = make(50, &[]) else {
        return;
    };
    run("ntfsfix", &[made.text()]);
    let remarks = made.open().info().remarks.clone();
    assert!(remarks[0].contains("dirty"), "{remarks:?}");
}

#[test]
fn the_copy_of_the_first_record_is_used_if_that_is_damaged() {
    let Some(made) = make(50, &["-c", "4096"]) else {
        return;
    };
    let image = fs::read(made.path()).unwrap();
    let table: [u8; 8] = image[0x30..0x38].try_into().unwrap();
    let at = u64::from_le_bytes(table) * 4096;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(made.path())
        .unwrap();
    file.write_all_at(b"BAAD", at).unwrap();
    let fs = made.open();
    assert!(fs.info().remarks[0].contains("copy"));
    assert!(Tree::new(fs).entries(b"/", 10).unwrap().is_empty());
}

/// Whatever is in its records: no panic, no end without end.
#[test]
fn a_hostile_ntfs_is_soon_done_with() {
    let Some(made) = make(40, &["-C"]) else {
        return;
    };
    let Some(mounted) = made.mount_ntfs("compression,special_files=wsl") else {
        return;
    };
    live(mounted.path(), 5, 100, 200);
    drop(mounted);
    let sound = fs::read(made.path()).unwrap();
    let records: Vec<usize> = (0..sound.len())
        .step_by(1024)
        .filter(|at| matches!(&sound[*at..at + 4], b"FILE" | b"INDX"))
        .collect();
    let mut rng = Rng::new(9);
    let mut image = sound.clone();
    for _ in 0..if all() { 5000 } else { 200 } {
        let mut changed = Vec::new();
        for _ in 0..rng.below(1..12) {
            let at = match rng.one_in(20) {
                true => 0,
                false => records[rng.below(0..records.len() as u64) as usize],
            };
            let most = if rng.one_in(3) { 1024 } else { 400 };
            let byte = at + rng.below(8..most) as usize;
            let value = [0, 1, 0x7f, 0x80, 0xff, rng.next_u64() as u8][rng.below(0..6) as usize];
            match rng.one_in(4) {
                true => image[byte..(byte + 8).min(at + 1024)].fill(value),
                false => image[byte] = value,
            }
            changed.push(at);
        }
        let volume: Arc<dyn Volume> = Arc::new(image.clone());
        if let Ok(Some(fs)) = hako_guest::fs::open(volume) {
            aged::read_all(&*fs);
        }
        for at in changed {
            image[at..at + 1024].copy_from_slice(&sound[at..at + 1024]);
        }
    }
    for len in [0, 511, 512, 4096, 20_000, 1 << 20, 20 << 20] {
        let volume: Arc<dyn Volume> = Arc::new(sound[..len].to_vec());
        if let Ok(Some(fs)) = hako_guest::fs::open(volume) {
            aged::read_all(&*fs);
        }
    }
}
