//! `hako vm clone`: another machine with the same content.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::Result;
use hako_formats::format_named;
use hako_vm::{CloneReport, CloneRequest, Vm};
use serde_json::{Value, json};

use super::home::home;
use crate::context::Context;
use crate::disk::options::{Threads, format_names, rate, subformat_names};
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm clone web web2
  hako vm clone web web-old --snapshot before-update
  hako vm clone web test-7 --linked
  hako vm clone web test-8 --linked --snapshot before-update
  hako vm clone web web2 --folder /srv/vms/web2 --format qcow2 --verify

Exit status:
  0    done
  1    failed, or there is such a machine already
  2    wrong usage
  4    the VMX or a disk is corrupt, or what was written did not verify
  5    it runs, is suspended or in use
  6    no such virtual machine
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Clone a machine: another one with the same content
///
/// The clone gets a folder of its own, which appears under its name only when all of it is whole,
/// and is listed in the inventory. Of a full clone each disk is one image in the format and variant
/// that the lowest layer has. The clone has new UUIDs and a copy of the firmware's settings; addresses of
/// network cards that a product made are made anew, chosen ones are replaced, which is told.
/// Snapshots are not taken along; CD images outside the machine's folder are used where they are.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Clone {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// The new machine's name, which its files get, too
    #[arg(value_name = "NEW")]
    name: String,

    /// Clone this snapshot, by name, path or number; without --linked even while the machine runs
    #[arg(long, value_name = "SNAP")]
    snapshot: Option<String>,

    /// Make the disks overlays on what a snapshot holds, instead of copies
    ///
    /// Without --snapshot it is the one that the machine comes from, if nothing was written since;
    /// else one is taken, and told. Takes no time and no space. The clone needs the machine from
    /// then on, which the inventory records: the machine is neither renamed nor deleted while such
    /// a clone is there, nor what the snapshot holds.
    #[arg(long, conflicts_with_all = ["format", "verify", "rate", "threads"])]
    linked: bool,

    /// The new machine's folder, instead of vms/NEW in the home of machines
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,

    /// Format of the new disks, instead of those that they have
    #[arg(long, value_name = "FORMAT", value_parser = format_names(|format| format.subformats().iter().any(|form| form.create)))]
    format: Option<String>,

    /// Variant of that format; `hako disk formats` lists them
    #[arg(long, value_name = "NAME", value_parser = subformat_names(), ignore_case = true, requires = "format")]
    subformat: Option<String>,

    /// Read each new disk back and compare before anything gets its name
    #[arg(long)]
    verify: bool,

    /// Write at most this many bytes of data per second
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,

    #[command(flatten)]
    threads: Threads,

    /// Let the machine and its images name files below DIR, and the clone, too (repeatable)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    allow_path: Vec<PathBuf>,
}

impl Clone {
    /// Clones.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let home = home()?;
        let vm = Vm::open(&home, &self.machine, &self.allow_path)?;
        let request = self.request(context)?;
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let report = hako_vm::clone_vm(&home, vm, &request, &*progress, &cancel)?;
        drop(progress);
        context.tell(&report.cleared, &report.warnings);
        if context.json {
            let mut out = Out::new();
            out.json(&self.json(&report))?;
            out.finish()?;
        }
        context.summary(&format!("{}: cloned", report.vmx.display()));
        Ok(Exit::Done)
    }

    fn request(&self, context: &Context) -> Result<CloneRequest> {
        Ok(CloneRequest {
            name: self.name.clone(),
            folder: self.folder.clone(),
            snapshot: self.snapshot.clone(),
            linked: self.linked,
            created_us: context.time_us(),
            format: self.format.as_deref().map(format_named).transpose()?,
            subformat: self.subformat.clone(),
            verify: self.verify,
            threads: self.threads.number(),
            rate: self.rate,
        })
    }

    fn json(&self, report: &CloneReport) -> Value {
        let disks = report.disks.iter().map(|disk| {
            json!({
                "node": disk.node.to_string(),
                "file": disk.file,
                "virtual_size": disk.virtual_size,
                "data_bytes": disk.data_bytes,
                "parent": disk.parent.as_ref().map(|path| path.to_string_lossy()),
            })
        });
        json!({
            "name": self.name,
            "vmx": report.vmx.to_string_lossy(),
            "disks": disks.collect::<Vec<_>>(),
            "cleared": report.cleared,
            "warnings": report.warnings,
        })
    }
}
