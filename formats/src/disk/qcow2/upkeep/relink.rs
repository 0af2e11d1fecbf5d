//! Another parent.

use hako_block::{Error, ParentLink, Result};

use crate::disk::OpenArgs;
use crate::disk::qcow2::backing;
use crate::disk::qcow2::extensions;
use crate::disk::qcow2::header::{self, Header};
use crate::disk::qcow2::{open, sink};

/// Makes the image an overlay on another parent, or on none.
pub fn relink(args: &OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
    let header = Header::read(&*args.storage)?;
    open::refuse_writing(&header, args)?;
    let Some(parent) = parent else {
        return extensions::relink(&*args.storage, &header, "", "");
    };
    if header.autoclear & header::RAW_EXTERNAL != 0 {
        return Err(Error::unsupported(
            "its external data file is a raw image by itself: it cannot have a parent",
        ));
    }
    let Some(format) = parent.format.as_deref().filter(|format| !format.is_empty()) else {
        return Err(Error::invalid("the format of the parent is not known"));
    };
    if parent.name.is_empty() {
        return Err(Error::invalid("the name of the parent is not known"));
    }
    let name = sink::plain_name(&parent.name);
    extensions::relink(&*args.storage, &header, &name, backing::to_qemu(format))
}
