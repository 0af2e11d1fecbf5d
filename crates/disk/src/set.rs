//! Changing what an image says of itself.

use hako_block::Result;
use hako_formats::{Settings, open_file};

use crate::change::Subject;

/// Changes settings of the image's own layer. Its content and content ID stay. Errors: another UUID
/// for an image that an overlay beside it knows by that, unless forced.
pub fn set(subject: &Subject, settings: &Settings, force: bool) -> Result<()> {
    if !force && settings.uuid.is_some() && is_known_by_uuid(subject)? {
        subject.refuse_overlays(None, "that knows it by its UUID")?;
    }
    let top = subject.open_top()?;
    top.format
        .set(top.args, settings)
        .map_err(|error| error.in_file(&subject.path))
}

/// Returns whether overlays know an image by its UUID; those of other formats know its content ID.
pub fn is_known_by_uuid(subject: &Subject) -> Result<bool> {
    let (format, _) = open_file(&subject.path, &subject.open)?;
    Ok(matches!(format.name(), "vhd" | "vdi"))
}
