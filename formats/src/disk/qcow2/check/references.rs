//! What an image refers to: how often each cluster is used.
//!
//! Memory is bounded: uses are counted for a window of clusters at a time, and the tables walked
//! again for each window that anything refers to. An L2 table that several L1 tables share is
//! walked once, with the number of its users.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, Result, Storage};

use crate::disk::qcow2::bitmaps;
use crate::disk::qcow2::header::{self, Header};
use crate::disk::qcow2::layout::{COPIED, Entry, Layout, OFFSET_MASK};
use crate::disk::qcow2::map::{Map, words};
use crate::disk::qcow2::refcounts::{Refcounts, stored_count};
use crate::disk::qcow2::snapshot::Snapshots;
use crate::disk::qcow2::tables::Tables;
use crate::disk::{Findings, Severity};

/// Clusters counted at a time: 16 MiB of counts.
const WINDOW_CLUSTERS: u64 = 4 << 20;
/// Most windows: enough for a petabyte in clusters of 64 KiB. A hostile file may refer to more.
const MAX_WINDOWS: usize = 4096;
/// How often a cluster is used; the bits above say for what.
const USES: u32 = (1 << 28) - 1;
/// Marks, beside its number of users, an L2 table of the current state.
const ACTIVE: u32 = 1 << 31;

/// What a cluster is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    /// The header, an L1 table, the table of snapshots, bitmaps: one use only.
    Fixed = 1 << 31,
    /// The refcount table and its blocks: one use only.
    Refcounts = 1 << 30,
    /// L2 tables.
    Mapping = 1 << 29,
    /// Guest data.
    Data = 1 << 28,
}

/// The uses of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses(u32);

impl Uses {
    /// Returns how often the cluster is used.
    pub fn n(self) -> u64 {
        u64::from(self.0 & USES)
    }

    fn is(self, kind: Kind) -> bool {
        self.0 & kind as u32 != 0
    }

    /// Returns whether it is used for things that exclude each other.
    pub fn conflict(self) -> bool {
        let alone = self.is(Kind::Fixed) || self.is(Kind::Refcounts);
        (alone && self.n() > 1) || (self.is(Kind::Mapping) && self.is(Kind::Data))
    }

    /// Returns whether refcounts are in it, and something else too.
    pub fn spoils_refcounts(self) -> bool {
        self.is(Kind::Refcounts) && self.n() > 1
    }
}

/// All that an image refers to.
pub struct References {
    storage: Arc<dyn Storage>,
    /// Name of the file.
    pub name: String,
    header: Header,
    /// Sizes.
    pub layout: Layout,
    /// Pages of tables.
    pub tables: Tables,
    /// Where the refcounts are.
    pub refcounts: Refcounts,
    /// Length of the file in bytes.
    pub len_bytes: u64,
    /// What is wrong with the references, and what else is found.
    pub findings: Findings,
    /// References that cannot be followed: what they mean is not known to be free.
    pub n_lost: u64,
    /// Whether one of these leads past the end of the file.
    pub leads_past_end: bool,
    /// Whether the refcount table or a block is missing where it should be.
    pub refcounts_damaged: bool,
    /// L1 tables, that of the current state first.
    l1_tables: Vec<Map>,
    /// File ranges used once each: header, tables, bitmaps.
    fixed: Vec<Range<u64>>,
    /// The refcount table, as much of it as is in the file.
    refcount_table: Range<u64>,
    /// Tables of bitmaps: offset, entries.
    bitmap_tables: Vec<(u64, u64)>,
    /// Windows that hold L2 tables.
    l2_windows: BTreeSet<u64>,
    /// Windows that anything refers to or counts; filled in the first pass.
    windows: BTreeSet<u64>,
    /// The window being counted, in clusters, and its uses.
    pub window: Range<u64>,
    uses: Vec<u32>,
    /// Whether the refcounts themselves are left out.
    skips_refcounts: bool,
    /// Whether this is the first pass: the one that reports what is wrong with entries.
    is_first: bool,
}

