//! The files with the settings of a machine's firmware: VMware's NVRAM, and the UEFI variables that
//! our engines keep.

use std::path::{Component, Path};

use hako_block::{Error, Result};
use hako_formats::vmx::Vmx;

use crate::Vm;

/// The key of the VMX that names the UEFI variables.
pub(crate) const VARIABLES_KEY: &str = "hako.nvram";
/// How they are called where that key is not: beside the .vmx, its name with this.
pub(crate) const VARIABLES_SUFFIX: &str = ".hako-efivars.fd";

/// Returns what a key of a text names, one of [`hako_formats::vmsd::FIRMWARE_KEYS`]; `stem` is the
/// name of the .vmx without its extension. The file may not be there yet.
pub(crate) fn settings_file(vmx: &Vmx, stem: &str, key: &str) -> Option<String> {
    let named = vmx.dictionary().value(key);
    let named = named.filter(|name| !name.is_empty());
    named.or_else(|| (key == VARIABLES_KEY).then(|| format!("{stem}{VARIABLES_SUFFIX}")))
}

impl Vm {
    /// Returns what a key of its text names.
    pub(crate) fn settings_file(&self, key: &str) -> Option<String> {
        settings_file(&self.vmx, &self.stem(), key)
    }

    /// Returns the name of its own file for these settings, in its folder, which may be written and
    /// may not be there yet. Errors: the text names something that is no such file.
    pub(crate) fn settings_target(&self, key: &str) -> Result<String> {
        let name = self.settings_file(key).unwrap_or_default();
        let mut parts = Path::new(&name).components();
        let is_plain = matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        );
        let path = self.folder().join(&name);
        let is_other = || {
            let texts = [self.path(), &self.vmsd_path()].contains(&path.as_path());
            Ok::<_, Error>(texts || self.files_in_use()?.contains(&path))
        };
        match is_plain && !is_other()? {
            true => Ok(name),
            false => {
                let what = format!("{key} names {name:?}, which is no file for them");
                Err(Error::invalid(what).in_file(self.path()))
            }
        }
    }
}
