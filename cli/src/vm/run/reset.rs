//! `hako vm reset`: the button of that name.

use clap::Args;
use hako_block::Result;

use super::Which;
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  hako vm reset web

Exit status:
  0    done
  1    failed, or it does not run
  2    wrong usage
  5    it is in use by something else
  6    no such virtual machine";

/// Reset a machine that runs
///
/// As the button of that name: the guest is not asked, and what it has not written is lost.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Reset {
    #[command(flatten)]
    which: Which,
}

impl Reset {
    /// Resets it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let (found, mut client) = self.which.connect()?;
        client
            .reset()
            .map_err(|error| error.in_file(found.vm.path()))?;
        context.summary(&format!("{}: reset", found.vm.name()));
        Ok(Exit::Done)
    }
}
