//! Inodes (kernel documentation, ext4, "Index Nodes").

use hako_block::{Error, Result};
use hako_guest::bytes::le::{u16_at, u32_at};
use hako_guest::volume::read_vec;

use super::layout::sum;
use super::{Ext, put};
use crate::Look;

pub(super) const FLAG_EXTENTS: u32 = 0x8_0000;
/// i_flags: the directory has an index by hashes.
pub(super) const FLAG_INDEX: u32 = 0x1000;
const FLAG_HUGE: u32 = 0x4_0000;
const FLAG_INLINE: u32 = 0x1000_0000;

/// Flags of what is not changed, and how people call it.
const REFUSED: &[(u32, &str)] = &[
    (0x4, "compressed"),
    (0x10, "immutable (chattr +i)"),
    (0x20, "append-only (chattr +a)"),
    (0x800, "encrypted"),
    (FLAG_HUGE, "counted in blocks"),
    (0x10_0000, "sealed (verity)"),
    (0x20_0000, "an attribute's value"),
    (FLAG_INLINE, "stored in its inode"),
    (0x4000_0000, "compared whatever the case"),
];

/// What an inode is, in the upper four bits of i_mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory = 4,
    File = 8,
    Link = 10,
}

impl Kind {
    /// Returns what a directory's entry says of it.
    pub(super) fn in_entry(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Link => 7,
        }
    }
}

/// An inode that is changed.
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) raw: Vec<u8>,
}

impl Inode {
    pub(super) fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::corrupt(format!("inode {}", self.number), what)
    }

    /// Returns what it is; none if it is neither file nor directory nor link.
    pub(super) fn kind(&self) -> Option<Kind> {
        match u16_at(&self.raw, 0) >> 12 {
            4 => Some(Kind::Directory),
            8 => Some(Kind::File),
            10 => Some(Kind::Link),
            _ => None,
        }
    }

    /// Refuses what is not of this kind, or whose flags forbid to change it.
    pub(super) fn expect(&self, kind: Kind) -> Result<()> {
        if self.kind() != Some(kind) {
            return Err(Error::invalid(format!(
                "inode {} is no {kind:?}",
                self.number
            )));
        }
        match REFUSED.iter().find(|(flag, _)| self.has(*flag)) {
            None => Ok(()),
            Some((_, what)) => Err(Error::unsupported(format!(
                "inode {} is {what}, and not changed",
                self.number
            ))),
        }
    }

    pub(super) fn flags(&self) -> u32 {
        u32_at(&self.raw, 0x20)
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    pub(super) fn set_flags(&mut self, flags: u32) {
        put(&mut self.raw, 0x20, &flags.to_le_bytes());
    }

    pub(super) fn len_bytes(&self) -> u64 {
        let high = match self.kind() {
            Some(Kind::File) => u32_at(&self.raw, 0x6c),
            _ => 0,
        };
        u64::from(high) << 32 | u64::from(u32_at(&self.raw, 4))
    }

    pub(super) fn set_len(&mut self, len: u64) {
        put(&mut self.raw, 4, &(len as u32).to_le_bytes());
        if self.kind() == Some(Kind::File) {
            put(&mut self.raw, 0x6c, &((len >> 32) as u32).to_le_bytes());
        }
    }

    pub(super) fn links(&self) -> u16 {
        u16_at(&self.raw, 0x1a)
    }

    pub(super) fn set_links(&mut self, links: u16) {
        put(&mut self.raw, 0x1a, &links.to_le_bytes());
    }

    /// Returns the block of its attributes; 0 if it has none.
    pub(super) fn attribute_block(&self) -> u64 {
        u64::from(u16_at(&self.raw, 0x76)) << 32 | u64::from(u32_at(&self.raw, 0x68))
    }

    /// Counts its blocks by what changed.
    pub(super) fn add_blocks(&mut self, n: i64, block_bytes: u64) -> Result<()> {
        let sectors = u64::from(u16_at(&self.raw, 0x74)) << 32 | u64::from(u32_at(&self.raw, 0x1c));
        let change = n.checked_mul((block_bytes / 512) as i64);
        let sectors = change.and_then(|change| sectors.checked_add_signed(change));
        let sectors = sectors.filter(|sectors| *sectors < 1 << 32);
        let sectors = sectors.ok_or_else(|| self.corrupt("its count of blocks is wrong"))?;
        put(&mut self.raw, 0x1c, &(sectors as u32).to_le_bytes());
        put(&mut self.raw, 0x74, &[0; 2]);
        Ok(())
    }

    /// Says when its content changed: modification and change.
    pub(super) fn set_changed(&mut self, time: u32) {
        for at in [0xc, 0x10] {
            put(&mut self.raw, at, &time.to_le_bytes());
        }
        // Nanoseconds, and years past 2038.
        let extra = self.extra_bytes();
        for (at, end) in [(0x84, 8), (0x88, 12)] {
            if extra >= end {
                put(&mut self.raw, at, &[0; 4]);
            }
        }
    }

    /// Returns how many bytes behind the first 128 are fields.
    pub(super) fn extra_bytes(&self) -> usize {
        match self.raw.len() > 128 {
            true => usize::from(u16_at(&self.raw, 0x80)).min(self.raw.len() - 128),
            false => 0,
        }
    }

    /// Returns the 60 bytes of its block map.
    pub(super) fn map(&self) -> &[u8] {
        self.raw.get(0x28..0x64).unwrap_or_default()
    }

    pub(super) fn set_map(&mut self, map: &[u8]) {
        put(&mut self.raw, 0x28, &[0; 60]);
        put(&mut self.raw, 0x28, map.get(..60).unwrap_or(map));
    }

    /// Returns the seed of the sums of its blocks.
    pub(super) fn seed(&self, of_file_system: u32) -> u32 {
        let generation = self.raw.get(0x64..0x68).unwrap_or_default();
        sum(of_file_system, &[&self.number.to_le_bytes(), generation])
    }

    /// Returns its sum, and whether it has an upper half.
    fn sum(&self, of_file_system: u32) -> (u32, bool) {
        let mut zeroed = self.raw.clone();
        let has_high = self.extra_bytes() >= 4;
        put(&mut zeroed, 0x7c, &[0; 2]);
        if has_high {
            put(&mut zeroed, 0x82, &[0; 2]);
        }
        (sum(self.seed(of_file_system), &[&zeroed]), has_high)
    }
}

