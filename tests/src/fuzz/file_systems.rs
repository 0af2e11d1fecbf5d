//! The fuzz targets of guests' file systems, and of what they lie in.

use std::collections::BTreeSet;
use std::sync::Arc;

use hako_edit::{Ext, Fat, Look, Staged, Writes, check, check_tree};
use hako_guest::fs::{FILE_SYSTEMS, Opened, btrfs as btrfs_driver, ntfs as ntfs_driver};
use hako_guest::luks::n_keyslots;
use hako_guest::{UsedMap, Volume, Volumes};
use sha2::{Digest, Sha256};

use super::{crc32c, unpacked};
use crate::guest::ask_everything;

/// Nodes that are looked at.
const MOST_NODES: usize = 100;

/// What claims to be a btrfs of small nodes, packed by [`super::sectors_packed`]. The checksums of
/// its superblock and nodes are made right, or nothing behind them would ever be looked at.
pub fn btrfs(bytes: &[u8]) {
    const NODE: usize = 4096;
    const SUPERBLOCK: usize = 65536;
    let mut image = unpacked(bytes).to_vec();
    let fsid = image.get(SUPERBLOCK + 0x20..SUPERBLOCK + 0x30);
    let fsid = fsid.map(<[u8]>::to_vec);
    for block in image.chunks_exact_mut(NODE) {
        if block.get(0x20..0x30) == fsid.as_deref() {
            let sum = crc32c(&block[32..]);
            block[..4].copy_from_slice(&sum.to_le_bytes());
        }
    }
    ask(image, btrfs_driver::DRIVER.open);
}

/// What claims to be an NTFS, packed by [`super::sectors_packed`].
pub fn ntfs(bytes: &[u8]) {
    ask(unpacked(bytes).to_vec(), ntfs_driver::DRIVER.open);
}

/// What claims to be an ext2, ext3 or ext4, packed by [`super::sectors_packed`]: read, and written to.
pub fn ext(bytes: &[u8]) {
    ask_driver("ext4", bytes);
    let staged = Arc::new(Staged::new(Arc::new(unpacked(bytes).to_vec())));
    let Ok(mut ext) = Ext::open(Arc::clone(&staged)) else {
        return;
    };
    let look = Look {
        mode: 0o644,
        time: 1,
    };
    const ROOT: u32 = 2;
    for inode in ROOT..32 {
        let _ = ext.replace(inode, &[1; 5000], 1);
        let _ = ext.append(inode, 5000, &[2; 3000], 1);
        let _ = ext.cut(inode, 10, 1);
    }
    let folder = ext.make_folder(ROOT, b"folder", look);
    let _ = ext.create(folder.unwrap_or(ROOT), b"file", &[3; 70_000], look);
    let _ = ext.link(ROOT, b"link", b"/dev/null", look);
    let _ = ext.remove(ROOT, b"lost+found", 1);
    let before = hako_guest::fs::open(Arc::clone(staged.base()));
    if let (Ok(traces), Ok(Some(before))) = (ext.finish(1), before) {
        let _ = check(&staged, &before, &traces);
    }
}

/// What `hako p2v adapt` writes down before it writes.
pub fn adapt_intent(bytes: &[u8]) {
    if let Ok(writes) = Writes::decode(bytes) {
        assert!(Writes::decode(&writes.encode()).is_ok_and(|again| again == writes));
    }
    // With its sum made right, or nothing else would ever be looked at.
    let mut sealed = bytes.to_vec();
    if let Some((all, end)) = sealed.split_last_chunk_mut::<4>() {
        *end = crc32c(all).to_le_bytes();
        let _ = Writes::decode(&sealed);
    }
}

/// What claims to be an XFS, packed by [`super::sectors_packed`].
pub fn xfs(bytes: &[u8]) {
    ask_driver("xfs", bytes);
}

/// What claims to be a FAT, packed by [`super::sectors_packed`]: read, and written to.
pub fn vfat(bytes: &[u8]) {
    ask_driver("vfat", bytes);
    let volume: Arc<dyn Volume> = Arc::new(unpacked(bytes).to_vec());
    // Nobody writes to what the reader does not open.
    let Ok(Some(before)) = hako_guest::fs::open(Arc::clone(&volume)) else {
        return;
    };
    let staged = Arc::new(Staged::new(volume));
    if before.info().kind == "vfat"
        && let Ok(fat) = Fat::open(Arc::clone(&staged))
    {
        let _ = fat.make_folder("/EFI/BOOT");
        let _ = fat.write("/EFI/BOOT/BOOTX64.EFI", &[1; 10_000]);
        let _ = fat.append("/EFI/BOOT/BOOTX64.EFI", 10_000, &[2; 3000]);
        let _ = fat.cut("/EFI/BOOT/BOOTX64.EFI", 5);
        let _ = fat.remove("/EFI/BOOT/BOOTX64.EFI");
        let _ = check_tree(&staged, &before, &BTreeSet::new());
    }
}

/// What claims to be an ISO 9660, packed by [`super::sectors_packed`].
pub fn iso9660(bytes: &[u8]) {
    ask_driver("iso9660", bytes);
}

