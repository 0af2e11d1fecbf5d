//! Writing in place.
//!
//! Data goes to its place at once, without the lock. Where clusters have to be allocated, the
//! guest range is marked busy, the data written to new clusters, and only then the L2 entries
//! changed, in memory; `flush` brings them to the disk in an order that a cut survives. Clusters
//! given up (shared, compressed, zeroed) stay allocated until then.

use std::ops::Range;
use std::sync::{MutexGuard, PoisonError};

use hako_block::{Error, Result};

use super::allocate::Allocator;
use super::header::{self, Header};
use super::image::{Image, Meta};
use super::layout::{COPIED, Entry, Kind, Mapped};
use super::refcounts::Refcounts;
use super::snapshot::Snapshots;
use super::tables::Class;

/// Guest bytes handled at once.
const PIECE_BYTES: u64 = 4 << 20;

/// The state of writing.
pub struct Writer {
    /// Gives out clusters.
    pub allocator: Allocator,
    /// Guest ranges, whole clusters, whose new clusters are being filled.
    busy: Vec<Range<u64>>,
    /// Autoclear features to be written before the first change.
    autoclear: Option<u64>,
    /// Whether something was written since the last flush.
    pub unsynced: bool,
    /// Whether the host failed to sync: what it has lost is not known.
    pub failed: bool,
}

impl Writer {
    /// Prepares to write. Errors: the refcount table is missing.
    pub fn new(header: &Header, snapshots: &Snapshots) -> Result<Self> {
        let layout = header.layout();
        let table_len = u64::from(header.refcount_table_clusters) << layout.cluster_shift;
        if header.refcount_table_offset == 0 || table_len == 0 {
            return Err(Error::corrupt("header", "no refcount table").at_byte(48));
        }
        let refcounts = Refcounts {
            layout,
            table_offset: header.refcount_table_offset,
            n_blocks: table_len / 8,
        };
        let range = |offset: u64, len: u64| offset..offset + len;
        let protected = vec![
            range(0, layout.cluster_bytes()),
            range(header.l1_offset, u64::from(header.n_l1) * 8),
            range(header.refcount_table_offset, table_len),
            range(header.snapshots_offset, snapshots.table_bytes),
        ];
        let kept = if layout.has_data_file {
            header.autoclear & header::RAW_EXTERNAL
        } else {
            0
        };
        Ok(Self {
            allocator: Allocator::new(refcounts, protected),
            busy: Vec::new(),
            autoclear: (header.autoclear != kept).then_some(kept),
            unsynced: false,
            failed: false,
        })
    }

    /// Keeps bitmaps valid: the content of the disk will not change.
    pub fn keep_bitmaps(&mut self, header: &Header) {
        let kept = header.autoclear & (header::BITMAPS | header::RAW_EXTERNAL);
        self.autoclear = (header.autoclear != kept).then_some(kept);
    }

    fn is_busy(&self, range: &Range<u64>) -> bool {
        self.busy
            .iter()
            .any(|busy| busy.start < range.end && range.start < busy.end)
    }
}

/// How a piece is to be written.
enum Step {
    /// To where it is, `len` bytes.
    InPlace { host: u64, len: u64 },
    /// To clusters that nobody reads yet.
    Fill(Fill),
}

/// Host clusters to be filled, and then mapped.
struct Fill {
    /// Guest offset of the first cluster.
    guest: u64,
    /// File offset of the first host cluster.
    host: u64,
    /// What each cluster was before.
    old: Vec<Entry>,
    /// Whether the host clusters are new; else they belong to the (one) guest cluster already.
    is_new: bool,
}

