//! `hako vm delete`: a machine with its files.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use hako_block::{Error, ErrorKind, Result};
use hako_vm::{Deletion, Home, Vm};
use serde_json::json;

use super::home::home;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm delete web
  hako vm delete web --yes

Exit status:
  0    done
  1    failed
  2    wrong usage, no --yes, or another machine stands on its disks
  4    the VMX is corrupt
  5    it runs, is suspended or in use
  6    no such virtual machine";

/// Delete a machine with its files
///
/// Without --yes it tells what would go, and does nothing. Its own files go: the .vmx and what goes
/// with it, logs, its disks with their parents and snapshots as far as they are in its folder. What
/// else is in the folder stays, and is told.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Delete {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// Do it
    #[arg(long)]
    yes: bool,
}

impl Delete {
    /// Deletes, or tells what would go.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let home = home()?;
        let vm = match Vm::open(&home, &self.machine, &[]) {
            Ok(vm) => vm,
            Err(error) if error.kind() == ErrorKind::VmNotFound && self.yes => {
                return self.complete(context, &home, error);
            }
            Err(error) => return Err(error),
        };
        let deletion = Deletion::plan(&home, vm)?;
        let files: Vec<String> = deletion.files().iter().map(|file| text(file)).collect();
        let kept: Vec<String> = deletion.kept().iter().map(|file| text(file)).collect();
        let name = deletion.name();
        if !self.yes {
            return Err(unconfirmed(context, &name, &files, &kept)?);
        }
        deletion.run(&home)?;
        told(context, &name, &files, &kept)
    }

    /// Completes what a killed run has begun.
    fn complete(&self, context: &Context, home: &Home, error: Error) -> Result<Exit> {
        let Ok(vmx) = hako_vm::delete_rest(home, &self.machine) else {
            return Err(error);
        };
        let name = self.machine.to_string_lossy();
        told(context, &name, &[text(&vmx)], &[])
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Tells what would go, and returns the error that it did not.
fn unconfirmed(context: &Context, name: &str, files: &[String], kept: &[String]) -> Result<Error> {
    let mut out = Out::new();
    if context.json {
        out.json(&json!({"name": name, "would_delete": files, "kept": kept}))?;
    } else {
        for file in files {
            out.line(&format!("would delete {file}"))?;
        }
        for file in kept {
            out.line(&format!("would keep   {file}"))?;
        }
    }
    out.finish()?;
    Ok(Error::invalid(format!("{name}: not deleted")).hint("if that is right: --yes"))
}

fn told(context: &Context, name: &str, files: &[String], kept: &[String]) -> Result<Exit> {
    if context.json {
        let mut out = Out::new();
        out.json(&json!({"name": name, "deleted": files, "kept": kept}))?;
        out.finish()?;
    }
    for file in kept {
        context
            .messages
            .warn(&format!("{file}: not the machine's, stays"));
    }
    context.summary(&format!("{name}: deleted"));
    Ok(Exit::Done)
}
