//! What the verbs that look inside a disk share: which disks, which volume, and its file system.

pub mod cat;
pub mod cp;
mod host;
pub mod ls;
mod walk;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueHint};
use hako_block::{Error, ErrorKind, Result};
use hako_formats::open_chain;
use hako_guest::{Disk, FileSystem, FoundVolume, Volume, Volumes};

use super::keys::KeyFlags;
use super::options::ReadFlags;
use crate::context::Context;
use crate::exit::Exit;

/// Which disk to look inside.
#[derive(Debug, Args)]
pub struct Inside {
    /// The image, and the volume in it: p1, vg0/root, md0, UUID=…, LABEL=…
    ///
    /// `hako disk ls IMAGE` lists the volumes. Without one it is the only file system there is. A
    /// file whose whole name is given is an image, colon or not.
    #[arg(value_name = "IMAGE[:VOLUME]", value_hint = ValueHint::FilePath)]
    image: OsString,

    /// Look at this image too (repeatable)
    ///
    /// For volume groups and arrays that lie on several disks.
    #[arg(long, value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    with: Vec<PathBuf>,

    /// Size of a sector as the guest sees it, where the image does not say: 512 or 4096
    ///
    /// An MBR counts in sectors; of a GPT the size is found out.
    #[arg(long, value_name = "BYTES", value_parser = super::options::sector_sizes())]
    sector_size: Option<u32>,

    #[command(flatten)]
    keys: KeyFlags,

    #[command(flatten)]
    read: ReadFlags,
}

/// Disks that were looked into.
pub struct Opened {
    /// The image that the user named.
    pub image: PathBuf,
    /// The volume that he named.
    pub wanted: Option<String>,
    /// What is on the disks.
    pub volumes: Volumes,
    /// How a command ends that fails in nothing else.
    pub exit: Exit,
}

impl Inside {
    /// Opens the disks and finds what is on them.
    pub fn open(&self, context: &Context) -> Result<Opened> {
        let (image, wanted) = split(&self.image);
        let keys = self.keys.read()?;
        let mut disks: Vec<Arc<dyn Volume>> = Vec::new();
        let mut exit = Exit::Done;
        for path in std::iter::once(&image).chain(&self.with) {
            let opened = open_chain(path, &self.read.options())?;
            if super::salvaged(context, &self.read, &opened) != Exit::Done {
                exit = Exit::Incomplete;
            }
            let sector_bytes = self
                .sector_size
                .or_else(|| Disk::told_sector_bytes(&opened.chain))
                .unwrap_or(512);
            disks.push(Arc::new(Disk::new(Arc::new(opened.chain), sector_bytes)));
        }
        Ok(Opened {
            volumes: Volumes::opened(disks, keys).map_err(|error| error.in_file(&image))?,
            image,
            wanted,
            exit,
        })
    }
}

/// Splits `IMAGE:VOLUME`: the longest beginning that is there is the image.
fn split(text: &OsStr) -> (PathBuf, Option<String>) {
    let bytes = text.as_bytes();
    let whole = PathBuf::from(text);
    let colons = || (0..bytes.len()).rev().filter(|at| bytes[*at] == b':');
    if whole.symlink_metadata().is_ok() || colons().next().is_none() {
        return (whole, None);
    }
    let cut = |at: usize| {
        let image = PathBuf::from(OsString::from_vec(bytes[..at].to_vec()));
        let volume = String::from_utf8_lossy(&bytes[at + 1..]).into_owned();
        (image, Some(volume).filter(|volume| !volume.is_empty()))
    };
    let there = colons()
        .map(cut)
        .find(|(image, _)| image.symlink_metadata().is_ok());
    there
        .or_else(|| colons().next().map(cut))
        .unwrap_or((whole, None))
}

impl Opened {
    /// Returns the volume that the user named.
    pub fn named(&self, wanted: &str) -> Result<&FoundVolume> {
        match self.volumes.find(wanted)[..] {
            [found] => Ok(found),
            [] => {
                let what = format!("no volume {wanted} on it; there are: {}", self.all());
                Err(Error::new(ErrorKind::NotFound, what).in_file(&self.image))
            }
            ref several => {
                let names: Vec<_> = several.iter().map(|found| found.name.as_str()).collect();
                let what = format!("{wanted} are several volumes: {}", names.join(", "));
                Err(Error::invalid(what).in_file(&self.image))
            }
        }
    }

    /// Returns the file system that the user means, and its volume.
    pub fn file_system(&self) -> Result<(&FoundVolume, &Arc<dyn FileSystem>)> {
        let found = match &self.wanted {
            Some(wanted) => self.named(wanted)?,
            None => self.only()?,
        };
        match found.file_system() {
            Some(fs) => Ok((found, fs)),
            None => {
                let mut what = format!("{}: no file system that hako reads", described(found));
                if !found.remarks.is_empty() {
                    what = format!("{what}: {}", found.remarks.join("; "));
                }
                Err(Error::unsupported(what).in_file(&self.image))
            }
        }
    }

    fn only(&self) -> Result<&FoundVolume> {
        match self.volumes.with_file_systems()[..] {
            [found] => Ok(found),
            [] => {
                let what = format!("no file system that hako reads; there are: {}", self.all());
                Err(Error::unsupported(what).in_file(&self.image))
            }
            ref several => {
                let names: Vec<_> = several.iter().map(|found| described(found)).collect();
                let what = format!("several file systems: {}", names.join(", "));
                let image = self.image.display();
                Err(Error::invalid(what)
                    .in_file(&self.image)
                    .hint(format!("say which: {image}:{}", several[0].name)))
            }
        }
    }

    fn all(&self) -> String {
        let all: Vec<_> = self.volumes.list().iter().map(described).collect();
        all.join(", ")
    }
}

/// A volume for a message: `p2 (ext4)`.
fn described(found: &FoundVolume) -> String {
    match found.content.kind {
        "" => found.name.clone(),
        kind => format!("{} ({kind})", found.name),
    }
}

/// Returns a path out of the command line as the guest's bytes.
fn guest_path(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_wins_over_a_volume() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).into_os_string();
        std::fs::write(path("a"), "").unwrap();
        std::fs::write(path("a:b"), "").unwrap();
        let split = |name: &str| {
            let (image, volume) = split(&path(name));
            (image.file_name().unwrap().to_owned(), volume)
        };
        assert_eq!(split("a"), ("a".into(), None));
        assert_eq!(split("a:b"), ("a:b".into(), None));
        assert_eq!(split("a:c"), ("a".into(), Some("c".into())));
        assert_eq!(split("a:b:p1"), ("a:b".into(), Some("p1".into())));
        assert_eq!(split("a:LABEL=x:y"), ("a".into(), Some("LABEL=x:y".into())));
        assert_eq!(split("a:"), ("a".into(), None));
        assert_eq!(split("no:p1"), ("no".into(), Some("p1".into())));
    }
}
