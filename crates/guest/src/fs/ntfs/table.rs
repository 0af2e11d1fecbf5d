//! The master file table, whose records are the files; itself a file, the first one.

use std::sync::Arc;

use hako_block::{Error, Result};

use super::boot::Boot;
use super::record::{DATA, Form, Record, Reference};
use super::runs::{self, Run};
use super::stream::File;
use crate::fs::cache::Cache;
use crate::volume::{Volume, read_vec};

/// Records that are kept.
const KEPT: usize = 512;

/// Most runs of the table itself: it is all of a volume in pieces of a few records.
const MOST_RUNS: usize = 1 << 20;

/// The table of a volume.
pub struct Table {
    volume: Arc<dyn Volume>,
    boot: Boot,
    runs: Vec<Run>,
    len_bytes: u64,
    kept: Cache<Reference, Record>,
}

impl Table {
    /// Opens it by its first record, or the copy of that. Says whether the copy had to be used.
    pub fn open(volume: Arc<dyn Volume>, boot: Boot) -> Result<(Self, bool)> {
        let mut table = Self {
            volume,
            boot,
            runs: Vec::new(),
            len_bytes: 0,
            kept: Cache::new(KEPT),
        };
        let [first, copy] = boot.table_clusters;
        let (record, is_copy) = match table.first_record(first) {
            Ok(record) => (record, false),
            Err(error) => match table.first_record(copy) {
                Ok(record) => (record, true),
                Err(_) => return Err(error),
            },
        };
        table.find_runs(&Arc::new(record)).map_err(in_table)?;
        Ok((table, is_copy))
    }

    /// Returns the volume it is on.
    pub fn volume(&self) -> &dyn Volume {
        &*self.volume
    }

    /// Returns what the boot sector says.
    pub fn boot(&self) -> &Boot {
        &self.boot
    }

    /// Returns the record of that number, of a file that is there and is the one that is meant.
    pub fn record(&self, reference: Reference) -> Result<Arc<Record>> {
        let place = || format!("NTFS record {}", reference.record());
        self.kept.get_or(reference, || {
            let record = self.read(reference.record());
            let record = record.map_err(|error| error.place(place()))?;
            let wanted = reference.sequence();
            if !record.is_used() || (wanted != 0 && record.sequence() != wanted) {
                return Err(Error::corrupt(place(), "no longer the file that is meant"));
            }
            Ok(record)
        })
    }

    fn first_record(&self, cluster: u64) -> Result<Record> {
        let offset = cluster.checked_mul(self.boot.cluster_bytes);
        let offset = offset.ok_or_else(|| past_all(cluster))?;
        let bytes = read_vec(self.volume(), offset, self.boot.record_bytes)?;
        Record::decode(bytes).map_err(in_table)
    }

    /// Finds out where the table is: by its first record, then by those that this leads to, which
    /// must lie in what is known by then.
    fn find_runs(&mut self, first: &Arc<Record>) -> Result<()> {
        for attribute in first.attributes() {
            let attribute = attribute?;
            if let (true, Form::Clusters(extent)) = (attribute.is(DATA, ""), attribute.form) {
                self.len_bytes = extent.len;
                self.runs = runs::decode(extent.runs, extent.first)?;
            }
        }
        let file = File::of(self, Reference(0), Arc::clone(first))?;
        for part in file.parts(DATA, "") {
            let known = self.runs.last().map_or(0, |run| run.first + run.len);
            if part.first < known {
                continue;
            }
            let more = file.runs_of(self, DATA, "", &part)?;
            self.runs.extend(more);
            if part.first > known || self.runs.len() > MOST_RUNS {
                return Err(in_table(super::bad("its runs do not add up")));
            }
        }
        Ok(())
    }

    fn read(&self, number: u64) -> Result<Record> {
        let len = self.boot.record_bytes;
        let offset = number.checked_mul(len as u64);
        let offset = offset.filter(|offset| {
            let end = offset.checked_add(len as u64);
            end.is_some_and(|end| end <= self.len_bytes)
        });
        let offset = offset.ok_or_else(|| super::bad("past the end of the table"))?;
        let mut bytes = vec![0; len];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let run = run_of(&self.runs, at / self.boot.cluster_bytes);
            let run = run.ok_or_else(|| super::bad("in no run of the table"))?;
            done += read_run(self, run, at, rest)?;
        }
        Record::decode(bytes)
    }
}

/// Returns the run that holds a cluster of an attribute.
pub fn run_of(runs: &[Run], cluster: u64) -> Option<&Run> {
    let index = runs.partition_point(|run| run.first <= cluster);
    let run = runs.get(index.checked_sub(1)?)?;
    (cluster - run.first < run.len).then_some(run)
}

/// Reads from a run what is at `offset` of the attribute, as much as the run has; a hole is zeros.
pub fn read_run(table: &Table, run: &Run, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let cluster_bytes = table.boot.cluster_bytes;
    let skip = run
        .first
        .checked_mul(cluster_bytes)
        .and_then(|start| offset.checked_sub(start));
    let left = run.len.saturating_mul(cluster_bytes);
    let (Some(skip), Some(left)) = (skip, skip.and_then(|skip| left.checked_sub(skip))) else {
        return Err(past_all(run.first));
    };
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    let buf = buf.get_mut(..len).unwrap_or_default();
    match run.cluster {
        None => buf.fill(0),
        Some(cluster) => {
            let start = cluster.checked_mul(cluster_bytes);
            let start = start.and_then(|start| start.checked_add(skip));
            let start = start.ok_or_else(|| past_all(cluster))?;
            table.volume().read_at(start, buf)?;
        }
    }
    Ok(len)
}

fn past_all(cluster: u64) -> Error {
    Error::corrupt("NTFS", format!("cluster {cluster} lies past all volumes"))
}

fn in_table(error: Error) -> Error {
    error.place("NTFS master file table")
}
