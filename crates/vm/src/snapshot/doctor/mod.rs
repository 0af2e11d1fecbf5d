//! Looking at a machine's snapshots: what is wrong, what follows from it, what to do; and mending
//! what is safe to mend. A look changes nothing and takes no locks.

mod files;
mod finding;
mod images;
mod list;
mod lock;
mod mend;
mod parents;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, Result};
use hako_formats::Task;
use hako_formats::machine::Node;
use hako_formats::vmsd::{Snapshot, Vmsd};

pub use finding::{Finding, Trouble};

use super::graph::{Graph, Holder};
use super::journal::{Recovered, Verb};
use crate::{Held, Home, Vm};
use finding::Remedy;
use lock::{Holds, locks_in};

/// What was mended, and what is left.
#[derive(Debug, Default)]
pub struct Treatment {
    /// What was wrong and is no more.
    pub repaired: Vec<Finding>,
    /// What became of what a run had begun.
    pub recovered: Option<Recovered>,
    /// What is wrong still.
    pub left: Vec<Finding>,
    /// Copies of texts as they were before.
    pub saved: Vec<PathBuf>,
    /// Why something could not be mended.
    pub failures: Vec<String>,
}

/// A machine as it is looked at.
struct Look<'a> {
    vm: &'a Vm,
    vmsd: Option<Vmsd>,
    snapshots: Vec<Snapshot>,
    graph: Graph,
    /// What was cut off.
    pending: Option<Verb>,
}

/// Looks what is wrong with a machine's snapshots; the worst first. Nothing is changed. Errors:
/// [`ErrorKind::Locked`] if it runs.
pub fn examine_snapshots(home: &Home, vm: &Vm) -> Result<Vec<Finding>> {
    let _held = Held::reading(vm.folder()).map_err(|error| error.in_file(vm.path()))?;
    refuse_running(vm)?;
    findings(home, vm)
}

/// Mends what is safe to mend, and looks what is left. Errors: [`ErrorKind::Locked`] if the
/// machine runs, is suspended or in use.
pub fn repair_snapshots(home: &Home, vm: &mut Vm, task: Task<'_>) -> Result<Treatment> {
    /// One thing may hide another one.
    const MAX_ROUNDS: usize = 8;
    let mut treatment = Treatment::default();
    treatment.remove_locks(vm)?;
    let _held = vm.hold_whatever_is_pending()?;
    vm.reload()?;
    for _ in 0..MAX_ROUNDS {
        let found = findings(home, vm)?;
        let n_repaired = treatment.repaired.len();
        // What is cut off is settled before anything else is looked at.
        let settles = |finding: &&Finding| matches!(finding.remedy, Some(Remedy::Recover));
        let first: Vec<&Finding> = found.iter().filter(settles).collect();
        let round = match first.is_empty() {
            true => found.iter().collect(),
            false => first,
        };
        for finding in round {
            treatment.mend(vm, finding, task);
        }
        if treatment.repaired.len() == n_repaired {
            break;
        }
        vm.reload()?;
    }
    treatment.left = findings(home, vm)?;
    Ok(treatment)
}

impl Treatment {
    /// Removes stale locks: they make the machine look as if it ran.
    fn remove_locks(&mut self, vm: &mut Vm) -> Result<()> {
        let _held = Held::alone(vm.folder()).map_err(|error| error.in_file(vm.path()))?;
        for finding in files::look_at_locks(vm)? {
            if let Some(Remedy::RemoveFiles(files)) = &finding.remedy {
                mend::mend_files(files)?;
                self.repaired.push(finding);
            }
        }
        Ok(())
    }

    fn mend(&mut self, vm: &mut Vm, finding: &Finding, task: Task<'_>) {
        let Some(remedy) = &finding.remedy else {
            return;
        };
        match mend::mend(vm, remedy, task) {
            Ok(mended) => {
                self.saved.extend(mended.saved);
                self.recovered = mended.recovered.or(self.recovered.take());
                self.repaired.push(finding.clone());
            }
            Err(error) => {
                let failure = format!("{}: not repaired: {error}", finding.file);
                if !self.failures.contains(&failure) {
                    self.failures.push(failure);
                }
            }
        }
    }
}

/// Refuses a machine that a process of this host runs.
fn refuse_running(vm: &Vm) -> Result<()> {
    for lock in locks_in(vm.folder())? {
        if let Holds::Yes { pid } = lock.holds {
            let what = format!("a VMware product runs it (process {pid})");
            return Err(Error::new(ErrorKind::Locked, what)
                .in_file(lock.folder)
                .hint("stop the machine first"));
        }
    }
    Ok(())
}

pub(crate) fn findings(home: &Home, vm: &Vm) -> Result<Vec<Finding>> {
    let (vmsd, unreadable) = list::read(vm);
    let snapshots = vmsd.as_ref().map(Vmsd::snapshots).unwrap_or_default();
    let (pending, cut_off) = cut_off(vm);
    let look = Look {
        graph: Graph::of(home, vm, &snapshots)?,
        vm,
        vmsd,
        snapshots,
        pending,
    };
    let mut findings: Vec<Finding> = cut_off.into_iter().chain(unreadable).collect();
    findings.extend(files::look_at_locks(vm)?);
    findings.extend(images::look(&look)?);
    findings.extend(list::look(&look)?);
    findings.extend(files::look(&look)?);
    let key = |finding: &Finding| (finding.trouble, finding.file.clone());
    findings.sort_by_key(key);
    // Who names it and who looks around in the folder meet the same damage.
    findings.dedup_by(|a, b| a.trouble == Trouble::Damaged && key(a) == key(b));
    Ok(findings)
}

/// Returns the verb that was cut off.
fn cut_off(vm: &Vm) -> (Option<Verb>, Option<Finding>) {
    let path = super::journal::path_of(vm);
    let name = path.file_name().unwrap_or_default();
    let finding = |what: String, advice: &str, remedy| Finding {
        trouble: Trouble::CutOff,
        file: name.to_string_lossy().into_owned(),
        what,
        advice: advice.to_owned(),
        remedy,
    };
    match vm.pending() {
        Ok(None) => (None, None),
        Ok(Some(verb)) => {
            let what = format!("a snapshot {} was cut off", verb.name());
            let advice = "`--repair` completes it, or makes that it has not happened";
            (
                Some(verb),
                Some(finding(what, advice, Some(Remedy::Recover))),
            )
        }
        Err(error) => {
            let what = format!("a snapshot verb was cut off, which one cannot be told: {error}");
            let advice = "look what the machine needs, then remove this file";
            (None, Some(finding(what, advice, None)))
        }
    }
}

impl Look<'_> {
    /// Returns the disks of the machine that take part in snapshots, as far as they can be read.
    fn present(&self) -> Vec<(Node, usize)> {
        let references = self.graph.references.iter();
        let present = references.filter_map(|reference| match &reference.by {
            Holder::Present {
                node,
                is_independent: false,
            } => Some((*node, *reference.image.as_ref().ok()?)),
            _ => None,
        });
        present.collect()
    }

    /// Returns a file as seen from the machine's folder.
    fn name_of(&self, path: &Path) -> String {
        super::tidy::name_in(self.vm, path)
    }
}
