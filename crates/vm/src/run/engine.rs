//! What a runner drives: an engine starts a machine, a machine is told what to do and tells what
//! happens to it. Every engine is the same for the user.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hako_block::{Cancel, Result};

use super::RunFolder;
use crate::Vm;

/// Which engine runs a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The best one that can run it here.
    #[default]
    Auto,
    /// Our own, on KVM.
    Kvm,
    /// QEMU.
    Qemu,
}

impl EngineChoice {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            EngineChoice::Auto => "auto",
            EngineChoice::Kvm => "kvm",
            EngineChoice::Qemu => "qemu",
        }
    }
}

/// How a machine gets its kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Boot {
    /// By the kernel that the VMX names, else as the engine does it: QEMU by the machine's
    /// firmware, our own by the kernel in the guest's own disk.
    #[default]
    Usual,
    /// As the VMX says: its firmware, or the kernel that it names.
    Firmware,
    /// The kernel, the initrd and the command line come out of the guest's own disk.
    Direct {
        /// The entry of the boot loader's menu: its number, from 0 on; without it the default.
        entry: Option<u32>,
    },
    /// They are files of the host.
    Files {
        /// The kernel. Absolute.
        kernel: PathBuf,
        /// Its initrd. Absolute.
        initrd: Option<PathBuf>,
        /// Its command line.
        cmdline: String,
    },
}

/// What the user may choose when a machine is started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StartOptions {
    /// Which engine.
    pub engine: EngineChoice,
    /// Nothing that the guest writes reaches the machine's disks.
    pub discard_writes: bool,
    /// How it boots.
    pub boot: Boot,
    /// Images put into the machine's CD drives for this run, the first drive first; a drive is
    /// added where there are too few. Absolute.
    pub cdroms: Vec<PathBuf>,
}

/// What an engine gets to start a machine. The runner holds the machine's lock before and after.
pub struct Start<'a> {
    /// The machine. What its text names is opened by [`Vm::open_file`] and [`Vm::open_disk`].
    pub vm: &'a Vm,
    /// What the user chose.
    pub options: &'a StartOptions,
    /// Where sockets and other files of this run belong; it is empty of what an earlier run left.
    pub folder: &'a RunFolder,
    /// Starts programs that end with this process.
    pub launcher: &'a Launcher,
    /// Where the machine tells what happens to it, from its start on.
    pub events: Events,
    /// Asks to give up the start.
    pub cancel: &'a Cancel,
    /// What the user should know of the choice of the engine: part of its [`Facts::notes`].
    pub notes: Vec<String>,
}

/// Brings machines to life.
pub trait Engine {
    /// Returns the word that names it.
    fn name(&self) -> &'static str;

    /// Starts the machine; it runs when this returns. On an error nothing of it is left: no
    /// process, no lock on an image. Errors are what the user reads.
    fn start(&self, start: Start<'_>) -> Result<Box<dyn Machine>>;
}

/// A machine that was started. One thread drives it. What becomes of a request is told by an
/// [`Event`]; a request that does not fit the state (to pause what is paused) does nothing.
///
/// When it is dropped, the guest is off and nothing of it is left, whatever it takes.
pub trait Machine: Send {
    /// Returns what is known of it from its start on.
    fn facts(&self) -> &Facts;

    /// Returns the guest's first serial port, both directions; `None` if it has none. The runner
    /// asks once.
    fn console(&mut self) -> Result<Option<UnixStream>>;

    /// Stops the virtual CPUs.
    fn pause(&mut self) -> Result<()>;

    /// Lets them go on.
    fn resume(&mut self) -> Result<()>;

    /// Resets it, as the button of that name does.
    fn reset(&mut self) -> Result<()>;

    /// Presses the power button: the guest may shut down, or not.
    fn power_button(&mut self) -> Result<()>;

    /// Switches it off. [`Event::Off`] follows within seconds.
    fn quit(&mut self) -> Result<()>;

    /// Returns what its devices have done since the start.
    fn io_stats(&mut self) -> Result<IoStats>;
}

/// What is known of a machine from its start on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The engine ("kvm", "qemu").
    pub engine: String,
    /// What runs the guest's code ("kvm", "tcg").
    pub accelerator: String,
    /// The process whose CPU time and memory are the guest's.
    pub pid: u32,
    /// Where its screen is: `unix:PATH` or `HOST:DISPLAY` of VNC.
    pub vnc: Option<String>,
    /// Whether its kernel came out of the guest's own disk.
    pub direct_boot: bool,
    /// What the user should know: what was replaced by something else, what is slow.
    pub notes: Vec<String>,
}

impl Facts {
    /// Returns what runs it, each thing once: "kvm", or "qemu, tcg".
    pub fn how(&self) -> String {
        match self.engine == self.accelerator {
            true => self.engine.clone(),
            false => format!("{}, {}", self.engine, self.accelerator),
        }
    }
}

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its virtual CPUs stand still.
    Paused {
        /// Why, unless it was asked for ("no space left for sda").
        why: Option<String>,
    },
    /// They run again.
    Resumed,
    /// It was reset, by the guest or from outside.
    Reset,
    /// A network card of the guest uses an address.
    Address {
        /// The card's name in the VMX ("ethernet0").
        node: String,
        /// The address.
        address: IpAddr,
    },
    /// Something that the user should know.
    Note(String),
    /// It is off, and its files are closed. Nothing follows.
    Off(End),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest shut down.
    Guest,
    /// It was switched off from outside.
    Quit,
    /// The engine failed.
    Failed(String),
}

/// Where a machine tells what happens to it, from any thread. Clones lead to the same runner.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// Hands every event to `take`.
    pub fn new(take: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Tells one.
    pub fn send(&self, event: Event) {
        (self.0)(event);
    }
}

/// What a machine's devices have done since its start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IoStats {
    /// Its disks and CD drives.
    pub disks: Vec<DiskStats>,
    /// Its network cards, as far as the engine counts.
    pub nics: Vec<NicStats>,
}

/// What a disk has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskStats {
    /// Its node in the VMX ("scsi0:0").
    pub node: String,
    /// Reads that are done.
    pub reads: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Writes that are done.
    pub writes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Flushes that are done.
    pub flushes: u64,
}

/// What a network card has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NicStats {
    /// Its name in the VMX ("ethernet0").
    pub node: String,
    /// Bytes that the guest got.
    pub received_bytes: u64,
    /// Bytes that the guest sent.
    pub sent_bytes: u64,
}

/// Starts programs that end when this process does, however it ends.
///
/// A library cannot have a child ask for that between fork and exec; so the program starts itself
/// once more as a launcher, which asks and then becomes the wanted program.
#[derive(Debug, Clone)]
pub struct Launcher(Vec<OsString>);

impl Launcher {
    /// Puts these words before the program and its arguments.
    pub fn new(words: Vec<OsString>) -> Self {
        Self(words)
    }

    /// Returns the command that becomes `program`; arguments are added to it. It must be spawned by
    /// a thread that lives as long as the program is to.
    pub fn command(&self, program: &Path) -> Command {
        let mut words = self.0.iter();
        let Some(first) = words.next() else {
            return Command::new(program);
        };
        let mut command = Command::new(first);
        command.args(words).arg(program);
        command
    }
}
