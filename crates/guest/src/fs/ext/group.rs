//! Group descriptors: where the bitmaps and inodes of each group of blocks are (kernel
//! documentation, ext4, "Block Group Descriptors").

use hako_block::{Error, Result};

use super::blocks::Blocks;
use super::features::{INCOMPAT_META_BG, RO_GDT_CSUM};
use super::superblock::{Superblock, sum};
use crate::bytes::le::{u16_at, u32_at};

const CHECKSUM_AT: usize = 0x1e;

/// Returns the block at which the inodes of `group` begin.
pub(super) fn inode_table(blocks: &Blocks, superblock: &Superblock, group: u32) -> Result<u64> {
    let descriptor = read(blocks, superblock, group)?;
    let high = if descriptor.len() >= 64 {
        u64::from(u32_at(&descriptor, 0x28))
    } else {
        0
    };
    Ok(high << 32 | u64::from(u32_at(&descriptor, 0x8)))
}

/// Reads the descriptor of `group`, and checks its sum.
fn read(blocks: &Blocks, superblock: &Superblock, group: u32) -> Result<Vec<u8>> {
    let bytes = u32::from(superblock.descriptor_bytes);
    let per_block = superblock.block_bytes / bytes;
    let block = descriptor_block(superblock, group / per_block, per_block);
    let mut descriptor = vec![0; bytes as usize];
    blocks.read(block, u64::from(group % per_block * bytes), &mut descriptor)?;
    let stored = u16_at(&descriptor, CHECKSUM_AT);
    let found = checksum(superblock, group, &descriptor);
    if found.is_some_and(|found| found != stored) {
        return Err(Error::corrupt(
            format!("descriptor of group {group}"),
            format!("its checksum is not {stored:#06x}"),
        ));
    }
    Ok(descriptor)
}

/// Returns the block with the descriptors of the groups from `index * per_block` on.
fn descriptor_block(superblock: &Superblock, index: u32, per_block: u32) -> u64 {
    let is_meta = superblock.features.incompat(INCOMPAT_META_BG);
    if !is_meta || index < superblock.first_meta_group {
        let of_superblock = u64::from(superblock.block_bytes == 1024);
        return of_superblock + 1 + u64::from(index);
    }
    let group = u64::from(index) * u64::from(per_block);
    let start = u64::from(superblock.first_block) + group * u64::from(superblock.blocks_per_group);
    // Blocks of 1 KiB that begin with block 0: the boot block is in group 0 too.
    let has_boot_block =
        superblock.block_bytes == 1024 && superblock.first_block == 0 && group == 0;
    start + u64::from(superblock.has_copy(group)) + u64::from(has_boot_block)
}

fn checksum(superblock: &Superblock, group: u32, descriptor: &[u8]) -> Option<u16> {
    let number = group.to_le_bytes();
    let (head, rest) = descriptor.split_at(CHECKSUM_AT.min(descriptor.len()));
    let rest = rest.get(2..).unwrap_or(&[]);
    if let Some(seed) = superblock.checksum_seed() {
        // The lower half.
        return Some((sum(seed, &[&number, head, &[0; 2], rest]) & 0xffff) as u16);
    }
    if !superblock.features.ro_compat(RO_GDT_CSUM) {
        return None;
    }
    let pieces = [&superblock.uuid.0[..], &number, head, rest];
    Some(pieces.iter().fold(!0, |crc, piece| crc16(crc, piece)))
}

/// CRC-16 (polynomial 8005, reflected).
fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xa001 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_is_that_of_the_standard() {
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }
}
