//! `hako vm info`: what a machine is made of.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::Result;
use hako_formats::OpenedChain;
use hako_formats::machine::{DiskMedium, Drive, Machine, Medium, Network, Nic};
use hako_formats::vmsd::{Snapshot, Vmsd};
use hako_vm::run::Status;
use hako_vm::{State, Vm};
use serde_json::{Value, json};

use super::guest_view::GuestView;
use super::home::{home, run_home};
use super::machine_json::machine_json;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako vm info web
  hako vm info ./web/web.vmx --json
  hako vm info web --guest

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    the VMX is corrupt
  5    --guest: it runs, or is suspended
  6    no such virtual machine";

/// Show what a virtual machine is made of, its disks, its snapshots and its state
///
/// Works on a running machine, too: nothing is locked, and what its runner says is shown: since when
/// it runs or is paused, by which engine and accelerator, and where its console and screen are. With
/// --json everything that the VMX says of the hardware, each disk with its layers, the snapshots,
/// what is odd, and the runner's "run".
///
/// With --guest also what is on the disks of a machine that is off: the installed system, its file
/// systems, its kernels, what its boot loader offers, and where the kernel that boots finds drivers
/// for the machine's hardware.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Info {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// Look at what is on its disks, too; it must be off
    #[arg(long)]
    guest: bool,

    /// Let the machine and its images name files below DIR (repeatable)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    allow_path: Vec<PathBuf>,
}

/// A disk, as far as it can be opened.
struct DiskView {
    disk: DiskMedium,
    opened: Result<OpenedChain>,
}

