//! The terminal that a user sits at.

use std::fs::File;

use hako_block::{Error, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// A terminal that is set up in another way; it is as it was before when this is dropped.
pub struct ChangedTerminal {
    terminal: File,
    before: Termios,
}

impl ChangedTerminal {
    /// Changes how a terminal is set up.
    pub fn new(terminal: &File, change: impl FnOnce(&mut Termios)) -> Result<Self> {
        let failed = |error| Error::io("set up the terminal", std::io::Error::from(error));
        let before = tcgetattr(terminal).map_err(failed)?;
        let terminal = terminal
            .try_clone()
            .map_err(|error| Error::io("set up the terminal", error))?;
        let mut changed = before.clone();
        change(&mut changed);
        tcsetattr(&terminal, OptionalActions::Drain, &changed).map_err(failed)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for ChangedTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}
