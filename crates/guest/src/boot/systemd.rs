//! systemd-boot: `loader/loader.conf`, entries of the Boot Loader Specification and unified kernel
//! images on the EFI system partition and the one beside it.

use std::collections::BTreeMap;

use super::bls::{self, SortKey, without_tries};
use super::files::{Blob, Files, source};
use super::{Entry, Image, Loader, Menu, pe};
use crate::glob;
use crate::os::release::variables;
use crate::volumes::FoundVolume;

/// An entry with what it is sorted by.
struct Sorted {
    entry: Entry,
    is_bad: bool,
    sort_key: String,
    machine_id: String,
    version: String,
}

/// Longest text in a unified kernel image.
const TEXT_BYTES: usize = 1 << 20;

/// Where systemd-boot and its settings are.
const MARKS: &[&str] = &[
    "/loader/loader.conf",
    "/EFI/systemd/systemd-bootx64.efi",
    "/EFI/systemd/systemd-bootaa64.efi",
];

/// Reads the menu of systemd-boot. Without it, it has the unified kernel images that firmware could
/// start.
pub(super) fn read(files: &Files<'_>) -> Menu {
    let volumes = files.boot_volumes();
    let loader = volumes.iter().find(|volume| {
        let is_there = |path: &&str| files.find(volume, path).is_some();
        MARKS.iter().any(is_there)
    });
    let mut menu = Menu::default();
    let mut all = Vec::new();
    for volume in &volumes {
        if loader.is_some() {
            all.extend(type_1(files, volume));
        }
        all.extend(unified(files, volume, &mut menu.remarks));
    }
    all.sort_by(|a, b| a.key().compare(&b.key()));
    let Some(loader) = loader else {
        menu.entries = all.into_iter().map(|sorted| sorted.entry).collect();
        return menu;
    };
    let config = files.text(loader, "/loader/loader.conf");
    let config = config.map(|config| config.text).unwrap_or_default();
    (menu.default, menu.reason) = default_of(&all, &config);
    menu.entries = all.into_iter().map(|sorted| sorted.entry).collect();
    menu
}

impl Sorted {
    fn key(&self) -> SortKey<'_> {
        SortKey {
            is_bad: self.is_bad,
            sort_key: &self.sort_key,
            machine_id: &self.machine_id,
            version: &self.version,
            id: &self.entry.id,
        }
    }
}

fn type_1(files: &Files<'_>, volume: &FoundVolume) -> Vec<Sorted> {
    let entries = bls::read(files, volume, "/loader/entries").into_iter();
    let sorted = entries.map(|entry| Sorted {
        is_bad: entry.is_bad,
        sort_key: entry.value("sort-key").to_owned(),
        machine_id: entry.value("machine-id").to_owned(),
        version: entry.value("version").to_owned(),
        entry: entry.resolved(files, Loader::SystemdBoot, &BTreeMap::new()),
    });
    sorted.collect()
}

fn unified(files: &Files<'_>, volume: &FoundVolume, remarks: &mut Vec<String>) -> Vec<Sorted> {
    let folder = "/EFI/Linux";
    let names = files.names(volume, folder).into_iter();
    let programs = names.filter(|name| name.to_ascii_lowercase().ends_with(".efi"));
    let sorted = programs.filter_map(|name| {
        let path = format!("{folder}/{name}");
        match uki(files, volume, &path, &name) {
            Ok(sorted) => sorted,
            Err(what) => {
                remarks.push(format!("{}: {what}", source(volume, &path)));
                None
            }
        }
    });
    sorted.collect()
}

/// Takes a unified kernel image apart; none if it is another program.
fn uki(
    files: &Files<'_>,
    volume: &FoundVolume,
    path: &str,
    name: &str,
) -> Result<Option<Sorted>, String> {
    let program = files.image(volume, path)?;
    let whole: Blob = program.blob;
    let sections = pe::sections(&whole).map_err(|error| error.to_string())?;
    let sections = sections.unwrap_or_default();
    let section = |name: &str| {
        sections
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, blob)| blob)
    };
    let text = |name: &str| {
        let bytes = section(name)?.read(TEXT_BYTES).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(text.trim_matches(['\0', '\n', ' ']).to_owned())
    };
    let Some(kernel) = section(".linux") else {
        return Ok(None);
    };
    let named = |section: &str, blob: &Blob| Image {
        path: format!("{}:{section}", program.path),
        blob: blob.clone(),
    };
    let release = variables(text(".osrel").unwrap_or_default().as_bytes());
    let value = |keys: &[&str]| {
        let mut values = keys.iter().filter_map(|key| release.get(*key));
        values.next().cloned().unwrap_or_default()
    };
    let stem = name.get(..name.len().saturating_sub(4)).unwrap_or(name);
    let (stem, is_bad) = without_tries(stem);
    let title = match value(&["PRETTY_NAME", "NAME"]) {
        title if title.is_empty() => stem.to_owned(),
        title => title,
    };
    let initrd = section(".initrd").map(|blob| named(".initrd", blob));
    Ok(Some(Sorted {
        entry: Entry {
            title,
            id: stem.to_owned(),
            loader: Loader::Uki,
            source: program.path.clone(),
            kernel: Some(named(".linux", kernel)),
            initrds: initrd.into_iter().collect(),
            options: text(".cmdline").unwrap_or_default(),
            trouble: None,
        },
        is_bad,
        sort_key: value(&["IMAGE_ID", "ID"]),
        machine_id: String::new(),
        version: match text(".uname") {
            Some(version) => version,
            None => value(&["IMAGE_VERSION", "VERSION_ID", "BUILD_ID"]),
        },
    }))
}

/// Returns the entry that `default` of loader.conf means, a pattern, and why it is it.
fn default_of(entries: &[Sorted], config: &str) -> (Option<usize>, String) {
    if entries.is_empty() {
        return (None, String::new());
    }
    let lines = config.lines().map(str::trim);
    let mut values = lines.filter_map(|line| line.split_once([' ', '\t']));
    let value = values.rfind(|(key, _)| *key == "default");
    let Some((_, pattern)) = value else {
        return (
            Some(0),
            "the first one: loader.conf says nothing else".into(),
        );
    };
    let pattern = pattern.trim();
    if pattern.starts_with('@') {
        let reason = format!("the first one: default={pattern} is in the firmware's variables");
        return (Some(0), reason);
    }
    let is_it = |sorted: &Sorted| {
        let id = &sorted.entry.id;
        let end = match sorted.entry.loader {
            Loader::Uki => ".efi",
            _ => ".conf",
        };
        let names = [id.clone(), format!("{id}{end}")];
        let pattern = pattern.to_ascii_lowercase();
        let mut names = names.iter().map(|name| name.to_ascii_lowercase());
        names.any(|name| glob::matches(pattern.as_bytes(), name.as_bytes()))
    };
    match entries.iter().position(is_it) {
        Some(at) => (Some(at), format!("default={pattern} in loader.conf")),
        None => {
            let reason = format!("the first one: default={pattern} in loader.conf is no entry");
            (Some(0), reason)
        }
    }
}
