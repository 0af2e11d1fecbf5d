//! The guest's own repair: what hako does not write (XFS, btrfs, an array of mirrors, a journal that
//! was not replayed) the guest's own kernel writes, in QEMU, over the disks.
//!
//! What it writes stays in memory ([`Overlay`]) until hako's readers have found all of the plan in it;
//! then it goes the way of every other change. The guest has no network.

mod machine;
mod script;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hako_block::{BlockImage, Cancel, Error, ErrorKind, Result};
use hako_edit::{Overlay, Writes};
use hako_guest::Keys;
use hako_guest::root::Root;
use hako_vm::run::{GuestScript, Launcher, Qemu, RunHome, ScriptSite, Verdict};

use super::apply::{Job, Prepared};
use super::verify::all_there;
use super::{Change, volumes_of};
use machine::Machine;
use script::{RELABELS, Script};

/// How long a guest may take. Without KVM one takes minutes.
const LIMIT: Duration = Duration::from_secs(3600);

/// What a guest's own repair needs of the host.
pub struct Repair<'a> {
    /// Where the state of machines that run is.
    pub home: &'a RunHome,
    /// A path that is about these disks alone: two repairs of them do not run at a time.
    pub of: &'a Path,
    /// Starts programs that end with this process.
    pub launcher: &'a Launcher,
    /// Asks to give up.
    pub cancel: &'a Cancel,
}

impl Job<'_> {
    /// Has the guest make the changes, over the disks, which stay as they are; hako's readers look at
    /// what came of it.
    ///
    /// Errors: [`ErrorKind::NotFound`] without QEMU or without a boot entry;
    /// [`ErrorKind::Unsupported`] for a guest that cannot be started so; [`ErrorKind::NoSpace`] in
    /// one of its file systems; [`ErrorKind::Io`] if it fails; corrupt if not all is there then.
    pub fn by_the_guest(&self, repair: &Repair<'_>) -> Result<Prepared> {
        let changes = self.changes()?;
        let script = Script::of(&self.guest, &changes)?;
        let machine = Machine::of(&self.guest, self.disks.len(), &script)?;
        let over: Vec<Arc<Overlay>> = self
            .disks
            .iter()
            .map(|disk| Arc::new(Overlay::new(Arc::clone(disk))))
            .collect();
        let disks: Vec<Arc<dyn BlockImage>> =
            over.iter().map(|disk| Arc::clone(disk) as _).collect();
        let verdict = repair.run(&machine, &script, &disks, self.keys)?;
        refuse_failed(&verdict)?;
        is_all_there(&disks, self.keys, &changes)?;
        let mut writes = Writes::new(self.disks);
        for disk in &over {
            writes.add(disk.staged(), self.disks)?;
        }
        let relabels = verdict.output.contains(RELABELS);
        let remark = "files could not be labelled for SELinux: the guest labels all of its files \
                      when it starts, once (/.autorelabel)";
        let remarks = relabels.then(|| remark.to_owned()).into_iter().collect();
        Ok(Prepared { writes, remarks })
    }
}

impl Repair<'_> {
    fn run(
        &self,
        machine: &Machine,
        script: &Script,
        disks: &[Arc<dyn BlockImage>],
        keys: &Keys,
    ) -> Result<Verdict> {
        let files: Vec<(&str, &[u8])> = script
            .files
            .iter()
            .map(|(name, bytes)| (name.as_str(), *bytes))
            .collect();
        let nodes = machine.nodes.iter().copied();
        let request = GuestScript {
            vmx: &machine.vmx,
            disks: nodes.zip(disks.iter().cloned()).collect::<BTreeMap<_, _>>(),
            discard_writes: false,
            kernel: &machine.kernel,
            initrd: &machine.initrd,
            cmdline: &machine.cmdline,
            script: &script.text,
            files: &files,
            passphrase: keys.passphrase(),
            limit: LIMIT,
        };
        let folder = self.home.folder(self.of);
        let _claimed = folder.claim(self.of)?;
        let site = ScriptSite {
            folder: &folder,
            launcher: self.launcher,
            cancel: self.cancel,
        };
        let verdict = Qemu::default().run_script(&request, &site);
        // What cannot be removed the next run of a machine sweeps away.
        let _ = std::fs::remove_dir_all(folder.path());
        verdict
    }
}

/// Refuses a verdict that is not good, with the end of what the script said.
fn refuse_failed(verdict: &Verdict) -> Result<()> {
    const TOLD_LINES: usize = 5;
    if verdict.status == 0 && verdict.is_clean {
        return Ok(());
    }
    let lines: Vec<&str> = verdict.output.lines().map(str::trim).collect();
    let end = lines.len().saturating_sub(TOLD_LINES);
    let said = lines.get(end..).unwrap_or_default().join(" | ");
    let said: String = said.chars().filter(|letter| !letter.is_control()).collect();
    let kind = match said.contains("No space left on device") {
        true => ErrorKind::NoSpace,
        false => ErrorKind::Io,
    };
    let what = match verdict.status {
        0 => "the guest could not write its root out".to_owned(),
        status => format!("the guest's own repair failed with status {status}"),
    };
    let error = Error::new(kind, format!("{what}, and nothing was written: {said}"));
    Err(error)
}

/// Looks at the disks anew, and for every change on them.
fn is_all_there(disks: &[Arc<dyn BlockImage>], keys: &Keys, changes: &[Change]) -> Result<()> {
    let volumes = volumes_of(disks, keys)?;
    let found = hako_vm::Guest::of(&volumes, None);
    let root: &Root = found.root.as_ref().ok_or_else(|| {
        let what = "its root is not found any more, and nothing was written to the disk";
        Error::corrupt("the guest's own repair", what)
    })?;
    all_there(root, &volumes, &[], changes)
}