impl Ext {
    fn inode_at(&self, number: u32) -> Result<u64> {
        if number == 0 || number > self.layout.n_inodes {
            return Err(Error::corrupt(format!("inode {number}"), "there is none"));
        }
        let index = u64::from(number - 1);
        let per_group = u64::from(self.layout.inodes_per_group);
        let table = self.group(index / per_group)?.inode_table();
        let within = index % per_group * self.layout.inode_bytes as u64;
        Ok(table * self.layout.block_bytes + within)
    }

    /// Reads an inode in use. Errors: corrupt if it is not, or its sum is wrong.
    pub(super) fn inode(&self, number: u32) -> Result<Inode> {
        let at = self.inode_at(number)?;
        let raw = read_vec(&*self.volume, at, self.layout.inode_bytes)?;
        let inode = Inode { number, raw };
        if inode.links() == 0 {
            return Err(inode.corrupt("is not in use"));
        }
        if let Some(seed) = self.layout.seed {
            let (found, has_high) = inode.sum(seed);
            let low = u32::from(u16_at(&inode.raw, 0x7c));
            let stored = match has_high {
                true => u32::from(u16_at(&inode.raw, 0x82)) << 16 | low,
                false => low,
            };
            let found = if has_high { found } else { found & 0xffff };
            if found != stored {
                return Err(inode.corrupt("its checksum is wrong"));
            }
        }
        Ok(inode)
    }

    pub(super) fn store(&mut self, inode: &mut Inode) -> Result<()> {
        if let Some(seed) = self.layout.seed {
            let (found, has_high) = inode.sum(seed);
            put(&mut inode.raw, 0x7c, &(found as u16).to_le_bytes());
            if has_high {
                put(&mut inode.raw, 0x82, &((found >> 16) as u16).to_le_bytes());
            }
        }
        let at = self.inode_at(inode.number)?;
        self.touch_bytes(at..at + inode.raw.len() as u64);
        self.volume.write_at(at, &inode.raw)
    }

    /// Returns a new inode without content, with the SELinux label of `like`. It is not stored yet.
    pub(super) fn new_inode(&mut self, kind: Kind, look: Look, like: &Inode) -> Result<Inode> {
        let index = u64::from(like.number.saturating_sub(1));
        let goal = index / u64::from(self.layout.inodes_per_group);
        let number = self.take_inode(goal, kind == Kind::Directory)?;
        let mut raw = vec![0; self.layout.inode_bytes];
        let mode = (kind as u16) << 12 | look.mode & 0o7777;
        put(&mut raw, 0, &mode.to_le_bytes());
        for at in [0x8, 0xc, 0x10] {
            put(&mut raw, at, &look.time.to_le_bytes());
        }
        put(&mut raw, 0x1a, &1_u16.to_le_bytes());
        // As the kernel does, a number that no earlier inode in this place had.
        let generation = hako_block::Uuid::random().0;
        put(&mut raw, 0x64, generation.get(..4).unwrap_or_default());
        if self.layout.inode_bytes > 128 {
            let extra = self.layout.extra_inode_bytes();
            put(&mut raw, 0x80, &extra.to_le_bytes());
            if extra >= 20 {
                put(&mut raw, 0x90, &look.time.to_le_bytes());
            }
        }
        let mut inode = Inode { number, raw };
        if let Some(label) = self.label(like)? {
            inode.set_label(&label);
        }
        Ok(inode)
    }
}
