//! What is in a machine's drives, and how QEMU gets at it.
//!
//! QEMU reads and writes raw files and qcow2 itself: its own formats, which it writes as safely as
//! we do. Everything else is opened and served here, as raw bytes: QEMU's writers of foreign formats
//! leave VMDK's content IDs as they were, know no CBT, no split flat deltas, no differencing VHD,
//! VHDX or VDI, and cannot write streamOptimized or SESparse at all.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::{Access, BlockImage, Error, Gate, GateRules, Opened, Result};
use hako_formats::machine::{DiskMedium, Drive, Machine, Medium, Node};
use hako_formats::{OpenOptions, OpenedLayer, format_named, open_layer};

use super::super::disks::{OpenedDisk, name_of};
use super::super::{RunFolder, StartOptions};
use super::plan::{Layer, LayerFormat, Loaded, Source};
use super::served::{Serving, socket_name};
use crate::Vm;
use crate::guest::guest_defaults;

/// What the drives of a machine get.
#[derive(Default)]
pub(super) struct Media {
    /// By drive.
    pub loaded: BTreeMap<Node, Loaded>,
    /// The floppy disk.
    pub floppy: Option<Loaded>,
    /// What is to be served before QEMU starts.
    pub serving: Vec<Serving>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Puts the images that the user gave into the machine's CD drives, the first drive first; a drive
/// is added where there are too few.
pub(super) fn insert(machine: &mut Machine, vm: &Vm, cdroms: &[PathBuf]) -> Result<()> {
    let is_cd = |drive: &Drive| {
        matches!(
            drive.medium,
            Medium::CdImage { .. } | Medium::CdDevice { .. } | Medium::CdEmpty
        )
    };
    let mut vmx = vm.vmx.clone();
    let mut nodes = machine
        .drives
        .iter()
        .filter(|d| is_cd(d))
        .map(|d| d.node)
        .collect::<Vec<_>>()
        .into_iter();
    for path in cdroms {
        let file = path
            .to_str()
            .ok_or_else(|| Error::unsupported("is no path in UTF-8").in_file(path))?;
        let medium = Medium::CdImage {
            file: file.to_owned(),
        };
        match nodes.next() {
            Some(node) => {
                let drives = machine.drives.iter_mut().filter(|drive| drive.node == node);
                for drive in drives {
                    drive.medium = medium.clone();
                    drive.connected = true;
                }
            }
            None => {
                let guest_os = machine.guest_os.as_deref().unwrap_or_default();
                let bus = guest_defaults(guest_os).cd_bus;
                let free = vmx.free_node(bus, None);
                let free = free.or_else(|| vmx.free_node(hako_formats::machine::Bus::Sata, None));
                let node = free.ok_or_else(|| Error::invalid("no place is left for a CD drive"))?;
                let drive = Drive {
                    node,
                    medium,
                    connected: true,
                };
                vmx.put_drive(&drive, None)?;
                machine.drives.push(drive);
                machine.drives.sort_by_key(|drive| drive.node);
            }
        }
    }
    Ok(())
}

/// Opens what is in the drives of `machine`, which is `vm` with the user's CDs. Errors: a disk that
/// cannot be opened, or not be written to. A CD that cannot is told, and its drive is empty.
pub(super) fn open(
    vm: &Vm,
    machine: &Machine,
    options: &StartOptions,
    folder: &RunFolder,
) -> Result<Media> {
    let mut media = Media::default();
    let site = Site {
        vm,
        options,
        folder,
    };
    for drive in machine.drives.iter().filter(|drive| drive.connected) {
        let name = name_of(drive.node);
        let loaded = match &drive.medium {
            Medium::Disk(disk) => Some(site.disk(disk, &name, &mut media)?),
            Medium::CdImage { file } => site.read_only(file, &name, &mut media),
            _ => None,
        };
        if let Some(loaded) = loaded {
            media.loaded.insert(drive.node, loaded);
        }
    }
    media.floppy = site.floppy(&mut media);
    Ok(media)
}

struct Site<'a> {
    vm: &'a Vm,
    options: &'a StartOptions,
    folder: &'a RunFolder,
}

