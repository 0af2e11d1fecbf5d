//! Writing an overlay's own content into an image below it whose overlays the caller knows: a
//! snapshot's disk into the one it stands on.
//!
//! The overlay's link plays no part: what lies between it and the image must have been merged into
//! the image before. So the layers of a chain are merged from the lowest up, and each byte is
//! moved once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::{BlockImage, Cancel, Chain, Error, ErrorKind, LayerView, Progress, Result};
use hako_formats::{OpenOptions, OpenedChain, OpenedLayer, open_chain};
use hako_pipeline::{CopyOptions, InPlace, copy};

use crate::change::{Subject, Top};
use crate::commit::{CommitReport, relink_to_current};
use crate::target::is_same;

/// What to merge into what.
#[derive(Debug, Clone)]
pub struct MergeRequest {
    /// The overlay; of its file nothing but the recorded content ID of its parent changes.
    pub child: Subject,
    /// The image that gets its content.
    pub parent: Subject,
    /// How many threads read; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
}

/// Looks whether [`merge`] would be refused. Changes nothing. Errors:
/// [`ErrorKind::Unsupported`] for an image that cannot be written, or not get the overlay's size.
pub fn check_merge(request: &MergeRequest) -> Result<()> {
    let (child, below) = open(request, false)?;
    let (new, parent) = (child.image.info().virtual_size, below.chain.info());
    let layer = &below.layers[0];
    let refused = |what: String| Err(Error::unsupported(what).in_file(layer.args.storage.name()));
    let subformats = layer.format.subformats().iter();
    let name = parent.subformat.as_deref().unwrap_or_default();
    let row = subformats.clone().find(|row| row.name == name);
    if !parent.writable {
        return refused("cannot be written".to_owned());
    }
    if new != parent.virtual_size && !row.is_some_and(|row| row.resize) {
        return refused(format!(
            "its size cannot be changed to that of its overlay, {new} bytes"
        ));
    }
    let below_it = below
        .layers
        .get(1)
        .map(|layer| layer.image.info().virtual_size);
    if below_it.is_some_and(|size| size > parent.virtual_size && new > parent.virtual_size) {
        return refused(
            "is smaller than its parent, whose content would show if it grew".to_owned(),
        );
    }
    Ok(())
}

/// Writes what the overlay itself stores into the image, which gets the overlay's size. Whoever
/// else stands on the image sees other content: the caller knows that nobody does. Cut off
/// anywhere, the overlay shows what it showed, and merging again completes it.
pub fn merge(
    request: &MergeRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CommitReport> {
    let merged = write_own(request, progress, cancel);
    // The image's content ID is another one: the overlay on it would be refused, though what was
    // written is covered. If this fails the caller's relinking of what stays does it.
    let _ = keep_linked(request);
    merged
}

/// Tells the layer of the overlay's chain that stands on the image what content ID that has now.
fn keep_linked(request: &MergeRequest) -> Result<()> {
    let options = OpenOptions {
        any_content: true,
        ..request.child.open.clone()
    };
    let opened = open_chain(&request.child.path, &options)?;
    let names = opened.layers.iter().map(|layer| layer.args.storage.name());
    let at = names
        .skip(1)
        .position(|name| is_same(Path::new(name), &request.parent.path));
    let Some(overlay) = at.and_then(|at| opened.layers.get(at)) else {
        return Ok(());
    };
    let subject = Subject {
        path: PathBuf::from(overlay.args.storage.name()),
        open: OpenOptions {
            from: Some(overlay.format.name().to_owned()),
            ..request.child.open.clone()
        },
    };
    drop(opened);
    relink_to_current(&subject)
}

fn write_own(
    request: &MergeRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CommitReport> {
    let (mut child, mut below) = open(request, true)?;
    let parent = PathBuf::from(below.layers[0].args.storage.name());
    let size = child.image.info().virtual_size;
    if size > below.chain.info().virtual_size {
        drop(child);
        resize(below, size)?;
        (child, below) = open(request, true)?;
    }
    let options = CopyOptions {
        keep_holes: true,
        ..CopyOptions::new(progress, cancel).with_threads(request.threads)
    };
    progress.phase("merge");
    let own = Arc::clone(&child.image);
    let images = below.layers.iter().map(|layer| Arc::clone(&layer.image));
    let whole = Chain::new([Arc::clone(&own)].into_iter().chain(images).collect())?;
    let view = LayerView::new(own, Arc::new(whole));
    let report = copy(&view, Box::new(InPlace(&below.chain)), size, &options)?;
    drop((view, child));
    if size < below.chain.info().virtual_size {
        resize(below, size)?;
    }
    Ok(CommitReport {
        parent,
        data_bytes: report.data_bytes,
    })
}

/// Opens the overlay alone, and the image with its parents for writing; when a merge is done again,
/// these may have other content IDs than the first time.
fn open(request: &MergeRequest, any_content: bool) -> Result<(OpenedLayer, OpenedChain)> {
    let child = request.child.open_layer()?;
    let options = OpenOptions {
        any_content,
        ..request.parent.writable()
    };
    let below = open_chain(&request.parent.path, &options)?;
    let id = child.args.storage.id();
    let mut layers = below.layers.iter();
    if id.is_some() && layers.any(|layer| layer.args.storage.id() == id) {
        let what = format!("{} stands on it", request.parent.path.display());
        return Err(Error::new(ErrorKind::Invalid, what).in_file(&request.child.path));
    }
    Ok((child, below))
}

/// Changes the size of the top layer; its images are closed before.
fn resize(opened: OpenedChain, size: u64) -> Result<()> {
    match Top::of_chain(opened).into_iter().next() {
        Some(top) => {
            let name = top.args.storage.name().to_owned();
            let resized = top.format.resize(top.args, size);
            resized.map_err(|error| error.in_file(name))
        }
        None => Ok(()),
    }
}
