//! Converting an image.

use std::iter;
use std::path::{Path, PathBuf};

use hako_block::{Cancel, Error, Progress, Result};
use hako_disk::{Parent, Ready, Target, refuse_source, reopen};
use hako_formats::{CreateOptions, DiskFormat, OpenOptions, OpenedChain};
use hako_pipeline::{CopyOptions, Delivery, Fingerprint, deliver};

use crate::Source;
use crate::new_image::{NewImage, rounded_size};
use crate::source::pick;

/// What to convert into what.
pub struct ConvertRequest {
    /// The image to read.
    pub source: Source,
    /// How to open it.
    pub open: OpenOptions,
    /// Convert this layer alone (0 the top) instead of what the guest sees.
    pub layer: Option<usize>,
    /// Where the new image goes.
    pub target: Target,
    /// The new image's format.
    pub to: &'static dyn DiskFormat,
    /// What the user chose about it.
    pub create: CreateOptions,
    /// Makes the new image an overlay on this one; only with `layer`.
    pub parent: Option<PathBuf>,
    /// Replace an image that exists.
    pub force: bool,
    /// Read the new image back before it gets its name.
    pub verify: bool,
    /// How many threads to use; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
    /// Most data bytes per second, if limited.
    pub rate: Option<u64>,
    /// Where to keep what comes through a pipe when the target has no folder.
    pub temp_folder: PathBuf,
}

/// What was converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertReport {
    /// The new image's virtual size in bytes.
    pub virtual_size: u64,
    /// Bytes delivered as data.
    pub data_bytes: u64,
    /// All other bytes of the disk: zeros and holes.
    pub zero_bytes: u64,
    /// Whether the new image was read back and found right.
    pub verified: bool,
    /// Fingerprint of the content, if it was verified.
    pub fingerprint: Option<Fingerprint>,
    /// Names of what an earlier, killed run had left behind and this one removed.
    pub cleared: Vec<String>,
    /// What the user should know: oddities of the source, what a salvaged one lost.
    pub warnings: Vec<String>,
}

/// Converts an image. Nothing appears under the target's name until it is whole.
pub fn convert(
    request: ConvertRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ConvertReport> {
    if request.parent.is_some() && request.layer.is_none() {
        return Err(Error::invalid(
            "a parent needs --layer: the whole chain has all the content already",
        ));
    }
    let options = CopyOptions {
        rate: request.rate,
        keep_holes: request.layer.is_some(),
        ..CopyOptions::new(progress, cancel).with_threads(request.threads)
    };
    let folder = request.target.folder().map(Path::to_path_buf);
    let spool_folder = folder.as_deref().unwrap_or(&request.temp_folder);
    let opened = request
        .source
        .open(&request.open, spool_folder, progress, cancel)?;
    if let Target::Path(path) = &request.target {
        refuse_source(path, &opened)?;
    }
    let mut warnings = warnings_of(&opened, request.layer);
    let parent = match &request.parent {
        Some(parent) => Some(open_parent(parent, &request.target, &request.open)?),
        None => None,
    };
    let source = pick(&opened, request.layer, parent.is_some())?;
    let virtual_size = rounded_size(&*source, &mut warnings)?;
    let target = Ready::new(request.target, request.force, request.to, &request.create)?;
    target.check_room(virtual_size)?;
    let new = NewImage {
        format: request.to,
        name: target.name.clone(),
        folder: folder.as_deref(),
        keep: iter::once(&opened)
            .chain(parent.as_ref().map(|parent| &parent.chain))
            .collect(),
        virtual_size,
        parent: parent.as_ref().map(|parent| parent.link.clone()),
        options: request.create,
    };
    let delivery = Delivery {
        source: &*source,
        virtual_size,
        target: target.place,
        sink: Box::new(move |storage, outputs| new.sink(storage, outputs)),
        verify: request.verify.then(|| reopen(request.to)),
    };
    let report = deliver(delivery, &options)?;
    warnings.extend(parent.into_iter().flat_map(|parent| parent.warnings));
    Ok(ConvertReport {
        virtual_size,
        data_bytes: report.data_bytes,
        zero_bytes: report.zero_bytes,
        verified: report.verified,
        fingerprint: report.fingerprint,
        cleared: report.cleared,
        warnings,
    })
}

fn open_parent(parent: &Path, target: &Target, options: &OpenOptions) -> Result<Parent> {
    let Target::Path(overlay) = target else {
        return Err(Error::unsupported("an overlay cannot go to a pipe"));
    };
    let options = OpenOptions {
        rules: options.rules.clone(),
        ..OpenOptions::default()
    };
    let parent = Parent::open(parent, overlay, &options)?;
    refuse_source(overlay, &parent.chain)?;
    Ok(parent)
}

/// What is odd about the layers that are read.
fn warnings_of(opened: &OpenedChain, layer: Option<usize>) -> Vec<String> {
    let layers = opened.layers.iter().enumerate();
    let read = layers.filter(|(depth, _)| layer.is_none_or(|layer| layer == *depth));
    read.flat_map(|(_, layer)| layer.oddities()).collect()
}

#[cfg(test)]
mod tests;