impl Info {
    /// Prints it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let vm = Vm::open(&home()?, &self.machine, &self.allow_path)?;
        let state = vm.state();
        let status = run_home()?.folder(vm.path()).status();
        let machine = vm.vmx.machine();
        let vmsd = vm.vmsd();
        let look = |drive: &Drive| match &drive.medium {
            Medium::Disk(disk) => Some(DiskView {
                opened: vm.look_at(disk),
                disk: disk.clone(),
            }),
            _ => None,
        };
        let disks: Vec<Option<DiskView>> = machine.drives.iter().map(look).collect();
        let guest = self.guest.then(|| GuestView::of(&vm)).transpose()?;
        let mut out = Out::new();
        if context.json {
            let mut value = vm_json(&vm, &machine, &state, &vmsd, &disks);
            value["run"] = Value::Null;
            if let Some(status) = &status {
                value["state"] = status.state.name().into();
                value["state_reason"] = json!(status.why);
                value["run"] = status.to_json();
            }
            if let Some(guest) = &guest {
                value["guest"] = guest.json();
            }
            out.json(&value)?;
        } else {
            let mut rows = vm_text(&vm, &machine, &state, &vmsd, &disks);
            if let Some(status) = &status {
                let at = rows.iter().position(|(key, _)| key == "state");
                let at = at.unwrap_or(rows.len());
                rows.splice(at..rows.len().min(at + 1), run_rows(status));
            }
            rows.extend(guest.iter().flat_map(GuestView::rows));
            for (key, value) in rows {
                out.line(format!("{:<16} {value}", format!("{key}:")).trim_end())?;
            }
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

fn vm_json(
    vm: &Vm,
    machine: &Machine,
    state: &State,
    vmsd: &Result<Option<Vmsd>>,
    disks: &[Option<DiskView>],
) -> Value {
    let mut value = machine_json(machine);
    value["name"] = vm.name().into();
    value["vmx"] = vm.path().to_string_lossy().into();
    value["registered"] = vm.is_registered().into();
    value["state"] = state.name().into();
    value["state_reason"] = json!(state_reason(state));
    value["encryption"] = match vm.vmx.encryption() {
        hako_formats::vmx::Encryption::None => Value::Null,
        hako_formats::vmx::Encryption::Partial => "partial".into(),
        hako_formats::vmx::Encryption::Full => "full".into(),
    };
    for (index, view) in disks.iter().enumerate() {
        let Some(view) = view else { continue };
        let drive = &mut value["drives"][index];
        match &view.opened {
            Ok(opened) => add_layers(drive, opened),
            Err(error) => drive["error"] = error.to_string().into(),
        }
    }
    let list = vmsd.as_ref().ok().and_then(Option::as_ref);
    value["snapshots"] = snapshots(list).iter().map(snapshot_json).collect();
    value["current_snapshot"] = json!(list.and_then(Vmsd::current));
    value["needs_consolidation"] = list.is_some_and(Vmsd::needs_consolidation).into();
    value["pending"] = json!(pending(vm));
    value["oddities"] = json!(oddities(vm, vmsd));
    value
}

/// Says what its runner says.
fn run_rows(status: &Status) -> Vec<(String, String)> {
    let why = status.why.as_deref();
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let since = date(status.since_us);
    let mut rows = vec![(
        "state",
        format!("{}{why} since {since}", status.state.name()),
    )];
    let facts = &status.facts;
    rows.push(("started", date(status.started_us)));
    rows.push(("engine", facts.how()));
    let pids = format!("{}, runner {}", facts.pid, status.runner_pid);
    rows.push(("process", pids));
    if let Some(console) = &status.console {
        rows.push(("console", console.display().to_string()));
    }
    let addresses = status.addresses.iter();
    rows.extend(addresses.map(|(node, address)| ("address", format!("{address} on {node}"))));
    rows.extend(facts.vnc.iter().map(|vnc| ("VNC", vnc.clone())));
    if status.discard_writes {
        rows.push(("writes", "discarded".to_owned()));
    }
    if status.facts.direct_boot {
        rows.push(("boot", "the kernel in its own disk".to_owned()));
    }
    rows.extend(facts.notes.iter().map(|note| ("run", note.clone())));
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    rows.into_iter().map(owned).collect()
}

fn date(time_us: u64) -> String {
    let [year, month, day, hour, minute, second] = hako_vm::utc(time_us / 1_000_000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

fn add_layers(drive: &mut Value, opened: &OpenedChain) {
    let layers = opened.layers.iter().map(|layer| {
        let info = layer.image.info();
        json!({
            "file": layer.args.storage.name(),
            "format": info.format,
            "subformat": info.subformat,
            "virtual_size": info.virtual_size,
            "allocated_size": info.allocated_size,
            "files": info.files,
            "oddities": info.oddities,
        })
    });
    let layers: Vec<Value> = layers.collect();
    drive["format"] = layers[0]["format"].clone();
    drive["virtual_size"] = layers[0]["virtual_size"].clone();
    drive["allocated_size"] = allocated(opened).into();
    drive["layers"] = layers.into();
}

fn allocated(opened: &OpenedChain) -> u64 {
    let layers = opened.layers.iter();
    layers
        .map(|layer| layer.image.info().allocated_size)
        .fold(0, u64::saturating_add)
}

fn snapshots(list: Option<&Vmsd>) -> Vec<Snapshot> {
    list.map(Vmsd::snapshots).unwrap_or_default()
}

fn snapshot_json(snapshot: &Snapshot) -> Value {
    let disks = snapshot
        .disks
        .iter()
        .map(|disk| json!({"node": disk.node.to_string(), "file": disk.file}));
    json!({
        "uid": snapshot.uid,
        "parent": snapshot.parent,
        "name": snapshot.name,
        "description": snapshot.description,
        "created_us": snapshot.created_us,
        "state_file": snapshot.state_file,
        "disks": disks.collect::<Vec<_>>(),
    })
}

fn state_reason(state: &State) -> Option<&str> {
    match state {
        State::Stopped => None,
        State::Running { by } => Some(by),
        State::Suspended { file } => Some(file),
    }
}

/// Returns the snapshot verb that was cut off; what cannot be told is among the oddities.
fn pending(vm: &Vm) -> Option<&'static str> {
    let pending = vm.pending().ok().flatten();
    pending.map(|verb| verb.name())
}

fn oddities(vm: &Vm, vmsd: &Result<Option<Vmsd>>) -> Vec<String> {
    let mut oddities = vm.vmx.oddities().to_vec();
    match vmsd {
        Ok(Some(list)) => oddities.extend_from_slice(list.oddities()),
        Ok(None) => (),
        Err(error) => oddities.push(error.to_string()),
    }
    if let Err(error) = vm.pending() {
        oddities.push(error.to_string());
    }
    oddities
}

fn vm_text(
    vm: &Vm,
    machine: &Machine,
    state: &State,
    vmsd: &Result<Option<Vmsd>>,
    disks: &[Option<DiskView>],
) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| rows.push((key.to_owned(), value));
    row("name", vm.name());
    row("vmx", vm.path().display().to_string());
    row(
        "state",
        match state_reason(state) {
            Some(reason) => format!("{} ({reason})", state.name()),
            None => state.name().to_owned(),
        },
    );
    let unknown = || "unknown".to_owned();
    row("guest OS", machine.guest_os.clone().unwrap_or_else(unknown));
    let version = machine.hardware_version.map(|version| version.to_string());
    row(
        "hardware",
        version.map_or_else(unknown, |version| format!("vmx-{version}")),
    );
    let secure = if machine.secure_boot {
        ", secure boot"
    } else {
        ""
    };
    row("firmware", format!("{}{secure}", machine.firmware.name()));
    let cpu = machine.cpu;
    row(
        "CPUs",
        format!("{} ({} per socket)", cpu.count, cpu.cores_per_socket),
    );
    row("memory", size::human(machine.memory_bytes));
    for (drive, view) in machine.drives.iter().zip(disks) {
        row(&drive.node.to_string(), drive_text(drive, view.as_ref()));
    }
    for nic in &machine.nics {
        row(&format!("ethernet{}", nic.number), nic_text(nic));
    }
    for port in &machine.serial_ports {
        let target = format!("{} {}", port.kind, port.target);
        row(&format!("serial{}", port.number), target);
    }
    if let Some(boot) = &machine.direct_boot {
        row("kernel", format!("{} {}", boot.kernel, boot.cmdline));
    }
    let list = vmsd.as_ref().ok().and_then(Option::as_ref);
    for snapshot in snapshots(list) {
        let is_current = list.and_then(Vmsd::current) == Some(snapshot.uid);
        let current = if is_current { " (current)" } else { "" };
        row(
            "snapshot",
            format!("{} {}{current}", snapshot.uid, snapshot.name),
        );
    }
    if list.is_some_and(Vmsd::needs_consolidation) {
        let what = "files of deleted snapshots are still to be merged: hako snapshot consolidate";
        row("snapshots", what.to_owned());
    }
    if let Some(verb) = pending(vm) {
        let what = format!("a {verb} was cut off: hako snapshot doctor VM --repair");
        row("snapshots", what);
    }
    for line in machine.annotation.lines() {
        row("note", line.to_owned());
    }
    for oddity in oddities(vm, vmsd) {
        row("odd", oddity);
    }
    rows
}

fn drive_text(drive: &Drive, view: Option<&DiskView>) -> String {
    let text = match (&drive.medium, view) {
        (_, Some(view)) => disk_text(view),
        (Medium::CdImage { file }, _) => format!("CD {file}"),
        (Medium::CdDevice { device }, _) => format!("CD drive of the host {device}"),
        (Medium::Other { kind, file }, _) => format!("{kind} {file}"),
        (Medium::CdEmpty | Medium::Disk(_), _) => "CD, empty".to_owned(),
    };
    if drive.connected {
        text
    } else {
        format!("{text} (not connected)")
    }
}

fn disk_text(view: &DiskView) -> String {
    let mode = match view.disk.mode.name() {
        "persistent" => String::new(),
        mode => format!(", {mode}"),
    };
    match &view.opened {
        Ok(opened) => {
            let info = opened.layers[0].image.info();
            let variant = info.subformat.as_deref().unwrap_or_default();
            let layers = match opened.layers.len() {
                1 => String::new(),
                n => format!(", {n} layers"),
            };
            format!(
                "{} ({} {variant}, {}, {} allocated{layers}{mode})",
                view.disk.file,
                info.format,
                size::human(info.virtual_size),
                size::human(allocated(opened)),
            )
        }
        Err(error) => format!("{}{mode}: {error}", view.disk.file),
    }
}

fn nic_text(nic: &Nic) -> String {
    let model = nic.model.as_deref().unwrap_or("card");
    let network = match &nic.network {
        Network::Bridged => "bridged".to_owned(),
        Network::Nat => "nat".to_owned(),
        Network::HostOnly => "hostonly".to_owned(),
        Network::Custom(name) | Network::PortGroup(name) => name.clone(),
    };
    let mac = nic.mac.map(|mac| format!(", {mac}")).unwrap_or_default();
    let connected = if nic.connected {
        ""
    } else {
        " (not connected)"
    };
    format!("{model}, {network}{mac}{connected}")
}
