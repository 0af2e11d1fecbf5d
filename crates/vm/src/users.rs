//! Who stands on the files of a machine: other machines' disks, and overlays beside its own.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hako_block::gate::{file_names, folder_of};
use hako_block::{Error, FileId, ImageInfo, Result};
use hako_formats::machine::{DiskMedium, Node};
use hako_formats::{OpenOptions, OpenedChain};

use crate::{Entry, Home, Inventory, Vm};

impl Vm {
    /// Returns its disks, ascending by node.
    pub fn disks(&self) -> Vec<(Node, DiskMedium)> {
        let machine = self.vmx.machine();
        let disks = machine.disks();
        disks.map(|(node, disk)| (node, disk.clone())).collect()
    }

    /// Returns the disks that it has now and those that its snapshots hold, each image once.
    pub(crate) fn all_disks(&self) -> Result<Vec<DiskMedium>> {
        let mut disks: Vec<DiskMedium> = self.disks().into_iter().map(|(_, disk)| disk).collect();
        for snapshot in self.vmsd()?.iter().flat_map(|vmsd| vmsd.snapshots()) {
            disks.extend(snapshot.disks.iter().map(|disk| disk.medium()));
        }
        let mut seen = BTreeSet::new();
        disks.retain(|disk| !disk.file.is_empty() && seen.insert(disk.file.clone()));
        Ok(disks)
    }

    /// Looks at a disk without locks, whoever uses it.
    pub fn look_at(&self, disk: &DiskMedium) -> Result<OpenedChain> {
        let options = OpenOptions {
            rules: self.rules(true),
            ..OpenOptions::default()
        };
        self.open_disk(disk, &options)
    }

    /// Returns whether one of the files that a disk is made of, its parents' too, is this one.
    pub(crate) fn stands_on(&self, disk: &DiskMedium, file: &Path) -> bool {
        let id = file_id(file);
        self.look_at(disk)
            .is_ok_and(|opened| files_of(&opened).iter().any(|own| file_id(own) == id))
    }

    /// Returns the files of every layer of its disks that can be opened.
    fn disk_files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for disk in self.all_disks()? {
            if let Ok(opened) = self.look_at(&disk) {
                files.extend(files_of(&opened));
            }
        }
        Ok(files)
    }
}

impl Vm {
    /// Returns the .vmx of the listed machine on whose images its own stand: it is a linked clone
    /// of that.
    pub(crate) fn base_in(&self, inventory: &Inventory) -> Option<PathBuf> {
        let files = self.disk_files().ok()?;
        let mut foreign = files.iter().filter(|file| !file.starts_with(self.folder()));
        foreign.find_map(|file| {
            let mut entries = inventory.entries.iter().map(Entry::current);
            entries.find(|vmx| vmx != self.path() && vmx.parent() == file.parent())
        })
    }
}

/// A machine that uses a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// The machine.
    pub machine: String,
    /// The file.
    pub file: PathBuf,
}

/// Returns the first other machine of the inventory that uses one of these files, for itself or
/// below an overlay. A linked clone of `except` whose disks cannot all be read uses whatever is in
/// that one's folder.
pub(crate) fn other_user(home: &Home, files: &[PathBuf], except: &Path) -> Result<Option<User>> {
    let wanted: BTreeSet<FileId> = files.iter().filter_map(|file| file_id(file)).collect();
    for entry in Inventory::read(home)?.entries {
        let path = entry.current();
        if path == except {
            continue;
        }
        let are_own = || {
            let folder = except.parent();
            folder.is_some_and(|folder| files.iter().any(|file| file.starts_with(folder)))
        };
        if are_own() && entry.is_unknown_clone_of(except) {
            return Ok(Some(User {
                machine: entry.name(),
                file: except.to_path_buf(),
            }));
        }
        // Any other that cannot be read uses nothing that could be known.
        let Ok(vm) = Vm::at(&path, &entry.allow) else {
            continue;
        };
        let theirs = vm.disk_files().unwrap_or_default();
        let shared = theirs
            .into_iter()
            .find(|file| file_id(file).is_some_and(|id| wanted.contains(&id)));
        if let Some(file) = shared {
            let machine = vm.name();
            return Ok(Some(User { machine, file }));
        }
    }
    Ok(None)
}

impl Vm {
    /// Returns the linked clones that its list of snapshots tells of and the inventory does not:
    /// the uid of the snapshot that each stands on, and its .vmx. VMware's products note them
    /// there, and take them out when they delete them.
    pub(crate) fn unlisted_clones(&self, home: &Home) -> Result<Vec<(u32, PathBuf)>> {
        let clones = self.vmsd()?.map(|vmsd| vmsd.clones()).unwrap_or_default();
        if clones.is_empty() {
            return Ok(Vec::new());
        }
        let inventory = Inventory::read(home)?;
        let paths = clones.into_iter().map(|(uid, vmx)| {
            let path = self.folder().join(vmx);
            (uid, std::fs::canonicalize(&path).unwrap_or(path))
        });
        let is_unlisted = |(_, path): &(u32, PathBuf)| inventory.entry(path).is_none();
        Ok(paths.filter(is_unlisted).collect())
    }

