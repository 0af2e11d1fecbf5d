//! An OVF with its files: in a tar, or beside it in a folder.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::arrival::Arrived;
use crate::copy::read_small;
use hako_block::gate::folder_of;
use hako_block::{
    Access, Cancel, Error, ErrorKind, Gate, GateRules, Joined, Opened, Resolver, Result, Storage,
};
use hako_formats::digest::{Algorithm, digest_of};
use hako_formats::ova::{NothingBeside, Ova};
use hako_formats::ovf::{self, Envelope, FileCompression, Manifest};

/// Most pieces of a file that is cut to pieces.
const MAX_CHUNKS: u64 = 1 << 16;

/// An OVF with its files.
pub(crate) struct Package {
    /// What it describes.
    pub(crate) envelope: Envelope,
    /// The text of it.
    pub(crate) text: String,
    files: Files,
    manifest: Option<Manifest>,
    /// Disks that were written while the package came, by the names of their members.
    arrived: HashMap<String, Arrived>,
    /// What is odd about it, for people.
    pub(crate) warnings: Vec<String>,
}

enum Files {
    Tar(Ova),
    Folder(Gate),
}

impl Files {
    fn open(&self, name: &str) -> Result<Opened> {
        match self {
            Files::Tar(ova) => Ok(Opened {
                storage: ova.member(name)?,
                name: last_part(name).to_owned(),
                resolver: Arc::new(NothingBeside),
            }),
            Files::Folder(gate) => gate.open(name, Access::ReadOnly),
        }
    }

    /// Refuses a manifest with the digest of a file that is not there: either of the two is wrong.
    /// One that lists itself does not mean it.
    fn refuse_missing(&self, manifest: &Manifest, ovf: &str) -> Result<()> {
        let own = Path::new(ovf).with_extension("mf");
        for entry in &manifest.entries {
            if Path::new(&entry.file) != own && found(self.open(&entry.file))?.is_none() {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    "the manifest has its digest, but it is not in the package",
                )
                .in_file(&entry.file)
                .hint("the package is not whole, or was changed: get it anew"));
            }
        }
        Ok(())
    }
}

/// A file of a package.
pub(crate) struct PackageFile {
    /// Its bytes, as they are stored, and what opens what it names.
    pub(crate) opened: Opened,
    /// Whether it is packed with gzip.
    pub(crate) is_packed: bool,
    /// Its length as the text says it.
    pub(crate) size: Option<u64>,
    /// What its bytes must be.
    pub(crate) checks: Vec<Check>,
    /// The disk in it, if that was written while the package came; nothing of it is stored then.
    pub(crate) arrived: Option<Arrived>,
}

/// What the manifest says of a file.
pub(crate) struct Check {
    name: String,
    storage: Arc<dyn Storage>,
    algorithm: Algorithm,
    digest: Vec<u8>,
}

impl Check {
    /// Reads the file. Errors: [`ErrorKind::Mismatch`] if it is not what the manifest says.
    pub(crate) fn run(&self, cancel: &Cancel) -> Result<()> {
        self.run_while(&|| cancel.check())
    }

    /// Reads the file for as long as `go_on` has nothing against it.
    pub(crate) fn run_while(&self, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
        self.compare(&digest_of(&*self.storage, self.algorithm, |_| go_on())?)
    }

    /// Compares the digest with what the file had when it came.
    fn compare_with(&self, arrived: &Arrived) -> Result<()> {
        let mut digests = arrived.digests.iter();
        let found = digests.find(|(algorithm, _)| *algorithm == self.algorithm);
        let (_, found) = found.ok_or_else(|| {
            Error::invalid("its digest was not taken when it came").in_file(&self.name)
        })?;
        self.compare(found)
    }

    fn compare(&self, found: &[u8]) -> Result<()> {
        if found == self.digest {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "its {} is not the one in the manifest",
                self.algorithm.name()
            ),
        )
        .in_file(&self.name)
        .hint("the package was damaged or changed: get it anew"))
    }
}

impl Package {
    /// Reads the description in a tar, and verifies it.
    pub(crate) fn of_tar(ova: Ova, cancel: &Cancel) -> Result<Self> {
        let ovf = ova.ovf().clone();
        let text = ova.window(&ovf)?;
        let manifest = match ova.manifest() {
            Some(member) => Some(ova.window(member)?),
            None => None,
        };
        let name = last_part(&ovf.name).to_owned();
        let warnings = ova.oddities().to_vec();
        Self::new(Files::Tar(ova), &name, text, manifest, warnings, cancel)
    }

