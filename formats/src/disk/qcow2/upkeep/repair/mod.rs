//! Repairing: refcounts and copied flags from what refers to the clusters, as
//! `qemu-img check -r` does.
//!
//! | step | changes |
//! |---|---|
//! | `counts` | refcounts, where they are |
//! | `rebuild` | new refcount table and blocks behind the file's end, if the old ones are damaged |
//! | `flags` | copied flags of the current state |
//! | here | the marks in the header, the file's free end |
//!
//! Entries that point outside the file, at no cluster's beginning or at a table are left: what
//! they should be is not known, and zeros would be invented. While there are such entries no
//! refcount is lowered, for what they meant may still be in the file.

mod counts;
mod flags;
mod rebuild;

use hako_block::{Access, Error, Result};

use crate::disk::qcow2::check::{self, References};
use crate::disk::qcow2::header::{self, CORRUPT, DIRTY, Header};
use crate::disk::qcow2::open;
use crate::disk::qcow2::snapshot::Snapshots;
use crate::disk::{Findings, OpenArgs, Repair};

/// Mends one layer; returns what was done.
pub fn repair(args: &OpenArgs, what: Repair) -> Result<Vec<String>> {
    let header = Header::read(&*args.storage)?;
    let survey = Survey::of(args, &header)?;
    let mut done = Vec::new();
    let all = what == Repair::All;
    if all && survey.needs_rebuild() {
        if survey.leads_past_end {
            // What grows the file would become the content of those entries.
            return Ok(done);
        }
        done.extend(rebuild::rebuild(args, &header, &survey)?);
    } else if !survey.needs_rebuild() {
        done.extend(counts::correct(args, &header, &survey, all)?);
    }
    let is_sound = check::check(args)?.n_corruptions == 0;
    if !survey.has_conflict && (all || is_sound) {
        done.extend(flags::correct(args, &Header::read(&*args.storage)?)?);
    }
    let after = check::check(args)?;
    if after.n_corruptions > 0 {
        return Ok(done);
    }
    if all {
        done.extend(clear_marks(args, &header)?);
    }
    if survey.n_unused > 0 && after.n_leaks == 0 {
        done.extend(cut_end(args)?);
    }
    Ok(done)
}

/// What the refcounts and the references are like.
struct Survey {
    /// Clusters with a refcount too low.
    n_low: u64,
    /// Clusters with a refcount too high.
    n_high: u64,
    /// Clusters that nothing uses, but have a refcount.
    n_unused: u64,
    /// Most uses of a cluster.
    max_uses: u64,
    /// References that cannot be followed.
    n_lost: u64,
    /// Whether one of them leads past the end of the file.
    leads_past_end: bool,
    /// Whether a table shares its cluster with something else.
    has_conflict: bool,
    /// Whether the refcounts cannot be corrected where they are.
    is_damaged: bool,
}

impl Survey {
    fn of(args: &OpenArgs, header: &Header) -> Result<Self> {
        let mut references = references_of(args, header)?;
        let mut survey = Self {
            n_low: 0,
            n_high: 0,
            n_unused: 0,
            max_uses: 0,
            n_lost: 0,
            leads_past_end: false,
            has_conflict: false,
            is_damaged: false,
        };
        references.run(|references| {
            references.each_cluster(|references, cluster, stored, uses| {
                survey.n_low += u64::from(stored < uses.n());
                survey.n_high += u64::from(stored > uses.n());
                survey.n_unused += u64::from(stored > 0 && uses.n() == 0);
                survey.max_uses = survey.max_uses.max(uses.n());
                survey.has_conflict |= uses.conflict();
                survey.is_damaged |= uses.spoils_refcounts();
                if stored < uses.n() {
                    let tables = &mut references.tables;
                    let block = references.refcounts.block(tables, cluster);
                    survey.is_damaged |= !matches!(block, Ok(Some(_)));
                }
                Ok(())
            })
        })?;
        survey.n_lost = references.n_lost;
        survey.leads_past_end = references.leads_past_end;
        survey.is_damaged |= references.refcounts_damaged;
        Ok(survey)
    }

    fn needs_rebuild(&self) -> bool {
        self.is_damaged
    }
}

/// Returns what the image refers to. A table of snapshots that cannot be read counts as lost.
fn references_of(args: &OpenArgs, header: &Header) -> Result<References> {
    let snapshots = Snapshots::read(&*args.storage, header);
    let is_lost = snapshots.is_err();
    let mut references = References::new(
        &args.storage,
        header.clone(),
        &snapshots.unwrap_or_default(),
        Findings::default(),
    )?;
    references.n_lost += u64::from(is_lost);
    Ok(references)
}

/// Refuses counts that the image's refcounts are too narrow for.
fn refuse_too_many(header: &Header, max_uses: u64) -> Result<()> {
    let bits = 1_u32 << header.refcount_order;
    if bits < 64 && max_uses >> bits != 0 {
        return Err(Error::unsupported(format!(
            "a cluster is used {max_uses} times: a refcount of {bits} bits cannot say so"
        ))
        .hint("convert it to a new image"));
    }
    Ok(())
}

/// Clears the marks of an image that is consistent again.
fn clear_marks(args: &OpenArgs, header: &Header) -> Result<Option<String>> {
    let marks = header.incompatible & (DIRTY | CORRUPT);
    if marks == 0 {
        return Ok(None);
    }
    let cleared = (header.incompatible & !marks).to_be_bytes();
    args.storage
        .write_at(header::INCOMPATIBLE_FIELD, &cleared)?;
    args.storage.sync()?;
    let text = match marks {
        DIRTY => "the mark \"not closed cleanly\" cleared",
        CORRUPT => "the mark \"corrupt\" cleared",
        _ => "the marks \"not closed cleanly\" and \"corrupt\" cleared",
    };
    Ok(Some(text.to_owned()))
}

/// Cuts off the free end of the file.
fn cut_end(args: &OpenArgs) -> Result<Option<String>> {
    let args = OpenArgs {
        access: Access::ReadWrite,
        snapshot: None,
        ..args.clone()
    };
    let before = args.storage.len_bytes()?;
    // An image that may still not be written keeps its length.
    let Ok(image) = open::open(&args) else {
        return Ok(None);
    };
    image.cut_free_end()?;
    let cut = before.saturating_sub(args.storage.len_bytes()?);
    Ok((cut > 0).then(|| format!("{cut} bytes cut off at the file's end")))
}
