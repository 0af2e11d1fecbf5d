//! `hako vm unpause`: the virtual CPUs go on.

use clap::Args;
use hako_block::Result;

use super::Which;
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  hako vm unpause web

Exit status:
  0    it runs
  1    failed, or it does not run
  2    wrong usage
  5    it is in use by something else
  6    no such virtual machine";

/// Let a machine go on that was paused
///
/// One that its engine has paused, for no space was left for what it wrote, tries that again.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Unpause {
    #[command(flatten)]
    which: Which,
}

impl Unpause {
    /// Lets it go on.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let (found, mut client) = self.which.connect()?;
        client
            .resume()
            .map_err(|error| error.in_file(found.vm.path()))?;
        context.summary(&format!("{}: goes on", found.vm.name()));
        Ok(Exit::Done)
    }
}
