//! `hako vm start`: a machine runs in a process of its own from then on.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};

use clap::{Args, ValueEnum, ValueHint};
use hako_block::{Cancel, Error, ErrorKind, Result};
use hako_vm::run::protocol::parse_answer;
use hako_vm::run::{Boot, End, EngineChoice, StartOptions, Status};
use rustix::process::{Pid, Signal, kill_process};

use super::terminal::{ESCAPE_NAME, Parting, converse, has_keyboard, take};
use super::watch::{STEP, until_off};
use super::{Found, Which, runner, systemd};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm start web
  hako vm start --attach web
  hako vm start --cdrom debian.iso web
  hako vm start --discard-writes --boot direct web
  hako vm start --engine kvm --attach web
  hako vm start --kernel vmlinuz --initrd initrd.img --cmdline 'root=/dev/vda1 console=ttyS0' web

Exit status:
  0    it runs; with --attach: it is off again, or left
  1    failed
  2    wrong usage, or its writes would spoil a snapshot or a clone
  4    the VMX or a disk is corrupt
  5    it runs, is suspended or in use
  6    no such virtual machine
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// The most that a runner may say when it starts.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Start a machine
///
/// It runs in a process of its own (the runner), which keeps the machine locked until the guest is
/// off, and survives the terminal. Returns when the machine runs. The runner shuts the guest down
/// on SIGTERM. What it says is in runner.log, and what the guest writes to its first serial port in
/// console.log, in a folder of the machine below $HAKO_RUN, else /run/hako for root and
/// $XDG_RUNTIME_DIR/hako for others.
///
/// A guest that writes where the host has no room left is paused, and goes on with `hako vm unpause`
/// once there is.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Start {
    #[command(flatten)]
    which: Which,

    /// Stay, connected to its console, until it is off
    ///
    /// On a terminal Ctrl-] leaves; the machine runs on. SIGTERM, and without a terminal SIGINT,
    /// asks the guest to shut down; once more switches it off.
    #[arg(long)]
    attach: bool,

    #[command(flatten)]
    flags: RunFlags,
}

/// How a machine is to run.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// What runs it
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    engine: EngineFlag,

    /// Let nothing that the guest writes reach its disks
    #[arg(long)]
    discard_writes: bool,

    /// How it boots; else by the kernel that its VMX names, by its firmware under QEMU, and
    /// directly under KVM
    #[arg(long, value_name = "HOW")]
    boot: Option<BootFlag>,

    /// Boot the entry of this number, from 0 on, of its boot loader's menu directly
    #[arg(long, value_name = "N")]
    boot_entry: Option<u32>,

    /// Boot this kernel (bzImage or ELF)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
        conflicts_with_all = ["boot", "boot_entry"])]
    kernel: Option<PathBuf>,

    /// The initrd of --kernel
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "kernel")]
    initrd: Option<PathBuf>,

    /// The command line of --kernel
    #[arg(
        long,
        value_name = "TEXT",
        requires = "kernel",
        allow_hyphen_values = true
    )]
    cmdline: Option<String>,

    /// Put this image into its first CD drive for this run (repeatable: the next drive)
    #[arg(long, value_name = "ISO", value_hint = ValueHint::FilePath)]
    cdrom: Vec<PathBuf>,

    /// Let the machine and its images name files below DIR (repeatable)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub allow_path: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineFlag {
    /// hako's own if it can do all that the machine asks for here, else QEMU
    Auto,
    /// hako's own, on KVM: virtio disks and network cards, the first serial port; no CD drives, no
    /// screen, no firmware
    Kvm,
    /// QEMU
    Qemu,
}

/// How a machine boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BootFlag {
    /// By its firmware, or the kernel that its VMX names
    Firmware,
    /// By the kernel in its own disk, as its boot loader would
    Direct,
}

impl RunFlags {
    /// Returns what was chosen.
    pub fn options(&self) -> StartOptions {
        StartOptions {
            engine: match self.engine {
                EngineFlag::Auto => EngineChoice::Auto,
                EngineFlag::Kvm => EngineChoice::Kvm,
                EngineFlag::Qemu => EngineChoice::Qemu,
            },
            discard_writes: self.discard_writes,
            boot: self.boot(),
            cdroms: self.cdrom.clone(),
        }
    }

    fn boot(&self) -> Boot {
        if let Some(kernel) = &self.kernel {
            return Boot::Files {
                kernel: kernel.clone(),
                initrd: self.initrd.clone(),
                cmdline: self.cmdline.clone().unwrap_or_default(),
            };
        }
        match (self.boot, self.boot_entry) {
            (None, None) => Boot::Usual,
            (Some(BootFlag::Firmware), _) => Boot::Firmware,
            (_, entry) => Boot::Direct { entry },
        }
    }

    fn check(&self) -> Result<()> {
        match (self.boot, self.boot_entry) {
            (Some(BootFlag::Firmware), Some(_)) => Err(Error::invalid(
                "--boot-entry is for --boot direct: the firmware makes its own choice",
            )),
            _ => Ok(()),
        }
    }

    /// Returns the words that say the same, paths from the root on.
    fn words(&self) -> Result<Vec<OsString>> {
        let mut words: Vec<OsString> = vec!["--engine".into()];
        words.push(self.options().engine.name().into());
        if self.discard_writes {
            words.push("--discard-writes".into());
        }
        if let Some(boot) = self.boot.as_ref().and_then(ValueEnum::to_possible_value) {
            words.extend(["--boot".into(), boot.get_name().into()]);
        }
        if let Some(entry) = self.boot_entry {
            words.extend(["--boot-entry".into(), entry.to_string().into()]);
        }
        if let Some(cmdline) = &self.cmdline {
            words.push(format!("--cmdline={cmdline}").into());
        }
        for (flag, paths) in [
            ("--kernel", self.kernel.as_slice()),
            ("--initrd", self.initrd.as_slice()),
            ("--cdrom", &self.cdrom),
            ("--allow-path", &self.allow_path),
        ] {
            for path in paths {
                let found = std::fs::canonicalize(path);
                let path = found.map_err(|error| Error::io("open", error).in_file(path))?;
                words.extend([flag.into(), path.into()]);
            }
        }
        Ok(words)
    }
}

