//! Importing a machine: an OVA, an OVF with its files, the folder of another product, or a disk by
//! itself becomes a machine in a folder of its own.
//!
//! Everything is written into a hidden folder beside the final one, which gets its name last.
//! Disks in an OVA are read where they lie; what is compared with the manifest is read meanwhile.

mod arrival;
mod bare;
mod envelope;
mod folder;
mod incoming;
mod list;
mod package;
mod unpack;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::lock::lock_file;
use hako_block::{
    Access, BlockImage, Cancel, Error, FileStorage, LockMode, Progress, Result, StagedTree, Storage,
};
use hako_disk::Inflow;
use hako_formats::machine::Node;
use hako_formats::ova::{Ova, is_wrapped, looks_like_tar};
use hako_formats::ovf::Envelope;
use hako_formats::{CreateOptions, DiskFormat, OpenOptions};
use hako_pipeline::CopyOptions;

use arrival::{Arrived, Coming};
use envelope::Expected;
pub use envelope::PackageChoices;
pub(crate) use envelope::open as open_image;
pub(crate) use folder::{Cds, Extent, find_snapshot, hold, incoming_of};
use incoming::NewDisk;
pub(crate) use incoming::{Content, Incoming, NewFile, Text, UsedBy};
pub use list::{ListedDisk, ListedSystem, Listing};
pub(crate) use package::Package;
use write::disk_name;
pub(crate) use write::write_files;

use crate::check::check_name;
use crate::copy::{Manner, copy_image};
use crate::files::the_one;
use crate::room::check_room_of_compressed;
use crate::vm::absolute;
use crate::{Entry, Home, Inventory};

const STDIN: &str = "standard input";

/// Where a machine comes from.
pub enum ImportSource {
    /// An .ova, an .ovf, a .vmx, a folder with one of these, or a disk.
    Path(PathBuf),
    /// An OVA on standard input. A regular file is read in place. Of what comes through a pipe,
    /// streamOptimized disks behind their description are converted while they pass; the rest is
    /// kept in an unnamed file meanwhile.
    Stdin(File),
}

/// What to import.
pub struct ImportRequest {
    /// Where it comes from.
    pub source: ImportSource,
    /// How to open it.
    pub open: OpenOptions,
    /// What the user chose of what a package offers.
    pub choices: PackageChoices,
    /// The guest system of a disk by itself, by its VMX name.
    pub guest_os: Option<String>,
    /// The new machine's name; by default the one it has.
    pub name: Option<String>,
    /// Its folder; by default one in the home.
    pub to: Option<PathBuf>,
    /// Format of its disks.
    pub format: &'static dyn DiskFormat,
    /// What the user chose about them.
    pub create: CreateOptions,
    /// Read each disk back before anything gets its name.
    pub verify: bool,
    /// How many threads to use; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
    /// Most data bytes per second, if limited.
    pub rate: Option<u64>,
    /// Where to keep what comes through a pipe and cannot be converted at once.
    pub temp_folder: PathBuf,
}

/// A disk that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedDisk {
    /// Where it is in the machine.
    pub node: Node,
    /// Its file in the machine's folder.
    pub file: String,
    /// Its virtual size in bytes.
    pub virtual_size: u64,
    /// How many bytes of it are data.
    pub data_bytes: u64,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// The new machine's name.
    pub name: String,
    /// Its .vmx.
    pub vmx: PathBuf,
    /// Its disks.
    pub disks: Vec<ImportedDisk>,
    /// Whether everything was compared with a manifest.
    pub verified: bool,
    /// Names of what an earlier, killed run had left behind and this one removed.
    pub cleared: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Imports a machine and registers it. Nothing appears under its folder's name until it is whole.
///
/// Errors: [`hako_block::ErrorKind::Mismatch`] if a file is not what the manifest or the
/// description says.
pub fn import(
    home: &Home,
    request: ImportRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ImportReport> {
    let manner = Manner {
        format: request.format,
        create: &request.create,
        verify: request.verify,
        copy: CopyOptions {
            rate: request.rate,
            ..CopyOptions::new(progress, cancel).with_threads(request.threads)
        },
    };
    let wanted = Wanted {
        home,
        name: request.name,
        to: request.to,
    };
    let reports = (progress, cancel);
    let found = find(request.source, &request.open, cancel)?;
    let own_name = found.stem();
    let (mut incoming, begun) = match found {
        Found::Package(package, _) => (envelope::incoming(*package, &request.choices)?, None),
        Found::Coming(coming) => {
            let mut arriving = Arriving {
                wanted: &wanted,
                choices: &request.choices,
                manner: &manner,
                begun: None,
                disks: Vec::new(),
            };
            let package = arrival::receive(coming, &request.temp_folder, &mut arriving, reports)?;
            let incoming = envelope::incoming(package, &request.choices)?;
            (incoming, arriving.begun)
        }
        Found::Vmx(path) => (folder::incoming(&path, &request.open)?, None),
        Found::Disk(path) => {
            let guest_os = request.guest_os.as_deref();
            (bare::incoming(&path, guest_os, &request.open)?, None)
        }
    };
    let Begun { name, vmx, tree } = match begun {
        Some(begun) => begun,
        None => {
            let begun = wanted.begin(name_of(&incoming, own_name))?;
            begun.check_room(incoming.disks.iter().filter_map(NewDisk::compressed_bytes))?;
            begun
        }
    };
    let warnings = std::mem::take(&mut incoming.warnings);
    let verified = incoming.is_verified;
    let disks = write_files(incoming, &name, &tree, &manner)?.write_text(&name, &name, &tree)?;
    cancel.check()?;
    let cleared = tree.cleared().to_vec();
    let entry = Entry {
        vmx: vmx.clone(),
        ..Entry::default()
    };
    Inventory::admit(home, &name, entry, || tree.commit())?;
    Ok(ImportReport {
        name,
        vmx,
        disks,
        verified,
        cleared,
        warnings,
    })
}

/// What the user said of the new machine's place.
struct Wanted<'a> {
    home: &'a Home,
    name: Option<String>,
    to: Option<PathBuf>,
}

