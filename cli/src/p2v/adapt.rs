//! `hako p2v adapt`: a copy fitted to the hardware of a virtual machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueHint};
use hako_block::gate::folder_of;
use hako_block::{Access, BlockImage, Error, ErrorKind, Result};
use hako_converter::p2v::adapt::{
    self, Change, Job, NicName, Plan, Prepared, Repair, Request, What,
};
use hako_converter::p2v::inventory::model::NicKind;
use hako_converter::p2v::plan::model::Target;
use hako_disk::Subject;
use hako_edit::Intent;
use hako_formats::machine::Mac;
use hako_formats::{OpenOptions, OpenedChain, open_chain};
use hako_guest::os::Os;
use hako_guest::{Keys, Volumes};
use hako_vm::{Guest, Held, Vm};
use serde_json::{Value, json};

use super::plan::{read_inventory, targets};
use crate::context::Context;
use crate::disk::keys::KeyFlags;
use crate::disk::options::GateFlags;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;
use crate::vm::home::{home, run_home};
use crate::vm::run::launch::launcher;

const EXAMPLES: &str = "\
Examples:
  hako p2v adapt web01 --target vmware --dry-run
  hako p2v adapt web01 --target vmware
  hako p2v adapt web01.vmdk --with web01-data.vmdk --target kvm --serial-console
  hako p2v adapt web01 --undo

Exit status:
  0    done, or nothing is to be done
  1    failed, or the guest could not do what hako does not; nothing was changed
  2    wrong usage
  3    done, and something is left to see to
  4    an image or a file system is corrupt
  5    the machine runs, is suspended or in use
  6    no such virtual machine
  7    a key opens nothing
  8    no space left";

/// Fit a copy of a server to the hardware of a virtual machine, offline
///
/// Of Linux; in Windows nothing is changed. In the copy only, without root, and nothing is mounted.
/// Devices that fstab, crypttab, mdadm, LVM and the kernel's command line call by the place they hang on
/// are called by their UUIDs. The initrd of every boot entry gets those of the guest's own drivers that it
/// lacks, and what changes of the texts that it keeps, appended to it (never to a unified kernel image).
/// Network cards keep their names. Where firmware finds no loader in \EFI\BOOT, it gets a copy of the
/// system's own.
///
/// ext2, ext3, ext4 and FAT hako writes itself. What it does not write (XFS, btrfs, LUKS that --key opens,
/// mirrors, a journal that was not replayed) the guest does: its own kernel is started in QEMU, without a
/// network, over the disks. Either way all of it is done or nothing: first in memory, where it is read again and compared,
/// then at once. A run that is cut off is completed by the next one. What was there is kept inside, in
/// /var/lib/hako/adapt.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Adapt {
    /// The machine, or the image of its disk
    #[arg(value_name = "IMAGE|VM", value_hint = ValueHint::FilePath)]
    subject: PathBuf,

    /// Where the machine will run
    #[arg(long, value_name = "WHERE", value_parser = targets(), required_unless_present = "undo")]
    target: Option<Target>,

    /// Its other disks, if images are given (repeatable)
    #[arg(long, value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    with: Vec<PathBuf>,

    /// Show every change, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Make the first serial port a console, too
    #[arg(long)]
    serial_console: bool,

    /// Mask services that are about a server's own hardware: IPMI, SMART, vendors' agents
    #[arg(long)]
    mask_agents: bool,

    /// Keep the name of the network card with this address (repeatable)
    ///
    /// Texts that know the card of that name by another address, the server's, know it by this one then:
    /// .link files, udev's rules, netplan, NetworkManager's, networkd's, ifcfg, ifname=. Of a machine
    /// with one card whose address is its own, a guest that configures one keeps that name by itself.
    #[arg(long, value_name = "NAME=MAC", value_parser = parse_nic)]
    nic: Vec<NicName>,

    /// Keep the names of network cards that the server's inventory tells
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    inventory: Option<PathBuf>,

    /// Put back what was there, but for what the guest has changed since
    #[arg(long, conflicts_with_all = ["target", "serial_console", "mask_agents", "nic", "inventory"])]
    undo: bool,

    #[command(flatten)]
    keys: KeyFlags,

    #[command(flatten)]
    gate: GateFlags,
}

