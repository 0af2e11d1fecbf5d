//! The image files of a machine: what stands on what, and who refers to them.
//!
//! It is read without locks and whatever is broken: a parent that is missing, or another one than
//! the overlay was made on, is told and not an error. Nothing is changed here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hako_block::gate::file_names;
use hako_block::{Access, Error, ErrorKind, FileId, Gate, ImageInfo, Opened, Resolver, Result};
use hako_formats::machine::{DiskMedium, DiskMode, Node};
use hako_formats::vmsd::Snapshot;
use hako_formats::{
    DiskFormat, OpenOptions, OpenedLayer, descriptor_name, detect, find_parent, format_named,
    open_layer,
};

use super::plan::{TreeImage, Use};
use crate::files::machine_of_config;
use crate::users::file_id;
use crate::{Home, Inventory, Vm};

/// A machine's image files and what refers to them.
pub(crate) struct Graph {
    /// The images, each once.
    pub images: Vec<Image>,
    /// What refers to them by name: texts of this machine and of others.
    pub references: Vec<Reference>,
    /// Files in the folder that look like images and cannot be read.
    pub unreadable: Vec<(PathBuf, Error)>,
}

/// An image file.
pub(crate) struct Image {
    /// Its main file, where it really is.
    pub path: PathBuf,
    /// Its format.
    pub format: &'static str,
    /// What it says of itself.
    pub info: ImageInfo,
    /// Its files, the main one first.
    pub files: Vec<PathBuf>,
    /// What it stands on.
    pub below: Below,
    /// What is broken; it is read as far as it goes.
    pub damage: Option<Error>,
    /// Whether it is in the machine's folder.
    pub is_own: bool,
}

/// What an image stands on.
pub(crate) enum Below {
    /// Nothing: it is a base.
    Nothing,
    /// An image, by its place in the graph.
    Image(usize),
    /// A parent that is not found, or may not be opened.
    #[allow(dead_code)] // For the doctor, who follows.
    Lost(Error),
}

/// A reference to an image.
pub(crate) struct Reference {
    /// Who refers to it.
    pub by: Holder,
    /// How the text calls it.
    pub file: String,
    /// The image, by its place in the graph.
    pub image: Result<usize>,
}

/// Who refers to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The machine as it is now.
    Present {
        /// Where the disk is.
        node: Node,
        /// Whether snapshots leave it alone.
        is_independent: bool,
    },
    /// A snapshot.
    Snapshot {
        /// Its uid.
        uid: u32,
        /// Where the disk was.
        node: Node,
    },
    /// Another machine, of that name.
    Machine(String),
}

impl Graph {
    /// Looks at the machine's images, those of its snapshots, and what else stands on them.
    pub(crate) fn of(home: &Home, vm: &Vm, snapshots: &[Snapshot]) -> Result<Self> {
        let mut search = Search::new(vm);
        for (node, disk) in vm.disks() {
            let is_independent = is_independent(disk.mode);
            let by = Holder::Present {
                node,
                is_independent,
            };
            search.refer(by, &disk);
        }
        for snapshot in snapshots {
            for disk in &snapshot.disks {
                let by = Holder::Snapshot {
                    uid: snapshot.uid,
                    node: disk.node,
                };
                search.refer(by, &disk.medium());
            }
        }
        search.look_around()?;
        for (uid, clone) in vm.unlisted_clones(home)? {
            let snapshot = snapshots.iter().find(|snapshot| snapshot.uid == uid);
            for disk in snapshot.iter().flat_map(|snapshot| &snapshot.disks) {
                let by = Holder::Machine(clone.to_string_lossy().into_owned());
                search.refer(by, &disk.medium());
            }
        }
        search.other_machines(home)?;
        Ok(search.graph)
    }

    /// Returns the tree to plan for, with the entries of these uids gone.
    pub(crate) fn tree(&self, gone: &[u32]) -> Vec<TreeImage> {
        let mut tree: Vec<TreeImage> = self.images.iter().map(Image::in_tree).collect();
        for reference in &self.references {
            let Some(image) = reference.image.as_ref().ok().and_then(|i| tree.get_mut(*i)) else {
                continue;
            };
            let used_by = match &reference.by {
                Holder::Snapshot { uid, .. } if gone.contains(uid) => {
                    image.was_held = true;
                    Use::Nobody
                }
                Holder::Snapshot { .. } | Holder::Present { .. } => Use::Machine,
                Holder::Machine(_) => Use::Others,
            };
            image.used_by = image.used_by.max(used_by);
        }
        tree
    }

    /// Refuses to go on if what the machine or a snapshot that stays refers to cannot be read:
    /// what that stands on is not known. A file that is not there stands on nothing.
    pub(crate) fn refuse_unknown(&self, gone: &[u32]) -> Result<()> {
        for reference in &self.references {
            let is_gone =
                matches!(&reference.by, Holder::Snapshot { uid, .. } if gone.contains(uid));
            let Err(error) = &reference.image else {
                continue;
            };
            if error.kind() != ErrorKind::NotFound && !is_gone {
                let what = format!("what it stands on cannot be told: {error}");
                return Err(Error::new(error.kind(), what)
                    .in_file(&reference.file)
                    .hint("`hako snapshot doctor VM` tells more"));
            }
        }
        Ok(())
    }

