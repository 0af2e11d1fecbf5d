//! `hako snapshot`: one file per verb.

mod consolidate;
mod delete;

use clap::Subcommand;
use hako_block::Result;
use hako_vm::Recovered;

use crate::context::Context;
use crate::exit::Exit;

/// Work with snapshots of virtual machines that are off
///
/// A machine is named by its name in the inventory, or by the path of its .vmx. A snapshot is named
/// by its name, by the names on the way to it (clean/patched), or by its uid.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Snapshot {
    Delete(delete::Delete),
    Consolidate(consolidate::Consolidate),
}

impl Snapshot {
    /// Runs the verb.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        match self {
            Snapshot::Delete(verb) => verb.run(context),
            Snapshot::Consolidate(verb) => verb.run(context),
        }
    }
}

/// Says what became of what an earlier run had begun.
fn tell_recovered(context: &Context, recovered: Option<&Recovered>) {
    if let Some(recovered) = recovered {
        context.messages.warn(&recovered.sentence());
        context.tell(&[], recovered.warnings());
    }
}
