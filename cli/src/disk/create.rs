//! `hako disk create`: an empty image or an overlay.

use std::path::PathBuf;

use clap::Args;
use hako_block::{Error, Result};
use hako_disk::CreateRequest;
use serde_json::json;

use super::options::{OpenFlags, TargetFlags};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk create web.vmdk 20G
  hako disk create data.vmdk 100G --subformat monolithicFlat --allocation eager
  hako disk create web-000001.vmdk --parent web.vmdk
  hako disk create web.qcow2 20G --unit 2M

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    the parent is corrupt
  5    locked or in use
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Create an empty image, or an overlay over a parent
///
/// The format is what the extension of PATH says, or --to.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Create {
    /// The new image
    path: PathBuf,

    /// Its virtual size; an overlay's is by default its parent's
    #[arg(value_parser = size::parse, required_unless_present = "parent")]
    size: Option<u64>,

    /// Make the new image an overlay on this one
    #[arg(long, value_name = "PARENT")]
    parent: Option<PathBuf>,

    #[command(flatten)]
    target: TargetFlags,

    #[command(flatten)]
    open: OpenFlags,
}

impl Create {
    /// Creates it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let to = self.target.format(&self.path)?;
        if self.target.force {
            super::refuse_to_replace(&self.path)?;
        }
        let open = self.open.options();
        if self.parent.is_none() && open.from.is_some() {
            return Err(
                Error::invalid("--from is the format of a parent, and there is none")
                    .hint("the format of the new image is --to FORMAT"),
            );
        }
        let request = CreateRequest {
            path: self.path.clone(),
            to,
            virtual_size: self.size,
            create: self.target.create_options(),
            parent: self.parent.clone(),
            parent_from: open.from,
            rules: open.rules,
            force: self.target.force,
        };
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let report = hako_disk::create(request, &*progress, &cancel)?;
        drop(progress);
        context.tell(&report.cleared, &report.warnings);
        if context.json {
            let mut out = Out::new();
            out.json(&json!({
                "file": self.path.to_string_lossy(),
                "format": to.name(),
                "virtual_size": report.virtual_size,
                "cleared": report.cleared,
                "warnings": report.warnings,
            }))?;
            out.finish()?;
        }
        context.summary(&format!(
            "{}: created, {}",
            self.path.display(),
            size::human(report.virtual_size)
        ));
        Ok(Exit::Done)
    }
}
