//! The commands `search` and `probe`.

use super::super::files::Files;
use super::device;
use crate::volumes::FoundVolume;

/// What is searched for.
enum By {
    Uuid,
    Label,
    File,
}

/// What a search found, and where that goes.
pub(super) struct Search {
    /// The variable that is set; none prints only.
    pub variable: Option<String>,
    /// The device; none if nothing was found.
    pub device: Option<String>,
}

/// Runs `search`, or with `name` one of the commands that it is also known as (`search.fs_uuid`).
pub(super) fn search(files: &Files<'_>, name: &str, words: &[String]) -> Search {
    let mut by = match name {
        "search.fs_label" => By::Label,
        "search.file" => By::File,
        _ => By::Uuid,
    };
    if name != "search" {
        let mut words = words.iter().cloned();
        let wanted = words.next().unwrap_or_default();
        let variable = words.next().unwrap_or_else(|| "root".into());
        return Search {
            variable: Some(variable),
            device: find(files, &by, &wanted),
        };
    }
    by = By::File;
    let mut variable = None;
    let mut wanted = None;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-u" | "--fs-uuid" => by = By::Uuid,
            "-l" | "--label" | "--fs-label" => by = By::Label,
            "-f" | "--file" => by = By::File,
            // Its value is optional, and so never a word of its own.
            "-s" | "--set" => variable = Some("root".to_owned()),
            "-h" => drop(words.next()),
            word if word.starts_with("--hint") && !word.contains('=') => drop(words.next()),
            word if word.starts_with("--set=") => {
                variable = word.split_once('=').map(|(_, name)| name.to_owned());
            }
            word if word.starts_with('-') => (),
            word => wanted = Some(word),
        }
    }
    Search {
        variable,
        device: wanted.and_then(|wanted| find(files, &by, wanted)),
    }
}

fn find(files: &Files<'_>, by: &By, wanted: &str) -> Option<String> {
    let is_it = |found: &&&FoundVolume| match by {
        By::Uuid => is_uuid(&found.content.uuid, wanted),
        By::Label => found.content.label == wanted,
        By::File => files.find(found, wanted).is_some(),
    };
    if wanted.is_empty() {
        return None;
    }
    let volumes = files.volumes.with_file_systems();
    volumes
        .iter()
        .find(is_it)
        .map(|found| device::name(files, found))
}

/// GRUB writes UUIDs as blkid does, but for dashes and case.
fn is_uuid(known: &str, wanted: &str) -> bool {
    let digits = |text: &str| -> String {
        let digits = text.chars().filter(|c| *c != '-');
        digits.map(|c| c.to_ascii_lowercase()).collect()
    };
    !known.is_empty() && digits(known) == digits(wanted)
}

/// Runs `probe`: returns the variable and the value that it gets.
pub(super) fn probe(files: &Files<'_>, words: &[String]) -> Option<(String, String)> {
    let mut variable = None;
    let mut what = None;
    let mut wanted = None;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-s" | "--set" => variable = words.next().map(str::to_owned),
            "-u" | "--fs-uuid" | "-f" | "--fs" | "-l" | "--label" => what = Some(word),
            word if word.starts_with("--set=") => {
                variable = word.split_once('=').map(|(_, name)| name.to_owned());
            }
            word if word.starts_with('-') => (),
            word => wanted = Some(word.trim_matches(['(', ')'])),
        }
    }
    let volume = device::volume(files, wanted?)?;
    let value = match what? {
        "-u" | "--fs-uuid" => volume.content.uuid.clone(),
        "-l" | "--label" => volume.content.label.clone(),
        _ => volume.content.kind.to_owned(),
    };
    Some((variable?, value))
}
