//! `hako disk rebase`: another parent for an overlay.

use std::path::PathBuf;

use clap::Args;
use hako_block::Result;
use hako_disk::RebaseRequest;
use serde_json::json;

use super::options::{GateFlags, Threads, format_names};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk rebase web-000002.vmdk --parent web.vmdk
  hako disk rebase web.qcow2 --no-parent
  hako disk rebase web-000001.vmdk --parent moved/web.vmdk --unsafe

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    an image is corrupt
  5    locked or in use
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM; the old parent still holds";

/// Give an overlay another parent, or none
///
/// The content of the overlay stays the same: where the old and the new parent differ, it stores
/// the old content itself.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Rebase {
    /// The overlay
    overlay: PathBuf,

    /// Its new parent
    #[arg(
        short = 'b',
        long,
        value_name = "PARENT",
        required_unless_present = "no_parent"
    )]
    parent: Option<PathBuf>,

    /// Store everything in the image itself
    #[arg(long, conflicts_with_all = ["parent", "unsafe", "parent_format"])]
    no_parent: bool,

    /// Format of the new parent, instead of finding it out
    #[arg(short = 'F', long, value_name = "FORMAT", value_parser = format_names(|_| true))]
    parent_format: Option<String>,

    /// Only rewrite the link: you know that the new parent has the content of the old one
    ///
    /// For a parent that was moved or renamed by other means. The old parent need not be there.
    #[arg(short = 'u', long)]
    r#unsafe: bool,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    gate: GateFlags,
}

impl Rebase {
    /// Rebases.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let request = RebaseRequest {
            subject: self.gate.subject(&self.overlay),
            parent: self.parent.clone(),
            parent_from: self.parent_format.clone(),
            link_only: self.r#unsafe,
            threads: self.threads.number(),
        };
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let report = hako_disk::rebase(&request, &*progress, &cancel)?;
        drop(progress);
        context.tell(&[], &report.warnings);
        if context.json {
            let mut out = Out::new();
            out.json(&json!({
                "file": self.overlay.to_string_lossy(),
                "parent": self.parent.as_ref().map(|parent| parent.to_string_lossy()),
                "data_bytes": report.data_bytes,
                "warnings": report.warnings,
            }))?;
            out.finish()?;
        }
        context.summary(&format!(
            "{}: rebased, {} of the old parent stored",
            self.overlay.display(),
            size::human(report.data_bytes)
        ));
        Ok(Exit::Done)
    }
}
