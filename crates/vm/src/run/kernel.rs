//! A kernel in files that the user or the machine's text names.

use std::path::Path;
use std::sync::Arc;

use hako_block::{Access, Error, Gate, GateRules, Result, Storage};
use hako_formats::machine::Machine;

use super::Boot;
use crate::Vm;

/// The most bytes of a kernel or an initrd.
pub(super) const MOST_BYTES: u64 = 1 << 30;

/// A kernel, its initrd and its command line.
pub(super) struct KernelFiles {
    pub kernel: Arc<dyn Storage>,
    pub initrd: Option<Arc<dyn Storage>>,
    pub cmdline: String,
}

impl KernelFiles {
    /// Returns what a start is about, if it is about files: those that the user names, else those of
    /// the VMX unless the kernel is to come out of the guest's disk.
    pub fn of(vm: &Vm, machine: &Machine, boot: &Boot) -> Result<Option<Self>> {
        match (boot, &machine.direct_boot) {
            (
                Boot::Files {
                    kernel,
                    initrd,
                    cmdline,
                },
                _,
            ) => {
                let open = |path: &Path| {
                    Gate::open_user(path, Access::ReadOnly, &GateRules::default())
                        .map(|opened| opened.storage)
                };
                Ok(Some(Self {
                    kernel: open(kernel)?,
                    initrd: initrd.as_deref().map(open).transpose()?,
                    cmdline: cmdline.clone(),
                }))
            }
            (Boot::Usual | Boot::Firmware, Some(files)) => {
                let open = |name: &str| {
                    vm.open_file(name, Access::ReadOnly, &vm.rules(true))
                        .map(|opened| opened.storage)
                };
                Ok(Some(Self {
                    kernel: open(&files.kernel)?,
                    initrd: files.initrd.as_deref().map(open).transpose()?,
                    cmdline: files.cmdline.clone(),
                }))
            }
            _ => Ok(None),
        }
    }
}

/// Reads a whole file. Errors: [`hako_block::ErrorKind::Unsupported`] for one of more than
/// [`MOST_BYTES`].
pub(super) fn whole(storage: &dyn Storage) -> Result<Vec<u8>> {
    let len = storage.len_bytes()?;
    let n_bytes = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MOST_BYTES {
        let what = format!("{len} bytes, more than a kernel or an initrd may have");
        return Err(Error::unsupported(what).in_file(storage.name()));
    }
    let mut bytes = vec![0; n_bytes];
    storage.read_at(0, &mut bytes)?;
    Ok(bytes)
}