impl Image {
    /// Writes guest bytes.
    pub fn write_guest(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.begin()?;
        let (mut offset, mut buf) = (offset, buf);
        while !buf.is_empty() {
            self.make_room()?;
            let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let len = self.write_piece(offset, buf)?;
            offset += len;
            buf = buf.get(len as usize..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Makes a guest range read as zeros.
    pub fn zero_guest(&self, range: Range<u64>) -> Result<()> {
        self.begin()?;
        if self.layout().version < 3 {
            return if self.info.parent.is_some() {
                self.write_zeros(range)
            } else {
                self.empty(range, true)
            };
        }
        self.empty(range, false)
    }

    /// Gives a guest range up.
    pub fn discard_guest(&self, range: Range<u64>) -> Result<()> {
        self.begin()?;
        let has_parent = self.info.parent.is_some();
        if has_parent && self.layout().version < 3 {
            return Ok(());
        }
        let body = self.whole_units(&range);
        if body.is_empty() {
            return Ok(());
        }
        // Over a parent a hole would show the parent's old bytes; an external file has no holes.
        self.empty(body, !has_parent && !self.layout().has_data_file)
    }

    /// Refuses a read-only image, and clears the autoclear features before the first change.
    pub fn begin(&self) -> Result<()> {
        let mut meta = self.meta();
        let writer = meta.writer.as_mut().ok_or_else(Error::read_only)?;
        if writer.failed {
            return Err(super::flush::failed_before());
        }
        if let Some(kept) = writer.autoclear {
            self.storage
                .write_at(header::AUTOCLEAR_FIELD, &kept.to_be_bytes())?;
            self.storage.sync()?;
            writer.autoclear = None;
        }
        Ok(())
    }

    /// Locks the tables for a change, once nobody is filling clusters of the guest range. The
    /// caller holds the gate, so that a flush comes before or after the change.
    fn idle_meta(&self, range: &Range<u64>) -> MutexGuard<'_, Meta> {
        let busy = |meta: &mut Meta| {
            meta.writer
                .as_ref()
                .is_some_and(|writer| writer.is_busy(range))
        };
        let mut meta = self
            .idle
            .wait_while(self.meta(), busy)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = meta.writer.as_mut() {
            writer.unsynced = true;
        }
        meta
    }

    /// Writes the beginning of `buf`; returns how many bytes.
    fn write_piece(&self, offset: u64, buf: &[u8]) -> Result<u64> {
        let layout = self.layout();
        let table_end = (layout.l1_index(offset) + 1) << layout.span_shift();
        let end = (offset + (buf.len() as u64).min(PIECE_BYTES)).min(table_end);
        let range = self.clusters_of(&(offset..end));
        let step = {
            let mut meta = self.idle_meta(&range);
            let step = self.plan_write(&mut meta, offset, end)?;
            if let (Step::Fill(fill), Some(writer)) = (&step, meta.writer.as_mut()) {
                writer.busy.push(self.range_of(fill));
            }
            step
        };
        match step {
            Step::InPlace { host, len } => {
                self.data.write_at(host, &buf[..len as usize])?;
                Ok(len)
            }
            Step::Fill(fill) => {
                let end = end.min(self.range_of(&fill).end);
                let bytes = &buf[..(end - offset) as usize];
                let filled = self.fill(&fill, offset, bytes);
                self.finish_fill(&fill, offset..end, filled)?;
                Ok(end - offset)
            }
        }
    }

    fn plan_write(&self, meta: &mut Meta, offset: u64, end: u64) -> Result<Step> {
        if let Some((host, len)) = self.in_place(meta, offset, end)? {
            if let (Some(writer), false) = (&meta.writer, self.layout().has_data_file) {
                writer.allocator.refuse_protected(host..host + len)?;
            }
            return Ok(Step::InPlace { host, len });
        }
        self.own_table(meta, offset)?;
        let layout = self.layout();
        let guest = offset - layout.in_cluster(offset);
        let old = self.entry(meta, guest)?;
        if let Some(host) = self.own_cluster(&old) {
            return Ok(Step::Fill(Fill {
                guest,
                host,
                old: vec![old],
                is_new: false,
            }));
        }
        let mut old = vec![old];
        let mut next = guest + layout.cluster_bytes();
        while next < end {
            let entry = self.entry(meta, next)?;
            if self.own_cluster(&entry).is_some() {
                break;
            }
            old.push(entry);
            next += layout.cluster_bytes();
        }
        let host = if layout.has_data_file {
            guest
        } else {
            self.allocate(meta, &mut old)?
        };
        Ok(Step::Fill(Fill {
            guest,
            host,
            old,
            is_new: true,
        }))
    }

    /// Returns where the first bytes of the range are stored, if they may be written there, and
    /// how many bytes that holds for.
    fn in_place(&self, meta: &mut Meta, offset: u64, end: u64) -> Result<Option<(u64, u64)>> {
        let layout = self.layout();
        let mut found: Option<(u64, u64)> = None;
        let mut at = offset;
        while at < end {
            let entry = self.entry(meta, at)?;
            let (Some(host), Entry::Mapped(mapped)) = (self.own_cluster(&entry), entry) else {
                break;
            };
            let start = layout.in_cluster(at);
            let stop = (at - start + layout.cluster_bytes()).min(end) - (at - start);
            let touched = layout.touched(start, stop);
            if mapped.stored & touched != touched {
                break;
            }
            match &mut found {
                None => found = Some((host + start, stop - start)),
                Some((first, len)) if *first + *len == host => *len += stop,
                Some(_) => break,
            }
            at = at - start + stop;
        }
        Ok(found)
    }

    /// Returns the host cluster of an entry, if it belongs to it alone.
    fn own_cluster(&self, entry: &Entry) -> Option<u64> {
        match entry {
            Entry::Mapped(mapped) if mapped.copied || self.layout().has_data_file => mapped.host,
            _ => None,
        }
    }

    fn entry(&self, meta: &mut Meta, offset: u64) -> Result<Entry> {
        let entry = self.map.entry(&mut meta.tables, offset)?;
        Ok(entry.unwrap_or(Entry::Mapped(Mapped::default())))
    }

    /// Allocates host clusters in a row for the first of `old`, and drops the others.
    fn allocate(&self, meta: &mut Meta, old: &mut Vec<Entry>) -> Result<u64> {
        let Meta { tables, writer } = meta;
        let writer = writer.as_mut().ok_or_else(Error::read_only)?;
        let found = writer
            .allocator
            .allocate(tables, &*self.storage, old.len() as u64)?;
        old.truncate((found.end - found.start) as usize);
        Ok(found.start << self.layout().cluster_shift)
    }

    /// Makes sure that the L2 table of guest `offset` is there and belongs to this L1 table alone.
    fn own_table(&self, meta: &mut Meta, offset: u64) -> Result<()> {
        let at = self.map.l1_entry_offset(offset)?;
        let l1_entry = meta.tables.read_u64(at)?;
        let old = self.map.l2_offset(l1_entry, at)?;
        if old.is_some() && l1_entry & COPIED != 0 {
            return Ok(());
        }
        let mut table = vec![0; self.layout().cluster_bytes() as usize];
        if let Some(old) = old {
            // Nothing of it has changed in memory: a shared table is never written.
            self.storage.read_at(old, &mut table)?;
        }
        let new = self.allocate(meta, &mut vec![Entry::Mapped(Mapped::default())])?;
        self.storage.write_at(new, &table)?;
        meta.tables.forget(new, self.layout().cluster_bytes());
        meta.tables.write_u64(at, new | COPIED, Class::Mapping)?;
        if let (Some(old), Some(writer)) = (old, meta.writer.as_mut()) {
            writer.allocator.release(old..old + 1);
        }
        Ok(())
    }

    /// Writes `bytes` at guest `offset` into the clusters of `fill`, with what belongs around
    /// them.
    fn fill(&self, fill: &Fill, offset: u64, bytes: &[u8]) -> Result<()> {
        let cluster_bytes = self.layout().cluster_bytes();
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        for (index, old) in fill.old.iter().enumerate() {
            let guest = fill.guest + index as u64 * cluster_bytes;
            let cluster_end = guest + cluster_bytes;
            // Whole clusters were written with the first of them.
            if at >= cluster_end {
                continue;
            }
            let host = fill.host + (guest - fill.guest);
            let source = |range: Range<u64>| {
                &bytes[(range.start - offset) as usize..(range.end - offset) as usize]
            };
            if at == guest && end >= cluster_end {
                let whole_end = end - self.layout().in_cluster(end);
                let whole_end = whole_end.min(self.range_of(fill).end);
                self.data.write_at(host, source(guest..whole_end))?;
                at = whole_end;
            } else {
                let stop = end.min(cluster_end);
                self.fill_part(fill, guest, host, old, at, source(at..stop))?;
                at = stop;
            }
        }
        Ok(())
    }

    /// Writes `bytes` at guest `offset` into one host cluster, and around them what the units
    /// they touch had before.
    fn fill_part(
        &self,
        fill: &Fill,
        guest: u64,
        host: u64,
        old: &Entry,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let layout = self.layout();
        let (start, end) = (offset - guest, offset - guest + bytes.len() as u64);
        let sub_bytes = 1 << layout.sub_shift();
        let mut range = start - start % sub_bytes..end.next_multiple_of(sub_bytes);
        let mut copies = false;
        match old {
            // Stored units stay as they are: others may be writing to them.
            Entry::Mapped(mapped) if !fill.is_new => {
                let stored = |at: u64| mapped.stored & layout.touched(at, at + 1) != 0;
                if stored(start) {
                    range.start = start;
                }
                if stored(end - 1) {
                    range.end = end;
                }
            }
            Entry::Mapped(mapped) if mapped.stored == 0 => {}
            _ => {
                range = 0..layout.cluster_bytes();
                copies = true;
            }
        }
        let mut whole = vec![0; (range.end - range.start) as usize];
        if copies {
            let len = layout.cluster_bytes().min(self.info.virtual_size - guest);
            self.read_guest(guest, &mut whole[..len as usize])?;
        }
        let at = (start - range.start) as usize;
        whole[at..at + bytes.len()].copy_from_slice(bytes);
        self.data.write_at(host + range.start, &whole)
    }

    /// Maps the filled clusters, or gives them back if filling them failed.
    fn finish_fill(&self, fill: &Fill, written: Range<u64>, filled: Result<()>) -> Result<()> {
        let mut meta = self.meta();
        let range = self.range_of(fill);
        if let Some(writer) = meta.writer.as_mut() {
            writer.busy.retain(|busy| *busy != range);
            if filled.is_err() && fill.is_new && !self.layout().has_data_file {
                let host = fill.host..fill.host + (range.end - range.start);
                writer.allocator.release(host);
            }
        }
        // What fails to be mapped stays allocated: some of it may be mapped already.
        let result = filled.and_then(|()| self.publish(&mut meta, fill, &written));
        drop(meta);
        self.idle.notify_all();
        result
    }

    fn publish(&self, meta: &mut Meta, fill: &Fill, written: &Range<u64>) -> Result<()> {
        let layout = self.layout();
        for (index, old) in fill.old.iter().enumerate() {
            let distance = index as u64 * layout.cluster_bytes();
            let guest = fill.guest + distance;
            let start = written.start.max(guest) - guest;
            let end = written.end.min(guest + layout.cluster_bytes()) - guest;
            let touched = layout.touched(start, end);
            let (stored, zero) = match old {
                Entry::Compressed(_) => (u32::MAX, 0),
                Entry::Mapped(mapped) => (mapped.stored | touched, mapped.zero & !touched),
            };
            let new = Mapped {
                host: Some(fill.host + distance),
                copied: true,
                stored,
                zero,
            };
            self.replace(meta, guest, old, &new)?;
        }
        Ok(())
    }

    /// Changes an L2 entry, whose table belongs to this L1 table, and releases what it no longer
    /// refers to.
    pub fn replace(&self, meta: &mut Meta, guest: u64, old: &Entry, new: &Mapped) -> Result<()> {
        let layout = self.layout();
        let at = self.map.l1_entry_offset(guest)?;
        let l1_entry = meta.tables.read_u64(at)?;
        let l2 = self.map.l2_offset(l1_entry, at)?.ok_or_else(|| {
            Error::corrupt("L1 table", "an L2 table vanished while it was written").at_byte(at)
        })?;
        let (word, bitmap) = new.encode(layout);
        let mut bytes = word.to_be_bytes().to_vec();
        if layout.extended {
            bytes.extend(bitmap.to_be_bytes());
        }
        meta.tables
            .write(l2 + layout.entry_position(guest), &bytes, Class::Mapping)?;
        let Some(writer) = meta.writer.as_mut() else {
            return Ok(());
        };
        match old {
            Entry::Compressed(old) => writer.allocator.release(old.offset..old.offset + old.len),
            Entry::Mapped(Mapped {
                host: Some(host), ..
            }) if new.host != Some(*host) && !layout.has_data_file => {
                writer.allocator.release(*host..*host + 1);
            }
            Entry::Mapped(_) => {}
        }
        Ok(())
    }

    /// Turns a guest range into zeros, or into a hole; bytes of partial units are written.
    pub fn empty(&self, range: Range<u64>, hole: bool) -> Result<()> {
        let body = self.whole_units(&range);
        if body.is_empty() {
            return self.zero_part(range);
        }
        self.zero_part(range.start..body.start)?;
        self.zero_part(body.end.min(range.end)..range.end)?;
        let layout = *self.layout();
        let mut offset = body.start;
        while offset < body.end {
            self.make_room()?;
            let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let table_end = (layout.l1_index(offset) + 1) << layout.span_shift();
            let end = body.end.min(table_end);
            offset = self.empty_piece(offset, end, hole)?;
        }
        Ok(())
    }

    /// Empties units under one L2 table; returns how far it came.
    fn empty_piece(&self, offset: u64, end: u64, hole: bool) -> Result<u64> {
        let layout = self.layout();
        let mut meta = self.idle_meta(&self.clusters_of(&(offset..end)));
        if hole && self.map.entry(&mut meta.tables, offset)?.is_none() {
            return Ok(end);
        }
        self.own_table(&mut meta, offset)?;
        let mut at = offset;
        while at < end {
            let guest = at - layout.in_cluster(at);
            let stop = end.min(guest + layout.cluster_bytes());
            let mask = layout.touched(at - guest, stop - guest);
            let old = self.entry(&mut meta, guest)?;
            let Some(new) = self.emptied(&old, mask, hole) else {
                drop(meta);
                self.write_part_as_zeros(at, stop)?;
                return Ok(stop);
            };
            if let (Some(host), true) = (new.host, layout.has_data_file) {
                self.data
                    .punch_hole(host + (at - guest)..host + (stop - guest))?;
            }
            if old != Entry::Mapped(new) {
                self.replace(&mut meta, guest, &old, &new)?;
            }
            at = stop;
            if meta
                .writer
                .as_ref()
                .is_some_and(|writer| writer.allocator.n_released() > super::flush::MAX_RELEASED)
            {
                break;
            }
        }
        Ok(at)
    }

    /// Returns an entry with the units of `mask` emptied; `None` if it cannot say so.
    pub fn emptied(&self, old: &Entry, mask: u32, hole: bool) -> Option<Mapped> {
        let zero = |old: u32| if hole { old & !mask } else { old | mask };
        match old {
            _ if mask == u32::MAX && !self.layout().has_data_file => Some(Mapped {
                zero: zero(0),
                ..Mapped::default()
            }),
            Entry::Mapped(old) => Some(Mapped {
                stored: old.stored & !mask,
                zero: zero(old.zero),
                ..*old
            }),
            Entry::Compressed(_) => None,
        }
    }

    /// Writes zeros to part of a cluster; the caller holds the gate.
    fn write_part_as_zeros(&self, start: u64, end: u64) -> Result<()> {
        let zeros = vec![0; (end - start) as usize];
        let mut at = start;
        while at < end {
            at += self.write_piece(at, &zeros[(at - start) as usize..])?;
        }
        Ok(())
    }

    /// Makes part of a unit read as zeros, by writing them where anything else may be seen.
    fn zero_part(&self, range: Range<u64>) -> Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let run = self.map.run(&mut self.meta().tables, offset, range.end)?;
            let end = run.offset + run.len;
            let base_hole = self.layout().version < 3 && self.info.parent.is_none();
            match run.kind {
                Kind::Zero => {}
                Kind::Hole if base_hole => {}
                _ => self.write_zeros(offset..end)?,
            }
            offset = end;
        }
        Ok(())
    }

    /// Writes real zeros.
    fn write_zeros(&self, range: Range<u64>) -> Result<()> {
        let zeros = vec![0; (range.end - range.start).min(1 << 20) as usize];
        let mut offset = range.start;
        while offset < range.end {
            let len = (range.end - offset).min(zeros.len() as u64);
            self.write_guest(offset, &zeros[..len as usize])?;
            offset += len;
        }
        Ok(())
    }

    /// Returns the units that lie wholly in `range`; the disk's last one counts as whole.
    fn whole_units(&self, range: &Range<u64>) -> Range<u64> {
        let unit = 1_u64 << self.layout().sub_shift();
        let end = if range.end == self.info.virtual_size {
            range.end.next_multiple_of(unit)
        } else {
            range.end - range.end % unit
        };
        range.start.next_multiple_of(unit)..end
    }

    fn clusters_of(&self, range: &Range<u64>) -> Range<u64> {
        let layout = self.layout();
        range.start - layout.in_cluster(range.start)
            ..range.end.next_multiple_of(layout.cluster_bytes())
    }

    fn range_of(&self, fill: &Fill) -> Range<u64> {
        fill.guest..fill.guest + fill.old.len() as u64 * self.layout().cluster_bytes()
    }
}
