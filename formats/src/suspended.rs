//! Disks of suspended machines. The memory that such a machine goes on with knows what is on its
//! disks: whoever changes one meanwhile destroys its file systems.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hako_block::gate::{file_names, folder_of};
use hako_block::{Error, ErrorKind, FileId, GateRules, Result};

use crate::vmx::Vmx;
use crate::{OpenOptions, dictionary, open_chain};

/// Returns the file with the memory of a suspended machine whose text is at `path`: what the text
/// says, or, where it says nothing, a .vmss beside it. `None`: it is not suspended.
pub fn state_file(vmx: &Vmx, path: &Path) -> Option<String> {
    if vmx.dictionary().value("checkpoint.vmState").is_some() {
        return vmx.suspended();
    }
    let stem = path.file_stem()?.to_str()?;
    let names = file_names(folder_of(path)).ok()?.into_iter();
    names.map(PathBuf::from).find_map(|name| {
        let own = name.file_stem().and_then(OsStr::to_str)?;
        let rest = own.strip_prefix(stem)?;
        let is_own = rest.is_empty() || rest.starts_with('-');
        let is_vmss = name.extension() == Some(OsStr::new("vmss"));
        (is_own && is_vmss).then(|| name.display().to_string())
    })
}

/// Refuses an image that a suspended machine in the same folder stands on: as its disk, or as a
/// parent of one. Errors: [`ErrorKind::Locked`]. A .vmx that cannot be read says nothing.
pub(crate) fn refuse_disk_of_suspended(path: &Path, id: Option<FileId>) -> Result<()> {
    let folder = folder_of(path);
    let (Some(id), Ok(names)) = (id, file_names(folder)) else {
        return Ok(());
    };
    for name in names {
        let vmx_path = folder.join(name);
        let is_vmx = vmx_path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("vmx"));
        if is_vmx && is_suspended_on(&vmx_path, folder, id) {
            let what = format!("a suspended machine stands on it: {}", vmx_path.display());
            return Err(Error::new(ErrorKind::Locked, what)
                .in_file(path)
                .hint("resume the machine and shut it down first"));
        }
    }
    Ok(())
}

fn is_suspended_on(vmx_path: &Path, folder: &Path, id: FileId) -> bool {
    let Some(vmx) = read(vmx_path) else {
        return false;
    };
    if state_file(&vmx, vmx_path).is_none() {
        return false;
    }
    vmx.machine().disks().any(|(_, disk)| {
        let options = OpenOptions {
            from: disk.format.clone(),
            rules: GateRules {
                no_lock: true,
                ..GateRules::default()
            },
            ..OpenOptions::default()
        };
        open_chain(&folder.join(&disk.file), &options).is_ok_and(|opened| {
            let mut layers = opened.layers.iter();
            layers.any(|layer| layer.args.storage.id() == Some(id))
        })
    })
}

fn read(path: &Path) -> Option<Vmx> {
    let len = std::fs::metadata(path).ok()?.len();
    if len > dictionary::MAX_BYTES as u64 {
        return None;
    }
    Vmx::parse(&std::fs::read(path).ok()?).ok()
}
