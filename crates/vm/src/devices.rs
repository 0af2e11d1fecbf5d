//! Disks, CD drives and network cards that a machine is to get: where they go, and the images
//! that are made for them.

use std::path::{Path, PathBuf};

use hako_block::{Access, Error, ErrorKind, FileStorage, LockMode, Result};
use hako_disk::CreateRequest;
use hako_formats::machine::{
    Bus, Controller, DiskMedium, DiskMode, Drive, Mac, Machine, Medium, Network, Nic, Node,
};
use hako_formats::vmx::Vmx;
use hako_formats::{
    Adapter, CreateOptions, DiskFormat, OpenOptions, Task, format_named, open_chain,
};
use hako_pipeline::CopyOptions;

use crate::copy::{Manner, copy_image};
use crate::guest::GuestDefaults;
use crate::room::{check_room_of_compressed, compressed_bytes};

/// A disk that a machine is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDisk {
    /// What is on it.
    pub content: DiskContent,
    /// What it hangs on; by default what the other disks do, else what its guest has drivers for.
    pub bus: Option<Bus>,
    /// Where it is, exactly.
    pub node: Option<Node>,
    /// The model of its SCSI controller.
    pub controller: Option<String>,
    /// The format of a new image; VMDK by default.
    pub format: Option<String>,
    /// The variant of the format.
    pub subformat: Option<String>,
    /// What becomes of what the guest writes.
    pub mode: DiskMode,
    /// The name of a new image in the machine's folder.
    pub file: Option<String>,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskContent {
    /// Nothing.
    Empty {
        /// Virtual size in bytes.
        virtual_size: u64,
    },
    /// What a copy of an image has.
    CopyOf(ImageFile),
    /// An image, used where it is.
    InPlace(ImageFile),
}

/// An image that the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// The image.
    pub path: PathBuf,
    /// Its format, if the user said it.
    pub from: Option<String>,
}

/// A network card that a machine is to get.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewNic {
    /// What it is plugged into.
    pub network: Network,
    /// Its model; by default what the guest has a driver for.
    pub model: Option<String>,
    /// Its address; by default the product that runs the machine makes one.
    pub mac: Option<Mac>,
}

impl NewDisk {
    /// Returns a disk with this on it, everything else by default.
    pub fn new(content: DiskContent) -> Self {
        Self {
            content,
            bus: None,
            node: None,
            controller: None,
            format: None,
            subformat: None,
            mode: DiskMode::default(),
            file: None,
        }
    }

    /// Returns where the disk goes in a machine, and the model of the controller there if that is
    /// new.
    pub(crate) fn place(
        &self,
        vmx: &Vmx,
        defaults: &GuestDefaults,
    ) -> Result<(Node, Option<String>)> {
        let machine = &vmx.machine();
        let by_controller = self.controller.as_ref().map(|_| Bus::Scsi);
        let wanted = [self.bus, by_controller, self.node.map(|node| node.bus)];
        let mut said = wanted.into_iter().flatten();
        let bus = said
            .next()
            .or_else(|| bus_of_disks(machine))
            .unwrap_or(defaults.disk_bus);
        if said.any(|other| other != bus) {
            return Err(Error::invalid(
                "bus, node and controller contradict one another",
            ));
        }
        let node = match self.node {
            Some(node) => {
                refuse_taken(machine, node)?;
                self.refuse_other_controller(machine, node)?;
                node
            }
            None => free_node(vmx, bus, self.controller.as_deref())?,
        };
        let model = self.controller.as_deref().or_else(|| {
            let is_new = controller_of(machine, node).is_none();
            (bus == Bus::Scsi && is_new).then_some(defaults.scsi_model)
        });
        Ok((node, model.map(str::to_owned)))
    }

    fn refuse_other_controller(&self, machine: &Machine, node: Node) -> Result<()> {
        let found = controller_of(machine, node).and_then(|found| found.model.as_ref());
        match (&self.controller, found) {
            (Some(wanted), Some(found)) if wanted != found => Err(Error::invalid(format!(
                "scsi{} is a {found}, not a {wanted}",
                node.controller
            ))),
            _ => Ok(()),
        }
    }

