//! Inodes (kernel documentation, ext4, "Index Nodes").

use hako_block::{Error, ErrorKind, Result};

use super::superblock::sum;
use crate::bytes::le::{u16_at, u32_at};
use crate::fs::{NodeKind, Stat, Time};

/// i_flags: the content is encrypted.
const FLAG_ENCRYPTED: u32 = 0x800;
/// i_flags: its blocks are counted as such, not as sectors.
const FLAG_HUGE_FILE: u32 = 0x4_0000;
/// i_flags: the content is in an extent tree.
const FLAG_EXTENTS: u32 = 0x8_0000;
/// i_flags: holds the value of an extended attribute of another inode.
const FLAG_EA_INODE: u32 = 0x20_0000;
/// i_flags: the content is in the inode.
const FLAG_INLINE: u32 = 0x1000_0000;

const SHORT_BYTES: usize = 128;
const I_BLOCK: std::ops::Range<usize> = 0x28..0x64;
const CHECKSUM_LOW_AT: usize = 0x7c;
const EXTRA_BYTES_AT: usize = 0x80;
const CHECKSUM_HIGH_AT: usize = 0x82;

/// An inode as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    raw: Vec<u8>,
}

impl Inode {
    /// Returns the inode in `raw`, at least 128 bytes. Errors: corrupt if its checksum (where
    /// `seed`, the file system's, is given) is wrong, it is not in use, or it is nobody's business.
    pub(super) fn decode(number: u32, raw: Vec<u8>, seed: Option<u32>) -> Result<Self> {
        let inode = Self::decode_any(number, raw, seed)?;
        if u16_at(&inode.raw, 0x1a) == 0 {
            return Err(inode.corrupt("is not in use"));
        }
        if inode.has(FLAG_EA_INODE) {
            return Err(inode.corrupt("holds an extended attribute"));
        }
        inode.kind()?;
        Ok(inode)
    }

    /// Like [`Inode::decode`], whatever it is for.
    pub(super) fn decode_any(number: u32, raw: Vec<u8>, seed: Option<u32>) -> Result<Self> {
        let inode = Self { number, raw };
        if let Some(seed) = seed {
            inode.check_sum(seed)?;
        }
        Ok(inode)
    }

    /// Returns whether it holds the value of an attribute of another inode.
    pub(super) fn is_attribute(&self) -> bool {
        self.has(FLAG_EA_INODE)
    }

    /// Returns how many names it has.
    pub(super) fn n_links(&self) -> u16 {
        u16_at(&self.raw, 0x1a)
    }

    /// Returns the block of its attributes; 0 if it has none.
    pub(super) fn attribute_block(&self) -> u64 {
        u64::from(u16_at(&self.raw, 0x76)) << 32 | u64::from(u32_at(&self.raw, 0x68))
    }

    /// Returns how many blocks of a length it says that it has.
    pub(super) fn n_stored_blocks(&self, block_bytes: u32) -> u64 {
        let n = u64::from(u16_at(&self.raw, 0x74)) << 32 | u64::from(u32_at(&self.raw, 0x1c));
        match self.has(FLAG_HUGE_FILE) {
            true => n,
            false => n / u64::from(block_bytes / 512),
        }
    }

