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

use hako_block::{Access, BlockImage, Chain, Error, ErrorKind, Gate, GateRules, Opened, Result};
use hako_formats::machine::{DiskMedium, DiskMode, Drive, Machine, Medium, Node};
use hako_formats::{OpenOptions, OpenedChain, OpenedLayer, format_named, open_layer};

use super::super::{RunFolder, StartOptions};
use super::plan::{Layer, LayerFormat, Loaded, Source, name_of};
use super::scratch::Scratch;
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
    let has_serials = vm.vmx.dictionary().is_true("disk.EnableUUID");
    for drive in machine.drives.iter().filter(|drive| drive.connected) {
        let name = name_of(drive.node);
        let loaded = match &drive.medium {
            Medium::Disk(disk) => {
                let mut loaded = site.disk(disk, &name, &mut media)?;
                loaded.serial = loaded.serial.filter(|_| has_serials);
                Some(loaded)
            }
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
        let is_discarded =
            disk.mode == DiskMode::IndependentNonpersistent || self.options.discard_writes;
        let access = match is_discarded {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        let options = OpenOptions {
            access,
            rules: self.vm.rules(false),
            ..OpenOptions::default()
        };
        let opened = self
            .vm
            .open_disk(disk, &options)
            .map_err(|error| read_only_hint(&disk.file, error, is_discarded))?;
        media.warnings.extend(opened.oddities());
        let serial = serial_of(&opened);
        if is_discarded {
            let size = opened.chain.info().virtual_size;
            let scratch = Scratch::new(size, &self.scratch_folder())?;
            let layers: Vec<Arc<dyn BlockImage>> = vec![Arc::new(scratch), Arc::new(opened.chain)];
            let image = Arc::new(Chain::new(layers)?);
            let source = self.serve(image, name, true, media)?;
            return Ok(Loaded { source, serial });
        }
        if let Some(layers) = files_for_qemu(&opened.layers) {
            // QEMU locks them itself, and hako holds the machine meanwhile.
            drop(opened);
            let source = Source::Files {
                layers,
                writable: true,
            };
            return Ok(Loaded { source, serial });
        }
        if !opened.chain.info().writable {
            return Err(read_only_hint(&disk.file, Error::read_only(), false));
        }
        let source = self.serve(Arc::new(opened.chain), name, true, media)?;
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

    /// Where there is room for what is discarded: beside the disks, else where runs are kept.
    fn scratch_folder(&self) -> PathBuf {
        let own = self.vm.folder();
        match tempfile::tempfile_in(own) {
            Ok(_) => own.to_owned(),
            Err(_) => self.folder.path().to_owned(),
        }
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

/// Says what can be done about a disk that cannot be written to.
fn read_only_hint(file: &str, error: Error, is_discarded: bool) -> Error {
    let is_about_writing = matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::Unsupported);
    if !is_about_writing || is_discarded {
        return error;
    }
    let place = error.file().map(Path::to_owned);
    Error::new(error.kind(), error.finding())
        .in_file(place.unwrap_or_else(|| file.into()))
        .hint("start it with --discard-writes, or convert the disk first: hako disk convert")
}

/// Returns what a guest knows a disk by: VMware's ddb.uuid, without blanks.
fn serial_of(opened: &OpenedChain) -> Option<String> {
    let top = opened.layers.first()?;
    let details = &top.image.info().details;
    let uuid = details
        .iter()
        .find(|(key, _)| *key == "uuid")
        .map(|(_, value)| value)?;
    let hako_block::Value::Text(uuid) = uuid else {
        return None;
    };
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    (digits.len() == 32).then(|| digits.to_ascii_lowercase())
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
