//! How the images of a machine are found: by what its texts name, by what lies beside that, and by
//! what other machines stand on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hako_block::gate::file_names;
use hako_block::{Access, Error, ErrorKind, FileId, Gate, Opened, Resolver, Result};
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::DiskMedium;
use hako_formats::vmsd::Vmsd;
use hako_formats::{
    DiskFormat, OpenOptions, OpenedLayer, descriptor_name, detect, find_parent, format_named,
    open_layer,
};

use super::{Below, Graph, Holder, Image, Reference, is_kept_configuration};
use crate::users::file_id;
use crate::{Home, Inventory, Vm};

/// Says of an image that is there but for one of its files that it is damaged, and not missing:
/// what it stands on is not known.
fn incomplete(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(
            ErrorKind::Corrupt,
            format!("one of its files is missing: {error}"),
        ),
        _ => error,
    }
}

/// The graph while it is made.
pub(super) struct Search<'a> {
    vm: &'a Vm,
    options: OpenOptions,
    pub graph: Graph,
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
    pub fn new(vm: &'a Vm) -> Self {
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
    pub fn refer(&mut self, by: Holder, disk: &DiskMedium) {
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

    /// Notes the images that are named by what is not understood, or switched off: an entry without
    /// a valid uid, a drive that is not present. They are nobody's to change.
    pub fn refer_by_whatever_else(&mut self) -> Result<()> {
        let vmsd = self.vm.vmsd()?;
        let dictionaries = [
            Some(self.vm.vmx.dictionary()),
            vmsd.as_ref().map(Vmsd::dictionary),
        ];
        let named = dictionaries
            .into_iter()
            .flatten()
            .flat_map(Dictionary::entries);
        let named = named.filter(|(key, _)| key.to_ascii_lowercase().ends_with(".filename"));
        let mut files: Vec<String> = named.map(|(_, file)| file).collect();
        files.sort();
        files.dedup();
        files.retain(|file| {
            self.graph
                .references
                .iter()
                .all(|known| known.file != *file)
        });
        for file in files {
            let rules = &self.options.rules;
            let Ok(opened) = self.vm.open_file(&file, Access::ReadOnly, rules) else {
                continue;
            };
            // CD images and states of memory are named so, too.
            let Ok(format) = detect(&*opened.storage, Path::new(opened.storage.name())) else {
                continue;
            };
            let image = self.add(format, opened);
            self.graph.references.push(Reference {
                by: Holder::Unread,
                file,
                image,
            });
        }
        Ok(())
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
                    Err(_) => return Err(incomplete(error)),
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
    pub fn look_around(&mut self) -> Result<()> {
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
    pub fn other_machines(&mut self, home: &Home) -> Result<()> {
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