impl Site<'_> {
    fn disk(&self, disk: &DiskMedium, name: &str, media: &mut Media) -> Result<Loaded> {
        let warnings = &mut media.warnings;
        let opened = OpenedDisk::open(self.vm, disk, self.options, self.folder, warnings)?;
        let serial = opened.serial.clone();
        if let Some(layers) = opened.layers.as_deref().and_then(files_for_qemu) {
            // QEMU locks them itself, and hako holds the machine meanwhile.
            drop(opened);
            let source = Source::Files {
                layers,
                writable: true,
            };
            return Ok(Loaded { source, serial });
        }
        let source = self.serve(opened.writable()?, name, true, media)?;
        Ok(Loaded { source, serial })
    }

    fn serve(
        &self,
        image: Arc<dyn BlockImage>,
        name: &str,
        writable: bool,
        media: &mut Media,
    ) -> Result<Source> {
        let socket = self.folder.socket(&socket_name(name))?;
        media.serving.push(Serving {
            name: name.to_owned(),
            image,
            writable,
        });
        Ok(Source::Nbd { socket, writable })
    }

    /// Returns an image that is only read, byte for byte; none, with a warning, if it cannot be
    /// opened.
    fn read_only(&self, file: &str, name: &str, media: &mut Media) -> Option<Loaded> {
        let opened = match self
            .options
            .cdroms
            .iter()
            .any(|given| given == Path::new(file))
        {
            true => Gate::open_user(Path::new(file), Access::ReadOnly, &GateRules::default()),
            false => self
                .vm
                .open_file(file, Access::ReadOnly, &self.vm.rules(false)),
        };
        let loaded = opened.and_then(|opened| self.raw(opened, name, media));
        loaded
            .inspect_err(|error| media.warnings.push(format!("{name} is empty: {error}")))
            .ok()
    }

    fn raw(&self, opened: Opened, name: &str, media: &mut Media) -> Result<Loaded> {
        let layer = open_layer(format_named("raw")?, opened, &OpenOptions::default())?;
        let source = match files_for_qemu(std::slice::from_ref(&layer)) {
            Some(layers) => Source::Files {
                layers,
                writable: false,
            },
            None => self.serve(layer.image, name, false, media)?,
        };
        Ok(Loaded {
            source,
            serial: None,
        })
    }

    /// The floppy disk in the drive, if it is an image.
    fn floppy(&self, media: &mut Media) -> Option<Loaded> {
        let keys = self.vm.vmx.dictionary();
        let word = |key: &str| keys.value(&format!("floppy0.{key}")).unwrap_or_default();
        if !keys.is_true("floppy0.present") || keys.is_false("floppy0.startConnected") {
            return None;
        }
        let file = word("fileName");
        if !word("fileType").trim().eq_ignore_ascii_case("file") || file.is_empty() {
            media
                .warnings
                .push("floppy0 is left out: QEMU gets no drive of the host".to_owned());
            return None;
        }
        media.warnings.push("floppy0 is write-protected".to_owned());
        self.read_only(&file, "floppy0", media)
    }
}

/// Returns the layers as files that QEMU may have, if all of them are such.
fn files_for_qemu(layers: &[OpenedLayer]) -> Option<Vec<Layer>> {
    let layers = layers.iter().map(|layer| {
        let info = layer.image.info();
        let format = match info.format {
            "raw" => LayerFormat::Raw,
            "qcow2" => LayerFormat::Qcow2,
            _ => return None,
        };
        // Anything else beside it, like a qcow2's data file, QEMU would find by itself.
        let is_alone = info.files.len() == 1 && !layer.args.storage.is_device();
        let path = PathBuf::from(layer.args.storage.name());
        let metadata = std::fs::metadata(&path).ok()?;
        let id = layer.args.storage.id()?;
        let is_it = (id.device, id.inode) == (metadata.dev(), metadata.ino());
        (is_alone && is_it && metadata.is_file() && path.is_absolute())
            .then_some(Layer { path, format })
    });
    layers.collect()
}
