//! Groups of blocks: their descriptors, and which blocks and inodes are free (kernel documentation,
//! ext4, "Block Group Descriptors", "Block and Inode Bitmaps").

use hako_block::{Error, Result};
use hako_guest::bytes::le::{u16_at, u32_at};
use hako_guest::volume::read_vec;

use super::layout::{Layout, sum};
use super::{Ext, put};

/// bg_flags: no inode was ever used; the bitmap of blocks was never written.
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;

/// A descriptor that is changed.
pub(super) struct Group {
    number: u64,
    raw: Vec<u8>,
}

/// Blocks that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Group {
    fn pair(&self, low: usize, high: usize) -> u64 {
        let top = if self.raw.len() >= 64 {
            u32_at(&self.raw, high)
        } else {
            0
        };
        u64::from(top) << 32 | u64::from(u32_at(&self.raw, low))
    }

    fn half_pair(&self, low: usize, high: usize) -> u32 {
        let top = if self.raw.len() >= 64 {
            u16_at(&self.raw, high)
        } else {
            0
        };
        u32::from(top) << 16 | u32::from(u16_at(&self.raw, low))
    }

    fn set_half_pair(&mut self, low: usize, high: usize, value: u32) {
        put(&mut self.raw, low, &(value as u16).to_le_bytes());
        if self.raw.len() >= 64 {
            put(&mut self.raw, high, &((value >> 16) as u16).to_le_bytes());
        }
    }

    pub(super) fn block_bitmap(&self) -> u64 {
        self.pair(0x0, 0x20)
    }

    pub(super) fn inode_bitmap(&self) -> u64 {
        self.pair(0x4, 0x24)
    }

    pub(super) fn inode_table(&self) -> u64 {
        self.pair(0x8, 0x28)
    }

    fn free_blocks(&self) -> u32 {
        self.half_pair(0xc, 0x2c)
    }

    fn free_inodes(&self) -> u32 {
        self.half_pair(0xe, 0x2e)
    }

    fn flags(&self, layout: &Layout) -> u16 {
        if layout.has_group_flags() {
            u16_at(&self.raw, 0x12)
        } else {
            0
        }
    }

    fn clear_flag(&mut self, flag: u16) {
        let flags = u16_at(&self.raw, 0x12) & !flag;
        put(&mut self.raw, 0x12, &flags.to_le_bytes());
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::corrupt(format!("group {}", self.number), what)
    }

    /// Changes a count by so many. Errors: corrupt if fewer than none were left.
    fn add(&mut self, low: usize, high: usize, n: i64) -> Result<()> {
        let now = i64::from(self.half_pair(low, high));
        let then = now.checked_add(n).and_then(|then| u32::try_from(then).ok());
        let then = then.ok_or_else(|| self.corrupt("its counts are wrong"))?;
        self.set_half_pair(low, high, then);
        Ok(())
    }
}

/// Which bitmap: of blocks, of inodes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Map {
    Blocks,
    Inodes,
}

impl Ext {
    /// Reads the descriptor of a group. Errors: corrupt if its sum is wrong or it leads out.
    pub(super) fn group(&self, number: u64) -> Result<Group> {
        let layout = &self.layout;
        let at = layout.descriptor_at(number);
        let raw = read_vec(&*self.volume, at, layout.descriptor_bytes as usize)?;
        let group = Group { number, raw };
        if let Some(found) = layout.descriptor_sum(number, &group.raw)
            && found != u16_at(&group.raw, 0x1e)
        {
            return Err(group.corrupt("the checksum of its descriptor is wrong"));
        }
        let table = self.table_blocks();
        let places = [
            (group.block_bitmap(), 1),
            (group.inode_bitmap(), 1),
            (group.inode_table(), table),
        ];
        let is_inside = |(at, len): &(u64, u64)| {
            let end = at.checked_add(*len);
            *at > layout.first_block && end.is_some_and(|end| end <= layout.n_blocks)
        };
        match places.iter().all(is_inside) {
            true => Ok(group),
            false => Err(group.corrupt("its bitmaps or inodes lie outside")),
        }
    }

    /// Returns how many blocks the inodes of a group take.
    pub(super) fn table_blocks(&self) -> u64 {
        let bytes = u64::from(self.layout.inodes_per_group) * self.layout.inode_bytes as u64;
        bytes.div_ceil(self.layout.block_bytes)
    }