/// What claims to be LUKS: the header of version 1, or JSON for one of version 2, which gets a record
/// around it whose sum is right.
pub fn luks(bytes: &[u8]) {
    const LEN: usize = 0x4000;
    const JSON: usize = 4096;
    let _ = n_keyslots(&bytes.to_vec());
    let mut record = vec![0; LEN];
    record[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    record[8..16].copy_from_slice(&(LEN as u64).to_be_bytes());
    record[72..78].copy_from_slice(b"sha256");
    let len = bytes.len().min(LEN - JSON);
    record[JSON..JSON + len].copy_from_slice(&bytes[..len]);
    let sum = Sha256::digest(&record);
    record[448..480].copy_from_slice(&sum);
    let _ = n_keyslots(&record);
}

/// A disk with partitions, a volume group, an array or an exFAT, packed by [`super::sectors_packed`],
/// and what of it is in use. The checksums of GPT, LVM2 and MD are made right.
pub fn volumes(bytes: &[u8]) {
    let mut image = unpacked(bytes).to_vec();
    image.resize(image.len().max(8192), 0);
    seal_gpt(&mut image);
    seal_lvm(&mut image);
    seal_md(&mut image);
    let disk: Arc<dyn Volume> = Arc::new(image);
    let Ok(volumes) = Volumes::of(vec![Arc::clone(&disk)]) else {
        return;
    };
    ask_map(&volumes, disk.len_bytes());
    for found in volumes.list() {
        assert!(volumes.find(&found.name).len() == 1, "{}", found.name);
        if let Some(volume) = &found.volume {
            for at in [0, volume.len_bytes() / 2] {
                let _ = volume.read_at(at, &mut [0; 1]);
            }
        }
    }
}

/// Asks what of a disk is in use: ranges of it, in order, and no more at once than in all.
fn ask_map(volumes: &Volumes, len: u64) {
    let Ok(map) = UsedMap::of(volumes, false) else {
        return;
    };
    let _ = map.survey(0, &mut |_| Ok(()));
    let Ok(all) = map.used(0, &(0..len)) else {
        return;
    };
    let mut at = 0;
    for range in all.iter() {
        assert!(at <= range.start && range.start < range.end && range.end <= len);
        at = range.end;
    }
    let half = len / 2;
    if let (Ok(first), Ok(second)) = (map.used(0, &(0..half)), map.used(0, &(half..len))) {
        assert!(first.n_bytes() + second.n_bytes() >= all.n_bytes());
    }
}

fn number(image: &[u8], at: usize, len: usize) -> usize {
    let bytes = image[at..at + len].iter().rev();
    bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The CRC of GPT and LVM2, begun at `crc` and not inverted.
fn crc32(mut crc: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    crc
}

fn seal_gpt(image: &mut [u8]) {
    if !image[512..].starts_with(b"EFI PART") {
        return;
    }
    let (at, len) = (
        number(image, 584, 8).saturating_mul(512),
        128 * number(image, 592, 2),
    );
    if let Some(entries) = image.get(at..at.saturating_add(len)) {
        let sum = !crc32(!0, entries);
        image[600..604].copy_from_slice(&sum.to_le_bytes());
    }
    image[528..532].fill(0);
    let sum = !crc32(!0, &image[512..604]);
    image[528..532].copy_from_slice(&sum.to_le_bytes());
}

fn seal_lvm(image: &mut [u8]) {
    const BEGIN: u32 = 0xf597_a6cf;
    const AREA: usize = 4096;
    if !image[512..].starts_with(b"LABELONE") {
        return;
    }
    let sum = crc32(BEGIN, &image[532..1024]);
    image[528..532].copy_from_slice(&sum.to_le_bytes());
    let at = number(image, AREA + 40, 7).saturating_add(AREA);
    let len = number(image, AREA + 48, 7);
    if let Some(text) = image.get(at..at.saturating_add(len)) {
        let sum = crc32(BEGIN, text);
        image[AREA + 56..AREA + 60].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = crc32(BEGIN, &image[AREA + 4..AREA + 512]);
    image[AREA..AREA + 4].copy_from_slice(&sum.to_le_bytes());
}

fn seal_md(image: &mut [u8]) {
    const AT: usize = 4096;
    let n_roles = number(image, AT + 220, 2);
    let end = AT + 256 + 2 * n_roles;
    if number(image, AT, 4) != 0xa92b_4efc || end > image.len() {
        return;
    }
    image[AT + 216..AT + 220].fill(0);
    let words = image[AT..end]
        .chunks(4)
        .map(|word| number(word, 0, word.len()) as u64);
    let sum: u64 = words.sum();
    let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
    image[AT + 216..AT + 220].copy_from_slice(&sum.to_le_bytes());
}

fn ask_driver(name: &str, bytes: &[u8]) {
    let driver = FILE_SYSTEMS.iter().find(|driver| driver.name == name);
    let driver = driver.expect("is known");
    let image = unpacked(bytes).to_vec();
    if (driver.probe)(&image).is_ok_and(|is_one| is_one) {
        ask(image, driver.open);
    }
}

fn ask(image: Vec<u8>, open: fn(Arc<dyn Volume>) -> Opened) {
    let disk: Arc<dyn Volume> = Arc::new(image);
    if let Ok(fs) = open(Arc::clone(&disk)) {
        ask_everything(&*fs, MOST_NODES);
    }
    let len = disk.len_bytes();
    if let Ok(volumes) = Volumes::of(vec![disk]) {
        ask_map(&volumes, len);
    }
}
