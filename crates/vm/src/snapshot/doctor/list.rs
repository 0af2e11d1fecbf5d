//! What is wrong with the list of snapshots itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hako_block::gate::file_names;
use hako_block::{ErrorKind, Result};
use hako_formats::vmsd::{Snapshot, Vmsd};

use super::Look;
use super::finding::{Finding, Remedy, Trouble};
use crate::Vm;
use crate::snapshot::graph::Holder;
use crate::snapshot::removal::is_kept;
use crate::snapshot::state::config;

/// Returns the list of snapshots, if there is one that can be read, and what is wrong if not.
pub(super) fn read(vm: &Vm) -> (Option<Vmsd>, Option<Finding>) {
    let wrong = |what: String, advice: &str| Finding {
        trouble: Trouble::UnreadableList,
        file: file_name(vm),
        what,
        advice: advice.to_owned(),
        remedy: None,
    };
    match vm.vmsd() {
        Ok(Some(vmsd)) if vmsd.is_encrypted() => {
            let what = "it is encrypted".to_owned();
            let advice = "remove the encryption with the product that encrypted the machine";
            (None, Some(wrong(what, advice)))
        }
        Ok(vmsd) => (vmsd, None),
        Err(error) => {
            let advice = "put it back from a backup; without it, `hako snapshot consolidate` \
                          leaves one disk with the present state";
            (None, Some(wrong(error.finding(), advice)))
        }
    }
}

