//! What a runner says of its machine.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{DiskStats, Facts, IoStats, NicStats};

/// What a machine that runs is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Its virtual CPUs run.
    Running,
    /// They stand still.
    Paused,
}

impl RunState {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Paused => "paused",
        }
    }
}

/// What a runner says of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: RunState,
    /// Why it is paused, unless that was asked for.
    pub why: Option<String>,
    /// Since when, in microseconds since 1970.
    pub since_us: u64,
    /// When it was started, in microseconds since 1970.
    pub started_us: u64,
    /// What its engine says of it.
    pub facts: Facts,
    /// The process that drives it.
    pub runner_pid: u32,
    /// The socket that its first serial port is at; none if it has none.
    pub console: Option<PathBuf>,
    /// The addresses that its network cards were seen to use, by card, in the order in which they
    /// were first used.
    pub addresses: Vec<(String, IpAddr)>,
    /// Whether nothing that the guest writes reaches its disks.
    pub discard_writes: bool,
    /// The version of the runner's hako.
    pub version: String,
}

impl Status {
    /// Returns it as the object of the protocol.
    pub fn to_json(&self) -> Value {
        json!({
            "state": self.state.name(),
            "why": self.why,
            "since_us": self.since_us,
            "started_us": self.started_us,
            "engine": self.facts.engine,
            "accelerator": self.facts.accelerator,
            "pid": self.facts.pid,
            "runner_pid": self.runner_pid,
            "vnc": self.facts.vnc,
            "console": self.console.as_ref().map(|path| path.to_string_lossy()),
            "addresses": self.addresses.iter().map(|(node, address)| {
                json!({"node": node, "address": address.to_string()})
            }).collect::<Vec<_>>(),
            "discard_writes": self.discard_writes,
            "direct_boot": self.facts.direct_boot,
            "notes": self.facts.notes,
            "hako": self.version,
        })
    }

    /// Reads the object of the protocol; `None` if something is missing.
    pub fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let pid = |key: &str| u32::try_from(value[key].as_u64()?).ok();
        let notes = value["notes"].as_array()?.iter();
        Some(Self {
            state: match value["state"].as_str()? {
                "running" => RunState::Running,
                "paused" => RunState::Paused,
                _ => return None,
            },
            why: text("why"),
            since_us: value["since_us"].as_u64()?,
            started_us: value["started_us"].as_u64()?,
            facts: Facts {
                engine: text("engine")?,
                accelerator: text("accelerator")?,
                pid: pid("pid")?,
                vnc: text("vnc"),
                direct_boot: value["direct_boot"].as_bool()?,
                notes: notes.filter_map(Value::as_str).map(str::to_owned).collect(),
            },
            runner_pid: pid("runner_pid")?,
            console: text("console").map(PathBuf::from),
            addresses: value["addresses"]
                .as_array()?
                .iter()
                .map(|one| {
                    let address = one["address"].as_str()?.parse().ok()?;
                    Some((one["node"].as_str()?.to_owned(), address))
                })
                .collect::<Option<_>>()?,
            discard_writes: value["discard_writes"].as_bool()?,
            version: text("hako")?,
        })
    }
}

/// What a machine has used since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// When this was, in microseconds since 1970.
    pub time_us: u64,
    /// CPU time of its process, in microseconds.
    pub cpu_us: u64,
    /// Memory of the host that its process takes, in bytes.
    pub resident_bytes: u64,
    /// What its devices have done.
    pub io: IoStats,
}

impl Stats {
    /// Returns it as the object of the protocol.
    pub fn to_json(&self) -> Value {
        let disk = |disk: &DiskStats| {
            json!({
                "node": disk.node,
                "reads": disk.reads,
                "read_bytes": disk.read_bytes,
                "writes": disk.writes,
                "written_bytes": disk.written_bytes,
                "flushes": disk.flushes,
            })
        };
        let nic = |nic: &NicStats| {
            json!({
                "node": nic.node,
                "received_bytes": nic.received_bytes,
                "sent_bytes": nic.sent_bytes,
            })
        };
        json!({
            "time_us": self.time_us,
            "cpu_us": self.cpu_us,
            "resident_bytes": self.resident_bytes,
            "disks": self.io.disks.iter().map(disk).collect::<Vec<_>>(),
            "nics": self.io.nics.iter().map(nic).collect::<Vec<_>>(),
        })
    }

