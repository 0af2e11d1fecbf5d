//! Changing a machine's text: what people change, and any key. What would keep the machine from
//! starting is refused.

use std::path::{Path, PathBuf};

use hako_block::{Access, Error, FileStorage, LockMode, Result};
use hako_disk::Subject;
use hako_formats::machine::{
    BootDevice, Cpu, DiskMedium, Drive, Firmware, Machine, Medium, Node, Share, Weight,
    check_memory,
};
use hako_formats::vmx::Vmx;
use hako_formats::{OpenOptions, Task};

use crate::devices::{DiskContent, NewDisk, NewNic, Site, named_by_user, new_cd};
use crate::guest::{GuestDefaults, guest_defaults};
use crate::users::{files_of, other_user};
use crate::{Home, Inventory, Vm};

/// What to change; what is `None` or empty stays. Removals come first, raw keys last.
#[derive(Debug, Clone, Default)]
pub struct SetRequest {
    /// Processors.
    pub cpu: Option<CpuChange>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The guest system, by its VMX name.
    pub guest_os: Option<String>,
    /// What starts the guest.
    pub firmware: Option<Firmware>,
    /// What the guest starts from, first to last.
    pub boot_order: Option<Vec<BootDevice>>,
    /// The note.
    pub annotation: Option<String>,
    /// Drives to take away.
    pub remove_drives: Vec<Node>,
    /// Delete the images of disks that are taken away.
    pub delete_files: bool,
    /// Disks to add.
    pub add_disks: Vec<NewDisk>,
    /// Network cards to take away, by number.
    pub remove_nics: Vec<u8>,
    /// Network cards to add.
    pub add_nics: Vec<NewNic>,
    /// What to put into a CD drive.
    pub cdrom: Option<CdChange>,
    /// Shares of the host's processors.
    pub cpu_share: ShareChange,
    /// Shares of the host's memory.
    pub memory_share: ShareChange,
    /// Keys to set or, without a value, to remove.
    pub raw: Vec<(String, Option<String>)>,
}

/// What to put into a CD drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdChange {
    /// Which drive; by default the first, or a new one.
    pub node: Option<Node>,
    /// The image; none empties the drive.
    pub image: Option<PathBuf>,
}

/// A change of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuChange {
    /// Virtual processors.
    pub count: u32,
    /// How many of them share a socket, if that is said.
    pub cores_per_socket: Option<u32>,
}

/// What to change of a share; the inner `None` removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShareChange {
    /// What is kept for the machine.
    pub reservation: Option<u64>,
    /// What it never gets more than.
    pub limit: Option<Option<u64>>,
    /// Its weight.
    pub weight: Option<Weight>,
}

/// What was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetReport {
    /// Keys that changed, with what they say now; `None` for one that is gone.
    pub changed: Vec<(String, Option<String>)>,
    /// Nodes of the disks that were added.
    pub added: Vec<Node>,
    /// Files that were deleted.
    pub deleted: Vec<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Changes a machine. Either all of it is done or nothing: the text is replaced once.
pub fn set(home: &Home, vm: &mut Vm, request: &SetRequest, task: Task<'_>) -> Result<SetReport> {
    let _held = vm.hold()?;
    let before = vm.vmx.clone();
    let mut change = Change {
        home,
        vm,
        request,
        defaults: guest_defaults(""),
        consented: Vec::new(),
        new_images: Vec::new(),
        report: SetReport::default(),
    };
    match change.run(&before, task) {
        Ok(()) => Ok(change.report),
        Err(error) => {
            change.remove_new_images();
            Err(error)
        }
    }
}

struct Change<'a> {
    home: &'a Home,
    vm: &'a mut Vm,
    request: &'a SetRequest,
    defaults: GuestDefaults,
    /// Files beyond the folder that the user named, and thereby allowed.
    consented: Vec<PathBuf>,
    new_images: Vec<PathBuf>,
    report: SetReport,
}

