//! Copying a disk into a machine's folder.

use std::path::Path;

use hako_block::{BlockImage, Error, Result, SECTOR_BYTES};
use hako_disk::Ready;
use hako_formats::{CreateArgs, CreateOptions, DiskFormat, Task};
use hako_pipeline::{CopyOptions, DeliverReport, Delivery, deliver};

/// Writes what `source` shows into the new image `path`; nothing appears there before it is whole.
pub(crate) fn copy_image(
    source: &dyn BlockImage,
    path: &Path,
    format: &'static dyn DiskFormat,
    create: CreateOptions,
    task: Task<'_>,
) -> Result<DeliverReport> {
    let size = source.info().virtual_size;
    let virtual_size = size
        .checked_next_multiple_of(SECTOR_BYTES)
        .ok_or_else(|| Error::invalid(format!("a disk of {size} bytes is too large")))?;
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
                options: create,
            })
        }),
        verify: None,
    };
    deliver(delivery, &CopyOptions::new(task.progress, task.cancel))
}