    /// Returns the images that the machine or its snapshots show, its independent disks left out:
    /// those that they name, and all below.
    pub(crate) fn shown(&self) -> Vec<usize> {
        let is_independent = |by: &Holder| {
            matches!(by, Holder::Machine(_))
                || matches!(by, Holder::Present { is_independent, .. } if *is_independent)
        };
        let mut is_shown = vec![false; self.images.len()];
        for reference in &self.references {
            let image = reference.image.as_ref().ok().copied();
            let mut next = image.filter(|_| !is_independent(&reference.by));
            while let Some(index) = next.filter(|index| !is_shown[*index]) {
                is_shown[index] = true;
                next = self.images[index].parent();
            }
        }
        (0..self.images.len())
            .filter(|index| is_shown[*index])
            .collect()
    }
}

impl Image {
    /// Returns what it stands on, if that is known.
    pub(crate) fn parent(&self) -> Option<usize> {
        match self.below {
            Below::Image(parent) => Some(parent),
            Below::Nothing | Below::Lost(_) => None,
        }
    }

    /// Returns its name without the folder.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn in_tree(&self) -> TreeImage {
        let is_whole = self.damage.is_none() && !matches!(self.below, Below::Lost(_));
        TreeImage {
            parent: self.parent(),
            used_by: Use::Nobody,
            // What is not understood is left alone.
            is_own: self.is_own && is_whole,
            is_delta: is_delta(&self.path),
            was_held: false,
        }
    }
}

/// Returns whether snapshots leave a disk of this mode alone.
fn is_independent(mode: DiskMode) -> bool {
    matches!(
        mode,
        DiskMode::IndependentPersistent | DiskMode::IndependentNonpersistent
    )
}

/// Returns whether a .vmx is what a snapshot keeps of the configuration: `web-Snapshot3.vmx`.
pub(crate) fn is_kept_configuration(path: &Path, stem: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(machine_of_config) == Some(format!("{stem}.vmx"))
}

/// Returns whether a file is called as snapshots call their overlays: `web-000001.vmdk`.
pub(crate) fn is_delta(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit_once('-').is_some_and(|(base, number)| {
        let is_number = number.len() == 6 && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number && !base.is_empty()
    })
}

/// The graph while it is made.
struct Search<'a> {
    vm: &'a Vm,
    options: OpenOptions,
    graph: Graph,
    places: HashMap<FileId, usize>,
}

/// A layer that was looked at.
enum Added {
    /// For the first time, now.
    New(usize, OpenedLayer),
    /// Before.
    Known(usize),
}

impl<'a> Search<'a> {
    fn new(vm: &'a Vm) -> Self {
        Self {
            vm,
            options: OpenOptions {
                rules: vm.rules(true),
                top_only: true,
                ..OpenOptions::default()
            },
            graph: Graph {
                images: Vec::new(),
                references: Vec::new(),
                unreadable: Vec::new(),
            },
            places: HashMap::new(),
        }
    }

    /// Notes that a text of the machine names a disk.
    fn refer(&mut self, by: Holder, disk: &DiskMedium) {
        let format = disk.format.as_deref().unwrap_or("vmdk");
        let image = format_named(format).and_then(|format| {
            let rules = &self.options.rules;
            let opened = self.vm.open_file(&disk.file, Access::ReadOnly, rules)?;
            self.add(format, opened)
        });
        self.graph.references.push(Reference {
            by,
            file: disk.file.clone(),
            image,
        });
    }

    /// Takes in an image with all that it stands on. Returns its place.
    fn add(&mut self, format: &'static dyn DiskFormat, opened: Opened) -> Result<usize> {
        let (top, mut layer) = match self.add_layer(format, opened)? {
            Added::Known(top) => return Ok(top),
            Added::New(top, layer) => (top, layer),
        };
        let mut child = top;
        while layer.image.info().parent.is_some() {
            match self.add_parent(&layer) {
                Ok(Added::Known(parent)) => {
                    self.graph.images[child].below = Below::Image(parent);
                    break;
                }
                Ok(Added::New(parent, below)) => {
                    self.graph.images[child].below = Below::Image(parent);
                    (child, layer) = (parent, below);
                }
                Err(error) => {
                    self.graph.images[child].below = Below::Lost(error);
                    break;
                }
            }
        }
        Ok(top)
    }

    fn add_parent(&mut self, child: &OpenedLayer) -> Result<Added> {
        let link = child.image.info().parent.clone().unwrap_or_default();
        let opened = find_parent(child, &link, &self.options)?;
        let format = match &link.format {
            Some(format) => format_named(format)?,
            None => detect(&*opened.storage, Path::new(opened.storage.name()))?,
        };
        self.add_layer(format, opened)
    }

