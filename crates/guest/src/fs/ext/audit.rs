//! Looking at all of it: descriptors, bitmaps, every inode of every table, where each has its blocks.
//!
//! Not looked at: indexes of directories, `.` and `..`, short attributes (those in an inode), the values
//! in blocks of attributes, quotas, copies of the superblock and of descriptors.

use std::collections::BTreeMap;
use std::ops::Range;

use hako_block::{Error, Result};

use super::Ext;
use super::extents::{ALL_BLOCKS, Node};
use super::group::{self, Group};
use super::inode::Inode;
use super::map::N_DIRECT;
use super::superblock::sum;
use super::used::State;
use super::{ROOT_INODE, SHORT_LINK};
use crate::bytes::le::{u16_at, u32_at};
use crate::check::Audit;
use crate::fs::{NodeId, NodeKind};
use crate::used::Ranges;

/// The inode of blocks that are bad, and that of room for more descriptors.
const BAD_BLOCKS: u32 = 1;
const RESIZE: u32 = 7;
/// What a block of attributes begins with, and where its checksum is.
const ATTRIBUTES_MAGIC: u32 = 0xea02_0000;
const ATTRIBUTES_SUM_AT: usize = 16;
/// s_feature_incompat: values of attributes may be in inodes of their own.
const INCOMPAT_EA_INODE: u32 = 0x400;

/// What is counted besides.
#[derive(Default)]
struct Counts {
    orphans: u64,
    /// How many inodes have a block of attributes.
    attributes: BTreeMap<u64, u32>,
}

impl Ext {
    /// Looks at all but what names tell.
    pub(super) fn look_at_all(
        &self,
        audit: &mut Audit,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        if let Some(doubt) = self.doubt {
            audit.damaged("the file system", doubt);
        }
        let superblock = &self.superblock;
        audit.has_structure(self.bytes(0, u64::from(superblock.first_block)));
        let mut counts = Counts::default();
        for number in 0..superblock.n_groups() {
            tick()?;
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            if let Err(error) = self.look_at_group(number, audit, &mut counts) {
                audit.take(&format!("group {number}"), error)?;
            }
        }
        for (block, n_inodes) in &counts.attributes {
            if let Err(error) = self.look_at_attributes(*block, *n_inodes, audit) {
                audit.take(&format!("attributes in block {block}"), error)?;
            }
        }
        self.tell_orphans(counts.orphans, audit);
        let has_clusters = superblock.cluster_blocks > 1;
        if has_clusters {
            audit.shares_runs();
            audit.unknown("whether two files have a block: blocks are allocated in clusters");
        }
        audit.checked("the superblock, group descriptors, bitmaps, inodes, extents, attributes");
        audit.unknown("indexes of directories, quotas, copies of the superblock");
        // What is only in the journal yet is in use, too.
        audit.has_all_runs(!has_clusters && self.before.is_none() && self.doubt.is_none());
        Ok(())
    }

    fn tell_orphans(&self, n: u64, audit: &mut Audit) {
        if n == 0 {
            return;
        }
        match self.superblock.first_orphan != 0 || self.superblock.orphan_file != 0 {
            true => audit.remark(format!(
                "{n} files were deleted while they were open: the next mount frees them"
            )),
            false => audit.damaged("inodes", &format!("{n} are in use, and have no links")),
        }
    }

    fn bytes(&self, block: u64, n_blocks: u64) -> Range<u64> {
        let bytes = u64::from(self.superblock.block_bytes);
        let end = block.saturating_add(n_blocks).saturating_mul(bytes);
        block.saturating_mul(bytes)..end
    }

    fn look_at_group(&self, number: u32, audit: &mut Audit, counts: &mut Counts) -> Result<()> {
        let superblock = &self.superblock;
        let group = group::read(&self.blocks, superblock, number)?;
        let wide = u64::from(number);
        let start =
            u64::from(superblock.first_block) + wide * u64::from(superblock.blocks_per_group);
        let end = superblock
            .n_blocks
            .min(start + u64::from(superblock.blocks_per_group));
        let copies = group::n_copies(superblock, wide);
        audit.has_structure(self.bytes(start, copies));
        let table_bytes =
            u64::from(superblock.inodes_per_group) * u64::from(superblock.inode_bytes);
        let table_blocks = table_bytes.div_ceil(superblock.block_bytes.into());
        for (block, n) in [
            (group.block_bitmap, 1),
            (group.inode_bitmap, 1),
            (group.inode_table, table_blocks),
        ] {
            audit.has_structure(self.bytes(block, n));
        }
        self.look_at_blocks(number, &group, start..end, audit)?;
        match group.has_no_inodes {
            true => Ok(()),
            false => self.look_at_inodes(number, &group, audit, counts),
        }
    }

