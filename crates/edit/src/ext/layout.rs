//! The superblock, and where the descriptors of groups are (kernel documentation, ext4, "The Super
//! Block"). Only what a writer must know; what it does not know is refused here.

use hako_block::{Crc32c, Error, Result};
use hako_guest::bytes::le::{u16_at, u32_at};

use super::put;

/// Where the superblock is, and its length.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
pub(super) const SUPERBLOCK_BYTES: usize = 1024;

const CHECKSUM_AT: usize = 0x3fc;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
/// Preallocation of directories, journal, attributes, room for descriptors, sorted directories,
/// sparse_super2, fast commits, stable inodes, a file of orphans.
const COMPAT_KNOWN: u32 = 0x1 | 0x4 | 0x8 | 0x10 | 0x20 | 0x200 | 0x400 | 0x800 | 0x1000;

pub(super) const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
pub(super) const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_FLEX_BG: u32 = 0x200;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
/// Beside those above: values of attributes in inodes, large directories, inline data, encryption and
/// casefold (of single inodes, which are refused).
const INCOMPAT_KNOWN: u32 = INCOMPAT_FILETYPE
    | INCOMPAT_META_BG
    | INCOMPAT_EXTENTS
    | INCOMPAT_64BIT
    | INCOMPAT_FLEX_BG
    | INCOMPAT_CSUM_SEED
    | 0x400
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;

const RO_SPARSE_SUPER: u32 = 0x1;
const RO_GDT_CSUM: u32 = 0x10;
const RO_METADATA_CSUM: u32 = 0x400;
/// Sparse superblocks, large files, sorted directories, huge files, sums of descriptors, many
/// subdirectories, extra inode fields, sums of metadata, verity (of single inodes, which are refused).
const RO_KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x400 | 0x8000;

/// Features that people know, by name.
const NAMES: &[(usize, u32, &str)] = &[
    (1, 0x8, "journal_dev"),
    (1, 0x100, "mmp"),
    (2, 0x100, "quota"),
    (2, 0x200, "bigalloc"),
    (2, 0x1000, "read-only"),
    (2, 0x2000, "project"),
    (2, 0x4000, "shared_blocks"),
];

/// A superblock that this writer may change.
pub(super) struct Layout {
    raw: Vec<u8>,
    pub(super) block_bytes: u64,
    pub(super) n_blocks: u64,
    pub(super) first_block: u64,
    pub(super) blocks_per_group: u64,
    pub(super) inodes_per_group: u32,
    pub(super) n_inodes: u32,
    pub(super) first_inode: u32,
    pub(super) inode_bytes: usize,
    pub(super) descriptor_bytes: u64,
    /// Groups that lie together.
    pub(super) flex_groups: u64,
    first_meta_group: u64,
    has_meta_groups: bool,
    /// The seed of the sums of metadata, where they have any.
    pub(super) seed: Option<u32>,
}

/// Returns the sum of pieces, from a seed, as ext4 stores it.
pub(super) fn sum(seed: u32, pieces: &[&[u8]]) -> u32 {
    let mut crc = Crc32c::from_state(seed);
    pieces.iter().for_each(|piece| crc.update(piece));
    crc.state()
}

