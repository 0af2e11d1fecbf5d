//! Files as boot loaders name them: by a volume and a path there.

use std::io::Read;
use std::sync::Arc;

use hako_block::{Error, Result};

use crate::fs::NodeKind;
use crate::root::{Root, top_level};
use crate::tree::{Found, Tree};
use crate::volumes::{FoundVolume, Origin, Volumes};

/// Some bytes of a file: all of them, or a section of a program.
#[derive(Clone)]
pub struct Blob {
    file: Found,
    offset: u64,
    len: u64,
}

impl Blob {
    /// Returns a whole file.
    pub fn of(file: Found) -> Result<Self> {
        let stat = file.stat()?;
        if stat.kind != NodeKind::File {
            return Err(Error::invalid("is no file"));
        }
        let len = stat.len_bytes;
        Ok(Self {
            file,
            offset: 0,
            len,
        })
    }

    /// Returns a part of these bytes. Errors: [`hako_block::ErrorKind::Corrupt`] if it does not lie
    /// inside.
    pub fn part(&self, offset: u64, len: u64) -> Result<Self> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(Self {
                file: self.file.clone(),
                offset: self.offset + offset,
                len,
            }),
            _ => {
                let what = format!("{len} bytes from {offset} of {}", self.len);
                Err(Error::corrupt("part of a file", what))
            }
        }
    }

    /// Returns how many bytes there are.
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// Returns the file.
    pub fn file(&self) -> &Found {
        &self.file
    }

    /// Returns the bytes as a stream. An error of the file system is inside of what it gives.
    pub fn reader(&self) -> impl Read + Send + use<> {
        self.file.reader_from(self.offset).take(self.len)
    }

    /// Returns the bytes. Errors: [`hako_block::ErrorKind::Unsupported`] if there are more than
    /// `most`.
    pub fn read(&self, most: usize) -> Result<Vec<u8>> {
        if self.len > most as u64 {
            let what = format!("{} bytes, more than {most}", self.len);
            return Err(Error::unsupported(what));
        }
        let mut bytes = Vec::new();
        let mut reader = self.reader();
        reader
            .read_to_end(&mut bytes)
            .map_err(crate::initrd::from_io)?;
        Ok(bytes)
    }
}

/// A kernel or an initrd.
#[derive(Clone)]
pub struct Image {
    /// Where it is, as `VOLUME:PATH`.
    pub path: String,
    /// Its bytes.
    pub blob: Blob,
}

/// The longest text of a boot loader that is read.
const TEXT_BYTES: usize = 4 << 20;

/// The files of all volumes, and of the installed system.
pub(super) struct Files<'v> {
    pub volumes: &'v Volumes,
    pub root: Option<&'v Root>,
}

/// A file and how to name it.
pub(super) struct Text {
    /// `VOLUME:PATH`.
    pub source: String,
    pub text: String,
}

impl<'v> Files<'v> {
    pub fn new(volumes: &'v Volumes, root: Option<&'v Root>) -> Self {
        Self { volumes, root }
    }

    /// Returns the file at a path of a volume, as a boot loader would find it: from its file system's
    /// top, then from its default subvolume; what leads out of the volume (a link from /boot to the
    /// EFI system partition), as the installed system would find it.
    pub fn find(&self, volume: &FoundVolume, path: &str) -> Option<Found> {
        let fs = volume.file_system()?;
        let bytes = path.as_bytes();
        let at = |top: Found| Tree::of(top).find(bytes).ok();
        let by_default = || at(Found::new(Arc::clone(fs), fs.root()));
        let mounted = || {
            let root = self.root?;
            let mut mounts = root
                .mounts
                .iter()
                .filter(|mount| mount.volume == volume.name);
            mounts.find_map(|mount| {
                let subvolume = mount.subvolume.as_deref().unwrap_or_default();
                let inside = below(path, subvolume).unwrap_or(path);
                let path = format!("{}/{inside}", mount.path);
                root.tree.find(path.as_bytes()).ok()
            })
        };
        at(top_level(fs)).or_else(by_default).or_else(mounted)
    }

    /// Returns an image; what is wrong if it is not there.
    pub fn image(&self, volume: &FoundVolume, path: &str) -> std::result::Result<Image, String> {
        let named = source(volume, path);
        let file = self.find(volume, path);
        let file = file.ok_or_else(|| format!("{named} is not there"))?;
        let blob = Blob::of(file).map_err(|error| format!("{named}: {error}"))?;
        Ok(Image { path: named, blob })
    }

