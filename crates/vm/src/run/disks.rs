//! The disks of a machine that is about to run, opened alike for every engine: locked, writable
//! unless what the guest writes is discarded, their formats what the machine's text says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::{Access, BlockImage, Chain, Error, ErrorKind, Result};
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{DiskMedium, DiskMode, Node};
use hako_formats::{OpenOptions, OpenedChain, OpenedLayer};

use super::scratch::Scratch;
use super::{RunFolder, StartOptions};
use crate::Vm;

/// A disk of a machine.
pub(super) struct OpenedDisk {
    /// What the guest reads and writes.
    pub image: Arc<dyn BlockImage>,
    /// Its layers, the top first; none if what the guest writes is discarded.
    pub layers: Option<Vec<OpenedLayer>>,
    /// What a guest may know it by.
    pub serial: Option<String>,
    file: String,
}

impl OpenedDisk {
    /// Opens `disk` of `vm`. What is odd about it is added to `warnings`. Errors: with a hint if it
    /// cannot be written to.
    pub fn open(
        vm: &Vm,
        disk: &DiskMedium,
        start: &StartOptions,
        folder: &RunFolder,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let is_discarded = disk.mode == DiskMode::IndependentNonpersistent || start.discard_writes;
        let options = OpenOptions {
            access: match is_discarded {
                true => Access::ReadOnly,
                false => Access::ReadWrite,
            },
            rules: vm.rules(false),
            ..OpenOptions::default()
        };
        let opened = vm
            .open_disk(disk, &options)
            .map_err(|error| match is_discarded {
                true => error,
                false => read_only_hint(&disk.file, error),
            })?;
        warnings.extend(opened.oddities());
        let serial = has_serials(vm).then(|| serial_of(&opened)).flatten();
        let OpenedChain { chain, layers } = opened;
        let (image, layers): (Arc<dyn BlockImage>, _) = match is_discarded {
            true => (
                Arc::new(discarding(chain, &scratch_folder(vm, folder))?),
                None,
            ),
            false => (Arc::new(chain), Some(layers)),
        };
        Ok(Self {
            image,
            layers,
            serial,
            file: disk.file.clone(),
        })
    }

    /// Returns what the guest reads and writes. Errors: with a hint if it cannot be written to.
    pub fn writable(self) -> Result<Arc<dyn BlockImage>> {
        match self.image.info().writable {
            true => Ok(self.image),
            false => Err(read_only_hint(&self.file, Error::read_only())),
        }
    }
}

/// Says whether a machine is paused when there is no room for what its guest writes, rather than the
/// guest told: `hako.onNoSpace`, `pause` if not said. Errors: neither `pause` nor `report`.
pub(super) fn waits_for_room(keys: &Dictionary) -> Result<bool> {
    const KEY: &str = "hako.onNoSpace";
    let said = keys.value(KEY).unwrap_or_default();
    match said.trim().to_ascii_lowercase().as_str() {
        "" | "pause" => Ok(true),
        "report" => Ok(false),
        other => {
            let other: String = other.chars().take(40).collect();
            Err(Error::invalid(format!("{KEY} is {other:?}"))
                .hint("pause: the machine waits for room; report: the guest reads an error"))
        }
    }
}

/// Says what became of a write that found no room, and how its machine goes on.
pub(super) fn no_room(what: &str) -> String {
    format!("{what}; free some space, then: hako vm unpause")
}

/// Returns what a drive is called where a name has no colon: "scsi0-0".
pub(super) fn name_of(node: Node) -> String {
    format!("{}{}-{}", node.bus.name(), node.controller, node.unit)
}

/// Returns the disk with a layer above it that takes what the guest writes.
fn discarding(chain: Chain, folder: &Path) -> Result<Chain> {
    let scratch = Scratch::new(chain.info().virtual_size, folder)?;
    Chain::new(vec![Arc::new(scratch), Arc::new(chain)])
}

/// Where there is room for what is discarded: beside the disks, else where runs are kept.
fn scratch_folder(vm: &Vm, folder: &RunFolder) -> PathBuf {
    let own = vm.folder();
    match tempfile::tempfile_in(own) {
        Ok(_) => own.to_owned(),
        Err(_) => folder.path().to_owned(),
    }
}

/// Says what can be done about a disk that cannot be written to.
fn read_only_hint(file: &str, error: Error) -> Error {
    if !matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::Unsupported) {
        return error;
    }
    let place = error.file().map(Path::to_owned);
    Error::new(error.kind(), error.finding())
        .in_file(place.unwrap_or_else(|| file.into()))
        .hint("start it with --discard-writes, or convert the disk first: hako disk convert")
}

/// Returns whether guests are told what their disks are known by.
fn has_serials(vm: &Vm) -> bool {
    vm.vmx.dictionary().is_true("disk.EnableUUID")
}

/// Returns what a guest knows a disk by: VMware's ddb.uuid, without blanks.
fn serial_of(opened: &OpenedChain) -> Option<String> {
    let top = opened.layers.first()?;
    let details = &top.image.info().details;
    let uuid = details
        .iter()
        .find(|(key, _)| *key == "uuid")
        .map(|(_, value)| value)?;
    let hako_block::Value::Text(uuid) = uuid else {
        return None;
    };
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    (digits.len() == 32).then(|| digits.to_ascii_lowercase())
}
