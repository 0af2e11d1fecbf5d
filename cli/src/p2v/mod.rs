//! `hako p2v`: one file per verb.

mod adapt;
mod capture;
mod identity;
mod inventory;
mod machine;
mod plan;
mod sample;
mod verify;

use clap::Subcommand;
use hako_block::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::late::Late;

/// Turn servers into virtual machines
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum P2v {
    #[command(name = "inventory")]
    Inventory(Late<inventory::InventoryOf>),
    Sample(Late<sample::Sample>),
    Plan(Late<plan::Plan>),
    Capture(Late<capture::Capture>),
    Adapt(Late<adapt::Adapt>),
    Verify(Late<verify::Verify>),
}

impl P2v {
    /// Runs the verb.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        match self {
            P2v::Inventory(verb) => verb.run(context),
            P2v::Sample(verb) => verb.run(context),
            P2v::Plan(verb) => verb.run(context),
            P2v::Capture(verb) => verb.run(context),
            P2v::Adapt(verb) => verb.run(context),
            P2v::Verify(verb) => verb.run(context),
        }
    }
}
