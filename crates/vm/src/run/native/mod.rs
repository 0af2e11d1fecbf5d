//! The engine of our own: a machine on KVM within the runner's process ([`hako_engine`]). All disks
//! and network cards are virtio's, whatever the VMX calls them; there are no other drives, no screen
//! and no firmware.
//!
//! ```text
//! drives   the disks, watched and counted;    boot      the kernel, anew for each reset
//! nics     network cards and their cables;    sockets   cables to somebody's switch
//! console  the first serial port;            jail      walls around all of it
//! machine  a machine that runs: paused, reset, switched off
//! ```

mod boot;
mod console;
mod drives;
mod jail;
mod machine;
mod nics;
mod sockets;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use hako_block::{Error, Result};
use hako_engine::{Kernel, Pages, Topology};
use hako_formats::machine::{Machine as Described, check_memory};

use self::drives::Drive;
use self::machine::{Hardware, Running};
use self::nics::Plugged;
use super::fitness::refuse_encrypted;
use super::{Boot, Engine, Facts, Machine, Start};

/// The engine of our own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Native;

/// What the user should know of a machine.
#[derive(Debug, Default)]
struct Report {
    /// What is as good as it was.
    notes: Vec<String>,
    /// What the machine has by its VMX and does not have here.
    losses: Vec<String>,
}

impl Report {
    /// Refuses a machine that would not have all that its VMX says.
    fn refuse_losses(&self) -> Result<()> {
        match self.losses.first() {
            Some(loss) => Err(Error::unsupported(loss.clone())),
            None => Ok(()),
        }
    }
}

impl Engine for Native {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn start(&self, start: Start<'_>) -> Result<Box<dyn Machine>> {
        start_with(&start, |_| Ok(()))
    }
}

impl Native {
    /// Starts a machine that has here all that its VMX says. Errors: what it would not have; little
    /// was opened for that.
    pub fn start_whole(&self, start: &Start<'_>) -> Result<Box<dyn Machine>> {
        start_with(start, Report::refuse_losses)
    }
}

/// Starts a machine, `judge` allowing: it sees each loss before more is opened, programs last.
fn start_with(
    start: &Start<'_>,
    judge: impl Fn(&Report) -> Result<()>,
) -> Result<Box<dyn Machine>> {
    let described = start.vm.vmx.machine();
    let mut report = Report::default();
    report.notes.clone_from(&start.notes);
    refuse_encrypted(start.vm, &mut report.notes)?;
    described.cpu.check()?;
    check_memory(described.memory_bytes)?;
    note_losses(&described, start, &mut report);
    judge(&report)?;
    let source = boot::Source::of(start.vm, &described, &start.options.boot)?;
    let disks = drives::open(&described, start, &mut report)?;
    let mut found = source.read(&drives::images(&disks))?;
    start.cancel.check()?;
    report.notes.append(&mut found.notes);
    report.losses.extend(found.trouble);
    judge(&report)?;
    let nics = nics::plug(&described, start, &mut report)?;
    judge(&report)?;
    let hardware = hardware(&described, start, (disks, nics, source));
    report.notes.append(&mut report.losses);
    run(hardware, found.kernel, report, start)
}

/// Returns what the machine is made of whenever it is built.
fn hardware(
    described: &Described,
    start: &Start<'_>,
    (disks, nics, source): (Vec<Drive>, Vec<Plugged>, boot::Source),
) -> Hardware {
    let keys = start.vm.vmx.dictionary();
    let cores = described.cpu.cores_per_socket;
    Hardware {
        topology: Topology {
            sockets: described.cpu.count / cores.max(1),
            cores,
            threads: 1,
        },
        memory_bytes: described.memory_bytes,
        pages: match keys.is_true("hako.hugePages") {
            true => Pages::Huge,
            false => Pages::Normal,
        },
        clock_offset_seconds: clock_offset(&keys.value("rtc.diffFromUTC").unwrap_or_default()),
        disks,
        nics,
        source,
    }
}

/// Notes what no part of this engine stands for.
fn note_losses(described: &Described, start: &Start<'_>, report: &mut Report) {
    let keys = start.vm.vmx.dictionary();
    if described.secure_boot && start.options.boot == Boot::Usual {
        let loss = "Secure Boot is not looked after: there is no firmware";
        report.losses.push(loss.to_owned());
    }
    for port in &described.serial_ports {
        let kind: String = port.kind.chars().take(40).collect();
        report.losses.push(match port.number {
            0 => format!("serial0 is the console alone, not connected to a {kind:?}"),
            other => format!("serial{other} is left out"),
        });
    }
    if keys.is_true("floppy0.present") && !keys.is_false("floppy0.startConnected") {
        let loss = "floppy0 is left out: there are no floppy drives";
        report.losses.push(loss.to_owned());
    }
    drives::note_losses(described, report);
    nics::note_losses(described, keys, report);
}

/// Returns the seconds that the clock is ahead of UTC.
fn clock_offset(text: &str) -> i64 {
    text.trim().parse().unwrap_or(0)
}

/// Builds the machine and lets it go.
fn run(
    hardware: Hardware,
    kernel: Kernel,
    report: Report,
    start: &Start<'_>,
) -> Result<Box<dyn Machine>> {
    let direct_boot = hardware.source.is_disk();
    let facts = Facts {
        engine: "kvm".to_owned(),
        accelerator: "kvm".to_owned(),
        pid: std::process::id(),
        vnc: None,
        direct_boot,
        notes: report.notes,
    };
    let folders = folders(start);
    let events = start.events.clone();
    let build = || {
        jail::shut(&folders)?;
        Running::start(hardware, kernel, facts, events)
    };
    // All threads that a guest talks to are that one's. This one is shut in once they run: till then
    // another engine may have to be tried.
    let running = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("builder".to_owned());
        let builder = builder
            .spawn_scoped(scope, build)
            .map_err(|error| Error::io("start a thread", error))?;
        let panicked = |_| Err(Error::unsupported("the machine cannot be built"));
        builder.join().unwrap_or_else(panicked)
    })?;
    jail::shut(&folders)?;
    Ok(Box::new(running))
}

/// Returns where the machine and its run have their files. The drivers of its disks write new ones
/// beside those that they replace.
fn folders(start: &Start<'_>) -> Vec<PathBuf> {
    let mut folders = start.vm.rules(true).allow_paths;
    folders.push(start.vm.folder().to_owned());
    folders.push(start.folder.path().to_owned());
    folders
}
