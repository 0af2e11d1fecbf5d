//! The backup for who wants one file and no repository: an export as an OVA, with what is needed
//! to let it run every night: generations by date, of which old ones go once a new one is verified.

mod generations;

use std::io::Write;
use std::path::{Path, PathBuf};

use hako_block::gate::folder_of;
use hako_block::{Cancel, Progress, Result};

use generations::Generations;

use crate::Vm;
use crate::export::{ExportReport, ExportRequest, ExportTarget, export};
use crate::room::check_room;

/// Where a backup goes.
pub enum BackupTarget {
    /// A file.
    File(PathBuf),
    /// A folder that exists: the file in it gets the machine's name and the time.
    Folder(PathBuf),
    /// A pipe.
    Pipe(Box<dyn Write + Send>),
}

/// What was backed up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupReport {
    /// The file; `None` for a pipe.
    pub file: Option<PathBuf>,
    /// Its length in bytes.
    pub file_bytes: Option<u64>,
    /// What was exported.
    pub export: ExportReport,
    /// Names of older generations that were removed.
    pub removed: Vec<String>,
}

/// Backs a machine up. With `keep`, only so many generations stay in the folder: older ones are
/// removed once the new one was read back and found right.
///
/// Errors: [`hako_block::ErrorKind::NoSpace`] before anything is written, where it is known not to
/// fit; [`hako_block::ErrorKind::Locked`] if the machine runs and no snapshot of it is meant, or if
/// another backup of it into the folder is under way.
pub fn backup_export(
    vm: &Vm,
    target: BackupTarget,
    keep: Option<usize>,
    request: &ExportRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<BackupReport> {
    match target {
        BackupTarget::Pipe(writer) => {
            let target = ExportTarget::Pipe(writer);
            Ok(BackupReport {
                export: export(vm, target, request, progress, cancel)?,
                ..BackupReport::default()
            })
        }
        BackupTarget::File(path) => {
            check_backup_room(folder_of(&path), existing_bytes(&path))?;
            let target = ExportTarget::Ova(path.clone());
            let exported = export(vm, target, request, progress, cancel)?;
            report(path, exported, Vec::new())
        }
        BackupTarget::Folder(folder) => {
            let generations = Generations::new(&folder, vm);
            let mut cleared = generations.clear_debris()?;
            let newest = generations.all()?.pop();
            check_backup_room(&folder, newest.and_then(|path| existing_bytes(&path)))?;
            let path = generations.path_at(request.time);
            let target = ExportTarget::Ova(path.clone());
            let mut exported = export(vm, target, request, progress, cancel)?;
            cleared.append(&mut exported.cleared);
            exported.cleared = cleared;
            let removed = match keep.filter(|_| exported.verified) {
                Some(keep) => generations.keep_newest(keep, &path, &mut exported.warnings)?,
                None => Vec::new(),
            };
            report(path, exported, removed)
        }
    }
}

fn report(path: PathBuf, export: ExportReport, removed: Vec<String>) -> Result<BackupReport> {
    Ok(BackupReport {
        file_bytes: existing_bytes(&path),
        file: Some(path),
        export,
        removed,
    })
}

fn existing_bytes(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.len())
}

/// Refuses to begin what cannot fit: a backup is about as large as the one before it.
fn check_backup_room(folder: &Path, before: Option<u64>) -> Result<()> {
    const LEAST_BYTES: u64 = 1 << 20;
    let needed = before
        .map_or(LEAST_BYTES, |bytes| bytes / 10 * 9)
        .max(LEAST_BYTES);
    check_room(folder, needed, "the last backup took")
        .map_err(|error| error.hint("make room, or keep fewer generations (--keep)"))
}