impl References {
    /// Finds what there is to walk. `snapshots`: those that can be read.
    pub fn new(
        storage: &Arc<dyn Storage>,
        header: Header,
        snapshots: &Snapshots,
        findings: Findings,
    ) -> Result<Self> {
        let layout = header.layout();
        let len_bytes = storage.len_bytes()?;
        let table_len = u64::from(header.refcount_table_clusters) << layout.cluster_shift;
        let mut references = Self {
            name: storage.name().to_owned(),
            tables: Tables::new(Arc::clone(storage), layout.cluster_shift),
            refcounts: Refcounts {
                layout,
                table_offset: header.refcount_table_offset,
                n_blocks: table_len / 8,
            },
            storage: Arc::clone(storage),
            header,
            layout,
            len_bytes,
            findings,
            n_lost: 0,
            leads_past_end: false,
            refcounts_damaged: false,
            l1_tables: Vec::new(),
            fixed: Vec::new(),
            refcount_table: 0..0,
            bitmap_tables: Vec::new(),
            l2_windows: BTreeSet::new(),
            windows: BTreeSet::new(),
            window: 0..0,
            uses: Vec::new(),
            skips_refcounts: false,
            is_first: true,
        };
        references.find_fixed(snapshots);
        references.find_windows()?;
        Ok(references)
    }

    /// Collects the parts that are used once, and the L1 tables.
    fn find_fixed(&mut self, snapshots: &Snapshots) {
        let table_len = self.refcounts.n_blocks * 8;
        if self.header.refcount_table_offset == 0 || table_len == 0 {
            self.refcounts_damaged = true;
            self.damage("header: no refcount table", 48);
        }
        if self.header.refcount_table_offset + table_len > self.len_bytes {
            self.refcounts_damaged = true;
            self.damage(
                "refcount table: reaches past the end of the file",
                self.header.refcount_table_offset,
            );
            let left = self
                .len_bytes
                .saturating_sub(self.header.refcount_table_offset);
            self.refcounts.n_blocks = left / 8;
        }
        let start = self.header.refcount_table_offset;
        self.refcount_table = start..start + self.refcounts.n_blocks * 8;
        self.fixed = vec![
            0..1,
            self.header.snapshots_offset..self.header.snapshots_offset + snapshots.table_bytes,
        ];
        let active = Map {
            layout: self.layout,
            l1_offset: self.header.l1_offset,
            n_l1: u64::from(self.header.n_l1),
        };
        let mut room = self.len_bytes;
        let all = std::iter::once(active).chain(snapshots.list.iter().map(|snapshot| snapshot.map));
        for map in all {
            let bytes = map.l1_offset..map.l1_offset + map.n_l1 * 8;
            let len = map.n_l1 * 8;
            // Tables that overlap could make a small file take for ever.
            if bytes.end > self.len_bytes || len > room {
                self.lose(
                    "L1 table: past the end of the file, or overlaps another",
                    map.l1_offset,
                );
                continue;
            }
            room -= len;
            self.fixed.push(bytes);
            self.l1_tables.push(map);
        }
        self.find_bitmaps();
    }

    fn find_bitmaps(&mut self) {
        let Some(directory) = self.header.bitmaps else {
            return;
        };
        if self.header.autoclear & header::BITMAPS == 0 {
            let what = "header: the bitmaps are stale, the space they take is lost";
            self.findings
                .add(Severity::Oddity, &self.name, what, Some(88));
            return;
        }
        let list = match bitmaps::read(&*self.storage, &directory) {
            Ok(list) => list,
            Err(error) => return self.lose_error(&error),
        };
        self.fixed
            .push(directory.offset..directory.offset + directory.len);
        let mut room = self.len_bytes;
        for bitmap in list {
            let len = bitmap.n_entries * 8;
            let bytes = bitmap.table_offset..bitmap.table_offset.saturating_add(len);
            if bytes.end > self.len_bytes || len > room || self.layout.in_cluster(bytes.start) != 0
            {
                self.lose(
                    &format!("bitmap {:?}: bad table", bitmap.name),
                    bitmap.table_offset,
                );
                continue;
            }
            room -= len;
            self.fixed.push(bytes);
            self.bitmap_tables
                .push((bitmap.table_offset, bitmap.n_entries));
        }
    }

