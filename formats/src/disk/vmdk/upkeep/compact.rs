//! Giving space back to the host, extent by extent.

use std::sync::Arc;

use hako_block::{Access, Result};

use crate::disk::raw::give_back_zeros;
use crate::disk::vmdk::extent_line::ExtentAccess;
use crate::disk::vmdk::hosted::{self, HostedArgs};
use crate::disk::vmdk::image::VmdkImage;
use crate::disk::vmdk::layout::{Layout, Source};
use crate::disk::{OpenArgs, Task};

/// Compacts every extent that may be written. The content stays, and so does its ID.
pub fn compact(args: &OpenArgs, task: Task<'_>) -> Result<()> {
    // One that cannot be opened is left as it is.
    drop(VmdkImage::open(args)?);
    let layout = Layout::find(args)?;
    let has_parent = layout.descriptor.parent_content_id()?.is_some();
    for part in &layout.parts {
        if part.line.access != ExtentAccess::ReadWrite {
            continue;
        }
        match &part.source {
            Source::Hosted(storage, header) => {
                let args = HostedArgs {
                    storage: Arc::clone(storage),
                    header: header.clone(),
                    access: Access::ReadWrite,
                    has_parent,
                };
                hosted::compact(args, task).map_err(|error| error.in_file(storage.name()))?;
            }
            Source::Flat { storage, offset } => {
                task.progress.phase("look for zeros");
                task.progress.total(part.len);
                give_back_zeros(&**storage, *offset..*offset + part.len, task)?;
            }
            _ => {}
        }
    }
    Ok(())
}
