//! The features of ext2, ext3 and ext4, by their bits in the superblock.

use hako_block::{Error, Result};

/// s_feature_compat: the file system has a journal.
pub(super) const COMPAT_HAS_JOURNAL: u32 = 0x4;
/// s_feature_compat: at most two copies of the superblock, in the groups that it names.
pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x200;

/// s_feature_ro_compat: copies of the superblock are in groups 0, 1 and powers of 3, 5 and 7 only.
pub(super) const RO_SPARSE_SUPER: u32 = 0x1;
const RO_LARGE_FILE: u32 = 0x2;
const RO_BTREE_DIR: u32 = 0x4;
/// s_feature_ro_compat: group descriptors have a CRC-16.
pub(super) const RO_GDT_CSUM: u32 = 0x10;
/// s_feature_ro_compat: the unit of allocation is a cluster of several blocks.
pub(super) const RO_BIGALLOC: u32 = 0x200;
/// s_feature_ro_compat: structures have a CRC-32C.
pub(super) const RO_METADATA_CSUM: u32 = 0x400;

/// Features for writers that leave bitmaps what they are: sparse superblocks, large files, sorted
/// directories, huge files, checksums of groups, many subdirectories, extra inode fields, quota,
/// bigalloc, metadata checksums, read-only, project quota, verity, orphan file.
pub(super) const RO_MAPPED: u32 = 0x1_b77f;

/// s_feature_incompat: a directory entry tells what it names.
pub(super) const INCOMPAT_FILETYPE: u32 = 0x2;
/// s_feature_incompat: the journal holds changes that are nowhere else.
pub(super) const INCOMPAT_RECOVER: u32 = 0x4;
/// s_feature_incompat: the descriptors of later groups lie in those groups.
pub(super) const INCOMPAT_META_BG: u32 = 0x10;
/// s_feature_incompat: block numbers have 64 bits, group descriptors more than 32 bytes.
pub(super) const INCOMPAT_64BIT: u32 = 0x80;
/// s_feature_incompat: bitmaps and inodes of several groups lie together.
pub(super) const INCOMPAT_FLEX_BG: u32 = 0x200;
/// s_feature_incompat: the seed of the checksums is in the superblock.
pub(super) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
/// s_feature_incompat: a directory may be longer than 2 GiB.
pub(super) const INCOMPAT_LARGEDIR: u32 = 0x4000;

/// Incompatible features that are read, or do not matter to a reader: file types, recovery, meta_bg,
/// extents, 64bit, mmp, flex_bg, ea_inode, checksum seed, large directories, inline data,
/// encryption (of single files, which are refused), casefold (names are compared as they are stored).
const INCOMPAT_READ: u32 = INCOMPAT_FILETYPE
    | INCOMPAT_RECOVER
    | INCOMPAT_META_BG
    | 0x40
    | INCOMPAT_64BIT
    | 0x100
    | INCOMPAT_FLEX_BG
    | 0x400
    | INCOMPAT_CSUM_SEED
    | INCOMPAT_LARGEDIR
    | 0x8000
    | 0x1_0000
    | 0x2_0000;

/// Incompatible features that are known and not read.
const INCOMPAT_REFUSED: &[(u32, &str)] = &[
    (0x1, "compression"),
    (0x8, "journal_dev: it is the journal of another file system"),
    (0x1000, "dirdata"),
];

/// The three words of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Features {
    /// Those that a reader and a writer may pass over.
    pub(super) compat: u32,
    /// Those that a reader must know.
    pub(super) incompat: u32,
    /// Those that a writer must know.
    pub(super) ro_compat: u32,
}

impl Features {
    /// Refuses what cannot be read, by name; what is not known, by its bit.
    pub(super) fn check(self) -> Result<()> {
        let unread = self.incompat & !INCOMPAT_READ;
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
            "ext4 features that hako does not read: {}",
            names.join(", ")
        )))
    }

    /// Returns the name that mount(8) and blkid(8) have for a file system with these features.
    pub(super) fn kind(self) -> &'static str {
        let has_journal = self.compat & COMPAT_HAS_JOURNAL != 0;
        let of_ext2 = INCOMPAT_FILETYPE | INCOMPAT_META_BG;
        let of_ext3 = of_ext2 | INCOMPAT_RECOVER;
        let is_old = self.ro_compat & !(RO_SPARSE_SUPER | RO_LARGE_FILE | RO_BTREE_DIR) == 0;
        if is_old && !has_journal && self.incompat & !of_ext2 == 0 {
            "ext2"
        } else if is_old && has_journal && self.incompat & !of_ext3 == 0 {
            "ext3"
        } else {
            "ext4"
        }
    }

    /// Returns whether one of `bits` is among the features that a reader must know.
    pub(super) fn incompat(self, bits: u32) -> bool {
        self.incompat & bits != 0
    }

    /// Returns whether one of `bits` is among the features that a writer must know.
    pub(super) fn ro_compat(self, bits: u32) -> bool {
        self.ro_compat & bits != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(incompat: u32) -> String {
        let features = Features {
            incompat,
            ..Features::default()
        };
        features.check().unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_read_is_refused_by_name_and_the_unknown_by_its_bit() {
        assert!(refusal(0x1 | 0x40).ends_with(": compression"));
        assert!(refusal(0x1000 | 0x80_0000).ends_with(": dirdata, 0x800000"));
        let unknown_ro = Features {
            ro_compat: !0,
            compat: !0,
            incompat: 0x2c2,
        };
        unknown_ro.check().unwrap();
    }
}
