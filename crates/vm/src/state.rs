//! Whether a machine may be changed: only while it is off.

use std::path::PathBuf;

use hako_block::lock::refuse_vmware_lock;
use hako_block::{Access, Error, ErrorKind, Result};
use hako_formats::suspended::state_file;

use crate::{Held, Vm};

/// What a machine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is off.
    Stopped,
    /// Something runs it, or has it open in such a way that it cannot be told apart from running.
    Running {
        /// How that is known.
        by: String,
    },
    /// Its memory is kept in a file; its disks belong to that.
    Suspended {
        /// That file.
        file: String,
    },
}

impl State {
    /// Returns the word for it.
    pub fn name(&self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Running { .. } => "running",
            State::Suspended { .. } => "suspended",
        }
    }
}

impl Vm {
    /// Finds out what the machine is doing. Whoever holds it or has one of its disks open makes it
    /// look running: ask before.
    pub fn state(&self) -> State {
        match Held::reading(self.folder()) {
            Err(error) => State::Running {
                by: error.finding(),
            },
            Ok(_held) => self.state_apart_from_us(),
        }
    }

    /// Holds the machine for a change. Errors: [`ErrorKind::Locked`] if it runs or is suspended,
    /// if another hako uses it, or if a change of its snapshots was cut off.
    pub fn hold(&self) -> Result<Held> {
        let held = self.hold_whatever_is_pending()?;
        self.refuse_pending()?;
        Ok(held)
    }

    /// Holds the machine to fit its disks to other hardware, or to complete that.
    pub fn hold_to_adapt(&self) -> Result<Held> {
        let held = self.hold_whatever_is_pending()?;
        self.refuse_pending_snapshot()?;
        Ok(held)
    }

    /// Returns the file in which that is written down while it is done.
    pub fn adapt_intent(&self) -> PathBuf {
        self.folder().join(format!(".{}.hako-adapt", self.stem()))
    }

    /// Refuses to go on if a change of its snapshots or of what is on its disks was cut off.
    pub(crate) fn refuse_pending(&self) -> Result<()> {
        if self.adapt_intent().symlink_metadata().is_ok() {
            let what = "a p2v adapt was cut off: its disks are half changed";
            return Err(Error::new(ErrorKind::Locked, what)
                .in_file(self.path())
                .hint("complete it first: run hako p2v adapt again"));
        }
        self.refuse_pending_snapshot()
    }

    fn refuse_pending_snapshot(&self) -> Result<()> {
        match self.pending()? {
            None => Ok(()),
            Some(verb) => {
                let what = format!("a snapshot {} was cut off", verb.name());
                Err(Error::new(ErrorKind::Locked, what)
                    .in_file(self.path())
                    .hint("complete it first: hako snapshot doctor VM --repair"))
            }
        }
    }

    /// Holds the machine, though a change of its snapshots may have been cut off.
    pub(crate) fn hold_whatever_is_pending(&self) -> Result<Held> {
        let held = Held::alone(self.folder()).map_err(|error| error.in_file(self.path()))?;
        match self.state_apart_from_us() {
            State::Stopped => Ok(held),
            State::Running { by } => Err(Error::new(ErrorKind::Locked, format!("runs: {by}"))
                .in_file(self.path())
                .hint("stop the machine first")),
            State::Suspended { file } => {
                let what = format!("is suspended ({file}): a change would not fit its memory");
                Err(Error::new(ErrorKind::Locked, what)
                    .in_file(self.path())
                    .hint("resume it and shut it down first"))
            }
        }
    }

    /// What the files say, whoever holds the folder.
    pub(crate) fn state_apart_from_us(&self) -> State {
        if let Some(by) = self.lock_of_others() {
            return State::Running { by };
        }
        match state_file(&self.vmx, self.path()) {
            Some(file) => State::Suspended { file },
            None => State::Stopped,
        }
    }

    /// Returns the first lock that a VMware product or QEMU holds on the machine or its disks.
    fn lock_of_others(&self) -> Option<String> {
        if let Err(error) = refuse_vmware_lock(self.path()) {
            return Some(error.to_string());
        }
        let rules = self.rules(false);
        self.vmx.machine().disks().find_map(|(_, disk)| {
            // What is missing, or may not be opened, nobody runs on; whoever opens it will hear.
            let error = self.open_file(&disk.file, Access::ReadOnly, &rules).err()?;
            (error.kind() == ErrorKind::Locked).then(|| error.to_string())
        })
    }
}