/// Disks that are to be changed.
struct Disks {
    images: Vec<Arc<dyn BlockImage>>,
    intent: Intent,
    /// The addresses of a machine's network cards that stay.
    macs: Vec<Mac>,
    /// Keeps others away from a machine.
    _held: Option<Held>,
}

/// What came of it.
struct Done {
    by: By,
    /// None if it was only shown.
    written_bytes: Option<u64>,
    /// What the user has to see to.
    remarks: Vec<String>,
}

/// Who writes.
enum By {
    Hako,
    /// And why.
    Guest(String),
}

impl Adapt {
    /// Plans, and does it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let disks = self.open()?;
        if disks.intent.is_there() {
            if self.dry_run {
                let what = "an earlier run was cut off: run it again without --dry-run";
                return Err(Error::invalid(what).in_file(&self.subject));
            }
            disks.intent.complete(&disks.images)?;
            context.say("completed what an earlier run was cut off in");
        }
        let named = |error: Error| error.in_file(&self.subject);
        let keys = self.keys.read()?;
        let volumes = adapt::volumes_of(&disks.images, &keys).map_err(named)?;
        let found = Guest::of(&volumes, None);
        let guest = adapt::Guest::of(&volumes, &found);
        let guest = guest.ok_or_else(|| named(no_root(&volumes, &found)))?;
        let (plan, mut done) = match self.try_out(context, guest, &disks, &keys, false) {
            // Drivers for entries that nobody may ever boot are worth less than those of the default.
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.try_out(context, guest, &disks, &keys, true)
            }
            done => done,
        }
        .map_err(named)?;
        done.remarks.splice(..0, plan.remarks.iter().cloned());
        show(context, &plan, &done)?;
        for remark in &done.remarks {
            context.messages.warn(remark);
        }
        Ok(match done.remarks.is_empty() {
            true => Exit::Done,
            false => Exit::Incomplete,
        })
    }

    /// Plans, and does it: for the default boot entry only, or for all.
    fn try_out(
        &self,
        context: &Context,
        guest: adapt::Guest<'_>,
        disks: &Disks,
        keys: &Keys,
        only_default: bool,
    ) -> Result<(Plan, Done)> {
        let plan = self.plan(&guest, disks, only_default)?;
        let job = Job {
            guest,
            plan: &plan,
            keep: !self.undo,
            disks: &disks.images,
            keys,
        };
        let done = self.carry_out(context, &job, disks)?;
        Ok((plan, done))
    }

    /// Does it, unless it is only to be shown: by hako, else by the guest.
    fn carry_out(&self, context: &Context, job: &Job<'_>, disks: &Disks) -> Result<Done> {
        let (prepared, by) = match job.in_memory(context.time()) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let why = error.to_string();
                let prepared = match self.dry_run {
                    true => None,
                    false => Some(self.by_the_guest(context, job, disks, &why)?),
                };
                (prepared, By::Guest(why))
            }
            prepared => (Some(prepared?), By::Hako),
        };
        let mut done = Done {
            by,
            written_bytes: None,
            remarks: Vec::new(),
        };
        if let Some(prepared) = prepared.filter(|_| !self.dry_run) {
            prepared.write(&disks.intent, &disks.images)?;
            done.written_bytes = Some(prepared.n_bytes());
            done.remarks = prepared.remarks;
        }
        Ok(done)
    }

    /// Has the guest do it, which it does over the disks.
    fn by_the_guest(
        &self,
        context: &Context,
        job: &Job<'_>,
        disks: &Disks,
        why: &str,
    ) -> Result<Prepared> {
        context.say(&format!("{why}: the guest's own kernel does it, in QEMU"));
        let cancel = context.cancel_on_signals()?;
        let failed = |error| Error::io("find", error).in_file(disks.intent.path());
        let repair = Repair {
            home: &run_home()?,
            of: &std::path::absolute(disks.intent.path()).map_err(failed)?,
            launcher: &launcher()?,
            cancel: &cancel,
        };
        let hint = format!("hako itself cannot do it: {why}");
        job.by_the_guest(&repair)
            .map_err(|error| match error.hint_text() {
                None => error.hint(hint),
                Some(_) => error,
            })
    }

    fn plan(&self, guest: &adapt::Guest<'_>, disks: &Disks, only_default: bool) -> Result<Plan> {
        match self.target {
            Some(target) => {
                let (nics, were) = self.nics()?;
                let request = Request {
                    target,
                    serial_console: self.serial_console,
                    mask_agents: self.mask_agents,
                    nics,
                    were,
                    macs: disks.macs.clone(),
                    only_default,
                };
                adapt::plan(guest, &request)
            }
            None => adapt::undo(guest),
        }
    }

    /// Returns the names that cards are to keep, those that were said before those of the inventory,
    /// and the addresses that this tells.
    fn nics(&self) -> Result<(Vec<NicName>, Vec<NicName>)> {
        let mut nics = self.nic.clone();
        let Some(path) = &self.inventory else {
            return Ok((nics, Vec::new()));
        };
        let mut were = Vec::new();
        for known in read_inventory(path)?.nics {
            let macs = [known.permanent_mac, known.mac];
            let mac = macs.iter().find_map(|mac| mac.parse::<Mac>().ok());
            if let Some(mac) = mac.filter(|_| known.kind == NicKind::Physical) {
                let nic = format!("{}={mac}", known.name);
                were.push(parse_nic(&nic).map_err(|error| Error::invalid(error).in_file(path))?);
            }
        }
        let is_said = |nic: &&NicName| self.nic.iter().any(|said| said.name == nic.name);
        nics.extend(were.iter().filter(|nic| !is_said(nic)).cloned());
        Ok((nics, were))
    }

    /// Opens the disks: an image that is there, else those of a machine.
    fn open(&self) -> Result<Disks> {
        let is_vmx = self
            .subject
            .extension()
            .is_some_and(|extension| extension == "vmx");
        let is_image = !is_vmx && !self.subject.is_dir() && self.subject.exists();
        match is_image {
            true => self.open_images(),
            false => self.open_machine(),
        }
    }

    fn access(&self) -> Access {
        match self.dry_run {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        }
    }

    fn open_images(&self) -> Result<Disks> {
        let options = OpenOptions {
            access: self.access(),
            ..self.gate.options()
        };
        let mut images = Vec::new();
        for path in std::iter::once(&self.subject).chain(&self.with) {
            refuse_device(path)?;
            if !self.dry_run {
                crate::disk::refuse_needed(path)?;
                let subject = Subject {
                    path: path.clone(),
                    open: options.clone(),
                };
                subject.refuse_overlays(None, "its content would change under that overlay")?;
            }
            images.push(writable(open_chain(path, &options)?, self.dry_run)?);
        }
        let name = self
            .subject
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        Ok(Disks {
            images,
            intent: Intent::at(&folder_of(&self.subject).join(format!(".{name}.hako-adapt"))),
            macs: Vec::new(),
            _held: None,
        })
    }

    fn open_machine(&self) -> Result<Disks> {
        if let Some(other) = self.with.first() {
            let what = "a machine has its own disks: --with is for images";
            return Err(Error::invalid(what).in_file(other));
        }
        let vm = Vm::open(&home()?, &self.subject, &[])?;
        let held = vm.hold_to_adapt()?;
        let options = OpenOptions {
            access: self.access(),
            rules: vm.rules(false),
            ..OpenOptions::default()
        };
        let mut images = Vec::new();
        for (_, disk) in vm.disks() {
            images.push(writable(vm.open_disk(&disk, &options)?, self.dry_run)?);
        }
        Ok(Disks {
            images,
            intent: Intent::at(&vm.adapt_intent()),
            macs: vm
                .vmx
                .machine()
                .nics
                .iter()
                .filter_map(|nic| nic.mac)
                .collect(),
            _held: Some(held),
        })
    }
}

