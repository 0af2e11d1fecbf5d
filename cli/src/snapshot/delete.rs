//! `hako snapshot delete`: entries of the list, and what only they need.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::{Error, Result};
use hako_formats::Task;
use hako_vm::{Doomed, ImageMerge, SnapshotDeletion, Vm};
use serde_json::{Value, json};

use super::tell_recovered;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;
use crate::vm::home::home;

const EXAMPLES: &str = "\
Examples:
  hako snapshot delete web patched
  hako snapshot delete web patched --yes
  hako snapshot delete web clean --children --yes
  hako snapshot delete web --all --yes

Exit status:
  0    done
  1    failed, or no such snapshot
  2    wrong usage, no --yes, or several snapshots are called so
  4    an image or the list of snapshots is corrupt
  5    the machine runs, is suspended or in use
  6    no such virtual machine
  8    not enough space for what is merged
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Delete snapshots; the machine's present state stays as it is
///
/// Without --yes it tells what would be merged and removed, and does nothing. What a snapshot holds
/// is given up: its disks take in the overlays that stand on them, which moves what those store and
/// no more. A disk that several overlays stand on, or another machine, stays until one is left.
/// If the command is ended on the way, the next snapshot command for the machine completes it.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Delete {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// The snapshot: its name, path or uid
    #[arg(value_name = "SNAP", required_unless_present = "all")]
    snapshot: Option<String>,

    /// Delete those that were taken on it, too
    #[arg(long)]
    children: bool,

    /// Delete all snapshots
    #[arg(long, conflicts_with_all = ["snapshot", "children"])]
    all: bool,

    /// Do it
    #[arg(long)]
    yes: bool,
}

impl Delete {
    /// Deletes, or tells what would go.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let home = home()?;
        let vm = Vm::open(&home, &self.machine, &[])?;
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let task = Task {
            progress: &*progress,
            cancel: &cancel,
        };
        let deletion = SnapshotDeletion::plan(&home, vm, &self.doomed(), task)?;
        tell_recovered(context, deletion.recovered());
        let told = Told::of(&deletion);
        if !self.yes {
            drop(progress);
            told.would(context)?;
            return Err(Error::invalid(format!("{}: nothing deleted", told.name))
                .hint("if that is right: --yes"));
        }
        let warnings = deletion.run(task)?;
        drop(progress);
        context.tell(&[], &warnings);
        told.done(context, &warnings)?;
        Ok(Exit::Done)
    }

    fn doomed(&self) -> Doomed {
        match (&self.snapshot, self.children) {
            (Some(snapshot), false) => Doomed::One(snapshot.clone()),
            (Some(snapshot), true) => Doomed::Branch(snapshot.clone()),
            (None, _) => Doomed::All,
        }
    }
}

/// What is told of a deletion.
struct Told {
    name: String,
    /// Uid and name.
    snapshots: Vec<(u32, String)>,
    merges: Vec<ImageMerge>,
    files: Vec<String>,
    kept: Vec<String>,
}

impl Told {
    fn of(deletion: &SnapshotDeletion) -> Self {
        let snapshots = deletion.snapshots().iter();
        Self {
            name: deletion.name(),
            snapshots: snapshots.map(|one| (one.uid, one.name.clone())).collect(),
            merges: deletion.merges(),
            files: deletion.files(),
            kept: deletion.kept().to_vec(),
        }
    }

    fn json(&self, deleted: &str) -> Value {
        let snapshots = self.snapshots.iter();
        let snapshots = snapshots.map(|(uid, name)| json!({"uid": uid, "name": name}));
        json!({
            "name": self.name,
            deleted: snapshots.collect::<Vec<_>>(),
            "merges": merges_json(&self.merges),
            "files": self.files,
            "kept": self.kept,
        })
    }

    fn would(&self, context: &Context) -> Result<()> {
        let mut out = Out::new();
        if context.json {
            out.json(&self.json("would_delete"))?;
            return out.finish();
        }
        for (uid, name) in &self.snapshots {
            out.line(&format!("would delete snapshot {uid} {name:?}"))?;
        }
        for merge in &self.merges {
            out.line(&format!("would merge  {}", merge_text(merge)))?;
        }
        for file in &self.files {
            out.line(&format!("would remove {file}"))?;
        }
        for sentence in &self.kept {
            out.line(sentence)?;
        }
        out.finish()
    }

    fn done(&self, context: &Context, warnings: &[String]) -> Result<()> {
        if context.json {
            let mut told = self.json("deleted");
            told["warnings"] = json!(warnings);
            let mut out = Out::new();
            out.json(&told)?;
            out.finish()?;
        }
        for sentence in &self.kept {
            context.summary(sentence);
        }
        context.summary(&format!(
            "{}: {} deleted, {} merged",
            self.name,
            match self.snapshots.len() {
                1 => "1 snapshot".to_owned(),
                n => format!("{n} snapshots"),
            },
            size::human(merged_bytes(&self.merges))
        ));
        Ok(())
    }
}

/// Returns a merge as a line says it.
pub(super) fn merge_text(merge: &ImageMerge) -> String {
    let bytes = size::human(merge.bytes);
    format!("{} into {} ({bytes})", merge.image, merge.into)
}

pub(super) fn merges_json(merges: &[ImageMerge]) -> Vec<Value> {
    let merges = merges.iter();
    merges
        .map(|merge| json!({"image": merge.image, "into": merge.into, "bytes": merge.bytes}))
        .collect()
}

pub(super) fn merged_bytes(merges: &[ImageMerge]) -> u64 {
    merges.iter().map(|merge| merge.bytes).sum()
}
