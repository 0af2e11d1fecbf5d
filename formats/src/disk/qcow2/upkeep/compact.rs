//! Giving space back to the host, in place.
//!
//! The compactor that other formats share (`disk/compact.rs`) finds free places by walking the
//! tables; here the refcounts know them, and tables and refcounts move too. Clusters of zeros
//! become holes (zero flags over a parent). Then what lies behind the place where the file could
//! end moves to free clusters before it: clusters and L2 tables that the current state alone
//! uses, refcount blocks, the refcount table, the L1 table. What internal snapshots share, their
//! tables, bitmaps and compressed clusters stay where they are. At last the file is cut, and
//! what is free inside it punched.
//!
//! A copy and its refcount are on disk before a table points to it, and the old cluster is freed
//! after that: a cut leaves leaks.

use std::ops::Range;

use hako_block::{Error, Result};

use super::repair::repair;
use super::{open_sound, refuse_damage};
use crate::disk::compact::{Look, copy, punch_data};
use crate::disk::qcow2::header::L1_OFFSET_FIELD;
use crate::disk::qcow2::image::{Image, Meta};
use crate::disk::qcow2::layout::{COPIED, Entry, Kind, Mapped};
use crate::disk::qcow2::tables::Class;
use crate::disk::{OpenArgs, Repair, Task};

/// Less than a block of the host cannot be given back.
const HOST_BLOCK_BYTES: u64 = 4096;
/// Most bytes copied in one go.
const COPY_BYTES: u64 = 1 << 20;
/// Refcount blocks moved between two flushes.
const N_BLOCKS: usize = 1024;

/// Compacts one layer.
pub fn compact(args: &OpenArgs, task: Task<'_>) -> Result<()> {
    if refuse_damage(args)?.n_leaks > 0 {
        repair(args, Repair::Leaks)?;
    }
    let (header, mut image) = open_sound(args)?;
    if let Some(writer) = image.meta().writer.as_mut() {
        writer.keep_bitmaps(&header);
    }
    image.begin()?;
    image.give_up_zeros(task)?;
    if image.storage.is_device() {
        return Ok(());
    }
    image.drop_empty_tables(task)?;
    // Refcount blocks that have nothing to count any more make room for what comes before them.
    let mut n_free = u64::MAX;
    while image.n_free()? < n_free {
        n_free = image.n_free()?;
        image.move_from_end(task)?;
    }
    image.cut_free_end()?;
    image.punch_free(task)
}

impl Image {
    /// Calls `each` with every L2 table that the current state alone uses: its L1 index and its
    /// file offset.
    fn each_own_table(
        &self,
        task: Task<'_>,
        mut each: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        for index in 0..self.map.n_l1 {
            let at = self.map.l1_offset + index * 8;
            let entry = self.meta().tables.read_u64(at)?;
            let Some(l2) = self.map.l2_offset(entry, at)? else {
                continue;
            };
            if entry & COPIED != 0 {
                task.cancel.check()?;
                each(index, l2)?;
                self.make_room()?;
            }
        }
        self.flush_all()
    }

    /// Returns the entries of an L2 table's page from the one that maps guest `offset`, with the
    /// guest offsets of their clusters.
    fn entries(&self, meta: &mut Meta, guest: Range<u64>) -> Result<Vec<(u64, Mapped)>> {
        let mut entries = Vec::new();
        let mut offset = guest.start;
        while offset < guest.end {
            if let Some(Entry::Mapped(mapped)) = self.map.entry(&mut meta.tables, offset)?
                && mapped.host.is_some()
            {
                entries.push((offset, mapped));
            }
            offset += self.layout().cluster_bytes();
        }
        Ok(entries)
    }

    /// Returns the guest range of an L1 entry, as far as it is on the disk.
    fn span(&self, index: u64) -> Range<u64> {
        let shift = self.layout().span_shift();
        index << shift..((index + 1) << shift).min(self.info.virtual_size)
    }

    fn give_up_zeros(&self, task: Task<'_>) -> Result<()> {
        task.progress.phase("look for zeros");
        task.progress.total(self.data.len_bytes()?);
        let mut look = Look::default();
        self.each_own_table(task, |index, _| {
            let entries = self.entries(&mut self.meta(), self.span(index))?;
            for (guest, mapped) in entries {
                task.cancel.check()?;
                if mapped.stored != 0 {
                    task.progress.advance(self.layout().cluster_bytes());
                }
                if self.can_be_zero(&mapped) && self.holds_zeros(&mut look, guest, &mapped)? {
                    self.give_up(guest, mapped)?;
                }
            }
            Ok(())
        })
    }

    /// Returns whether the entry can say that the whole cluster is zeros, and space would be won.
    fn can_be_zero(&self, mapped: &Mapped) -> bool {
        let layout = self.layout();
        if layout.has_data_file {
            return mapped.stored != 0 && mapped.stored | mapped.zero == u32::MAX;
        }
        let says_all = mapped.stored | mapped.zero == u32::MAX && layout.version >= 3;
        mapped.copied && (self.info.parent.is_none() || says_all)
    }

