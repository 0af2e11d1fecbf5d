//! Mending: the second copy of header and region table, the log, leaks.

use hako_block::{Access, ErrorKind, Result};

use super::super::header::Headers;
use super::super::layout::MIB;
use super::super::region::RegionTables;
use super::super::space::Space;
use super::super::structure::Structure;
use crate::disk::{OpenArgs, Repair};

/// Mends one layer. Returns what was done.
pub fn repair(args: &OpenArgs, what: Repair) -> Result<Vec<String>> {
    let storage = &*args.storage;
    let mut done = Vec::new();
    let before = Structure::open(&args.storage, Access::ReadOnly)?;
    if before.n_replayed.is_none()
        && what == Repair::Leaks
        && (!before.headers.bad.is_empty() || before.regions.need_mending())
    {
        // Opening for writing would mend more than what was asked for.
        return Ok(done);
    }
    let structure = Structure::open(&args.storage, Access::ReadWrite)?;
    if let Some(n) = before.n_replayed {
        done.push(format!("replayed the log: {n} entries"));
    }
    for slot in &before.headers.bad {
        if Headers::read(storage)?.bad.contains(slot) {
            structure.journal()?.rewrite()?;
        }
        done.push(format!("wrote header {} anew from the other one", slot + 1));
    }
    if before.regions.need_mending() && !RegionTables::read(storage)?.need_mending() {
        done.push("wrote both region tables as the one that counts".to_owned());
    }
    match Space::survey(&structure) {
        Ok(space) => done.extend(free_leaks(&structure, &space)?),
        // Where blocks overlap, which one is right would be a guess.
        Err(error) if error.kind() == ErrorKind::Corrupt => {}
        Err(error) => return Err(error),
    }
    storage.sync()?;
    Ok(done)
}

/// Gives back to the host what it stores of places that nothing refers to.
fn free_leaks(structure: &Structure, space: &Space) -> Result<Option<String>> {
    let storage = &*structure.storage;
    let mut freed = 0;
    let file_len = storage.len_bytes()?;
    for free in space.free() {
        let mut at = free.start;
        let end = free.end.min(file_len);
        while at < end {
            let extent = storage.next_extent(at)?;
            let stop = end.min(at.saturating_add(extent.len));
            if extent.data {
                storage.punch_hole(at..stop)?;
                freed += stop - at;
            }
            at = stop;
        }
    }
    let end = space.used_end();
    if end < file_len && !structure.metadata.leave_allocated {
        // The log says how long the file was: first it must be known to be empty.
        storage.sync()?;
        storage.set_len(end)?;
    }
    Ok((freed > 0).then(|| {
        format!(
            "gave back {} MiB that nothing refers to",
            freed.div_ceil(MIB)
        )
    }))
}
