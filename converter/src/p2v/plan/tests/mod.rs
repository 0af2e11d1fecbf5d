//! What the tests of plans share: a server and recordings of it.

mod devices;
mod sizes;
mod texts;

use super::plan as plan_of;
use super::*;
use crate::p2v::inventory::model as inv;

fn drivers(places: &[(&str, &str)]) -> Vec<inv::DriverPlace> {
    let all = places.iter().map(|(hardware, place)| inv::DriverPlace {
        hardware: (*hardware).to_owned(),
        place: (*place).to_owned(),
    });
    all.collect()
}

/// A server with two mirrored disks, a stick, and two cards.
fn server() -> Inventory {
    Inventory::from_json(
        r#"{"schema": 1, "hostname": "web01.example.org", "taken": 1795305600,
        "machine": {"vendor": "Dell Inc.", "model": "PowerEdge R640",
                    "memory_modules": [{"slot": "A1", "bytes": 34359738368},
                                       {"slot": "B1", "bytes": 34359738368}]},
        "firmware": {"kind": "bios"},
        "cpu": {"sockets": 2, "cores": 16, "threads": 32},
        "memory": {"total_bytes": 67000000000},
        "disks": [
          {"name": "sda", "bytes": 480103981056, "sector_bytes": 512, "model": "PERC H730",
           "driver": "ahci", "table": "gpt", "last_partition_end": 480000000000},
          {"name": "sdb", "bytes": 480103981056, "table": "gpt", "driver": "ahci"},
          {"name": "sdc", "bytes": 8000000000, "is_removable": true, "bus": "usb"},
          {"name": "sdd", "bytes": 1000204886016, "driver": "ahci"}],
        "volumes": [
          {"name": "sda1", "on": ["sda"], "partition": {"number": 1, "kind_name": "BIOS boot"}},
          {"name": "sda2", "on": ["sda"], "partition": {"number": 2}},
          {"name": "sdb1", "on": ["sdb"], "partition": {"number": 1, "kind_name": "BIOS boot"}},
          {"name": "sdb2", "on": ["sdb"], "partition": {"number": 2}},
          {"name": "md0", "kind": "array", "on": ["sda2", "sdb2"],
           "array": {"level": "raid1", "n_members": 2, "state": "clean"}},
          {"name": "vg0/root", "kind": "logical", "on": ["md0"]},
          {"name": "vg0/swap", "kind": "logical", "on": ["md0"]}],
        "mounts": [{"path": "/", "volume": "vg0/root"}],
        "swaps": [{"volume": "vg0/swap", "bytes": 4294967296}],
        "nics": [
          {"name": "eno1", "permanent_mac": "14:18:77:00:00:01", "is_up": true, "driver": "tg3",
           "addresses": ["192.0.2.5/24"]},
          {"name": "eno2", "permanent_mac": "14:18:77:00:00:02", "is_up": false},
          {"name": "br0", "kind": "bridge", "ports": ["eno1"]}],
        "os": {"family": "linux", "id": "debian", "version": "12", "name": "Debian 12"},
        "boot": {"kernels": [{"version": "6.1", "is_default": true}]}}"#,
    )
    .unwrap()
}

fn request(target: Target) -> PlanRequest {
    PlanRequest {
        name: None,
        target,
        size: Size::Measured,
        keep_mirrors: false,
        networks: Vec::new(),
    }
}

fn planned(inventory: &Inventory) -> Plan {
    plan(inventory, Vec::new(), &request(Target::Vmware)).unwrap()
}

/// A recording of so many intervals of ten minutes.
fn recording(n: usize, busy_percent: f64, used_kib: u64) -> (String, Recording) {
    let intervals = (0..n).map(|at| {
        let (day, hour, minute) = (1 + at / 144, at / 6 % 24, at % 6 * 10);
        format!(
            r#"{{"timestamp": {{"date": "2026-11-{day:02}", "time": "{hour:02}:{minute:02}:00",
            "interval": 600}}, "cpu-load": [{{"cpu": "all", "idle": {}}}],
            "memory": {{"memfree": 0, "avail": {}, "memused": 65000000, "memused-percent": 100.0}}}}"#,
            100.0 - busy_percent,
            65_000_000 - used_kib
        )
    });
    let intervals: Vec<String> = intervals.collect();
    let text = format!(
        r#"{{"sysstat": {{"hosts": [{{"nodename": "web01", "number-of-cpus": 32,
        "statistics": [{}]}}]}}}}"#,
        intervals.join(",")
    );
    (
        "sa.json".to_owned(),
        history::from_text(text.as_bytes()).unwrap(),
    )
}

fn codes(plan: &Plan) -> Vec<&str> {
    plan.findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect()
}
