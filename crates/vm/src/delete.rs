//! Deleting a machine with its own files. What is foreign in its folder stays.

use std::path::{Path, PathBuf};

use hako_block::gate::sync_folder_of;
use hako_block::{Access, Error, ErrorKind, FileStorage, LockMode, Result};
use hako_disk::overlays_of;

use crate::users::{file_id, other_user};
use crate::vm::find_entry;
use crate::{Entry, Held, Home, Inventory, Vm};

/// What deleting a machine means, known before anything is done.
pub struct Deletion {
    vm: Vm,
    files: Vec<PathBuf>,
    kept: Vec<PathBuf>,
    _held: Held,
    /// Keeps everybody away from the disks.
    _locks: Vec<FileStorage>,
}

impl Deletion {
    /// Looks what would go. Errors: [`ErrorKind::Locked`] if the machine or one of its disks is in
    /// use, [`ErrorKind::Invalid`] if something else stands on them.
    pub fn plan(home: &Home, vm: Vm) -> Result<Self> {
        let held = vm.hold()?;
        let mut images: Vec<PathBuf> = Vec::new();
        let mut mains = Vec::new();
        for disk in vm.all_disks()? {
            for layer in vm.disk_files_here(&disk) {
                // A snapshot and an overlay have one and the same base.
                let is_new = |file: &&PathBuf| !images.contains(file);
                mains.extend(layer.last().filter(is_new).cloned());
                let new: Vec<PathBuf> = layer.iter().filter(is_new).cloned().collect();
                images.extend(new);
            }
        }
        refuse_users(home, &vm, &images, &mains)?;
        let locks = mains
            .iter()
            .map(|main| FileStorage::open(main, Access::ReadOnly, LockMode::Write))
            .collect::<Result<Vec<_>>>()?;
        let mut files = images;
        for file in vm.companions()? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files.extend(vm.debris()?);
        // The text last: while it is there, the rest can be found.
        files.push(vm.path().to_path_buf());
        let kept = kept_in(vm.folder(), &files)?;
        Ok(Self {
            vm,
            files,
            kept,
            _held: held,
            _locks: locks,
        })
    }

    /// Returns the machine's name.
    pub fn name(&self) -> String {
        self.vm.name()
    }

    /// Returns the files that go.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Returns what stays in the folder, and keeps it; without, the folder goes too.
    pub fn kept(&self) -> &[PathBuf] {
        &self.kept
    }

    /// Returns the machine's folder.
    pub fn folder(&self) -> &Path {
        self.vm.folder()
    }

    /// Deletes. Cut off anywhere, running it again completes it.
    pub fn run(self, home: &Home) -> Result<()> {
        for file in &self.files {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("delete", error).in_file(file));
                }
                _ => (),
            }
        }
        sync_folder_of(self.vm.path())?;
        forget(home, self.vm.path(), self.vm.folder())
    }
}

/// Completes the deletion of a listed machine whose .vmx is gone already: takes it out of the
/// inventory, and its folder away if nothing is in it. Errors: [`ErrorKind::VmNotFound`] if the
/// machine is not listed, or there is something in the folder.
pub fn delete_rest(home: &Home, what: &Path) -> Result<PathBuf> {
    let inventory = Inventory::read(home)?;
    let vmx = find_entry(&inventory, what).map(Entry::current)?;
    let folder = vmx.parent().unwrap_or(Path::new("/"));
    let is_empty = std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    if vmx.symlink_metadata().is_ok() || !is_empty {
        return Err(
            Error::new(ErrorKind::VmNotFound, "the machine's .vmx is missing")
                .in_file(&vmx)
                .hint("take it out of the inventory: hako vm unregister NAME"),
        );
    }
    forget(home, &vmx, folder)?;
    Ok(vmx)
}

fn forget(home: &Home, vmx: &Path, folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // Folders of stale locks, empty.
        let _ = std::fs::remove_dir(entry.path());
    }
    // Fails where something is left in it, which is to stay.
    if std::fs::remove_dir(folder).is_ok() {
        sync_folder_of(folder)?;
    }
    Inventory::change(home, |inventory| {
        inventory.entries.retain(|entry| !entry.has_path(vmx));
        Ok(())
    })
}

/// Refuses to go on if another machine, or an overlay beside these images, stands on them.
fn refuse_users(home: &Home, vm: &Vm, images: &[PathBuf], mains: &[PathBuf]) -> Result<()> {
    vm.refuse_unlisted_clones(home, None)?;
    if let Some(user) = other_user(home, images, vm.path())? {
        return Err(Error::invalid(format!(
            "the machine {} uses it, or has an overlay on it",
            user.machine
        ))
        .in_file(&user.file)
        .hint(format!(
            "delete {} first, or give it disks of its own",
            user.machine
        )));
    }
    let own: Vec<_> = images.iter().map(|image| file_id(image)).collect();
    for main in mains {
        let foreign = overlays_of(main)?
            .into_iter()
            .find(|overlay| !own.contains(&file_id(overlay)));
        if let Some(overlay) = foreign {
            let what = format!(
                "has an overlay, {}, that is not the machine's",
                overlay.display()
            );
            return Err(Error::invalid(what)
                .in_file(main)
                .hint("delete the overlay first: hako disk delete"));
        }
    }
    Ok(())
}

/// Returns what is in a folder besides these files and folders of locks.
fn kept_in(folder: &Path, files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("list", error).in_file(folder);
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_lock = path.is_dir() && path.extension() == Some("lck".as_ref());
        let is_own = files.contains(&path);
        if !is_own && !is_lock {
            kept.push(path);
        }
    }
    kept.sort();
    Ok(kept)
}
