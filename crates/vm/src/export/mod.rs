//! Exporting a machine: an OVA, an OVF with its files, or a folder as other products keep machines.
//! Chains are flattened. What is written appears under its name only when it is whole.

mod description;
mod folder;
mod package;
mod verify;

use std::io::Write;
use std::path::PathBuf;

use hako_block::{Cancel, Progress, Result};
use hako_formats::OpenOptions;
use hako_formats::digest::Algorithm;
use hako_formats::machine::Node;
use hako_pipeline::CopyOptions;

pub(crate) use description::{portable_stem, recorded_contents};
pub use verify::{Verified, verify_file};

use crate::Vm;
use crate::import::{Cds, Extent, find_snapshot, incoming_of};

/// What to export.
pub struct ExportRequest {
    /// The snapshot to export, by name or uid, instead of the current state.
    pub snapshot: Option<String>,
    /// How the files in an OVA or OVF are digested for its manifest; `None` for no manifest.
    pub manifest: Option<Algorithm>,
    /// Compression level of the disks of an OVA or OVF.
    pub level: Option<u32>,
    /// Record the SHA-256 of what the guest sees of each disk, in an OVA or OVF.
    pub record_contents: bool,
    /// Read what was written back before it gets its name.
    pub verify: bool,
    /// Replace a file that exists.
    pub force: bool,
    /// How to open the machine's disks.
    pub open: OpenOptions,
    /// The time, in seconds since 1970, that the files in an OVA get.
    pub time: u64,
    /// How many threads to use; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
    /// Most data bytes per second, if limited.
    pub rate: Option<u64>,
}

/// Where an export goes, and as what.
pub enum ExportTarget {
    /// One file.
    Ova(PathBuf),
    /// One file, into a pipe: compressed twice, first to know how large it gets.
    Pipe(Box<dyn Write + Send>),
    /// A new folder with an .ovf and its files.
    Ovf(PathBuf),
    /// A new folder with a .vmx and its disks.
    Vmx {
        /// The folder.
        folder: PathBuf,
        /// Who is to run it.
        product: Product,
    },
    /// A new folder with a domain's XML and its disks.
    Libvirt(PathBuf),
}

/// Who is to run a machine from its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Workstation and Fusion: sparse disks.
    Workstation,
    /// ESXi, which refuses those: flat disks, thin.
    Esxi,
}

/// A disk that was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedDisk {
    /// Where it is in the machine.
    pub node: Node,
    /// Its file.
    pub file: String,
    /// Its virtual size in bytes.
    pub virtual_size: u64,
    /// How many bytes of it are data.
    pub data_bytes: u64,
    /// SHA-256 of what the guest sees, if it was to be recorded.
    pub sha256: Option<[u8; 32]>,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportReport {
    /// Its disks.
    pub disks: Vec<ExportedDisk>,
    /// Whether what was written was read back and found right.
    pub verified: bool,
    /// Names of what an earlier, killed run had left behind and this one removed.
    pub cleared: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Exports a machine. It must be off, or `snapshot` be given; nobody changes it meanwhile.
///
/// Errors: [`hako_block::ErrorKind::Locked`] for one that runs or is suspended.
pub fn export(
    vm: &Vm,
    target: ExportTarget,
    request: &ExportRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ExportReport> {
    let snapshot = request.snapshot.as_deref();
    let snapshot = snapshot.map(|wanted| find_snapshot(vm, wanted));
    let snapshot = snapshot.transpose()?;
    let extent = Extent {
        snapshot: snapshot.as_ref(),
        has_hardware_of_now: false,
        // A package has no place for them; other products find them in the folder.
        cds: match target {
            ExportTarget::Vmx { .. } | ExportTarget::Libvirt(_) => Cds::All,
            _ => Cds::None,
        },
        keeps_shapes: false,
    };
    let mut incoming = incoming_of(vm, extent, &request.open)?;
    let mut warnings = std::mem::take(&mut incoming.warnings);
    let copy = CopyOptions {
        rate: request.rate,
        ..CopyOptions::new(progress, cancel).with_threads(request.threads)
    };
    let job = |incoming| package::Job::new(vm, incoming, request, copy);
    let mut report = match target {
        ExportTarget::Ova(path) => job(incoming)?.write_file(&path)?,
        ExportTarget::Pipe(writer) => job(incoming)?.write_pipe(writer)?,
        ExportTarget::Ovf(folder) => job(incoming)?.write_folder(&folder)?,
        ExportTarget::Vmx { folder, product } => {
            folder::to_vmx(vm, incoming, &folder, product, request.verify, copy)?
        }
        ExportTarget::Libvirt(folder) => {
            folder::to_libvirt(vm, incoming, &folder, request.verify, copy)?
        }
    };
    warnings.append(&mut report.warnings);
    Ok(ExportReport { warnings, ..report })
}
