//! UEFI firmware: found by the descriptions that distributions put beside it (QEMU's
//! `docs/interop/firmware.json`), and each machine's own variables.
//!
//! The variables are a file beside the .vmx, `STEM.hako-efivars.fd` unless `hako.nvram` names
//! another: VMware's .nvram is another format, and stays as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hako_block::gate::{file_names, replace_file};
use hako_block::{Error, ErrorKind, Result};
use serde_json::Value;

use super::plan::Flash;

/// Longest description that is read, in bytes.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;
/// Largest variables, in bytes: OVMF's are 528 KiB at most.
const MAX_VARIABLES_BYTES: u64 = 16 << 20;

/// Firmware of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    code: PathBuf,
    template: PathBuf,
    needs_smm: bool,
}

/// Returns UEFI firmware for a PC, with Secure Boot and Microsoft's keys or without, as the
/// descriptions in `folders` say; one in an earlier folder hides those of its name in later ones.
/// Errors: [`ErrorKind::NotFound`] with the package that has it.
pub(super) fn find(folders: &[PathBuf], secure: bool) -> Result<Found> {
    let mut by_name: BTreeMap<_, PathBuf> = BTreeMap::new();
    for folder in folders {
        for name in file_names(folder).unwrap_or_default() {
            if Path::new(&name).extension() == Some("json".as_ref()) {
                let path = folder.join(&name);
                by_name.entry(name).or_insert(path);
            }
        }
    }
    let found = by_name.values().filter_map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        let is_small = metadata.len() <= MAX_DESCRIPTION_BYTES;
        let bytes = is_small.then(|| std::fs::read(path).ok()).flatten()?;
        described(&serde_json::from_slice(&bytes).ok()?, secure)
    });
    let mut found = found.filter(|found| found.code.is_file() && found.template.is_file());
    found.next().ok_or_else(|| {
        let what = match secure {
            true => "no UEFI firmware with Secure Boot is installed",
            false => "no UEFI firmware is installed",
        };
        Error::new(ErrorKind::NotFound, what)
            .hint("install the package ovmf (Debian, Ubuntu) or edk2-ovmf (Fedora, Arch)")
    })
}

/// Returns the firmware that a description is about, if it is what we want.
fn described(description: &Value, secure: bool) -> Option<Found> {
    let list = |pointer: &str| -> Vec<&Value> {
        let list = description.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().collect()
    };
    let has = |feature: &str| list("/features").iter().any(|found| **found == feature);
    let is_for_us = list("/targets").iter().any(|target| {
        let machines = target["machines"].as_array().into_iter().flatten();
        let mut machines = machines.filter_map(Value::as_str);
        target["architecture"] == "x86_64" && machines.any(|name| name.starts_with("pc-q35-"))
    });
    let is_wanted = match secure {
        true => has("secure-boot") && has("enrolled-keys"),
        false => !has("requires-smm") && !has("enrolled-keys"),
    };
    let is_tied = has("amd-sev-snp") || has("intel-tdx");
    let is_uefi = list("/interface-types").iter().any(|kind| **kind == "uefi");
    if !is_for_us || !is_wanted || is_tied || !is_uefi {
        return None;
    }
    let mapping = description.get("mapping")?;
    let file = |part: &str| {
        let part = mapping.get(part)?;
        let path = part.get("filename")?.as_str()?;
        (part.get("format")? == "raw").then(|| PathBuf::from(path))
    };
    (mapping.get("device")? == "flash").then_some(())?;
    Some(Found {
        code: file("executable")?,
        template: file("nvram-template")?,
        needs_smm: has("requires-smm"),
    })
}

