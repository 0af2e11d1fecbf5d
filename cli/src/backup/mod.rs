//! `hako backup`: one file per verb.

mod export;

use clap::Subcommand;
use hako_block::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::late::Late;

/// Back machines up
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Backup {
    Export(Late<export::Export>),
}

impl Backup {
    /// Runs the verb.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        match self {
            Backup::Export(verb) => verb.run(context),
        }
    }
}
