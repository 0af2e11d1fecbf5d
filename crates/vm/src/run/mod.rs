//! Running a machine: what an engine is, and where the state of a run is kept.
//!
//! Each machine that runs has a process of its own, the runner: it keeps the machine's lock until
//! the guest is off, and drives an [`Engine`]'s [`Machine`].

mod engine;
mod folder;

pub use engine::{
    Boot, DiskStats, End, Engine, EngineChoice, Event, Events, Facts, IoStats, Launcher, Machine,
    NicStats, Start, StartOptions,
};
pub use folder::{RunFolder, RunHome};
