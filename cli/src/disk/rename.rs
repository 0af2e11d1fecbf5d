//! `hako disk rename`: another name, with every reference.

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
  hako disk rename web.vmdk mail.vmdk

Exit status:
  0    done
  1    failed
  2    wrong usage, or a snapshot or a linked clone needs it
  4    the image is corrupt
  5    locked or in use";

/// Rename an image in its folder, with all its files and every reference to it
///
/// Extent files get the new name too, the names inside the image are rewritten, and so are the
/// links of overlays in the same folder. If the command is ended on the way, the image is there
/// under one name or both: run it again.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Rename {
    /// The image
    image: PathBuf,

    /// Its new name; without a folder, in the folder it is in
    to: PathBuf,

    #[command(flatten)]
    gate: GateFlags,
}

impl Rename {
    /// Renames.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let to = match self.to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => self.to.clone(),
            _ => self.image.with_file_name(&self.to),
        };
        super::refuse_needed(&self.image)?;
        let report = hako_disk::rename(&self.gate.subject(&self.image), &to)?;
        if context.json {
            let files = report.files.iter().map(
                |(from, to)| json!({"from": from.to_string_lossy(), "to": to.to_string_lossy()}),
            );
            let overlays = report.overlays.iter().map(|path| path.to_string_lossy());
            let mut out = Out::new();
            out.json(&json!({
                "files": files.collect::<Vec<_>>(),
                "kept": report.kept,
                "overlays": overlays.collect::<Vec<_>>(),
            }))?;
            out.finish()?;
        }
        for (from, to) in &report.files {
            context.summary(&format!("{} -> {}", from.display(), to.display()));
        }
        for file in &report.kept {
            context.summary(&format!("{file}: keeps its name"));
        }
        for overlay in &report.overlays {
            context.summary(&format!(
                "{}: link to its parent rewritten",
                overlay.display()
            ));
        }
        Ok(Exit::Done)
    }
}
