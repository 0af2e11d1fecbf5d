//! `hako disk compact`: give space back to the host.

use std::path::PathBuf;

use clap::Args;
use hako_block::Result;
use serde_json::json;

use super::options::GateFlags;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk compact web.vmdk

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    the image is corrupt
  5    locked or in use
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM; the image is whole";

/// Give back to the host what an image stores without need
///
/// Parts of the disk that are all zeros are no longer stored, holes inside the file are filled
/// from its end, and the file is cut. The content stays the same. Have the guest overwrite its
/// free space with zeros (or discard it) before.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Compact {
    /// The image
    image: PathBuf,

    #[command(flatten)]
    gate: GateFlags,
}

impl Compact {
    /// Compacts.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let subject = self.gate.subject(&self.image);
        let report = hako_disk::compact(&subject, &*progress, &cancel)?;
        drop(progress);
        if context.json {
            let mut out = Out::new();
            out.json(&json!({
                "file": self.image.to_string_lossy(),
                "allocated_before": report.allocated_before,
                "allocated_size": report.allocated_after,
            }))?;
            out.finish()?;
        }
        context.summary(&format!(
            "{}: {} on the host, was {}",
            self.image.display(),
            size::human(report.allocated_after),
            size::human(report.allocated_before)
        ));
        Ok(Exit::Done)
    }
}
