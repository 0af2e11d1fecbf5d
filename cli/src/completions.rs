//! `hako completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use hako_block::Result;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako completions bash > /etc/bash_completion.d/hako
  hako completions zsh > /usr/local/share/zsh/site-functions/_hako
  hako completions fish > ~/.config/fish/completions/hako.fish";

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(&self) -> Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "hako", &mut script);
        let mut out = Out::new();
        out.bytes(&script)?;
        out.finish()?;
        Ok(Exit::Done)
    }
}