impl Change<'_> {
    fn run(&mut self, before: &Vmx, task: Task<'_>) -> Result<()> {
        let doomed = self.remove_devices()?;
        self.set_hardware()?;
        let guest_os = self.vm.vmx.machine().guest_os.unwrap_or_default();
        self.defaults = guest_defaults(&guest_os);
        for disk in &self.request.add_disks {
            self.add_disk(disk, task)?;
        }
        self.add_nics()?;
        if let Some(cd) = &self.request.cdrom {
            self.change_cd(cd)?;
        }
        for (key, value) in &self.request.raw {
            match value {
                Some(value) => self.vm.vmx.set(key, value)?,
                None if self.vm.vmx.remove(key)? => (),
                None => return Err(Error::invalid(format!("there is no key {key:?}"))),
            }
        }
        self.refuse_broken(before)?;
        self.report.changed = differences(before, &self.vm.vmx);
        task.cancel.check()?;
        self.record_consent()?;
        self.vm.save()?;
        for image in doomed {
            let deleted = hako_disk::delete(&image, false)?;
            self.report.deleted.extend(deleted);
        }
        Ok(())
    }

    /// Takes drives and cards away; returns the images to delete once the text is written.
    fn remove_devices(&mut self) -> Result<Vec<Subject>> {
        let machine = self.vm.vmx.machine();
        let mut doomed = Vec::new();
        for node in &self.request.remove_drives {
            let drive = machine.drives.iter().find(|drive| drive.node == *node);
            let Some(drive) = drive else {
                return Err(Error::invalid(format!("{node} has no drive")));
            };
            if let (true, Medium::Disk(disk)) = (self.request.delete_files, &drive.medium) {
                doomed.push(self.deletable(disk)?);
            }
            self.vm.vmx.remove_drive(*node)?;
        }
        for number in &self.request.remove_nics {
            if machine.nics.iter().all(|nic| nic.number != *number) {
                return Err(Error::invalid(format!("there is no network card {number}")));
            }
            self.vm.vmx.remove_nic(*number)?;
        }
        Ok(doomed)
    }

    /// Returns the image of a disk, to be deleted; refused if a snapshot or another machine needs
    /// it.
    fn deletable(&self, disk: &DiskMedium) -> Result<Subject> {
        let opened = self.vm.look_at(disk)?;
        let top = &opened.layers[0];
        let path = PathBuf::from(top.args.storage.name());
        for other in self.vm.all_disks()? {
            if other.file == disk.file {
                continue;
            }
            if self.vm.stands_on(&other, &path) {
                let what = format!("{} needs it, too", other.file);
                return Err(Error::invalid(what).in_file(&path));
            }
        }
        for snapshot in self.vm.vmsd()?.iter().flat_map(|vmsd| vmsd.snapshots()) {
            if snapshot.disks.iter().any(|held| held.file == disk.file) {
                let what = format!("the snapshot {:?} holds it", snapshot.name);
                return Err(Error::invalid(what).in_file(&path));
            }
        }
        if let Some(user) = other_user(self.home, std::slice::from_ref(&path), self.vm.path())? {
            let what = format!("the machine {} uses it", user.machine);
            return Err(Error::invalid(what).in_file(&path));
        }
        let mut rules = self.vm.rules(false);
        rules.allow_paths.push(self.vm.folder().to_path_buf());
        Ok(Subject {
            path,
            open: OpenOptions {
                from: Some(top.format.name().to_owned()),
                rules,
                ..OpenOptions::default()
            },
        })
    }

    fn set_hardware(&mut self) -> Result<()> {
        let request = self.request;
        let machine = self.vm.vmx.machine();
        let vmx = &mut self.vm.vmx;
        if let Some(cpu) = request.cpu {
            vmx.set_cpu(cpu.over(machine.cpu))?;
        }
        if let Some(bytes) = request.memory_bytes {
            vmx.set_memory(bytes)?;
        }
        if let Some(guest_os) = &request.guest_os {
            vmx.set_guest_os(guest_os)?;
        }
        if let Some(firmware) = request.firmware {
            let secure_boot = machine.secure_boot && firmware == Firmware::Efi;
            vmx.set_firmware(firmware, secure_boot)?;
        }
        if let Some(order) = &request.boot_order {
            vmx.set_boot_order(order)?;
        }
        if let Some(annotation) = &request.annotation {
            vmx.set_annotation(annotation)?;
        }
        if request.cpu_share != ShareChange::default() {
            vmx.set_cpu_share(request.cpu_share.over(machine.cpu_share)?)?;
        }
        if request.memory_share != ShareChange::default() {
            vmx.set_memory_share(request.memory_share.over(machine.memory_share)?)?;
        }
        Ok(())
    }

    fn add_disk(&mut self, disk: &NewDisk, task: Task<'_>) -> Result<()> {
        let (node, model) = disk.place(&self.vm.vmx, &self.defaults)?;
        let stem = self.vm.stem();
        let named: Vec<String> = self.vm.all_disks()?.into_iter().map(|d| d.file).collect();
        let folder = self.vm.folder().to_path_buf();
        let rules = self.vm.rules(false);
        let site = Site {
            folder: &folder,
            vm_folder: &folder,
            stem: &stem,
            is_taken: &|name| {
                folder.join(name).symlink_metadata().is_ok() || named.iter().any(|n| n == name)
            },
            allow: &rules.allow_paths,
        };
        let made = disk.make(&site, node, task)?;
        self.new_images.extend(made.new_image);
        self.report.warnings.extend(made.warnings);
        if let DiskContent::InPlace(image) = &disk.content
            && Path::new(&made.medium.file).is_absolute()
        {
            // Its extent files and parents lie beside it.
            let folder = Path::new(&made.medium.file).parent();
            let folder = folder.ok_or_else(|| Error::invalid("has no folder").in_file(&image.path));
            self.consented.push(folder?.to_path_buf());
        }
        let drive = Drive {
            node,
            medium: Medium::Disk(made.medium),
            connected: true,
        };
        self.vm.vmx.put_drive(&drive, model.as_deref())?;
        self.report.added.push(node);
        Ok(())
    }

    fn add_nics(&mut self) -> Result<()> {
        for nic in &self.request.add_nics {
            let nics = self.vm.vmx.machine().nics;
            let is_free = |number: &u8| nics.iter().all(|nic| nic.number != *number);
            let number = (0..10).find(is_free).ok_or_else(|| {
                Error::invalid("a machine has 10 network cards at most, and this one has them")
            })?;
            self.vm.vmx.put_nic(&nic.nic(number, &self.defaults))?;
        }
        Ok(())
    }

    fn change_cd(&mut self, change: &CdChange) -> Result<()> {
        let machine = self.vm.vmx.machine();
        let is_cd = |drive: &&Drive| {
            matches!(
                drive.medium,
                Medium::CdImage { .. } | Medium::CdDevice { .. } | Medium::CdEmpty
            )
        };
        let mut cds = machine.drives.iter().filter(is_cd);
        let found = match change.node {
            Some(node) => Some(
                cds.find(|drive| drive.node == node)
                    .ok_or_else(|| Error::invalid(format!("{node} has no CD drive")))?,
            ),
            None => cds.next(),
        };
        let drive = match (&change.image, found) {
            (None, None) => return Ok(()),
            (None, Some(found)) => Drive {
                medium: Medium::CdEmpty,
                connected: false,
                ..found.clone()
            },
            (Some(image), found) => {
                let file = named_by_user(self.vm.folder(), image, &mut self.consented)?;
                match found {
                    Some(found) => Drive {
                        medium: Medium::CdImage { file },
                        connected: true,
                        ..found.clone()
                    },
                    None => new_cd(&self.vm.vmx, &self.defaults, file)?,
                }
            }
        };
        self.vm.vmx.put_drive(&drive, None)
    }

    /// Refuses a text that says something that the machine would not start with, and did not say
    /// before.
    fn refuse_broken(&self, before: &Vmx) -> Result<()> {
        // As it will be read: what was set raw counts like the rest.
        let after = Vmx::parse(&self.vm.vmx.to_bytes())?;
        let is_new = |oddity: &&String| !before.oddities().contains(*oddity);
        if let Some(oddity) = after.oddities().iter().find(is_new) {
            return Err(Error::invalid(oddity.clone()).in_file(self.vm.path()));
        }
        let (old, new) = (before.machine(), after.machine());
        if new.cpu != old.cpu {
            new.cpu.check()?;
        }
        if new.memory_bytes != old.memory_bytes {
            check_memory(new.memory_bytes)?;
        }
        self.refuse_unusable_disks(&old, &new)
    }

    /// Refuses disks that were not there before and cannot be opened, or are used elsewhere.
    fn refuse_unusable_disks(&self, old: &Machine, new: &Machine) -> Result<()> {
        for drive in &new.drives {
            let Medium::Disk(disk) = &drive.medium else {
                continue;
            };
            if disk.physical || disk.file.is_empty() || old.drives.contains(drive) {
                continue;
            }
            let mut options = OpenOptions {
                rules: self.vm.rules(false),
                ..OpenOptions::default()
            };
            options.rules.allow_paths.extend(self.consented.clone());
            let opened = self
                .vm
                .open_disk(disk, &options)
                .map_err(|error| error.place(drive.node.to_string()))?;
            let files = files_of(&opened);
            drop(opened);
            let top = &files[..1];
            // Nobody else reads it either: a running machine's disk is not for two.
            FileStorage::open(&top[0], Access::ReadOnly, LockMode::Write)?;
            self.refuse_second_use(new, drive, &top[0])?;
            if let Some(user) = other_user(self.home, top, self.vm.path())? {
                let what = format!("the machine {} uses it", user.machine);
                return Err(Error::invalid(what)
                    .in_file(&top[0])
                    .hint("give this one an overlay: hako disk create NEW --parent IMAGE"));
            }
        }
        Ok(())
    }

    fn refuse_second_use(&self, machine: &Machine, drive: &Drive, file: &Path) -> Result<()> {
        for (node, disk) in machine.disks().filter(|(node, _)| *node != drive.node) {
            if self.vm.stands_on(disk, file) {
                let what = format!("{node} and {} would share it", drive.node);
                return Err(Error::invalid(what).in_file(file));
            }
        }
        Ok(())
    }

    /// Writes into the inventory what the user allowed by naming it.
    fn record_consent(&mut self) -> Result<()> {
        if self.consented.is_empty() || !self.vm.is_registered() {
            return Ok(());
        }
        Inventory::change(self.home, |inventory| {
            if let Some(entry) = inventory.entry_mut(self.vm.path()) {
                for path in &self.consented {
                    if !entry.allow.contains(path) {
                        entry.allow.push(path.clone());
                    }
                }
            }
            Ok(())
        })
    }

    fn remove_new_images(&self) {
        for path in &self.new_images {
            let subject = Subject {
                path: path.clone(),
                open: OpenOptions::default(),
            };
            // What it failed with counts; an image that is left takes space, no more.
            let _ = hako_disk::delete(&subject, true);
        }
    }
}

