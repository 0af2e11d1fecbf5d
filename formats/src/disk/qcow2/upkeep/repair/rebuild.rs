//! New refcounts behind the end of the file: blocks, then the table, then, all of it being on
//! disk, the one sector of the header that points to them. Until then nothing refers to them.

use hako_block::{Error, Result};

use super::{Survey, references_of, refuse_too_many};
use crate::disk::OpenArgs;
use crate::disk::qcow2::header::{Header, MAX_REFCOUNT_TABLE_BYTES, REFCOUNT_TABLE_FIELD};
use crate::disk::qcow2::layout::Layout;
use crate::disk::qcow2::refcounts::store_count;

/// Rebuilds the refcounts. While references are lost, no count becomes lower than it was.
pub fn rebuild(args: &OpenArgs, header: &Header, survey: &Survey) -> Result<Vec<String>> {
    refuse_too_many(header, survey.max_uses)?;
    let mut references = references_of(args, header)?;
    references.forget_refcounts();
    let first = references
        .len_bytes
        .div_ceil(references.layout.cluster_bytes());
    let mut blocks = Blocks {
        args,
        layout: references.layout,
        first,
        n_written: 0,
        entries: Vec::new(),
        current: None,
    };
    references.run(|references| {
        references.each_cluster(|_, cluster, stored, uses| {
            let count = if survey.n_lost > 0 {
                uses.n().max(stored)
            } else {
                uses.n()
            };
            if count == 0 {
                return Ok(());
            }
            blocks.set(cluster, count)
        })
    })?;
    blocks.finish()?;
    Ok(vec!["refcount table and blocks rebuilt".to_owned()])
}

struct Blocks<'a> {
    args: &'a OpenArgs,
    layout: Layout,
    /// The first cluster behind the file's end.
    first: u64,
    /// Blocks written, from there on.
    n_written: u64,
    /// Index and file offset of each.
    entries: Vec<(u64, u64)>,
    /// The block being filled, by its index.
    current: Option<(u64, Vec<u8>)>,
}

impl Blocks<'_> {
    /// Sets a count; the clusters ascend.
    fn set(&mut self, cluster: u64, count: u64) -> Result<()> {
        let index = cluster >> self.layout.block_shift();
        if self.current.as_ref().is_some_and(|(now, _)| *now != index) {
            self.write_current()?;
        }
        let cluster_bytes = self.layout.cluster_bytes() as usize;
        let (_, block) = self
            .current
            .get_or_insert_with(|| (index, vec![0; cluster_bytes]));
        let slot = cluster & ((1 << self.layout.block_shift()) - 1);
        store_count(block, slot, count, self.layout.refcount_order);
        Ok(())
    }

    fn write_current(&mut self) -> Result<()> {
        let Some((index, block)) = self.current.take() else {
            return Ok(());
        };
        if (index + 1) * 8 > MAX_REFCOUNT_TABLE_BYTES {
            return Err(Error::unsupported(
                "the file is too long for one refcount table of its clusters",
            ));
        }
        let offset = (self.first + self.n_written) << self.layout.cluster_shift;
        self.args.storage.write_at(offset, &block)?;
        self.entries.push((index, offset));
        self.n_written += 1;
        Ok(())
    }

    /// Counts the new clusters themselves, writes the table and switches to it.
    fn finish(mut self) -> Result<()> {
        let shift = self.layout.block_shift();
        let first_index = self.first >> shift;
        if self
            .current
            .as_ref()
            .is_some_and(|(now, _)| *now < first_index)
        {
            self.write_current()?;
        }
        // Blocks for the new clusters, and the table that has all blocks, are new clusters too.
        let (mut n_blocks, mut n_table) = (1, 1);
        let end = loop {
            let end = self.first + self.n_written + n_blocks + n_table;
            let last_index = (end - 1) >> shift;
            let needed_blocks = last_index - first_index + 1;
            let needed_table = ((last_index + 1) * 8).div_ceil(self.layout.cluster_bytes());
            if (needed_blocks, needed_table) == (n_blocks, n_table) {
                break end;
            }
            n_blocks = needed_blocks.max(n_blocks);
            n_table = needed_table.max(n_table);
        };
        for cluster in self.first..end {
            self.set(cluster, 1)?;
        }
        self.write_current()?;
        let offset = (end - n_table) << self.layout.cluster_shift;
        self.switch(offset, n_table)
    }

    fn switch(self, offset: u64, n_clusters: u64) -> Result<()> {
        let len = n_clusters << self.layout.cluster_shift;
        if len > MAX_REFCOUNT_TABLE_BYTES {
            return Err(Error::unsupported("the refcount table would be too large"));
        }
        let mut table = vec![0; len as usize];
        for (index, block) in &self.entries {
            let at = *index as usize * 8;
            if let Some(entry) = table.get_mut(at..at + 8) {
                entry.copy_from_slice(&block.to_be_bytes());
            }
        }
        let storage = &self.args.storage;
        storage.write_at(offset, &table)?;
        storage.sync()?;
        let mut field = offset.to_be_bytes().to_vec();
        field.extend((n_clusters as u32).to_be_bytes());
        storage.write_at(REFCOUNT_TABLE_FIELD, &field)?;
        storage.sync()
    }
}
