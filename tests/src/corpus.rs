//! Real images that other people's software made, with the checksums of their content. They lie
//! outside the repository: `HAKO_CORPUS` names the folder that holds their `INDEX.tsv`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One line of the index.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The file, relative to the corpus.
    pub file: String,
    /// The format as qemu-img calls it; "ERR" for a file that must be refused or is only a part.
    pub format: String,
    /// The virtual size in bytes, where known.
    pub virtual_size: Option<u64>,
    /// SHA-256 of the whole disk as raw, where known.
    pub disk_sha256: Option<String>,
}

/// The corpus.
pub struct Corpus {
    folder: PathBuf,
    /// The lines of its index.
    pub entries: Vec<Entry>,
}

impl Corpus {
    /// Opens the corpus; `None`, loudly, if the variable is not set.
    pub fn open() -> Option<Self> {
        let Some(folder) = std::env::var_os("HAKO_CORPUS").map(PathBuf::from) else {
            eprintln!("skipped: HAKO_CORPUS is not set, NO REAL IMAGE IS TESTED");
            return None;
        };
        let index = std::fs::read_to_string(folder.join("INDEX.tsv")).expect("INDEX.tsv");
        let entries = index.lines().skip(1).filter_map(entry).collect();
        Some(Self { folder, entries })
    }

    /// Returns the disks whose content is known, of the formats named.
    pub fn disks<'a>(&'a self, formats: &'a [&str]) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.disk_sha256.is_some() && formats.contains(&entry.format.as_str()))
    }

    /// Returns the path of an image, unpacked into `scratch` if it is compressed.
    pub fn unpack(&self, entry: &Entry, scratch: &Path) -> PathBuf {
        let path = self.folder.join(&entry.file);
        if path.extension().is_none_or(|extension| extension != "bz2") {
            return path;
        }
        let target = scratch.join(path.file_stem().unwrap());
        let status = Command::new("bunzip2")
            .arg("-c")
            .stdin(Stdio::from(File::open(&path).unwrap()))
            .stdout(Stdio::from(File::create(&target).unwrap()))
            .status()
            .expect("bunzip2 is installed (tests/run does that)");
        assert!(status.success(), "bunzip2 {}", path.display());
        target
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split('\t');
    let file = fields.next()?.to_owned();
    let format = fields.nth(3)?.to_owned();
    let virtual_size = fields.next().and_then(|text| text.parse().ok());
    let disk_sha256 = fields.next().filter(|text| text.len() == 64);
    Some(Entry {
        file,
        format,
        virtual_size,
        disk_sha256: disk_sha256.map(str::to_owned),
    })
}
