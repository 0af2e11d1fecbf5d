//! Cloning a machine: another one with the same content and an identity of its own. Its disks are
//! flattened copies.

mod identity;

use std::path::PathBuf;

use hako_block::gate::replace_file;
use hako_block::{Cancel, Error, Progress, Result, StagedTree};
use hako_formats::machine::Node;
use hako_formats::{CreateOptions, DiskFormat, OpenOptions, format_named};
use hako_pipeline::CopyOptions;

use crate::check::check_name;
use crate::copy::Manner;
use crate::import::{Cds, Extent, Incoming, Text, UsedBy, incoming_of, new_folder, write_files};
use crate::vm::absolute;
use crate::{Entry, Home, Inventory, Vm};
use identity::Identity;

/// What to clone.
#[derive(Default)]
pub struct CloneRequest {
    /// The new machine's name; its files get it, too.
    pub name: String,
    /// Its folder, instead of one of its name where machines live.
    pub folder: Option<PathBuf>,
    /// The snapshot to clone, by name or uid, instead of the current state.
    pub snapshot: Option<String>,
    /// Format of its disks, instead of those that they have.
    pub format: Option<&'static dyn DiskFormat>,
    /// Variant of that format.
    pub subformat: Option<String>,
    /// Read each disk back before anything gets its name.
    pub verify: bool,
    /// How many threads to use; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
    /// Most data bytes per second, if limited.
    pub rate: Option<u64>,
}

/// A disk of a clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClonedDisk {
    /// Where it is in the machine.
    pub node: Node,
    /// Its file in the machine's folder.
    pub file: String,
    /// Its virtual size in bytes.
    pub virtual_size: u64,
    /// How many bytes of data were copied.
    pub data_bytes: u64,
}

/// What was cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneReport {
    /// The new machine's .vmx.
    pub vmx: PathBuf,
    /// Its disks.
    pub disks: Vec<ClonedDisk>,
    /// Names of what an earlier, killed run had left behind and this one removed.
    pub cleared: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Clones a machine and lists the clone in the inventory. Nothing appears under its folder's name
/// until it is whole.
///
/// Errors: [`hako_block::ErrorKind::Locked`] if the machine runs or is suspended and no snapshot
/// is asked for.
pub fn clone_vm(
    home: &Home,
    vm: &Vm,
    request: &CloneRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CloneReport> {
    let name = request.name.as_str();
    check_name(name)?;
    vm.vmx.clone().set_name(name)?; // Refused if it is encrypted.
    let folder = match &request.folder {
        Some(folder) => folder.clone(),
        None => new_folder(home, name)?,
    };
    let folder = absolute(&folder)?;
    let vmx = folder.join(format!("{name}.vmx"));
    Inventory::read(home)?
        .refuse_taken(name, &vmx)
        .map_err(|error| error.hint("choose another name"))?;
    let tree = StagedTree::new(&folder)?;
    let copy = CopyOptions {
        rate: request.rate,
        ..CopyOptions::new(progress, cancel).with_threads(request.threads)
    };
    let (disks, warnings) = full(home, vm, request, &tree, copy)?;
    cancel.check()?;
    let cleared = tree.cleared().to_vec();
    let entry = Entry {
        vmx: vmx.clone(),
        allow: allowed(vm),
        ..Entry::default()
    };
    Inventory::admit(home, name, entry, || tree.commit())?;
    Ok(CloneReport {
        vmx,
        disks,
        cleared,
        warnings,
    })
}

/// Returns what a clone may name beyond its folder: what the machine may.
fn allowed(vm: &Vm) -> Vec<PathBuf> {
    let paths = vm.rules(false).allow_paths.into_iter();
    let canonical = |path: PathBuf| std::fs::canonicalize(&path).unwrap_or(path);
    paths.map(canonical).collect()
}

/// Fills the tree with a clone that stands on nothing.
fn full(
    home: &Home,
    vm: &Vm,
    request: &CloneRequest,
    tree: &StagedTree,
    copy: CopyOptions<'_>,
) -> Result<(Vec<ClonedDisk>, Vec<String>)> {
    let name = request.name.as_str();
    let extent = Extent {
        snapshot: request.snapshot.as_deref(),
        cds: Cds::Own,
        keeps_shapes: request.format.is_none(),
    };
    let open = OpenOptions {
        rules: vm.rules(false),
        ..OpenOptions::default()
    };
    let mut incoming = incoming_of(vm, extent, &open)?;
    let mut warnings = std::mem::take(&mut incoming.warnings);
    warnings.extend(own_identity(home, vm, &mut incoming, name)?);
    let create = CreateOptions {
        subformat: request.subformat.clone(),
        ..CreateOptions::default()
    };
    let manner = Manner {
        format: request.format.map_or_else(|| format_named("vmdk"), Ok)?,
        create: &create,
        verify: request.verify,
        copy,
    };
    let (mut vmx, disks) = write_files(incoming, name, tree, &manner)?.into_vmx(name)?;
    warnings.extend(identity::settle(&mut vmx, vm, tree.path())?);
    replace_file(&tree.path().join(format!("{name}.vmx")), &vmx.to_bytes())?;
    let disks = disks.into_iter().map(|disk| ClonedDisk {
        node: disk.node,
        file: disk.file,
        virtual_size: disk.virtual_size,
        data_bytes: disk.data_bytes,
    });
    Ok((disks.collect(), warnings))
}

/// Gives what is to be written an identity of its own; returns what the user should know.
fn own_identity(home: &Home, vm: &Vm, incoming: &mut Incoming, name: &str) -> Result<Vec<String>> {
    let Text::Vmx(vmx) = &mut incoming.text else {
        return Err(Error::invalid("a machine without a VMX").in_file(vm.path()));
    };
    // It names the .vmx and has an identity inside; products make a new one.
    let extended = UsedBy::Key("extendedConfigFile".to_owned());
    incoming.files.retain(|file| file.used_by != extended);
    let mut told = Identity { home, name }.give(vmx)?;
    let stem = vm.stem();
    for file in &mut incoming.files {
        let rest = file.name.strip_prefix(&stem);
        let Some(rest) = rest.filter(|rest| rest.starts_with(['.', '-', '_'])) else {
            continue;
        };
        if rest == "-seed.iso" {
            told.push(format!(
                "cloud-init in the clone takes itself for the same instance: its seed is that of \
                 {}",
                vm.name()
            ));
        }
        file.name = format!("{name}{rest}");
    }
    Ok(told)
}
