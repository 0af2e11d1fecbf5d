//! The command line: the root and the global options. Verbs define their own.

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::backup::Backup;
use crate::completions::Completions;
use crate::disk::Disk;
use crate::late::Late;
use crate::man::ManPages;
use crate::p2v::P2v;
use crate::progress::ProgressMode;
use crate::snapshot::Snapshot;
use crate::vm::Vm;

/// Exit status of every command, for --help and the man pages.
pub const EXIT_STATUS: &str = "\
Exit status:
  0    done
  1    failed
  2    wrong usage
  4    corruption or wrong content was found
  5    locked or in use
  6    no such virtual machine
  7    a key does not open what is encrypted
  8    no space left
  124  time was up
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM
  141    the reader of standard output went away";

/// Work with the files that virtual machines are made of: disk images, VMX, OVF
///
/// Results go to standard output, everything else to standard error. Sizes such as 512, 512M,
/// 20G or 1.5T are powers of 1024.
#[derive(Debug, Parser)]
#[command(
    name = "hako",
    version,
    disable_help_subcommand = true,
    after_long_help = EXIT_STATUS
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command, before or after the verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print results as JSON
    ///
    /// One object, or one array for a stream of extents. Errors become an object on standard
    /// error: {"error":{"kind","message","file","byte","hint"}}, warnings {"warning"}.
    #[arg(long, global = true)]
    pub json: bool,

    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    pub verbose: bool,

    /// How to show progress
    ///
    /// The objects of json are {"phase","bytes","total","bytes_per_second","seconds_left"}.
    #[arg(long, global = true, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressMode,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(subcommand)]
    Disk(Late<Disk>),
    #[command(subcommand)]
    Vm(Late<Vm>),
    #[command(subcommand)]
    Snapshot(Late<Snapshot>),
    #[command(subcommand)]
    P2v(Late<P2v>),
    #[command(subcommand)]
    Backup(Late<Backup>),
    Completions(Late<Completions>),
    Man(Late<ManPages>),
}
