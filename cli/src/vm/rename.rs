//! `hako vm rename`: another name, with every file and reference.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::Result;
use hako_vm::Vm;
use serde_json::json;

use super::home::home;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm rename web mail
  hako vm rename web 'Web server (old)' --only-name

Exit status:
  0    done
  1    failed, or the name is taken
  2    wrong usage, or another machine stands on its disks
  4    the VMX or an image is corrupt
  5    it runs, is suspended or in use
  6    no such virtual machine";

/// Rename a machine: display name, folder, files, and every reference to them
///
/// What begins with the name of the .vmx gets the new one: the .vmx, .nvram, .vmxf, .vmsd, disks
/// with their extent files and overlays, states of snapshots. If the command is ended on the way,
/// the machine is found by either name: run it again.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Rename {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// Its new name
    name: String,

    /// Change the display name alone
    #[arg(long)]
    only_name: bool,
}

impl Rename {
    /// Renames.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let home = home()?;
        if self.only_name {
            let mut vm = Vm::open(&home, &self.machine, &[])?;
            hako_vm::rename_for_people(&home, &mut vm, &self.name)?;
            return self.told(context, vm.path().to_path_buf(), &[], &[]);
        }
        let report = hako_vm::rename(&home, &self.machine, &self.name)?;
        self.told(context, report.vmx, &report.files, &report.warnings)
    }

    fn told(
        &self,
        context: &Context,
        vmx: PathBuf,
        files: &[(String, String)],
        warnings: &[String],
    ) -> Result<Exit> {
        context.tell(&[], warnings);
        if context.json {
            let files = files
                .iter()
                .map(|(from, to)| json!({"from": from, "to": to}));
            let mut out = Out::new();
            out.json(&json!({
                "name": self.name,
                "vmx": vmx.to_string_lossy(),
                "files": files.collect::<Vec<_>>(),
                "warnings": warnings,
            }))?;
            out.finish()?;
        }
        for (from, to) in files {
            context.summary(&format!("{from} -> {to}"));
        }
        context.summary(&format!("{}: is {} now", vmx.display(), self.name));
        Ok(Exit::Done)
    }
}
