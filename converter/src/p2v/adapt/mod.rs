//! Fitting a copy of a server to the hardware of a virtual machine, offline: a plan of changes that a
//! person can read, which is then carried out, and can be undone.
//!
//! [`plan`] only reads. [`Job::in_memory`] changes what the plan says, in memory ([`hako_edit`]); what
//! that does not write [`Job::by_the_guest`] has the guest's own kernel write, over the disks. Either
//! has it looked at by the reader, and then it is written to the disks at once ([`Prepared`]). What was
//! there is kept inside, below [`FOLDER`]; [`undo`] plans to put that back.

mod agents;
mod apply;
mod arrays;
mod boot;
mod devices;
mod esp;
mod initrds;
mod lossless;
mod lvm;
mod macs;
mod nics;
mod places;
mod records;
mod repair;
mod serial;
#[cfg(test)]
mod tests;
mod texts;
mod undo;
mod verify;
mod words;

use std::sync::Arc;

use hako_block::{BlockImage, Result};
use hako_formats::machine::Mac;
use hako_guest::boot::Menu;
use hako_guest::drivers::Hardware;
use hako_guest::root::Root;
use hako_guest::{Disk, Keys, Tree, Volume, Volumes};

pub use super::inventory::NicName;
use super::plan::model::Target;

pub use apply::{Job, Prepared};
pub use repair::Repair;
pub use undo::undo;

/// Where in a guest what was there is kept, with a list of what was changed.
pub const FOLDER: &str = "/var/lib/hako/adapt";

/// The longest text that is changed.
const TEXT_BYTES: usize = 4 << 20;

/// A guest: its disks, its files as it sees them, and what it boots.
#[derive(Clone, Copy)]
pub struct Guest<'a> {
    /// What is on its disks.
    pub volumes: &'a Volumes,
    /// Its files.
    pub root: &'a Root,
    /// What its boot loaders offer.
    pub menu: &'a Menu,
}

impl<'a> Guest<'a> {
    /// Returns the one whose system was found on some disks; none if no Linux was.
    pub fn of(volumes: &'a Volumes, found: &'a hako_vm::Guest) -> Option<Self> {
        Some(Self {
            volumes,
            root: found.root.as_ref()?,
            menu: &found.menu,
        })
    }

    fn tree(&self) -> &Tree {
        &self.root.tree
    }

    /// Returns what is in a text of the guest; none if it is not there.
    fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        self.tree().read(path.as_bytes(), TEXT_BYTES).ok()
    }

    /// Returns a text of the guest, as [`lossless`] makes it; none if it is not there.
    fn text(&self, path: &str) -> Option<String> {
        Some(lossless::decoded(&self.bytes(path)?))
    }

    /// Returns the paths of the files in a folder whose names have this ending, sorted.
    fn files_in(&self, folder: &str, ending: &str) -> Vec<String> {
        const MOST_FILES: usize = 10_000;
        let entries = self.tree().entries(folder.as_bytes(), MOST_FILES);
        let names = entries.unwrap_or_default().into_iter();
        let names = names.filter_map(|entry| String::from_utf8(entry.name).ok());
        let names = names.filter(|name| name.ends_with(ending));
        names.map(|name| format!("{folder}/{name}")).collect()
    }
}

/// Looks at what is on some disks. Errors: those of reading them.
pub fn volumes_of(disks: &[Arc<dyn BlockImage>], keys: &Keys) -> Result<Volumes> {
    let volumes = disks.iter().map(|image| {
        let sector_bytes = Disk::told_sector_bytes(&**image).unwrap_or(512);
        Arc::new(Disk::new(Arc::clone(image), sector_bytes)) as Arc<dyn Volume>
    });
    Volumes::opened(volumes.collect(), keys.clone())
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the machine will run.
    pub target: Target,
    /// Make the first serial port a console.
    pub serial_console: bool,
    /// Mask services that are about a server's own hardware.
    pub mask_agents: bool,
    /// Names that network cards are to keep.
    pub nics: Vec<NicName>,
    /// The addresses that cards had on the server, where its inventory tells.
    pub were: Vec<NicName>,
    /// The addresses of the machine's cards, if it is known: one card and one name belong together.
    pub macs: Vec<Mac>,
    /// Fit the initrd of the default entry only, and say which others lack something.
    pub only_default: bool,
}

