//! The guest's own kernel, started without its firmware and boot loader.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hako_block::{Error, Result};
use hako_formats::machine::Machine;
use hako_guest::direct::Request;

use super::super::RunFolder;
use super::plan::{Kernel, hardware};
use crate::Vm;

/// Largest kernel that is taken, in bytes.
const MAX_KERNEL_BYTES: u64 = 1 << 30;

/// What files of the run hold a kernel while QEMU starts.
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRD: &str = "initrd";

/// Writes the kernel of an entry of the guest's boot menu, the default if none is said, and its
/// initrd to the folder of the run; what the initrd lacks for the hardware of `machine` is appended
/// to it. Returns what the user should know, too.
pub(super) fn kernel(
    vm: &Vm,
    machine: &Machine,
    entry: Option<u32>,
    folder: &RunFolder,
) -> Result<(Kernel, Vec<String>)> {
    let too_many = || Error::invalid("no menu has so many entries");
    let entry = entry
        .map(usize::try_from)
        .transpose()
        .map_err(|_| too_many())?;
    let request = Request {
        entry,
        hardware: &hardware(machine, vm.vmx.dictionary()),
        serial_console: true,
    };
    let plan = vm.plan_direct_boot(&request)?;
    let kernel = folder.file(KERNEL);
    copy(plan.kernel.blob.reader(), &kernel)?;
    let initrd = match &plan.initrd {
        Some(initrd) => {
            let path = folder.file(INITRD);
            initrd.write_to(&mut create(&path)?)?;
            Some(path)
        }
        None => None,
    };
    let mut notes = vec![format!("boots {:?} without firmware", plan.title)];
    notes.extend(plan.messages);
    let cmdline = plan.options;
    Ok((
        Kernel {
            kernel,
            initrd,
            cmdline,
        },
        notes,
    ))
}

/// Removes what QEMU has read.
pub(super) fn remove(folder: &RunFolder) {
    for name in [KERNEL, INITRD] {
        let _ = std::fs::remove_file(folder.file(name));
    }
}

fn create(path: &Path) -> Result<std::fs::File> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.map_err(|error| Error::io("write", error).in_file(path))
}

fn copy(reader: impl Read, path: &Path) -> Result<()> {
    let mut reader = reader.take(MAX_KERNEL_BYTES + 1);
    let copied = std::io::copy(&mut reader, &mut create(path)?);
    match copied.map_err(|error| Error::io("write", error).in_file(path))? {
        0..=MAX_KERNEL_BYTES => Ok(()),
        _ => Err(Error::unsupported("a kernel of more than 1 GiB")),
    }
}
