//! The command `hako`. Everything that prints, colours, reads the environment and exits is here;
//! the work is in the libraries.

#![forbid(unsafe_code)]

mod backup;
mod cli;
mod completions;
mod context;
mod disk;
mod exit;
mod late;
mod man;
mod output;
mod p2v;
mod progress;
mod signals;
mod size;
mod snapshot;
mod terminal;
mod vm;

use std::process::ExitCode;

use clap::Parser;
use hako_block::{Error, ErrorKind};

use cli::{Cli, Command};
use context::Context;
use exit::Exit;
use vm::run::{launch, runner};

fn main() -> ExitCode {
    hako_block::allow_many_files();
    if let Some(ended) = inner() {
        return ended;
    }
    let cli: Cli = late::parse();
    let context = Context::new(&cli.global);
    let ended = match &cli.command {
        Command::Disk(disk) => disk.run(&context),
        Command::Vm(vm) => vm.run(&context),
        Command::Snapshot(snapshot) => snapshot.run(&context),
        Command::P2v(p2v) => p2v.run(&context),
        Command::Backup(backup) => backup.run(&context),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    match ended {
        Ok(exit) => exit.code().into(),
        Err(error) => failed(&cli.command, &context, &error).into(),
    }
}

/// Runs what hako itself starts a process of its own for.
fn inner() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    match words.next()?.to_str()? {
        runner::WORD => {
            let words = std::env::args_os().skip(1);
            Some(runner::RunMachine::parse_from(words).run().code().into())
        }
        launch::WORD => {
            let error = launch::launch(words);
            output::Messages::new(false, false).error(&error);
            Some(Exit::of(error.kind()).code().into())
        }
        _ => None,
    }
}

/// Says why the command failed and returns the exit code that goes with it.
fn failed(command: &Command, context: &Context, error: &Error) -> u8 {
    if output::is_broken_pipe(error) {
        return exit::BROKEN_PIPE;
    }
    context.messages.error(error);
    if error.kind() == ErrorKind::Cancelled
        && let Some(code) = context.signal_code()
    {
        return code;
    }
    match command {
        // Of two images that could not be compared nobody may think that they differ.
        Command::Disk(disk) if disk.is_compare() => Exit::Usage.code(),
        _ => Exit::of(error.kind()).code(),
    }
}
