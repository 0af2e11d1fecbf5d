//! Checking: how often each cluster is used against what the refcounts say, and every entry on
//! the way. No guest data is read.

mod references;

use hako_block::{ErrorKind, Result};

use super::header::{self, Header};
use super::snapshot::Snapshots;
use crate::disk::{CheckArgs, Findings, Severity};

pub use references::{References, Uses};

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
    let n_units = header
        .virtual_size
        .div_ceil(header.layout().cluster_bytes());
    findings.n_units = n_units;
    let mut references = References::new(&args.storage, header, &snapshots, findings)?;
    references.run(|references| references.compare())?;
    Ok(references.findings)
}

impl References {
    /// Calls `each` with every cluster of the window, its refcount and its uses.
    pub fn each_cluster(
        &mut self,
        mut each: impl FnMut(&mut Self, u64, u64, Uses) -> Result<()>,
    ) -> Result<()> {
        let mut cluster = self.window.start;
        while cluster < self.window.end {
            let block_end =
                ((cluster >> self.layout.block_shift()) + 1) << self.layout.block_shift();
            let end = block_end.min(self.window.end);
            for stored in self.stored_counts(cluster, end) {
                let uses = self.uses(cluster);
                each(self, cluster, stored, uses)?;
                cluster += 1;
            }
        }
        Ok(())
    }

    /// Compares the uses counted in the window with the refcounts.
    fn compare(&mut self) -> Result<()> {
        let mut leak = Leak::default();
        self.each_cluster(|references, cluster, stored, uses| {
            references.compare_cluster(cluster, stored, uses, &mut leak);
            Ok(())
        })?;
        self.end_leak(&mut leak);
        Ok(())
    }

    fn compare_cluster(&mut self, cluster: u64, stored: u64, uses: Uses, leak: &mut Leak) {
        let byte = cluster << self.layout.cluster_shift;
        if uses.conflict() {
            let what = format!("cluster {cluster}: holds a table, and something else too");
            self.damage(&what, byte);
        }
        if stored <= uses.n() {
            self.end_leak(leak);
            if stored < uses.n() {
                let n = uses.n();
                let what =
                    format!("cluster {cluster}: used {n} times, but its refcount is {stored}");
                self.damage(&what, byte);
            }
            return;
        }
        if leak.n_clusters == 0 {
            *leak = Leak {
                first: cluster,
                n_clusters: 0,
                stored,
                uses: uses.n(),
            };
        }
        leak.n_clusters += 1;
        // Space is lost only where nothing uses it.
        if uses.n() == 0 {
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
}

/// A run of clusters with refcounts too high.
#[derive(Default, Clone, Copy)]
struct Leak {
    first: u64,
    n_clusters: u64,
    /// Refcount and uses of the first.
    stored: u64,
    uses: u64,
}