    /// Makes the image, or looks at the one that is there.
    pub(crate) fn make(&self, at: &Site<'_>, node: Node, task: Task<'_>) -> Result<Made> {
        match &self.content {
            DiskContent::Empty { virtual_size } => self.create(at, node, *virtual_size, task),
            DiskContent::CopyOf(image) => self.copy(at, node, image, task),
            DiskContent::InPlace(image) => self.use_in_place(at, image),
        }
    }

    fn create(&self, at: &Site<'_>, node: Node, virtual_size: u64, task: Task<'_>) -> Result<Made> {
        if virtual_size == 0 {
            return Err(Error::invalid("a disk of 0 bytes"));
        }
        let format = self.new_format()?;
        let name = self.new_name(at, format)?;
        let path = at.folder.join(&name);
        let request = CreateRequest {
            path: path.clone(),
            to: format,
            virtual_size: Some(virtual_size),
            create: self.create_options(format, node),
            parent: None,
            parent_from: None,
            rules: Default::default(),
            force: false,
        };
        let report = hako_disk::create(request, task.progress, task.cancel)?;
        Ok(Made {
            medium: self.medium(name, format),
            new_image: Some(path),
            warnings: report.warnings,
        })
    }

    fn copy(&self, at: &Site<'_>, node: Node, image: &ImageFile, task: Task<'_>) -> Result<Made> {
        let format = self.new_format()?;
        let name = self.new_name(at, format)?;
        let path = at.folder.join(&name);
        let source = open_chain(&image.path, &image.options(at.allow))?;
        let options = self.create_options(format, node);
        let manner = Manner {
            format,
            create: &options,
            verify: false,
            copy: CopyOptions::new(task.progress, task.cancel),
        };
        let compressed = compressed_bytes(&source.chain).unwrap_or(0);
        check_room_of_compressed(at.folder, compressed)?;
        copy_image(&source.chain, None, &path, &manner)?;
        Ok(Made {
            medium: self.medium(name, format),
            new_image: Some(path),
            warnings: source.oddities(),
        })
    }

    fn use_in_place(&self, at: &Site<'_>, image: &ImageFile) -> Result<Made> {
        if self.format.is_some() || self.subformat.is_some() || self.file.is_some() {
            return Err(Error::invalid(
                "the image is used as it is: format, subformat and file are for new ones",
            )
            .in_file(&image.path));
        }
        let opened = open_chain(&image.path, &image.options(at.allow))?;
        let file = text_name(at.vm_folder, &image.path)?;
        Ok(Made {
            medium: self.medium(file, opened.layers[0].format),
            new_image: None,
            warnings: opened.oddities(),
        })
    }

    fn new_format(&self) -> Result<&'static dyn DiskFormat> {
        format_named(self.format.as_deref().unwrap_or("vmdk"))
    }

    fn create_options(&self, format: &dyn DiskFormat, node: Node) -> CreateOptions {
        let adapter = match (node.bus, self.controller.as_deref()) {
            (Bus::Ide, _) => Adapter::Ide,
            (_, Some("buslogic")) => Adapter::BusLogic,
            _ => Adapter::LsiLogic,
        };
        CreateOptions {
            subformat: self.subformat.clone(),
            adapter: (format.name() == "vmdk").then_some(adapter),
            ..CreateOptions::default()
        }
    }

    /// Returns the name that the user wants, or STEM.vmdk, STEM_1.vmdk and so on.
    fn new_name(&self, at: &Site<'_>, format: &dyn DiskFormat) -> Result<String> {
        if let Some(name) = &self.file {
            let is_plain = Path::new(name).file_name() == Some(name.as_ref());
            if !is_plain || name.starts_with('.') || name.chars().any(char::is_control) {
                return Err(Error::invalid(format!("{name:?} is no plain file name")));
            }
            if (at.is_taken)(name) {
                return Err(Error::new(ErrorKind::Exists, "exists already").in_file(name));
            }
            return Ok(name.clone());
        }
        let extension = format.extensions().first().unwrap_or(&"img");
        let numbered = (1..).map(|number| format!("{}_{number}.{extension}", at.stem));
        let mut names = std::iter::once(format!("{}.{extension}", at.stem)).chain(numbered);
        names
            .find(|name| !(at.is_taken)(name))
            .ok_or_else(|| Error::invalid("no name is left for a new image"))
    }

    fn medium(&self, file: String, format: &dyn DiskFormat) -> DiskMedium {
        let format = format.name();
        DiskMedium {
            file,
            format: (format != "vmdk").then(|| format.to_owned()),
            mode: self.mode,
            physical: false,
        }
    }
}

