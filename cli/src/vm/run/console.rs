//! `hako vm console`: the guest's first serial port.

use clap::Args;
use hako_block::{Error, Result};

use super::Which;
use super::terminal::{ESCAPE_NAME, Parting, converse, has_keyboard};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm console web
  hako vm console --replay web | tee boot.log
  printf 'root\\n' | hako vm console web
  hako vm console --log web

Exit status:
  0    left, or the machine went off
  1    failed, it does not run, or it has no serial port
  2    wrong usage
  5    it is in use by something else
  6    no such virtual machine
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Connect to the console of a machine that runs: its first serial port
///
/// On a terminal each key goes to the guest, and Ctrl-] leaves. Otherwise what comes on standard
/// input is typed, and the end of that only ends the typing: it ends when the machine is off.
/// Several may be connected at once; all see the same, and all may type. The guest does not wait
/// for anybody: one who does not read for 8 MiB is hung up on.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Console {
    #[command(flatten)]
    which: Which,

    /// Show first what the guest has written since it was started
    ///
    /// As far as it is kept: at least 1 MiB.
    #[arg(long)]
    replay: bool,

    /// Only show what the guest has written, in this run or, if it is off, in its last one
    #[arg(long, conflicts_with = "replay")]
    log: bool,
}

impl Console {
    /// Connects, or shows the log.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        if self.log {
            let found = self.which.find()?;
            let mut out = Out::new();
            out.bytes(&found.folder.console_log())?;
            out.finish()?;
            return Ok(Exit::Done);
        }
        let (found, client) = self.which.connect()?;
        let name = found.vm.name();
        let signals = context.signals()?;
        let console = client.console(self.replay);
        let (first, guest) = console.map_err(|error| error.in_file(found.vm.path()))?;
        if has_keyboard() {
            context.say(&format!("{name}: connected; {ESCAPE_NAME} leaves"));
        }
        // Whatever ends us, the terminal is put right before.
        let parting = converse(guest, &first, &signals, || Err(Error::cancelled()))?;
        if has_keyboard() {
            // The guest's last line may be incomplete.
            context.say("");
            context.say(match parting {
                Parting::Off => "the machine is off",
                Parting::Left => "left",
            });
        }
        Ok(Exit::Done)
    }
}
