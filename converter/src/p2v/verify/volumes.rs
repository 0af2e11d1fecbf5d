//! What is on the disks: whether volumes are whole, and every file system.

use hako_block::{Error, ErrorKind, Result};
use hako_guest::check::{Checkup, check};
use hako_guest::fs::btrfs;
use hako_guest::{FoundVolume, Origin, Role, Volumes};

use super::{About, Check, Outcome};

/// Checks all volumes, read-only. `tick` is called now and then; its error ends it. Errors are else
/// those of reading the disks.
pub fn check_volumes(
    volumes: &Volumes,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for remark in volumes.remarks() {
        checks.push(Check {
            about: About::Volume,
            name: "disks".to_owned(),
            outcome: Outcome::Failed,
            notes: vec![remark.clone()],
        });
    }
    for found in volumes.list() {
        checks.extend(whole(found));
        checks.extend(file_system(found, tick)?);
    }
    Ok(checks)
}

/// Says of a volume that holds or is made of others whether all of it is there.
fn whole(found: &FoundVolume) -> Option<Check> {
    let mut notes = Vec::new();
    let mut outcome = Outcome::Passed;
    if found.volume.is_none() {
        outcome = Outcome::Failed;
    }
    match &found.origin {
        Origin::Array {
            n_members,
            n_missing,
            level,
            ..
        } => {
            notes.push(format!("{level} of {n_members} disks"));
            if *n_missing > 0 {
                notes.push(format!("{n_missing} of them are missing or out of sync"));
                outcome = outcome.max(Outcome::Warning);
            }
        }
        Origin::Logical { kind, .. } => notes.push(kind.clone()),
        _ if found.content.role == Role::Partitions => {
            notes.push(format!("{} partition table", found.content.kind));
        }
        _ => {}
    }
    // Those of a file system are told with it.
    if found.content.role != Role::FileSystem || found.volume.is_none() {
        notes.extend(found.remarks.iter().cloned());
        if !found.remarks.is_empty() {
            outcome = outcome.max(Outcome::Warning);
        }
    }
    let says_nothing = notes.is_empty() && outcome == Outcome::Passed;
    (!says_nothing).then(|| Check {
        about: About::Volume,
        name: found.name.clone(),
        outcome,
        notes,
    })
}

fn file_system(found: &FoundVolume, tick: &mut dyn FnMut() -> Result<()>) -> Result<Option<Check>> {
    let kind = found.content.kind;
    let not_checked = |why: String| {
        Ok(Some(Check {
            about: About::FileSystem,
            name: found.name.clone(),
            outcome: Outcome::NotChecked,
            notes: vec![why],
        }))
    };
    match found.content.role {
        Role::Encrypted => return not_checked(format!("{kind}: it is encrypted")),
        Role::FileSystem => {}
        _ => return Ok(None),
    }
    let (Some(fs), Some(volume)) = (found.file_system(), &found.volume) else {
        return unread(found);
    };
    let device = match kind {
        "btrfs" => btrfs::member(&**volume)?.map_or(0, |member| member.device),
        _ => 0,
    };
    let checkup = check(&**fs, (device, found.len_bytes), tick)
        .map_err(|error| error.place(found.name.clone()))?;
    Ok(Some(of_checkup(found, checkup)))
}

/// Says why a file system was not read: it is damaged, or not one that hako reads.
fn unread(found: &FoundVolume) -> Result<Option<Check>> {
    let kind = found.content.kind;
    let opened = match &found.volume {
        Some(volume) => hako_guest::fs::open(std::sync::Arc::clone(volume)),
        None => return Ok(None),
    };
    let (outcome, why) = match opened {
        Ok(_) => (Outcome::NotChecked, format!("hako does not read {kind}")),
        Err(error) if is_damage(&error) => (Outcome::Failed, format!("{kind}: {error}")),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            (Outcome::NotChecked, format!("{kind}: {error}"))
        }
        Err(error) => return Err(error.place(found.name.clone())),
    };
    Ok(Some(Check {
        about: About::FileSystem,
        name: found.name.clone(),
        outcome,
        notes: vec![why],
    }))
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid)
}

fn of_checkup(found: &FoundVolume, checkup: Checkup) -> Check {
    let kind = found.content.kind;
    let (files, folders) = (checkup.n_files, checkup.n_directories);
    let mut notes = vec![format!("{kind}: {files} files in {folders} directories")];
    let n_more = checkup.n_damage.saturating_sub(checkup.damage.len() as u64);
    let outcome = match (checkup.n_damage, checkup.remarks.is_empty()) {
        (0, true) => Outcome::Passed,
        (0, false) => Outcome::Warning,
        _ => Outcome::Failed,
    };
    notes.extend(checkup.damage);
    if n_more > 0 {
        notes.push(format!("and {n_more} more like that"));
    }
    notes.extend(checkup.remarks);
    notes.push(format!("checked: {}", checkup.checked.join("; ")));
    let unknown = checkup.not_checked;
    if !unknown.is_empty() {
        notes.push(format!("not checked: {}", unknown.join("; ")));
    }
    Check {
        about: About::FileSystem,
        name: found.name.clone(),
        outcome,
        notes,
    }
}
