//! Which files are a machine's own: what its text and its snapshots name, and what products put
//! beside it under its name. The rest of its folder is foreign.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hako_block::gate::file_names;
use hako_block::staging::PART_SUFFIX;
use hako_block::{Access, Error, ErrorKind, Result};
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{DiskMedium, Medium};
use hako_formats::{
    OpenOptions, OpenedLayer, descriptor_name, find_parent, format_named, open_layer,
};

use crate::Vm;
use crate::settings::{VARIABLES_KEY, VARIABLES_SUFFIX};
use crate::vm::read_text;

/// Extensions of what products put beside a .vmx, under its name or a longer one.
const COMPANIONS: [&str; 8] = [
    "nvram", "vmxf", "vmsd", "vmsn", "vmss", "vmem", "vswp", "log",
];

impl Vm {
    /// Returns its own files in its folder apart from disk images and the .vmx: those that its
    /// text and its list of snapshots name, what has a companion's name, and logs. Sorted.
    pub(crate) fn companions(&self) -> Result<Vec<PathBuf>> {
        let mut named = self.named_files()?;
        named.extend(self.direct_boot_files());
        let stem = self.stem();
        let names = file_names(self.folder())?.into_iter();
        let own = names.filter(|name| {
            let Some(text) = name.to_str() else {
                return false;
            };
            named.contains(text) || is_companion(text, &stem) || is_log(text)
        });
        let paths = own.map(|name| self.folder().join(name));
        Ok(paths.filter(|path| path != self.path()).collect())
    }

    /// Returns what killed runs left behind when they replaced one of its texts.
    pub(crate) fn debris(&self) -> Result<Vec<PathBuf>> {
        let failed = |error| Error::io("list", error).in_file(self.folder());
        let prefix = format!(".{}", self.stem());
        let mut debris = Vec::new();
        for entry in std::fs::read_dir(self.folder()).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(PART_SUFFIX) && path.is_file() {
                debris.push(path);
            }
        }
        Ok(debris)
    }

    /// Returns what its text and its list of snapshots name in its folder, disks and CDs left out,
    /// but for the seed that was made for it.
    fn named_files(&self) -> Result<BTreeSet<String>> {
        let seed = format!("{}-seed.iso", self.stem());
        let mut names = BTreeSet::new();
        for drive in self.vmx.machine().drives {
            if let Medium::CdImage { file } = drive.medium
                && file == seed
            {
                names.insert(file);
            }
        }
        let texts = [
            self.vmx.nvram(),
            self.vmx.extended_config(),
            self.vmx.suspended(),
            self.vmx.dictionary().value(VARIABLES_KEY),
        ];
        names.extend(texts.into_iter().flatten());
        if let Some(bytes) = read_text(&self.vmsd_path())? {
            let dictionary = Dictionary::parse(&bytes)?;
            let files = dictionary.entries().filter(|(key, _)| {
                let key = key.to_ascii_lowercase();
                let is_state = key.starts_with("snapshot") && key.ends_with(".filename");
                let mut ends = [".config", ".nvram"].into_iter();
                let is_kept = key.starts_with("hako.uid") && ends.any(|end| key.ends_with(end));
                is_state && !key.contains(".disk") || is_kept
            });
            names.extend(files.map(|(_, value)| value));
        }
        Ok(names)
    }

    /// Returns the path of a file that its text names, if that is in its folder.
    pub(crate) fn own_file(&self, name: &str) -> Option<PathBuf> {
        let path = std::fs::canonicalize(self.folder().join(name)).ok()?;
        (path.starts_with(self.folder()) && path.is_file()).then_some(path)
    }

    fn direct_boot_files(&self) -> impl Iterator<Item = String> {
        let boot = self.vmx.machine().direct_boot;
        boot.into_iter()
            .flat_map(|boot| [Some(boot.kernel), boot.initrd])
            .flatten()
    }

    /// Returns the host files of every layer of its disks and of those that its snapshots hold.
    /// One that is not there stands on nothing. Errors: a layer that cannot be opened, for what it
    /// stands on is not known then.
    pub(crate) fn files_in_use(&self) -> Result<BTreeSet<PathBuf>> {
        let options = OpenOptions {
            rules: self.rules(true),
            ..OpenOptions::default()
        };
        let mut mains = BTreeSet::new();
        let mut files = BTreeSet::new();
        for disk in self.all_disks()? {
            let opened = match self.open_file(&disk.file, Access::ReadOnly, &options.rules) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let mut next = Some((opened, disk.format.clone().unwrap_or("vmdk".to_owned())));
            while let Some((opened, format)) = next.take() {
                // Chains share layers.
                if !mains.insert(PathBuf::from(opened.storage.name())) {
                    break;
                }
                let layer = open_layer(format_named(&format)?, opened, &options)?;
                files.extend(hako_disk::files_of(&layer));
                if let Some(link) = &layer.image.info().parent {
                    let wrong = || Error::unsupported("does not say its parent's format");
                    let format = link.format.clone().ok_or_else(wrong)?;
                    next = Some((find_parent(&layer, link, &options)?, format));
                }
            }
        }
        Ok(files)
    }

    /// Returns the files in its folder of every layer of a disk, the lowest layer first, of each
    /// the main file last: taken away in this order, what is left can always be found again. Of
    /// layers that cannot be opened: what goes by their names.
    pub(crate) fn disk_files_here(&self, disk: &DiskMedium) -> Vec<Vec<PathBuf>> {
        let layers = self.layers_of(disk).into_iter().rev();
        let mut layers: Vec<Vec<PathBuf>> = layers
            .map(|layer| match layer {
                Ok(layer) => {
                    let mut files = hako_disk::files_of(&layer);
                    files.reverse();
                    files
                }
                Err(main) => files_by_name(&main),
            })
            .collect();
        for files in &mut layers {
            files.retain(|file| file.starts_with(self.folder()));
        }
        layers.retain(|files| !files.is_empty());
        layers
    }

    /// Looks at the layers of a disk, the top first, without locks and whether they fit together
    /// or not. One that cannot be opened, told by its main file, is the last.
    pub(crate) fn layers_of(
        &self,
        disk: &DiskMedium,
    ) -> Vec<std::result::Result<OpenedLayer, PathBuf>> {
        let options = OpenOptions {
            rules: self.rules(true),
            ..OpenOptions::default()
        };
        let mut layers = Vec::new();
        let mut next = self
            .open_file(&disk.file, Access::ReadOnly, &options.rules)
            .ok()
            .map(|opened| (opened, disk.format.clone().unwrap_or("vmdk".to_owned())));
        while let Some((opened, format)) = next.take() {
            if layers.len() >= hako_block::chain::MAX_LAYERS {
                break;
            }
            let main = PathBuf::from(opened.storage.name());
            let layer = format_named(&format).and_then(|f| open_layer(f, opened, &options));
            if let Ok(layer) = &layer {
                next = parent_of(layer, &options);
            }
            layers.push(layer.map_err(|_| main));
        }
        layers
    }
}

