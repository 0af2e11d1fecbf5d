//! The process that drives a machine: `hako run-machine VM …`, which `hako vm start` starts and no
//! user calls. It detaches itself from the terminal, and says on standard output whether the
//! machine runs; standard error is its log.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use hako_block::{Error, Result};
use hako_vm::run::protocol::answer;
use hako_vm::run::{RunRequest, RunSite, Runner, Running, engine};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::launch::launcher;
use super::start::RunFlags;
use crate::exit::Exit;
use crate::output::printable;
use crate::vm::home::{home, run_home};

/// The word that calls this.
pub const WORD: &str = "run-machine";

/// What it is told.
#[derive(Debug, Parser)]
pub struct RunMachine {
    /// The .vmx
    machine: PathBuf,

    #[command(flatten)]
    flags: RunFlags,
}

impl RunMachine {
    /// Drives the machine until it is off; returns the exit code.
    pub fn run(&self) -> Exit {
        // A process that leads a session already has no terminal to lose.
        let _ = rustix::process::setsid();
        let started = self.start();
        let told = tell(&started);
        match started {
            Ok(running) => {
                if let Err(error) = told {
                    say(&format!("nobody waits for the machine any more: {error}"));
                }
                running.run(&say);
                Exit::Done
            }
            Err(error) => {
                say(&error.to_string());
                Exit::of(error.kind())
            }
        }
    }

    fn start(&self) -> Result<Running> {
        let (home, run) = (home()?, run_home()?);
        // So that no file system is kept from being unmounted.
        std::env::set_current_dir("/").map_err(|error| Error::io("leave the folder", error))?;
        let runner = Runner::default();
        stop_on_signals(&runner)?;
        let request = RunRequest {
            site: RunSite {
                home: &home,
                run: &run,
                machine: &self.machine,
                allow: &self.flags.allow_path,
                launcher: &launcher()?,
            },
            options: &self.flags.options(),
        };
        say(&format!("starting {}", self.machine.display()));
        let running = runner.start(&request, engine)?;
        let facts = &running.status().facts;
        say(&format!("runs: {}", facts.how()));
        facts.notes.iter().for_each(|note| say(note));
        Ok(running)
    }
}

/// Has SIGTERM and SIGINT end the runner, once its guest has shut down.
fn stop_on_signals(runner: &Runner) -> Result<()> {
    let failed = |error| Error::io("catch signals", error);
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
    // Caught, and nothing done about it.
    flag::register(SIGHUP, Arc::new(AtomicBool::new(false))).map_err(failed)?;
    let stopper = runner.stopper();
    let wait = move || signals.forever().for_each(|_| stopper.stop());
    let builder = std::thread::Builder::new().name("signals".to_owned());
    builder.spawn(wait).map(drop).map_err(failed)
}

/// Says on standard output whether the machine runs, and lets go of it: what reads it sees its end.
fn tell(started: &Result<Running>) -> Result<()> {
    let failed = |error| Error::io("write", error).in_file("standard output");
    let line = match started {
        Ok(running) => answer(Ok(running.status().to_json())),
        Err(error) => answer(Err(error)),
    };
    let written = std::io::stdout().write_all(line.as_bytes());
    let flushed = written.and_then(|()| std::io::stdout().flush());
    let replaced = rustix::stdio::dup2_stdout(std::io::stderr());
    flushed.map_err(failed)?;
    replaced.map_err(|error| failed(error.into()))
}

/// Adds a line to the log.
fn say(text: &str) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = hako_vm::utc(since.map_or(0, |since| since.as_secs()));
    let [year, month, day, hour, minute, second] = time;
    let text = printable(text);
    let line = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z {text}\n");
    // A log that cannot be written stops nothing.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
