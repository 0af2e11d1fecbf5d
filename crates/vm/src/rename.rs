//! Renaming a machine: its display name, its folder, its files, and every reference to them.
//!
//! Files get their new names before anything refers to those, and lose the old ones after nothing
//! does: cut off anywhere, the machine is whole. The inventory says where it is going from before
//! the first step to after the last, so that it is found under both names, and the next run
//! completes what was begun.
//!
//! 1. each disk image: both names, then the references to it, then the old one goes
//! 2. the other files get their new names; the list of snapshots and the .vmxf in their new text
//! 3. the new .vmx: from here on it is the machine's
//! 4. the old .vmx and the other old names go
//! 5. the folder
//! 6. the inventory

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hako_block::gate::{file_names, replace_file, sync_folder_of};
use hako_block::{Error, ErrorKind, Result};
use hako_disk::{Subject, rename_and_tell};
use hako_formats::OpenOptions;
use hako_formats::dictionary::Dictionary;

use crate::check::check_name;
use crate::files::machine_of_config;
use crate::references::{references, vmxf_of};
use crate::users::{file_id, other_user};
use crate::vm::read_text;
use crate::{Entry, Home, Inventory, Vm};

/// What was renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenameReport {
    /// The machine's .vmx as it is now.
    pub vmx: PathBuf,
    /// Files with their old names and new, without folder.
    pub files: Vec<(String, String)>,
    /// The folder's old path, if that has another name now.
    pub old_folder: Option<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Changes a machine's display name, and nothing else.
pub fn rename_for_people(home: &Home, vm: &mut Vm, name: &str) -> Result<()> {
    check_name(name)?;
    let _held = vm.hold()?;
    if vm.is_registered() {
        let inventory = Inventory::read(home)?;
        let taken = inventory.refuse_other(name, vm.path());
        taken.map_err(|error| error.hint("choose another name"))?;
    }
    vm.vmx.set_name(name)?;
    vm.save()
}

/// Renames a machine of the inventory, or that of a .vmx; by either name if it was begun before.
/// Files and the folder are renamed that begin with the name of the .vmx.
pub fn rename(home: &Home, what: &Path, name: &str) -> Result<RenameReport> {
    check_name(name)?;
    let vm = Vm::open(home, what, &[])?;
    let _held = vm.hold()?;
    let mut renaming = Renaming::plan(home, vm, name)?;
    renaming.note(home)?;
    if let Err(error) = renaming.carry_out() {
        if renaming.is_untouched() {
            renaming.forget(home)?;
        }
        return Err(error);
    }
    renaming.settle(home)?;
    Ok(renaming.report)
}

struct Renaming {
    /// The machine as it is: before the new .vmx is written, the old one; then that.
    vm: Vm,
    name: String,
    old_stem: String,
    /// The .vmx that there will be.
    to: PathBuf,
    /// The .vmx that there was.
    from: PathBuf,
    /// Whether an earlier run has begun it.
    is_begun: bool,
    report: RenameReport,
}

impl Renaming {
    fn plan(home: &Home, vm: Vm, name: &str) -> Result<Self> {
        let inventory = Inventory::read(home)?;
        let entry = inventory.entry(vm.path());
        let begun = entry.and_then(|entry| Some((entry.vmx.clone(), entry.to.clone()?)));
        let is_begun = begun.is_some();
        let (from, to) = match begun {
            Some((from, to)) => {
                if to.file_stem() != Some(name.as_ref()) {
                    let to = to.file_stem().unwrap_or_default().to_string_lossy();
                    return Err(Error::invalid(format!(
                        "is being renamed to {to:?} already, which was cut off"
                    ))
                    .in_file(vm.path())
                    .hint(format!("complete that first: hako vm rename NAME {to:?}")));
                }
                (from, to)
            }
            None => (vm.path().to_path_buf(), Self::place(&vm, name)),
        };
        let old_stem = from.file_stem().unwrap_or_default().to_string_lossy();
        let renaming = Self {
            old_stem: old_stem.into_owned(),
            name: name.to_owned(),
            report: RenameReport {
                vmx: to.clone(),
                files: Vec::new(),
                old_folder: (from.parent() != to.parent())
                    .then(|| from.parent().map(Path::to_path_buf))
                    .flatten(),
                warnings: Vec::new(),
            },
            vm,
            to,
            from,
            is_begun,
        };
        if !is_begun {
            renaming.refuse_obstacles(home, &inventory)?;
        }
        Ok(renaming)
    }