/// A machine's place that is being filled.
struct Begun {
    name: String,
    vmx: PathBuf,
    tree: StagedTree,
}

impl Begun {
    /// Refuses disks that have no room, as far as that is known: compressed files of so many bytes.
    fn check_room(&self, compressed: impl Iterator<Item = u64>) -> Result<()> {
        let all = compressed.fold(0, u64::saturating_add);
        check_room_of_compressed(self.tree.path(), all)
    }
}

impl Wanted<'_> {
    /// Begins the folder of a machine that calls itself `own_name`.
    fn begin(&self, own_name: String) -> Result<Begun> {
        let name = self.name.clone().unwrap_or(own_name);
        let rename = |error: Error| error.hint("give it another name: --name NAME");
        check_name(&name).map_err(rename)?;
        let target = match &self.to {
            Some(target) => target.clone(),
            None => new_folder(self.home, &name)?,
        };
        let target = absolute(&target)?;
        let vmx = target.join(format!("{name}.vmx"));
        Inventory::read(self.home)?
            .refuse_taken(&name, &vmx)
            .map_err(rename)?;
        let tree = StagedTree::new(&target)?;
        Ok(Begun { name, vmx, tree })
    }
}

/// Writes the disks of a package while they come.
struct Arriving<'a> {
    wanted: &'a Wanted<'a>,
    choices: &'a PackageChoices,
    manner: &'a Manner<'a>,
    begun: Option<Begun>,
    /// Those that may be written when they come.
    disks: Vec<Expected>,
}

impl arrival::Receiver for Arriving<'_> {
    fn described(&mut self, envelope: &Envelope) -> Result<Vec<String>> {
        let (name, disks) = envelope::expected(envelope, self.choices)?;
        let begun = self.wanted.begin(named(name, String::new()))?;
        begun.check_room(disks.iter().filter_map(|disk| disk.size))?;
        self.begun = Some(begun);
        self.disks = disks;
        Ok(self.disks.iter().map(|disk| disk.href.clone()).collect())
    }

    fn disk(&mut self, index: usize, image: &dyn BlockImage) -> Result<Arrived> {
        let (Some(begun), Some(disk)) = (&self.begun, self.disks.get(index)) else {
            return Err(Error::invalid("a disk comes before its description"));
        };
        let file = disk_name(&begun.name, disk.index, self.manner.format);
        let path = begun.tree.path().join(&file);
        let capacity = Some(disk.capacity);
        let (virtual_size, data_bytes) = copy_image(image, capacity, &path, self.manner)?;
        Ok(Arrived {
            file,
            virtual_size,
            data_bytes,
            ..Arrived::default()
        })
    }
}

/// Looks at what a package offers and writes none of its disks.
struct Looking;

impl arrival::Receiver for Looking {
    fn described(&mut self, _envelope: &Envelope) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn disk(&mut self, _index: usize, _image: &dyn BlockImage) -> Result<Arrived> {
        Err(Error::invalid("no disk was asked for"))
    }
}