impl Start {
    /// Starts it, and stays if that is wanted.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        self.flags.check()?;
        let found = self.which.find()?;
        if let Some(status) = found.folder.status() {
            let what = format!("is {} already", status.state.name());
            return Err(Error::new(ErrorKind::Locked, what).in_file(found.vm.path()));
        }
        // Before there is a runner that a signal could leave alone.
        let (signals, cancel) = match self.attach {
            true => (Some(context.signals()?), Cancel::default()),
            false => (None, context.cancel_on_signals()?),
        };
        let mut child = self.spawn(&found)?;
        let has_signal = || match &signals {
            Some(signals) if take(signals) > 0 => Err(Error::cancelled()),
            _ => cancel.check(),
        };
        let status = wait_for_start(&mut child, &found, has_signal)?;
        for note in &status.facts.notes {
            context
                .messages
                .warn(&format!("{}: {note}", found.vm.name()));
        }
        let how = status.facts.how();
        context.summary(&format!("{}: started ({how})", found.vm.name()));
        if context.json {
            let mut out = Out::new();
            out.json(&status.to_json())?;
            out.finish()?;
        }
        match signals {
            Some(signals) => attend(context, &found, &signals),
            None => Ok(Exit::Done),
        }
    }

    fn spawn(&self, found: &Found) -> Result<Child> {
        let log = found.folder.open_log()?;
        let failed = |error| Error::io("start the runner", error);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .arg(runner::WORD)
            .args(self.flags.words()?)
            .arg("--")
            .arg(found.vm.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command.spawn().map_err(failed)
    }
}

/// Waits until the runner says that the machine runs, or why not.
fn wait_for_start(
    child: &mut Child,
    found: &Found,
    has_signal: impl Fn() -> Result<()>,
) -> Result<Status> {
    let mute = || Error::new(ErrorKind::Io, "the runner ended without a word").in_file(found.log());
    let stdout = child.stdout.take().ok_or_else(mute)?;
    let (told, line) = channel();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let mut bounded = BufReader::new(stdout.take(MAX_LINE_BYTES));
        let read = bounded.read_until(b'\n', &mut line);
        // Who does not wait any more needs no answer.
        let _ = told.send(read.map(|_| line));
    });
    let line = loop {
        match line.recv_timeout(STEP) {
            Ok(line) => break line.unwrap_or_default(),
            Err(RecvTimeoutError::Disconnected) => return Err(mute()),
            Err(RecvTimeoutError::Timeout) => has_signal().inspect_err(|_| give_up(child))?,
        }
    };
    if line.is_empty() {
        return Err(mute());
    }
    let started = parse_answer(&line);
    if started.is_err() {
        // It has let go of everything once it has ended.
        let _ = child.wait();
    }
    Status::from_json(&started?).ok_or_else(mute)
}

/// Ends a runner that has not said yet that the machine runs.
fn give_up(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // The number is the child's as long as nobody has waited for it.
        let _ = kill_process(pid, Signal::TERM);
        // A machine that has come to run meanwhile is asked to shut down, and, it being young,
        // switched off.
        std::thread::sleep(STEP);
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = child.wait();
}

/// Stays with a machine until it is off or the user leaves.
fn attend(context: &Context, found: &Found, signals: &UnixStream) -> Result<Exit> {
    let gone = || Error::new(ErrorKind::Io, "went off at once").in_file(found.log());
    let connect = || found.folder.connect()?.ok_or_else(gone);
    let (status, mut watch) = connect()?.watch()?;
    let end = std::thread::spawn(move || until_off(&mut watch, None, &Cancel::default(), |_| ()));
    systemd::notify_ready();
    let mut n_signals = 0;
    let mut signalled = || {
        n_signals += 1;
        on_signal(context, found, n_signals)
    };
    let parting = if status.console.is_some() {
        if has_keyboard() {
            let name = found.vm.name();
            context.say(&format!("{name}: connected; {ESCAPE_NAME} leaves"));
        }
        let (first, guest) = connect()?.console(true)?;
        converse(guest, &first, signals, &mut signalled)?
    } else {
        loop {
            if take(signals) > 0 && !signalled()? {
                break Parting::Left;
            }
            if end.is_finished() {
                break Parting::Off;
            }
            std::thread::sleep(STEP);
        }
    };
    if parting == Parting::Off
        && let Ok(end) = end.join()
        && let Some(End::Failed(why)) = end?
    {
        return Err(Error::new(ErrorKind::Io, format!("is off: {why}"))
            .in_file(found.vm.path())
            .hint(format!("{} may say more", found.log().display())));
    }
    match context.signal_code() {
        Some(_) => Err(Error::cancelled()),
        None => Ok(Exit::Done),
    }
}

/// Does what a signal asks for; says whether to stay.
fn on_signal(context: &Context, found: &Found, n_signals: usize) -> Result<bool> {
    const HUNG_UP: Option<u8> = Some(128 + 1);
    if context.signal_code() == HUNG_UP {
        return Ok(false);
    }
    let Some(mut client) = found.folder.connect()? else {
        return Ok(true);
    };
    let done = match n_signals {
        1 => {
            context.say("the guest is asked to shut down; once more switches it off");
            client.power_button()
        }
        _ => client.quit(),
    };
    match done {
        // It went off meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        done => done.map(|()| true),
    }
}