    fn add_layer(&mut self, format: &'static dyn DiskFormat, opened: Opened) -> Result<Added> {
        let id = opened.storage.id();
        if let Some(known) = id.and_then(|id| self.places.get(&id)) {
            return Ok(Added::Known(*known));
        }
        let again = Opened {
            storage: opened.storage.clone(),
            name: opened.name.clone(),
            resolver: opened.resolver.clone(),
        };
        let (layer, damage) = match open_layer(format, opened, &self.options) {
            Ok(layer) => (layer, None),
            Err(error) => {
                let salvaging = OpenOptions {
                    salvage: true,
                    ..self.options.clone()
                };
                match open_layer(format, again, &salvaging) {
                    Ok(layer) => (layer, Some(error)),
                    Err(_) => return Err(error),
                }
            }
        };
        let path = PathBuf::from(layer.args.storage.name());
        let place = self.graph.images.len();
        self.graph.images.push(Image {
            is_own: path.starts_with(self.vm.folder()) && !layer.args.storage.is_device(),
            format: layer.format.name(),
            info: layer.image.info().clone(),
            files: hako_disk::files_of(&layer),
            below: Below::Nothing,
            damage,
            path,
        });
        self.places.extend(id.map(|id| (id, place)));
        Ok(Added::New(place, layer))
    }

    /// Takes in what else is in the folders of the machine's images: overlays that nothing refers
    /// to stand on them, too.
    fn look_around(&mut self) -> Result<()> {
        let mut folders = vec![self.vm.folder().to_path_buf()];
        for image in self.graph.images.iter().filter(|image| image.is_own) {
            let folder = image.path.parent().unwrap_or(self.vm.folder());
            if !folders.iter().any(|known| known == folder) {
                folders.push(folder.to_path_buf());
            }
        }
        for folder in folders {
            let gate = Gate::of_folder(&folder, &self.options.rules)?;
            for name in file_names(&folder)? {
                if let Some(name) = name.to_str() {
                    self.look_at_file(&gate, &folder.join(name), name);
                }
            }
        }
        Ok(())
    }

    fn look_at_file(&mut self, gate: &Gate, path: &Path, name: &str) {
        let is_known = file_id(path).is_some_and(|id| self.places.contains_key(&id));
        // A part of an image that is there, or of one that is told to be broken.
        if is_known || descriptor_name(name).is_some() {
            return;
        }
        let Ok(opened) = gate.open(name, Access::ReadOnly) else {
            return;
        };
        // Most files are no images, and a raw one stands on nothing.
        let format = match detect(&*opened.storage, path) {
            Ok(format) if format.name() != "raw" => format,
            _ => return,
        };
        if let Err(error) = self.add(format, opened) {
            self.graph.unreadable.push((path.to_path_buf(), error));
        }
    }

    /// Notes which images other machines stand on: those of the inventory, and those in the same
    /// folder.
    fn other_machines(&mut self, home: &Home) -> Result<()> {
        let entries = Inventory::read(home)?.entries;
        for clone in entries
            .iter()
            .filter(|e| e.is_unknown_clone_of(self.vm.path()))
        {
            let what = "is a linked clone of this machine and cannot be read";
            self.graph.references.push(Reference {
                by: Holder::Machine(clone.name()),
                file: clone.current().to_string_lossy().into_owned(),
                image: Err(Error::invalid(what)),
            });
        }
        let mut others: Vec<(PathBuf, Vec<PathBuf>)> = entries
            .into_iter()
            .map(|entry| (entry.current(), entry.allow))
            .collect();
        for name in file_names(self.vm.folder())? {
            let path = self.vm.folder().join(name);
            let is_vmx = path
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("vmx"));
            let is_kept = is_kept_configuration(&path, &self.vm.stem());
            if is_vmx && !is_kept && others.iter().all(|(known, _)| *known != path) {
                others.push((path, Vec::new()));
            }
        }
        others.retain(|(path, _)| path != self.vm.path());
        for (path, allow) in others {
            // A machine that cannot be read uses nothing that could be known.
            let Ok(other) = Vm::at(&path, &allow) else {
                continue;
            };
            match other.all_disks() {
                Ok(disks) => self.other_machine(&other, disks),
                // One that may open nothing beyond its folder stands on nothing here.
                Err(_) if allow.is_empty() && other.folder() != self.vm.folder() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn other_machine(&mut self, other: &Vm, disks: Vec<DiskMedium>) {
        for disk in disks {
            let layers = other.layers_of(&disk).into_iter();
            let mut ids = layers.map(|layer| match layer {
                Ok(layer) => layer.args.storage.id(),
                Err(path) => file_id(&path),
            });
            let first_here = ids.find_map(|id| self.places.get(&id?).copied());
            if let Some(image) = first_here {
                self.graph.references.push(Reference {
                    by: Holder::Machine(other.name()),
                    file: disk.file,
                    image: Ok(image),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