/// Finds out what a source offers, without writing anything.
pub fn list_import(
    source: ImportSource,
    open: &OpenOptions,
    temp_folder: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Listing> {
    match find(source, open, cancel)? {
        Found::Package(package, _) => Ok(Listing::of_package(&package)),
        Found::Coming(coming) => {
            let reports = (progress, cancel);
            let package = arrival::receive(coming, temp_folder, &mut Looking, reports)?;
            Ok(Listing::of_package(&package))
        }
        Found::Vmx(path) => Listing::of_vmx(&path, open),
        Found::Disk(path) => Listing::of_disk(&path, None, open),
    }
}

/// What a source turned out to be.
enum Found {
    /// With the name of its file.
    Package(Box<Package>, String),
    /// A package that is still to come: through a pipe, or out of a gzip.
    Coming(Coming),
    Vmx(PathBuf),
    Disk(PathBuf),
}

impl Found {
    /// Returns the name that its file suggests.
    fn stem(&self) -> String {
        match self {
            Found::Package(_, stem) => stem.clone(),
            // What is left of web.ova.gz names the machine, if it does not itself.
            Found::Coming(coming) if coming.name != Path::new(STDIN) => {
                bare::stem(Path::new(&bare::stem(&coming.name)))
            }
            Found::Coming(_) => String::new(),
            Found::Vmx(path) | Found::Disk(path) => bare::stem(path),
        }
    }
}

fn find(source: ImportSource, open: &OpenOptions, cancel: &Cancel) -> Result<Found> {
    let path = match source {
        ImportSource::Path(path) => path,
        ImportSource::Stdin(file) => {
            let storage = match Inflow::of(file, Path::new(STDIN), &open.rules)? {
                Inflow::Pipe(pipe) => {
                    return Ok(Found::Coming(Coming {
                        name: PathBuf::from(STDIN),
                        pipe: Box::new(pipe),
                    }));
                }
                Inflow::InPlace(storage) => storage,
            };
            let package = Package::of_tar(Ova::open(Arc::new(storage))?, cancel)?;
            return Ok(Found::Package(Box::new(package), String::new()));
        }
    };
    let path = match path.is_dir() {
        true => main_file(&path)?,
        false => path,
    };
    let is = |extension: &str| {
        path.extension()
            .is_some_and(|found| found.eq_ignore_ascii_case(extension))
    };
    let package = if open.from.is_some() {
        return Ok(Found::Disk(path));
    } else if is("vmx") {
        return Ok(Found::Vmx(path));
    } else if is("ovf") {
        Package::of_file(&path, &open.rules, cancel)?
    } else if is("ova") || (!is_raw(&path) && is_package(&path)?) {
        if is_gzip(&path)? {
            return coming(&path, open);
        }
        let storage = FileStorage::open(&path, Access::ReadOnly, lock(open))?;
        Package::of_tar(Ova::open(Arc::new(storage))?, cancel)?
    } else {
        return Ok(Found::Disk(path));
    };
    let stem = bare::stem(&path);
    Ok(Found::Package(Box::new(package), stem))
}

fn lock(open: &OpenOptions) -> LockMode {
    match open.rules.no_lock {
        true => LockMode::None,
        false => LockMode::Read,
    }
}

/// Opens a packed package: it is read as one that comes through a pipe.
fn coming(path: &Path, open: &OpenOptions) -> Result<Found> {
    let file = File::open(path).map_err(|error| Error::io("open", error).in_file(path))?;
    if !open.rules.no_lock {
        lock_file(&file, path, LockMode::Read)?;
    }
    Ok(Found::Coming(Coming {
        name: path.to_path_buf(),
        pipe: Box::new(file),
    }))
}

/// Returns the file in a folder that describes a machine.
fn main_file(path: &Path) -> Result<PathBuf> {
    let found = match the_one(path, "vmx")? {
        Some(found) => Some(found),
        None => the_one(path, "ovf")?,
    };
    found.ok_or_else(|| Error::invalid("has neither a .vmx nor an .ovf in it").in_file(path))
}

/// Returns whether the name says that it is a disk's bytes, which may look like anything.
fn is_raw(path: &Path) -> bool {
    let extension = path
        .extension()
        .map(|text| text.to_string_lossy().to_lowercase());
    matches!(extension.as_deref(), Some("raw" | "img" | "dd"))
}

/// Returns whether a file is a tar, or was one before it was packed.
fn is_package(path: &Path) -> Result<bool> {
    let head = head(path)?;
    Ok(looks_like_tar(&head) || is_wrapped(&head))
}

fn is_gzip(path: &Path) -> Result<bool> {
    Ok(head(path)?.starts_with(&arrival::GZIP_MAGIC))
}

/// Returns the first bytes of a file; none of what is no file, or too short to be a package.
fn head(path: &Path) -> Result<Vec<u8>> {
    let is_file = std::fs::metadata(path)
        .map_err(|error| Error::io("open", error).in_file(path))?
        .is_file();
    if !is_file {
        return Ok(Vec::new());
    }
    let storage = FileStorage::open(path, Access::ReadOnly, LockMode::None)?;
    let mut head = vec![0; 512];
    if storage.len_bytes()? < head.len() as u64 {
        return Ok(Vec::new());
    }
    storage.read_at(0, &mut head)?;
    Ok(head)
}

/// Returns the name that a machine has, or that its file suggests.
fn name_of(incoming: &Incoming, own: String) -> String {
    let name = match &incoming.text {
        Text::Machine(machine) => machine.name.clone(),
        Text::Vmx(vmx) => vmx.machine().name,
    };
    named(name, own)
}

fn named(name: String, own: String) -> String {
    match (name.trim().is_empty(), own.is_empty()) {
        (false, _) => name,
        (true, false) => own,
        (true, true) => "imported".to_owned(),
    }
}

/// Returns the folder that a new machine gets where machines live.
pub(crate) fn new_folder(home: &Home, name: &str) -> Result<PathBuf> {
    let vms = home.vms();
    std::fs::create_dir_all(&vms).map_err(|error| Error::io("create", error).in_file(&vms))?;
    Ok(vms.join(name))
}
