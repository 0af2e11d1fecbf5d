//! Creating an empty image or an overlay.

use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, GateRules, Outputs, Result, SECTOR_BYTES};
use hako_formats::{CreateArgs, CreateOptions, DiskFormat, OpenOptions};
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
pub fn create(request: CreateRequest) -> Result<CreateReport> {
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
    let sink = request.to.stream(CreateArgs {
        storage: staged.create_main()?,
        name: target.name,
        outputs,
        virtual_size,
        parent: parent.as_ref().map(|parent| parent.link.clone()),
        options: request.create,
    })?;
    sink.finish()?;
    let cleared = staged.cleared().to_vec();
    staged.commit()?;
    Ok(CreateReport {
        virtual_size,
        cleared,
        warnings: parent.map(|parent| parent.warnings).unwrap_or_default(),
    })
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