/// Returns the error of disks without a system that is fitted.
fn no_root(volumes: &Volumes, guest: &Guest) -> Error {
    let mut installed = guest.installations.iter();
    if let Some(windows) = installed.find(|one| Os::of(&one.tree()).family == "windows") {
        let what = format!(
            "{} has Windows, in which hako changes nothing",
            windows.volume
        );
        return Error::unsupported(what).hint(
            "it starts by the drivers that it has: from SATA or NVMe, with an e1000e card \
             (hako p2v plan chooses them); drivers for others are installed once it runs",
        );
    }
    let mut found = volumes.list().iter();
    match found.find(|found| found.content.kind == "crypto_LUKS") {
        Some(locked) => Error::unsupported(format!(
            "no Linux is found on it that hako can read: {} is encrypted (LUKS)",
            locked.name
        ))
        .hint("open it by --key FILE"),
        None => Error::unsupported("no Linux is installed on it"),
    }
}

/// Reads `NAME=MAC`.
fn parse_nic(text: &str) -> std::result::Result<NicName, String> {
    let wrong = || "write it like eno1=24:6e:96:aa:bb:01".to_owned();
    let (name, mac) = text.split_once('=').ok_or_else(wrong)?;
    let is_name = (1..16).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        && !name.starts_with('.');
    match mac.parse().ok().filter(|_| is_name) {
        Some(mac) => Ok(NicName {
            name: name.to_owned(),
            mac,
        }),
        None => Err(wrong()),
    }
}

