//! `hako vm stop`: the power button, or the plug.

use std::time::{Duration, Instant};

use clap::Args;
use hako_block::{Cancel, Error, ErrorKind, Result};
use hako_vm::State;
use hako_vm::run::{Client, End, Watch};

use super::watch::{parse_seconds, until_off};
use super::{Found, Which};
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  hako vm stop web
  hako vm stop --timeout 300 web
  hako vm stop --timeout 60 --force web
  hako vm stop --force web

Exit status:
  0    it is off
  1    failed, or its engine did
  2    wrong usage
  5    it is in use by something else
  6    no such virtual machine
  124  time was up, and it runs still";

/// How long a guest may take to shut down.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a runner may take for an answer before it is killed.
const FORCE_PATIENCE: Duration = Duration::from_secs(5);

/// How often the power button is pressed: while a guest starts, a press may come before anybody in it
/// listens, and is forgotten.
const PRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How long it may take to switch a guest off.
const QUIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Ask a guest to shut down, and wait until the machine is off
///
/// The guest is asked by the power button, which is pressed every 5 seconds: one that has just been
/// started may not listen yet. One that is paused goes on for that. A machine that is off already is
/// left alone. When this returns, the machine's files may be changed.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Stop {
    #[command(flatten)]
    which: Which,

    /// Switch it off: at once, or after the time of --timeout
    ///
    /// As if the plug was pulled: what the guest has not written is lost. A runner that does not
    /// answer is killed.
    #[arg(long)]
    force: bool,

    /// How long the guest may take to shut down [default: 120, with --force 0]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
}

impl Stop {
    /// Stops it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let found = self.which.find()?;
        let name = found.vm.name();
        let Some(client) = self.connect(&found)? else {
            return match found.vm.state() {
                State::Stopped => {
                    context.summary(&format!("{name}: is off"));
                    Ok(Exit::Done)
                }
                _ => Err(found.absence()),
            };
        };
        let cancel = context.cancel_on_signals()?;
        let ended = match self.end(&found, client, &cancel) {
            Err(error) if self.force && error.kind() == ErrorKind::Io => {
                context.messages.warn(&format!("{name}: {error}: killed"));
                kill(&found)?;
                Some(End::Quit)
            }
            // It went off while it was asked.
            Err(error) if error.kind() == ErrorKind::NotFound => Some(End::Guest),
            ended => ended?,
        };
        match ended {
            Some(End::Failed(why)) => Err(Error::new(ErrorKind::Io, format!("is off: {why}"))
                .in_file(found.vm.path())
                .hint(format!("{} may say more", found.log().display()))),
            Some(End::Guest | End::Quit) => {
                context.summary(&format!("{name}: is off"));
                Ok(Exit::Done)
            }
            None => {
                let error = Error::new(ErrorKind::Io, "time is up, and it runs still");
                let error = error.in_file(found.vm.path());
                context
                    .messages
                    .error(&error.hint("wait longer (--timeout), or switch it off (--force)"));
                Ok(Exit::TimeUp)
            }
        }
    }

    /// Connects to the runner. One that does not answer is not waited for long if it may be killed.
    fn connect(&self, found: &Found) -> Result<Option<Client>> {
        match self.force {
            true => found.folder.connect_within(FORCE_PATIENCE),
            false => found.folder.connect(),
        }
    }

    /// Asks, waits, and switches off if that is wanted; `None` if it runs still.
    fn end(&self, found: &Found, client: Client, cancel: &Cancel) -> Result<Option<End>> {
        let (_, mut watch) = client.watch()?;
        let default = match self.force {
            true => Duration::ZERO,
            false => DEFAULT_TIMEOUT,
        };
        let timeout = self.timeout.unwrap_or(default);
        if !timeout.is_zero() || !self.force {
            let ended = ask(found, &mut watch, Instant::now() + timeout, cancel)?;
            if ended.is_some() || !self.force {
                return Ok(ended);
            }
        }
        found.connect()?.quit()?;
        let deadline = Instant::now() + QUIT_TIMEOUT;
        match until_off(&mut watch, Some(deadline), cancel, |_| ())? {
            Some(end) => Ok(Some(end)),
            None => Err(Error::new(ErrorKind::Io, "does not go off")),
        }
    }
}

/// Presses the power button until the machine is off; `None` if it is not by then.
fn ask(
    found: &Found,
    watch: &mut Watch,
    deadline: Instant,
    cancel: &Cancel,
) -> Result<Option<End>> {
    found.connect()?.power_button()?;
    loop {
        let next = deadline.min(Instant::now() + PRESS_INTERVAL);
        let ended = until_off(watch, Some(next), cancel, |_| ())?;
        if ended.is_some() || next == deadline {
            return Ok(ended);
        }
        // A runner that does not answer may be about to end: that is seen above.
        let _ = found.connect().and_then(|mut client| client.power_button());
    }
}

/// Kills the runner of a machine, and waits until its locks are gone.
fn kill(found: &Found) -> Result<()> {
    let Some(client) = found.folder.connect()? else {
        return Ok(());
    };
    client.kill()?;
    let deadline = Instant::now() + QUIT_TIMEOUT;
    while found.folder.is_in_use() || found.vm.state() != State::Stopped {
        if Instant::now() > deadline {
            return Err(found.absence());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