    /// Returns the .vmx that a machine will have. Its folder is renamed if it has the machine's
    /// name, with what follows it (`.vmwarevm` of Fusion).
    fn place(vm: &Vm, name: &str) -> PathBuf {
        let folder = vm.folder();
        let old = folder.file_name().unwrap_or_default().to_string_lossy();
        let own = [vm.stem(), vm.name()];
        let rest = own.iter().find_map(|own| {
            let rest = old.strip_prefix(own.as_str())?;
            (rest.is_empty() || rest == ".vmwarevm").then_some(rest)
        });
        let folder = match rest {
            Some(rest) => folder.with_file_name(format!("{name}{rest}")),
            None => folder.to_path_buf(),
        };
        folder.join(format!("{name}.vmx"))
    }

    /// Refuses a name that is taken, and a machine that others stand on or share a folder with.
    fn refuse_obstacles(&self, home: &Home, inventory: &Inventory) -> Result<()> {
        let vm = &self.vm;
        vm.vmx.clone().set_name(&self.name)?; // Refused if it is encrypted.
        let taken = inventory.refuse_other(&self.name, vm.path());
        taken.map_err(|error| error.hint("choose another name"))?;
        let (old, new) = (vm.folder(), self.to.parent().unwrap_or(Path::new("/")));
        let exists = |path: &Path| {
            Err(Error::new(ErrorKind::Exists, "exists already")
                .in_file(path)
                .hint("choose another name, or change the display name alone: --only-name"))
        };
        if old != new && new.symlink_metadata().is_ok() {
            return exists(new);
        }
        let names = file_names(old)?;
        for name in &names {
            let config_of = name.to_str().and_then(machine_of_config);
            let is_other = Path::new(name).extension() == Some("vmx".as_ref())
                && vm.path().file_name() != Some(name)
                && vm.path().file_name() != config_of.as_deref().map(OsStr::new);
            if is_other {
                return Err(Error::invalid("another machine is in the same folder")
                    .in_file(old.join(name))
                    .hint("change the display name alone: --only-name"));
            }
            if let Some(new) = name.to_str().and_then(|name| self.new_name(name))
                && old.join(&new).symlink_metadata().is_ok()
                && file_id(&old.join(&new)) != file_id(&old.join(name))
            {
                return exists(&old.join(&new));
            }
        }
        vm.refuse_unlisted_clones(home, None)?;
        let mut images = Vec::new();
        for disk in vm.all_disks()? {
            images.extend(vm.disk_files_here(&disk).into_iter().flatten());
        }
        if let Some(user) = other_user(home, &images, vm.path())? {
            let what = format!(
                "the machine {} uses it, or has an overlay on it",
                user.machine
            );
            return Err(Error::invalid(what)
                .in_file(&user.file)
                .hint("change the display name alone: --only-name"));
        }
        Ok(())
    }

    /// Returns the new name of a file whose name begins with the machine's.
    fn new_name(&self, old: &str) -> Option<String> {
        let rest = old.strip_prefix(&self.old_stem)?;
        let is_own = rest.is_empty() || rest.starts_with(['.', '-', '_']);
        (is_own && self.old_stem != self.name).then(|| format!("{}{rest}", self.name))
    }

    /// Notes in the inventory where the machine is going; one that is not listed is until then.
    fn note(&self, home: &Home) -> Result<()> {
        Inventory::change(home, |inventory| {
            match inventory.entry_mut(self.vm.path()) {
                Some(entry) => entry.to = Some(self.to.clone()),
                None => inventory.entries.push(Entry {
                    vmx: self.from.clone(),
                    to: Some(self.to.clone()),
                    ..Entry::default()
                }),
            }
            Ok(())
        })
    }

