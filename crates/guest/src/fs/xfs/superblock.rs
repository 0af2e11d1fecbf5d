//! The superblock: the first sector of the volume ("XFS Algorithms & Data Structures", Superblocks).

use hako_block::{Error, Result, Uuid};

use super::checksum;
use crate::bytes::array_at;
use crate::bytes::be::{u16_at, u32_at, u64_at};

/// Bytes of it that are decoded; sectors have at least so many.
pub(super) const SUPERBLOCK_BYTES: usize = 512;

const MAGIC: &[u8; 4] = b"XFSB";
const CHECKSUM_AT: usize = 224;

/// sb_versionnum: directories of version 2, without which nothing is read.
const VERSION_DIR2: u16 = 0x2000;
/// sb_versionnum: there are more bits in sb_features2.
const VERSION_MORE: u16 = 0x8000;
/// sb_features2: directory entries tell what they name.
const FEATURES2_FTYPE: u32 = 0x200;

/// sb_features_ro_compat: files may have blocks together.
const RO_REFLINK: u32 = 0x4;
/// sb_features_incompat: directory entries tell what they name.
const INCOMPAT_FTYPE: u32 = 0x1;
/// sb_features_incompat: blocks have another identity than the user sees.
const INCOMPAT_META_UUID: u32 = 0x4;
/// sb_features_incompat: xfs_repair has to run before a mount.
const INCOMPAT_NEEDS_REPAIR: u32 = 0x10;
/// Incompatible features that are read, or do not matter to a reader: file types, sparse inodes,
/// meta_uuid, bigtime, needsrepair (a remark), nrext64, exchange-range, parent pointers, metadir.
const INCOMPAT_READ: u32 = 0x1ff;
/// Incompatible features that are known and not read.
const INCOMPAT_REFUSED: &[(u32, &str)] = &[(0x200, "zoned"), (0x400, "zone gaps")];

/// A superblock whose numbers fit each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// 512 to 65536, a power of two.
    pub(super) block_bytes: u32,
    /// 512 to 32768, a power of two.
    pub(super) sector_bytes: u32,
    pub(super) n_blocks: u64,
    pub(super) n_groups: u32,
    pub(super) blocks_per_group: u32,
    /// Bits of the number of a block in its group.
    pub(super) group_shift: u32,
    /// Bits of the number of an inode in its block.
    pub(super) inode_shift: u32,
    pub(super) inode_bytes: u16,
    pub(super) root: u64,
    /// Bytes of a block of a directory: one or more blocks.
    pub(super) directory_bytes: u32,
    /// Structures have a CRC-32C (version 5).
    pub(super) has_sums: bool,
    pub(super) has_kinds: bool,
    /// Files may have blocks together (reflink).
    pub(super) has_shared_blocks: bool,
    /// The first block of the log; 0 if that is on another disk.
    pub(super) log_start: u64,
    pub(super) log_blocks: u32,
    pub(super) uuid: Uuid,
    /// The identity that blocks of metadata have.
    pub(super) block_uuid: Uuid,
    pub(super) label: String,
    pub(super) needs_repair: bool,
    /// Its checksum is not that of its bytes.
    pub(super) is_damaged: bool,
}

