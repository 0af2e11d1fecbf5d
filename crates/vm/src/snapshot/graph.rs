//! The image files of a machine: what stands on what, and who refers to them.
//!
//! It is read without locks and whatever is broken: a parent that is missing, or another one than
//! the overlay was made on, is told and not an error. Nothing is changed here.

mod search;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, ImageInfo, Result};
use hako_formats::fits;
use hako_formats::machine::Node;
use hako_formats::vmsd::Snapshot;
use hako_formats::vmx::Encryption;

use super::overlay::numbered;
use super::plan::{TreeImage, Use};
use crate::files::machine_of_config;
use crate::{Home, Vm};
use search::Search;

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
    /// Something in the machine's texts that is not understood, or switched off.
    Unread,
}

impl Graph {
    /// Looks at the machine's images, those of its snapshots, and what else stands on them.
    pub(crate) fn of(home: &Home, vm: &Vm, snapshots: &[Snapshot]) -> Result<Self> {
        let mut search = Search::new(vm);
        for (node, disk) in vm.disks() {
            let is_independent = disk.mode.is_independent();
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
        search.refer_by_whatever_else()?;
        search.look_around()?;
        for (uid, clone) in vm.unlisted_clones(home)? {
            let snapshot = snapshots.iter().find(|snapshot| snapshot.uid == uid);
            for disk in snapshot.iter().flat_map(|snapshot| &snapshot.disks) {
                let by = Holder::Machine(clone.to_string_lossy().into_owned());
                search.refer(by, &disk.medium());
            }
        }
        search.other_machines(home)?;
        search.graph.cut_rings();
        Ok(search.graph)
    }

    /// Takes the parent of an overlay for lost where that stands on the overlay and does not fit it.
    /// A ring of which all seem to fit is left: which of them is wrong cannot be told.
    fn cut_rings(&mut self) {
        let in_ring = |index: &usize| {
            let parent = self.images[*index].parent();
            parent.is_some_and(|parent| self.chain_of(parent).any(|below| below == *index))
        };
        let misfits = |index: &usize| {
            let image = &self.images[*index];
            let parent = image.parent().map(|parent| &self.images[parent].info);
            let link = image.info.parent.as_ref();
            !link
                .zip(parent)
                .is_some_and(|(link, parent)| fits(link, parent))
        };
        let all = 0..self.images.len();
        let wrong: Vec<usize> = all.filter(in_ring).filter(misfits).collect();
        for index in wrong {
            let error = Error::corrupt("parent", "the overlay stands on itself: a ring");
            self.images[index].below = Below::Lost(error);
        }
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
                Holder::Machine(_) | Holder::Unread => Use::Others,
            };
            image.used_by = image.used_by.max(used_by);
        }
        tree
    }

    /// Refuses to go on if what the machine or a snapshot that stays refers to is not known, or
    /// cannot be read: nor is what that stands on. A file that is not there stands on nothing.
    pub(crate) fn refuse_unknown(&self, vm: &Vm, gone: &[u32]) -> Result<()> {
        refuse_encrypted(vm)?;
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
            matches!(by, Holder::Machine(_) | Holder::Unread)
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

impl Graph {
    /// Returns an image and all below it, the top first.
    pub(crate) fn chain_of(&self, image: usize) -> impl Iterator<Item = usize> {
        let next = |index: &usize| self.images.get(*index).and_then(Image::parent);
        // No chain is longer than there are images: one that is broken may be a ring.
        std::iter::successors(Some(image), next).take(self.images.len())
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

/// Refuses a machine whose texts do not tell what they refer to.
fn refuse_encrypted(vm: &Vm) -> Result<()> {
    let is_list = vm.vmsd()?.is_some_and(|vmsd| vmsd.is_encrypted());
    let path = match vm.vmx.encryption() {
        Encryption::Full => vm.path().to_path_buf(),
        _ if is_list => vm.vmsd_path(),
        _ => return Ok(()),
    };
    let what = "is encrypted: which disks are needed is not known";
    Err(Error::unsupported(what)
        .in_file(path)
        .hint("remove the encryption with the product that encrypted it"))
}

/// Returns whether a .vmx is what a snapshot keeps of the configuration: `web-Snapshot3.vmx`.
pub(crate) fn is_kept_configuration(path: &Path, stem: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(machine_of_config) == Some(format!("{stem}.vmx"))
}

/// Returns whether a file is called as snapshots call their overlays: `web-000001.vmdk`.
pub(crate) fn is_delta(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    numbered(&stem).is_some()
}
