//! `hako snapshot create`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::{NoProgress, Result};
use hako_formats::Task;
use hako_vm::{SnapshotRequest, Vm, create_snapshot};

use super::{created_json, tell_created, tell_recovered};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::vm::home::home;

const EXAMPLES: &str = "\
Examples:
  hako snapshot create web before-update
  hako snapshot create web clean --description 'fresh install, nothing configured'

Exit status:
  0    done
  1    failed, encrypted, or a disk is one of ESXi's
  2    wrong usage
  4    the VMX, the list of snapshots or a disk is corrupt
  5    it runs, is suspended or in use
  6    no such virtual machine
  8    no space left";

/// Take a snapshot: keep the present state of disks and hardware
///
/// Takes the same short time whatever the disks' size: each gets an overlay with nothing in it,
/// and is not written to any more. Independent disks are left alone, and told. The firmware's
/// settings (NVRAM) are not kept. A disk of ESXi's (a vmfs type, COWD or SESparse deltas) is
/// refused: import the machine or convert the disk first. At most 255 overlays stand on one
/// another; VMware advises no more than 32.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Create {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// The snapshot's name: no / in it, and more than digits
    name: String,

    /// A note to keep with it
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
}

impl Create {
    /// Takes it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let mut vm = Vm::open(&home()?, &self.machine, &[])?;
        let cancel = context.cancel_on_signals()?;
        let task = Task {
            progress: &NoProgress,
            cancel: &cancel,
        };
        let request = SnapshotRequest {
            name: self.name.clone(),
            description: self.description.clone(),
            created_us: context.time_us(),
        };
        let report = create_snapshot(&mut vm, &request, task)?;
        tell_recovered(context, report.recovered.as_ref());
        tell_created(context, &report);
        if context.json {
            let mut out = Out::new();
            out.json(&created_json(&self.name, &report))?;
            out.finish()?;
        }
        context.summary(&format!(
            "{}: snapshot {} ({}) taken",
            vm.name(),
            self.name,
            report.uid
        ));
        Ok(Exit::Done)
    }
}
