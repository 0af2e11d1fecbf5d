//! `hako p2v verify`: whether a copy of a server is good.

mod boot;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use hako_block::{Error, Result};
use hako_converter::p2v::inventory::model::Inventory;
use hako_converter::p2v::inventory::of_images;
use hako_converter::p2v::verify::{About, Check, Outcome, Verdict, check_volumes};
use hako_guest::Keys;
use hako_vm::Vm;
use hako_vm::run::Boot;

use super::plan::read_inventory;
use crate::context::Context;
use crate::disk::keys::KeyFlags;
use crate::exit::Exit;
use crate::vm::home::home;
use crate::vm::run::start::BootFlag;
use crate::vm::run::watch::parse_seconds;

const EXAMPLES: &str = "\
Examples:
  hako p2v verify web01
  hako p2v verify web01 --inventory web01.json
  hako p2v verify web01 --no-boot --json
  hako p2v verify web01 --no-boot --key passphrase
  hako p2v verify web01 --timeout 3600 --out report

Exit status:
  0    verified
  1    failed, or it does not boot
  2    wrong usage
  3    it boots, and something is to be seen to
  4    a file system is damaged, or a volume is not whole
  5    the machine runs, is suspended or in use
  6    no such virtual machine
  7    a key opens nothing";

/// Check a machine that a server became: its file systems, and a boot
///
/// First its file systems, read-only: every directory, where every file lies, and the map of what is in
/// use (ext2-4, XFS, FAT; btrfs and NTFS as far as names lead). A log that was not replayed is as the
/// copy was taken, and no damage. Arrays and volume groups must be whole. What is encrypted (LUKS) is
/// looked into if --key opens it, in memory; where the boot asks for its passphrase on the serial console,
/// that is typed.
///
/// Then it is booted with QEMU: nothing that the guest writes reaches its disks, and its network cards
/// are there but lead nowhere, so that it never meets the server that it was. A service of systemd, put
/// into what is thrown away, says what is mounted, swapped to, and how network cards are called; that is
/// compared with the inventory, else with what the system's own files say. It is put into a root on
/// ext2-4. Any other root comes up untouched, and then once more by its kernel without the firmware and
/// the boot loader, where the service comes with the initrd (of initramfs-tools or dracut). Windows is not
/// booted: nobody could tell how far it came.
///
/// The report, the console and what the guest said of itself are kept in STEM.hako-verify beside the
/// machine: report.json, console.log, guest.log, screen.txt.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Verify {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    vm: PathBuf,

    /// What the server was: what `hako p2v inventory --json` wrote there (- for standard input)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "no_boot")]
    inventory: Option<PathBuf>,

    /// How it boots; else by the kernel that its VMX names, or its firmware
    #[arg(long, value_name = "HOW", conflicts_with = "no_boot")]
    boot: Option<BootFlag>,

    /// How long it may take to come up
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "1200",
          conflicts_with = "no_boot")]
    timeout: Duration,

    /// Check file systems only
    #[arg(long)]
    no_boot: bool,

    /// Keep the report here instead of beside the machine
    #[arg(long, short, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,

    #[command(flatten)]
    keys: KeyFlags,
}

impl Verify {
    /// Verifies.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let inventory = self.inventory.as_deref().map(read_inventory).transpose()?;
        let cancel = context.cancel_on_signals()?;
        let vm = Vm::open(&home()?, &self.vm, &[])?;
        let named = |error: Error| error.in_file(vm.path());
        let keys = self.keys.read()?;
        let (mut checks, own) = look(&vm, &keys, context, &mut || cancel.check()).map_err(named)?;
        let mut booted = None;
        if own.os.family == "windows" && !self.no_boot {
            checks.push(unasked());
        } else if !self.no_boot {
            context.say(&format!("{}: booting it, with nothing kept", vm.name()));
            let inventory = inventory.as_ref().unwrap_or(&own);
            let done = boot::boot(&self.boot_of(&keys), inventory, &cancel, context)?;
            checks.extend(done.checks.iter().cloned());
            booted = Some(done);
        }
        let verdict = Verdict::of(&checks);
        let folder = self.out.clone();
        let folder =
            folder.unwrap_or_else(|| vm.folder().join(format!("{}.hako-verify", vm.stem())));
        let report = report::Report {
            vm: &vm,
            folder: &folder,
            verdict,
            checks: &checks,
            booted: booted.as_ref(),
        };
        report.keep()?;
        report.show(context)?;
        Ok(match verdict {
            Verdict::Corrupt => Exit::Corrupt,
            Verdict::DoesNotBoot => Exit::Failed,
            Verdict::Warnings => Exit::Incomplete,
            Verdict::Verified => Exit::Done,
        })
    }

    fn boot_of<'a>(&'a self, keys: &'a Keys) -> boot::Wanted<'a> {
        boot::Wanted {
            machine: &self.vm,
            keys,
            boot: match self.boot {
                None => Boot::Usual,
                Some(BootFlag::Firmware) => Boot::Firmware,
                Some(BootFlag::Direct) => Boot::Direct { entry: None },
            },
            limit: self.timeout,
        }
    }
}

/// Checks what is on the disks, and says what the system there says of itself.
fn look(
    vm: &Vm,
    keys: &Keys,
    context: &Context,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<(Vec<Check>, Inventory)> {
    let inside = vm.look_inside(keys)?;
    let mut checks: Vec<Check> = inside.remarks.iter().map(|one| unopened(one)).collect();
    checks.extend(check_volumes(&inside.volumes, tick)?);
    let own = of_images(&inside.volumes, &[], false, context.time())?;
    Ok((checks, own))
}

/// The check of a boot that nobody could judge.
fn unasked() -> Check {
    let note =
        "it is Windows, which nobody can ask how far it came: start it, and look at its screen";
    Check {
        about: About::Boot,
        name: "boot".to_owned(),
        outcome: Outcome::Warning,
        notes: vec![note.to_owned()],
    }
}

/// The check of a disk that could not be opened.
fn unopened(remark: &str) -> Check {
    Check {
        about: About::Volume,
        name: "disks".to_owned(),
        outcome: Outcome::Failed,
        notes: vec![remark.to_owned()],
    }
}
