//! Putting back what was there.

use std::ops::ControlFlow;

use hako_block::Result;
use hako_guest::{Found, NodeKind};

use super::records::{KEPT_BYTES, Record, Records, Was, behind, kept_path, sum_of};
use super::verify::read_at;
use super::{Change, FOLDER, Guest, Plan, What};

/// Says what is to be changed so that the guest is what it was. What the guest itself has changed
/// since stays as it is, with a remark. A guest in which nothing was changed has an empty plan. Errors:
/// those of reading the guest's disks; corrupt if what is kept is damaged.
pub fn undo(guest: &Guest<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    let Some((records, list)) = Records::read(guest)? else {
        return Ok(plan);
    };
    let is_own = |record: &&Record| FOLDER.starts_with(&record.path);
    // Folders after what is in them.
    for record in records
        .changes
        .iter()
        .rev()
        .filter(|record| !is_own(record))
    {
        match back(guest, record, &plan)? {
            Ok(Some(what)) => plan.add(&record.path, what, "as it was before"),
            Ok(None) => {}
            Err(remark) => plan.remarks.push(format!("{}: {remark}", record.path)),
        }
    }
    for record in &records.changes {
        if let Was::File { kept, .. } = &record.was {
            let path = kept_path(kept)?;
            let old = Some(guest.tree().read(path.as_bytes(), KEPT_BYTES)?);
            plan.add(path, What::Remove { old }, "it is not needed any more");
        }
    }
    let list_path = format!("{FOLDER}/changes.json");
    let old = Some(list);
    plan.add(list_path, What::Remove { old }, "it is not needed any more");
    for record in records.changes.iter().rev().filter(is_own) {
        let folder = guest.tree().find(record.path.as_bytes())?;
        if is_emptied(&folder, &record.path, &plan)? {
            plan.add(&record.path, What::Remove { old: None }, "hako made it");
        }
    }
    Ok(plan)
}

/// Says how a path becomes what it was; what stands in the way is the inner error.
fn back(
    guest: &Guest<'_>,
    record: &Record,
    plan: &Plan,
) -> Result<std::result::Result<Option<What>, &'static str>> {
    const CHANGED: &str = "the guest has changed it since, and it stays as it is";
    // What was a file may be one that a link leads to.
    let follow = record.was != Was::Nothing;
    let now = read_at(guest.root, guest.volumes, &record.path, follow)?;
    let is_ours = |bytes: &[u8]| record.wrote == Some(sum_of(bytes));
    Ok(match (&record.was, now) {
        (Was::File { kept, mode }, None) => {
            let bytes = guest.tree().read(kept_path(kept)?.as_bytes(), KEPT_BYTES)?;
            Ok(Some(What::Create { bytes, mode: *mode }))
        }
        (Was::File { kept, .. }, Some((NodeKind::File, found))) => {
            let old = read(&found)?;
            let new = guest.tree().read(kept_path(kept)?.as_bytes(), KEPT_BYTES)?;
            match () {
                () if old == new => Ok(None),
                () if is_ours(&old) => Ok(Some(What::Replace { old, new })),
                () => Err(CHANGED),
            }
        }
        (Was::Shorter { len }, Some((NodeKind::File, found))) => {
            let end = found.stat()?.len_bytes;
            let tail = behind(guest, &record.path, *len, end)?;
            match () {
                () if end == *len => Ok(None),
                () if is_ours(&tail) => Ok(Some(What::Cut { len: *len })),
                () => Err(CHANGED),
            }
        }
        (Was::Nothing, Some((NodeKind::File, found))) => {
            let old = read(&found)?;
            match is_ours(&old) {
                true => Ok(Some(What::Remove { old: Some(old) })),
                false => Err(CHANGED),
            }
        }
        (Was::Nothing, Some((NodeKind::Link, _))) => Ok(Some(What::Remove { old: None })),
        (Was::Nothing, Some((NodeKind::Directory, folder))) => {
            match is_emptied(&folder, &record.path, plan)? {
                true => Ok(Some(What::Remove { old: None })),
                false => Err("there is something in it, and it stays"),
            }
        }
        (Was::Nothing, None) => Ok(None),
        _ => Err(CHANGED),
    })
}

fn read(found: &Found) -> Result<Vec<u8>> {
    let len = found.stat()?.len_bytes.min(KEPT_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let n = found.read_at(0, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Whether nothing is left in a folder once the plan is carried out.
fn is_emptied(folder: &Found, path: &str, plan: &Plan) -> Result<bool> {
    let goes = |name: &[u8]| {
        let path = format!("{path}/{}", String::from_utf8_lossy(name));
        let is_removed = |change: &Change| matches!(change.what, What::Remove { .. });
        let mut changes = plan.changes.iter();
        changes.any(|change| change.path == path && is_removed(change))
    };
    let mut is_emptied = true;
    folder.visit(&mut |entry| {
        is_emptied = goes(&entry.name);
        match is_emptied {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(is_emptied)
}
