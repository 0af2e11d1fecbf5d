//! Creating an empty image or an overlay.

use std::path::{Path, PathBuf};

use hako_block::{
    Cancel, Error, ErrorKind, GateRules, Outputs, Progress, Result, SECTOR_BYTES, Sink,
};
use hako_formats::{Allocation, CreateArgs, CreateOptions, DiskFormat, OpenOptions};
use hako_pipeline::Target as Place;

use crate::parent::Parent;
use crate::target::{Ready, refuse_source};

/// What to create.
pub struct CreateRequest {
    /// The new image.
    pub path: PathBuf,
    /// Its format.
    pub to: &'static dyn DiskFormat,
    /// Its virtual size in bytes; an overlay's is its parent's if not said.
    pub virtual_size: Option<u64>,
    /// What the user chose about it.
    pub create: CreateOptions,
    /// Makes it an overlay on this image.
    pub parent: Option<PathBuf>,
    /// The parent's format, if the user said it.
    pub parent_from: Option<String>,
    /// What files named inside the parent may be opened.
    pub rules: GateRules,
    /// Replace an image that exists.
    pub force: bool,
}

/// What was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateReport {
    /// The new image's virtual size in bytes.
    pub virtual_size: u64,
    /// Names of what an earlier, killed run had left behind and this one removed.
    pub cleared: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Creates an empty image, or an overlay with nothing in it.
pub fn create(
    request: CreateRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CreateReport> {
    let parent = match &request.parent {
        Some(path) => Some(open_parent(path, &request)?),
        None => None,
    };
    let virtual_size = request
        .virtual_size
        .or(parent.as_ref().map(|parent| parent.virtual_size))
        .ok_or_else(|| Error::invalid("a new image needs a size"))?;
    if !virtual_size.is_multiple_of(SECTOR_BYTES) {
        return Err(Error::invalid(format!(
            "size {virtual_size} is no multiple of 512 bytes"
        )));
    }
    let target = Ready::path(&request.path, request.force)?;
    let Place::Staged(staged) = target.place else {
        return Err(Error::new(ErrorKind::Exists, "is a block device")
            .in_file(&request.path)
            .hint("convert an image to it instead"));
    };
    let outputs: &dyn Outputs = &staged;
    // Eager zeros are delivered one by one, or nobody could stop them; in an overlay they would
    // hide the parent.
    let is_filled = request.create.allocation == Allocation::Eager && parent.is_none();
    let mut sink = request.to.stream(CreateArgs {
        storage: staged.create_main()?,
        name: target.name,
        outputs,
        virtual_size,
        parent: parent.as_ref().map(|parent| parent.link.clone()),
        options: request.create,
    })?;
    if is_filled {
        fill(&mut *sink, virtual_size, progress, cancel)?;
    }
    sink.finish()?;
    cancel.check()?;
    let cleared = staged.cleared().to_vec();
    staged.commit()?;
    Ok(CreateReport {
        virtual_size,
        cleared,
        warnings: parent.map(|parent| parent.warnings).unwrap_or_default(),
    })
}

/// Delivers zeros from end to end.
fn fill(
    sink: &mut dyn Sink,
    virtual_size: u64,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<()> {
    const CHUNK_BYTES: u64 = 64 << 20;
    let chunk = CHUNK_BYTES.max(sink.unit_bytes());
    progress.phase("fill");
    progress.total(virtual_size);
    let mut offset = 0;
    while offset < virtual_size {
        cancel.check()?;
        let end = virtual_size.min(offset.saturating_add(chunk));
        sink.zero(offset..end)?;
        progress.advance(end - offset);
        offset = end;
    }
    Ok(())
}

fn open_parent(path: &Path, request: &CreateRequest) -> Result<Parent> {
    let options = OpenOptions {
        from: request.parent_from.clone(),
        rules: request.rules.clone(),
        ..OpenOptions::default()
    };
    let parent = Parent::open(path, &request.path, &options)?;
    refuse_source(&request.path, &parent.chain)?;
    Ok(parent)
}
