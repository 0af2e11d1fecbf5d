//! Where a new image goes.

use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::gate::folder_of;
use hako_block::{
    Access, Error, ErrorKind, FileStorage, LockMode, Outputs, PipeStorage, Result, StagedFolder,
    Storage,
};
use hako_formats::{CreateOptions, DiskFormat, OpenArgs, OpenedChain};
use hako_pipeline::{Reopen, Target as Place};

/// Where to put a new image.
pub enum Target {
    /// A file, or a block device that exists: that is written in place.
    Path(PathBuf),
    /// Standard output.
    Stdout {
        /// Takes the bytes.
        writer: Box<dyn Write + Send>,
        /// Whether a person would see them: refused.
        is_terminal: bool,
    },
}

impl Target {
    /// Returns the folder of the new image, if it has one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Target::Path(path) => Some(folder_of(path)),
            Target::Stdout { .. } => None,
        }
    }
}

/// A target ready to be written.
pub struct Ready {
    /// Where the bytes go.
    pub place: Place,
    /// The image's final name, without folder.
    pub name: String,
    /// Keeps other programs away from the image that will be replaced.
    _replaced: Option<FileStorage>,
}

impl Ready {
    /// Prepares a target for an image of `format`; nothing is written yet.
    pub fn new(
        target: Target,
        force: bool,
        format: &dyn DiskFormat,
        options: &CreateOptions,
    ) -> Result<Self> {
        match target {
            Target::Path(path) => Self::path(&path, force),
            Target::Stdout {
                writer,
                is_terminal,
            } => {
                refuse_unpipeable(format, options)?;
                if is_terminal {
                    return Err(Error::invalid("standard output is a terminal")
                        .hint("pipe it into a program or a file"));
                }
                let storage = PipeStorage::new("standard output", writer);
                Ok(Self {
                    place: Place::Pipe(Arc::new(storage)),
                    name: "stdout".to_owned(),
                    _replaced: None,
                })
            }
        }
    }

    /// Prepares a file or a device.
    pub fn path(path: &Path, force: bool) -> Result<Self> {
        let metadata = std::fs::metadata(path).ok();
        if metadata
            .as_ref()
            .is_some_and(|metadata| metadata.file_type().is_block_device())
        {
            let device = FileStorage::open(path, Access::ReadWrite, LockMode::Write)?;
            return Ok(Self {
                name: device.name().to_owned(),
                place: Place::Device(Arc::new(device)),
                _replaced: None,
            });
        }
        let staged = StagedFolder::new(path, force)?;
        let replaced = match metadata {
            Some(metadata) => Some(hold_replaced(path, &metadata)?),
            None => None,
        };
        Ok(Self {
            name: staged.main_name().to_owned(),
            place: Place::Staged(staged),
            _replaced: replaced,
        })
    }

    /// Refuses a device that is too small, before anything is written to it.
    pub fn check_room(&self, virtual_size: u64) -> Result<()> {
        match &self.place {
            Place::Device(device) => device.set_len(virtual_size),
            _ => Ok(()),
        }
    }
}

/// Locks the image that will be replaced: one that a VM runs on is not.
fn hold_replaced(path: &Path, metadata: &Metadata) -> Result<FileStorage> {
    if !metadata.is_file() {
        return Err(Error::invalid("is neither a regular file nor a block device").in_file(path));
    }
    FileStorage::open(path, Access::ReadOnly, LockMode::Write)
}

fn refuse_unpipeable(format: &dyn DiskFormat, options: &CreateOptions) -> Result<()> {
    let chosen = options.subformat.as_deref();
    let fits = |name: &str| chosen.is_none_or(|chosen| chosen.eq_ignore_ascii_case(name));
    let subformats = || format.subformats().iter().filter(|row| row.create);
    if subformats()
        .find(|row| fits(row.name))
        .is_none_or(|row| row.pipe)
    {
        return Ok(()); // A subformat that does not exist is refused by the driver, in its words.
    }
    let error = Error::unsupported(format!(
        "{} cannot be written to a pipe",
        [Some(format.name()), chosen]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    ));
    let pipeable = subformats().find(|row| row.pipe && !row.name.is_empty());
    Err(match pipeable {
        Some(row) => error.hint(format!("{} can: --subformat {0}", row.name)),
        None => error.hint("write it to a file"),
    })
}

/// Opens a new image alone, for reading it back before it gets its name.
pub fn reopen<'a>(format: &'static dyn DiskFormat) -> Reopen<'a> {
    Box::new(move |opened| {
        format.open(OpenArgs {
            storage: opened.storage,
            name: opened.name,
            resolver: opened.resolver,
            access: Access::ReadOnly,
            salvage: false,
            snapshot: None,
        })
    })
}

/// Refuses a target that is one of the files of the source: replacing it would pull the ground
/// from under the copy, or lose what other images stand on.
pub fn refuse_source(target: &Path, source: &OpenedChain) -> Result<()> {
    let Ok(target_metadata) = std::fs::metadata(target) else {
        return Ok(());
    };
    let is_target = |path: &str| {
        std::fs::metadata(path).is_ok_and(|metadata| same_file(&metadata, &target_metadata))
    };
    for (depth, layer) in source.layers.iter().enumerate() {
        let info = layer.image.info();
        let main = layer.args.storage.name().to_owned();
        if !info.files.iter().chain([&main]).any(|path| is_target(path)) {
            continue;
        }
        let what = if depth == 0 {
            "is the source itself"
        } else {
            "is a parent of the source"
        };
        return Err(Error::new(ErrorKind::Invalid, what)
            .in_file(target)
            .hint("choose another name for the new image"));
    }
    Ok(())
}

/// Creates the further files of an image, but never in place of one that is needed.
pub struct Guarded<'a> {
    /// Creates them.
    pub outputs: &'a dyn Outputs,
    /// The new image's folder, if it has one.
    pub folder: Option<&'a Path>,
    /// Images of which no file may be replaced.
    pub keep: &'a [&'a OpenedChain],
}

impl Outputs for Guarded<'_> {
    fn create(&self, name: &str) -> Result<Arc<dyn Storage>> {
        if let Some(folder) = self.folder {
            for image in self.keep {
                refuse_source(&folder.join(name), image)?;
            }
        }
        self.outputs.create(name)
    }
}

/// Returns whether two paths lead to one file. One that leads nowhere is no other's.
pub(crate) fn is_same(a: &Path, b: &Path) -> bool {
    matches!((std::fs::metadata(a), std::fs::metadata(b)), (Ok(a), Ok(b)) if same_file(&a, &b))
}

fn same_file(a: &Metadata, b: &Metadata) -> bool {
    if a.file_type().is_block_device() && b.file_type().is_block_device() {
        return a.rdev() == b.rdev();
    }
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}
