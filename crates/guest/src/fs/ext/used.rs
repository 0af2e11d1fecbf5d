//! What is in use, by the bitmap of each group (kernel documentation, ext4, "Block and Inode
//! Bitmaps").
//!
//! A file system that was not unmounted has two states: its bitmaps as they are, and as its journal
//! leaves them. What either says is in use is.

use std::ops::Range;

use hako_block::{Error, ErrorKind, Result};

use super::Ext;
use super::blocks::Blocks;
use super::features::RO_MAPPED;
use super::group;
use super::superblock::Superblock;
use crate::used::Ranges;

/// Returns why the bitmaps of a file system are not to be believed, if they are not.
pub(super) fn doubt(superblock: &Superblock) -> Option<&'static str> {
    match superblock {
        one if one.has_errors => Some("Linux found errors in it"),
        one if one.is_damaged => Some("the checksum of its superblock is wrong"),
        one if !one.is_clean => Some("it was not unmounted, and has no journal"),
        one if one.features.ro_compat(!RO_MAPPED) => Some("it has features that are not known"),
        _ => None,
    }
}

impl Ext {
    /// Returns what of a window is in use.
    pub(super) fn used_in(&self, window: &Range<u64>) -> Result<Ranges> {
        if let Some(doubt) = self.doubt {
            return Err(Error::unsupported(doubt));
        }
        let mut used = Ranges::default();
        State {
            blocks: &self.blocks,
            superblock: &self.superblock,
        }
        .add(window, true, &mut used)?;
        if let Some((blocks, superblock)) = &self.before {
            State { blocks, superblock }.add(window, false, &mut used)?;
            let bytes = u64::from(self.superblock.block_bytes);
            let logged = self
                .blocks
                .logged(window.start / bytes, window.end.div_ceil(bytes));
            for block in logged {
                used.add(block * bytes..(block + 1) * bytes);
            }
        }
        // Behind the end there may be anything.
        let lens = [
            Some(&self.superblock),
            self.before.as_ref().map(|(_, one)| one),
        ];
        let lens = lens.into_iter().flatten();
        let n_blocks = lens.map(|one| one.n_blocks).max().unwrap_or(0);
        used.add(n_blocks.saturating_mul(self.superblock.block_bytes.into())..u64::MAX);
        Ok(used)
    }
}

/// One of the states.
pub(super) struct State<'a> {
    pub(super) blocks: &'a Blocks,
    pub(super) superblock: &'a Superblock,
}

impl State<'_> {
    /// Adds what of a window is in use. `is_last`: what is wrong is an error; else it is in use.
    fn add(&self, window: &Range<u64>, is_last: bool, used: &mut Ranges) -> Result<()> {
        let block_bytes = u64::from(self.superblock.block_bytes);
        let first_block = u64::from(self.superblock.first_block);
        let per_group = u64::from(self.superblock.blocks_per_group);
        used.add(0..first_block * block_bytes);
        let group_at = |byte: u64| (byte / block_bytes).saturating_sub(first_block) / per_group;
        let last = group_at(window.end.saturating_sub(1)).saturating_add(1);
        for group in group_at(window.start)..last.min(self.superblock.n_groups()) {
            let start = first_block + group * per_group;
            let end = (start + per_group).min(self.superblock.n_blocks);
            match self.add_group(group, start..end, used) {
                Ok(()) => {}
                Err(error) if !is_last && error.kind() == ErrorKind::Corrupt => {
                    used.add(start * block_bytes..end.saturating_mul(block_bytes));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds what of a group is in use.
    pub(super) fn add_group(
        &self,
        number: u64,
        blocks: Range<u64>,
        used: &mut Ranges,
    ) -> Result<()> {
        let superblock = self.superblock;
        let group = self.group(number)?;
        let block_bytes = u64::from(superblock.block_bytes);
        if group.is_unwritten {
            return self.add_structures(number, &blocks, used);
        }
        let ratio = u64::from(superblock.cluster_blocks);
        let n_clusters = u64::from(superblock.blocks_per_group) / ratio;
        // At most as many as a block has bits: the superblock was checked.
        let mut bitmap = vec![0; n_clusters.div_ceil(8) as usize];
        self.blocks.read(group.block_bitmap, 0, &mut bitmap)?;
        if !group.is_sound_bitmap(superblock, &bitmap) {
            return Err(Error::corrupt(
                format!("bitmap of group {number}"),
                "its checksum is wrong",
            ));
        }
        let n_used = (blocks.end - blocks.start).div_ceil(ratio);
        let unit = ratio * block_bytes;
        used.add_bits(&bitmap, n_used, blocks.start * block_bytes, unit);
        Ok(())
    }

    /// Adds what is in use of a group whose bitmap was never written: the copies of superblock and
    /// descriptors, and the bitmaps and inodes of the groups that may lie there.
    fn add_structures(&self, number: u64, blocks: &Range<u64>, used: &mut Ranges) -> Result<()> {
        let superblock = self.superblock;
        let unit = u64::from(superblock.block_bytes) * u64::from(superblock.cluster_blocks);
        let mut add = |first: u64, n_blocks: u64| {
            let start = first.max(blocks.start);
            let end = first.saturating_add(n_blocks).min(blocks.end);
            if start < end {
                let bytes = u64::from(superblock.block_bytes);
                let end = (end * bytes).checked_next_multiple_of(unit);
                used.add(start * bytes / unit * unit..end.unwrap_or(u64::MAX));
            }
        };
        // One more in group 0, which may begin with the boot block.
        let n_copies = group::n_copies(superblock, number);
        add(blocks.start, n_copies + u64::from(number == 0));
        let inode_bytes =
            u64::from(superblock.inodes_per_group) * u64::from(superblock.inode_bytes);
        let inode_blocks = inode_bytes.div_ceil(superblock.block_bytes.into());
        // Of very many that lie together Linux, too, looks at the group's own alone.
        let flex = Some(superblock.flex_groups).filter(|groups| *groups <= 64);
        let flex = flex.unwrap_or(1);
        let first = number / flex * flex;
        let end = first.saturating_add(flex);
        for number in first..end.min(superblock.n_groups()) {
            let group = self.group(number)?;
            add(group.block_bitmap, 1);
            add(group.inode_bitmap, 1);
            add(group.inode_table, inode_blocks);
        }
        Ok(())
    }

    fn group(&self, number: u64) -> Result<group::Group> {
        // The superblock was checked: there are no more than 32 bits can count.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        group::read(self.blocks, self.superblock, number)
    }
}