    /// Compares the bitmap of blocks with the count of those that are free.
    fn look_at_blocks(
        &self,
        number: u32,
        group: &Group,
        blocks: Range<u64>,
        audit: &mut Audit,
    ) -> Result<()> {
        let all = self.bytes(blocks.start, blocks.end - blocks.start);
        let mut used = Ranges::default();
        let state = State {
            blocks: &self.blocks,
            superblock: &self.superblock,
        };
        state.add_group(number.into(), blocks, &mut used)?;
        let cluster =
            u64::from(self.superblock.block_bytes) * u64::from(self.superblock.cluster_blocks);
        let n_free = used.gaps(&all).n_bytes() / cluster;
        if n_free != u64::from(group.n_free_clusters) && self.superblock.cluster_blocks == 1 {
            let what = format!(
                "counts {} free blocks, and has {n_free}",
                group.n_free_clusters
            );
            audit.damaged(&format!("group {number}"), &what);
        }
        Ok(())
    }

    fn look_at_inodes(
        &self,
        number: u32,
        group: &Group,
        audit: &mut Audit,
        counts: &mut Counts,
    ) -> Result<()> {
        let superblock = &self.superblock;
        let per_group = superblock.inodes_per_group;
        let mut bitmap = vec![0; per_group.div_ceil(8) as usize];
        self.blocks.read(group.inode_bitmap, 0, &mut bitmap)?;
        if !group.is_sound_inodes(superblock, &bitmap) {
            let what = "its checksum is wrong";
            audit.damaged(&format!("bitmap of inodes of group {number}"), what);
        }
        let is_set = |index: u32| {
            let byte = bitmap.get(index as usize / 8).copied().unwrap_or(0);
            byte >> (index % 8) & 1 == 1
        };
        let n_free = (0..per_group).filter(|index| !is_set(*index)).count() as u64;
        if n_free != u64::from(group.n_free_inodes) {
            let what = format!(
                "counts {} free inodes, and has {n_free}",
                group.n_free_inodes
            );
            audit.damaged(&format!("group {number}"), &what);
        }
        let len = usize::from(superblock.inode_bytes);
        let n_looked = per_group.saturating_sub(group.n_unused_inodes);
        let mut table = vec![0; n_looked as usize * len];
        self.blocks.read(group.inode_table, 0, &mut table)?;
        for (index, raw) in (0..n_looked).zip(table.chunks_exact(len)) {
            let inode = number * per_group + index + 1;
            if let Err(error) = self.look_at_inode(inode, raw, is_set(index), audit, counts) {
                audit.take(&format!("inode {inode}"), error)?;
            }
        }
        if let Some(index) = (n_looked..per_group).find(|index| is_set(*index)) {
            let inode = number * per_group + index + 1;
            let what = "is in use, and lies where none ever was";
            audit.damaged(&format!("inode {inode}"), what);
        }
        Ok(())
    }

    fn look_at_inode(
        &self,
        number: u32,
        raw: &[u8],
        is_in_use: bool,
        audit: &mut Audit,
        counts: &mut Counts,
    ) -> Result<()> {
        let (mode, links) = (u16_at(raw, 0), u16_at(raw, 0x1a));
        let place = || format!("inode {number}");
        if !is_in_use {
            if links > 0 && mode != 0 {
                audit.damaged(&place(), "is in use, and free in the bitmap");
            }
            return Ok(());
        }
        let is_reserved = number < self.superblock.first_inode && number != ROOT_INODE;
        if is_reserved && mode == 0 && !matches!(number, BAD_BLOCKS | RESIZE) {
            return Ok(());
        }
        let is_blank = is_reserved && raw.iter().all(|byte| *byte == 0);
        let seed = self.superblock.checksum_seed().filter(|_| !is_blank);
        let inode = Inode::decode_any(number, raw.to_vec(), seed)?;
        let n_blocks = match number {
            BAD_BLOCKS => return self.has_tables(&inode, audit).map(drop),
            RESIZE => {
                // Its tables lead to the room for descriptors, which is known.
                let table = u32_at(inode.block_field(), (N_DIRECT as usize + 1) * 4);
                audit.has(
                    number.into(),
                    self.bytes(table.into(), u64::from(table != 0)),
                );
                return Ok(());
            }
            _ => self.has_blocks(&inode, audit)?,
        };
        let attributes = inode.attribute_block();
        if attributes != 0 {
            *counts.attributes.entry(attributes).or_default() += 1;
        }
        let n_wanted = n_blocks + u64::from(attributes != 0);
        let n_stored = inode.n_stored_blocks(self.superblock.block_bytes);
        let counts_exactly = self.superblock.cluster_blocks == 1
            && !self.superblock.features.incompat(INCOMPAT_EA_INODE);
        if counts_exactly && n_stored != n_wanted {
            let what = format!("counts {n_stored} blocks, and has {n_wanted}");
            audit.damaged(&place(), &what);
        }
        let is_own = is_reserved
            || number == self.superblock.orphan_file
            || self.superblock.quota_inodes.contains(&number)
            || inode.is_attribute();
        match (is_own, inode.n_links()) {
            (true, _) => {}
            (false, 0) => counts.orphans += 1,
            (false, _) => audit.wants_name(NodeId {
                tree: 0,
                number: number.into(),
            }),
        }
        Ok(())
    }

