//! A plan as data: what a server becomes. This module is the schema of the TOML that people edit and
//! of the JSON that programs read.

use serde::{Deserialize, Serialize};

use crate::p2v::inventory::{self, model::Level};

/// The schema's number: the first.
pub const SCHEMA: u32 = 1;

/// What a server becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The schema's number, [`SCHEMA`].
    pub plan: u32,
    /// What it was made from.
    pub source: Source,
    /// The machine.
    pub machine: Machine,
    /// Its processors.
    pub cpu: Cpu,
    /// Its memory.
    pub memory: Memory,
    /// What was measured; none if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Measured>,
    /// The server's disks and what becomes of them.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// The server's swap spaces.
    #[serde(default)]
    pub swaps: Vec<Swap>,
    /// The server's network cards and what becomes of them.
    #[serde(default)]
    pub nics: Vec<Nic>,
    /// What stands in the way or should be known, the worst first.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// What a plan was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The host's name.
    pub host: String,
    /// The server's maker and model.
    pub model: String,
    /// Its system.
    pub system: String,
    /// When the inventory was taken, in seconds since 1970-01-01 UTC.
    pub taken: u64,
}

/// A machine, but for processors and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Where it will run.
    pub target: Target,
    /// The guest system, by its VMX name.
    pub guest_os: String,
    /// `bios` or `efi`.
    pub firmware: String,
    /// Whether UEFI starts only what is signed.
    pub secure_boot: bool,
}

/// Where a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A product of VMware.
    Vmware,
    /// hako's own engine: virtio.
    Kvm,
    /// QEMU, started by hako.
    Qemu,
}

impl Target {
    /// Each with its name.
    pub const NAMES: [(&str, Target); 3] = [
        ("vmware", Target::Vmware),
        ("kvm", Target::Kvm),
        ("qemu", Target::Qemu),
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(_, target)| *target == self);
        found.map_or("vmware", |(name, _)| name)
    }
}

/// Processors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// How many the machine gets.
    pub count: u32,
    /// How many share a socket.
    pub cores_per_socket: u32,
    /// How many logical ones the server has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_is: Option<u32>,
    /// How many the measurements ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<u32>,
    /// Why so many.
    pub why: String,
}

/// Memory, in MiB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What the machine gets.
    pub mib: u64,
    /// What the server has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_is_mib: Option<u64>,
    /// What the measurements ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_mib: Option<u64>,
    /// Why so much.
    pub why: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// When it began, in seconds since 1970-01-01 UTC.
    pub from: i64,
    /// When it ended.
    pub to: i64,
    /// How many values of processors there are; of memory where there are none of those.
    pub samples: u64,
    /// The share of the time between begin and end that they tell of, in percent.
    pub coverage_percent: f64,
    /// How far to trust it.
    pub confidence: Confidence,
    /// Why so far.
    pub confidence_why: String,
    /// Who recorded, and in which file.
    pub recordings: Vec<String>,
    /// Processors that were busy, not exceeded in 95 % of the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_cores_p95: Option<f64>,
    /// The same, in 99.5 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_cores_p995: Option<f64>,
    /// Memory in use, not exceeded in 99 % of the time, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_p99_mib: Option<f64>,
    /// The most that ever was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_max_mib: Option<f64>,
    /// Pages swapped in a second, not exceeded in 99 % of the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in_p99: Option<f64>,
    /// Percent of the time in which something waited for a processor, not exceeded in 95 % of the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_p95: Option<f64>,
    /// The same of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pressure_p95: Option<f64>,
    /// The same of disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_pressure_p95: Option<f64>,
}

/// How far to trust measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Less than a day, or with many gaps.
    Low,
    /// A day or more.
    Medium,
    /// A week or more, nearly without gaps.
    High,
}

impl Confidence {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        }
    }
}

/// What becomes of something the server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The machine gets it.
    Keep,
    /// The machine does not get it.
    Drop,
}

impl Action {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Action::Keep => "keep",
            Action::Drop => "drop",
        }
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its name in the inventory.
    pub source: String,
    /// What it is, and what is on it.
    pub about: String,
    /// Its world-wide name, where the inventory has it: by this a copy finds it again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wwn: String,
    /// Its serial number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// The identity of its partition table.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub table_uuid: String,
    /// What becomes of it.
    pub action: Action,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The disk that holds the same, where it is dropped for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_of: Option<String>,
    /// Its length in the machine.
    pub bytes: u64,
    /// Its length in the server.
    pub as_is_bytes: u64,
    /// The least that it can have: where its last partition ends, and what the table needs behind that.
    pub least_bytes: u64,
    /// Whether space is only taken by what is written.
    pub thin: bool,
    /// What it hangs on: `pvscsi`, `sata`, `virtio-blk` …
    pub controller: String,
    /// Where: `scsi0:0`.
    pub node: String,
    /// Requests a second, not exceeded in 95 % of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_p95: Option<f64>,
    /// Bytes a second, not exceeded in 95 % of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second_p95: Option<f64>,
}

/// A swap space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// The volume's name, or the file's path.
    pub source: String,
    /// Its length.
    pub bytes: u64,
    /// Whether what was swapped out is copied, too: it is of no use to a machine that starts anew.
    pub copy_content: bool,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Its name in the inventory.
    pub source: String,
    /// What it is, and what goes through it.
    pub about: String,
    /// What becomes of it.
    pub action: Action,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Its address in the machine; empty for a new one.
    pub mac: String,
    /// Its model: `vmxnet3`, `e1000e`, `virtio-net` …
    pub model: String,
    /// What it is plugged into: `bridged`, `nat`, `hostonly`, or a port group's name.
    pub network: String,
    /// Bytes a second, not exceeded in 95 % of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second_p95: Option<f64>,
}

/// Something that stands in the way or should be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is, for programs.
    pub code: String,
    /// What it is about: the name of a disk, volume, card or service; empty if the whole.
    pub about: String,
    /// What it is, for people.
    pub what: String,
    /// What to do about it.
    pub advice: String,
    /// Whether somebody has seen to a blocker.
    #[serde(default)]
    pub accepted: bool,
}

impl From<&inventory::model::Finding> for Finding {
    /// Takes over what an inventory found; nobody has accepted it yet.
    fn from(found: &inventory::model::Finding) -> Self {
        Self {
            level: found.level,
            code: found.code.clone(),
            about: found.about.clone(),
            what: found.what.clone(),
            advice: found.advice.clone(),
            accepted: false,
        }
    }
}

impl Plan {
    /// Returns the blockers that nobody has accepted. What is about a disk or a card that is dropped
    /// blocks nothing.
    pub fn blockers(&self) -> Vec<&Finding> {
        let is_dropped = |name: &str| {
            let disk = self.disks.iter().find(|disk| disk.source == name);
            let nic = self.nics.iter().find(|nic| nic.source == name);
            let action = disk.map(|disk| disk.action).or(nic.map(|nic| nic.action));
            action == Some(Action::Drop)
        };
        let blocks = |finding: &&Finding| {
            finding.level == Level::Blocker && !finding.accepted && !is_dropped(&finding.about)
        };
        self.findings.iter().filter(blocks).collect()
    }
}