impl Found {
    /// Returns the firmware with variables of the machine's own at `path`, which are made there if
    /// there are none yet. Errors: [`ErrorKind::Unsupported`] for variables of another firmware.
    pub fn with_variables(&self, path: &Path) -> Result<Flash> {
        let size = self.template_len()?;
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => {
                return Err(Error::invalid("is no regular file").in_file(path));
            }
            Ok(found) if found.len() != size => {
                let what = format!(
                    "holds {} bytes of UEFI variables, but those of the firmware {} have {size}",
                    found.len(),
                    self.code.display()
                );
                let hint = "install the firmware that it is from, or remove it: the guest then \
                            starts from \\EFI\\BOOT of its disk";
                return Err(Error::unsupported(what).in_file(path).hint(hint));
            }
            Ok(_) => {}
            Err(_) => self.copy_variables(&self.template, path)?,
        }
        Ok(self.flash(path))
    }

    /// Returns the firmware with a copy of the variables at `own`, or new ones, at `copy`: what the
    /// guest changes there is not kept.
    pub fn with_copy(&self, own: &Path, copy: &Path) -> Result<Flash> {
        let from = if own.is_file() { own } else { &self.template };
        self.copy_variables(from, copy)?;
        self.with_variables(copy)
    }

    fn flash(&self, variables: &Path) -> Flash {
        Flash {
            code: self.code.clone(),
            variables: variables.to_owned(),
            needs_smm: self.needs_smm,
        }
    }

    fn template_len(&self) -> Result<u64> {
        let failed = |error| Error::io("read", error).in_file(&self.template);
        let len = std::fs::metadata(&self.template).map_err(failed)?.len();
        if len > MAX_VARIABLES_BYTES {
            return Err(
                Error::unsupported("is too large for UEFI variables").in_file(&self.template)
            );
        }
        Ok(len)
    }

    fn copy_variables(&self, from: &Path, to: &Path) -> Result<()> {
        let failed = |error| Error::io("read", error).in_file(from);
        let len = std::fs::metadata(from).map_err(failed)?.len();
        if len > MAX_VARIABLES_BYTES {
            return Err(Error::unsupported("is too large for UEFI variables").in_file(from));
        }
        replace_file(to, &std::fs::read(from).map_err(failed)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn description(folder: &Path, features: &[&str], name: &str) -> Value {
        let file = |kind: &str| folder.join(format!("{name}-{kind}.fd"));
        std::fs::write(file("code"), b"code").unwrap();
        std::fs::write(file("vars"), name.as_bytes()).unwrap();
        json!({
            "interface-types": ["uefi"],
            "mapping": {
                "device": "flash",
                "executable": {"filename": file("code"), "format": "raw"},
                "nvram-template": {"filename": file("vars"), "format": "raw"},
            },
            "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
            "features": features,
        })
    }

    fn put(folder: &Path, name: &str, description: &Value) {
        std::fs::write(folder.join(name), description.to_string()).unwrap();
    }

    #[test]
    fn firmware_is_what_its_description_says() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path();
        let folders = [folder.to_owned(), folder.join("missing")];
        let error = find(&folders, false).unwrap_err();
        assert!(
            error.hint_text().unwrap_or_default().contains("ovmf"),
            "{error}"
        );
        put(folder, "10.json", &json!([]));
        put(
            folder,
            "11.json",
            &description(folder, &["amd-sev-snp"], "tied"),
        );
        put(
            folder,
            "12.json",
            &description(
                folder,
                &["requires-smm", "secure-boot", "enrolled-keys"],
                "ms",
            ),
        );
        let mut arm = description(folder, &[], "arm");
        arm["targets"][0]["architecture"] = json!("aarch64");
        put(folder, "13.json", &arm);
        let mut gone = description(folder, &[], "gone");
        gone["mapping"]["executable"]["filename"] = json!("/nowhere");
        put(folder, "14.json", &gone);
        put(folder, "20.json", &description(folder, &[], "plain"));
        let plain = find(&folders, false).unwrap();
        assert!(plain.code.ends_with("plain-code.fd") && !plain.needs_smm);
        let secure = find(&folders, true).unwrap();
        assert!(secure.code.ends_with("ms-code.fd") && secure.needs_smm);
    }

    #[test]
    fn variables_are_made_once_and_kept() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path();
        put(folder, "1.json", &description(folder, &[], "plain"));
        let found = find(&[folder.to_owned()], false).unwrap();
        let own = folder.join("web.hako-efivars.fd");
        assert_eq!(found.with_variables(&own).unwrap().variables, own);
        assert_eq!(std::fs::read(&own).unwrap(), b"plain");
        std::fs::write(&own, b"PLAIN").unwrap();
        found.with_variables(&own).unwrap();
        assert_eq!(std::fs::read(&own).unwrap(), b"PLAIN");
        let copy = folder.join("copy");
        assert_eq!(found.with_copy(&own, &copy).unwrap().variables, copy);
        assert_eq!(std::fs::read(&copy).unwrap(), b"PLAIN");
        std::fs::write(&own, b"other").unwrap();
        found.with_variables(&own).unwrap();
        std::fs::write(&own, b"another").unwrap();
        assert_eq!(
            found.with_variables(&own).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }
}
