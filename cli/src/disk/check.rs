//! `hako disk check`: is the structure of an image sound?

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hako_block::Result;
use hako_disk::{CheckReport, CheckRequest, LayerCheck};
use hako_formats::{Finding, OpenOptions, Repair, Severity};
use serde_json::{Value, json};

use super::options::{OpenFlags, Threads};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk check web.vmdk
  hako disk check --data --chain web-000001.vmdk
  hako disk check --repair all web.vmdk
  hako disk check --undo web.vmdk.saved web.vmdk

Exit status:
  0    sound (oddities are listed), or repaired and now sound
  1    the check could not be done
  2    wrong usage
  3    sound, but space is leaked
  4    corrupt
  5    locked or in use
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Check the structure of an image
///
/// Finds damage, tables that disagree, space that nothing refers to or that two things refer to.
/// Changes nothing, unless asked to repair.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Check {
    /// The image
    image: PathBuf,

    /// Read all data too, and unpack what is compressed
    #[arg(long)]
    data: bool,

    /// Check every layer of the chain, not only the image itself
    #[arg(long)]
    chain: bool,

    /// Mend the image: leaks gives space back, all mends what needs no guessing, too
    ///
    /// What is overwritten is saved first, beside the image as NAME.saved. What is then still
    /// wrong is listed.
    #[arg(short = 'r', long, value_name = "WHAT", value_parser = repairs(),
          conflicts_with_all = ["data", "chain", "force_share"])]
    repair: Option<Repair>,

    /// Put back what a repair overwrote and saved in SAVED, and check nothing
    #[arg(long, value_name = "SAVED",
          conflicts_with_all = ["repair", "data", "chain", "force_share"])]
    undo: Option<PathBuf>,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    open: OpenFlags,
}

impl Check {
    /// Checks.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        match (&self.undo, self.repair) {
            (Some(saved), _) => self.undo(saved, context),
            (_, Some(what)) => self.repair(what, context),
            _ => self.look(context),
        }
    }

    fn look(&self, context: &Context) -> Result<Exit> {
        let request = CheckRequest {
            path: self.image.clone(),
            open: OpenOptions {
                top_only: !self.chain,
                ..self.open.options()
            },
            data: self.data,
            threads: self.threads.number(),
        };
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let report = hako_disk::check(&request, &*progress, &cancel)?;
        drop(progress);
        let mut out = Out::new();
        if context.json {
            out.json(&report_json(&report))?;
        } else {
            for layer in &report.layers {
                print_layer(&mut out, layer)?;
            }
        }
        out.finish()?;
        Ok(exit_of(report.worst()))
    }

    fn repair(&self, what: Repair, context: &Context) -> Result<Exit> {
        let subject = self.open.gate.subject(&self.image);
        let report = hako_disk::repair(&subject, what)?;
        let mut out = Out::new();
        let saved = report.saved.as_ref().map(|path| path.to_string_lossy());
        if context.json {
            out.json(&json!({
                "repaired": report.repaired,
                "saved": saved,
                "before": layer_json(&report.before),
                "after": layer_json(&report.after),
            }))?;
        } else {
            for sentence in &report.repaired {
                out.line(&format!("{}: repaired: {sentence}", report.after.file))?;
            }
            if let Some(saved) = saved {
                out.line(&format!(
                    "{}: what was overwritten is saved in {saved}",
                    report.after.file
                ))?;
            }
            print_layer(&mut out, &report.after)?;
        }
        out.finish()?;
        Ok(exit_of(report.after.findings.worst()))
    }

    fn undo(&self, saved: &Path, context: &Context) -> Result<Exit> {
        let files = hako_disk::undo(&self.open.gate.subject(&self.image), saved)?;
        if context.json {
            let mut out = Out::new();
            out.json(&json!({"restored": files}))?;
            out.finish()?;
        }
        context.summary(&format!("{}: as before the repair", self.image.display()));
        Ok(Exit::Done)
    }
}

fn exit_of(worst: Option<Severity>) -> Exit {
    match worst {
        Some(Severity::Corruption) => Exit::Corrupt,
        Some(Severity::Leak) => Exit::Incomplete,
        Some(Severity::Oddity) | None => Exit::Done,
    }
}

fn repairs() -> impl TypedValueParser<Value = Repair> {
    PossibleValuesParser::new(["leaks", "all"]).map(|name| match name.as_str() {
        "leaks" => Repair::Leaks,
        _ => Repair::All,
    })
}

fn print_layer(out: &mut Out, layer: &LayerCheck) -> Result<()> {
    for finding in &layer.findings.list {
        out.line(&finding_text(finding))?;
    }
    let found = &layer.findings;
    let total = found.n_corruptions + found.n_leaks + found.n_oddities;
    let unlisted = total.saturating_sub(found.list.len() as u64);
    if unlisted > 0 {
        out.line(&format!("{}: and {unlisted} more", layer.file))?;
    }
    out.line(&format!("{}: {}", layer.file, verdict(layer)))
}

fn finding_text(finding: &Finding) -> String {
    let byte = finding
        .byte
        .map_or_else(String::new, |byte| format!(" (byte {byte:#x})"));
    format!(
        "{}: {}: {}{byte}",
        finding.file,
        severity_name(finding.severity),
        finding.text
    )
}

/// One line on a layer: `vmdk, 2 corruptions, 1 leak (64 KiB), 12 of 320 units stored`.
fn verdict(layer: &LayerCheck) -> String {
    let found = &layer.findings;
    let mut parts = vec![layer.format.to_owned()];
    for (n, one, many) in [
        (found.n_corruptions, "corruption", "corruptions"),
        (found.n_leaks, "leak", "leaks"),
        (found.n_oddities, "oddity", "oddities"),
    ] {
        if n > 0 {
            parts.push(format!("{n} {}", if n == 1 { one } else { many }));
        }
    }
    if found.leaked_bytes > 0 {
        parts.push(format!("{} leaked", size::human(found.leaked_bytes)));
    }
    if !layer.has_structure {
        parts.push("the format has no structure to check".to_owned());
    } else if found.worst().is_none() {
        parts.push("no errors found".to_owned());
    }
    if found.n_units > 0 {
        let (stored, units) = (found.n_allocated_units, found.n_units);
        parts.push(format!("{stored} of {units} units stored"));
    }
    if found.n_compressed_units > 0 {
        parts.push(format!("{} of them compressed", found.n_compressed_units));
    }
    parts.join(", ")
}

fn report_json(report: &CheckReport) -> Value {
    let layers: Vec<Value> = report.layers.iter().map(layer_json).collect();
    json!({"layers": layers})
}

fn layer_json(layer: &LayerCheck) -> Value {
    let found = &layer.findings;
    let list = found.list.iter().map(|finding| {
        json!({
            "severity": severity_name(finding.severity),
            "file": finding.file,
            "text": finding.text,
            "byte": finding.byte,
        })
    });
    json!({
        "file": layer.file,
        "format": layer.format,
        "has_structure": layer.has_structure,
        "corruptions": found.n_corruptions,
        "leaks": found.n_leaks,
        "leaked_bytes": found.leaked_bytes,
        "oddities": found.n_oddities,
        "units": found.n_units,
        "allocated_units": found.n_allocated_units,
        "compressed_units": found.n_compressed_units,
        "findings": list.collect::<Vec<_>>(),
    })
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Oddity => "oddity",
        Severity::Leak => "leak",
        Severity::Corruption => "corruption",
    }
}
