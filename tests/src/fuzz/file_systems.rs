//! The fuzz targets of guests' file systems.

use std::sync::Arc;

use hako_guest::Volume;
use hako_guest::fs::{FILE_SYSTEMS, Opened, btrfs as btrfs_driver, ntfs as ntfs_driver};

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

/// What claims to be an ext2, ext3 or ext4, packed by [`super::sectors_packed`].
pub fn ext(bytes: &[u8]) {
    ask_driver("ext4", bytes);
}

/// What claims to be an XFS, packed by [`super::sectors_packed`].
pub fn xfs(bytes: &[u8]) {
    ask_driver("xfs", bytes);
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
    if let Ok(fs) = open(Arc::new(image)) {
        ask_everything(&*fs, MOST_NODES);
    }
}