    fn carry_out(&mut self) -> Result<()> {
        if !self.is_switched() {
            self.rename_disks()?;
            self.link_companions()?;
            self.write_new_vmx()?;
        }
        self.remove_old_names()?;
        self.rename_folder()
    }

    /// Returns whether no file has a new name.
    fn is_untouched(&self) -> bool {
        !self.is_begun && self.report.files.is_empty() && self.vm.path() == self.from
    }

    /// Takes the note out of the inventory.
    fn forget(&self, home: &Home) -> Result<()> {
        Inventory::change(home, |inventory| {
            if !self.vm.is_registered() {
                inventory.entries.retain(|entry| !entry.has_path(&self.to));
            } else if let Some(entry) = inventory.entry_mut(&self.from) {
                entry.to = None;
            }
            Ok(())
        })
    }

    /// Returns whether the new .vmx is the machine's already.
    fn is_switched(&self) -> bool {
        self.vm.path().file_name() == self.to.file_name() && self.vm.path() != self.from
    }

    /// Gives every image of its disks in its folder the new name.
    fn rename_disks(&mut self) -> Result<()> {
        let mut mains: Vec<(PathBuf, String)> = Vec::new();
        for disk in self.vm.all_disks()? {
            let format = disk.format.clone().unwrap_or("vmdk".to_owned());
            for main in self
                .vm
                .disk_files_here(&disk)
                .into_iter()
                .filter_map(|mut f| f.pop())
            {
                if mains.iter().all(|(known, _)| *known != main) {
                    mains.push((main, format.clone()));
                }
            }
        }
        for (main, format) in mains {
            let Some(old) = main.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let Some(new) = self
                .new_name(old)
                .filter(|_| main.parent() == Some(self.vm.folder()))
            else {
                continue;
            };
            let mut rules = self.vm.rules(false);
            rules.allow_paths.push(self.vm.folder().to_path_buf());
            let subject = Subject {
                path: main.clone(),
                open: OpenOptions {
                    from: Some(format),
                    rules,
                    ..OpenOptions::default()
                },
            };
            let map = BTreeMap::from([(old.to_owned(), new.clone())]);
            let vm = &mut self.vm;
            let report = rename_and_tell(&subject, &main.with_file_name(&new), &mut || {
                tell_of(vm, &map)
            })?;
            let name = |path: &PathBuf| {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            };
            let files = report.files.iter();
            self.report
                .files
                .extend(files.map(|(old, new)| (name(old), name(new))));
        }
        Ok(())
    }