    fn holds_zeros(&self, look: &mut Look, guest: u64, mapped: &Mapped) -> Result<bool> {
        let layout = self.layout();
        let entry = Entry::Mapped(*mapped);
        let end = layout.cluster_bytes().min(self.info.virtual_size - guest);
        let mut at = 0;
        while at < end {
            let (kind, piece_end) = entry.piece(layout, at);
            if let Kind::Data(host) = kind {
                // An external data file ends where its last data does.
                let len = self.data.len_bytes()?;
                let bytes = host.min(len)..(host - at + piece_end.min(end)).min(len);
                if !look.is_zero(&*self.data, bytes)? {
                    return Ok(false);
                }
            }
            at = piece_end;
        }
        Ok(true)
    }

    fn give_up(&self, guest: u64, mapped: Mapped) -> Result<()> {
        let layout = self.layout();
        let old = Entry::Mapped(mapped);
        let hole = self.info.parent.is_none() && !layout.has_data_file;
        let Some(new) = self.emptied(&old, u32::MAX, hole) else {
            return Ok(());
        };
        if let (Some(host), true) = (mapped.host, layout.has_data_file) {
            self.data.punch_hole(host..host + layout.cluster_bytes())?;
        }
        let mut meta = self.meta();
        self.replace(&mut meta, guest, &old, &new)?;
        mark_unsynced(&mut meta)
    }

    /// Moves what can move from behind the place where the file could end to before it.
    fn move_from_end(&mut self, task: Task<'_>) -> Result<()> {
        let shift = self.layout().cluster_shift;
        let goal = self.with_allocator(|allocator, tables| allocator.n_used(tables))?;
        let end = self.with_allocator(|allocator, tables| allocator.used_end(tables))? >> shift;
        task.progress.phase("move");
        task.progress.total(end.saturating_sub(goal) << shift);
        if end <= goal {
            return Ok(());
        }
        self.each_own_table(task, |index, l2| {
            if l2 >> shift >= goal {
                self.move_l2(index, l2, goal)?;
            }
            self.move_clusters(index, goal, task)
        })?;
        self.move_blocks(goal, task)?;
        self.move_refcount_table(goal)?;
        self.move_l1(goal)
    }

    /// Returns how many clusters are free before the last one in use.
    fn n_free(&self) -> Result<u64> {
        let shift = self.layout().cluster_shift;
        self.with_allocator(|allocator, tables| {
            Ok((allocator.used_end(tables)? >> shift) - allocator.n_used(tables)?)
        })
    }

    /// Gives up L2 tables in which nothing is said.
    fn drop_empty_tables(&self, task: Task<'_>) -> Result<()> {
        self.each_own_table(task, |index, l2| {
            let mut meta = self.meta();
            let end = l2 + self.layout().cluster_bytes();
            let mut position = l2;
            while position < end {
                let page = meta.tables.tail(position)?;
                if page.is_empty() || !hako_block::is_zero(page) {
                    return Ok(());
                }
                position += page.len() as u64;
            }
            let at = self.map.l1_offset + index * 8;
            meta.tables.write_u64(at, 0, Class::Mapping)?;
            release(&mut meta, l2..l2 + 1)
        })
    }

    fn move_l2(&self, index: u64, l2: u64, goal: u64) -> Result<()> {
        let layout = self.layout();
        let Some(to) = self.allocate_below(goal, 1)? else {
            return Ok(());
        };
        // Nothing of it has changed in memory: what was is flushed.
        let to = to.start << layout.cluster_shift;
        copy(&*self.storage, l2, to, layout.cluster_bytes())?;
        let mut meta = self.meta();
        meta.tables.forget(to, layout.cluster_bytes());
        let at = self.map.l1_offset + index * 8;
        meta.tables.write_u64(at, to | COPIED, Class::Mapping)?;
        release(&mut meta, l2..l2 + 1)
    }