impl Layout {
    /// Decodes one. Errors: [`hako_block::ErrorKind::Unsupported`] for features that this writer does
    /// not know and for a file system that was not unmounted or has errors; corrupt for numbers that
    /// contradict each other.
    pub(super) fn decode(raw: Vec<u8>) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt("superblock", what);
        let (incompat, ro) = (u32_at(&raw, 0x60), u32_at(&raw, 0x64));
        if raw.len() != SUPERBLOCK_BYTES || u16_at(&raw, 0x38) != 0xef53 {
            return Err(corrupt("magic number is not ef53"));
        }
        if u32_at(&raw, 0x4c) == 0 {
            return Err(Error::unsupported("ext2 of revision 0 is not written"));
        }
        refuse_unknown(&raw)?;
        refuse_unclean(&raw)?;
        let seed = (ro & RO_METADATA_CSUM != 0).then(|| match incompat & INCOMPAT_CSUM_SEED {
            0 => sum(!0, &[raw.get(0x68..0x78).unwrap_or_default()]),
            _ => u32_at(&raw, 0x270),
        });
        let covered = raw.get(..CHECKSUM_AT).unwrap_or_default();
        if seed.is_some() && sum(!0, &[covered]) != u32_at(&raw, CHECKSUM_AT) {
            return Err(corrupt("its checksum is wrong"));
        }
        let log_block = u32_at(&raw, 0x18).min(63);
        let is_wide = incompat & INCOMPAT_64BIT != 0;
        let high = if is_wide { u32_at(&raw, 0x150) } else { 0 };
        let log_flex = raw.get(0x174).copied().unwrap_or(0).min(31);
        let layout = Self {
            block_bytes: 1024_u64.checked_shl(log_block).unwrap_or(0),
            n_blocks: u64::from(high) << 32 | u64::from(u32_at(&raw, 4)),
            first_block: u64::from(u32_at(&raw, 0x14)),
            blocks_per_group: u64::from(u32_at(&raw, 0x20)),
            inodes_per_group: u32_at(&raw, 0x28),
            n_inodes: u32_at(&raw, 0),
            first_inode: u32_at(&raw, 0x54),
            inode_bytes: usize::from(u16_at(&raw, 0x58)),
            descriptor_bytes: if is_wide {
                u64::from(u16_at(&raw, 0xfe))
            } else {
                32
            },
            flex_groups: if incompat & INCOMPAT_FLEX_BG != 0 {
                1 << log_flex
            } else {
                1
            },
            first_meta_group: u64::from(u32_at(&raw, 0x104)),
            has_meta_groups: incompat & INCOMPAT_META_BG != 0,
            seed,
            raw,
        };
        layout.check()?;
        Ok(layout)
    }

    fn check(&self) -> Result<()> {
        let bits = self.block_bytes * 8;
        let is_sound = (1024..=32768).contains(&self.block_bytes)
            && self.n_blocks > self.first_block
            && self.first_block <= 1
            && (1..=bits).contains(&self.blocks_per_group)
            && self.blocks_per_group.is_multiple_of(8)
            && (1..=bits).contains(&u64::from(self.inodes_per_group))
            && self.inodes_per_group.is_multiple_of(8)
            && self.inode_bytes.is_power_of_two()
            && (128..=self.block_bytes as usize).contains(&self.inode_bytes)
            && self.descriptor_bytes.is_power_of_two()
            && (32..=1024).contains(&self.descriptor_bytes)
            && self.n_groups() <= u64::from(u32::MAX)
            && self.n_groups().saturating_mul(self.inodes_per_group.into())
                >= u64::from(self.n_inodes);
        match is_sound {
            true => Ok(()),
            false => Err(Error::corrupt(
                "superblock",
                "its numbers contradict each other",
            )),
        }
    }

    pub(super) fn n_groups(&self) -> u64 {
        (self.n_blocks.saturating_sub(self.first_block)).div_ceil(self.blocks_per_group.max(1))
    }

    pub(super) fn incompat(&self, feature: u32) -> bool {
        u32_at(&self.raw, 0x60) & feature != 0
    }

    /// Whether descriptors have sums and flags for what was never written.
    pub(super) fn has_group_flags(&self) -> bool {
        u32_at(&self.raw, 0x64) & (RO_GDT_CSUM | RO_METADATA_CSUM) != 0
    }

    /// Returns the sum of a descriptor, which is in the two bytes at 0x1e; none if it has none.
    pub(super) fn descriptor_sum(&self, group: u64, descriptor: &[u8]) -> Option<u16> {
        let number = (group as u32).to_le_bytes();
        let head = descriptor.get(..0x1e).unwrap_or_default();
        let rest = descriptor.get(0x20..).unwrap_or_default();
        match self.seed {
            Some(seed) => Some(sum(seed, &[&number, head, &[0; 2], rest]) as u16),
            None if self.has_group_flags() => {
                let uuid = self.raw.get(0x68..0x78).unwrap_or_default();
                let pieces = [uuid, &number, head, rest];
                Some(pieces.iter().fold(!0, |crc, piece| crc16(crc, piece)))
            }
            None => None,
        }
    }

    /// Returns where in the volume the descriptor of a group is.
    pub(super) fn descriptor_at(&self, group: u64) -> u64 {
        let per_block = self.block_bytes / self.descriptor_bytes;
        let (index, within) = (group / per_block, group % per_block);
        let block = if !self.has_meta_groups || index < self.first_meta_group {
            SUPERBLOCK_AT / self.block_bytes + 1 + index
        } else {
            let first = index * per_block;
            let has_boot_block = self.block_bytes == 1024 && self.first_block == 0 && first == 0;
            self.first_block
                + first * self.blocks_per_group
                + u64::from(self.has_copy(first))
                + u64::from(has_boot_block)
        };
        block * self.block_bytes + within * self.descriptor_bytes
    }

    /// Returns how many blocks of superblock and descriptors begin a group.
    pub(super) fn n_copies(&self, group: u64) -> u64 {
        let per_block = self.block_bytes / self.descriptor_bytes;
        let n_blocks = self.n_groups().div_ceil(per_block);
        let has_copy = self.has_copy(group);
        if self.has_meta_groups && group / per_block >= self.first_meta_group {
            let within = group % per_block;
            let has_descriptors = within <= 1 || within + 1 == per_block;
            return u64::from(has_copy) + u64::from(has_descriptors);
        }
        match (has_copy, self.has_meta_groups) {
            (false, _) => 0,
            (true, true) => 1 + self.first_meta_group.min(n_blocks),
            (true, false) => 1 + n_blocks + u64::from(u16_at(&self.raw, 0xce)),
        }
    }

    fn has_copy(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if u32_at(&self.raw, 0x5c) & COMPAT_SPARSE_SUPER2 != 0 {
            return [0x24c, 0x250]
                .iter()
                .any(|at| u64::from(u32_at(&self.raw, *at)) == group);
        }
        let is_power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        u32_at(&self.raw, 0x64) & RO_SPARSE_SUPER == 0
            || group == 1
            || [3, 5, 7].into_iter().any(is_power_of)
    }

    /// Counts free blocks and inodes by what changed; returns the superblock to write. Errors: corrupt
    /// if there would be fewer than none.
    pub(super) fn count(&mut self, blocks: i64, inodes: i64, time: u32) -> Result<&[u8]> {
        let wrong = || Error::corrupt("superblock", "its count of what is free is wrong");
        let is_wide = self.incompat(INCOMPAT_64BIT);
        let high = if is_wide { u32_at(&self.raw, 0x158) } else { 0 };
        let free = u64::from(high) << 32 | u64::from(u32_at(&self.raw, 0xc));
        let free = free.checked_add_signed(blocks).ok_or_else(wrong)?;
        let nodes = u64::from(u32_at(&self.raw, 0x10));
        let nodes = nodes.checked_add_signed(inodes).ok_or_else(wrong)?;
        let nodes = u32::try_from(nodes).map_err(|_| wrong())?;
        put(&mut self.raw, 0xc, &(free as u32).to_le_bytes());
        if is_wide {
            put(&mut self.raw, 0x158, &((free >> 32) as u32).to_le_bytes());
        }
        put(&mut self.raw, 0x10, &nodes.to_le_bytes());
        put(&mut self.raw, 0x30, &time.to_le_bytes());
        if self.seed.is_some() {
            let found = sum(!0, &[self.raw.get(..CHECKSUM_AT).unwrap_or_default()]);
            put(&mut self.raw, CHECKSUM_AT, &found.to_le_bytes());
        }
        Ok(&self.raw)
    }

    /// Returns how many bytes of the fields behind the first 128 a new inode has.
    pub(super) fn extra_inode_bytes(&self) -> u16 {
        let most = (self.inode_bytes.saturating_sub(128)) as u16;
        let wanted = u16_at(&self.raw, 0x15e);
        let usual = if (4..=most).contains(&wanted) {
            wanted
        } else {
            32
        };
        usual.min(most) & !3
    }
}

