//! `hako vm pause`: the virtual CPUs stand still.

use clap::Args;
use hako_block::Result;

use super::Which;
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  hako vm pause web
  hako vm unpause web

Exit status:
  0    it stands still
  1    failed, or it does not run
  2    wrong usage
  5    it is in use by something else
  6    no such virtual machine";

/// Stop the virtual CPUs of a machine that runs
///
/// Its memory stays where it is and its disks stay locked. The guest does not notice but by its
/// clock. A machine that is paused is not off: nothing else may change it.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Pause {
    #[command(flatten)]
    which: Which,
}

impl Pause {
    /// Pauses it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let (found, mut client) = self.which.connect()?;
        client
            .pause()
            .map_err(|error| error.in_file(found.vm.path()))?;
        context.summary(&format!("{}: paused", found.vm.name()));
        Ok(Exit::Done)
    }
}
