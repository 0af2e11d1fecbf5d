//! The superblock: 1024 bytes at byte 1024 (kernel documentation, ext4, "The Super Block").

use hako_block::{Crc32c, Error, Result, Uuid};

use super::features::{
    COMPAT_HAS_JOURNAL, COMPAT_SPARSE_SUPER2, Features, INCOMPAT_64BIT, INCOMPAT_CSUM_SEED,
    INCOMPAT_FLEX_BG, RO_BIGALLOC, RO_METADATA_CSUM, RO_SPARSE_SUPER,
};
use crate::bytes::array_at;
use crate::bytes::le::{u16_at, u32_at};

/// Where it is in the volume.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
/// Its length.
pub(super) const SUPERBLOCK_BYTES: usize = 1024;

const MAGIC: u16 = 0xef53;
const MAGIC_AT: usize = 0x38;
const CHECKSUM_AT: usize = 0x3fc;
/// s_state: it was unmounted.
const STATE_VALID: u16 = 1;
/// s_state: errors were found.
const STATE_ERRORS: u16 = 2;
/// Inodes of revision 0.
const OLD_INODE_BYTES: u16 = 128;
/// s_log_block_size of 64 KiB.
const MOST_LOG_BLOCK: u32 = 6;

/// A superblock whose numbers fit each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) features: Features,
    /// 1024 to 65536, a power of two.
    pub(super) block_bytes: u32,
    pub(super) n_blocks: u64,
    /// The block that group 0 begins with: 1 if blocks have 1 KiB and are the unit of allocation.
    pub(super) first_block: u32,
    pub(super) blocks_per_group: u32,
    /// Blocks of the unit of allocation, a power of two: more than one with bigalloc.
    pub(super) cluster_blocks: u32,
    /// Groups whose bitmaps and inodes may lie together, with flex_bg.
    pub(super) flex_groups: u64,
    /// Blocks behind the descriptors that are kept for more of them.
    pub(super) reserved_descriptor_blocks: u16,
    pub(super) n_inodes: u32,
    pub(super) inodes_per_group: u32,
    /// The first inode that is not reserved.
    pub(super) first_inode: u32,
    /// 128 to a block, a power of two.
    pub(super) inode_bytes: u16,
    /// 32, or 64 to 1024 with 64bit.
    pub(super) descriptor_bytes: u16,
    /// Blocks of descriptors below this one follow the superblock, with meta_bg.
    pub(super) first_meta_group: u32,
    /// The groups with a copy of the superblock, with sparse_super2.
    pub(super) backup_groups: [u32; 2],
    /// The inode of the journal; 0 if that is on another disk, or there is none.
    pub(super) journal_inode: u32,
    /// The first of the files that were deleted while they were open, and the file with more of them.
    pub(super) first_orphan: u32,
    pub(super) orphan_file: u32,
    /// The inodes of quotas: of users, groups, projects.
    pub(super) quota_inodes: [u32; 3],
    pub(super) uuid: Uuid,
    pub(super) label: String,
    /// Linux found errors in it, and they were not repaired.
    pub(super) has_errors: bool,
    /// It was unmounted, or its journal knows what was under way.
    pub(super) is_clean: bool,
    /// Its checksum is not that of its bytes.
    pub(super) is_damaged: bool,
    checksum_seed: u32,
}

/// Returns whether the bytes have the magic number.
pub(super) fn is_superblock(bytes: &[u8]) -> bool {
    u16_at(bytes, MAGIC_AT) == MAGIC
}

impl Superblock {
    /// Decodes one. Errors: a feature that is not read, and numbers that contradict each other.
    pub(super) fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self> {
        if !is_superblock(bytes) {
            return Err(damaged("magic number is not ef53"));
        }
        let features = Features {
            compat: u32_at(bytes, 0x5c),
            incompat: u32_at(bytes, 0x60),
            ro_compat: u32_at(bytes, 0x64),
        };
        let is_old = u32_at(bytes, 0x4c) == 0;
        let features = if is_old {
            Features::default()
        } else {
            features
        };
        features.check()?;
        let log_block = u32_at(bytes, 0x18);
        if log_block > MOST_LOG_BLOCK {
            return Err(damaged(format!("blocks of 1024 << {log_block} bytes")));
        }
        let high = if features.incompat(INCOMPAT_64BIT) {
            u64::from(u32_at(bytes, 0x150))
        } else {
            0
        };
        let uuid = Uuid(array_at(bytes, 0x68));
        let log_ratio = match features.ro_compat(RO_BIGALLOC) {
            true => u32_at(bytes, 0x1c).saturating_sub(log_block),
            false => 0,
        };
        let [log_flex] = array_at(bytes, 0x174);
        let superblock = Self {
            features,
            block_bytes: 1024 << log_block,
            n_blocks: high << 32 | u64::from(u32_at(bytes, 0x4)),
            first_block: u32_at(bytes, 0x14),
            blocks_per_group: u32_at(bytes, 0x20),
            cluster_blocks: 1_u32.checked_shl(log_ratio).unwrap_or(0),
            flex_groups: match features.incompat(INCOMPAT_FLEX_BG) {
                true => 1 << log_flex.min(31),
                false => 1,
            },
            reserved_descriptor_blocks: u16_at(bytes, 0xce),
            n_inodes: u32_at(bytes, 0x0),
            inodes_per_group: u32_at(bytes, 0x28),
            first_inode: if is_old { 11 } else { u32_at(bytes, 0x54) },
            inode_bytes: if is_old {
                OLD_INODE_BYTES
            } else {
                u16_at(bytes, 0x58)
            },
            descriptor_bytes: if features.incompat(INCOMPAT_64BIT) {
                u16_at(bytes, 0xfe)
            } else {
                32
            },
            first_meta_group: u32_at(bytes, 0x104),
            backup_groups: [u32_at(bytes, 0x24c), u32_at(bytes, 0x250)],
            journal_inode: u32_at(bytes, 0xe0),
            first_orphan: u32_at(bytes, 0xe8),
            orphan_file: u32_at(bytes, 0x280),
            quota_inodes: [0x240, 0x244, 0x26c].map(|at| u32_at(bytes, at)),
            uuid,
            label: text(bytes.get(0x78..0x88).unwrap_or(&[])),
            has_errors: u16_at(bytes, 0x3a) & STATE_ERRORS != 0,
            is_clean: u16_at(bytes, 0x3a) & STATE_VALID != 0
                || features.compat & COMPAT_HAS_JOURNAL != 0,
            is_damaged: features.ro_compat(RO_METADATA_CSUM)
                && sum(!0, &[bytes.get(..CHECKSUM_AT).unwrap_or(&[])])
                    != u32_at(bytes, CHECKSUM_AT),
            checksum_seed: if features.incompat(INCOMPAT_CSUM_SEED) {
                u32_at(bytes, 0x270)
            } else {
                sum(!0, &[&uuid.0])
            },
        };
        superblock.check(log_ratio)?;
        Ok(superblock)
    }

