//! Taking a snapshot: each disk gets an empty overlay, and what was written so far stays.

use hako_block::gate::replace_file;
use hako_block::{Error, Result};
use hako_formats::Task;
use hako_formats::machine::{DiskMedium, DiskMode, Node};
use hako_formats::vmsd::{FIRMWARE_KEYS, Snapshot, SnapshotDisk, Vmsd};
use hako_formats::vmx::Encryption;

use super::firmware::Kept;
use super::journal::{DiskChange, Journal, Recovered, Verb};
use super::name::ImageName;
use super::overlay::NewOverlay;
use crate::Vm;

/// Longest name of a snapshot, in bytes.
const MAX_NAME: usize = 255;
/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 64 << 10;

/// What to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// The snapshot's name.
    pub name: String,
    /// A note; may have several lines.
    pub description: String,
    /// When it is taken, in microseconds since 1970.
    pub created_us: u64,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotReport {
    /// The snapshot's number.
    pub uid: u32,
    /// The disks: the image that holds the state, and the one that is written from now on.
    pub disks: Vec<(Node, String, String)>,
    /// Disks that take no part, with their mode.
    pub left_alone: Vec<(Node, &'static str)>,
    /// What became of a verb that had been cut off before.
    pub recovered: Option<Recovered>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Takes a snapshot of a machine that is off. Takes the same time whatever the disks' size. Cut off
/// anywhere, it has not happened or has.
pub fn create_snapshot(
    vm: &mut Vm,
    request: &SnapshotRequest,
    task: Task<'_>,
) -> Result<SnapshotReport> {
    check_texts(request)?;
    let (_held, recovered) = vm.hold_for_snapshots(task)?;
    let report = take(vm, request, task)?;
    Ok(SnapshotReport {
        recovered,
        ..report
    })
}

/// Takes a snapshot of a machine that is held, and of which nothing is pending.
pub(crate) fn take(
    vm: &mut Vm,
    request: &SnapshotRequest,
    task: Task<'_>,
) -> Result<SnapshotReport> {
    check_texts(request)?;
    let mut vmsd = list_to_change(vm)?;
    let (held, left_alone) = parts(vm)?;
    let (overlays, mut warnings) = NewOverlay::plan(vm, held)?;
    let uid = free_uid(vm, &vmsd)?;
    let (kept, told) = Kept::of(vm, uid);
    warnings.extend(told);
    let snapshot = Snapshot {
        firmware: kept.iter().map(|kept| kept.file.clone()).collect(),
        ..entry(vm, &vmsd, uid, request, &overlays)
    };
    vmsd.add(&snapshot)
        .map_err(|error| error.in_file(vm.vmsd_path()))?;
    let config = snapshot.config.clone().unwrap_or_default();
    let made = snapshot.firmware.iter().map(|kept| kept.file.clone());
    let change = |overlay: &NewOverlay| DiskChange {
        node: overlay.node,
        old: Some(overlay.parent.file.clone()),
        new: Some(overlay.image.clone()),
    };
    let journal = Journal {
        made: made.chain([config.clone()]).collect(),
        disks: overlays.iter().map(change).collect(),
        ..Journal::new(Verb::Create, vm, vmsd.to_bytes())?
    };
    journal.begin(vm, |vm| {
        for overlay in &overlays {
            task.cancel.check()?;
            overlay.make(vm, task)?;
        }
        kept.iter().try_for_each(|kept| kept.write(vm))?;
        replace_file(&vm.folder().join(config), &vm.vmx.to_bytes())
    })?;
    journal.carry_out(vm, task)?;
    let names = overlays.into_iter();
    Ok(SnapshotReport {
        uid: snapshot.uid,
        disks: names
            .map(|overlay| (overlay.node, overlay.parent.file, overlay.image.file))
            .collect(),
        left_alone,
        recovered: None,
        warnings,
    })
}

/// Returns the machine's list of snapshots, to be changed; a new one if it has none. Errors:
/// [`hako_block::ErrorKind::Unsupported`] if the list or the machine is encrypted.
pub(crate) fn list_to_change(vm: &Vm) -> Result<Vmsd> {
    let refused = |what: &str, path: &std::path::Path| {
        Err(Error::unsupported(what)
            .in_file(path)
            .hint("remove the encryption with the product that encrypted it"))
    };
    if vm.vmx.encryption() == Encryption::Full {
        return refused("the machine is encrypted", vm.path());
    }
    match vm.vmsd()? {
        Some(vmsd) if vmsd.is_encrypted() => {
            refused("the list of snapshots is encrypted", &vm.vmsd_path())
        }
        Some(vmsd) if !vmsd.to_bytes().is_empty() => Ok(vmsd),
        _ => Ok(Vmsd::new()),
    }
}

/// A disk that takes part in snapshots, or the mode of one that does not.
pub(crate) fn part_of(node: Node, disk: &DiskMedium) -> Result<Option<&'static str>> {
    let refused = |what: &str| {
        Err(Error::unsupported(format!("{node} {what}")).hint(format!(
            "leave it out of snapshots: hako vm set VM {node}.mode=independent-persistent"
        )))
    };
    if disk.mode.is_independent() {
        return Ok(Some(disk.mode.name()));
    }
    if disk.mode == DiskMode::Undoable {
        return refused("is undoable: it has a redo log of its own");
    }
    match disk.physical {
        true => refused("is a physical disk, which no snapshot can hold"),
        false => Ok(None),
    }
}

/// What takes part and what does not.
type Parts = (Vec<(Node, ImageName)>, Vec<(Node, &'static str)>);

fn parts(vm: &Vm) -> Result<Parts> {
    let (mut held, mut left_alone) = (Vec::new(), Vec::new());
    for (node, disk) in vm.disks() {
        match part_of(node, &disk)? {
            Some(mode) => left_alone.push((node, mode)),
            None => held.push((node, ImageName::of_disk(&disk))),
        }
    }
    Ok((held, left_alone))
}

/// Returns the uid of a new snapshot: one that none ever had, and of which no file has the number.
fn free_uid(vm: &Vm, vmsd: &Vmsd) -> Result<u32> {
    let stem = vm.stem();
    let is_free = |uid: &u32| {
        // What an older list, deleted since, has left behind is not touched.
        let extensions = ["vmx", "vmsn", "vmem"].into_iter().chain(FIRMWARE_KEYS);
        extensions.into_iter().all(|extension| {
            let name = format!("{stem}-Snapshot{uid}.{extension}");
            vm.folder().join(name).symlink_metadata().is_err()
        })
    };
    let mut uids = vmsd.next_uid()?..=u32::MAX;
    uids.find(is_free)
        .ok_or_else(|| Error::corrupt("snapshot.lastUID", "no number is left for a snapshot"))
}

fn entry(
    vm: &Vm,
    vmsd: &Vmsd,
    uid: u32,
    request: &SnapshotRequest,
    overlays: &[NewOverlay],
) -> Snapshot {
    let stem = vm.stem();
    let parent = vmsd.current().filter(|current| {
        let snapshots = vmsd.snapshots();
        snapshots.iter().any(|one| one.uid == *current)
    });
    let disk = |overlay: &NewOverlay| SnapshotDisk {
        node: overlay.node,
        file: overlay.parent.file.clone(),
        format: overlay.parent.format_in_text().map(str::to_owned),
    };
    Snapshot {
        index: 0,
        uid,
        parent,
        name: request.name.clone(),
        description: request.description.clone(),
        created_us: Some(request.created_us),
        state_file: Some(format!("{stem}-Snapshot{uid}.vmsn")),
        config: Some(format!("{stem}-Snapshot{uid}.vmx")),
        firmware: Vec::new(),
        disks: overlays.iter().map(disk).collect(),
    }
}

fn check_texts(request: &SnapshotRequest) -> Result<()> {
    let name = &request.name;
    let wrong = |why: &str| Err(Error::invalid(format!("the name {name:?} {why}")));
    if name.trim().is_empty() || name.trim() != name {
        return wrong("is empty, or begins or ends with a blank");
    }
    if name.len() > MAX_NAME {
        return wrong("is too long");
    }
    if name.chars().any(char::is_control) {
        return wrong("has control characters");
    }
    if name.contains('/') || name.starts_with("uid:") {
        return wrong(
            "would be taken for a path or a number: it has a / in it or begins with uid:",
        );
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong("would be taken for a snapshot's number");
    }
    if request.description.len() > MAX_DESCRIPTION {
        return Err(Error::invalid("the description is too long"));
    }
    Ok(())
}