    /// Returns an error about this inode.
    pub(super) fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::corrupt(self.place(), what)
    }

    /// Returns its name for messages.
    pub(super) fn place(&self) -> String {
        format!("inode {}", self.number)
    }

    /// Returns what it is.
    pub(super) fn kind(&self) -> Result<NodeKind> {
        match u16_at(&self.raw, 0) >> 12 {
            1 => Ok(NodeKind::Fifo),
            2 => Ok(NodeKind::CharDevice),
            4 => Ok(NodeKind::Directory),
            6 => Ok(NodeKind::BlockDevice),
            8 => Ok(NodeKind::File),
            10 => Ok(NodeKind::Link),
            12 => Ok(NodeKind::Socket),
            other => Err(self.corrupt(format!("is of the unknown kind {other}"))),
        }
    }

    /// Returns the length of its content. The upper half is that only of files, and of directories
    /// where these may be so large.
    pub(super) fn len_bytes(&self, has_large_directories: bool) -> Result<u64> {
        let has_high = match self.kind()? {
            NodeKind::File => true,
            NodeKind::Directory => has_large_directories,
            _ => false,
        };
        let high = if has_high { u32_at(&self.raw, 0x6c) } else { 0 };
        Ok(u64::from(high) << 32 | u64::from(u32_at(&self.raw, 0x4)))
    }

    /// Returns what stat(2) would, but the length.
    pub(super) fn stat(&self, len_bytes: u64) -> Result<Stat> {
        let raw = &self.raw;
        let kind = self.kind()?;
        let halves = |low, high| u32::from(u16_at(raw, high)) << 16 | u32::from(u16_at(raw, low));
        let is_device = matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice);
        Ok(Stat {
            kind,
            len_bytes,
            mode: u32::from(u16_at(raw, 0)) & 0o7777,
            uid: halves(0x2, 0x78),
            gid: halves(0x18, 0x7a),
            links: u32::from(u16_at(raw, 0x1a)),
            modified: self.modified(),
            device: is_device.then(|| self.device()),
        })
    }

    /// Returns the 60 bytes that hold the root of the block map, or the content itself.
    pub(super) fn block_field(&self) -> &[u8] {
        self.raw.get(I_BLOCK).unwrap_or(&[])
    }

    /// Returns the part behind the fields that are known to it, where short attributes are.
    pub(super) fn attributes(&self) -> &[u8] {
        let from = SHORT_BYTES + usize::from(u16_at(&self.raw, EXTRA_BYTES_AT));
        self.raw.get(from..).unwrap_or(&[])
    }

    /// Returns whether its content is in an extent tree.
    pub(super) fn has_extents(&self) -> bool {
        self.has(FLAG_EXTENTS)
    }

    /// Returns whether its content is in the inode.
    pub(super) fn is_inline(&self) -> bool {
        self.has(FLAG_INLINE)
    }

    /// Refuses an encrypted one.
    pub(super) fn check_readable(&self) -> Result<()> {
        if self.has(FLAG_ENCRYPTED) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{} is encrypted (fscrypt)", self.place()),
            ));
        }
        Ok(())
    }

    /// Returns the seed of the checksums of its blocks, from the file system's.
    pub(super) fn seed(&self, of_file_system: u32) -> u32 {
        let generation = self.raw.get(0x64..0x68).unwrap_or(&[]);
        sum(of_file_system, &[&self.number.to_le_bytes(), generation])
    }

    fn has(&self, flag: u32) -> bool {
        u32_at(&self.raw, 0x20) & flag != 0
    }

    /// Seconds in 32 bits; two more in the field with the nanoseconds, where the inode has it.
    fn modified(&self) -> Time {
        let seconds = i64::from(u32_at(&self.raw, 0x10).cast_signed());
        let extra = if self.has_extra(0x8c) {
            u32_at(&self.raw, 0x88)
        } else {
            0
        };
        Time {
            seconds: seconds + (i64::from(extra & 3) << 32),
            nanoseconds: (extra >> 2).min(999_999_999),
        }
    }

    /// Returns whether the fields up to byte `end` are there.
    fn has_extra(&self, end: usize) -> bool {
        self.raw.len() >= end && SHORT_BYTES + usize::from(u16_at(&self.raw, EXTRA_BYTES_AT)) >= end
    }

    /// Linux's two encodings: 8 and 8 bits in the first block number, else 12 and 20 in the second.
    fn device(&self) -> (u32, u32) {
        let old = u32_at(&self.raw, I_BLOCK.start);
        if old != 0 {
            return (old >> 8 & 0xff, old & 0xff);
        }
        let new = u32_at(&self.raw, I_BLOCK.start + 4);
        (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00)
    }

    fn check_sum(&self, seed: u32) -> Result<()> {
        let has_high = self.has_extra(0x84);
        let mut zeroed = self.raw.clone();
        let mut clear = |at: usize| {
            zeroed
                .iter_mut()
                .skip(at)
                .take(2)
                .for_each(|byte| *byte = 0)
        };
        clear(CHECKSUM_LOW_AT);
        if has_high {
            clear(CHECKSUM_HIGH_AT);
        }
        let found = sum(self.seed(seed), &[&zeroed]);
        let low = u32::from(u16_at(&self.raw, CHECKSUM_LOW_AT));
        let is_right = if has_high {
            found == u32::from(u16_at(&self.raw, CHECKSUM_HIGH_AT)) << 16 | low
        } else {
            found & 0xffff == low
        };
        match is_right {
            true => Ok(()),
            false => Err(self.corrupt("its checksum is wrong")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(fields: &[(usize, &[u8])]) -> Inode {
        let mut raw = vec![0; 256];
        raw[1] = 0x81;
        raw[0x1a] = 1;
        for (at, bytes) in fields {
            raw[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Inode::decode(12, raw, None).unwrap()
    }

    #[test]
    fn times_before_1970_and_after_2038_are_told_apart_by_the_extra_bits() {
        let minus_one = (0x10, &[0xff; 4][..]);
        assert_eq!(inode(&[minus_one]).modified().seconds, -1);
        let later = inode(&[minus_one, (0x80, &[32, 0]), (0x88, &[1 | 5 << 2, 0, 0, 0])]);
        assert_eq!(later.modified().seconds, (1 << 32) - 1);
        assert_eq!(later.modified().nanoseconds, 5);
        let too_short = inode(&[minus_one, (0x80, &[8, 0]), (0x88, &[1, 0, 0, 0])]);
        assert_eq!(too_short.modified().seconds, -1);
    }

    #[test]
    fn devices_are_decoded_as_linux_encodes_them() {
        let device = |fields: &[(usize, &[u8])]| inode(fields).device();
        assert_eq!(device(&[(0x28, &[1, 8, 0, 0])]), (8, 1));
        // makedev(0xabc, 0x12345)
        assert_eq!(
            device(&[(0x2c, &[0x45, 0xbc, 0x3a, 0x12])]),
            (0xabc, 0x12345)
        );
    }
}
