//! Reading a package back.

use std::path::Path;
use std::sync::Arc;

use hako_block::{Access, Cancel, Error, ErrorKind, FileStorage, LockMode, Progress, Result};
use hako_formats::ova::Ova;
use hako_pipeline::{CopyOptions, sha256};

use super::recorded_contents;
use crate::import::{Content, Package};

/// What was found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Disks that were read to their end.
    pub disks: usize,
    /// Those whose content is the one that was recorded.
    pub contents: usize,
}

/// Reads all of an OVA: every file is what the manifest says, every disk opens and has the content
/// that was recorded. Errors: [`ErrorKind::Mismatch`] if not.
pub fn verify_file(path: &Path, progress: &dyn Progress, cancel: &Cancel) -> Result<Verified> {
    let storage = FileStorage::open(path, Access::ReadOnly, LockMode::Read)?;
    let package = Package::of_tar(Ova::open(Arc::new(storage))?, cancel)?;
    verify_package(package, &CopyOptions::new(progress, cancel))
}

/// Reads all of a package, as [`verify_file`] does of a file.
pub(crate) fn verify_package(mut package: Package, copy: &CopyOptions<'_>) -> Result<Verified> {
    let recorded = recorded_contents(&package.text)?;
    let mut verified = Verified::default();
    for file in package.envelope.files.clone() {
        for check in package.open(&file)?.checks {
            check.run(copy.cancel)?;
        }
    }
    for disk in package.envelope.disks.clone() {
        let Some(file) = &disk.file else { continue };
        let stored = package.open(file)?;
        if stored.is_packed {
            continue;
        }
        let Content::Image(image) = crate::import::open_image(stored.opened)? else {
            continue;
        };
        copy.progress.phase("verify");
        let found = sha256(
            &*image,
            &CopyOptions {
                rate: None,
                ..*copy
            },
        )?;
        verified.disks += 1;
        match recorded.iter().find(|(name, _)| *name == file.href) {
            Some((_, digest)) if *digest == found => verified.contents += 1,
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    "does not have the content that was recorded of it",
                )
                .in_file(&file.href));
            }
            None => {}
        }
    }
    Ok(verified)
}
