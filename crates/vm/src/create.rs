//! Creating a machine: its folder is built beside its place and gets its name last.

use std::fs::File;
use std::path::{Path, PathBuf};

use hako_block::gate::{file_names, replace_file};
use hako_block::{Error, ErrorKind, Result, StagedTree};
use hako_formats::Task;
use hako_formats::machine::{
    Cpu, DirectBoot, Drive, Firmware, Machine, Medium, Network, check_memory,
};
use hako_formats::vmx::Vmx;

use crate::check::check_name;
use crate::devices::{DiskContent, NewDisk, NewNic, Site, named_by_user, new_cd};
use crate::guest::{DEFAULT_GUEST_OS, GuestDefaults, guest_defaults};
use crate::seed::Seed;
use crate::vm::absolute;
use crate::{Entry, Home, Inventory};

/// What to create. What is `None` is chosen by the guest system.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// The machine's name; its files get it, too.
    pub name: String,
    /// Its folder, instead of one of its name where machines live. One that exists may hold
    /// images that it is to use, but no .vmx.
    pub folder: Option<PathBuf>,
    /// Processors.
    pub cpu: Option<Cpu>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The guest system, by its VMX name.
    pub guest_os: Option<String>,
    /// What starts the guest.
    pub firmware: Option<Firmware>,
    /// VMware's virtual hardware version.
    pub hardware_version: Option<u32>,
    /// A note.
    pub annotation: String,
    /// Its disks, the one it starts from first. A copy of an image that is in the machine's folder
    /// already is no copy: it is used as it is.
    pub disks: Vec<NewDisk>,
    /// Network cards; by default one behind the host.
    pub nics: Option<Vec<NewNic>>,
    /// CD images, used where they are.
    pub cdroms: Vec<PathBuf>,
    /// A file with user-data, or a folder for a seed.
    pub cloud_init: Option<PathBuf>,
    /// A kernel that is started without firmware; copied into the machine's folder.
    pub direct_boot: Option<KernelFiles>,
    /// What the machine's images may name beyond its folder.
    pub allow: Vec<PathBuf>,
    /// Keys of the .vmx besides, with their values.
    pub keys: Vec<(String, String)>,
}

/// A kernel with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// What was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateReport {
    /// The new machine's .vmx.
    pub vmx: PathBuf,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Creates a machine and lists it in the inventory. Cut off anywhere, there is no machine of that
/// name, or the whole one; running it again clears what was left.
pub fn create(home: &Home, request: &CreateRequest, task: Task<'_>) -> Result<CreateReport> {
    let folder = folder_for(home, request)?;
    let vmx_path = folder.join(format!("{}.vmx", request.name));
    let tree = StagedTree::filling(&folder, "vmx")?;
    let cleared = tree.cleared().iter();
    let guest_os = request.guest_os.as_deref().unwrap_or(DEFAULT_GUEST_OS);
    let mut builder = Builder {
        request,
        defaults: guest_defaults(guest_os),
        folder: &folder,
        tree: &tree,
        allow: request.allow.clone(),
        warnings: cleared
            .map(|name| format!("removed {name}, which a killed run had left behind"))
            .collect(),
    };
    let vmx = builder.build(guest_os, task)?;
    replace_file(
        &tree.path().join(format!("{}.vmx", request.name)),
        &vmx.to_bytes(),
    )?;
    let Builder {
        allow, warnings, ..
    } = builder;
    task.cancel.check()?;
    let entry = Entry {
        vmx: vmx_path.clone(),
        allow,
        ..Entry::default()
    };
    Inventory::admit(home, &request.name, entry, || {
        refuse_machine(&folder)?;
        tree.commit()
    })?;
    Ok(CreateReport {
        vmx: vmx_path,
        warnings,
    })
}

/// Returns the folder that a new machine would get. Errors: what keeps [`create`] from making one of
/// that name there.
pub fn folder_for(home: &Home, request: &CreateRequest) -> Result<PathBuf> {
    check_name(&request.name)?;
    let folder = match &request.folder {
        Some(folder) => folder.clone(),
        None => {
            std::fs::create_dir_all(home.vms())
                .map_err(|error| Error::io("create", error).in_file(home.vms()))?;
            home.vms().join(&request.name)
        }
    };
    let folder = absolute(&folder)?;
    let vmx_path = folder.join(format!("{}.vmx", request.name));
    Inventory::read(home)?
        .refuse_taken(&request.name, &vmx_path)
        .map_err(|error| error.hint("choose another name"))?;
    refuse_machine(&folder)?;
    Ok(folder)
}

