//! `hako disk convert`: any readable image to any creatable one.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use hako_block::Result;
use hako_converter::{ConvertReport, ConvertRequest, Source};
use hako_disk::Target;
use serde_json::{Value, json};

use super::options::{ReadFlags, TargetFlags, Threads, rate};
use crate::context::{Context, standard};
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk convert web.vmdk web.qcow2
  hako disk convert --verify --subformat streamOptimized web.raw web.vmdk
  hako disk convert --to raw web.vmdk /dev/vg/web
  hako disk convert --to raw web.qcow2 - | ssh backup 'cat > web.raw'
  gunzip < web.img.gz | hako disk convert --from raw - web.vmdk
  hako disk convert --layer 0 --parent base.qcow2 web-000001.vmdk web.qcow2

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    incomplete: what --salvage could not read became zeros
  4    the source is corrupt, or the new image did not verify
  5    locked or in use
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM
  141    the reader of standard output went away";

/// Convert an image into another format
///
/// A chain is flattened, unless --layer says otherwise. The new image appears under its name only
/// when it is whole and on stable storage; a block device is written in place. Each of SOURCE and
/// TARGET may be - for standard input and output.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Convert {
    /// The image to read
    source: PathBuf,

    /// The new image: a file, a block device, or -
    target: PathBuf,

    /// Convert this layer alone: 0 is the image itself, 1 its parent, and so on
    ///
    /// What the layer does not store stays a hole.
    #[arg(long, value_name = "N")]
    layer: Option<usize>,

    /// Make the new image an overlay on this one
    #[arg(long, value_name = "PARENT", requires = "layer")]
    parent: Option<PathBuf>,

    /// Read the new image back and compare before it gets its name
    #[arg(long)]
    verify: bool,

    /// Write at most this many bytes of data per second
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    new: TargetFlags,

    #[command(flatten)]
    read: ReadFlags,
}

impl Convert {
    /// Converts.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let request = self.request(context)?;
        if self.new.force {
            super::refuse_to_replace(&self.target)?;
        }
        let format = request.to.name();
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let began = Instant::now();
        let report = hako_converter::convert(request, &*progress, &cancel)?;
        let took = began.elapsed();
        drop(progress);
        context.tell(&report.cleared, &report.warnings);
        if context.json && !is_dash(&self.target) {
            let mut out = Out::new();
            out.json(&self.report_json(format, &report, took))?;
            out.finish()?;
        }
        context.summary(&self.report_text(&report, took));
        Ok(if self.read.salvage() && !report.warnings.is_empty() {
            Exit::Incomplete
        } else {
            Exit::Done
        })
    }

    fn request(&self, context: &Context) -> Result<ConvertRequest> {
        Ok(ConvertRequest {
            to: self.new.format(&self.target)?,
            source: if is_dash(&self.source) {
                Source::Stdin(standard(std::io::stdin())?)
            } else {
                Source::Path(self.source.clone())
            },
            open: self.read.options(),
            layer: self.layer,
            target: if is_dash(&self.target) {
                Target::Stdout {
                    writer: Box::new(standard(std::io::stdout())?),
                    is_terminal: std::io::stdout().is_terminal(),
                }
            } else {
                Target::Path(self.target.clone())
            },
            create: self.new.create_options(),
            parent: self.parent.clone(),
            force: self.new.force,
            verify: self.verify,
            threads: self.threads.number(),
            rate: self.rate,
            temp_folder: context.temp_folder(),
        })
    }

    fn report_text(&self, report: &ConvertReport, took: Duration) -> String {
        let seconds = took.as_secs_f64();
        let rate = (report.data_bytes as f64 / seconds.max(1e-3)) as u64;
        format!(
            "{}: {}, of it {} data{}, in {seconds:.1} s ({}/s)",
            self.target.display(),
            size::human(report.virtual_size),
            size::human(report.data_bytes),
            if report.verified { ", verified" } else { "" },
            size::human(rate),
        )
    }

    fn report_json(&self, format: &str, report: &ConvertReport, took: Duration) -> Value {
        json!({
            "file": self.target.to_string_lossy(),
            "format": format,
            "virtual_size": report.virtual_size,
            "data_bytes": report.data_bytes,
            "zero_bytes": report.zero_bytes,
            "verified": report.verified,
            "seconds": took.as_secs_f64(),
            "cleared": report.cleared,
            "warnings": report.warnings,
        })
    }
}

fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}
