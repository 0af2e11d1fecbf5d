//! Running a machine: what an engine is, the process that drives one, and how to talk to it.
//!
//! Each machine that runs has a process of its own, the [`Runner`]: it keeps the machine's lock
//! until the guest is off, drives an [`Engine`]'s [`Machine`], and does what it is asked over a
//! socket ([`protocol`]). How that process is started, which signals it gets and what it prints is
//! the program's. Whatever kills it, its locks go with it; what it left is cleared by the next.

mod addresses;
mod auto;
mod cards;
mod client;
mod console;
mod console_log;
mod control;
mod disks;
mod engine;
mod fitness;
mod folder;
mod host;
mod kernel;
mod native;
mod own_path;
mod process;
pub mod protocol;
mod qemu;
mod runner;
mod scratch;
mod status;
#[cfg(test)]
mod tests;

use auto::Auto;
pub use client::{Client, Watch};
pub use engine::{
    Boot, DiskStats, End, Engine, EngineChoice, Event, Events, Facts, IoStats, Launcher, Machine,
    NicStats, Start, StartOptions,
};
pub use folder::{RunFolder, RunHome};
use native::Native;
pub use qemu::{Examiner, GuestScript, Heard, QUESTIONS, Qemu, ScriptSite, Trial, Verdict};
pub use runner::{RunRequest, RunSite, Runner, Running, Stopper};
pub use status::{RunState, Stats, Status};

/// Returns the engine that was chosen; the best one that there is here if that is left open.
pub fn engine(choice: EngineChoice) -> Box<dyn Engine> {
    match choice {
        EngineChoice::Auto => Box::new(Auto::default()),
        EngineChoice::Kvm => Box::new(Native),
        EngineChoice::Qemu => Box::new(Qemu::default()),
    }
}