fn file_name(vm: &Vm) -> String {
    let path = vm.vmsd_path();
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Looks at what the list says of itself, and at the files that go with its snapshots.
pub(super) fn look(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if let Some(vmsd) = &look.vmsd {
        findings.extend(contradictions(look, vmsd)?);
        findings.extend(wrong_current(look, vmsd));
    }
    findings.extend(held_twice(look));
    for snapshot in &look.snapshots {
        findings.extend(missing_files(look, snapshot));
        findings.extend(missing_firmware(look, snapshot));
    }
    findings.extend(unreferenced_files(look)?);
    Ok(findings)
}

fn wrong(look: &Look<'_>, what: String, advice: &str, remedy: Option<Remedy>) -> Finding {
    Finding {
        trouble: Trouble::WrongList,
        file: file_name(look.vm),
        what,
        advice: advice.to_owned(),
        remedy,
    }
}

fn oddities(vmsd: &Vmsd) -> Result<Vec<String>> {
    let mut all = Vmsd::parse(&vmsd.to_bytes())?.oddities().to_vec();
    let snapshots = vmsd.snapshots();
    let highest = snapshots.iter().map(|one| one.uid).max();
    if highest.is_some_and(|highest| vmsd.last_uid().is_none_or(|last| last < highest)) {
        let last = vmsd.last_uid().map(|last| last.to_string());
        all.push(format!(
            "snapshot.lastUID is {}, but {} was given",
            last.as_deref().unwrap_or("missing"),
            highest.unwrap_or_default()
        ));
    }
    Ok(all)
}

/// Returns what contradicts itself: what setting the numbers right mends, and the rest.
fn contradictions(look: &Look<'_>, vmsd: &Vmsd) -> Result<Vec<Finding>> {
    let mut settled = vmsd.clone();
    let left = match settled.settle() {
        Ok(()) => oddities(&settled)?,
        Err(_) => oddities(vmsd)?,
    };
    let all = oddities(vmsd)?.into_iter();
    let (stay, go): (Vec<String>, Vec<String>) = all.partition(|oddity| left.contains(oddity));
    let mut findings = Vec::new();
    if !go.is_empty() {
        let advice = "`--repair` sets the numbers right and keeps a copy of the list";
        let remedy = Some(Remedy::SettleList);
        findings.push(wrong(look, go.join("; "), advice, remedy));
    }
    if !stay.is_empty() {
        let advice = "compare it with a backup of the list; what it says cannot be guessed";
        findings.push(wrong(look, stay.join("; "), advice, None));
    }
    Ok(findings)
}

/// Returns a present state that, by its disks, comes from another snapshot than the list says.
fn wrong_current(look: &Look<'_>, vmsd: &Vmsd) -> Option<Finding> {
    let held_by = |image: usize| -> BTreeSet<u32> {
        let references = look.graph.references.iter();
        let uids = references.filter_map(|reference| match &reference.by {
            Holder::Snapshot { uid, .. } if reference.image.as_ref().ok() == Some(&image) => {
                Some(*uid)
            }
            _ => None,
        });
        uids.collect()
    };
    let mut from: Option<BTreeSet<u32>> = None;
    for (_, image) in look.present() {
        let mut below = look.graph.chain_of(image);
        let uids = below.find_map(|image| Some(held_by(image)).filter(|uids| !uids.is_empty()))?;
        if from.as_ref().is_some_and(|others| *others != uids) {
            return None;
        }
        from = Some(uids);
    }
    let mut uids = from?.into_iter();
    let (Some(uid), None) = (uids.next(), uids.next()) else {
        return None;
    };
    let said = vmsd.current();
    let is_known = look.snapshots.iter().any(|one| Some(one.uid) == said);
    if said == Some(uid) || (said.is_some() && !is_known) {
        return None;
    }
    let said = said.map_or("0".to_owned(), |said| said.to_string());
    Some(wrong(
        look,
        format!("snapshot.current is {said}, but the machine's disks come from {uid}"),
        "`--repair` says so in the list, and keeps a copy of that",
        Some(Remedy::SetCurrent(uid)),
    ))
}

/// Returns snapshots that hold one image: each was taken by making a new overlay, so all but one of
/// them are wrong.
fn held_twice(look: &Look<'_>) -> Option<Finding> {
    let mut holders: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
    for reference in &look.graph.references {
        if let (Holder::Snapshot { uid, .. }, Ok(image)) = (&reference.by, &reference.image) {
            holders.entry(*image).or_default().insert(*uid);
        }
    }
    let twice = holders.into_iter().filter(|(_, uids)| uids.len() > 1);
    let told = twice.map(|(image, uids)| {
        let uids: Vec<String> = uids.iter().map(u32::to_string).collect();
        let name = look.graph.images.get(image).map(|image| image.name());
        format!(
            "the snapshots {} all hold {}",
            uids.join(", "),
            name.unwrap_or_default()
        )
    });
    let told: Vec<String> = told.collect();
    let advice = "compare it with a backup of the list: which of them is right cannot be guessed";
    (!told.is_empty()).then(|| wrong(look, told.join("; "), advice, None))
}

/// Returns a file of a snapshot besides its disks that is not there: what keeps its hardware. That
/// is the state of a snapshot of VMware's; of ours, which name a state that is never written, the
/// configuration.
fn missing_files(look: &Look<'_>, snapshot: &Snapshot) -> Option<Finding> {
    let files = snapshot.config.as_ref().or(snapshot.state_file.as_ref());
    let Some(missing) = files.filter(|file| is_missing(look, file)) else {
        return unreadable_state(look, snapshot);
    };
    let advice = "put it back from a backup; if it is lost, the snapshot can still be deleted, and \
                  its disks can be read: hako vm export --snapshot";
    Some(missing_state(missing, snapshot, advice))
}

/// Returns a configuration that is there and cannot be read.
fn unreadable_state(look: &Look<'_>, snapshot: &Snapshot) -> Option<Finding> {
    let error = config(look.vm, snapshot).err()?;
    let file = snapshot.config.as_ref().or(snapshot.state_file.as_ref())?;
    let what = format!(
        "{} has its hardware in it: {}",
        called(snapshot),
        error.finding()
    );
    let advice = "put it back from a backup; without it (moved elsewhere) going back to the \
                  snapshot leaves the hardware as it is";
    Some(Finding {
        what,
        ..missing_state(file, snapshot, advice)
    })
}

/// Returns copies of the firmware's settings that are not there.
fn missing_firmware(look: &Look<'_>, snapshot: &Snapshot) -> Vec<Finding> {
    let files = snapshot.firmware.iter().map(|kept| &kept.file);
    let missing = files.filter(|file| is_missing(look, file));
    let advice = "put it back from a backup; without it going back to the snapshot leaves the \
                  firmware's settings as they are";
    let findings = missing.map(|file| missing_state(file, snapshot, advice));
    findings.collect()
}

fn is_missing(look: &Look<'_>, file: &str) -> bool {
    let rules = look.vm.rules(true);
    let found = look
        .vm
        .open_file(file, hako_block::Access::ReadOnly, &rules);
    found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn missing_state(file: &str, snapshot: &Snapshot, advice: &str) -> Finding {
    Finding {
        trouble: Trouble::MissingState,
        file: file.to_owned(),
        what: format!("{} names it, and it is not there", called(snapshot)),
        advice: advice.to_owned(),
        remedy: None,
    }
}

/// Returns files that are called as those of a snapshot, and that no snapshot names.
fn unreferenced_files(look: &Look<'_>) -> Result<Vec<Finding>> {
    let named = |snapshot: &Snapshot| {
        let firmware = snapshot.firmware.iter().map(|kept| kept.file.clone());
        let others = [snapshot.config.clone(), snapshot.state_file.clone()];
        others
            .into_iter()
            .flatten()
            .chain(firmware)
            .collect::<Vec<_>>()
    };
    let named: BTreeSet<String> = look.snapshots.iter().flat_map(named).collect();
    let stem = look.vm.stem();
    let is_state = |name: &str| {
        let rest = name.strip_prefix(&stem).unwrap_or_default();
        rest.starts_with("-Snapshot") && rest.ends_with(".vmsn")
    };
    let mut findings = Vec::new();
    for name in file_names(look.vm.folder())? {
        let name = name.to_string_lossy().into_owned();
        let is_snapshots = is_state(&name) || is_kept(Path::new(&name), &stem);
        if is_snapshots && !named.contains(&name) && look.pending.is_none() {
            findings.push(Finding {
                trouble: Trouble::UnreferencedState,
                what: "it is called as files of snapshots are, and no snapshot names it".to_owned(),
                advice: "keep it if the list of snapshots was lost; else remove it".to_owned(),
                file: name,
                remedy: None,
            });
        }
    }
    Ok(findings)
}

/// Returns a snapshot as messages call it.
pub(super) fn called(snapshot: &Snapshot) -> String {
    format!("snapshot {} {:?}", snapshot.uid, snapshot.name)
}
