//! The fuzz targets of guests' file systems.

use std::ops::ControlFlow;
use std::sync::Arc;

use hako_guest::fs::{Opened, btrfs as btrfs_driver, ntfs as ntfs_driver};
use hako_guest::{FileSystem, Volume};

use super::{crc32c, unpacked};

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

fn ask(image: Vec<u8>, open: fn(Arc<dyn Volume>) -> Opened) {
    if let Ok(fs) = open(Arc::new(image)) {
        look(&*fs);
    }
}

/// Asks for everything, as far as it is answered.
fn look(fs: &dyn FileSystem) {
    let mut todo = vec![fs.root()];
    let mut buf = vec![0; 70_000];
    for _ in 0..MOST_NODES {
        let Some(node) = todo.pop() else { return };
        let len = fs.stat(node).map_or(0, |stat| stat.len_bytes);
        for offset in [0, 4095, len / 2, len.saturating_sub(5000)] {
            if let Ok(n_bytes) = fs.read_at(node, offset, &mut buf) {
                assert!(n_bytes <= buf.len());
            }
        }
        let _ = fs.lookup(node, b"name");
        let _ = fs.read_link(node);
        let _ = fs.visit(node, &mut |entry| {
            assert!(!entry.name.is_empty() && !entry.name.contains(&b'/'));
            todo.push(entry.node);
            match todo.len() > MOST_NODES {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
    }
}
