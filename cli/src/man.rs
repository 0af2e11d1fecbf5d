//! `hako man`: manual pages out of the clap definitions. What follows the options in `--help`
//! ("Examples:", "Exit status:") becomes sections of the page.

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory, ValueHint};
use clap_mangen::Man;
use hako_block::{Error, Result};

use crate::cli::Cli;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  hako man /usr/local/share/man/man1
  man hako-disk-convert";

/// Write the manual pages
///
/// One page for hako and one for each command, named hako-disk-convert.1 and so on. Pages of
/// those names are replaced.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ManPages {
    /// The folder to write them to
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
}

impl ManPages {
    /// Writes them.
    pub fn run(&self) -> Result<Exit> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| Error::io("write", error).in_file(path)
        };
        std::fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        let mut root = Cli::command();
        root.build();
        for (name, page) in pages(&root) {
            let path = self.folder.join(name);
            std::fs::write(&path, page).map_err(failed(&path))?;
        }
        Ok(Exit::Done)
    }
}

/// Returns the pages of a command and those below it, by file name.
fn pages(command: &Command) -> Vec<(String, Vec<u8>)> {
    let man = Man::new(command.clone());
    let mut all = vec![(man.get_filename(), page(&man, command))];
    for below in command.get_subcommands() {
        all.extend(pages(below));
    }
    all
}

fn page(man: &Man, command: &Command) -> Vec<u8> {
    let mut page = Vec::new();
    // Writing to memory cannot fail.
    let _ = man.render_title(&mut page);
    let _ = man.render_name_section(&mut page);
    let _ = man.render_synopsis_section(&mut page);
    let _ = man.render_description_section(&mut page);
    let _ = man.render_options_section(&mut page);
    if command.has_subcommands() {
        let _ = man.render_subcommands_section(&mut page);
    }
    if let Some(text) = command.get_after_long_help() {
        page.extend_from_slice(sections(&text.to_string()).as_bytes());
    }
    page
}

/// Turns "Heading:" and the indented lines below it into a section.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    for line in text.lines() {
        match line.strip_prefix("  ") {
            Some(line) => roff.push_str(&format!("{}\n.br\n", escaped(line))),
            None if line.is_empty() => (),
            None => {
                let heading = line.trim_end_matches(':').to_uppercase();
                roff.push_str(&format!(".SH {}\n", escaped(&heading)));
            }
        }
    }
    roff
}

fn escaped(line: &str) -> String {
    let line = line
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq");
    if line.starts_with('.') {
        format!("\\&{line}")
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_text_becomes_sections() {
        assert_eq!(
            sections("Examples:\n  hako a-b\n  .x\n\nExit status:\n  0  done"),
            ".SH EXAMPLES\nhako a\\-b\n.br\n\\&.x\n.br\n.SH EXIT STATUS\n0  done\n.br\n"
        );
    }

    #[test]
    fn every_command_and_option_has_a_help_text() {
        fn look(command: &Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(look);
        }
        let mut root = Cli::command();
        root.build();
        look(&root);
        root.debug_assert();
    }

    #[test]
    fn every_verb_has_examples_and_an_exit_status() {
        let mut root = Cli::command();
        root.build();
        let disk = root.find_subcommand("disk").unwrap();
        for verb in disk.get_subcommands() {
            let text = verb.get_after_long_help().unwrap().to_string();
            assert!(
                text.contains("Examples:") && text.contains("Exit status:"),
                "{}",
                verb.get_name()
            );
        }
    }
}
