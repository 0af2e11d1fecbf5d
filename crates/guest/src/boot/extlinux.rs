//! extlinux, syslinux and isolinux: labels with a kernel, its initrd and its command line
//! (SYSLINUX's `doc/syslinux.txt`, and what U-Boot reads of the same files).

use super::files::{Files, folder, source};
use super::{Entry, Loader, Menu};
use crate::volumes::FoundVolume;

/// Where configurations are, in the installed system and on a partition.
const CONFIGS: &[&str] = &[
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/boot/syslinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/extlinux.conf",
    "/syslinux/syslinux.cfg",
    "/syslinux.cfg",
    "/EFI/syslinux/syslinux.cfg",
    "/EFI/BOOT/syslinux.cfg",
    "/isolinux/isolinux.cfg",
    "/boot/isolinux/isolinux.cfg",
];

/// Files that one configuration may include.
const MOST_FILES: usize = 16;
/// Labels that are read.
const MOST_LABELS: usize = 500;

#[derive(Default)]
struct Label {
    name: String,
    title: String,
    kernel: String,
    initrds: Vec<String>,
    options: Option<String>,
    is_menu_default: bool,
}

#[derive(Default)]
struct Config {
    labels: Vec<Label>,
    default: Option<String>,
    /// The command line of labels that have none.
    options: String,
    n_files: usize,
}

/// Reads the menu. Without a configuration it is empty.
pub(super) fn read(files: &Files<'_>) -> Menu {
    let Some((volume, path)) = find(files) else {
        return Menu::default();
    };
    let mut config = Config::default();
    config.read(files, volume, &path);
    let (default, reason) = config.chosen();
    let place = Place {
        files,
        volume,
        path: &path,
    };
    let entries = config
        .labels
        .iter()
        .map(|label| place.entry(label, &config.options));
    Menu {
        entries: entries.collect(),
        default,
        reason,
        remarks: Vec::new(),
    }
}

fn find<'v>(files: &Files<'v>) -> Option<(&'v FoundVolume, String)> {
    let installed = CONFIGS.iter().find_map(|path| files.place(path));
    installed.or_else(|| {
        files.boot_volumes().into_iter().find_map(|volume| {
            let is_there = |path: &&&str| files.find(volume, path).is_some();
            Some((volume, (*CONFIGS.iter().find(is_there)?).to_owned()))
        })
    })
}

impl Config {
    fn read(&mut self, files: &Files<'_>, volume: &FoundVolume, path: &str) {
        self.n_files += 1;
        if self.n_files > MOST_FILES {
            return;
        }
        let Some(text) = files.text(volume, path) else {
            return;
        };
        for line in text.text.lines().map(str::trim) {
            let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let (key, value) = (key.to_ascii_lowercase(), value.trim());
            if matches!(key.as_str(), "include") {
                let path = beside(path, value);
                self.read(files, volume, &path);
            } else if self.labels.len() <= MOST_LABELS {
                self.line(&key, value);
            }
        }
        self.labels.truncate(MOST_LABELS);
    }

    fn line(&mut self, key: &str, value: &str) {
        match (key, self.labels.last_mut()) {
            ("default", _) => self.default = Some(value.to_owned()),
            ("label", _) => self.labels.push(Label {
                name: value.to_owned(),
                ..Label::default()
            }),
            ("append", None) => self.options = value.to_owned(),
            ("menu", Some(label)) => {
                let (what, rest) = value.split_once([' ', '\t']).unwrap_or((value, ""));
                match what.to_ascii_lowercase().as_str() {
                    "label" => label.title = rest.trim().replace('^', ""),
                    "default" => label.is_menu_default = true,
                    _ => (),
                }
            }
            ("kernel" | "linux", Some(label)) => label.kernel = value.to_owned(),
            ("initrd", Some(label)) => {
                let paths = value.split(',').map(|path| path.trim().to_owned());
                label.initrds = paths.filter(|path| !path.is_empty()).collect();
            }
            ("append", Some(label)) => label.options = Some(value.to_owned()),
            _ => (),
        }
    }

    fn chosen(&self) -> (Option<usize>, String) {
        if self.labels.is_empty() {
            return (None, String::new());
        }
        let wanted = self.default.as_deref().unwrap_or_default();
        let word = wanted.split_ascii_whitespace().next().unwrap_or_default();
        let is_it = |label: &Label| label.name == wanted || label.name == word;
        if let Some(at) = self.labels.iter().position(is_it) {
            return (Some(at), format!("default {wanted}"));
        }
        match self.labels.iter().position(|label| label.is_menu_default) {
            Some(at) => (Some(at), "its menu default".into()),
            None => (Some(0), "the first one: nothing says otherwise".into()),
        }
    }
}

struct Place<'a, 'v> {
    files: &'a Files<'v>,
    volume: &'v FoundVolume,
    path: &'a str,
}

impl Place<'_, '_> {
    fn entry(&self, label: &Label, common: &str) -> Entry {
        let options = label.options.as_deref().unwrap_or(common);
        // A `-` says that there is none, whatever is common.
        let options = if options == "-" { "" } else { options };
        let mut initrds = label.initrds.clone();
        let mut words = Vec::new();
        for word in options.split_ascii_whitespace() {
            match word.strip_prefix("initrd=") {
                Some(paths) => initrds.extend(paths.split(',').map(str::to_owned)),
                None => words.push(word),
            }
        }
        let mut trouble = None;
        let mut image = |path: &str| {
            let path = beside(self.path, path);
            let image = self.files.image(self.volume, &path);
            image
                .map_err(|what| trouble.get_or_insert(what).clone())
                .ok()
        };
        let is_program = [".c32", ".com", ".bin", ".0"]
            .iter()
            .any(|end| label.kernel.to_ascii_lowercase().ends_with(end));
        let kernel = match label.kernel.as_str() {
            "" => None,
            _ if is_program => None,
            path => image(path),
        };
        let initrds = initrds.iter().filter_map(|path| image(path)).collect();
        if kernel.is_none() && trouble.is_none() {
            trouble = Some("it starts no Linux kernel".into());
        }
        let title = match label.title.as_str() {
            "" => &label.name,
            title => title,
        };
        Entry {
            title: title.to_owned(),
            id: label.name.clone(),
            loader: Loader::Extlinux,
            source: source(self.volume, self.path),
            kernel,
            initrds,
            options: words.join(" "),
            trouble,
        }
    }
}

/// Returns a path that is given from the folder of a configuration.
fn beside(config: &str, path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", folder(config)),
    }
}
