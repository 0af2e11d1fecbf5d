//! What an image says of itself and of its parent: the header alone, which changes as a whole.

use hako_block::{Error, ParentLink, Result, Uuid};

use crate::disk::vdi::header::{COMMENT_BYTES, Header, Kind};
use crate::disk::{OpenArgs, Settings};

/// Changes the image's UUID and comment.
pub fn set(args: &OpenArgs, settings: &Settings) -> Result<()> {
    let mut header = Header::read(&*args.storage)?;
    if let Some(uuid) = settings.uuid {
        if uuid.is_nil() {
            return Err(Error::invalid("a VDI needs a UUID that is not nil"));
        }
        header.uuid = uuid;
    }
    if let Some(comment) = &settings.comment {
        if comment.len() >= COMMENT_BYTES || comment.contains('\0') {
            return Err(Error::invalid(format!(
                "a comment of {} bytes: a VDI keeps up to {}, none of them zero",
                comment.len(),
                COMMENT_BYTES - 1
            )));
        }
        header.comment = comment.as_bytes().to_vec();
    }
    header.write(&*args.storage)?;
    args.storage.sync()
}

/// Makes the image an overlay on that parent, or on none.
pub fn relink(args: &OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
    let mut header = Header::read(&*args.storage)?;
    match parent {
        Some(parent) => header.set_parent(parent)?,
        None => {
            if header.kind.is_overlay() {
                header.kind = Kind::Dynamic;
            }
            header.parent = Uuid::default();
            header.parent_modification = Uuid::default();
        }
    }
    header.write(&*args.storage)?;
    args.storage.sync()
}