    /// Notes the blocks of an inode, those that say where the others are, too; returns how many.
    fn has_blocks(&self, inode: &Inode, audit: &mut Audit) -> Result<u64> {
        let kind = inode.kind()?;
        let has_none = match kind {
            NodeKind::File | NodeKind::Directory => inode.is_inline(),
            NodeKind::Link => {
                inode.is_inline() || !inode.has_extents() && self.len_bytes(inode)? <= SHORT_LINK
            }
            _ => true,
        };
        match (has_none, inode.has_extents()) {
            (true, _) => Ok(0),
            (false, true) => {
                let place = |what| Error::corrupt(inode.place(), what);
                let root = Node::decode(inode.block_field(), &ALL_BLOCKS).map_err(place)?;
                self.has_extents(inode, &root, &ALL_BLOCKS, audit)
            }
            (false, false) => self.has_tables(inode, audit),
        }
    }

    /// Levels get less on the way down: it ends.
    fn has_extents(
        &self,
        inode: &Inode,
        node: &Node,
        holds: &Range<u64>,
        audit: &mut Audit,
    ) -> Result<u64> {
        let number = inode.number.into();
        let mut n = 0;
        let entries = node.entries();
        for (index, entry) in entries.iter().enumerate() {
            if node.level == 0 {
                audit.has(number, self.bytes(entry.at, entry.n_blocks));
                n += entry.n_blocks;
                continue;
            }
            let end = entries.get(index + 1).map_or(holds.end, |next| next.first);
            let below = entry.first..end;
            audit.has(number, self.bytes(entry.at, 1));
            let inner = self.extent_node(inode, entry.at, node.level, &below)?;
            n += 1 + self.has_extents(inode, &inner, &below, audit)?;
        }
        Ok(n)
    }

    fn has_tables(&self, inode: &Inode, audit: &mut Audit) -> Result<u64> {
        let root = inode.block_field();
        let numbers = root.chunks_exact(4).map(|number| u32_at(number, 0));
        let mut n = 0;
        for (index, block) in (0..).zip(numbers) {
            let levels = (index + 1_u32).saturating_sub(N_DIRECT as u32);
            n += self.has_table(inode, block, levels, audit)?;
        }
        Ok(n)
    }

    fn has_table(&self, inode: &Inode, block: u32, levels: u32, audit: &mut Audit) -> Result<u64> {
        if block == 0 {
            return Ok(0);
        }
        if audit.is_full() {
            return Err(inode.corrupt("has more blocks than there are"));
        }
        audit.has(inode.number.into(), self.bytes(block.into(), 1));
        let mut n = 1;
        if levels > 0 {
            let table = self.blocks.block(block.into())?;
            for number in table.chunks_exact(4).map(|number| u32_at(number, 0)) {
                n += self.has_table(inode, number, levels - 1, audit)?;
            }
        }
        Ok(n)
    }

    /// Looks at a block of attributes, which so many inodes share.
    fn look_at_attributes(&self, block: u64, n_inodes: u32, audit: &mut Audit) -> Result<()> {
        audit.has_structure(self.bytes(block, 1));
        let bytes = self.blocks.block(block)?;
        let place = format!("attributes in block {block}");
        if u32_at(&bytes, 0) != ATTRIBUTES_MAGIC {
            audit.damaged(&place, "it begins with another magic number");
            return Ok(());
        }
        let n_counted = u32_at(&bytes, 4);
        if n_counted != n_inodes {
            let what = format!("counts {n_counted} inodes, and {n_inodes} have it");
            audit.damaged(&place, &what);
        }
        if let Some(seed) = self.superblock.checksum_seed() {
            let (head, rest) = bytes.split_at(ATTRIBUTES_SUM_AT);
            let rest = rest.get(4..).unwrap_or_default();
            let found = sum(seed, &[&block.to_le_bytes(), head, &[0; 4], rest]);
            if found != u32_at(&bytes, ATTRIBUTES_SUM_AT) {
                audit.damaged(&place, "its checksum is wrong");
            }
        }
        Ok(())
    }
}
