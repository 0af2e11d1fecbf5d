//! Changing what an image says of itself.

use hako_block::Result;
use hako_formats::Settings;

use crate::change::Subject;

/// Changes settings of the image's own layer. Its content and content ID stay.
pub fn set(subject: &Subject, settings: &Settings) -> Result<()> {
    let top = subject.open_top()?;
    top.format
        .set(top.args, settings)
        .map_err(|error| error.in_file(&subject.path))
}