/// Returns whether the bytes have the magic number.
pub(super) fn is_superblock(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

impl Superblock {
    /// Decodes the first sector, of which the first 512 bytes may be all that is given. Errors: a
    /// version or feature that is not read, and numbers that contradict each other.
    pub(super) fn decode(sector: &[u8]) -> Result<Self> {
        if !is_superblock(sector) {
            return Err(damaged("magic number is not XFSB"));
        }
        let version = u16_at(sector, 100);
        let has_sums = match version & 0xf {
            4 => false,
            5 => true,
            other => return Err(Error::unsupported(format!("XFS of version {other}"))),
        };
        if version & VERSION_DIR2 == 0 {
            return Err(Error::unsupported("XFS with directories of version 1"));
        }
        let incompat = if has_sums { u32_at(sector, 216) } else { 0 };
        check_features(incompat)?;
        let features2 = if version & VERSION_MORE != 0 {
            u32_at(sector, 200)
        } else {
            0
        };
        let byte = |at: usize| u32::from(sector.get(at).copied().unwrap_or(0));
        let uuid = Uuid(array_at(sector, 32));
        let label: [u8; 12] = array_at(sector, 108);
        let label = label.split(|byte| *byte == 0).next().unwrap_or(&[]);
        let superblock = Self {
            block_bytes: u32_at(sector, 4),
            sector_bytes: u32::try_from(Self::sector_bytes(sector)?).unwrap_or(512),
            n_blocks: u64_at(sector, 8),
            n_groups: u32_at(sector, 88),
            blocks_per_group: u32_at(sector, 84),
            group_shift: byte(124),
            inode_shift: byte(123),
            inode_bytes: u16_at(sector, 104),
            root: u64_at(sector, 56),
            directory_bytes: u32_at(sector, 4).checked_shl(byte(192)).unwrap_or(0),
            has_sums,
            has_kinds: incompat & INCOMPAT_FTYPE != 0 || features2 & FEATURES2_FTYPE != 0,
            has_shared_blocks: has_sums && u32_at(sector, 212) & RO_REFLINK != 0,
            log_start: u64_at(sector, 48),
            log_blocks: u32_at(sector, 96),
            uuid,
            block_uuid: match incompat & INCOMPAT_META_UUID {
                0 => uuid,
                _ => Uuid(array_at(sector, 248)),
            },
            label: String::from_utf8_lossy(label).into_owned(),
            needs_repair: incompat & INCOMPAT_NEEDS_REPAIR != 0,
            is_damaged: has_sums && !checksum::is_sound(sector, CHECKSUM_AT),
        };
        superblock.check(byte(192))?;
        Ok(superblock)
    }

    /// Returns the bytes of the first sector: what its checksum covers.
    pub(super) fn sector_bytes(sector: &[u8]) -> Result<usize> {
        let bytes = u32::from(u16_at(sector, 102));
        match bytes.is_power_of_two() && (512..=32768).contains(&bytes) {
            true => Ok(bytes as usize),
            false => Err(damaged(format!("sectors of {bytes} bytes"))),
        }
    }

    /// Returns the byte at which `n_blocks` blocks from `block` (group and number in it) begin. They
    /// must lie in one group.
    pub(super) fn position(&self, block: u64, n_blocks: u64) -> Result<u64> {
        let group = block >> self.group_shift;
        let in_group = block & ((1 << self.group_shift) - 1);
        let per_group = u64::from(self.blocks_per_group);
        let first = group
            .checked_mul(per_group)
            .and_then(|first| first.checked_add(in_group));
        let end = first.and_then(|first| first.checked_add(n_blocks));
        let is_inside = group < u64::from(self.n_groups)
            && in_group < per_group
            && n_blocks <= per_group - in_group;
        match (first, end) {
            (Some(first), Some(end)) if is_inside && end <= self.n_blocks => {
                Ok(first * u64::from(self.block_bytes))
            }
            _ => Err(Error::corrupt(
                format!("block {block:#x}"),
                format!("{n_blocks} from it do not lie in the file system"),
            )),
        }
    }

    fn check(&self, directory_shift: u32) -> Result<()> {
        let is_power =
            |bytes: u32, least, most| bytes.is_power_of_two() && (least..=most).contains(&bytes);
        let inode_bytes = u32::from(self.inode_bytes);
        let per_group = u64::from(self.blocks_per_group);
        let findings = [
            (!is_power(self.block_bytes, 512, 65536))
                .then(|| format!("blocks of {} bytes", self.block_bytes)),
            (!is_power(inode_bytes, 256, 2048.min(self.block_bytes)))
                .then(|| format!("inodes of {inode_bytes} bytes")),
            (directory_shift > 7 || !is_power(self.directory_bytes, 512, 65536))
                .then(|| format!("blocks of directories of {} bytes", self.directory_bytes)),
            (inode_bytes.checked_shl(self.inode_shift) != Some(self.block_bytes)).then(|| {
                format!(
                    "inodes of {inode_bytes} bytes, 1 << {} in a block",
                    self.inode_shift
                )
            }),
            (self.group_shift > 31 || per_group > 1 << self.group_shift || per_group == 0)
                .then(|| format!("{per_group} blocks in a group, {} bits", self.group_shift)),
            (self.n_blocks == 0 || self.n_blocks > per_group * u64::from(self.n_groups))
                .then(|| format!("{} blocks in {} groups", self.n_blocks, self.n_groups)),
        ];
        match findings.into_iter().flatten().next() {
            Some(finding) => Err(damaged(finding)),
            None => Ok(()),
        }
    }
}

fn check_features(incompat: u32) -> Result<()> {
    let unread = incompat & !INCOMPAT_READ;
    if unread == 0 {
        return Ok(());
    }
    let names: Vec<String> = (0..32)
        .map(|bit| 1_u32 << bit)
        .filter(|bit| unread & bit != 0)
        .map(|bit| {
            let known = INCOMPAT_REFUSED.iter().find(|(refused, _)| *refused == bit);
            known.map_or_else(|| format!("{bit:#x}"), |(_, name)| (*name).to_owned())
        })
        .collect();
    Err(Error::unsupported(format!(
        "XFS features that hako does not read: {}",
        names.join(", ")
    )))
}

fn damaged(what: impl Into<String>) -> Error {
    Error::corrupt("superblock", what)
}
