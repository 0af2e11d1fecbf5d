//! `hako disk delete`: an image with all its files.

use std::path::PathBuf;

use clap::Args;
use hako_block::Result;
use serde_json::json;

use super::options::GateFlags;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako disk delete web-000001.vmdk

Exit status:
  0    done
  1    failed
  2    wrong usage, or an overlay, a snapshot or a linked clone needs it
  4    the image is corrupt
  5    locked or in use";

/// Delete an image with all its files
///
/// Its parents stay. Refused while another image in the same folder or a linked clone of the
/// inventory stands on it, or a machine's snapshot does.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Delete {
    /// The images
    #[arg(required = true)]
    images: Vec<PathBuf>,

    /// Do it though an overlay, a snapshot or a linked clone needs it
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    gate: GateFlags,
}

impl Delete {
    /// Deletes.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let mut deleted = Vec::new();
        if !self.force {
            let mut images = self.images.iter();
            images.try_for_each(|image| super::refuse_needed(image))?;
        }
        for image in &self.images {
            deleted.extend(hako_disk::delete(&self.gate.subject(image), self.force)?);
        }
        if context.json {
            let files = deleted.iter().map(|path| path.to_string_lossy());
            let mut out = Out::new();
            out.json(&json!({"deleted": files.collect::<Vec<_>>()}))?;
            out.finish()?;
        }
        for path in &deleted {
            context.summary(&format!("{}: deleted", path.display()));
        }
        Ok(Exit::Done)
    }
}