/// Returns the one file in a folder with this extension, in any case. `None`: there is none. What
/// a snapshot keeps of a machine's configuration does not count.
pub(crate) fn the_one(folder: &Path, extension: &str) -> Result<Option<PathBuf>> {
    let names = file_names(folder)?;
    let is_kept = |name: &OsStr| {
        let machine = name.to_str().and_then(machine_of_config);
        machine.is_some_and(|machine| names.contains(&machine.into()))
    };
    let others = names.iter().filter(|name| !is_kept(name));
    let mut paths = others.map(|name| folder.join(name)).filter(|path| {
        path.extension()
            .is_some_and(|found| found.eq_ignore_ascii_case(extension))
    });
    match (paths.next(), paths.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Error::invalid(format!("holds several .{extension} files"))
            .in_file(folder)
            .hint("give the path of the one you mean")),
    }
}

/// Returns the .vmx of the machine of which a file is what a snapshot keeps of the configuration:
/// `web.vmx` of `web-Snapshot3.vmx`.
pub(crate) fn machine_of_config(name: &str) -> Option<String> {
    let (machine, number) = name.strip_suffix(".vmx")?.rsplit_once("-Snapshot")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("{machine}.vmx"))
}

fn parent_of(layer: &OpenedLayer, options: &OpenOptions) -> Option<(hako_block::Opened, String)> {
    let link = layer.image.info().parent.as_ref()?;
    let opened = find_parent(layer, link, options).ok()?;
    Some((opened, link.format.clone()?))
}

/// Returns the files that belong to an image by their names, the image's own last.
pub(crate) fn files_by_name(main: &Path) -> Vec<PathBuf> {
    let folder = main.parent().unwrap_or(Path::new("/"));
    let is_extent = |name: &OsStr| {
        name.to_str().and_then(descriptor_name).as_deref()
            == main.file_name().and_then(OsStr::to_str)
    };
    let names = file_names(folder).unwrap_or_default().into_iter();
    let extents = names.filter(|name| is_extent(name));
    extents
        .map(|name| folder.join(name))
        .chain([main.to_path_buf()])
        .collect()
}

/// Returns whether a file goes with a .vmx of this name: `web.nvram`, `web-Snapshot1.vmsn`,
/// `web.hako-efivars.fd`.
fn is_companion(name: &str, stem: &str) -> bool {
    let Some(rest) = name.strip_prefix(stem) else {
        return false;
    };
    if rest == VARIABLES_SUFFIX {
        return true;
    }
    let Some((between, extension)) = rest.rsplit_once('.') else {
        return false;
    };
    (between.is_empty() || between.starts_with(['-', '_', '.']))
        && COMPANIONS.contains(&extension.to_ascii_lowercase().as_str())
}

/// Returns whether a file is a log of VMware's: `vmware.log`, `vmware-3.log`.
fn is_log(name: &str) -> bool {
    name.strip_prefix("vmware")
        .and_then(|rest| rest.strip_suffix(".log"))
        .is_some_and(|number| {
            let digits = number.strip_prefix('-').unwrap_or(number);
            digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_go_by_the_name_of_the_vmx() {
        for name in [
            "web.nvram",
            "web-Snapshot1.vmsn",
            "web-1a2b.vmem",
            "web.vmsd",
            "web.hako-efivars.fd",
        ] {
            assert!(is_companion(name, "web"), "{name}");
        }
        for name in [
            "website.nvram",
            "web.txt",
            "web",
            "mail.nvram",
            "web.vmdk",
            "web2.hako-efivars.fd",
        ] {
            assert!(!is_companion(name, "web"), "{name}");
        }
        for name in ["vmware.log", "vmware-12.log"] {
            assert!(is_log(name), "{name}");
        }
        for name in ["vmware-old.log", "vmware.txt", "my.log"] {
            assert!(!is_log(name), "{name}");
        }
    }
}
