//! What is in use, by `$Bitmap`: a bit for each cluster.
//!
//! A volume that Windows did not let go of may have clusters in use that only its log knows: of such a
//! one all is in use.
//!
//! | restart page of the log | |
//! |---|---|
//! | 0 | `RSTR`, 16 bytes of a page, 24 place of the restart area |
//! | +0 | (restart area) its sequence number, 12 first client (all ones: none), 14 flags |

use std::ops::Range;

use hako_block::{Error, Result};

use super::record::{DATA, Reference};
use super::stream::File;
use super::table::Table;
use super::{FileSystem, Ntfs};
use crate::bytes::le;
use crate::used::Ranges;

const LOG: Reference = Reference(2);
const BITMAP: Reference = Reference(6);
/// Flag of the restart area: the volume was let go of.
const IS_CLEAN: u16 = 2;
/// Bytes of a page of the log: the largest there are.
const PAGE_BYTES: usize = 64 << 10;
/// Runs of a file at most that is passed over.
const MOST_RUNS: usize = 1 << 16;
/// Files in the root whose content nobody asks for when Windows is started anew.
const SCRATCH: [&[u8]; 3] = [b"pagefile.sys", b"swapfile.sys", b"hiberfil.sys"];

/// Returns why the bitmap is not to be believed, by the log, if it is not.
pub(super) fn doubt_of_log(table: &Table) -> Result<Option<&'static str>> {
    let log = File::open(table, LOG).and_then(|file| file.stream(table, DATA, ""));
    let Ok(Some(log)) = log else {
        return Ok(Some("its log cannot be read"));
    };
    let mut newest: Option<(u64, bool)> = None;
    let mut at = 0;
    let mut is_empty = true;
    for _ in 0..2 {
        let mut page = vec![0; PAGE_BYTES];
        let Ok(len) = log.read(table, at, &mut page) else {
            return Ok(Some("its log cannot be read"));
        };
        let page = page.get(..len).unwrap_or_default();
        let is_blank = |byte: u8| page.iter().all(|other| *other == byte);
        is_empty &= is_blank(0xff) || is_blank(0);
        if page.starts_with(b"RSTR") {
            let area = page.get(usize::from(le::u16_at(page, 24))..);
            let area = area.unwrap_or_default();
            let has_no_client = le::u16_at(area, 12) == u16::MAX;
            let is_clean = has_no_client || le::u16_at(area, 14) & IS_CLEAN != 0;
            let sequence = le::u64_at(area, 0);
            if area.len() >= 16 && newest.is_none_or(|(known, _)| known < sequence) {
                newest = Some((sequence, is_clean));
            }
        }
        let page_bytes = u64::from(le::u32_at(page, 16));
        at = match page_bytes.is_power_of_two() && page_bytes <= PAGE_BYTES as u64 {
            true if page.starts_with(b"RSTR") => page_bytes,
            _ => 4096,
        };
    }
    Ok(match newest {
        Some((_, true)) => None,
        None if is_empty => None,
        _ => Some("Windows was not shut down: its log has what the bitmap lacks"),
    })
}

impl Ntfs {
    /// Returns what of a window is in use.
    pub(super) fn used_in(&self, window: &Range<u64>) -> Result<Ranges> {
        if let Some(doubt) = self.doubt {
            return Err(Error::unsupported(doubt));
        }
        let boot = self.table.boot();
        let n_clusters = boot.len_bytes / boot.cluster_bytes;
        let bitmap = File::open(&self.table, BITMAP)?.stream(&self.table, DATA, "")?;
        let bitmap = bitmap.ok_or_else(|| Error::corrupt("NTFS bitmap", "not there"))?;
        // What the bitmap has no bit for is in use.
        let n_known = n_clusters.min(bitmap.len.saturating_mul(8));
        let mut used = Ranges::of(n_known.saturating_mul(boot.cluster_bytes)..u64::MAX);
        let first = window.start / boot.cluster_bytes / 8 * 8;
        let end = window.end.div_ceil(boot.cluster_bytes).min(n_known);
        if first >= end {
            return Ok(used);
        }
        let len = usize::try_from((end - first).div_ceil(8)).unwrap_or(usize::MAX);
        let mut bits = vec![0; len];
        if bitmap.read(&self.table, first / 8, &mut bits)? != len {
            return Err(Error::corrupt("NTFS bitmap", "it ends before it should"));
        }
        let cluster_bytes = boot.cluster_bytes;
        used.add_bits(&bits, end - first, first * cluster_bytes, cluster_bytes);
        Ok(used)
    }

    /// Returns where the files are that Windows swaps to. That of a hibernated one is no scratch.
    pub(super) fn scratch_files(&self) -> Result<Ranges> {
        let mut scratch = Ranges::default();
        if self.doubt.is_some() || self.is_hibernated() {
            return Ok(scratch);
        }
        for name in SCRATCH {
            if let Some(node) = self.lookup(self.root(), name)? {
                let file = File::open(&self.table, Reference(node.number))?;
                let is_directory = file.record.is_directory();
                let data = file.stream(&self.table, DATA, "")?;
                let runs = match data.filter(|data| !is_directory && data.is_plain()) {
                    Some(data) => data.all_runs(&self.table, MOST_RUNS)?,
                    None => None,
                };
                for run in runs.unwrap_or_default() {
                    if let Some(cluster) = run.cluster {
                        let bytes = self.table.boot().cluster_bytes;
                        let start = cluster.saturating_mul(bytes);
                        scratch.add(start..start.saturating_add(run.len.saturating_mul(bytes)));
                    }
                }
            }
        }
        Ok(scratch)
    }
}
