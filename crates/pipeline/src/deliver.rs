//! The whole way to a finished target: copy, flush, verify, final name.

use std::sync::Arc;

use hako_block::{
    BlockImage, Error, ErrorKind, MemoryFolder, Opened, Outputs, Result, Sink, StagedFolder,
    Storage,
};

use crate::{CopyOptions, Fingerprint, copy, fingerprint};

/// Where an image is delivered.
pub enum Target {
    /// Files that get their final names once they are whole.
    Staged(StagedFolder),
    /// A block device (or other storage) written in place.
    Device(Arc<dyn Storage>),
    /// A pipe: one pass, nothing to read back.
    Pipe(Arc<dyn Storage>),
}

/// Makes the sink of a new image.
pub type MakeSink<'a> =
    Box<dyn FnOnce(Arc<dyn Storage>, &dyn Outputs) -> Result<Box<dyn Sink>> + 'a>;

/// Opens the new image for reading it back.
pub type Reopen<'a> = Box<dyn FnOnce(Opened) -> Result<Box<dyn BlockImage>> + 'a>;

/// What is delivered, and how the format takes part.
pub struct Delivery<'a> {
    /// The disk.
    pub source: &'a dyn BlockImage,
    /// Virtual size of the new image, at least the source's.
    pub virtual_size: u64,
    /// Where it goes.
    pub target: Target,
    /// Makes the sink on the new main file; further files come from the outputs.
    pub sink: MakeSink<'a>,
    /// Opens the new image for reading it back, if it is to be verified.
    pub verify: Option<Reopen<'a>>,
}

/// What was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverReport {
    /// Bytes delivered as data.
    pub data_bytes: u64,
    /// All other bytes of the disk: zeros and holes.
    pub zero_bytes: u64,
    /// Fingerprint of the content, if it was asked for or verified.
    pub fingerprint: Option<Fingerprint>,
    /// Whether the new image was read back and found right.
    pub verified: bool,
    /// Names of what an earlier, killed run had left behind and this one removed.
    pub cleared: Vec<String>,
}

/// Copies, flushes, verifies if asked (phases "copy" and "verify") and gives the image its final
/// name. Whatever fails, nothing appears under that name; a device then holds a partial copy.
///
/// Errors: [`ErrorKind::Mismatch`] if what was read back is not what was delivered.
pub fn deliver(delivery: Delivery<'_>, options: &CopyOptions<'_>) -> Result<DeliverReport> {
    let Delivery {
        source,
        virtual_size,
        target,
        sink,
        verify,
    } = delivery;
    if verify.is_some() && matches!(target, Target::Pipe(_)) {
        return Err(Error::unsupported(
            "what went through a pipe cannot be verified",
        ));
    }
    let options = CopyOptions {
        fingerprint: options.fingerprint || verify.is_some(),
        ..*options
    };
    options.progress.phase("copy");
    let sink = match &target {
        Target::Staged(staged) => sink(staged.create_main()?, staged)?,
        Target::Device(storage) | Target::Pipe(storage) => sink(Arc::clone(storage), &OneFileOnly)?,
    };
    let copied = copy(source, sink, virtual_size, &options)?;
    let verified = verify.is_some();
    if let Some(open) = verify {
        options.progress.phase("verify");
        let image = open(reopen(&target)?)?;
        let on_device = matches!(target, Target::Device(_));
        check_copy(
            &*image,
            virtual_size,
            copied.fingerprint,
            on_device,
            &options,
        )?;
    }
    options.cancel.check()?;
    let mut cleared = Vec::new();
    if let Target::Staged(staged) = target {
        cleared.extend_from_slice(staged.cleared());
        staged.commit()?;
    }
    Ok(DeliverReport {
        data_bytes: copied.data_bytes,
        zero_bytes: copied.zero_bytes,
        fingerprint: copied.fingerprint,
        verified,
        cleared,
    })
}

/// A device or a pipe has room for one file.
struct OneFileOnly;

impl Outputs for OneFileOnly {
    fn create(&self, name: &str) -> Result<Arc<dyn Storage>> {
        Err(
            Error::unsupported("a device or pipe cannot hold an image of several files")
                .in_file(name),
        )
    }
}

fn reopen(target: &Target) -> Result<Opened> {
    match target {
        Target::Staged(staged) => staged.reopen_main(),
        Target::Device(storage) | Target::Pipe(storage) => Ok(Opened {
            storage: Arc::clone(storage),
            name: storage.name().to_owned(),
            resolver: Arc::new(MemoryFolder::default()),
        }),
    }
}

fn check_copy(
    image: &dyn BlockImage,
    virtual_size: u64,
    expected: Option<Fingerprint>,
    on_device: bool,
    options: &CopyOptions<'_>,
) -> Result<()> {
    let mismatch = |what: String| Error::new(ErrorKind::Mismatch, what).place("verify");
    let size = image.info().virtual_size;
    // Raw on a device has the device's size.
    if size < virtual_size || (size > virtual_size && !on_device) {
        return Err(mismatch(format!(
            "the new image has {size} bytes instead of {virtual_size}"
        )));
    }
    let found = fingerprint(image, virtual_size, options)?;
    if expected != Some(found) {
        return Err(mismatch(
            "the new image does not read back as what was written".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