fn refuse_unknown(raw: &[u8]) -> Result<()> {
    let words = [
        (0x5c, COMPAT_KNOWN),
        (0x60, INCOMPAT_KNOWN | INCOMPAT_RECOVER),
        (0x64, RO_KNOWN),
    ];
    for (which, (at, known)) in words.into_iter().enumerate() {
        // What says that orphans are there is a state.
        let state = if which == 2 { 0x1_0000 } else { 0 };
        let unknown = u32_at(raw, at) & !(known | state);
        if unknown == 0 {
            continue;
        }
        let bit = 1_u32 << unknown.trailing_zeros();
        let mut names = NAMES.iter();
        let name = names.find(|(word, one, _)| (*word, *one) == (which, bit));
        let name = name.map_or_else(|| format!("{bit:#x}"), |(_, _, name)| (*name).to_owned());
        return Err(Error::unsupported(format!(
            "hako does not write ext4 with the feature {name}"
        )));
    }
    Ok(())
}

fn refuse_unclean(raw: &[u8]) -> Result<()> {
    let state = u16_at(raw, 0x3a);
    let what = if u32_at(raw, 0x60) & INCOMPAT_RECOVER != 0 {
        "it was not unmounted: its journal holds changes"
    } else if state & 2 != 0 {
        "Linux found errors in it, which nobody has repaired"
    } else if state & 1 == 0 && u32_at(raw, 0x5c) & COMPAT_HAS_JOURNAL == 0 {
        "it was not unmounted"
    } else if u32_at(raw, 0xe8) != 0 || u32_at(raw, 0x64) & 0x1_0000 != 0 {
        "files that were deleted while they were open are to be cleared first"
    } else {
        return Ok(());
    };
    Err(Error::unsupported(what).hint("start the machine once and shut it down, or run e2fsck"))
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
