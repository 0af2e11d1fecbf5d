//! From a machine to QEMU's command line: pure, so that what a guest sees depends on its VMX and on
//! nothing else. Paths are decided before; see `super::media` and `super::ports`.
//!
//! Addresses on the PCI bus are fixed per device of the VMX (`slot`), so that a guest finds its
//! disks and network cards under the same names whatever else is added or taken away. What QEMU has
//! no model for is replaced or left out with a warning, never silently.

mod board;
mod boot;
mod drives;
mod hardware;
mod nics;
mod ports;
mod screen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use hako_block::{Error, Result};
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Mac, Machine, Node};
use serde_json::Value;

pub(super) use hardware::hardware;
pub(super) use ports::Backend;

/// Everything that the command line depends on.
pub(super) struct Wanted<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The text that it is from, for what [`Machine`] does not hold.
    pub keys: &'a Dictionary,
    /// What runs the guest's code.
    pub accelerator: Accelerator,
    /// QEMU's names of its machines.
    pub types: &'a MachineTypes,
    /// What is in the drives. A disk that is not here is left out, a CD drive is empty.
    pub media: &'a BTreeMap<Node, Loaded>,
    /// The image of the floppy disk.
    pub floppy: Option<Loaded>,
    /// What the serial ports are connected to, by their numbers; the console's port is found here.
    pub serial: BTreeMap<u8, Backend>,
    /// The firmware, for a machine with UEFI.
    pub flash: Option<Flash>,
    /// A kernel that is started without firmware.
    pub kernel: Option<Kernel>,
    /// Where QEMU finds its runner.
    pub sockets: Sockets,
    /// Seconds since 1970, for a clock that the VMX sets off.
    pub now: u64,
    /// What hardware addresses are made of where the VMX has none.
    pub seed: [u8; 3],
    /// Whether nothing leads in or out of it: its cards' networks are closed, and its screen is on a
    /// socket only.
    pub is_isolated: bool,
}

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// Returns QEMU's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// QEMU's names of its machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MachineTypes {
    /// That with an i440FX.
    pub pc: String,
    /// That with a Q35.
    pub q35: String,
}

/// A medium and where QEMU finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Where.
    pub source: Source,
    /// What the guest may know the disk by (`disk.EnableUUID`).
    pub serial: Option<String>,
}

/// Where QEMU finds a medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// hako serves it on this socket.
    Nbd {
        /// The socket.
        socket: PathBuf,
        /// Whether it may be written.
        writable: bool,
    },
    /// Files that QEMU reads and writes itself, the top layer first; its parents are only read.
    Files {
        /// The layers.
        layers: Vec<Layer>,
        /// Whether the top may be written.
        writable: bool,
    },
}

/// An image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// Where, absolute.
    pub path: PathBuf,
    /// What QEMU calls its format.
    pub format: LayerFormat,
}

/// Formats that QEMU is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayerFormat {
    /// Plain bytes.
    Raw,
    /// QEMU's own.
    Qcow2,
}

/// UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flash {
    /// Its code.
    pub code: PathBuf,
    /// The machine's own variables.
    pub variables: PathBuf,
    /// Whether it keeps the variables from the guest in SMM.
    pub needs_smm: bool,
}

/// A kernel that is started without firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// Where QEMU finds its runner, which listens there, and where it listens itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sockets {
    /// The runner, for QMP.
    pub qmp: PathBuf,
    /// The runner, for the console.
    pub console: PathBuf,
    /// QEMU, for the screen.
    pub vnc: PathBuf,
    /// The folder of the pipes that the first frames of network cards go into.
    pub frames: PathBuf,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct CommandLine {
    /// QEMU's arguments.
    pub args: Vec<OsString>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Whether a serial port is the console, and which: COM1 has 0.
    pub console: Option<u8>,
    /// Where the screen is.
    pub vnc: String,
    /// The password that the screen wants.
    pub vnc_password: Option<String>,
    /// The drives' nodes in the VMX by QEMU's names of the devices.
    pub drives: BTreeMap<String, Node>,
    /// The network cards by their names in the VMX: their addresses, and the pipes that their first
    /// frames go into.
    pub cards: BTreeMap<String, (Mac, PathBuf)>,
}

impl CommandLine {
    fn arg(&mut self, name: &str, value: impl Into<OsString>) {
        self.args.push(name.into());
        self.args.push(value.into());
    }

    fn json(&mut self, name: &str, value: &Value) {
        self.arg(name, value.to_string());
    }

    fn device(&mut self, value: &Value) {
        self.json("-device", value);
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

/// The chips of a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chipset {
    /// i440FX with PIIX3, which VMware's own is next to.
    Pc,
    /// Q35 with ICH9: PCI Express.
    Q35,
}

impl Chipset {
    /// Returns QEMU's name of the bus that devices are on.
    fn bus(self) -> &'static str {
        match self {
            Chipset::Pc => "pci.0",
            Chipset::Q35 => "pcie.0",
        }
    }
}

/// Where devices are on the PCI bus. Numbers 0, 1 and 31 are the board's own.
mod slot {
    pub(super) const SCREEN: u8 = 0x02;
    pub(super) const SCSI: u8 = 0x03;
    pub(super) const SATA: u8 = 0x07;
    pub(super) const NVME: u8 = 0x0b;
    pub(super) const NIC: u8 = 0x10;
    pub(super) const USB: u8 = 0x1a;
    pub(super) const SOUND: u8 = 0x1b;
}

/// Returns QEMU's command line for a machine; the guest is stopped until it is let go. Errors:
/// [`hako_block::ErrorKind::Invalid`] for processors or memory that no machine has,
/// [`hako_block::ErrorKind::Unsupported`] for a path that is not UTF-8.
pub(super) fn command_line(wanted: &Wanted<'_>) -> Result<CommandLine> {
    let mut line = CommandLine::default();
    let chipset = board::chipset(wanted.machine);
    board::add(&mut line, wanted, chipset)?;
    let order = boot::order(wanted);
    drives::add(&mut line, wanted, chipset, &order)?;
    nics::add(&mut line, wanted, chipset, &order)?;
    ports::add(&mut line, wanted)?;
    screen::add(&mut line, wanted, chipset)?;
    Ok(line)
}

/// Returns a path as the texts of QEMU's options take it.
fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::unsupported("is no path in UTF-8, which QEMU wants")
            .in_file(path)
            .hint("give the folder another name")
    })
}

/// Returns a value as it is written in an option that is no JSON: with commas doubled.
fn value(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    plain.replace(',', ",,")
}
