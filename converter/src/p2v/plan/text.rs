//! A plan as TOML that people read and edit: every value is written by [`value`], the comments are fixed.

use std::fmt::Write as _;

use serde_json::Value;

use super::model::{Cpu, Disk, Finding, Machine, Measured, Memory, Nic, Plan, Source, Swap};

const HEAD: &str = "\
# What a server becomes, as hako proposes it: change what you like. Then:
#   hako p2v plan --check FILE [--inventory INVENTORY]
# says what is wrong with it and which blockers remain.
";

/// Returns the plan as TOML.
pub fn to_toml(plan: &Plan) -> String {
    let mut text = Text(HEAD.to_owned());
    text.key("plan", plan.plan);
    text.source(&plan.source);
    text.machine(&plan.machine);
    text.cpu(&plan.cpu);
    text.memory(&plan.memory);
    if let Some(measured) = &plan.history {
        text.measured(measured);
    }
    if !plan.disks.is_empty() {
        text.comment(
            "Disks. action: keep or drop. bytes: at least least_bytes. controller: what the guest has \
             a driver for. node: each once.",
        );
    }
    plan.disks.iter().for_each(|disk| text.disk(disk));
    plan.swaps.iter().for_each(|swap| text.swap(swap));
    if !plan.nics.is_empty() {
        text.comment(
            "Network cards. mac: \"\" for a new address. network: bridged, nat, hostonly, or the name \
             of a port group.",
        );
    }
    plan.nics.iter().for_each(|nic| text.nic(nic));
    if !plan.findings.is_empty() {
        text.comment("What stands in the way. Of a blocker that you have seen to: accepted = true");
    }
    plan.findings
        .iter()
        .for_each(|finding| text.finding(finding));
    text.0
}

/// TOML that grows.
struct Text(String);

impl Text {
    fn comment(&mut self, text: &str) {
        let _ = write!(self.0, "\n# {text}");
        self.0.push('\n');
    }

    fn table(&mut self, name: &str) {
        let _ = writeln!(self.0, "\n[{name}]");
    }

    fn element(&mut self, name: &str) {
        let _ = writeln!(self.0, "\n[[{name}]]");
    }

    fn key(&mut self, key: &str, value: impl Into<Value>) {
        let _ = writeln!(self.0, "{key} = {}", self::value(&value.into()));
    }

    /// Writes a key that may be missing.
    fn some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.key(key, value);
        }
    }

    /// Writes a key with a remark behind it.
    fn noted(&mut self, key: &str, value: impl Into<Value>, note: &str) {
        let line = format!("{key} = {}", self::value(&value.into()));
        let _ = writeln!(self.0, "{line:<28} # {note}");
    }

    fn source(&mut self, source: &Source) {
        self.table("source");
        self.key("host", source.host.as_str());
        self.key("model", source.model.as_str());
        self.key("system", source.system.as_str());
        self.key("taken", source.taken);
    }

    fn machine(&mut self, machine: &Machine) {
        self.table("machine");
        self.key("name", machine.name.as_str());
        self.noted("target", machine.target.name(), "vmware, kvm or qemu");
        self.key("guest_os", machine.guest_os.as_str());
        self.noted(
            "firmware",
            machine.firmware.as_str(),
            "bios or efi, as the server",
        );
        self.key("secure_boot", machine.secure_boot);
    }

    fn cpu(&mut self, cpu: &Cpu) {
        self.table("cpu");
        self.noted("count", cpu.count, "what the machine gets");
        self.key("cores_per_socket", cpu.cores_per_socket);
        self.some("as_is", cpu.as_is);
        self.some("measured", cpu.measured);
        self.key("why", cpu.why.as_str());
    }

    fn memory(&mut self, memory: &Memory) {
        self.table("memory");
        self.noted("mib", memory.mib, "what the machine gets, a multiple of 4");
        self.some("as_is_mib", memory.as_is_mib);
        self.some("measured_mib", memory.measured_mib);
        self.key("why", memory.why.as_str());
    }

    fn measured(&mut self, measured: &Measured) {
        self.comment("What was measured; from and to in seconds since 1970-01-01 UTC.");
        // Right below its comment.
        let _ = writeln!(self.0, "[history]");
        self.key("from", measured.from);
        self.key("to", measured.to);
        self.key("samples", measured.samples);
        self.key("coverage_percent", measured.coverage_percent);
        self.key("confidence", measured.confidence.name());
        self.key("confidence_why", measured.confidence_why.as_str());
        self.key("recordings", measured.recordings.clone());
        self.some("busy_cores_p95", measured.busy_cores_p95);
        self.some("busy_cores_p995", measured.busy_cores_p995);
        self.some("memory_used_p99_mib", measured.memory_used_p99_mib);
        self.some("memory_used_max_mib", measured.memory_used_max_mib);
        self.some("swap_in_p99", measured.swap_in_p99);
        self.some("cpu_pressure_p95", measured.cpu_pressure_p95);
        self.some("memory_pressure_p95", measured.memory_pressure_p95);
        self.some("io_pressure_p95", measured.io_pressure_p95);
    }

    fn disk(&mut self, disk: &Disk) {
        self.element("disks");
        self.key("source", disk.source.as_str());
        self.key("about", disk.about.as_str());
        self.unless_empty("wwn", &disk.wwn);
        self.unless_empty("serial", &disk.serial);
        self.unless_empty("table_uuid", &disk.table_uuid);
        self.key("action", disk.action.name());
        self.unless_empty("why", &disk.why);
        self.some("mirror_of", disk.mirror_of.clone());
        self.key("bytes", disk.bytes);
        self.key("as_is_bytes", disk.as_is_bytes);
        self.key("least_bytes", disk.least_bytes);
        self.key("thin", disk.thin);
        self.key("controller", disk.controller.as_str());
        self.key("node", disk.node.as_str());
        self.some("requests_p95", disk.requests_p95);
        self.some("bytes_per_second_p95", disk.bytes_per_second_p95);
    }

    fn swap(&mut self, swap: &Swap) {
        self.element("swaps");
        self.key("source", swap.source.as_str());
        self.key("bytes", swap.bytes);
        self.noted(
            "copy_content",
            swap.copy_content,
            "of no use after a new start",
        );
    }

    fn nic(&mut self, nic: &Nic) {
        self.element("nics");
        self.key("source", nic.source.as_str());
        self.key("about", nic.about.as_str());
        self.key("action", nic.action.name());
        self.unless_empty("why", &nic.why);
        self.key("mac", nic.mac.as_str());
        self.key("model", nic.model.as_str());
        self.key("network", nic.network.as_str());
        self.some("bytes_per_second_p95", nic.bytes_per_second_p95);
    }

    fn finding(&mut self, finding: &Finding) {
        self.element("findings");
        self.key(
            "level",
            serde_json::to_value(finding.level).unwrap_or_default(),
        );
        self.key("code", finding.code.as_str());
        self.key("about", finding.about.as_str());
        self.key("what", finding.what.as_str());
        self.key("advice", finding.advice.as_str());
        self.key("accepted", finding.accepted);
    }

    fn unless_empty(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.key(key, value);
        }
    }
}

/// Returns a value as TOML writes it. JSON's numbers, strings and lists are TOML's, but for one
/// character that TOML wants escaped; and a number with a point has one here, too.
fn value(value: &Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007F")
}