    fn store_group(&mut self, mut group: Group) -> Result<()> {
        if let Some(found) = self.layout.descriptor_sum(group.number, &group.raw) {
            put(&mut group.raw, 0x1e, &found.to_le_bytes());
        }
        let at = self.layout.descriptor_at(group.number);
        self.touch(at / self.layout.block_bytes);
        self.volume.write_at(at, &group.raw)
    }

    /// Returns the blocks of a group, first and end.
    fn blocks_of(&self, group: u64) -> (u64, u64) {
        let first = self.layout.first_block + group * self.layout.blocks_per_group;
        let end = first.saturating_add(self.layout.blocks_per_group);
        (first, end.min(self.layout.n_blocks))
    }

    /// Returns how many bytes of a bitmap its sum covers.
    fn covered(&self, map: Map) -> usize {
        match map {
            Map::Blocks => (self.layout.blocks_per_group / 8) as usize,
            Map::Inodes => (self.layout.inodes_per_group / 8) as usize,
        }
    }

    /// Reads a bitmap, one block; that which was never written is made. Errors: corrupt if its sum or
    /// what is free by it is not what the descriptor says.
    fn bitmap(&self, group: &Group, map: Map) -> Result<Vec<u8>> {
        let bytes = self.layout.block_bytes as usize;
        let (flag, at, low, high) = match map {
            Map::Blocks => (BLOCK_UNINIT, group.block_bitmap(), 0x18, 0x38),
            Map::Inodes => (INODE_UNINIT, group.inode_bitmap(), 0x1a, 0x3a),
        };
        let bits = if group.flags(&self.layout) & flag != 0 {
            match map {
                Map::Blocks => self.unwritten_blocks(group)?,
                Map::Inodes => {
                    let mut bits = vec![0; bytes];
                    set_bits(&mut bits, u64::from(self.layout.inodes_per_group), u64::MAX);
                    bits
                }
            }
        } else {
            let bits = read_vec(&*self.volume, at * self.layout.block_bytes, bytes)?;
            let covered = bits.get(..self.covered(map)).unwrap_or_default();
            let stored = group.half_pair(low, high);
            let mask = if group.raw.len() >= 64 { !0 } else { 0xffff };
            if self
                .layout
                .seed
                .is_some_and(|seed| sum(seed, &[covered]) & mask != stored)
            {
                return Err(group.corrupt("the checksum of a bitmap is wrong"));
            }
            bits
        };
        let (n, free) = match map {
            Map::Blocks => {
                let (first, end) = self.blocks_of(group.number);
                (end.saturating_sub(first), group.free_blocks())
            }
            Map::Inodes => (u64::from(self.layout.inodes_per_group), group.free_inodes()),
        };
        let counted = (0..n).filter(|bit| !has_bit(&bits, *bit)).count() as u64;
        match counted == u64::from(free) {
            true => Ok(bits),
            false => Err(group.corrupt("its bitmap and its count of what is free differ")),
        }
    }

    /// Makes the bitmap of a group of which no block holds a file's content: the copies of superblock
    /// and descriptors, and bitmaps and inodes of the groups that lie together.
    fn unwritten_blocks(&self, group: &Group) -> Result<Vec<u8>> {
        let mut bits = vec![0; self.layout.block_bytes as usize];
        let (first, end) = self.blocks_of(group.number);
        set_bits(&mut bits, end - first, u64::MAX);
        let mut add = |start: u64, len: u64| {
            let from = start.max(first);
            let to = start.saturating_add(len).min(end);
            if from < to {
                set_bits(&mut bits, from - first, to - first);
            }
        };
        add(first, self.layout.n_copies(group.number));
        let flex = Some(self.layout.flex_groups)
            .filter(|n| *n <= 1024)
            .unwrap_or(1);
        let start = group.number / flex * flex;
        for number in start..(start + flex).min(self.layout.n_groups()) {
            let other = self.group(number)?;
            add(other.block_bitmap(), 1);
            add(other.inode_bitmap(), 1);
            add(other.inode_table(), self.table_blocks());
        }
        Ok(bits)
    }

