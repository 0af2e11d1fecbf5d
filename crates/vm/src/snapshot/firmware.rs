//! The settings of a machine's firmware: its NVRAM, and the variables of OVMF. VMware's products
//! keep the NVRAM in a snapshot's state; ours have a copy beside their configuration.

use std::path::Path;

use hako_block::gate::replace_file;
use hako_block::{Access, ErrorKind, Result};
use hako_formats::vmsd::{FIRMWARE_KEYS, FirmwareFile, Snapshot};

use super::removal::own_file;
use crate::Vm;
use crate::copy::read_small;

/// Largest file of settings: OVMF has some of 4 MiB.
const MAX_BYTES: usize = 16 << 20;

/// Settings that a new snapshot keeps.
pub(super) struct Kept {
    /// Which they are, and the copy that is to be made.
    pub file: FirmwareFile,
    bytes: Vec<u8>,
}

impl Kept {
    /// Reads what a snapshot with this uid is to keep, and returns what the user should know. What
    /// is not there yet is nothing to keep.
    pub(super) fn of(vm: &Vm, uid: u32) -> (Vec<Self>, Vec<String>) {
        let (mut kept, mut warnings) = (Vec::new(), Vec::new());
        for key in FIRMWARE_KEYS {
            let Some(name) = vm.settings_file(key) else {
                continue;
            };
            match read(vm, &name) {
                Ok(bytes) => kept.push(Self {
                    file: FirmwareFile {
                        key,
                        file: copy_name(&vm.stem(), uid, key),
                    },
                    bytes,
                }),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => warnings.push(format!(
                    "the snapshot does not keep the firmware's settings: {error}"
                )),
            }
        }
        (kept, warnings)
    }

    /// Makes the copy.
    pub(super) fn write(&self, vm: &Vm) -> Result<()> {
        replace_file(&vm.folder().join(&self.file.file), &self.bytes)
    }
}

/// Returns the name of the copy that a snapshot keeps of what a key names.
pub(super) fn copy_name(stem: &str, uid: u32, key: &str) -> String {
    format!("{stem}-Snapshot{uid}.{key}")
}

/// Returns whether a file is called as copies are: `web-Snapshot3.nvram`.
pub(super) fn is_copy(path: &Path, stem: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let rest = name.and_then(|name| name.strip_prefix(stem)?.strip_prefix("-Snapshot"));
    rest.and_then(|rest| rest.split_once('.'))
        .is_some_and(|(number, key)| {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            is_number && !number.is_empty() && FIRMWARE_KEYS.contains(&key)
        })
}

/// Returns the settings that a machine gets when it goes back to a snapshot, and what the user
/// should know.
pub(super) fn to_restore(vm: &Vm, snapshot: &Snapshot) -> (Vec<FirmwareFile>, Vec<String>) {
    let (mut files, mut warnings) = (Vec::new(), Vec::new());
    for kept in &snapshot.firmware {
        if vm.settings_file(kept.key).is_none() {
            continue;
        }
        let found = vm
            .settings_target(kept.key)
            .and_then(|_| read(vm, &kept.file));
        match found {
            Ok(_) => files.push(kept.clone()),
            Err(error) => warnings.push(format!(
                "the firmware's settings stay what they are: {error}"
            )),
        }
    }
    (files, warnings)
}

/// Returns the names of files with settings that would be replaced, and that no snapshot keeps as
/// they are now.
pub(super) fn lost(vm: &Vm, snapshots: &[Snapshot], snapshot: &Snapshot) -> Vec<String> {
    let is_lost = |kept: &FirmwareFile| {
        let name = vm.settings_file(kept.key)?;
        let now = read(vm, &name).ok()?;
        let copies = snapshots.iter().flat_map(|one| &one.firmware);
        let mut copies = copies.filter(|copy| copy.key == kept.key);
        let is_kept = copies.any(|copy| read(vm, &copy.file).is_ok_and(|copy| copy == now));
        (!is_kept).then_some(name)
    };
    let (restored, _) = to_restore(vm, snapshot);
    restored.iter().filter_map(is_lost).collect()
}

/// Gives the machine the settings of a copy. May be done again. A copy that is gone since leaves
/// them as they are.
pub(super) fn restore(vm: &Vm, kept: &FirmwareFile) -> Result<()> {
    let copy = own_file(vm, &kept.file).filter(|path| is_copy(path, &vm.stem()));
    if copy.is_none() || vm.settings_file(kept.key).is_none() {
        return Ok(());
    }
    let bytes = read(vm, &kept.file)?;
    replace_file(&vm.folder().join(vm.settings_target(kept.key)?), &bytes)
}

fn read(vm: &Vm, name: &str) -> Result<Vec<u8>> {
    let opened = vm.open_file(name, Access::ReadOnly, &vm.rules(true))?;
    read_small(&*opened.storage, MAX_BYTES, "file of a firmware's settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_go_by_the_snapshot_and_the_key() {
        for key in FIRMWARE_KEYS {
            let name = copy_name("web", 12, key);
            assert!(is_copy(Path::new(&name), "web"), "{name}");
        }
        for name in [
            "web.nvram",
            "web-Snapshot.nvram",
            "web-Snapshot1.vmx",
            "web-Snapshot1x.nvram",
            "web-Snapshot1.x.nvram",
            "mail-Snapshot1.nvram",
        ] {
            assert!(!is_copy(Path::new(name), "web"), "{name}");
        }
    }
}
