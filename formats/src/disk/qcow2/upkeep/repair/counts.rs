//! Correcting refcounts where they are. A count that is lowered belongs to a cluster with no
//! reference, or one less; in whatever order the sectors reach the disk, none is worse than it was.

use std::ops::Range;

use hako_block::Result;

use super::{Survey, references_of, refuse_too_many};
use crate::disk::OpenArgs;
use crate::disk::qcow2::check::References;
use crate::disk::qcow2::header::Header;
use crate::disk::qcow2::tables::Class;

/// Lowers counts that are too high, and with `all` raises those too low. Returns what was done.
pub fn correct(
    args: &OpenArgs,
    header: &Header,
    survey: &Survey,
    all: bool,
) -> Result<Vec<String>> {
    let raises = all && survey.n_low > 0;
    let lowers = survey.n_high > 0 && survey.n_lost == 0;
    if !raises && !lowers {
        return Ok(Vec::new());
    }
    if raises {
        refuse_too_many(header, survey.max_uses)?;
    }
    let mut references = references_of(args, header)?;
    let mut free = Vec::new();
    references.run(|references| {
        free.clear();
        references.each_cluster(|references, cluster, stored, uses| {
            if (stored < uses.n() && raises) || (stored > uses.n() && lowers) {
                let References {
                    refcounts, tables, ..
                } = references;
                refcounts.set(tables, cluster, uses.n())?;
                if tables.is_full() {
                    tables.write_back(Class::Refcounts)?;
                }
                if uses.n() == 0 {
                    add(
                        &mut free,
                        cluster << references.layout.cluster_shift,
                        references,
                    );
                }
            }
            Ok(())
        })?;
        references.tables.write_back(Class::Refcounts)?;
        args.storage.sync()?;
        for bytes in free.drain(..) {
            args.storage.punch_hole(bytes)?;
        }
        Ok(())
    })?;
    args.storage.sync()?;
    let mut done = Vec::new();
    let mut tell = |holds: bool, n: u64, how: &str| {
        if holds {
            done.push(format!("refcounts {how}: {n}"));
        }
    };
    tell(raises, survey.n_low, "raised");
    tell(lowers, survey.n_high, "lowered");
    Ok(done)
}

fn add(free: &mut Vec<Range<u64>>, start: u64, references: &References) {
    let end = (start + references.layout.cluster_bytes()).min(references.len_bytes);
    match free.last_mut() {
        Some(last) if last.end == start => last.end = end,
        _ => free.push(start..end),
    }
}
