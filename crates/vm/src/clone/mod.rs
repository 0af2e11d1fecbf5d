//! Cloning a machine: another one with the same content and an identity of its own. A full clone
//! has flattened copies of its disks; those of a linked clone are overlays on what a snapshot holds.

mod identity;
mod linked;
mod subject;

use std::path::PathBuf;

use hako_block::gate::replace_file;
use hako_block::{Cancel, Error, ErrorKind, Progress, Result, StagedTree};
use hako_formats::machine::{DiskMedium, Node};
use hako_formats::vmsd::Snapshot;
use hako_formats::vmx::Vmx;
use hako_formats::{CreateOptions, DiskFormat, OpenOptions, Task, format_named};
use hako_pipeline::CopyOptions;

use crate::check::check_name;
use crate::copy::Manner;
use crate::import::{Cds, Extent, Incoming, Text, UsedBy, incoming_of, new_folder, write_files};
use crate::vm::absolute;
use crate::{Entry, Home, Inventory, Vm};
use identity::Identity;
use linked::{Overlays, list_of_clone};
use subject::Subject;

/// What to clone.
#[derive(Default)]
pub struct CloneRequest {
    /// The new machine's name; its files get it, too.
    pub name: String,
    /// Its folder, instead of one of its name where machines live.
    pub folder: Option<PathBuf>,
    /// The snapshot to clone, by name, path or uid, instead of the current state.
    pub snapshot: Option<String>,
    /// Make overlays on what a snapshot holds, instead of copies. Without a snapshot it is the one
    /// that the current state comes from, if nothing was written since; else one is taken.
    pub linked: bool,
    /// When a snapshot is taken, in microseconds since 1970.
    pub created_us: u64,
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
    /// What it stands on.
    pub parent: Option<PathBuf>,
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
/// Errors: [`hako_block::ErrorKind::Locked`] if the machine runs or is suspended, unless a full
/// clone of a snapshot is asked for.
pub fn clone_vm(
    home: &Home,
    mut vm: Vm,
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
    let another = |error: Error| match error.kind() {
        ErrorKind::Exists => error.hint("choose another name"),
        _ => error,
    };
    if !request.linked || request.snapshot.is_none() {
        // Before much is done; what takes no time is told when the clone is listed.
        Inventory::read(home)?
            .refuse_taken(name, &vmx)
            .map_err(another)?;
    }
    let tree = StagedTree::new(&folder)?;
    let task = Task { progress, cancel };
    let Subject {
        held: _held,
        snapshot,
        mut warnings,
    } = Subject::find(&mut vm, request, task)?;
    let copy = CopyOptions {
        rate: request.rate,
        ..CopyOptions::new(progress, cancel).with_threads(request.threads)
    };
    let job = Job {
        home,
        vm: &vm,
        request,
        snapshot,
        tree: &tree,
        copy,
    };
    let (disks, told) = match request.linked {
        true => job.linked()?,
        false => job.full()?,
    };
    warnings.extend(told);
    cancel.check()?;
    let cleared = tree.cleared().to_vec();
    let entry = Entry {
        vmx: vmx.clone(),
        allow: allowed(&vm, request.linked),
        base: request.linked.then(|| vm.path().to_path_buf()),
        ..Entry::default()
    };
    Inventory::admit(home, name, entry, || tree.commit()).map_err(another)?;
    Ok(CloneReport {
        vmx,
        disks,
        cleared,
        warnings,
    })
}

/// Returns what a clone may name beyond its folder: what the machine may, and a linked one what it
/// stands on.
fn allowed(vm: &Vm, linked: bool) -> Vec<PathBuf> {
    let mut paths = vm.rules(false).allow_paths;
    for path in &mut paths {
        *path = std::fs::canonicalize(&*path).unwrap_or_else(|_| path.clone());
    }
    let folder = vm.folder().to_path_buf();
    if linked && !paths.contains(&folder) {
        paths.push(folder);
    }
    paths
}

/// A clone that is being made.
struct Job<'a> {
    home: &'a Home,
    vm: &'a Vm,
    request: &'a CloneRequest,
    snapshot: Option<Snapshot>,
    tree: &'a StagedTree,
    copy: CopyOptions<'a>,
}

/// The disks of a clone, and what the user should know.
type Done = (Vec<ClonedDisk>, Vec<String>);

