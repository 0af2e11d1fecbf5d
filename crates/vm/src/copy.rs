//! Copying disks into a machine's folder, and small files into memory.

use std::path::Path;

use hako_block::{BlockImage, Error, Result, SECTOR_BYTES, Storage};
use hako_disk::{Ready, reopen};
use hako_formats::{CreateArgs, CreateOptions, DiskFormat};
use hako_pipeline::{CopyOptions, Delivery, deliver};

/// How new disks are to be.
pub(crate) struct Manner<'a> {
    /// Their format.
    pub(crate) format: &'static dyn DiskFormat,
    /// What the user chose about them.
    pub(crate) create: &'a CreateOptions,
    /// Read each one back before it gets its name.
    pub(crate) verify: bool,
    /// How to copy.
    pub(crate) copy: CopyOptions<'a>,
}

/// Writes what `source` shows into the new image `path`; nothing appears there before it is whole.
/// Returns its virtual size and how much of it is data, both in bytes.
pub(crate) fn copy_image(
    source: &dyn BlockImage,
    path: &Path,
    manner: &Manner<'_>,
) -> Result<(u64, u64)> {
    let virtual_size = whole_sectors(source)?;
    let format = manner.format;
    let target = Ready::path(path, false)?;
    let name = target.name;
    let delivery = Delivery {
        source,
        virtual_size,
        target: target.place,
        sink: Box::new(move |storage, outputs| {
            format.stream(CreateArgs {
                storage,
                name,
                outputs,
                virtual_size,
                parent: None,
                options: manner.create.clone(),
            })
        }),
        verify: manner.verify.then(|| reopen(format)),
    };
    let report = deliver(delivery, &manner.copy)?;
    Ok((virtual_size, report.data_bytes))
}

/// Returns the virtual size that a copy of `source` has, in bytes: whole sectors.
pub(crate) fn whole_sectors(source: &dyn BlockImage) -> Result<u64> {
    let size = source.info().virtual_size;
    size.checked_next_multiple_of(SECTOR_BYTES)
        .ok_or_else(|| Error::invalid(format!("a disk of {size} bytes is too large")))
}

/// Reads all of a small file; `what` it is for the error of one with more than `max_bytes`.
pub(crate) fn read_small(storage: &dyn Storage, max_bytes: usize, what: &str) -> Result<Vec<u8>> {
    let len = usize::try_from(storage.len_bytes()?).unwrap_or(usize::MAX);
    if len > max_bytes {
        return Err(Error::unsupported(format!(
            "has {len} bytes: no {what} has more than {max_bytes}"
        ))
        .in_file(storage.name()));
    }
    let mut bytes = vec![0; len];
    storage.read_at(0, &mut bytes)?;
    Ok(bytes)
}
