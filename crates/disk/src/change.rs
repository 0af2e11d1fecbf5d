//! Opening an image to change it in place.

use std::path::{Path, PathBuf};

use hako_block::{Access, Error, ErrorKind, Result};
use hako_formats::{
    DiskFormat, OpenArgs, OpenOptions, OpenedChain, OpenedLayer, open_chain, open_file, open_layer,
};

use crate::overlays::overlays_of;
use crate::target::is_same;

/// Which image to change, and how to open it.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// The image.
    pub path: PathBuf,
    /// How to open it. Access and how much of the chain are the verb's.
    pub open: OpenOptions,
}

impl Subject {
    /// Returns the options for opening the top layer for writing, and its parents for reading.
    pub(crate) fn writable(&self) -> OpenOptions {
        OpenOptions {
            access: Access::ReadWrite,
            ..self.open.clone()
        }
    }

    /// Opens the image's own layer, as `open` says; its parents are not looked at.
    pub fn open_layer(&self) -> Result<OpenedLayer> {
        let (format, opened) = open_file(&self.path, &self.open)?;
        open_layer(format, opened, &self.open)
    }

    /// Opens the image with its parents, the top layer for writing.
    pub(crate) fn open_chain(&self) -> Result<OpenedChain> {
        open_chain(&self.path, &self.writable())
    }

    /// Opens the image's own file for writing; the driver has not looked at it yet.
    pub(crate) fn open_top(&self) -> Result<Top> {
        let options = self.writable();
        let (format, opened) = open_file(&self.path, &options)?;
        let args = options.args(opened);
        Ok(Top { format, args })
    }

    /// Refuses to go on if another image beside this one is an overlay on it.
    pub fn refuse_overlays(&self, except: Option<&Path>, why: &str) -> Result<()> {
        let overlays = overlays_of(&self.path)?;
        let is_meant = |path: &Path| except.is_some_and(|except| is_same(path, except));
        match overlays.iter().find(|overlay| !is_meant(overlay)) {
            None => Ok(()),
            Some(overlay) => Err(Error::new(
                ErrorKind::Invalid,
                format!("has an overlay, {}: {why}", overlay.display()),
            )
            .in_file(&self.path)
            .hint("if the overlay is not needed any more: --force")),
        }
    }
}

/// An image's own file, open and locked, with its format, and no image on it: what a driver is
/// given to change it. (A driver opens the image's further files itself, and would meet the locks
/// of an image that is open still.)
pub(crate) struct Top {
    pub(crate) format: &'static dyn DiskFormat,
    pub(crate) args: OpenArgs,
}

impl Top {
    /// Takes a chain apart, the top first; its images are closed.
    pub(crate) fn of_chain(opened: OpenedChain) -> Vec<Top> {
        let top = |layer: OpenedLayer| Top {
            format: layer.format,
            args: layer.args,
        };
        opened.layers.into_iter().map(top).collect()
    }
}