impl Job<'_> {
    /// Fills the tree with a clone that stands on nothing.
    fn full(&self) -> Result<Done> {
        let (incoming, mut told) = self.incoming()?;
        let create = CreateOptions {
            subformat: self.request.subformat.clone(),
            ..CreateOptions::default()
        };
        let manner = Manner {
            format: self
                .request
                .format
                .map_or_else(|| format_named("vmdk"), Ok)?,
            create: &create,
            verify: self.request.verify,
            copy: self.copy,
        };
        let written = write_files(incoming, self.name(), self.tree, &manner)?;
        let (vmx, disks) = written.into_vmx(self.name())?;
        told.extend(self.write_text(vmx)?);
        let disks = disks.into_iter().map(|disk| ClonedDisk {
            node: disk.node,
            file: disk.file,
            virtual_size: disk.virtual_size,
            data_bytes: disk.data_bytes,
            parent: None,
        });
        Ok((disks.collect(), told))
    }

    /// Fills the tree with a clone that stands on what a snapshot holds.
    fn linked(&self) -> Result<Done> {
        let (mut incoming, mut told) = self.incoming()?;
        let nodes: Vec<Node> = incoming.disks.drain(..).map(|disk| disk.node).collect();
        let held = self.snapshot.iter().flat_map(|snapshot| &snapshot.disks);
        let held = held.filter(|disk| nodes.contains(&disk.node));
        let disks: Vec<(Node, DiskMedium)> = held.map(|disk| (disk.node, disk.medium())).collect();
        let create = CreateOptions::default();
        let manner = Manner {
            format: format_named("vmdk")?,
            create: &create,
            verify: false,
            copy: self.copy,
        };
        let written = write_files(incoming, self.name(), self.tree, &manner)?;
        let (mut vmx, _) = written.into_vmx(self.name())?;
        let overlays = Overlays {
            vm: self.vm,
            name: self.name(),
            tree: self.tree,
        };
        let disks = overlays.make(&mut vmx, &disks)?;
        let list = list_of_clone(self.vm.path(), &disks)?;
        let path = self.tree.path().join(format!("{}.vmsd", self.name()));
        replace_file(&path, &list)?;
        told.extend(self.write_text(vmx)?);
        Ok((disks, told))
    }

    fn name(&self) -> &str {
        &self.request.name
    }

    /// Returns what is to be written, with an identity of its own, and what the user should know.
    fn incoming(&self) -> Result<(Incoming, Vec<String>)> {
        let extent = Extent {
            snapshot: self.snapshot.as_ref(),
            has_hardware_of_now: self.request.snapshot.is_none(),
            cds: Cds::Own,
            keeps_shapes: self.request.format.is_none(),
        };
        let open = OpenOptions {
            rules: self.vm.rules(false),
            ..OpenOptions::default()
        };
        let mut incoming = incoming_of(self.vm, extent, &open)?;
        let mut told = std::mem::take(&mut incoming.warnings);
        let Text::Vmx(vmx) = &mut incoming.text else {
            return Err(Error::invalid("a machine without a VMX").in_file(self.vm.path()));
        };
        let identity = Identity {
            home: self.home,
            name: self.name(),
        };
        told.extend(identity.give(vmx)?);
        told.extend(self.rename(&mut incoming));
        Ok((incoming, told))
    }

    /// Names files after the clone that were named after the machine; returns what the user should
    /// know.
    fn rename(&self, incoming: &mut Incoming) -> Option<String> {
        // It names the .vmx and has an identity inside; products make a new one.
        let extended = UsedBy::Key("extendedConfigFile".to_owned());
        incoming.files.retain(|file| file.used_by != extended);
        let stem = self.vm.stem();
        let mut told = None;
        for file in &mut incoming.files {
            let rest = file.name.strip_prefix(&stem);
            let Some(rest) = rest.filter(|rest| rest.starts_with(['.', '-', '_'])) else {
                continue;
            };
            if rest == "-seed.iso" {
                told = Some(format!(
                    "cloud-init in the clone takes itself for the same instance: its seed is that \
                     of {}",
                    self.vm.name()
                ));
            }
            file.name = format!("{}{rest}", self.name());
        }
        told
    }

    /// Writes the clone's text, last of all; returns what the user should know.
    fn write_text(&self, mut vmx: Vmx) -> Result<Vec<String>> {
        let told = identity::settle(&mut vmx, self.vm, self.tree.path())?;
        let path = self.tree.path().join(format!("{}.vmx", self.name()));
        replace_file(&path, &vmx.to_bytes())?;
        Ok(told)
    }
}
