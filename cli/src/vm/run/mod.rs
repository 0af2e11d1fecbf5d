//! The verbs of machines that run, one file each, and what they share.

pub mod console;
pub mod launch;
pub mod pause;
pub mod reset;
pub mod runner;
pub mod start;
pub mod stats;
pub mod stop;
mod systemd;
mod terminal;
pub mod unpause;
pub mod wait;
pub mod watch;

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use hako_block::{Error, ErrorKind, Result};
use hako_vm::run::{Client, RunFolder};
use hako_vm::{State, Vm};

use super::home::{home, run_home};

/// The machine that a verb is about.
#[derive(Debug, Args)]
pub struct Which {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,
}

/// A machine, with the folder of its run's state.
pub struct Found {
    pub vm: Vm,
    pub folder: RunFolder,
}

impl Which {
    /// Finds it.
    pub fn find(&self) -> Result<Found> {
        find(&self.machine)
    }

    /// Finds it, and connects to its runner. Errors: what it does instead of running here.
    pub fn connect(&self) -> Result<(Found, Client)> {
        let found = self.find()?;
        let client = found.connect()?;
        Ok((found, client))
    }
}

/// Finds a machine.
pub fn find(machine: &Path) -> Result<Found> {
    let vm = Vm::open(&home()?, machine, &[])?;
    let folder = run_home()?.folder(vm.path());
    Ok(Found { vm, folder })
}

impl Found {
    /// Connects to its runner. Errors: what it does instead of running here.
    pub fn connect(&self) -> Result<Client> {
        match self.folder.connect()? {
            Some(client) => Ok(client),
            None => Err(self.absence()),
        }
    }

    /// Returns the file that has what its runner and engine have said.
    pub fn log(&self) -> PathBuf {
        self.folder.file("runner.log")
    }

    /// Returns why there is no runner to talk to.
    pub fn absence(&self) -> Error {
        let error = match self.vm.state() {
            State::Stopped => Error::new(ErrorKind::NotFound, "does not run")
                .hint(format!("start it: hako vm start {}", self.vm.name())),
            State::Running { by } => {
                let what = format!("is in use, but no runner of it is found here: {by}");
                Error::new(ErrorKind::Locked, what)
                    .hint("ask as the user who started it, or look what has it open")
            }
            State::Suspended { file } => {
                Error::new(ErrorKind::Locked, format!("is suspended ({file})"))
            }
        };
        error.in_file(self.vm.path())
    }
}