    /// Refuses to go on if a clone that is not listed stands on one of these snapshots, or on any.
    pub(crate) fn refuse_unlisted_clones(&self, home: &Home, uids: Option<&[u32]>) -> Result<()> {
        let clones = self.unlisted_clones(home)?;
        let is_meant = |uid: &u32| uids.is_none_or(|uids| uids.contains(uid));
        match clones.iter().find(|(uid, _)| is_meant(uid)) {
            None => Ok(()),
            Some((uid, clone)) => {
                let clone = clone.display();
                let what = format!("a linked clone stands on snapshot {uid}: {clone}");
                let folder = self.folder().display();
                Err(Error::invalid(what).in_file(self.vmsd_path()).hint(format!(
                    "list it: hako vm register {clone} --allow-path {folder}; if it is gone for \
                     good, take it out of the file"
                )))
            }
        }
    }
}

/// Refuses to go on if an image is needed as it is: by a linked clone of the inventory, as
/// [`refuse_clones`] finds them, or by a snapshot that holds it or an overlay on it. Snapshots are
/// those of machines that are listed, or have their .vmx beside the image.
pub fn refuse_needed(home: &Home, image: &Path) -> Result<()> {
    refuse_clones(home, image)?;
    let image = std::fs::canonicalize(image).unwrap_or_else(|_| image.to_path_buf());
    for vm in machines_around(home, &image)? {
        // Of a list that cannot be read nobody knows what it names.
        let snapshots = vm.vmsd().ok().flatten().map(|vmsd| vmsd.snapshots());
        for snapshot in snapshots.unwrap_or_default() {
            let mut disks = snapshot.disks.iter().map(|disk| disk.medium());
            if disks.any(|disk| vm.stands_on(&disk, &image)) {
                let what = format!(
                    "the snapshot {} {:?} of the machine {} needs it as it is",
                    snapshot.uid,
                    snapshot.name,
                    vm.name()
                );
                return Err(Error::invalid(what).in_file(&image).hint(format!(
                    "work on a copy (hako disk convert), or delete the snapshot first: hako \
                     snapshot delete {} {}",
                    vm.path().display(),
                    snapshot.uid
                )));
            }
        }
    }
    Ok(())
}

/// Returns the machines whose texts may name an image: those in its folder, and those of the
/// inventory that may name what is beyond their own.
fn machines_around(home: &Home, image: &Path) -> Result<Vec<Vm>> {
    let mut machines: Vec<Vm> = Vec::new();
    for entry in Inventory::read(home)?.entries {
        let path = entry.current();
        if !entry.allow.is_empty() || path.parent() == image.parent() {
            machines.extend(Vm::at(&path, &entry.allow));
        }
    }
    for name in file_names(folder_of(image))? {
        let path = image.with_file_name(name);
        let is_known = machines.iter().any(|vm| vm.path() == path);
        if path.extension().is_some_and(|extension| extension == "vmx") && !is_known {
            machines.extend(Vm::at(&path, &[]));
        }
    }
    Ok(machines)
}

/// Refuses to go on if a linked clone of the inventory stands on an image: one that is not in the
/// clone's own folder. Of a clone whose disks cannot all be read it is every image in the folder
/// of the machine that it was made of.
pub fn refuse_clones(home: &Home, image: &Path) -> Result<()> {
    let id = file_id(image);
    let image = std::fs::canonicalize(image).unwrap_or_else(|_| image.to_path_buf());
    for entry in Inventory::read(home)?.entries {
        let Some(base) = entry.base.as_deref().and_then(Path::parent) else {
            continue;
        };
        let current = entry.current();
        let own = current.parent().unwrap_or(Path::new("/"));
        let stands_here = match Vm::at(&current, &entry.allow) {
            Ok(vm) if entry.is_known() => {
                let mut theirs = vm.disk_files()?.into_iter();
                theirs.any(|file| !file.starts_with(own) && file_id(&file) == id)
            }
            _ => image.starts_with(base),
        };
        if stands_here {
            let what = format!("the machine {}, a linked clone, stands on it", entry.name());
            return Err(Error::invalid(what)
                .in_file(&image)
                .hint(format!("delete {} first: hako vm delete", entry.name())));
        }
    }
    Ok(())
}

impl Entry {
    /// Returns whether it is a linked clone of the machine `base`, and what it stands on cannot be
    /// told.
    pub(crate) fn is_unknown_clone_of(&self, base: &Path) -> bool {
        self.base.as_deref() == Some(base) && !self.is_known()
    }

    /// Returns whether it can be told what the machine stands on.
    fn is_known(&self) -> bool {
        let vm = Vm::at(&self.current(), &self.allow);
        let disks = vm.and_then(|vm| vm.all_disks().map(|disks| (vm, disks)));
        disks.is_ok_and(|(vm, disks)| disks.iter().all(|disk| vm.look_at(disk).is_ok()))
    }
}

/// Returns the host files of all layers of a disk.
pub(crate) fn files_of(opened: &OpenedChain) -> Vec<PathBuf> {
    let layers = opened.layers.iter();
    layers
        .flat_map(|layer| layer_files(layer.args.storage.name(), layer.image.info()))
        .collect()
}

/// Returns the host files of one layer, the main one first.
fn layer_files(main: &str, info: &ImageInfo) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from(main)];
    for file in info.files.iter().map(PathBuf::from) {
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

/// Returns what tells a host file apart, whatever it is called.
pub(crate) fn file_id(path: &Path) -> Option<FileId> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}