impl ImageFile {
    fn options(&self, allow: &[PathBuf]) -> OpenOptions {
        let mut options = OpenOptions {
            from: self.from.clone(),
            ..OpenOptions::default()
        };
        options.rules.allow_paths = allow.to_vec();
        options
    }
}

/// Where images are made.
pub(crate) struct Site<'a> {
    /// The folder that new files are written to.
    pub folder: &'a Path,
    /// The machine's folder, which names in its text are relative to.
    pub vm_folder: &'a Path,
    /// What names of new files begin with.
    pub stem: &'a str,
    /// Whether there is such a file already.
    pub is_taken: &'a dyn Fn(&str) -> bool,
    /// What images may name beyond their own folder.
    pub allow: &'a [PathBuf],
}

/// Returns what the text of a machine calls a file: its path below the machine's folder, else its
/// absolute one.
fn text_name(vm_folder: &Path, path: &Path) -> Result<String> {
    let path =
        std::fs::canonicalize(path).map_err(|error| Error::io("open", error).in_file(path))?;
    let named = match std::fs::canonicalize(vm_folder) {
        Ok(folder) => path.strip_prefix(folder).unwrap_or(&path),
        Err(_) => &path, // The folder is made later: nothing is in it yet.
    };
    let text = named.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::invalid("is no file name in UTF-8").in_file(&path))
}

/// Returns what the text calls a file that the user named, who thereby lets the machine use it: if
/// it is beyond the machine's folder, it is added to what he consented to.
pub(crate) fn named_by_user(
    vm_folder: &Path,
    path: &Path,
    consented: &mut Vec<PathBuf>,
) -> Result<String> {
    FileStorage::open(path, Access::ReadOnly, LockMode::None)?;
    let name = text_name(vm_folder, path)?;
    if Path::new(&name).is_absolute() {
        consented.push(PathBuf::from(&name));
    }
    Ok(name)
}

/// A disk that was made.
pub(crate) struct Made {
    /// What the text of the machine says of it.
    pub medium: DiskMedium,
    /// Its image, if that is new.
    pub new_image: Option<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl NewNic {
    /// Returns the card as number `number` of a machine.
    pub(crate) fn nic(&self, number: u8, defaults: &GuestDefaults) -> Nic {
        let model = self.model.as_deref().unwrap_or(defaults.nic_model);
        Nic {
            number,
            model: Some(model.to_owned()),
            network: self.network.clone(),
            mac: self.mac,
            mac_is_static: self.mac.is_some(),
            connected: true,
        }
    }
}

/// Returns a connected CD drive with an image in it, on the first free node that a machine with
/// these defaults has for one.
pub(crate) fn new_cd(vmx: &Vmx, defaults: &GuestDefaults, file: String) -> Result<Drive> {
    Ok(Drive {
        node: free_node(vmx, defaults.cd_bus, None).or_else(|_| free_node(vmx, Bus::Sata, None))?,
        medium: Medium::CdImage { file },
        connected: true,
    })
}

fn free_node(vmx: &Vmx, bus: Bus, model: Option<&str>) -> Result<Node> {
    vmx.free_node(bus, model)
        .ok_or_else(|| Error::invalid(format!("no place is left on {}", bus.name())))
}

/// Refuses a node that has a drive.
pub(crate) fn refuse_taken(machine: &Machine, node: Node) -> Result<()> {
    if machine.drives.iter().all(|drive| drive.node != node) {
        return Ok(());
    }
    Err(Error::invalid(format!("{node} has a drive already")))
}

/// Returns the controller of a node, if it is there already.
fn controller_of(machine: &Machine, node: Node) -> Option<&Controller> {
    let mut controllers = machine.controllers.iter();
    controllers.find(|found| found.bus == node.bus && found.number == node.controller)
}

/// Returns the bus of the machine's first disk.
fn bus_of_disks(machine: &Machine) -> Option<Bus> {
    machine.disks().next().map(|(node, _)| node.bus)
}
