//! Capturing a disk that nobody writes to: what is in use of it goes into a new image, the rest is not
//! even read.

mod masked;
mod source;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use hako_block::{BlockImage, Cancel, Error, Progress, Result};
use hako_disk::{Ready, Target, refuse_source, reopen};
use hako_formats::{CreateOptions, DiskFormat, OpenOptions, OpenedChain};
use hako_guest::{Keys, UsedMap, VolumeUse, Volumes};
use hako_pipeline::{CopyOptions, Delivery, deliver};

use self::masked::Masked;
use self::source::Sources;
use self::watch::{Watch, Watched};
use crate::new_image::{NewImage, rounded_size};

/// What to capture into what.
pub struct CaptureRequest {
    /// The disk to copy: an image or a block device.
    pub disk: PathBuf,
    /// Other disks of the machine, for arrays and volume groups that lie on several.
    pub with: Vec<PathBuf>,
    /// How to open them.
    pub open: OpenOptions,
    /// Bytes of a sector as the guest sees it, if the disk does not say.
    pub sector_bytes: Option<u32>,
    /// What opens LUKS on them, to see what of it is in use.
    pub keys: Keys,
    /// Copy all blocks, whatever is in them.
    pub all_blocks: bool,
    /// Copy what Windows swaps to as well.
    pub keep_swap_files: bool,
    /// Where the new image goes.
    pub target: Target,
    /// The new image's format.
    pub to: &'static dyn DiskFormat,
    /// What the user chose about it.
    pub create: CreateOptions,
    /// Replace an image that exists.
    pub force: bool,
    /// Read the new image back before it gets its name; impossible through a pipe.
    pub verify: bool,
    /// How many threads to use; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
    /// Most data bytes per second, if limited.
    pub rate: Option<u64>,
}

/// What was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureReport {
    /// The new image's virtual size in bytes.
    pub virtual_size: u64,
    /// Bytes of the disk that are in use and were copied, zeros among them.
    pub used_bytes: u64,
    /// Bytes that were passed over: free, or of no use.
    pub skipped_bytes: u64,
    /// Bytes delivered as data.
    pub data_bytes: u64,
    /// Whether the new image was read back and found right.
    pub verified: bool,
    /// How the disk falls to its volumes; nothing if all blocks were copied.
    pub volumes: Vec<VolumeUse>,
    /// Names of what an earlier, killed run had left behind and this one removed.
    pub cleared: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Captures a disk. Nothing appears under the target's name until it is whole. Errors:
/// [`hako_block::ErrorKind::Locked`] if somebody uses a device, or writes to what is copied meanwhile.
pub fn capture(
    request: CaptureRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CaptureReport> {
    let sources = Sources::open(&request)?;
    if let Target::Path(path) = &request.target {
        for opened in sources.opened() {
            refuse_source(path, opened)?;
        }
    }
    let watch = Arc::new(Watch::of(sources.opened()));
    let is_shared = request.open.rules.no_lock;
    let mut warnings = sources.warnings();
    let disk = sources.disk()?;
    let virtual_size = rounded_size(&*disk, &mut warnings)?;
    let mut used = Used::all(virtual_size);
    let source: Arc<dyn BlockImage> = match request.all_blocks {
        true => disk,
        false => {
            let map = map(&sources, &request, &mut warnings)?;
            used = Used::survey(&map, disk.info().virtual_size, progress, cancel)?;
            Arc::new(Masked::new(disk, map))
        }
    };
    let folder = request.target.folder().map(std::path::Path::to_path_buf);
    let target = Ready::new(request.target, request.force, request.to, &request.create)?;
    target.check_room(virtual_size)?;
    let new = NewImage {
        format: request.to,
        name: target.name.clone(),
        folder: folder.as_deref(),
        keep: sources.opened().collect(),
        virtual_size,
        parent: None,
        options: request.create,
    };
    let delivery = Delivery {
        source: &*source,
        virtual_size,
        target: target.place,
        sink: Box::new({
            let watch = Arc::clone(&watch);
            move |storage, outputs| match (new.sink(storage, outputs)?, is_shared) {
                (sink, true) => Ok(sink),
                (sink, false) => Ok(Box::new(Watched { sink, watch })),
            }
        }),
        verify: request.verify.then(|| reopen(request.to)),
    };
    let options = CopyOptions {
        rate: request.rate,
        ..CopyOptions::new(progress, cancel).with_threads(request.threads)
    };
    let report = deliver(delivery, &options)?;
    // Who shares a disk with whoever writes to it wants it as it comes.
    if let Err(error) = watch.check() {
        warnings.push(error.to_string());
    }
    Ok(CaptureReport {
        virtual_size,
        used_bytes: used.bytes,
        skipped_bytes: virtual_size.saturating_sub(used.bytes),
        data_bytes: report.data_bytes,
        verified: report.verified,
        volumes: used.volumes,
        cleared: report.cleared,
        warnings,
    })
}

fn map(sources: &Sources, request: &CaptureRequest, warnings: &mut Vec<String>) -> Result<UsedMap> {
    let at_disk = |error: Error| error.in_file(&request.disk);
    let volumes = Volumes::opened(sources.volumes(request.sector_bytes), request.keys.clone())
        .map_err(at_disk)?;
    warnings.extend(volumes.remarks().iter().cloned());
    UsedMap::of(&volumes, request.keep_swap_files).map_err(at_disk)
}

/// What of the disk is copied.
struct Used {
    bytes: u64,
    volumes: Vec<VolumeUse>,
}

impl Used {
    fn all(bytes: u64) -> Self {
        Self {
            bytes,
            volumes: Vec::new(),
        }
    }

    /// Asks the map for all of the disk, phase "map".
    fn survey(map: &UsedMap, len: u64, progress: &dyn Progress, cancel: &Cancel) -> Result<Self> {
        progress.phase("map");
        progress.total(len);
        let mut done = 0;
        let volumes = map.survey(0, &mut |at| {
            progress.advance(at.saturating_sub(done));
            done = at;
            cancel.check()
        })?;
        let mut bytes = 0;
        let mut at = 0;
        while at < len {
            let end = at.saturating_add(masked::WINDOW_BYTES).min(len);
            bytes += map.used(0, &(at..end))?.n_bytes();
            at = end;
            cancel.check()?;
        }
        Ok(Self { bytes, volumes })
    }
}

/// Whoever reads an image that is used while it is copied keeps it open.
fn chain_of(opened: &OpenedChain) -> Result<Arc<dyn BlockImage>> {
    crate::source::pick(opened, None, false)
}