/// Refuses a block device: a server's own disk is not what is fitted.
fn refuse_device(path: &Path) -> Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let meta = std::fs::metadata(path).map_err(|error| Error::io("open", error).in_file(path))?;
    match meta.file_type().is_block_device() {
        false => Ok(()),
        true => Err(
            Error::invalid("a disk itself is never changed, only a copy of it")
                .in_file(path)
                .hint("hako disk convert makes an image of it"),
        ),
    }
}

fn writable(opened: OpenedChain, is_dry: bool) -> Result<Arc<dyn BlockImage>> {
    let is_writable = opened.chain.info().writable;
    let image: Arc<dyn BlockImage> = Arc::new(opened.chain);
    match is_writable || is_dry {
        true => Ok(image),
        false => {
            let file = image.info().files.first().cloned().unwrap_or_default();
            let error = Error::read_only().in_file(file);
            Err(error.hint("convert the disk first: hako disk convert"))
        }
    }
}

fn show(context: &Context, plan: &Plan, done: &Done) -> Result<()> {
    let mut out = Out::new();
    if context.json {
        let (by, why) = match &done.by {
            By::Hako => ("hako", None),
            By::Guest(why) => ("guest", Some(why)),
        };
        out.json(&json!({
            "done": done.written_bytes.is_some(),
            "by": by,
            "by_why": why,
            "written_bytes": done.written_bytes.unwrap_or(0),
            "changes": plan.changes.iter().map(change_json).collect::<Vec<_>>(),
            "remarks": done.remarks,
        }))?;
        return out.finish();
    }
    if plan.changes.is_empty() {
        out.line("nothing is to be changed")?;
    }
    for change in &plan.changes {
        out.line(&format!("{} {}", change.what.name(), title(change)))?;
        for why in &change.why {
            out.line(&format!("    {why}"))?;
        }
        if let What::Replace { old, new } = &change.what {
            for line in differences(old, new) {
                out.line(&line)?;
            }
        }
    }
    if let (By::Guest(why), None) = (&done.by, done.written_bytes) {
        out.line(&format!(
            "the guest's own kernel would do it, in QEMU: {why}"
        ))?;
    }
    out.finish()
}

fn title(change: &Change) -> String {
    let path = &change.path;
    match &change.what {
        What::Append { bytes, .. } => format!("{path} ({})", size::human(bytes.len() as u64)),
        What::Create { bytes, .. } => format!("{path} ({})", size::human(bytes.len() as u64)),
        What::Cut { len } => format!("{path} (to {})", size::human(*len)),
        What::Link { target } => format!("{path} -> {target}"),
        _ => path.clone(),
    }
}

/// Returns the lines that differ; every change of a text keeps their number.
fn differences(old: &[u8], new: &[u8]) -> Vec<String> {
    let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
    let lines = old.lines().zip(new.lines()).filter(|(old, new)| old != new);
    lines
        .flat_map(|(old, new)| [format!("  - {old}"), format!("  + {new}")])
        .collect()
}

fn change_json(change: &Change) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut value = json!({
        "path": change.path,
        "what": change.what.name(),
        "why": change.why,
    });
    let details = match &change.what {
        What::Replace { old, new } => json!({"old": text(old), "new": text(new)}),
        What::Append { len, bytes } => json!({"old_bytes": len, "bytes": bytes.len()}),
        What::Cut { len } => json!({"new_bytes": len}),
        What::Create { bytes, mode } => json!({"bytes": bytes.len(), "mode": format!("{mode:o}")}),
        What::Folder { mode } => json!({"mode": format!("{mode:o}")}),
        What::Link { target } => json!({"target": target}),
        What::Remove { old } => json!({"old": old.as_deref().map(text)}),
    };
    if let (Value::Object(value), Value::Object(details)) = (&mut value, details) {
        value.extend(details);
    }
    value
}
