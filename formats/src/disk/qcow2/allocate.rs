//! Finding free clusters, and the growth of the refcounts.

use std::ops::Range;

use hako_block::{Error, Result, Storage};

use super::header::{MAX_REFCOUNT_TABLE_BYTES, REFCOUNT_TABLE_FIELD};
use super::refcounts::{Refcounts, store_count};
use super::tables::{Class, Tables};

/// Gives out clusters. Those given back are free only after [`Allocator::free_released`]: what
/// referred to them must be gone from the disk first.
pub struct Allocator {
    refcounts: Refcounts,
    /// No cluster below is free.
    hint: u64,
    /// Clusters to lose one reference each.
    released: Vec<u64>,
    /// Parts of the file that are never guest data, whatever a damaged table says.
    protected: Vec<Range<u64>>,
}

impl Allocator {
    /// Returns an allocator; `protected` are file ranges never to be given out.
    pub fn new(refcounts: Refcounts, protected: Vec<Range<u64>>) -> Self {
        Self {
            refcounts,
            hint: 0,
            released: Vec::new(),
            protected,
        }
    }

    /// Allocates up to `n` clusters in a row, at least one. Returns their clusters.
    pub fn allocate(
        &mut self,
        tables: &mut Tables,
        storage: &dyn Storage,
        n: u64,
    ) -> Result<Range<u64>> {
        let found = self.find(tables, storage, n, false)?;
        self.hint = found.end;
        self.take(tables, found)
    }

    /// Allocates `n` clusters in a row. Returns their clusters.
    pub fn allocate_row(
        &mut self,
        tables: &mut Tables,
        storage: &dyn Storage,
        n: u64,
    ) -> Result<Range<u64>> {
        let found = self.find(tables, storage, n, true)?;
        self.take(tables, found)
    }

    /// Allocates up to `n` clusters in a row below cluster `limit`, at least one, without adding
    /// refcount blocks. `None`: none is free there.
    pub fn allocate_below(
        &mut self,
        tables: &mut Tables,
        limit: u64,
        n: u64,
    ) -> Result<Option<Range<u64>>> {
        while self.hint < limit {
            let (end, is_free) = self.run(tables, self.hint, limit)?;
            let start = std::mem::replace(&mut self.hint, end);
            // Where no block counts, nothing can be given out.
            if is_free && self.refcounts.block(tables, start)?.is_some() {
                self.hint = end.min(start + n);
                return self.take(tables, start..self.hint).map(Some);
            }
        }
        Ok(None)
    }

    /// Allocates `n` clusters in a row below cluster `limit`, if there are.
    pub fn allocate_row_below(
        &mut self,
        tables: &mut Tables,
        limit: u64,
        n: u64,
    ) -> Result<Option<Range<u64>>> {
        let mut found = 0..0;
        while found.end < limit {
            let (end, is_free) = self.run(tables, found.end, limit)?;
            if !is_free || self.refcounts.block(tables, found.end)?.is_none() {
                found = end..end;
                continue;
            }
            found.end = end;
            if found.end - found.start >= n {
                let row = found.start..found.start + n;
                return self.take(tables, row).map(Some);
            }
        }
        Ok(None)
    }

    /// Returns where the run of free or used clusters from `cluster` ends, at most at `limit` or
    /// where another block counts, and whether it is free.
    pub fn run(&self, tables: &mut Tables, cluster: u64, limit: u64) -> Result<(u64, bool)> {
        let shift = self.refcounts.layout.block_shift();
        let limit = limit.min(((cluster >> shift) + 1) << shift);
        if self.refcounts.block(tables, cluster)?.is_none() {
            return Ok((limit, true));
        }
        let is_free = self.refcounts.count(tables, cluster)? == 0;
        let mut end = cluster + 1;
        while end < limit && (self.refcounts.count(tables, end)? == 0) == is_free {
            end += 1;
        }
        Ok((end, is_free))
    }

    /// Returns how many clusters are not free.
    pub fn n_used(&self, tables: &mut Tables) -> Result<u64> {
        let shift = self.refcounts.layout.block_shift();
        let mut n = 0;
        for index in 0..self.refcounts.n_blocks {
            let (mut cluster, end) = (index << shift, (index + 1) << shift);
            if self.refcounts.block(tables, cluster)?.is_none() {
                continue;
            }
            while cluster < end {
                let (run_end, is_free) = self.run(tables, cluster, end)?;
                n += if is_free { 0 } else { run_end - cluster };
                cluster = run_end;
            }
        }
        Ok(n)
    }