    /// Like [`Self::of_tar`] for one that came through a pipe, of which disks were written then.
    pub(super) fn of_arrived(
        ova: Ova,
        arrived: HashMap<String, Arrived>,
        cancel: &Cancel,
    ) -> Result<Self> {
        Ok(Self {
            arrived,
            ..Self::of_tar(ova, cancel)?
        })
    }

    /// Reads the description at `path` in a folder, and verifies it.
    pub(crate) fn of_file(path: &Path, rules: &GateRules, cancel: &Cancel) -> Result<Self> {
        let opened = Gate::open_user(path, Access::ReadOnly, rules)?;
        let gate = Gate::of_folder(folder_of(path), rules)?;
        let manifest = match Path::new(&opened.name).with_extension("mf").to_str() {
            Some(name) => found(gate.open(name, Access::ReadOnly))?.map(|file| file.storage),
            None => None,
        };
        let (name, text) = (opened.name, opened.storage);
        Self::new(
            Files::Folder(gate),
            &name,
            text,
            manifest,
            Vec::new(),
            cancel,
        )
    }

    fn new(
        files: Files,
        name: &str,
        text: Arc<dyn Storage>,
        manifest: Option<Arc<dyn Storage>>,
        mut warnings: Vec<String>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let manifest = match manifest {
            Some(storage) => Some(
                Manifest::parse(&read_small(
                    &*storage,
                    ovf::manifest::MAX_BYTES,
                    "such text",
                )?)
                .map_err(|error| error.in_file(storage.name()))?,
            ),
            None => None,
        };
        if let Some(manifest) = &manifest {
            for check in checks(manifest, name, &text, &mut warnings) {
                check.run(cancel)?;
            }
        }
        if let Some(manifest) = &manifest {
            files.refuse_missing(manifest, name)?;
        }
        let bytes = read_small(&*text, ovf::MAX_BYTES, "such text")?;
        let envelope = Envelope::parse(&bytes).map_err(|error| error.in_file(text.name()))?;
        warnings.extend(envelope.oddities.iter().cloned());
        Ok(Self {
            envelope,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            files,
            manifest,
            arrived: HashMap::new(),
            warnings,
        })
    }

    /// Returns whether there is a manifest.
    pub(crate) fn has_manifest(&self) -> bool {
        self.manifest.is_some()
    }

    /// Opens a file that the description lists. Errors: [`ErrorKind::Mismatch`] for one of another
    /// length than it says.
    pub(crate) fn open(&mut self, file: &ovf::File) -> Result<PackageFile> {
        let name = self.name_of(file)?;
        let arrived = match &self.files {
            Files::Tar(ova) if file.chunk_bytes.is_none() => {
                let member = ova.find(&name);
                member.and_then(|member| self.arrived.get(&member.name).cloned())
            }
            _ => None,
        };
        let mut pieces = Vec::new();
        let opened = match file.chunk_bytes {
            None => {
                let opened = self.files.open(&name)?;
                pieces.push((name, Arc::clone(&opened.storage)));
                opened
            }
            Some(chunk_bytes) => {
                pieces = self.chunks(&name, chunk_bytes, file.size)?;
                let parts = pieces.iter().map(|(_, part)| Arc::clone(part));
                Opened {
                    storage: Arc::new(Joined::new(&name, parts.collect())?),
                    name,
                    resolver: Arc::new(NothingBeside),
                }
            }
        };
        let is_packed = file.compression == FileCompression::Gzip;
        let stored = opened.storage.len_bytes()?;
        if let Some(size) = file.size
            && size != stored
            && !is_packed
        {
            return Err(wrong_size(opened.storage.name(), stored, size));
        }
        let mut all = Vec::new();
        if let Some(manifest) = &self.manifest {
            for (name, storage) in &pieces {
                all.extend(checks(manifest, name, storage, &mut self.warnings));
            }
        }
        if let Some(arrived) = &arrived {
            // Nothing of it can be read again.
            let mut checks = std::mem::take(&mut all).into_iter();
            checks.try_for_each(|check| check.compare_with(arrived))?;
        }
        Ok(PackageFile {
            opened,
            is_packed,
            size: file.size,
            checks: all,
            arrived,
        })
    }

