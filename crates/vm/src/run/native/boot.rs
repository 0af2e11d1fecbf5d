//! What is booted: files, or what the boot loader on the guest's own disk would start. It is read when
//! the machine starts and at each reset, for the guest may have a new kernel by then.

use std::sync::Arc;

use hako_block::{BlockImage, Error, MemoryStorage, Result, Storage};
use hako_engine::Kernel;
use hako_formats::machine::Machine;
use hako_guest::Volumes;
use hako_guest::direct::Request;
use hako_guest::drivers::Hardware;
use hako_guest::kernel::unpacked;
use hako_guest::root::Root;

use super::super::Boot;
use super::super::kernel::{KernelFiles, MOST_BYTES, whole};
use crate::Vm;
use crate::inside::{Guest, volume_of};

/// What a guest's kernel needs drivers for.
const HARDWARE: &[Hardware] = &[
    Hardware::VirtioPci,
    Hardware::VirtioBlk,
    Hardware::VirtioNet,
];
/// The longest fstab that is looked at.
const FSTAB_BYTES: usize = 1 << 20;

/// Where the kernel comes from.
pub(super) enum Source {
    /// From files.
    Files(KernelFiles),
    /// From the guest's disk.
    Disk {
        /// The place of the entry in the boot loader's menu; the default entry if there is none.
        entry: Option<usize>,
    },
}

/// A kernel, and what there is to be told of it.
pub(super) struct Found {
    pub kernel: Kernel,
    pub notes: Vec<String>,
    /// Why the guest may not find its disks, if that is to be feared.
    pub trouble: Option<String>,
}

impl Source {
    /// Returns what `boot` is about. Errors: [`hako_block::ErrorKind::Unsupported`] for firmware.
    pub fn of(vm: &Vm, machine: &Machine, boot: &Boot) -> Result<Self> {
        if let Some(files) = KernelFiles::of(vm, machine, boot)? {
            return Ok(Source::Files(files));
        }
        let entry = match boot {
            Boot::Firmware => {
                return Err(Error::unsupported("the engine kvm has no firmware")
                    .hint("leave --boot out, or start it with --engine qemu"));
            }
            Boot::Direct { entry } => *entry,
            Boot::Usual | Boot::Files { .. } => None,
        };
        let too_many = |_| Error::invalid("no menu has so many entries");
        let entry = entry.map(usize::try_from).transpose().map_err(too_many)?;
        Ok(Source::Disk { entry })
    }

    /// Returns whether it is the guest's disk.
    pub fn is_disk(&self) -> bool {
        matches!(self, Source::Disk { .. })
    }

    /// Reads the kernel. Errors: as of [`hako_guest::direct::DirectBoot::plan`], and those of
    /// reading.
    pub fn read(&self, disks: &[Arc<dyn BlockImage>]) -> Result<Found> {
        match self {
            Source::Files(files) => Ok(Found {
                kernel: Kernel {
                    image: kernel_in(&files.kernel)?,
                    initrd: files.initrd.clone(),
                    command_line: files.cmdline.clone().into_bytes(),
                },
                notes: Vec::new(),
                trouble: None,
            }),
            Source::Disk { entry } => from_disk(disks, *entry),
        }
    }
}

fn from_disk(disks: &[Arc<dyn BlockImage>], entry: Option<usize>) -> Result<Found> {
    let volumes = disks.iter().map(|disk| volume_of(Arc::clone(disk)));
    let volumes = Volumes::of(volumes.collect())?;
    let guest = Guest::of(&volumes, entry);
    let plan = guest.plan(&Request {
        entry,
        hardware: HARDWARE,
        serial_console: true,
    })?;
    let most = usize::try_from(MOST_BYTES).unwrap_or(usize::MAX);
    let kernel = Kernel {
        image: in_memory("kernel", unpacked_if_can_be(plan.kernel.blob.read(most)?)),
        initrd: match &plan.initrd {
            Some(initrd) => Some(in_memory("initrd", initrd.bytes(MOST_BYTES)?)),
            None => None,
        },
        command_line: plan.options.clone().into_bytes(),
    };
    let mut notes = vec![format!("boots {:?} without firmware", plan.title)];
    notes.extend(plan.messages);
    Ok(Found {
        kernel,
        notes,
        trouble: guest
            .root
            .as_ref()
            .and_then(|root| other_name(root, &plan.options)),
    })
}

/// Returns the kernel in a file: an ELF file as it is, else what is in the bzImage.
fn kernel_in(file: &Arc<dyn Storage>) -> Result<Arc<dyn Storage>> {
    let mut magic = [0; 4];
    if file.len_bytes()? >= 4 {
        file.read_at(0, &mut magic)?;
    }
    match &magic {
        b"\x7fELF" => Ok(Arc::clone(file)),
        _ => Ok(in_memory(file.name(), unpacked_if_can_be(whole(&**file)?))),
    }
}

/// Returns the kernel in a bzImage if it can be unpacked here: in the guest that takes seconds.
fn unpacked_if_can_be(image: Vec<u8>) -> Vec<u8> {
    unpacked(&image).unwrap_or(image)
}

fn in_memory(name: &str, bytes: Vec<u8>) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new(name, bytes))
}

/// Says if a guest calls its disks by names that they do not have here.
fn other_name(root: &Root, options: &str) -> Option<String> {
    let is_other = |name: &&str| name.starts_with("/dev/sd") || name.starts_with("/dev/hd");
    let cut = |name: &str| name.chars().take(60).collect::<String>();
    let option = |key| {
        options
            .split_ascii_whitespace()
            .filter_map(move |word: &str| word.strip_prefix(key))
    };
    if let Some(name) = option("root=").find(is_other) {
        let name = cut(name);
        return Some(format!(
            "the guest's root is {name:?}, which is /dev/vd… here"
        ));
    }
    let fstab = root
        .tree
        .read(b"/etc/fstab", FSTAB_BYTES)
        .unwrap_or_default();
    let fstab = String::from_utf8_lossy(&fstab);
    let mut sources = fstab
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next());
    let name = cut(sources.find(is_other)?);
    Some(format!(
        "the guest's fstab names {name:?}, which is /dev/vd… here"
    ))
}
