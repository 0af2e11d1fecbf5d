//! `hako snapshot doctor`: what is wrong with a machine's snapshots.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::Result;
use hako_formats::Task;
use hako_vm::{Finding, Treatment, Vm};
use serde_json::{Value, json};

use super::tell_recovered;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::vm::home::home;

const EXAMPLES: &str = "\
Examples:
  hako snapshot doctor web
  hako snapshot doctor web --repair
  hako snapshot doctor ./web/web.vmx --json

Exit status:
  0    nothing is wrong, or everything was repaired
  1    something is wrong, or the look failed
  2    wrong usage
  4    the VMX is corrupt
  5    the machine runs, is suspended or in use
  6    no such virtual machine
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Look what is wrong with a machine's snapshots, and mend what is safe to mend
///
/// Says of each finding what it is, what follows from it, and what to do. Without --repair nothing
/// is changed. --repair completes or undoes what was cut off, removes stale locks, what killed runs
/// left behind and overlays with nothing in them, sets the numbers in the list of snapshots right
/// (a copy of the list is kept), links overlays to a parent whose content cannot have changed, and
/// puts an empty overlay on a disk that a snapshot holds and the machine writes to. It gives up no
/// data.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Doctor {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// Mend what is safe to mend
    #[arg(long)]
    repair: bool,
}

impl Doctor {
    /// Looks, and mends.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let home = home()?;
        let mut vm = Vm::open(&home, &self.machine, &[])?;
        let treatment = match self.repair {
            true => {
                let cancel = context.cancel_on_signals()?;
                let progress = context.progress();
                let task = Task {
                    progress: &*progress,
                    cancel: &cancel,
                };
                hako_vm::repair_snapshots(&home, &mut vm, task)?
            }
            false => Treatment {
                left: hako_vm::examine_snapshots(&home, &vm)?,
                ..Treatment::default()
            },
        };
        tell_recovered(context, treatment.recovered.as_ref());
        context.tell(&[], &treatment.failures);
        self.told(context, &vm.name(), &treatment)?;
        Ok(match treatment.left.is_empty() {
            true => Exit::Done,
            false => Exit::Failed,
        })
    }

    fn told(&self, context: &Context, name: &str, treatment: &Treatment) -> Result<()> {
        let mut out = Out::new();
        if context.json {
            out.json(&json(name, treatment))?;
            return out.finish();
        }
        for finding in &treatment.repaired {
            out.line(&format!(
                "repaired {}: {}: {}",
                finding.trouble.name(),
                finding.file,
                finding.what
            ))?;
        }
        for copy in &treatment.saved {
            out.line(&format!("kept     {}", copy.display()))?;
        }
        for finding in &treatment.left {
            out.line(&format!("{}: {}", finding.trouble.name(), finding.file))?;
            out.line(&format!("  what: {}", finding.what))?;
            out.line(&format!("  then: {}", finding.trouble.consequence()))?;
            out.line(&format!("  do:   {}", finding.advice))?;
        }
        out.finish()?;
        let n_repairable = treatment.left.iter().filter(|one| one.is_repairable());
        context.summary(&match (treatment.left.len(), n_repairable.count()) {
            (0, _) => format!("{name}: nothing is wrong"),
            (n, 0) => format!("{name}: {n} findings"),
            (n, repairable) => {
                format!("{name}: {n} findings, of which --repair mends {repairable}")
            }
        });
        Ok(())
    }
}

fn json(name: &str, treatment: &Treatment) -> Value {
    let all = |findings: &[Finding]| findings.iter().map(finding_json).collect::<Vec<_>>();
    let saved = treatment.saved.iter().map(|path| path.to_string_lossy());
    json!({
        "name": name,
        "findings": all(&treatment.left),
        "repaired": all(&treatment.repaired),
        "recovered": treatment.recovered.as_ref().map(|recovered| recovered.sentence()),
        "saved": saved.collect::<Vec<_>>(),
        "failures": treatment.failures,
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "kind": finding.trouble.name(),
        "file": finding.file,
        "what": finding.what,
        "consequence": finding.trouble.consequence(),
        "advice": finding.advice,
        "repairable": finding.is_repairable(),
    })
}