    /// Stores a bitmap and its descriptor. `n`: so many more are free than before.
    fn store_bitmap(&mut self, mut group: Group, map: Map, bits: &[u8], n: i64) -> Result<()> {
        let (flag, at, free, sums) = match map {
            Map::Blocks => (
                BLOCK_UNINIT,
                group.block_bitmap(),
                (0xc, 0x2c),
                (0x18, 0x38),
            ),
            Map::Inodes => (
                INODE_UNINIT,
                group.inode_bitmap(),
                (0xe, 0x2e),
                (0x1a, 0x3a),
            ),
        };
        group.add(free.0, free.1, n)?;
        if self.layout.has_group_flags() {
            group.clear_flag(flag);
        }
        if let Some(seed) = self.layout.seed {
            let covered = bits.get(..self.covered(map)).unwrap_or_default();
            group.set_half_pair(sums.0, sums.1, sum(seed, &[covered]));
        }
        self.touch(at);
        self.volume.write_at(at * self.layout.block_bytes, bits)?;
        match map {
            Map::Blocks => self.free_blocks += n,
            Map::Inodes => self.free_inodes += n,
        }
        self.store_group(group)
    }

    /// Takes free blocks, in as few runs as there are near `goal`, a group. Errors:
    /// [`hako_block::ErrorKind::NoSpace`] if there are not so many.
    pub(super) fn take_blocks(&mut self, goal: u64, n: u64) -> Result<Vec<Run>> {
        let found = self.find_blocks(goal, n)?;
        for run in &found {
            self.mark(*run, true)?;
        }
        Ok(found)
    }

    fn find_blocks(&self, goal: u64, n: u64) -> Result<Vec<Run>> {
        let n_groups = self.layout.n_groups();
        let mut all: Vec<Run> = Vec::new();
        let mut n_free = 0_u64;
        for step in 0..n_groups {
            let number = (goal + step) % n_groups;
            let group = self.group(number)?;
            if group.free_blocks() == 0 {
                continue;
            }
            let bits = self.bitmap(&group, Map::Blocks)?;
            let (first, end) = self.blocks_of(number);
            let runs = free_runs(&bits, end - first).map(|(from, len)| Run {
                start: first + from,
                len,
            });
            for run in runs {
                if run.len >= n {
                    return Ok(vec![Run { len: n, ..run }]);
                }
                n_free += run.len;
                all.push(run);
            }
            // Enough of large runs, without a look at every group of a large disk.
            if step >= 64 && n_free >= n.saturating_mul(4) {
                break;
            }
        }
        all.sort_by_key(|run| std::cmp::Reverse(run.len));
        let mut left = n;
        let mut taken = Vec::new();
        for run in all {
            if left == 0 {
                break;
            }
            let len = run.len.min(left);
            taken.push(Run { len, ..run });
            left -= len;
        }
        if left > 0 {
            let bytes = self.layout.block_bytes;
            return Err(Error::new(
                hako_block::ErrorKind::NoSpace,
                format!(
                    "{n} blocks of {bytes} bytes are wanted, {} are free",
                    n - left
                ),
            ));
        }
        taken.sort_by_key(|run| run.start);
        Ok(taken)
    }

    /// Says of blocks that they are in use or free. Errors: corrupt if they are so already.
    pub(super) fn mark(&mut self, run: Run, in_use: bool) -> Result<()> {
        let (mut at, mut left) = (run.start, run.len);
        while left > 0 {
            let from_first = at.checked_sub(self.layout.first_block);
            let from_first = from_first.ok_or_else(|| Error::corrupt("file", "block 0"))?;
            let number = from_first / self.layout.blocks_per_group;
            let (first, end) = self.blocks_of(number);
            if at >= end {
                return Err(Error::corrupt("file", format!("block {at} lies outside")));
            }
            let len = left.min(end - at);
            let group = self.group(number)?;
            let mut bits = self.bitmap(&group, Map::Blocks)?;
            for bit in at - first..at - first + len {
                if has_bit(&bits, bit) == in_use {
                    return Err(group.corrupt("a block of a file is free, or a free one in use"));
                }
                flip_bit(&mut bits, bit);
            }
            let n = len as i64;
            self.store_bitmap(group, Map::Blocks, &bits, if in_use { -n } else { n })?;
            at += len;
            left -= len;
        }
        Ok(())
    }

