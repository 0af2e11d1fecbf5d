//! `hako snapshot consolidate`: what deletions have left behind is merged.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::Result;
use hako_formats::Task;
use hako_vm::{Consolidation, Vm};
use serde_json::json;

use super::delete::{merge_text, merged_bytes, merges_json};
use super::tell_recovered;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;
use crate::vm::home::home;

const EXAMPLES: &str = "\
Examples:
  hako snapshot consolidate web
  hako -v snapshot consolidate web

Exit status:
  0    done, or there was nothing to do
  1    failed
  2    wrong usage
  4    an image or the list of snapshots is corrupt
  5    the machine runs, is suspended or in use
  6    no such virtual machine
  8    not enough space for what is merged
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Merge overlays that no snapshot needs any more
///
/// A deletion that failed, in VMware's products above all, leaves overlays in use that no snapshot
/// asks for (\"needs consolidation\"). Each is merged into what it stands on, unless something else
/// stands on that, too. The snapshots and the machine's present state stay as they are.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Consolidate {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,
}

impl Consolidate {
    /// Merges.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let home = home()?;
        let vm = Vm::open(&home, &self.machine, &[])?;
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let task = Task {
            progress: &*progress,
            cancel: &cancel,
        };
        let consolidation = Consolidation::plan(&home, vm, task)?;
        tell_recovered(context, consolidation.recovered());
        let (name, merges) = (consolidation.name(), consolidation.merges());
        let (files, kept) = (
            consolidation.files().to_vec(),
            consolidation.kept().to_vec(),
        );
        let warnings = consolidation.run(task)?;
        drop(progress);
        context.tell(&[], &warnings);
        if context.json {
            let mut out = Out::new();
            out.json(&json!({
                "name": name,
                "merges": merges_json(&merges),
                "files": files,
                "kept": kept,
                "warnings": warnings,
            }))?;
            out.finish()?;
        }
        for merge in &merges {
            context.detail(&merge_text(merge));
        }
        for sentence in &kept {
            context.messages.warn(sentence);
        }
        context.summary(&match merges.as_slice() {
            [] => format!("{name}: there is nothing to merge"),
            merges => format!("{name}: {} merged", size::human(merged_bytes(merges))),
        });
        Ok(Exit::Done)
    }
}