impl Request {
    /// Returns the hardware that the guest may meet there.
    pub fn hardware(&self) -> &'static [Hardware] {
        match self.target {
            Target::Vmware => &[
                Hardware::Pvscsi,
                Hardware::Ahci,
                Hardware::Nvme,
                Hardware::Mptspi,
                Hardware::SdMod,
            ],
            Target::Kvm => &[
                Hardware::VirtioPci,
                Hardware::VirtioBlk,
                Hardware::VirtioScsi,
                Hardware::SdMod,
            ],
            Target::Qemu => &[
                Hardware::VirtioPci,
                Hardware::VirtioBlk,
                Hardware::VirtioScsi,
                Hardware::Ahci,
                Hardware::Nvme,
                Hardware::Pvscsi,
                Hardware::SdMod,
            ],
        }
    }
}

/// What would be done, and what cannot be.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which it is done.
    pub changes: Vec<Change>,
    /// What the user has to see to.
    pub remarks: Vec<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path as the guest has it, or `UUID=…:/PATH` in a file system that it does not mount.
    pub path: String,
    /// What is done there.
    pub what: What,
    /// Why: a sentence each.
    pub why: Vec<String>,
}

/// What is done to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file gets another content.
    Replace {
        /// What it has.
        old: Vec<u8>,
        /// What it gets.
        new: Vec<u8>,
    },
    /// A file gets longer.
    Append {
        /// The bytes that it has.
        len: u64,
        /// What follows them.
        bytes: Vec<u8>,
    },
    /// A file gets as short as it was.
    Cut {
        /// The bytes that it keeps.
        len: u64,
    },
    /// A file is made.
    Create {
        /// Its content.
        bytes: Vec<u8>,
        /// Its permissions.
        mode: u16,
    },
    /// A folder is made.
    Folder {
        /// Its permissions.
        mode: u16,
    },
    /// A link is made.
    Link {
        /// Where it leads.
        target: String,
    },
    /// A file, a link or an empty folder goes.
    Remove {
        /// What a file had.
        old: Option<Vec<u8>>,
    },
}

impl What {
    /// Returns its name, for JSON and people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Replace { .. } => "replace",
            Self::Append { .. } => "append",
            Self::Cut { .. } => "cut",
            Self::Create { .. } => "create",
            Self::Folder { .. } => "folder",
            Self::Link { .. } => "link",
            Self::Remove { .. } => "remove",
        }
    }
}

impl Plan {
    /// Adds a change of a text, if it is one; of a text that is changed already another one.
    fn replace(&mut self, path: &str, old: &str, new: String, why: Vec<String>) {
        if old == new {
            return;
        }
        for change in self.changes.iter_mut().filter(|change| change.path == path) {
            if let What::Replace { new: planned, .. } = &mut change.what {
                *planned = lossless::encoded(&new);
                change.why.extend(why);
                return;
            }
        }
        self.changes.push(Change {
            path: path.to_owned(),
            what: What::Replace {
                old: lossless::encoded(old),
                new: lossless::encoded(&new),
            },
            why,
        });
    }

    fn add(&mut self, path: impl Into<String>, what: What, why: &str) {
        self.changes.push(Change {
            path: path.into(),
            what,
            why: vec![why.to_owned()],
        });
    }

    /// Returns a text as it will be.
    fn text(&self, guest: &Guest<'_>, path: &str) -> Option<String> {
        let planned = self.changes.iter().find_map(|change| match &change.what {
            What::Replace { new: bytes, .. } | What::Create { bytes, .. }
                if change.path == path =>
            {
                Some(bytes.clone())
            }
            _ => None,
        });
        match planned {
            Some(bytes) => Some(lossless::decoded(&bytes)),
            None => guest.text(path),
        }
    }
}

/// Says what is to be changed. Reads only. Errors: those of reading the guest's disks.
pub fn plan(guest: &Guest<'_>, request: &Request) -> Result<Plan> {
    let mut plan = Plan::default();
    let names = devices::Names::of(guest);
    texts::add(guest, &names, &mut plan);
    boot::add_command_lines(guest, &names, &mut plan);
    if request.serial_console {
        serial::add(guest, &mut plan);
    }
    let (moves, naming) = nics::add(guest, request, &mut plan);
    let overlay = initrds::Overlay {
        guest,
        names: &names,
        moves: &moves,
        naming: &naming,
    };
    initrds::add(&overlay, request, &mut plan)?;
    esp::add(guest, &mut plan)?;
    boot::add_remarks(guest, &mut plan);
    if request.mask_agents {
        agents::add(guest, &mut plan);
    }
    let why = plan.changes.iter_mut().flat_map(|change| &mut change.why);
    for text in plan.remarks.iter_mut().chain(why) {
        *text = lossless::shown(text);
    }
    Ok(plan)
}
