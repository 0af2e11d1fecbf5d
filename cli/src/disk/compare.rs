//! `hako disk compare`: do two images hold the same disk?

use std::path::PathBuf;

use clap::Args;
use hako_block::Result;
use hako_formats::{OpenOptions, open_chain};
use hako_pipeline::{Comparison, Verdict};
use serde_json::{Value, json};

use super::options::{OpenFlags, Threads, format_names};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako disk compare web.vmdk web.qcow2
  hako disk compare --strict --from raw /dev/vg/web web.raw
  hako disk compare --snapshot before web.qcow2 web.qcow2

Exit status:
  0    the images are identical
  1    they differ
  2    any trouble: nothing is known
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Compare the content of two images
///
/// Formats may differ: what the guest sees is compared. If one disk is larger, what it has more
/// must be zeros. Stops at the first difference and says where it is.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Compare {
    /// The first image
    a: PathBuf,

    /// The second image
    b: PathBuf,

    /// The sizes must be the same too, and what is stored (not only what it reads as)
    #[arg(long)]
    strict: bool,

    #[command(flatten)]
    open: OpenFlags,

    /// Format of the second image, if --from is only that of the first
    #[arg(short = 'F', long, value_name = "FORMAT", value_parser = format_names(|_| true),
          help_heading = "Options for opening")]
    from_b: Option<String>,

    /// Compare an internal snapshot (qcow2) of the first image, by name or ID
    #[arg(long, value_name = "NAME", help_heading = "Options for opening")]
    snapshot: Option<String>,

    /// Compare an internal snapshot (qcow2) of the second image, by name or ID
    #[arg(long, value_name = "NAME", help_heading = "Options for opening")]
    snapshot_b: Option<String>,

    #[command(flatten)]
    threads: Threads,
}

impl Compare {
    /// Compares.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let options_a = OpenOptions {
            snapshot: self.snapshot.clone(),
            ..self.open.options()
        };
        let options_b = OpenOptions {
            from: self.from_b.clone().or_else(|| self.open.gate.from.clone()),
            snapshot: self.snapshot_b.clone(),
            ..self.open.options()
        };
        let a = open_chain(&self.a, &options_a)?;
        let b = open_chain(&self.b, &options_b)?;
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        progress.phase("compare");
        let options = self.threads.copy_options(&*progress, &cancel);
        let found = hako_pipeline::compare(&a.chain, &b.chain, self.strict, &options)?;
        drop(progress);
        let mut out = Out::new();
        if context.json {
            out.json(&found_json(&found))?;
        } else {
            out.line(&self.found_text(&found))?;
        }
        out.finish()?;
        Ok(match found.verdict {
            Verdict::Same => Exit::Done,
            _ => Exit::Failed,
        })
    }

    fn found_text(&self, found: &Comparison) -> String {
        match found.verdict {
            Verdict::Same if found.size_a == found.size_b => "Images are identical.".to_owned(),
            Verdict::Same => format!(
                "Images are identical, but for their virtual sizes: {} and {} bytes.",
                found.size_a, found.size_b
            ),
            Verdict::ContentDiffers { offset } => {
                format!("Content differs first at guest offset {offset} ({offset:#x}).")
            }
            Verdict::AllocationDiffers {
                offset,
                stored_in_a,
            } => format!(
                "Allocation differs first at guest offset {offset} ({offset:#x}): stored only in {}.",
                if stored_in_a { &self.a } else { &self.b }.display()
            ),
            Verdict::SizesDiffer => format!(
                "Virtual sizes differ: {} and {} bytes.",
                found.size_a, found.size_b
            ),
        }
    }
}

fn found_json(found: &Comparison) -> Value {
    let (difference, offset) = match found.verdict {
        Verdict::Same => (None, None),
        Verdict::ContentDiffers { offset } => (Some("content"), Some(offset)),
        Verdict::AllocationDiffers { offset, .. } => (Some("allocation"), Some(offset)),
        Verdict::SizesDiffer => (Some("size"), None),
    };
    json!({
        "identical": difference.is_none(),
        "difference": difference,
        "offset": offset,
        "virtual_size_a": found.size_a,
        "virtual_size_b": found.size_b,
    })
}