    /// Returns the name that a file has in the package: as the text has it, or with its percent
    /// signs decoded.
    fn name_of(&self, file: &ovf::File) -> Result<String> {
        let href = &file.href;
        if href.contains("://") {
            return Err(Error::unsupported(format!(
                "the file {href:?} is not in the package but on a network"
            ))
            .hint("get it, put it beside the .ovf and correct its href"));
        }
        let first = |name: &str| match file.chunk_bytes {
            Some(_) => chunk_name(name, 0),
            None => name.to_owned(),
        };
        if found(self.files.open(&first(href)))?.is_some() {
            return Ok(href.clone());
        }
        match percent_decoded(href) {
            Some(name) if found(self.files.open(&first(&name)))?.is_some() => Ok(name),
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                "the description names it, but it is not in the package",
            )
            .in_file(first(href))
            .hint("the package is not whole: get it anew")),
        }
    }

    /// Opens the pieces of a file that is cut to pieces.
    fn chunks(
        &self,
        name: &str,
        chunk_bytes: u64,
        size: Option<u64>,
    ) -> Result<Vec<(String, Arc<dyn Storage>)>> {
        let n_chunks = size.map(|size| size.div_ceil(chunk_bytes.max(1)).max(1));
        if chunk_bytes == 0 || n_chunks.is_some_and(|n| n > MAX_CHUNKS) {
            return Err(Error::unsupported(format!(
                "is cut to pieces of {chunk_bytes} bytes: more than {MAX_CHUNKS} of them"
            ))
            .in_file(name));
        }
        let mut pieces: Vec<(String, Arc<dyn Storage>)> = Vec::new();
        for number in 0..n_chunks.unwrap_or(MAX_CHUNKS) {
            let piece = chunk_name(name, number);
            let storage = match found(self.files.open(&piece))? {
                Some(opened) => opened.storage,
                None if n_chunks.is_none() => break,
                None => {
                    return Err(
                        Error::new(ErrorKind::Corrupt, "this piece is missing").in_file(piece)
                    );
                }
            };
            if let Some((last, before)) = pieces.last()
                && before.len_bytes()? != chunk_bytes
            {
                return Err(wrong_size(last, before.len_bytes()?, chunk_bytes));
            }
            pieces.push((piece, storage));
        }
        Ok(pieces)
    }
}

/// Returns what the manifest says of a file; if nothing, that is odd.
fn checks(
    manifest: &Manifest,
    name: &str,
    storage: &Arc<dyn Storage>,
    warnings: &mut Vec<String>,
) -> Vec<Check> {
    let all: Vec<_> = manifest
        .of_file(name)
        .map(|entry| Check {
            name: storage.name().to_owned(),
            storage: Arc::clone(storage),
            algorithm: entry.algorithm,
            digest: entry.digest.clone(),
        })
        .collect();
    if all.is_empty() {
        warnings.push(format!(
            "{name} is not in the manifest: it was not verified"
        ));
    }
    all
}

fn chunk_name(name: &str, number: u64) -> String {
    format!("{name}.{number:09}")
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

pub(crate) fn wrong_size(name: &str, found: u64, said: u64) -> Error {
    Error::new(
        ErrorKind::Mismatch,
        format!("has {found} bytes, but the description says {said}"),
    )
    .in_file(name)
    .hint("the package was damaged or changed: get it anew")
}

/// Returns `None` for a file that is not there.
fn found(opened: Result<Opened>) -> Result<Option<Opened>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns a name with its percent signs decoded (RFC 3986, 2.1); `None` where it has none.
fn percent_decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    let decoded = String::from_utf8(bytes).ok()?;
    (decoded != name).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded_where_they_stand_for_bytes() {
        for (name, expected) in [
            ("a%20b.vmdk", Some("a b.vmdk")),
            ("%c3%bc", Some("ü")),
            ("100%", None),
            ("%zz", None),
            ("%ff", None),
            ("plain", None),
        ] {
            assert_eq!(percent_decoded(name).as_deref(), expected, "{name}");
        }
    }
}
