//! Verbs that are described when they are called. To describe all of them takes longer than most of them
//! run, and one of them is called.

use std::cell::Cell;
use std::ops::Deref;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Parser, Subcommand};

thread_local! {
    static IS_LATE: Cell<bool> = const { Cell::new(false) };
}

/// Reads the command line; ends the process for help, and where it is wrong.
pub fn parse<T: Parser>() -> T {
    IS_LATE.set(true);
    let parsed = T::try_parse();
    IS_LATE.set(false);
    // Help and what is said of errors are of the whole: the global options come last in it.
    parsed.unwrap_or_else(|_| T::parse())
}

/// A verb, or a group of them.
#[derive(Debug)]
pub struct Late<T>(Box<T>);

impl<T> Deref for Late<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Has `describe` called once the verb is, while a command line is read; else now.
fn described(verb: Command, describe: fn(Command) -> Command) -> Command {
    match IS_LATE.get() {
        true => verb.defer(describe),
        false => describe(verb),
    }
}

impl<T: FromArgMatches> FromArgMatches for Late<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Box::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        Box::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for Late<T> {
    fn augment_args(verb: Command) -> Command {
        described(verb, T::augment_args)
    }

    fn augment_args_for_update(verb: Command) -> Command {
        T::augment_args_for_update(verb)
    }
}

impl<T: Subcommand> Subcommand for Late<T> {
    fn augment_subcommands(group: Command) -> Command {
        described(group, T::augment_subcommands)
    }

    fn augment_subcommands_for_update(group: Command) -> Command {
        T::augment_subcommands_for_update(group)
    }

    fn has_subcommand(name: &str) -> bool {
        T::has_subcommand(name)
    }
}
