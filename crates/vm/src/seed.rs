//! The seed from which cloud-init in a guest learns who it is: a NoCloud volume "cidata" with
//! user-data and meta-data (cloud-init documentation, "NoCloud").

use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, Result, Uuid};
use hako_formats::iso::{self, IsoFile};

use crate::vm::read_text;

/// What a NoCloud volume may hold.
const NAMES: [&str; 4] = ["user-data", "meta-data", "network-config", "vendor-data"];

/// A seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The ISO 9660 image.
    pub image: Vec<u8>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Seed {
    /// Makes the seed of a machine from a file, which is its user-data, or from a folder with
    /// files of NoCloud's names. Without meta-data it gets some: a new instance, so that
    /// cloud-init runs, with the machine's name as its host name.
    pub fn from_path(path: &Path, machine: &str) -> Result<Self> {
        let mut warnings = Vec::new();
        let mut files = if path.is_dir() {
            files_of_folder(path, &mut warnings)?
        } else {
            vec![file("user-data", path)?]
        };
        let mut add_missing = |name: &str, content: String| {
            if files.iter().all(|file| file.name != name) {
                files.push(IsoFile {
                    name: name.to_owned(),
                    content: content.into_bytes(),
                });
            }
        };
        add_missing("meta-data", meta_data(machine));
        // cloud-init takes a volume without user-data for none of its own.
        add_missing("user-data", "#cloud-config\n{}\n".to_owned());
        for file in files.iter().filter(|file| file.name == "user-data") {
            if !says_what_it_is(&file.content) {
                warnings.push(
                    "user-data does not begin with a line that says what it is, like \
                     #cloud-config or #!/bin/sh: cloud-init will ignore it"
                        .to_owned(),
                );
            }
        }
        Ok(Self {
            image: iso::image("cidata", &files)?,
            warnings,
        })
    }
}

fn files_of_folder(folder: &Path, warnings: &mut Vec<String>) -> Result<Vec<IsoFile>> {
    let failed = |error| Error::io("list", error).in_file(folder);
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.filter(|name| NAMES.contains(name)) {
            Some(name) => files.push(file(name, &path)?),
            None => warnings.push(format!(
                "{}: left out: a seed holds only {}",
                path.display(),
                NAMES.join(", ")
            )),
        }
    }
    if files.is_empty() {
        return Err(Error::invalid("holds neither user-data nor meta-data").in_file(folder));
    }
    Ok(files)
}

fn file(name: &str, path: &Path) -> Result<IsoFile> {
    let content = read_text(path)?
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such file").in_file(path))?;
    Ok(IsoFile {
        name: name.to_owned(),
        content,
    })
}

fn meta_data(machine: &str) -> String {
    let plain = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_lowercase(),
        _ => '-',
    };
    let host: String = machine.chars().map(plain).take(63).collect();
    let host = match host.trim_matches('-') {
        "" => "localhost",
        host => host,
    };
    format!(
        "instance-id: iid-{}\nlocal-hostname: \"{host}\"\n",
        Uuid::random()
    )
}

/// Returns whether cloud-init will know what the user-data is: by its first line, or because it is
/// compressed.
fn says_what_it_is(user_data: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 6] = [
        b"#",
        b"Content-Type:",
        b"MIME-Version:",
        b"From ",
        b"\x1f\x8b",
        b"\xef\xbb\xbf#",
    ];
    let begin = user_data.trim_ascii_start();
    BEGINNINGS.iter().any(|known| begin.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(seed: &Seed, text: &str) -> bool {
        let text = text.as_bytes();
        seed.image.windows(text.len()).any(|found| found == text)
    }

    #[test]
    fn a_file_is_user_data_and_the_rest_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, "#cloud-config\npackages: [git]\n").unwrap();
        let seed = Seed::from_path(&path, "Web Server_1").unwrap();
        assert!(seed.warnings.is_empty());
        assert!(holds(&seed, "packages: [git]"));
        assert!(holds(&seed, "local-hostname: \"web-server-1\""));
        std::fs::write(&path, "packages: [git]\n").unwrap();
        assert_eq!(Seed::from_path(&path, "web").unwrap().warnings.len(), 1);
    }

    #[test]
    fn a_folder_gives_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        assert!(Seed::from_path(folder.path(), "web").is_err());
        write("meta-data", "instance-id: mine\n");
        write("network-config", "version: 2\n");
        write("README", "notes");
        let seed = Seed::from_path(folder.path(), "web").unwrap();
        assert!(holds(&seed, "instance-id: mine") && holds(&seed, "version: 2"));
        assert!(!holds(&seed, "iid-") && !holds(&seed, "notes"));
        assert_eq!(seed.warnings.len(), 1, "{:?}", seed.warnings);
    }
}
