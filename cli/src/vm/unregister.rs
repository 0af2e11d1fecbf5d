//! `hako vm unregister`: out of the inventory.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::Result;
use serde_json::json;

use super::home::home;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm unregister web

Exit status:
  0    done
  1    failed
  2    wrong usage
  6    no such virtual machine";

/// Take a machine out of the inventory; its files stay
///
/// One whose .vmx is gone is taken out, too.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Unregister {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,
}

impl Unregister {
    /// Takes it out.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let entry = hako_vm::unregister(&home()?, &self.machine)?;
        let vmx = entry.current();
        if let Some(base) = &entry.base {
            context.messages.warn(&format!(
                "it is a linked clone: it is no longer known that it needs {}",
                base.display()
            ));
        }
        if context.json {
            let mut out = Out::new();
            let base = entry.base.as_ref().map(|path| path.to_string_lossy());
            out.json(&json!({"vmx": vmx.to_string_lossy(), "base": base}))?;
            out.finish()?;
        }
        context.summary(&format!("{}: no longer listed", vmx.display()));
        Ok(Exit::Done)
    }
}
