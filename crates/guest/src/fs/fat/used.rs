//! What is in use: clusters that any of the tables has an entry for, and all before the first one.

use std::ops::Range;

use hako_block::Result;

use super::Fat;
use super::geometry::Width;
use crate::bytes::le;
use crate::used::Ranges;
use crate::volume::read_vec;

impl Fat {
    /// Returns what of a window is in use.
    pub(super) fn used_in(&self, window: &Range<u64>) -> Result<Ranges> {
        let geometry = &self.geometry;
        let cluster_bytes = u64::from(geometry.cluster_bytes);
        let place = |cluster: u64| {
            let index = cluster.saturating_sub(2);
            geometry.data_at.saturating_add(index * cluster_bytes)
        };
        let end = u64::from(geometry.end_cluster);
        let mut used = Ranges::of(0..geometry.data_at);
        // Behind the last cluster there may be anything.
        used.add(place(end)..u64::MAX);
        let index = |at: u64| at.saturating_sub(geometry.data_at);
        let first = index(window.start) / cluster_bytes + 2;
        let last = (index(window.end).div_ceil(cluster_bytes) + 2).min(end);
        if first >= last {
            return Ok(used);
        }
        for table in 0..u64::from(geometry.n_tables) {
            let table_at = geometry.tables_at + table * geometry.table_bytes;
            let entries = self.entries(table_at, first..last)?;
            for (cluster, entry) in (first..last).zip(entries) {
                if entry != 0 {
                    used.add(place(cluster)..place(cluster + 1));
                }
            }
        }
        Ok(used)
    }

    /// Returns the entries of clusters in a table.
    pub(super) fn entries(&self, table_at: u64, clusters: Range<u64>) -> Result<Vec<u32>> {
        let bits = match self.geometry.width {
            Width::Bits12 => 12,
            Width::Bits16 => 16,
            Width::Bits32 => 32,
        };
        let from = clusters.start * bits / 8;
        let to = (clusters.end * bits).div_ceil(8);
        let len = usize::try_from(to - from).unwrap_or(usize::MAX);
        let bytes = read_vec(&*self.volume, table_at.saturating_add(from), len)?;
        let entry = |cluster: u64| {
            let at = usize::try_from(cluster * bits / 8 - from).unwrap_or(usize::MAX);
            match self.geometry.width {
                Width::Bits12 if cluster.is_multiple_of(2) => {
                    u32::from(le::u16_at(&bytes, at)) & 0xfff
                }
                Width::Bits12 => u32::from(le::u16_at(&bytes, at)) >> 4,
                Width::Bits16 => u32::from(le::u16_at(&bytes, at)),
                Width::Bits32 => le::u32_at(&bytes, at) & 0x0fff_ffff,
            }
        };
        Ok(clusters.map(entry).collect())
    }
}
