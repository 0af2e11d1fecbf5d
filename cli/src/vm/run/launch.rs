//! How a program is started that ends with the runner: `hako launch-for PID PROGRAM …`, which no user
//! calls. A child has to ask for that itself, before it becomes the program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use hako_block::{Error, ErrorKind, Result};
use hako_vm::run::Launcher;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The word that calls this.
pub const WORD: &str = "launch-for";

/// Returns what starts programs that end with this process.
pub fn launcher() -> Result<Launcher> {
    let own = std::env::current_exe().map_err(|error| Error::io("find the own program", error))?;
    let pid = std::process::id().to_string();
    Ok(Launcher::new(vec![own.into(), WORD.into(), pid.into()]))
}

/// Becomes the program that the words after [`WORD`] name. Returns only if that fails.
pub fn launch(mut words: impl Iterator<Item = OsString>) -> Error {
    let pid = words.next().and_then(|pid| pid.to_str()?.parse().ok());
    let (Some(pid), Some(program)) = (pid.and_then(Pid::from_raw), words.next()) else {
        return Error::invalid("no process or no program");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Error::io("ask to end with the runner", std::io::Error::from(error));
    }
    // It may have ended before this was asked.
    if getppid() != Some(pid) {
        return Error::new(ErrorKind::Cancelled, "the runner is gone");
    }
    let error = Command::new(&program).args(words).exec();
    Error::io("start", error).in_file(program)
}