    /// Reads the object of the protocol; `None` if something is missing.
    pub fn from_json(value: &Value) -> Option<Self> {
        let disk = |value: &Value| {
            Some(DiskStats {
                node: value["node"].as_str()?.to_owned(),
                reads: value["reads"].as_u64()?,
                read_bytes: value["read_bytes"].as_u64()?,
                writes: value["writes"].as_u64()?,
                written_bytes: value["written_bytes"].as_u64()?,
                flushes: value["flushes"].as_u64()?,
            })
        };
        let nic = |value: &Value| {
            Some(NicStats {
                node: value["node"].as_str()?.to_owned(),
                received_bytes: value["received_bytes"].as_u64()?,
                sent_bytes: value["sent_bytes"].as_u64()?,
            })
        };
        let disks = value["disks"].as_array()?.iter().map(disk);
        let nics = value["nics"].as_array()?.iter().map(nic);
        Some(Self {
            time_us: value["time_us"].as_u64()?,
            cpu_us: value["cpu_us"].as_u64()?,
            resident_bytes: value["resident_bytes"].as_u64()?,
            io: IoStats {
                disks: disks.collect::<Option<_>>()?,
                nics: nics.collect::<Option<_>>()?,
            },
        })
    }
}

/// CPU time in microseconds and resident memory in bytes of a process, by proc(5).
pub(super) fn process_usage(pid: u32) -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses, and may hold any character; fields 3 on follow.
    let (_, fields) = stat.rsplit_once(')')?;
    let field = |number: usize| -> Option<u64> {
        let text = fields.split_ascii_whitespace().nth(number.checked_sub(3)?);
        text?.parse().ok()
    };
    let ticks = field(14)?.checked_add(field(15)?)?;
    let cpu_us = ticks.checked_mul(1_000_000)? / rustix::param::clock_ticks_per_second().max(1);
    let page_size = u64::try_from(rustix::param::page_size()).ok()?;
    Some((cpu_us, field(24)?.checked_mul(page_size)?))
}

/// Returns the time in microseconds since 1970.
pub(super) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_stats_come_back_as_they_were() {
        let status = Status {
            state: RunState::Paused,
            why: Some("no space left".to_owned()),
            since_us: 2,
            started_us: 1,
            facts: Facts {
                engine: "qemu".to_owned(),
                accelerator: "tcg".to_owned(),
                pid: 3,
                vnc: Some("unix:/run/vnc.sock".to_owned()),
                direct_boot: true,
                notes: vec!["slow".to_owned()],
            },
            runner_pid: 4,
            console: Some("/run/console.sock".into()),
            addresses: vec![("ethernet0".to_owned(), IpAddr::from([10, 0, 2, 15]))],
            discard_writes: true,
            version: "0.1.0".to_owned(),
        };
        assert_eq!(Status::from_json(&status.to_json()), Some(status));
        assert_eq!(Status::from_json(&json!({})), None);
        let stats = Stats {
            time_us: 1,
            cpu_us: 2,
            resident_bytes: 3,
            io: IoStats {
                disks: vec![DiskStats::default()],
                nics: vec![NicStats::default()],
            },
        };
        assert_eq!(Stats::from_json(&stats.to_json()), Some(stats));
        assert_eq!(Stats::from_json(&json!({"disks": [], "nics": []})), None);
    }

    #[test]
    fn usage_of_this_process_is_known() {
        let (_, resident_bytes) = process_usage(std::process::id()).unwrap();
        assert!(resident_bytes > 100_000);
        assert_eq!(process_usage(u32::MAX), None);
    }
}
