//! `hako disk resize`: another virtual size.

use std::path::PathBuf;

use clap::Args;
use hako_block::Result;
use hako_disk::{NewSize, ResizeRequest};
use serde_json::json;

use super::options::GateFlags;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk resize web.vmdk 40G
  hako disk resize web.qcow2 +10G
  hako disk resize web.vhdx 15G --shrink

Exit status:
  0    done
  1    failed
  2    wrong usage, or data would be cut
  4    the image is corrupt
  5    locked or in use
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Change the virtual size of an image in place
///
/// New space reads as zeros. Partitions and file systems inside are not touched: grow them from
/// the guest afterwards, or shrink them before.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Resize {
    /// The image
    image: PathBuf,

    /// The new size, or with + or - before it the difference
    #[arg(value_parser = parse_size, allow_hyphen_values = true)]
    size: NewSize,

    /// Let the disk become smaller, if what is cut is zeros
    #[arg(long)]
    shrink: bool,

    /// Cut data, too: it is lost
    #[arg(long, requires = "shrink")]
    cut_data: bool,

    /// Do it though an overlay, a snapshot or a linked clone needs it as it is
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    gate: GateFlags,
}

impl Resize {
    /// Resizes.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        if !self.force {
            super::refuse_needed(&self.image)?;
        }
        let request = ResizeRequest {
            subject: self.gate.subject(&self.image),
            size: self.size,
            shrink: self.shrink,
            cut_data: self.cut_data,
            force: self.force,
        };
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let report = hako_disk::resize(&request, &*progress, &cancel)?;
        drop(progress);
        if context.json {
            let mut out = Out::new();
            out.json(&json!({
                "file": self.image.to_string_lossy(),
                "old_size": report.old_size,
                "virtual_size": report.new_size,
            }))?;
            out.finish()?;
        }
        context.summary(&format!(
            "{}: {}, was {}",
            self.image.display(),
            size::human(report.new_size),
            size::human(report.old_size)
        ));
        Ok(Exit::Done)
    }
}

fn parse_size(text: &str) -> std::result::Result<NewSize, String> {
    match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(more), _) => size::parse(more).map(NewSize::By),
        (_, Some(less)) => size::parse(less).map(NewSize::Less),
        _ => size::parse(text).map(NewSize::To),
    }
}