    /// Moves the clusters of one L2 table.
    fn move_clusters(&self, index: u64, goal: u64, task: Task<'_>) -> Result<()> {
        let layout = *self.layout();
        if layout.has_data_file {
            return Ok(());
        }
        let shift = layout.cluster_shift;
        let mut entries = self.entries(&mut self.meta(), self.span(index))?;
        entries.retain(|(_, mapped)| {
            mapped.copied && mapped.host.is_some_and(|host| host >> shift >= goal)
        });
        let most = (COPY_BYTES >> shift).max(1) as usize;
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            task.cancel.check()?;
            let n = row(rest, layout.cluster_bytes()).min(most);
            let Some(to) = self.allocate_below(goal, n as u64)? else {
                return Ok(());
            };
            let (now, later) = rest.split_at((to.end - to.start) as usize);
            rest = later;
            let from = now.first().and_then(|(_, mapped)| mapped.host).unwrap_or(0);
            let len = (to.end - to.start) << shift;
            // Of the last cluster of the file a part may be missing; it was never written.
            let stored = len.min(self.storage.len_bytes()?.saturating_sub(from));
            copy(&*self.storage, from, to.start << shift, stored)?;
            let mut meta = self.meta();
            for (cluster, (guest, mapped)) in to.zip(now) {
                let new = Mapped {
                    host: Some(cluster << shift),
                    ..*mapped
                };
                self.replace(&mut meta, *guest, &Entry::Mapped(*mapped), &new)?;
            }
            mark_unsynced(&mut meta)?;
            task.progress.advance(len);
        }
        Ok(())
    }

    /// Moves refcount blocks, and drops those that count nothing.
    fn move_blocks(&self, goal: u64, task: Task<'_>) -> Result<()> {
        loop {
            task.cancel.check()?;
            let beyond = self.with_allocator(|allocator, tables| {
                allocator.blocks_from(tables, goal, N_BLOCKS)
            })?;
            let mut moves = Vec::new();
            for (index, block) in beyond {
                if let Some(to) = self.allocate_below(goal, 1)? {
                    moves.push((index, block, to.start << self.layout().cluster_shift));
                }
            }
            if moves.is_empty() {
                return self.flush_all();
            }
            // The new places are counted on disk, by blocks that have not moved yet.
            self.flush_all()?;
            for (index, from, to) in moves {
                copy(&*self.storage, from, to, self.layout().cluster_bytes())?;
                self.with_allocator(|allocator, tables| {
                    allocator.set_block(tables, index, from, to)
                })?;
            }
            self.flush_all()?;
        }
    }

    fn move_refcount_table(&self, goal: u64) -> Result<()> {
        let (from, len) = self.with_allocator(|allocator, _| Ok(allocator.table()))?;
        let Some(to) = self.find_row(from, len, goal)? else {
            return Ok(());
        };
        copy(&*self.storage, from, to, len)?;
        self.storage.sync()?;
        self.with_allocator(|allocator, tables| {
            allocator.switch_table(tables, &*self.storage, to, len)
        })?;
        self.flush_all()
    }

    fn move_l1(&mut self, goal: u64) -> Result<()> {
        let (from, len) = (self.map.l1_offset, self.map.n_l1 * 8);
        let Some(to) = self.find_row(from, len, goal)? else {
            return Ok(());
        };
        copy(&*self.storage, from, to, len)?;
        self.storage.sync()?;
        self.storage.write_at(L1_OFFSET_FIELD, &to.to_be_bytes())?;
        self.storage.sync()?;
        self.map.l1_offset = to;
        {
            let mut meta = self.meta();
            meta.tables.forget(from, len);
            meta.tables.forget(to, len);
            release(&mut meta, from..from + len)?;
        }
        self.flush_all()
    }

    /// Allocates room below the goal for a table that lies behind it, on disk too. `None`: it
    /// does not, or there is none. Returns the room's file offset.
    fn find_row(&self, from: u64, len: u64, goal: u64) -> Result<Option<u64>> {
        let shift = self.layout().cluster_shift;
        let n = len.div_ceil(1 << shift);
        if n == 0 || (from >> shift) + n <= goal {
            return Ok(None);
        }
        let found =
            self.with_allocator(|allocator, tables| allocator.allocate_row_below(tables, goal, n))?;
        self.flush_all()?;
        Ok(found.map(|clusters| clusters.start << shift))
    }

    fn allocate_below(&self, goal: u64, n: u64) -> Result<Option<Range<u64>>> {
        self.with_allocator(|allocator, tables| allocator.allocate_below(tables, goal, n))
    }

    /// Punches what is free inside the file.
    fn punch_free(&self, task: Task<'_>) -> Result<()> {
        let end = self.storage.len_bytes()? >> self.layout().cluster_shift;
        let mut cluster = 0;
        while cluster < end {
            task.cancel.check()?;
            let (run_end, is_free) =
                self.with_allocator(|allocator, tables| allocator.run(tables, cluster, end))?;
            if is_free && (run_end - cluster) << self.layout().cluster_shift >= HOST_BLOCK_BYTES {
                let shift = self.layout().cluster_shift;
                punch_data(&*self.storage, cluster << shift..run_end << shift)?;
            }
            cluster = run_end;
        }
        self.storage.sync()
    }
}

/// Returns how many of the first entries are neighbours in the guest and in the file.
fn row(entries: &[(u64, Mapped)], cluster_bytes: u64) -> usize {
    let follows = |pair: &[(u64, Mapped)]| {
        let [(guest, one), (next_guest, next)] = pair else {
            return false;
        };
        guest + cluster_bytes == *next_guest
            && one.host.map(|host| host + cluster_bytes) == next.host
    };
    1 + entries.windows(2).take_while(|pair| follows(pair)).count()
}

fn release(meta: &mut Meta, bytes: Range<u64>) -> Result<()> {
    let writer = meta.writer.as_mut().ok_or_else(Error::read_only)?;
    writer.allocator.release(bytes);
    writer.unsynced = true;
    Ok(())
}

fn mark_unsynced(meta: &mut Meta) -> Result<()> {
    release(meta, 0..0)
}