    /// Gives the other files their new names besides the old ones.
    fn link_companions(&mut self) -> Result<()> {
        for path in self.vm.companions()? {
            let Some(old) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let Some(new) = self.new_name(old) else {
                continue;
            };
            let target = path.with_file_name(&new);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("vmsd") => self.write_vmsd(&path, &target)?,
                Some("vmxf") => self.write_vmxf(&path, &target)?,
                _ => link(&path, &target)?,
            }
            if path.extension() == Some("vmsn".as_ref()) {
                self.report.warnings.push(format!(
                    "{new}: the state of a snapshot keeps the old names that it has inside"
                ));
            }
            self.report.files.push((old.to_owned(), new));
        }
        sync_folder_of(self.vm.path())
    }

    /// Writes the list of snapshots with the new names.
    fn write_vmsd(&self, old: &Path, new: &Path) -> Result<()> {
        let bytes = read_text(old)?.unwrap_or_default();
        let mut dictionary = Dictionary::parse(&bytes).map_err(|error| error.in_file(old))?;
        for (key, value) in references(&dictionary, self.vm.folder(), &|name| self.new_name(name)) {
            dictionary.set(&key, &value)?;
        }
        replace_file(new, &dictionary.to_bytes())
    }

    /// Writes the .vmxf, an XML that names the .vmx in an element of its own.
    fn write_vmxf(&self, old: &Path, new: &Path) -> Result<()> {
        let bytes = read_text(old)?.unwrap_or_default();
        replace_file(new, &vmxf_of(&bytes, &self.old_stem, &self.name))
    }

    /// Writes the new .vmx, which is the machine's from then on.
    fn write_new_vmx(&mut self) -> Result<()> {
        let folder = self.vm.folder().to_path_buf();
        let vmx = &mut self.vm.vmx;
        let new_name = |name: &str| {
            // What is not a file of its own keeps its name.
            let rest = name.strip_prefix(&self.old_stem)?;
            let new = format!("{}{rest}", self.name);
            folder.join(&new).symlink_metadata().is_ok().then_some(new)
        };
        for (key, value) in references(vmx.dictionary(), &folder, &new_name) {
            vmx.set(&key, &value)?;
        }
        vmx.set_name(&self.name)?;
        let path = folder.join(format!("{}.vmx", self.name));
        replace_file(&path, &vmx.to_bytes())?;
        if path.file_name() != self.from.file_name() {
            let names = |path: &Path| {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            };
            self.report.files.push((names(&self.from), names(&path)));
        }
        self.vm = self.vm.moved_to(path);
        Ok(())
    }

    /// Takes the old names away: of whatever has a new one, which nothing had when this began.
    fn remove_old_names(&self) -> Result<()> {
        let folder = self.vm.folder();
        for name in file_names(folder)? {
            let Some(new) = name.to_str().and_then(|old| self.new_name(old)) else {
                continue;
            };
            if folder.join(new).symlink_metadata().is_ok() {
                let old = folder.join(name);
                std::fs::remove_file(&old)
                    .map_err(|error| Error::io("remove the old name", error).in_file(&old))?;
            }
        }
        for debris in self.vm.debris()? {
            let _ = std::fs::remove_file(debris);
        }
        sync_folder_of(self.vm.path())
    }

    fn rename_folder(&mut self) -> Result<()> {
        let (old, new) = (self.vm.folder(), self.to.parent().unwrap_or(Path::new("/")));
        if old != new {
            if new.symlink_metadata().is_ok() {
                return Err(Error::new(ErrorKind::Exists, "exists already").in_file(new));
            }
            std::fs::rename(old, new).map_err(|error| Error::io("rename", error).in_file(old))?;
            sync_folder_of(new)?;
            self.vm = self.vm.moved_to(self.to.clone());
        }
        Ok(())
    }

    /// Lists the machine where it is now.
    fn settle(&self, home: &Home) -> Result<()> {
        Inventory::change(home, |inventory| {
            if !self.vm.is_registered() {
                inventory.entries.retain(|entry| !entry.has_path(&self.to));
            }
            let Some(entry) = inventory.entry_mut(&self.to) else {
                return Ok(());
            };
            let old_folder = entry.vmx.parent().map(Path::to_path_buf);
            for path in &mut entry.allow {
                let inside = old_folder
                    .as_ref()
                    .and_then(|old| path.strip_prefix(old).ok());
                if let Some(inside) = inside {
                    *path = self.vm.folder().join(inside);
                }
            }
            entry.vmx = self.to.clone();
            entry.to = None;
            Ok(())
        })
    }
}

/// Writes new names of files into the texts of a machine that refer to them.
fn tell_of(vm: &mut Vm, map: &BTreeMap<String, String>) -> Result<()> {
    let new_name = |name: &str| map.get(name).cloned();
    let folder = vm.folder().to_path_buf();
    let vmsd_path = vm.vmsd_path();
    if let Some(bytes) = read_text(&vmsd_path)? {
        let mut dictionary = Dictionary::parse(&bytes)?;
        let changes = references(&dictionary, &folder, &new_name);
        for (key, value) in &changes {
            dictionary.set(key, value)?;
        }
        if !changes.is_empty() {
            replace_file(&vmsd_path, &dictionary.to_bytes())?;
        }
    }
    for (key, value) in references(vm.vmx.dictionary(), &folder, &new_name) {
        vm.vmx.set(&key, &value)?;
    }
    vm.save()
}

/// Gives a file a second name; on a file system without hard links, another name.
fn link(from: &Path, to: &Path) -> Result<()> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        // A run that was cut off had come this far.
        Err(_) if file_id(to).is_some_and(|id| Some(id) == file_id(from)) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::io("rename", error).in_file(to))
        }
        Err(_) => {
            std::fs::rename(from, to).map_err(|error| Error::io("rename", error).in_file(from))
        }
    }
}
