//! Looking at all of it: the tables, which are to be the same, and every chain.

use std::ops::{ControlFlow, Range};

use hako_block::{Error, Result};

use super::geometry::Root;
use super::{Fat, ROOT};
use crate::bytes::le;
use crate::check::Audit;
use crate::fs::NodeId;

/// Entries of a table that are compared at once.
const MOST_ENTRIES: u64 = 1 << 16;

impl Fat {
    /// Compares the tables. What is before the first cluster belongs to no file.
    pub(super) fn compare_tables(
        &self,
        audit: &mut Audit,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let geometry = &self.geometry;
        let end = u64::from(geometry.end_cluster);
        let mut first = 2;
        while first < end {
            tick()?;
            let clusters = first..(first + MOST_ENTRIES).min(end);
            first = clusters.end;
            let own = self.entries(geometry.table_at, clusters.clone())?;
            for table in 0..u64::from(geometry.n_tables) {
                let at = geometry.tables_at + table * geometry.table_bytes;
                let other = self.entries(at, clusters.clone())?;
                let differing = own.iter().zip(&other).position(|(a, b)| a != b);
                if let Some(index) = differing {
                    let cluster = clusters.start + index as u64;
                    let what = format!("differ in cluster {cluster}");
                    audit.damaged("the tables", &what);
                }
            }
        }
        audit.has_structure(0..geometry.data_at);
        audit.will_own_all();
        audit.checked("the boot sector, the tables, chains of clusters");
        Ok(())
    }

    /// Calls `each` with the clusters of a file or directory. Errors: its chain is shorter or longer
    /// than it is.
    pub(super) fn runs_of(&self, node: NodeId, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let (first, len) = match node {
            ROOT => match self.geometry.root {
                Root::Fixed { .. } => return Ok(()),
                Root::Chain(first) => (first, None),
            },
            node => {
                let record = self.record(node)?;
                let len = u64::from(le::u32_at(&record.bytes, 28));
                let is_directory = record.is_directory();
                (
                    record.first_cluster(self.geometry.width),
                    (!is_directory).then_some(len),
                )
            }
        };
        let mut bytes = 0;
        if first != 0 {
            self.each_run(Root::Chain(first), &mut |at, len| {
                each(at..at.saturating_add(len));
                bytes += len;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        let cluster_bytes = u64::from(self.geometry.cluster_bytes);
        match len {
            Some(len) if len.div_ceil(cluster_bytes) * cluster_bytes != bytes => {
                let what = format!("{bytes} bytes of a file of {len}");
                Err(Error::corrupt("cluster chain", what))
            }
            _ => Ok(()),
        }
    }
}
