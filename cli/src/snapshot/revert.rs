//! `hako snapshot revert`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::{Error, NoProgress, Result};
use hako_formats::Task;
use hako_vm::{LostDisk, Reversal, RevertReport, SnapshotRequest, Vm};
use serde_json::{Value, json};

use super::{created_json, disks_json, tell_created, tell_recovered};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;
use crate::vm::home::home;

const EXAMPLES: &str = "\
Examples:
  hako snapshot revert web before-update
  hako snapshot revert web clean --yes
  hako snapshot revert web clean/patched --save-first

Exit status:
  0    done
  1    failed, encrypted, or no such snapshot
  2    wrong usage, something would be thrown away, or several have that name
  4    the VMX, the list of snapshots or a disk is corrupt
  5    it runs, is suspended or in use
  6    no such virtual machine
  8    no space left";

/// Go back to a snapshot: its disks and its hardware
///
/// What was written since the last snapshot is thrown away. If there is anything, it is told and
/// nothing is done without --yes or --save-first. The machine's name, its UUIDs, the firmware's
/// settings (NVRAM), and its shares of the host and of folders stay as they are, and so does what
/// is on independent disks. A disk that came after the snapshot leaves the machine; its files
/// stay. Of a snapshot that one of VMware's products has taken the hardware comes out of its .vmsn.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Revert {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// The snapshot: its name, its number, or the names on the way to it
    #[arg(value_name = "SNAP")]
    snapshot: String,

    /// Throw away what was written since the last snapshot
    #[arg(long, conflicts_with = "save_first")]
    yes: bool,

    /// Keep what was written since the last snapshot in a new one
    #[arg(long)]
    save_first: bool,

    /// Of a snapshot with the memory of a running machine, go back to its disks alone
    #[arg(long)]
    discard_memory: bool,
}

impl Revert {
    /// Goes back, or tells what would be thrown away.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let home = home()?;
        let vm = Vm::open(&home, &self.machine, &[])?;
        let cancel = context.cancel_on_signals()?;
        let task = Task {
            progress: &NoProgress,
            cancel: &cancel,
        };
        let mut reversal = Reversal::plan(&home, vm, &self.snapshot, self.discard_memory, task)?;
        tell_recovered(context, reversal.recovered());
        let name = reversal.vm().name();
        let mut saved = None;
        let loses = !reversal.lost().is_empty() || !reversal.lost_settings().is_empty();
        if loses && !self.yes {
            if !self.save_first {
                return Err(unconfirmed(context, &reversal)?);
            }
            let request = SnapshotRequest {
                name: format!("before reverting to {}", plain(&reversal.snapshot().name)),
                description: String::new(),
                created_us: context.time_us(),
            };
            reversal.save(&request, task)?;
            saved = Some(request.name);
        }
        let report = reversal.run(task)?;
        told(context, &name, saved.as_deref(), &report)
    }
}

/// Returns the name of a snapshot as a part of another's.
fn plain(name: &str) -> String {
    let name = name.trim().replace('/', "_");
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn lost_text(lost: &LostDisk) -> String {
    let size = size::human(lost.data_bytes);
    format!("{}: {size} written to {}", lost.node, lost.file)
}

/// Tells what would be thrown away, and returns the error that nothing was done.
fn unconfirmed(context: &Context, reversal: &Reversal<'_>) -> Result<Error> {
    let mut out = Out::new();
    let lost = reversal.lost().iter();
    if context.json {
        let lost = lost.map(|lost| {
            json!({
                "node": lost.node.to_string(),
                "file": lost.file,
                "data_bytes": lost.data_bytes,
            })
        });
        out.json(&json!({
            "uid": reversal.snapshot().uid,
            "name": reversal.snapshot().name,
            "would_lose": lost.collect::<Vec<_>>(),
            "would_lose_settings": reversal.lost_settings(),
        }))?;
    } else {
        for lost in lost {
            out.line(&format!("would lose {}", lost_text(lost)))?;
        }
        for file in reversal.lost_settings() {
            out.line(&format!("would lose the firmware's settings in {file}"))?;
        }
    }
    out.finish()?;
    let what = format!("{}: not reverted", reversal.vm().name());
    Ok(Error::invalid(what)
        .hint("throw that away: --yes; or keep it in a new snapshot: --save-first"))
}

fn told(context: &Context, vm: &str, saved: Option<&str>, report: &RevertReport) -> Result<Exit> {
    let saved = saved.zip(report.saved.as_ref());
    if let Some((_, saved)) = saved {
        tell_created(context, saved);
    }
    for (node, file) in &report.dropped {
        context.messages.warn(&format!(
            "{node}: {file} came after the snapshot and is out of the machine; its files stay"
        ));
    }
    context.tell(&[], &report.warnings);
    if context.json {
        let mut out = Out::new();
        out.json(&report_json(
            saved.map(|(name, saved)| created_json(name, saved)),
            report,
        ))?;
        out.finish()?;
    }
    if let Some((name, saved)) = saved {
        context.summary(&format!("{vm}: kept as snapshot {name} ({})", saved.uid));
    }
    for file in &report.removed {
        context.detail(&format!("{file}: removed"));
    }
    context.summary(&format!("{vm}: back at {} ({})", report.name, report.uid));
    Ok(Exit::Done)
}

fn report_json(saved: Option<Value>, report: &RevertReport) -> Value {
    let dropped = report.dropped.iter();
    let dropped = dropped.map(|(node, file)| json!({"node": node.to_string(), "file": file}));
    json!({
        "uid": report.uid,
        "name": report.name,
        "disks": disks_json(&report.disks),
        "saved": saved,
        "removed": report.removed,
        "dropped": dropped.collect::<Vec<_>>(),
        "hardware": if report.has_hardware { "snapshot" } else { "present" },
        "warnings": report.warnings,
    })
}