    pub fn text(&self, volume: &FoundVolume, path: &str) -> Option<Text> {
        let file = self.find(volume, path)?;
        let bytes = Blob::of(file).ok()?.read(TEXT_BYTES).ok()?;
        Some(Text {
            source: source(volume, path),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    /// Returns the names in a directory of a volume, sorted.
    pub fn names(&self, volume: &FoundVolume, path: &str) -> Vec<String> {
        let Some(directory) = self.find(volume, path) else {
            return Vec::new();
        };
        let entries = Tree::of(directory).entries(b"/", super::MOST_ENTRIES);
        let entries = entries.unwrap_or_default().into_iter();
        entries
            .filter_map(|entry| String::from_utf8(entry.name).ok())
            .collect()
    }

    /// Returns the volume and the path there of a file of the installed system.
    pub fn place(&self, path: &str) -> Option<(&'v FoundVolume, String)> {
        let root = self.root?;
        root.tree.find(path.as_bytes()).ok()?;
        let (mount, rest) = root
            .mounts
            .iter()
            .filter_map(|mount| Some((mount, below(path, &mount.path)?)))
            .min_by_key(|(_, rest)| rest.len())?;
        let mut volumes = self.volumes.list().iter();
        let volume = volumes.find(|found| found.name == mount.volume)?;
        let subvolume = mount.subvolume.as_deref().unwrap_or_default();
        let subvolume = match subvolume.trim_matches('/') {
            "" => String::new(),
            id if id.bytes().all(|byte| byte.is_ascii_digit()) => String::new(),
            name => format!("/{name}"),
        };
        Some((volume, format!("{subvolume}/{rest}")))
    }

    /// Returns the EFI system partitions, then the partitions for boot loaders' files (XBOOTLDR),
    /// then the volume mounted at /boot: where the Boot Loader Specification looks. Without an
    /// installed system (its root may be encrypted) any other may be its /boot.
    pub fn boot_volumes(&self) -> Vec<&'v FoundVolume> {
        let list = || self.volumes.with_file_systems().into_iter();
        let is_esp = |found: &&FoundVolume| {
            found
                .partition()
                .is_some_and(|part| part.kind.is_efi_system())
        };
        let is_extended = |found: &&FoundVolume| {
            found
                .partition()
                .is_some_and(|part| part.kind.to_string().eq_ignore_ascii_case(XBOOTLDR))
        };
        let mounted = |path: &str| {
            let mounts = self.root.map(|root| &root.mounts[..]).unwrap_or_default();
            let mount = mounts.iter().find(|mount| mount.path == path)?;
            self.volumes
                .list()
                .iter()
                .find(|found| found.name == mount.volume)
        };
        let mut all: Vec<&FoundVolume> = list().filter(is_esp).collect();
        all.extend(list().filter(is_extended));
        all.extend(
            ["/efi", "/boot/efi", "/boot"]
                .into_iter()
                .filter_map(mounted),
        );
        if self.root.is_none() {
            all.extend(list());
        }
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|found| seen.insert(&found.name));
        all
    }

    /// Returns the number of the disk that a volume is a partition of, and the partition.
    pub fn disk_and_number(&self, volume: &FoundVolume) -> Option<(usize, u32)> {
        let Origin::Partition { of, partition, .. } = &volume.origin else {
            return None;
        };
        match self.volumes.list().get(*of)?.origin {
            Origin::Disk(disk) => Some((disk, partition.number)),
            _ => None,
        }
    }
}

/// The type of a partition for what boot loaders read, where the EFI system partition is too small.
const XBOOTLDR: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";

pub(super) fn source(volume: &FoundVolume, path: &str) -> String {
    format!("{}:/{}", volume.name, path.trim_start_matches('/'))
}

/// Returns the rest of a path that is below another.
fn below<'p>(path: &'p str, above: &str) -> Option<&'p str> {
    let path = path.trim_start_matches('/');
    match above.trim_matches('/') {
        "" => Some(path),
        above => {
            let rest = path.strip_prefix(above)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
        }
    }
}

/// Returns the folder of a path, without a `/` at its end.
pub(super) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