    /// Returns index and file offset of up to `most` refcount blocks at or behind cluster
    /// `first`. Those among them that count nothing but themselves are dropped instead.
    pub fn blocks_from(
        &mut self,
        tables: &mut Tables,
        first: u64,
        most: usize,
    ) -> Result<Vec<(u64, u64)>> {
        let layout = self.refcounts.layout;
        let mut found = Vec::new();
        for index in 0..self.refcounts.n_blocks {
            let start = index << layout.block_shift();
            let Some(block) = self.refcounts.block(tables, start)? else {
                continue;
            };
            let own = block >> layout.cluster_shift;
            if own < first {
                continue;
            }
            if self.counts_nothing_but(tables, start, own)? {
                tables.write_u64(self.refcounts.entry_offset(index), 0, Class::RefcountTable)?;
                tables.forget(block, layout.cluster_bytes());
                if own >> layout.block_shift() != index {
                    self.release(block..block + 1);
                }
            } else {
                found.push((index, block));
            }
            if found.len() == most {
                break;
            }
        }
        Ok(found)
    }

    fn counts_nothing_but(&self, tables: &mut Tables, start: u64, own: u64) -> Result<bool> {
        let end = start + (1 << self.refcounts.layout.block_shift());
        let mut cluster = start;
        while cluster < end {
            let (run_end, is_free) = self.run(tables, cluster, end)?;
            if !is_free && (cluster != own || run_end != own + 1) {
                return Ok(false);
            }
            cluster = run_end;
        }
        Ok(true)
    }

    /// Has refcount block `index` be at `to`, where a copy of it is.
    pub fn set_block(&mut self, tables: &mut Tables, index: u64, from: u64, to: u64) -> Result<()> {
        let len = self.refcounts.layout.cluster_bytes();
        tables.forget(from, len);
        tables.forget(to, len);
        self.release(from..from + 1);
        tables.write_u64(self.refcounts.entry_offset(index), to, Class::RefcountTable)
    }

    /// Returns the file offset of the refcount table and its length in bytes.
    pub fn table(&self) -> (u64, u64) {
        (self.refcounts.table_offset, self.refcounts.n_blocks * 8)
    }

    /// Switches to another refcount table of `len` bytes, which is on stable storage, and gives
    /// the old one up.
    pub fn switch_table(
        &mut self,
        tables: &mut Tables,
        storage: &dyn Storage,
        to: u64,
        len: u64,
    ) -> Result<()> {
        let (old, old_len) = self.table();
        let n_clusters = len >> self.refcounts.layout.cluster_shift;
        let mut field = to.to_be_bytes().to_vec();
        field.extend((n_clusters as u32).to_be_bytes());
        storage.write_at(REFCOUNT_TABLE_FIELD, &field)?;
        storage.sync()?;
        tables.forget(old, old_len);
        tables.forget(to, len);
        self.protected.retain(|range| range.start != old);
        self.protected.push(to..to + len);
        self.release(old..old + old_len);
        self.refcounts.table_offset = to;
        self.refcounts.n_blocks = len / 8;
        Ok(())
    }

    fn take(&mut self, tables: &mut Tables, found: Range<u64>) -> Result<Range<u64>> {
        self.refuse_protected(self.bytes_of(&found))?;
        for cluster in found.clone() {
            self.refcounts.set(tables, cluster, 1)?;
        }
        Ok(found)
    }

    /// Finds free clusters in a row: `n` if all are needed, else up to `n`. Adds refcount blocks
    /// where the row, or the first cluster of it, would have none.
    fn find(
        &mut self,
        tables: &mut Tables,
        storage: &dyn Storage,
        n: u64,
        needs_all: bool,
    ) -> Result<Range<u64>> {
        let mut found = self.hint..self.hint;
        while found.end - found.start < n {
            if self.refcounts.block(tables, found.end)?.is_none() {
                if !found.is_empty() && !needs_all {
                    break;
                }
                // The first cluster of the row goes to the block: where blocks count few
                // clusters, a row could not be longer than what one of them counts otherwise.
                if self.add_block(tables, storage, found.end, found.start)? {
                    found.start += 1;
                    found.end = found.end.max(found.start);
                }
            } else if self.refcounts.count(tables, found.end)? == 0 {
                found.end += 1;
            } else if found.is_empty() || needs_all {
                found = found.end + 1..found.end + 1;
            } else {
                break;
            }
        }
        Ok(found)
    }

    /// Takes one reference from each cluster that `bytes` of the file touch, later.
    pub fn release(&mut self, bytes: Range<u64>) {
        let shift = self.refcounts.layout.cluster_shift;
        if !bytes.is_empty() {
            self.released
                .extend(bytes.start >> shift..=(bytes.end - 1) >> shift);
        }
    }

    /// Returns the file offset behind the last cluster that is not free.
    pub fn used_end(&self, tables: &mut Tables) -> Result<u64> {
        let shift = self.refcounts.layout.block_shift();
        for index in (0..self.refcounts.n_blocks).rev() {
            let clusters = index << shift..(index + 1) << shift;
            if self.refcounts.block(tables, clusters.start)?.is_none() {
                continue;
            }
            for cluster in clusters.rev() {
                if self.refcounts.count(tables, cluster)? != 0 {
                    return Ok((cluster + 1) << self.refcounts.layout.cluster_shift);
                }
            }
        }
        Ok(0)
    }

    /// Returns how many references wait to be taken.
    pub fn n_released(&self) -> usize {
        self.released.len()
    }