    /// Returns the seed of the structures' checksums, if they have any.
    pub(super) fn checksum_seed(&self) -> Option<u32> {
        self.features
            .ro_compat(RO_METADATA_CSUM)
            .then_some(self.checksum_seed)
    }

    /// Returns the number of groups of blocks.
    pub(super) fn n_groups(&self) -> u64 {
        let blocks = self.n_blocks.saturating_sub(u64::from(self.first_block));
        blocks.div_ceil(u64::from(self.blocks_per_group))
    }

    /// Returns whether a copy of the superblock begins `group`.
    pub(super) fn has_copy(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.features.compat & COMPAT_SPARSE_SUPER2 != 0 {
            return self
                .backup_groups
                .iter()
                .any(|copy| u64::from(*copy) == group);
        }
        let is_power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        !self.features.ro_compat(RO_SPARSE_SUPER)
            || group == 1
            || [3, 5, 7].into_iter().any(is_power_of)
    }

    /// `log_ratio`: blocks in a cluster, as a power of two.
    fn check(&self, log_ratio: u32) -> Result<()> {
        let block_bits = u64::from(self.block_bytes) * 8;
        let most_blocks = block_bits.checked_shl(log_ratio).filter(|_| log_ratio < 32);
        let is_between = |value: u64, least: u64, most: u64| (least..=most).contains(&value);
        let inode_bytes = u32::from(self.inode_bytes);
        let findings = [
            (self.n_blocks <= u64::from(self.first_block) || self.first_block > 1)
                .then(|| format!("{} blocks, the first {}", self.n_blocks, self.first_block)),
            (!is_between(
                u64::from(self.blocks_per_group),
                1,
                most_blocks.unwrap_or(0),
            ))
            .then(|| format!("{} blocks in a group", self.blocks_per_group)),
            (!self.blocks_per_group.is_multiple_of(self.cluster_blocks))
                .then(|| format!("clusters of {} blocks", self.cluster_blocks)),
            (!is_between(u64::from(self.inodes_per_group), 1, block_bits))
                .then(|| format!("{} inodes in a group", self.inodes_per_group)),
            (!inode_bytes.is_power_of_two() || inode_bytes < 128 || inode_bytes > self.block_bytes)
                .then(|| format!("inodes of {inode_bytes} bytes")),
            (!self.has_sound_descriptors())
                .then(|| format!("group descriptors of {} bytes", self.descriptor_bytes)),
        ];
        if let Some(finding) = findings.into_iter().flatten().next() {
            return Err(damaged(finding));
        }
        let groups = self.n_groups();
        let most_inodes = groups.saturating_mul(u64::from(self.inodes_per_group));
        if groups > u64::from(u32::MAX) || u64::from(self.n_inodes) > most_inodes {
            return Err(damaged(format!(
                "{} inodes in {groups} groups",
                self.n_inodes
            )));
        }
        Ok(())
    }

    fn has_sound_descriptors(&self) -> bool {
        let bytes = self.descriptor_bytes;
        match self.features.incompat(INCOMPAT_64BIT) {
            true => bytes.is_power_of_two() && (64..=1024).contains(&bytes),
            false => bytes == 32,
        }
    }
}

/// Returns the checksum of pieces, from a seed, as ext4 stores it.
pub(super) fn sum(seed: u32, pieces: &[&[u8]]) -> u32 {
    let mut crc = Crc32c::from_state(seed);
    for piece in pieces {
        crc.update(piece);
    }
    crc.state()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let bytes = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

fn damaged(what: impl Into<String>) -> Error {
    Error::corrupt("superblock", what)
}
