//! `hako disk commit`: an overlay's content into its parent.

use std::path::PathBuf;

use clap::Args;
use hako_block::Result;
use hako_disk::{Afterwards, CommitRequest};
use serde_json::json;

use super::options::{GateFlags, Threads};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk commit web-000001.vmdk
  hako disk commit --delete web-000001.vmdk

Exit status:
  0    done
  1    failed
  2    wrong usage, or an overlay, a snapshot or a linked clone needs the parent as it is
  4    an image is corrupt, or the parent is not what the overlay was made on
  5    locked or in use
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Write the content of an overlay into its parent
///
/// Only what the overlay itself stores is moved. Afterwards the overlay is empty: it shows the
/// parent's content, which is now the same. If the command is ended before that, the overlay
/// still has all its content: run it again.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Commit {
    /// The overlay
    overlay: PathBuf,

    /// Leave the overlay as it is
    #[arg(long)]
    keep: bool,

    /// Delete the overlay
    #[arg(long, conflicts_with = "keep")]
    delete: bool,

    /// Do it though overlays, snapshots or linked clones need the parent: their content changes
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    gate: GateFlags,
}

impl Commit {
    /// Commits.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let subject = self.gate.subject(&self.overlay);
        if !self.force
            && let Some(parent) = hako_disk::parent_of(&subject)?
        {
            super::refuse_needed(&parent)?;
            match (self.keep, self.delete) {
                (true, _) => {}
                (_, true) => super::refuse_needed(&self.overlay)?,
                // Emptied it still shows what it showed, but to a clone it is another image.
                _ => super::refuse_clones(&self.overlay)?,
            }
        }
        let request = CommitRequest {
            subject,
            afterwards: match (self.keep, self.delete) {
                (true, _) => Afterwards::Keep,
                (_, true) => Afterwards::Delete,
                _ => Afterwards::Empty,
            },
            force: self.force,
            threads: self.threads.number(),
        };
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let report = hako_disk::commit(&request, &*progress, &cancel)?;
        drop(progress);
        if context.json {
            let mut out = Out::new();
            out.json(&json!({
                "file": self.overlay.to_string_lossy(),
                "parent": report.parent.to_string_lossy(),
                "data_bytes": report.data_bytes,
            }))?;
            out.finish()?;
        }
        context.summary(&format!(
            "{}: {} committed into {}",
            self.overlay.display(),
            size::human(report.data_bytes),
            report.parent.display()
        ));
        Ok(Exit::Done)
    }
}