impl CpuChange {
    /// Returns the processors with the change made. Sockets stay as large as they are where the
    /// new number allows it: some guests take only so many sockets.
    pub fn over(self, old: Cpu) -> Cpu {
        let fits = self.count.is_multiple_of(old.cores_per_socket.max(1));
        let kept = if fits { old.cores_per_socket } else { 1 };
        Cpu {
            count: self.count,
            cores_per_socket: self.cores_per_socket.unwrap_or(kept),
        }
    }
}

impl ShareChange {
    /// Returns the share with the changes made. Refuses a reservation above the limit.
    fn over(self, old: Share) -> Result<Share> {
        let share = Share {
            reservation: self.reservation.or(old.reservation),
            limit: self.limit.unwrap_or(old.limit),
            weight: self.weight.or(old.weight),
        };
        match (share.reservation, share.limit) {
            (Some(reservation), Some(limit)) if reservation > limit => Err(Error::invalid(
                format!("a reservation of {reservation} is above the limit of {limit}"),
            )),
            _ => Ok(share),
        }
    }
}

/// Returns the keys that differ, in the order of the new text, then those that are gone.
fn differences(before: &Vmx, after: &Vmx) -> Vec<(String, Option<String>)> {
    let old = before.dictionary();
    let new = after.dictionary();
    let set = new
        .entries()
        .filter(|(key, value)| old.value(key).as_ref() != Some(value))
        .map(|(key, value)| (key.to_owned(), Some(value)));
    let gone = old
        .entries()
        .filter(|(key, _)| new.value(key).is_none())
        .map(|(key, _)| (key.to_owned(), None));
    set.chain(gone).collect()
}