    /// Finds in which windows there are L2 tables, and reports bad L1 entries.
    fn find_windows(&mut self) -> Result<()> {
        for index in 0..self.l1_tables.len() {
            self.each_l2(index, &mut |check, l2, at, entry| {
                check
                    .l2_windows
                    .insert((l2 >> check.layout.cluster_shift) / WINDOW_CLUSTERS);
                if index == 0 {
                    check.check_copied("L2 table", l2, entry & COPIED != 0, at);
                }
            })?;
            if self.l2_windows.len() > MAX_WINDOWS {
                return Err(too_spread());
            }
        }
        Ok(())
    }

    /// Leaves the refcount table and its blocks out of the count.
    pub fn forget_refcounts(&mut self) {
        self.skips_refcounts = true;
    }

    /// Counts window after window, in ascending order, and calls `each` when one is counted.
    pub fn run(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.windows.insert(0);
        let mut next = Some(0);
        while let Some(index) = next {
            let start = index * WINDOW_CLUSTERS;
            let n_clusters = self.len_bytes.div_ceil(self.layout.cluster_bytes());
            self.window = start..n_clusters.min(start + WINDOW_CLUSTERS);
            self.uses.clear();
            self.uses
                .resize(self.window.end.saturating_sub(start) as usize, 0);
            self.count_all()?;
            each(self)?;
            if self.windows.len() > MAX_WINDOWS {
                return Err(too_spread());
            }
            self.is_first = false;
            next = self.windows.range(index + 1..).next().copied();
        }
        Ok(())
    }

    fn count_all(&mut self) -> Result<()> {
        for range in self.fixed.clone() {
            self.count(range, 1, Kind::Fixed, "table");
        }
        let n_refcounts = u32::from(!self.skips_refcounts);
        self.count(
            self.refcount_table.clone(),
            n_refcounts,
            Kind::Refcounts,
            "table",
        );
        self.count_blocks();
        self.count_bitmaps();
        for window in self.l2_windows.clone() {
            self.count_l2_window(window)?;
        }
        Ok(())
    }

