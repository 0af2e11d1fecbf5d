//! Checking: how often each cluster is used against what the refcounts say, and every entry on
//! the way. No guest data is read.
//!
//! Memory is bounded: uses are counted for a window of clusters at a time, and the tables walked
//! again for each window that anything refers to. An L2 table that several L1 tables share is
//! walked once, with the number of its users.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result, Storage};

use super::bitmaps;
use super::header::{self, Header};
use super::layout::{COPIED, Entry, Layout, OFFSET_MASK};
use super::map::{Map, words};
use super::refcounts::{Refcounts, stored_count};
use super::snapshot::Snapshots;
use super::tables::Tables;
use crate::disk::{CheckArgs, Findings, Severity};

/// Clusters counted at a time: 16 MiB of counts.
const WINDOW_CLUSTERS: u64 = 4 << 20;
/// Most windows: enough for a petabyte in clusters of 64 KiB. A hostile file may refer to more.
const MAX_WINDOWS: usize = 4096;
/// Marks, beside its number of users, an L2 table of the current state.
const ACTIVE: u32 = 1 << 31;

/// Checks one layer.
pub fn check(args: &CheckArgs) -> Result<Findings> {
    let mut findings = Findings::default();
    let name = args.storage.name();
    let header = match Header::read(&*args.storage) {
        Ok(header) => header,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.add_error(name, &error);
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    for (bit, what) in [
        (header::DIRTY, "not closed cleanly"),
        (header::CORRUPT, "marked corrupt"),
    ] {
        if header.incompatible & bit != 0 {
            findings.add(Severity::Oddity, name, format!("header: {what}"), Some(72));
        }
    }
    let snapshots = Snapshots::read(&*args.storage, &header).unwrap_or_else(|error| {
        findings.add_error(name, &error);
        Snapshots::default()
    });
    let mut check = Check::new(&args.storage, header, findings)?;
    check.findings.n_units = check
        .header
        .virtual_size
        .div_ceil(check.layout.cluster_bytes());
    check.find_fixed(&snapshots);
    check.find_windows()?;
    check.run()?;
    Ok(check.findings)
}

struct Check {
    storage: Arc<dyn Storage>,
    name: String,
    header: Header,
    layout: Layout,
    tables: Tables,
    refcounts: Refcounts,
    len_bytes: u64,
    findings: Findings,
    /// L1 tables, that of the current state first.
    l1_tables: Vec<Map>,
    /// File ranges used once each: header, tables, refcount blocks' table, bitmaps.
    fixed: Vec<Range<u64>>,
    /// Tables of bitmaps: offset, entries.
    bitmap_tables: Vec<(u64, u64)>,
    /// Windows that hold L2 tables.
    l2_windows: BTreeSet<u64>,
    /// Windows that anything refers to or counts; filled in the first pass.
    windows: BTreeSet<u64>,
    /// The window being counted, in clusters, and its uses.
    window: Range<u64>,
    uses: Vec<u32>,
    /// Whether this is the first pass: the one that reports what is wrong with entries.
    is_first: bool,
}

impl Check {
    fn new(storage: &Arc<dyn Storage>, header: Header, findings: Findings) -> Result<Self> {
        let layout = header.layout();
        let len_bytes = storage.len_bytes()?;
        let table_len = u64::from(header.refcount_table_clusters) << layout.cluster_shift;
        Ok(Self {
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
            l1_tables: Vec::new(),
            fixed: Vec::new(),
            bitmap_tables: Vec::new(),
            l2_windows: BTreeSet::new(),
            windows: BTreeSet::new(),
            window: 0..0,
            uses: Vec::new(),
            is_first: true,
        })
    }

    /// Collects the parts that are used once, and the L1 tables.
    fn find_fixed(&mut self, snapshots: &Snapshots) {
        let table_len = self.refcounts.n_blocks * 8;
        if self.header.refcount_table_offset == 0 || table_len == 0 {
            self.damage("header: no refcount table", 48);
        }
        if self.header.refcount_table_offset + table_len > self.len_bytes {
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
        self.fixed = vec![
            0..1,
            start..start + table_len,
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
                self.damage(
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
            Err(error) => return self.findings.add_error(&self.name, &error),
        };
        self.fixed
            .push(directory.offset..directory.offset + directory.len);
        let mut room = self.len_bytes;
        for bitmap in list {
            let len = bitmap.n_entries * 8;
            let bytes = bitmap.table_offset..bitmap.table_offset.saturating_add(len);
            if bytes.end > self.len_bytes || len > room || self.layout.in_cluster(bytes.start) != 0
            {
                self.damage(
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

    /// Counts window after window.
    fn run(&mut self) -> Result<()> {
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
            self.compare();
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
            self.count(range, 1, "table");
        }
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
                        1,
                        "refcount block",
                    );
                    if self.is_first {
                        self.note_windows(first..first + (1 << self.layout.block_shift()));
                    }
                }
                Ok(None) => {}
                Err(error) => self.report(&error),
            }
        }
    }

    fn count_bitmaps(&mut self) {
        for (offset, n_entries) in self.bitmap_tables.clone() {
            for index in 0..n_entries {
                match self.tables.read_u64(offset + index * 8) {
                    Ok(entry) if entry & OFFSET_MASK != 0 => {
                        let start = entry & OFFSET_MASK;
                        self.count(start..start + self.layout.cluster_bytes(), 1, "bitmap");
                    }
                    Ok(_) => {}
                    Err(error) => return self.report(&error),
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
                self.count(l2..l2 + 1, users & !ACTIVE, "L2 table");
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
                self.damage(&what, at);
            }
            Err(error) if reports => self.findings.add_error(&self.name, &error),
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
                Err(error) => return self.report(&error),
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
                self.report(
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
                self.count(compressed.offset..end, users, "compressed cluster");
            }
            Ok(Entry::Mapped(mapped)) => {
                if is_counted && mapped.stored != 0 {
                    self.findings.n_allocated_units += 1;
                }
                if let (Some(host), false) = (mapped.host, self.layout.has_data_file) {
                    self.count(host..host + 1, users, "cluster");
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
    fn count(&mut self, range: Range<u64>, times: u32, what: &str) {
        if range.is_empty() {
            return;
        }
        let shift = self.layout.cluster_shift;
        let clusters = range.start >> shift..((range.end - 1) >> shift) + 1;
        if self.is_first {
            if range.start >= self.len_bytes
                || range.end > self.len_bytes.next_multiple_of(1 << shift)
            {
                self.damage(
                    &format!("{what} at {:#x}: past the end of the file", range.start),
                    range.start,
                );
                return;
            }
            self.note_windows(clusters.clone());
        }
        let start = clusters.start.max(self.window.start);
        let end = clusters.end.min(self.window.end);
        for cluster in start..end {
            if let Some(uses) = self.uses.get_mut((cluster - self.window.start) as usize) {
                *uses = uses.saturating_add(times);
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

    /// Compares the uses counted in the window with the refcounts.
    fn compare(&mut self) {
        let mut cluster = self.window.start;
        let mut leak = Leak::default();
        while cluster < self.window.end {
            let block_end =
                ((cluster >> self.layout.block_shift()) + 1) << self.layout.block_shift();
            let end = block_end.min(self.window.end);
            let counts = self.stored_counts(cluster, end);
            for stored in counts {
                self.compare_cluster(cluster, stored, &mut leak);
                cluster += 1;
            }
        }
        self.end_leak(&mut leak);
    }

    /// Returns the refcounts of the clusters from `cluster` up to `end` or the end of a page,
    /// at least one. What cannot be read counts as 0.
    fn stored_counts(&mut self, cluster: u64, end: u64) -> Vec<u64> {
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

    fn compare_cluster(&mut self, cluster: u64, stored: u64, leak: &mut Leak) {
        let uses = self
            .uses
            .get((cluster - self.window.start) as usize)
            .copied()
            .unwrap_or(0);
        if stored <= u64::from(uses) {
            self.end_leak(leak);
            if stored < u64::from(uses) {
                let what =
                    format!("cluster {cluster}: used {uses} times, but its refcount is {stored}");
                self.damage(&what, cluster << self.layout.cluster_shift);
            }
            return;
        }
        if leak.n_clusters == 0 {
            *leak = Leak {
                first: cluster,
                n_clusters: 0,
                stored,
                uses,
            };
        }
        leak.n_clusters += 1;
        // Space is lost only where nothing uses it.
        if uses == 0 {
            self.findings.leaked_bytes += self.layout.cluster_bytes();
        }
    }

    fn end_leak(&mut self, leak: &mut Leak) {
        if leak.n_clusters == 0 {
            return;
        }
        let Leak {
            first,
            n_clusters,
            stored,
            uses,
        } = *leak;
        let text = format!(
            "clusters {first} to {}: refcount {stored}, used {uses} times",
            first + n_clusters - 1
        );
        let byte = Some(first << self.layout.cluster_shift);
        self.findings.add(Severity::Leak, &self.name, text, byte);
        *leak = Leak::default();
    }

    fn damage(&mut self, text: &str, byte: u64) {
        self.findings
            .add(Severity::Corruption, &self.name, text, Some(byte));
    }

    /// Reports damage met while counting, once.
    fn report(&mut self, error: &Error) {
        if self.is_first {
            self.findings.add_error(&self.name, error);
        }
    }
}

/// A run of clusters with refcounts too high.
#[derive(Default, Clone, Copy)]
struct Leak {
    first: u64,
    n_clusters: u64,
    /// Refcount and uses of the first.
    stored: u64,
    uses: u32,
}

fn too_spread() -> Error {
    Error::unsupported("its tables refer to places too far apart to be checked")
}
