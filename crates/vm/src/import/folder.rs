//! A machine out of another's folder, as Workstation, Fusion and ESXi keep it.

use std::path::Path;
use std::sync::Arc;

use hako_block::{Access, Error, ErrorKind, Result};
use hako_formats::machine::{DiskMedium, Medium, Node};
use hako_formats::vmsd::{FIRMWARE_KEYS, Snapshot};
use hako_formats::{OpenOptions, OpenedChain};

use super::incoming::{Content, Incoming, NewDisk, NewFile, Text, UsedBy};
use crate::copy::Shape;
use crate::settings::{VARIABLES_KEY, settings_file};
use crate::snapshot::{find, state};
use crate::{Held, State, Vm};

/// What of a machine is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent<'a> {
    /// The snapshot to copy, instead of the current state.
    pub(crate) snapshot: Option<&'a Snapshot>,
    /// Whether the hardware is the current one even so.
    pub(crate) has_hardware_of_now: bool,
    /// Which CD images come along.
    pub(crate) cds: Cds,
    /// Whether its disks keep format and variant.
    pub(crate) keeps_shapes: bool,
}

/// Which of a machine's CD images are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cds {
    /// All of them.
    All,
    /// Those in its folder: the others stay where they are, and are named so.
    Own,
    /// None.
    None,
}

/// Finds out what is to be written of the machine at `vmx`, which must be off and stays so
/// meanwhile.
pub(super) fn incoming(vmx: &Path, open: &OpenOptions) -> Result<Incoming> {
    let vm = Vm::at(vmx, &open.rules.allow_paths)?;
    let extent = Extent {
        snapshot: None,
        has_hardware_of_now: true,
        cds: Cds::All,
        keeps_shapes: false,
    };
    incoming_of(&vm, extent, open)
}

/// Finds out what is to be written. Of a machine that runs only a snapshot can be copied.
pub(crate) fn incoming_of(vm: &Vm, extent: Extent<'_>, open: &OpenOptions) -> Result<Incoming> {
    let snapshot = extent.snapshot;
    let kept = snapshot.filter(|_| !extent.has_hardware_of_now);
    let config = kept.map(|snapshot| state::config(vm, snapshot));
    let vmx = config.transpose()?.flatten().unwrap_or(vm.vmx.clone());
    let machine = vmx.machine();
    let mut incoming = Incoming {
        text: Text::Vmx(vmx.clone()),
        disks: Vec::new(),
        left_out: Vec::new(),
        files: Vec::new(),
        warnings: Vec::new(),
        is_verified: false,
        held: None,
    };
    if snapshot.is_none() {
        incoming.held = Some(hold(vm)?);
        if vm.vmsd()?.is_some_and(|vmsd| !vmsd.snapshots().is_empty()) {
            let what = "its snapshots are not taken along: the copy has the current state";
            incoming.warnings.push(what.to_owned());
        }
    }
    for drive in machine.drives {
        match &drive.medium {
            Medium::Disk(disk) => {
                let disk = match snapshot {
                    None => Some(disk.clone()),
                    Some(snapshot) => of_snapshot(vm, snapshot, drive.node, disk)?,
                };
                let Some(disk) = disk else {
                    incoming.left_out.push(drive.node);
                    incoming.warnings.push(format!(
                        "disk {} is left out: the snapshot does not hold it",
                        drive.node
                    ));
                    continue;
                };
                let chain = open_disk(vm, &disk, snapshot.is_some(), open)
                    .map_err(|error| error.place(format!("disk {}", drive.node)))?;
                let mut shape = None;
                if extent.keeps_shapes {
                    let (own, told) = Shape::of(&chain);
                    let told = told.map(|told| format!("disk {} {told}", drive.node));
                    incoming.warnings.extend(told);
                    shape = own;
                }
                incoming.disks.push(NewDisk {
                    node: drive.node,
                    content: Content::Image(Arc::new(chain.chain)),
                    capacity: None,
                    checks: Vec::new(),
                    shape,
                });
            }
            Medium::CdImage { file } => match extent.cds {
                Cds::Own if vm.own_file(file).is_none() => {}
                Cds::All | Cds::Own => {
                    take(vm, file, UsedBy::Drive(drive.node), open, &mut incoming)?;
                }
                Cds::None => {
                    let what = format!("the CD image {file} is not taken along");
                    incoming.warnings.push(what);
                }
            },
            _ => {}
        }
    }
    let boot = machine.direct_boot;
    let kernel = boot
        .as_ref()
        .map(|boot| ("hako.kernel", boot.kernel.clone()));
    let initrd = boot.and_then(|boot| Some(("hako.initrd", boot.initrd?)));
    for key in FIRMWARE_KEYS {
        let Some(file) = settings_file(&vmx, &vm.stem(), key) else {
            continue;
        };
        let copy = kept.and_then(|snapshot| snapshot.firmware.iter().find(|kept| kept.key == key));
        if kept.is_some() && copy.is_none() && key == VARIABLES_KEY {
            continue; // There were none yet.
        }
        let from = copy.map_or(&file, |kept| &kept.file);
        let n_before = incoming.files.len();
        take(vm, from, UsedBy::Key(key.to_owned()), open, &mut incoming)?;
        // A copy becomes what it is a copy of.
        if let (Some(taken), true) = (incoming.files.get_mut(n_before), copy.is_some()) {
            let name = Path::new(&file).file_name().unwrap_or_default();
            taken.name = name.to_string_lossy().into_owned();
        }
    }
    let vmxf = vmx
        .extended_config()
        .map(|file| ("extendedConfigFile", file));
    for (key, file) in [vmxf, kernel, initrd].into_iter().flatten() {
        take(vm, &file, UsedBy::Key(key.to_owned()), open, &mut incoming)?;
    }
    Ok(incoming)
}