    /// Takes an inode, in the group `goal` if it has one. Returns its number. What is in its place is
    /// zeros.
    pub(super) fn take_inode(&mut self, goal: u64, is_directory: bool) -> Result<u32> {
        let n_groups = self.layout.n_groups();
        for step in 0..n_groups {
            let number = (goal + step) % n_groups;
            let mut group = self.group(number)?;
            if group.free_inodes() == 0 {
                continue;
            }
            let mut bits = self.bitmap(&group, Map::Inodes)?;
            let per_group = self.layout.inodes_per_group;
            let base = number * u64::from(per_group);
            let is_usable = |bit: &u32| {
                base + u64::from(*bit) + 1 >= u64::from(self.layout.first_inode)
                    && base + u64::from(*bit) < u64::from(self.layout.n_inodes)
                    && !has_bit(&bits, u64::from(*bit))
            };
            let Some(bit) = (0..per_group).find(is_usable) else {
                continue;
            };
            flip_bit(&mut bits, u64::from(bit));
            self.clear_inodes(&mut group, bit)?;
            if is_directory {
                group.add(0x10, 0x30, 1)?;
            }
            self.store_bitmap(group, Map::Inodes, &bits, -1)?;
            let number = base + u64::from(bit) + 1;
            return u32::try_from(number).map_err(|_| Error::corrupt("group", "inodes"));
        }
        Err(Error::new(
            hako_block::ErrorKind::NoSpace,
            "no inode is free",
        ))
    }

    /// Makes zeros of an inode, and of those before it that nobody has written yet.
    fn clear_inodes(&mut self, group: &mut Group, bit: u32) -> Result<()> {
        let per_group = self.layout.inodes_per_group;
        let mut from = bit;
        if self.layout.has_group_flags() {
            let unused = match group.flags(&self.layout) & INODE_UNINIT {
                0 => group.half_pair(0x1c, 0x32).min(per_group),
                _ => per_group,
            };
            let first_unused = per_group - unused;
            if bit >= first_unused {
                from = first_unused;
                group.set_half_pair(0x1c, 0x32, per_group - bit - 1);
            }
        }
        let bytes = self.layout.inode_bytes as u64;
        let start = group.inode_table() * self.layout.block_bytes;
        let zeros = vec![0; (u64::from(bit - from + 1) * bytes) as usize];
        let at = start + u64::from(from) * bytes;
        for block in
            at / self.layout.block_bytes..=(at + zeros.len() as u64 - 1) / self.layout.block_bytes
        {
            self.touch(block);
        }
        self.volume.write_at(at, &zeros)
    }

    /// Gives an inode back.
    pub(super) fn free_inode(&mut self, number: u32, is_directory: bool) -> Result<()> {
        let index = u64::from(number.saturating_sub(1));
        let per_group = u64::from(self.layout.inodes_per_group);
        let mut group = self.group(index / per_group)?;
        let mut bits = self.bitmap(&group, Map::Inodes)?;
        if !has_bit(&bits, index % per_group) {
            return Err(group.corrupt("an inode is free already"));
        }
        flip_bit(&mut bits, index % per_group);
        if is_directory {
            group.add(0x10, 0x30, -1)?;
        }
        self.store_bitmap(group, Map::Inodes, &bits, 1)
    }
}

fn has_bit(bits: &[u8], bit: u64) -> bool {
    let byte = usize::try_from(bit / 8).ok().and_then(|at| bits.get(at));
    byte.is_none_or(|byte| byte >> (bit % 8) & 1 == 1)
}

fn flip_bit(bits: &mut [u8], bit: u64) {
    if let Some(byte) = usize::try_from(bit / 8)
        .ok()
        .and_then(|at| bits.get_mut(at))
    {
        *byte ^= 1 << (bit % 8);
    }
}

/// Sets bits from `from` to `end`, or to the last one.
fn set_bits(bits: &mut [u8], from: u64, end: u64) {
    for bit in from..end.min(bits.len() as u64 * 8) {
        if !has_bit(bits, bit) {
            flip_bit(bits, bit);
        }
    }
}

/// Returns the runs of clear bits among the first `n`: where each begins, and how long it is.
fn free_runs(bits: &[u8], n: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < n && has_bit(bits, at) {
            at += 1;
        }
        let from = at;
        while at < n && !has_bit(bits, at) {
            at += 1;
        }
        (at > from).then_some((from, at - from))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_free_blocks_are_found_and_end_where_the_group_does() {
        let bits = [0b1110_0001, 0b0000_1111, 0];
        let runs: Vec<_> = free_runs(&bits, 20).collect();
        assert_eq!(runs, [(1, 4), (12, 8)]);
        let mut bits = vec![0; 3];
        set_bits(&mut bits, 10, u64::MAX);
        assert_eq!(free_runs(&bits, 24).collect::<Vec<_>>(), [(0, 10)]);
        assert!(has_bit(&bits, 24));
    }
}
