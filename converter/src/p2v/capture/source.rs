//! The disks that are read: images with their parents, and block devices that nobody uses.

use std::fs::{File, OpenOptions as HostOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use hako_block::{Access, BlockImage, Error, ErrorKind, Result};
use hako_formats::{OpenOptions, OpenedChain, open_chain};
use hako_guest::{Disk, Volume};
use rustix::fs::OFlags;

use super::{CaptureRequest, chain_of};

/// The disks of a machine, the one that is captured first.
pub(super) struct Sources {
    disks: Vec<Source>,
}

struct Source {
    opened: OpenedChain,
    image: Arc<dyn BlockImage>,
    /// Bytes of a sector, if the disk says so.
    sector_bytes: Option<u32>,
    /// Keeps others from mounting a device.
    _held: Option<File>,
}

impl Sources {
    /// Opens all disks for reading.
    pub(super) fn open(request: &CaptureRequest) -> Result<Self> {
        let options = OpenOptions {
            access: Access::ReadOnly,
            ..request.open.clone()
        };
        let all = std::iter::once(&request.disk).chain(&request.with);
        let disks = all.map(|path| Source::open(path, &options));
        Ok(Self {
            disks: disks.collect::<Result<_>>()?,
        })
    }

    /// Returns all of them.
    pub(super) fn opened(&self) -> impl Iterator<Item = &OpenedChain> {
        self.disks.iter().map(|source| &source.opened)
    }

    /// Returns the disk that is captured.
    pub(super) fn disk(&self) -> Result<Arc<dyn BlockImage>> {
        let first = self.disks.first().map(|source| Arc::clone(&source.image));
        first.ok_or_else(|| Error::invalid("no disk to capture"))
    }

    /// Returns all of them to look into; `sector_bytes` for those that do not say.
    pub(super) fn volumes(&self, sector_bytes: Option<u32>) -> Vec<Arc<dyn Volume>> {
        let disk = |source: &Source| -> Arc<dyn Volume> {
            let sector_bytes = sector_bytes.or(source.sector_bytes).unwrap_or(512);
            Arc::new(Disk::new(Arc::clone(&source.image), sector_bytes))
        };
        self.disks.iter().map(disk).collect()
    }

    /// Returns what is odd about the images.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.opened().flat_map(OpenedChain::oddities).collect()
    }
}

impl Source {
    fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let held = match options.rules.no_lock {
            true => None,
            false => hold(path)?,
        };
        let opened = open_chain(path, options)?;
        let image = chain_of(&opened)?;
        Ok(Self {
            sector_bytes: Disk::told_sector_bytes(&*image).or_else(|| of_device(path)),
            opened,
            image,
            _held: held,
        })
    }
}

/// Takes a block device for itself, so that nobody mounts it; none if the path is no block device.
fn hold(path: &Path) -> Result<Option<File>> {
    if !std::fs::metadata(path).is_ok_and(|about| about.file_type().is_block_device()) {
        return Ok(None);
    }
    let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or(0);
    let opened = HostOptions::new()
        .read(true)
        .custom_flags(exclusive)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Err(Error::new(
            ErrorKind::Locked,
            "it is mounted, swapped to, or part of an array or volume group that runs",
        )
        .in_file(path)
        .hint("stop what uses it, or start the machine from a rescue system")),
        Err(error) => Err(Error::io("open", error).in_file(path)),
    }
}

/// Returns the size of a sector of a block device, as the kernel has it.
fn of_device(path: &Path) -> Option<u32> {
    let about = std::fs::metadata(path).ok()?;
    if !about.file_type().is_block_device() {
        return None;
    }
    let (major, minor) = (
        rustix::fs::major(about.rdev()),
        rustix::fs::minor(about.rdev()),
    );
    let folder = format!("/sys/dev/block/{major}:{minor}");
    let texts = ["queue", "../queue"]
        .map(|queue| std::fs::read_to_string(format!("{folder}/{queue}/logical_block_size")));
    let text = texts.into_iter().find_map(std::result::Result::ok)?;
    text.trim().parse().ok()
}
