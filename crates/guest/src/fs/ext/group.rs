//! Group descriptors: where the bitmaps and inodes of each group of blocks are (kernel
//! documentation, ext4, "Block Group Descriptors").

use hako_block::{Error, Result};

use super::blocks::Blocks;
use super::features::{INCOMPAT_META_BG, RO_GDT_CSUM, RO_METADATA_CSUM};
use super::superblock::{Superblock, sum};
use crate::bytes::le::{u16_at, u32_at};

const CHECKSUM_AT: usize = 0x1e;

/// bg_flags: no inode was ever in use.
const INODE_UNINIT: u16 = 1;
/// bg_flags: the bitmap of blocks was never written.
const BLOCK_UNINIT: u16 = 2;

/// What a descriptor says.
pub(super) struct Group {
    /// The block of its bitmap of blocks.
    pub(super) block_bitmap: u64,
    /// The block of its bitmap of inodes.
    pub(super) inode_bitmap: u64,
    /// The block at which its inodes begin.
    pub(super) inode_table: u64,
    /// Its bitmap of blocks was never written: only structures are in use.
    pub(super) is_unwritten: bool,
    /// No inode of it was ever in use.
    pub(super) has_no_inodes: bool,
    /// Inodes at the end of its table that were never in use.
    pub(super) n_unused_inodes: u32,
    /// Clusters and inodes that are free.
    pub(super) n_free_clusters: u32,
    pub(super) n_free_inodes: u32,
    /// The checksums of its bitmaps of blocks and inodes, and which of their bits are kept.
    bitmap_sum: u32,
    inodes_sum: u32,
    bitmap_sum_mask: u32,
}

impl Group {
    fn decode(descriptor: &[u8], superblock: &Superblock) -> Self {
        let is_long = descriptor.len() >= 64;
        let block = |low: usize, high: usize| match is_long {
            true => u64::from(u32_at(descriptor, high)) << 32 | u64::from(u32_at(descriptor, low)),
            false => u64::from(u32_at(descriptor, low)),
        };
        let has_flags = superblock
            .features
            .ro_compat(RO_GDT_CSUM | RO_METADATA_CSUM);
        let halves = |low: usize, high: usize| match is_long {
            true => u32::from(u16_at(descriptor, high)) << 16 | u32::from(u16_at(descriptor, low)),
            false => u32::from(u16_at(descriptor, low)),
        };
        let flags = if has_flags {
            u16_at(descriptor, 0x12)
        } else {
            0
        };
        Self {
            block_bitmap: block(0x0, 0x20),
            inode_bitmap: block(0x4, 0x24),
            inode_table: block(0x8, 0x28),
            is_unwritten: flags & BLOCK_UNINIT != 0,
            has_no_inodes: flags & INODE_UNINIT != 0,
            n_unused_inodes: if has_flags { halves(0x1c, 0x32) } else { 0 },
            n_free_clusters: halves(0xc, 0x2c),
            n_free_inodes: halves(0xe, 0x2e),
            bitmap_sum: halves(0x18, 0x38),
            inodes_sum: halves(0x1a, 0x3a),
            bitmap_sum_mask: if is_long { !0 } else { 0xffff },
        }
    }

    /// Returns whether the bitmap of blocks has the checksum that the descriptor keeps.
    pub(super) fn is_sound_bitmap(&self, superblock: &Superblock, bitmap: &[u8]) -> bool {
        superblock
            .checksum_seed()
            .is_none_or(|seed| sum(seed, &[bitmap]) & self.bitmap_sum_mask == self.bitmap_sum)
    }

    /// Returns whether the bitmap of inodes has the checksum that the descriptor keeps.
    pub(super) fn is_sound_inodes(&self, superblock: &Superblock, bitmap: &[u8]) -> bool {
        superblock
            .checksum_seed()
            .is_none_or(|seed| sum(seed, &[bitmap]) & self.bitmap_sum_mask == self.inodes_sum)
    }
}

/// Reads the descriptor of `group`, and checks its sum.
pub(super) fn read(blocks: &Blocks, superblock: &Superblock, group: u32) -> Result<Group> {
    let descriptor = descriptor(blocks, superblock, group)?;
    Ok(Group::decode(&descriptor, superblock))
}

/// Returns how many blocks of superblock and descriptors begin `group`.
pub(super) fn n_copies(superblock: &Superblock, group: u64) -> u64 {
    let has_copy = superblock.has_copy(group);
    let per_block = u64::from(superblock.block_bytes) / u64::from(superblock.descriptor_bytes);
    let index = group / per_block;
    let n_blocks = superblock.n_groups().div_ceil(per_block);
    let first_meta = u64::from(superblock.first_meta_group);
    let is_meta = superblock.features.incompat(INCOMPAT_META_BG);
    if is_meta && index >= first_meta {
        let within = group % per_block;
        let has_descriptors = within <= 1 || within + 1 == per_block;
        return u64::from(has_copy) + u64::from(has_descriptors);
    }
    match (has_copy, is_meta) {
        (false, _) => 0,
        (true, true) => 1 + first_meta.min(n_blocks),
        (true, false) => 1 + n_blocks + u64::from(superblock.reserved_descriptor_blocks),
    }
}

fn descriptor(blocks: &Blocks, superblock: &Superblock, group: u32) -> Result<Vec<u8>> {
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