    /// Counts the refcount blocks, and notes which windows they count.
    fn count_blocks(&mut self) {
        for index in 0..self.refcounts.n_blocks {
            let first = index << self.layout.block_shift();
            match self.refcounts.block(&mut self.tables, first) {
                Ok(Some(block)) => {
                    self.count(
                        block..block + self.layout.cluster_bytes(),
                        u32::from(!self.skips_refcounts),
                        Kind::Refcounts,
                        "refcount block",
                    );
                    if self.is_first {
                        self.note_windows(first..first + (1 << self.layout.block_shift()));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    self.refcounts_damaged = true;
                    if self.is_first {
                        self.findings.add_error(&self.name, &error);
                    }
                }
            }
        }
    }

    fn count_bitmaps(&mut self) {
        for (offset, n_entries) in self.bitmap_tables.clone() {
            for index in 0..n_entries {
                match self.tables.read_u64(offset + index * 8) {
                    Ok(entry) if entry & OFFSET_MASK != 0 => {
                        let start = entry & OFFSET_MASK;
                        let bytes = start..start + self.layout.cluster_bytes();
                        self.count(bytes, 1, Kind::Fixed, "bitmap");
                    }
                    Ok(_) => {}
                    Err(error) => return self.lose_error(&error),
                }
            }
        }
    }

    /// Counts the L2 tables that lie in one window, and what they refer to.
    fn count_l2_window(&mut self, window: u64) -> Result<()> {
        let start = window * WINDOW_CLUSTERS;
        let n_clusters = self.len_bytes.div_ceil(self.layout.cluster_bytes());
        let mut users = vec![0_u32; n_clusters.saturating_sub(start).min(WINDOW_CLUSTERS) as usize];
        for index in 0..self.l1_tables.len() {
            let active = if index == 0 { ACTIVE } else { 0 };
            self.each_l2(index, &mut |check, l2, _, _| {
                let cluster = l2 >> check.layout.cluster_shift;
                let slot = cluster
                    .checked_sub(start)
                    .and_then(|slot| users.get_mut(slot as usize));
                if let Some(users) = slot {
                    *users = (*users + 1).min((ACTIVE - 1) | (*users & ACTIVE)) | active;
                }
            })?;
        }
        for (slot, users) in users.into_iter().enumerate() {
            if users != 0 {
                let l2 = (start + slot as u64) << self.layout.cluster_shift;
                self.count(l2..l2 + 1, users & !ACTIVE, Kind::Mapping, "L2 table");
                self.count_l2(l2, users & !ACTIVE, users & ACTIVE != 0);
            }
        }
        Ok(())
    }

    /// Calls `found` with offset, place and entry of each L2 table of an L1 table that lies in
    /// the file. Reports the others in the first pass.
    fn each_l2(
        &mut self,
        index: usize,
        found: &mut dyn FnMut(&mut Self, u64, u64, u64),
    ) -> Result<()> {
        let map = self.l1_tables[index];
        let mut at = map.l1_offset;
        let end = map.l1_offset + map.n_l1 * 8;
        while at < end {
            let page: Vec<u64> = self
                .tables
                .tail(at)?
                .chunks_exact(8)
                .take(((end - at) / 8) as usize)
                .map(|entry| u64::from_be_bytes(entry.try_into().unwrap_or_default()))
                .collect();
            if page.is_empty() {
                break;
            }
            for entry in &page {
                if *entry != 0 {
                    self.visit_l1_entry(&map, *entry, at, found);
                }
                at += 8;
            }
        }
        Ok(())
    }

    fn visit_l1_entry(
        &mut self,
        map: &Map,
        entry: u64,
        at: u64,
        found: &mut dyn FnMut(&mut Self, u64, u64, u64),
    ) {
        // Reported when the windows are looked for, before anything is counted.
        let reports = self.window.is_empty();
        match map.l2_offset(entry, at) {
            Ok(Some(l2)) if l2 + self.layout.cluster_bytes() <= self.len_bytes => {
                found(self, l2, at, entry)
            }
            Ok(Some(l2)) if reports => {
                let index = (at - map.l1_offset) / 8;
                let what = format!(
                    "L1 table, entry {index}: L2 table at {l2:#x} past the end of the file"
                );
                self.leads_past_end = true;
                self.lose(&what, at);
            }
            Err(error) if reports => self.lose_error(&error),
            _ => {}
        }
    }

    /// Counts what one L2 table refers to, for each of its `users`.
    fn count_l2(&mut self, l2: u64, users: u32, is_active: bool) {
        let entry_bytes = 1 << self.layout.entry_shift();
        let mut position = l2;
        while position < l2 + self.layout.cluster_bytes() {
            let page = match self.tables.tail(position) {
                Ok(page) => page.to_vec(),
                Err(error) => return self.lose_error(&error),
            };
            if page.len() < entry_bytes {
                break;
            }
            for bytes in page.chunks_exact(entry_bytes) {
                if bytes.iter().any(|byte| *byte != 0) {
                    self.count_entry(bytes, position, users, is_active);
                }
                position += entry_bytes as u64;
            }
        }
    }

    fn count_entry(&mut self, bytes: &[u8], position: u64, users: u32, is_active: bool) {
        let Some((word, bitmap)) = words(bytes, &self.layout) else {
            return;
        };
        let is_counted = is_active && self.is_first;
        match Entry::decode(&self.layout, word, bitmap) {
            Err(error) => {
                let table = position - self.layout.in_cluster(position);
                let index = (position - table) >> self.layout.entry_shift();
                self.lose_error(
                    &error
                        .place(format!("L2 table at {table:#x}, entry {index}"))
                        .at_byte(position),
                );
            }
            Ok(Entry::Compressed(compressed)) => {
                if is_counted {
                    self.findings.n_allocated_units += 1;
                    self.findings.n_compressed_units += 1;
                }
                // The last sector may be cut off by the end of the file.
                let end = (compressed.offset + compressed.len)
                    .min(self.len_bytes.max(compressed.offset + 1));
                self.count(
                    compressed.offset..end,
                    users,
                    Kind::Data,
                    "compressed cluster",
                );
            }
            Ok(Entry::Mapped(mapped)) => {
                if is_counted && mapped.stored != 0 {
                    self.findings.n_allocated_units += 1;
                }
                if let (Some(host), false) = (mapped.host, self.layout.has_data_file) {
                    self.count(host..host + 1, users, Kind::Data, "cluster");
                    if is_counted {
                        self.check_copied("cluster", host, mapped.copied, position);
                    }
                }
            }
        }
    }

    /// Compares the flag that allows writing in place with the refcount.
    fn check_copied(&mut self, what: &str, offset: u64, copied: bool, at: u64) {
        let cluster = offset >> self.layout.cluster_shift;
        let Ok(count) = self.refcounts.count(&mut self.tables, cluster) else {
            return;
        };
        if copied == (count == 1) {
            return;
        }
        let severity = if copied {
            Severity::Corruption
        } else {
            Severity::Oddity
        };
        let flag = if copied { "set" } else { "clear" };
        let text =
            format!("{what} at {offset:#x}: the copied flag is {flag}, the refcount is {count}");
        self.findings.add(severity, &self.name, text, Some(at));
    }

    /// Counts `times` uses of the clusters that a file range touches.
    fn count(&mut self, range: Range<u64>, times: u32, kind: Kind, what: &str) {
        if range.is_empty() {
            return;
        }
        let shift = self.layout.cluster_shift;
        let clusters = range.start >> shift..((range.end - 1) >> shift) + 1;
        if self.is_first {
            if range.start >= self.len_bytes
                || range.end > self.len_bytes.next_multiple_of(1 << shift)
            {
                let text = format!("{what} at {:#x}: past the end of the file", range.start);
                if kind == Kind::Refcounts {
                    self.refcounts_damaged = true;
                    self.damage(&text, range.start);
                } else {
                    self.leads_past_end = true;
                    self.lose(&text, range.start);
                }
                return;
            }
            self.note_windows(clusters.clone());
        }
        let start = clusters.start.max(self.window.start);
        let end = clusters.end.min(self.window.end);
        for cluster in start..end {
            if let Some(uses) = self.uses.get_mut((cluster - self.window.start) as usize) {
                let n = (*uses & USES).saturating_add(times).min(USES);
                *uses = *uses & !USES | n | kind as u32;
            }
        }
    }

    fn note_windows(&mut self, clusters: Range<u64>) {
        let n_clusters = self.len_bytes.div_ceil(self.layout.cluster_bytes());
        let end = clusters.end.min(n_clusters);
        if clusters.start >= end || self.windows.len() > MAX_WINDOWS {
            return;
        }
        self.windows
            .extend(clusters.start / WINDOW_CLUSTERS..=(end - 1) / WINDOW_CLUSTERS);
    }

    /// Returns the refcounts of the clusters from `cluster` up to `end` or the end of a page,
    /// at least one. What cannot be read counts as 0.
    pub fn stored_counts(&mut self, cluster: u64, end: u64) -> Vec<u64> {
        let n = (end - cluster) as usize;
        let Ok(Some(block)) = self.refcounts.block(&mut self.tables, cluster) else {
            return vec![0; n];
        };
        let order = self.layout.refcount_order;
        let (byte, bit) = self.refcounts.position(cluster);
        let Ok(page) = self.tables.tail(block + byte) else {
            return vec![0; n];
        };
        let count_at = |index: usize| {
            let bits = u64::from(bit) + ((index as u64) << order);
            let bytes = page.get((bits / 8) as usize..)?;
            stored_count(bytes, (bits % 8) as u32, order)
        };
        let counts: Vec<u64> = (0..n).map_while(count_at).collect();
        if counts.is_empty() {
            vec![0; n]
        } else {
            counts
        }
    }

    /// Returns the uses of a cluster of the window.
    pub fn uses(&self, cluster: u64) -> Uses {
        let index = cluster.wrapping_sub(self.window.start) as usize;
        Uses(self.uses.get(index).copied().unwrap_or(0))
    }

    /// Reports damage.
    pub fn damage(&mut self, text: &str, byte: u64) {
        self.findings
            .add(Severity::Corruption, &self.name, text, Some(byte));
    }

    /// Reports a reference that cannot be followed.
    fn lose(&mut self, text: &str, byte: u64) {
        self.n_lost += 1;
        self.damage(text, byte);
    }

    /// Reports a reference that cannot be followed, when it is met first.
    fn lose_error(&mut self, error: &Error) {
        if self.is_first {
            self.n_lost += 1;
            self.findings.add_error(&self.name, error);
        }
    }
}

fn too_spread() -> Error {
    Error::unsupported("its tables refer to places too far apart to be checked")
}