/// Keeps others from changing a machine while it is read. Errors: [`ErrorKind::Locked`] if it runs
/// or is suspended.
pub(crate) fn hold(vm: &Vm) -> Result<Held> {
    let held = Held::reading(vm.folder())?;
    let locked = |what: String| Err(Error::new(ErrorKind::Locked, what).in_file(vm.path()));
    match vm.state() {
        State::Stopped => Ok(held),
        State::Running { by } => locked(format!("runs: {by}")),
        State::Suspended { file } => locked(format!(
            "is suspended: what {file} holds of its memory is not on its disks"
        )),
    }
}

/// Returns the snapshot that the user means.
pub(crate) fn find_snapshot(vm: &Vm, wanted: &str) -> Result<Snapshot> {
    let snapshots = vm.vmsd()?.map(|vmsd| vmsd.snapshots());
    let found = find(snapshots.as_deref().unwrap_or_default(), wanted).cloned();
    found.map_err(|error| error.in_file(vm.vmsd_path()))
}

/// Returns the disk at `node` as the snapshot holds it; `None` if it does not. Errors: one whose
/// file is the one that is written now.
fn of_snapshot(
    vm: &Vm,
    snapshot: &Snapshot,
    node: Node,
    disk: &DiskMedium,
) -> Result<Option<DiskMedium>> {
    let Some(found) = snapshot.disks.iter().find(|held| held.node == node) else {
        return Ok(None);
    };
    if vm.disks().iter().any(|(_, now)| now.file == found.file) {
        return Err(Error::corrupt(
            format!("snapshot {:?}", snapshot.name),
            format!(
                "its disk {:?} is the one that the machine writes to",
                found.file
            ),
        ));
    }
    Ok(Some(DiskMedium {
        file: found.file.clone(),
        format: found.format.clone(),
        ..disk.clone()
    }))
}

/// Opens a disk. What a snapshot holds is not written, whoever has locked it.
fn open_disk(vm: &Vm, disk: &DiskMedium, is_held: bool, open: &OpenOptions) -> Result<OpenedChain> {
    let opened = vm.open_disk(disk, open);
    match opened {
        Err(error) if error.kind() == ErrorKind::Locked && is_held => {
            let mut unlocked = open.clone();
            unlocked.rules.no_lock = true;
            vm.open_disk(disk, &unlocked)
        }
        opened => opened,
    }
}

/// Takes a file along, if it is there and may be opened.
fn take(
    vm: &Vm,
    file: &str,
    used_by: UsedBy,
    open: &OpenOptions,
    incoming: &mut Incoming,
) -> Result<()> {
    match vm.open_file(file, Access::ReadOnly, &open.rules) {
        Ok(opened) => incoming.files.push(NewFile {
            name: opened.name.clone(),
            opened,
            checks: Vec::new(),
            used_by,
        }),
        Err(error) if error.kind() == ErrorKind::NotFound && used_by.is_made_by_products() => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Gate) => {
            incoming.warnings.push(format!("not taken along: {error}"));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
