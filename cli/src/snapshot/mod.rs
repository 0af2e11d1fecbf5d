//! `hako snapshot`: one file per verb.

mod consolidate;
mod create;
mod delete;
mod doctor;
mod list;
mod revert;

use clap::Subcommand;
use hako_block::Result;
use hako_vm::{Recovered, SnapshotReport};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::late::Late;

/// Keep states of a virtual machine that is off, and go back to them
///
/// A snapshot keeps what is on the machine's disks, and its hardware. Snapshots form a tree; one
/// is named by its name, by its number as uid:3 or 3, or by the names on the way to it, as
/// clean/patched. What has been begun and was cut off is completed or undone by the next of these
/// commands.
///
/// Files are laid out as VMware's products do it: the list in NAME.vmsd, a delta disk
/// NAME-000001.vmdk for what is written from then on. Other formats have overlays of their own:
/// qcow2, VHDX and VHD; raw and VDI get qcow2. The hardware is kept in NAME-Snapshot1.vmx, which
/// only hako knows. VMware's products write a state of their own, NAME-Snapshot1.vmsn, at every
/// snapshot, also without memory, and restore the hardware out of it; hako writes none, for there
/// is no specification. The machine itself and its disks are all that they need to run it, but go
/// back to such a snapshot with hako.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Snapshot {
    Create(Late<create::Create>),
    List(Late<list::List>),
    Revert(Late<revert::Revert>),
    Delete(Late<delete::Delete>),
    Consolidate(Late<consolidate::Consolidate>),
    Doctor(Late<doctor::Doctor>),
}

impl Snapshot {
    /// Runs the verb.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        match self {
            Snapshot::Create(verb) => verb.run(context),
            Snapshot::List(verb) => verb.run(context),
            Snapshot::Revert(verb) => verb.run(context),
            Snapshot::Delete(verb) => verb.run(context),
            Snapshot::Consolidate(verb) => verb.run(context),
            Snapshot::Doctor(verb) => verb.run(context),
        }
    }
}

/// Says what became of a verb that had been cut off before.
fn tell_recovered(context: &Context, recovered: Option<&Recovered>) {
    if let Some(recovered) = recovered {
        context.messages.warn(&recovered.sentence());
        context.tell(&[], recovered.warnings());
    }
}

fn created_json(name: &str, report: &SnapshotReport) -> Value {
    let left_alone = report.left_alone.iter();
    let left_alone = left_alone.map(|(node, mode)| json!({"node": node.to_string(), "mode": mode}));
    json!({
        "uid": report.uid,
        "name": name,
        "disks": disks_json(&report.disks),
        "left_alone": left_alone.collect::<Vec<_>>(),
        "warnings": report.warnings,
    })
}

fn disks_json(disks: &[(hako_formats::machine::Node, String, String)]) -> Value {
    let disks = disks
        .iter()
        .map(|(node, held, live)| json!({"node": node.to_string(), "held": held, "live": live}));
    disks.collect()
}

/// Says what the user should know of a snapshot that was taken.
fn tell_created(context: &Context, report: &SnapshotReport) {
    for (node, mode) in &report.left_alone {
        context
            .messages
            .warn(&format!("{node} is {mode}: the snapshot does not hold it"));
    }
    context.tell(&[], &report.warnings);
}
