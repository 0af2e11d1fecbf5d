//! What a machine would boot, by its boot loaders' own files: GRUB 2 with or without BLS entries,
//! systemd-boot, unified kernel images, extlinux and syslinux.
//!
//! Nothing is executed but the part of GRUB's script language that decides what is booted, and that
//! in a bounded number of steps. What firmware keeps in variables (an entry chosen once, Secure Boot)
//! is not on the disk and not known.

mod bls;
mod extlinux;
mod files;
mod grub;
mod pe;
mod systemd;
#[cfg(test)]
mod tests;

use crate::root::Root;
use crate::volumes::Volumes;
use files::Files;
pub use files::{Blob, Image};

/// What boots a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// GRUB 2, an entry of its configuration.
    Grub,
    /// GRUB 2, an entry of the Boot Loader Specification.
    GrubBls,
    /// systemd-boot, an entry of the Boot Loader Specification.
    SystemdBoot,
    /// A unified kernel image, which firmware could start itself.
    Uki,
    /// extlinux, syslinux, isolinux.
    Extlinux,
}

impl Loader {
    /// Returns its name, for JSON and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grub => "grub",
            Self::GrubBls => "grub-bls",
            Self::SystemdBoot => "systemd-boot",
            Self::Uki => "uki",
            Self::Extlinux => "extlinux",
        }
    }
}

/// Something that a machine can boot.
#[derive(Clone)]
pub struct Entry {
    /// What the menu shows; of an entry in a submenu with what that shows before it.
    pub title: String,
    /// What it is called by, if it has such a name.
    pub id: String,
    /// What boots it.
    pub loader: Loader,
    /// The file that says so, as `VOLUME:PATH`.
    pub source: String,
    /// The kernel; none if the entry starts something else, or its file is not there.
    pub kernel: Option<Image>,
    /// The initrds, in their order.
    pub initrds: Vec<Image>,
    /// The kernel's command line.
    pub options: String,
    /// Why it cannot be booted without its loader.
    pub trouble: Option<String>,
}

/// What a machine offers to boot.
#[derive(Clone, Default)]
pub struct Menu {
    /// The entries, in the order in which they are shown.
    pub entries: Vec<Entry>,
    /// The place of the one that boots if nobody chooses.
    pub default: Option<usize>,
    /// Why that one.
    pub reason: String,
    /// What could not be read or understood.
    pub remarks: Vec<String>,
}

/// Entries that are listed.
const MOST_ENTRIES: usize = 1000;

impl Menu {
    /// Reads what the boot loaders on some disks offer. `root` is the installed system, for loaders
    /// whose files are in it. Where there are several loaders, systemd-boot goes before GRUB and that
    /// before extlinux; the entries of all are listed. What cannot be read is a remark.
    pub fn read(volumes: &Volumes, root: Option<&Root>) -> Self {
        let files = Files::new(volumes, root);
        let mut menu = Self::default();
        for read in [systemd::read, grub::read, extlinux::read] {
            menu.add(read(&files));
        }
        if menu.default.is_none() && !menu.entries.is_empty() {
            menu.default = Some(0);
            menu.reason = "the first one: no boot loader says anything".into();
        }
        menu
    }

    /// Returns the entry that boots if nobody chooses.
    pub fn default_entry(&self) -> Option<&Entry> {
        self.entries.get(self.default?)
    }

    fn add(&mut self, other: Menu) {
        if self.default.is_none() {
            self.default = other.default.map(|at| at + self.entries.len());
            self.reason = other.reason;
        }
        self.entries.extend(other.entries);
        self.entries.truncate(MOST_ENTRIES);
        self.default = self.default.filter(|at| *at < self.entries.len());
        self.remarks.extend(other.remarks);
    }
}