    /// Takes the references of released clusters. Nothing on the disk refers to them any more,
    /// and nobody in memory. Returns the file ranges that became free.
    pub fn free_released(&mut self, tables: &mut Tables) -> Result<Vec<Range<u64>>> {
        self.released.sort_unstable();
        let mut free: Vec<Range<u64>> = Vec::new();
        for cluster in std::mem::take(&mut self.released) {
            let count = self.refcounts.count(tables, cluster)?;
            // A count of 0 was wrong before: what else uses the cluster is not known.
            let Some(count) = count.checked_sub(1) else {
                continue;
            };
            self.refcounts.set(tables, cluster, count)?;
            if count > 0 {
                continue;
            }
            self.hint = self.hint.min(cluster);
            let bytes = self.bytes_of(&(cluster..cluster + 1));
            match free.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => free.push(bytes),
            }
        }
        Ok(free)
    }

    /// Refuses to touch what is never guest data.
    pub fn refuse_protected(&self, bytes: Range<u64>) -> Result<()> {
        let hit = self
            .protected
            .iter()
            .find(|range| range.start < bytes.end && bytes.start < range.end);
        match hit {
            None => Ok(()),
            Some(range) => Err(Error::corrupt(
                "refcounts",
                format!(
                    "bytes {:#x} to {:#x} are to be written, but are part of the image's own tables",
                    bytes.start.max(range.start),
                    bytes.end.min(range.end)
                ),
            )
            .hint("have it repaired first: hako disk check --repair all")),
        }
    }

    fn bytes_of(&self, clusters: &Range<u64>) -> Range<u64> {
        let shift = self.refcounts.layout.cluster_shift;
        clusters.start << shift..clusters.end << shift
    }

    /// Makes the free cluster `place` the block that counts `cluster`, which has none; `place` is
    /// counted already, or is `cluster`. Returns false if the refcount table had to grow instead:
    /// `cluster` is part of it now.
    fn add_block(
        &mut self,
        tables: &mut Tables,
        storage: &dyn Storage,
        cluster: u64,
        place: u64,
    ) -> Result<bool> {
        let layout = self.refcounts.layout;
        let index = cluster >> layout.block_shift();
        if index >= self.refcounts.n_blocks {
            self.grow_table(tables, storage)?;
            return Ok(false);
        }
        let offset = place << layout.cluster_shift;
        self.refuse_protected(offset..offset + layout.cluster_bytes())?;
        storage.write_at(offset, &vec![0; layout.cluster_bytes() as usize])?;
        tables.forget(offset, layout.cluster_bytes());
        tables.write_u64(
            self.refcounts.entry_offset(index),
            offset,
            Class::RefcountTable,
        )?;
        self.refcounts.set(tables, place, 1)?;
        Ok(true)
    }

    /// Moves the refcount table to a larger place: the first clusters that it could not count,
    /// followed by the blocks that count them. On stable storage before anything depends on it.
    fn grow_table(&mut self, tables: &mut Tables, storage: &dyn Storage) -> Result<()> {
        let layout = self.refcounts.layout;
        let (old, n_old) = (self.refcounts.table_offset, self.refcounts.n_blocks);
        let old_len = n_old * 8;
        let n_table = (old_len >> layout.cluster_shift) * 3 / 2 + 1;
        let len = n_table << layout.cluster_shift;
        if len > MAX_REFCOUNT_TABLE_BYTES {
            return Err(Error::new(
                hako_block::ErrorKind::NoSpace,
                "the refcount table cannot grow any more",
            ));
        }
        let n_counted = 1_u64 << layout.block_shift();
        let n_blocks = n_table.div_ceil(n_counted - 1).max(1);
        let start = (n_old << layout.block_shift()) << layout.cluster_shift;
        let mut bytes = Vec::with_capacity((len + (n_blocks << layout.cluster_shift)) as usize);
        while (bytes.len() as u64) < old_len {
            let page = tables.tail(old + bytes.len() as u64)?;
            let rest = usize::try_from(old_len).unwrap_or(usize::MAX) - bytes.len();
            if page.is_empty() {
                return Err(
                    Error::corrupt("refcount table", "past the end of the file").at_byte(old)
                );
            }
            bytes.extend_from_slice(&page[..page.len().min(rest)]);
        }
        for index in 0..n_blocks {
            bytes.extend((start + len + (index << layout.cluster_shift)).to_be_bytes());
        }
        bytes.resize(len as usize, 0);
        bytes.resize(bytes.len() + (n_blocks << layout.cluster_shift) as usize, 0);
        for slot in 0..n_table + n_blocks {
            store_count(&mut bytes[len as usize..], slot, 1, layout.refcount_order);
        }
        self.refuse_protected(start..start + bytes.len() as u64)?;
        storage.write_at(start, &bytes)?;
        tables.write_back(Class::Refcounts)?;
        storage.sync()?;
        tables.forget(start, bytes.len() as u64);
        self.switch_table(tables, storage, start, len)
    }
}