struct Builder<'a> {
    request: &'a CreateRequest,
    defaults: GuestDefaults,
    /// The machine's folder.
    folder: &'a Path,
    tree: &'a StagedTree,
    allow: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Builder<'_> {
    /// Makes everything but the .vmx, and returns that.
    fn build(&mut self, guest_os: &str, task: Task<'_>) -> Result<Vmx> {
        let machine = self.bare_machine(guest_os)?;
        let mut vmx = Vmx::new(&machine)?;
        for disk in &self.request.disks {
            self.add_disk(&mut vmx, disk, task)?;
        }
        for image in &self.request.cdroms {
            let file = named_by_user(self.folder, image, &mut self.allow)?;
            let drive = new_cd(&vmx, &self.defaults, file)?;
            vmx.put_drive(&drive, None)?;
        }
        if let Some(path) = &self.request.cloud_init {
            let seed = Seed::from_path(path, &self.request.name)?;
            self.warnings.extend(seed.warnings);
            let file = format!("{}-seed.iso", self.request.name);
            replace_file(&self.tree.path().join(&file), &seed.image)?;
            let drive = new_cd(&vmx, &self.defaults, file)?;
            vmx.put_drive(&drive, None)?;
        }
        let one_nic = [NewNic {
            network: Network::Nat,
            ..NewNic::default()
        }];
        let nics = self.request.nics.as_deref().unwrap_or(&one_nic);
        for (number, nic) in (0u8..).zip(nics) {
            vmx.put_nic(&nic.nic(number, &self.defaults))?;
        }
        if let Some(files) = &self.request.direct_boot {
            vmx.set_direct_boot(Some(&self.copy_kernel(files)?))?;
        }
        for (key, value) in &self.request.keys {
            vmx.set(key, value)?;
        }
        Ok(vmx)
    }

    fn bare_machine(&self, guest_os: &str) -> Result<Machine> {
        let request = self.request;
        let cpu = request.cpu.unwrap_or(self.defaults.cpu);
        let memory_bytes = request.memory_bytes.unwrap_or(self.defaults.memory_bytes);
        cpu.check()?;
        check_memory(memory_bytes)?;
        Ok(Machine {
            name: request.name.clone(),
            hardware_version: request.hardware_version,
            guest_os: Some(guest_os.to_owned()),
            firmware: request.firmware.unwrap_or(self.defaults.firmware),
            cpu,
            memory_bytes,
            annotation: request.annotation.clone(),
            ..Machine::default()
        })
    }

    fn add_disk(&mut self, vmx: &mut Vmx, disk: &NewDisk, task: Task<'_>) -> Result<()> {
        let (node, model) = disk.place(vmx, &self.defaults)?;
        let disk = self.where_its_image_is(disk);
        let site = Site {
            folder: self.tree.path(),
            vm_folder: self.folder,
            stem: &self.request.name,
            is_taken: &|name| {
                self.tree.path().join(name).symlink_metadata().is_ok()
                    || self.folder.join(name).symlink_metadata().is_ok()
            },
            allow: &self.allow,
        };
        let made = disk.make(&site, node, task)?;
        self.warnings.extend(made.warnings);
        let drive = Drive {
            node,
            medium: Medium::Disk(made.medium),
            connected: true,
        };
        vmx.put_drive(&drive, model.as_deref())
    }

    /// An image in the machine's folder is used as it is.
    fn where_its_image_is(&self, disk: &NewDisk) -> NewDisk {
        let mut disk = disk.clone();
        if let DiskContent::CopyOf(image) = &disk.content {
            let folder = std::fs::canonicalize(self.folder).ok();
            let image_path = std::fs::canonicalize(&image.path).ok();
            let is_inside = folder
                .zip(image_path)
                .is_some_and(|(folder, image)| image.starts_with(folder));
            if is_inside {
                disk.content = DiskContent::InPlace(image.clone());
            }
        }
        disk
    }

    fn copy_kernel(&self, files: &KernelFiles) -> Result<DirectBoot> {
        let copy = |path: &Path| -> Result<String> {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| Error::invalid("is no file name").in_file(path))?;
            copy_new(path, &self.tree.path().join(name))?;
            Ok(name.to_owned())
        };
        Ok(DirectBoot {
            kernel: copy(&files.kernel)?,
            initrd: files.initrd.as_deref().map(copy).transpose()?,
            cmdline: files.cmdline.clone(),
        })
    }
}

/// Copies a file to one that does not exist.
fn copy_new(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(|error| Error::io("open", error).in_file(from))?;
    let failed = |error| Error::io("write", error).in_file(to);
    let mut file = File::create_new(to).map_err(failed)?;
    std::io::copy(&mut source, &mut file)
        .and_then(|_| file.sync_all())
        .map_err(failed)
}

/// Refuses a folder that holds a machine already, or is none.
fn refuse_machine(folder: &Path) -> Result<()> {
    let exists = |path: &Path, what: &str| {
        Err(Error::new(ErrorKind::Exists, what)
            .in_file(path)
            .hint("choose another name or --folder; `hako vm register` lists one that is there"))
    };
    match folder.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(metadata) if !metadata.is_dir() => return exists(folder, "exists already"),
        Ok(_) => (),
    }
    let names = file_names(folder)?;
    let vmx = names
        .iter()
        .find(|name| Path::new(name).extension() == Some("vmx".as_ref()));
    match vmx {
        Some(name) => exists(
            &folder.join(name),
            "there is a machine in this folder already",
        ),
        None => Ok(()),
    }
}
