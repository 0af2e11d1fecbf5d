//! `hako p2v plan`: from what a server is (its inventory) and what it used (recordings) to what it
//! becomes: sizes, disks, network cards, and what stands in the way. Plans are read by people, edited,
//! and read back; nothing here looks at the server itself.

mod check;
mod disks;
mod findings;
mod guest_os;
mod hardware;
pub mod history;
mod mirrors;
pub mod model;
mod nics;
mod size;
#[cfg(test)]
mod tests;
mod text;
mod usage;

use std::path::Path;

use hako_block::{Error, Result};

use crate::p2v::inventory::model::{FirmwareKind, Inventory, Source as Kind};
use disks::DiskChoices;
use hardware::{choose_card, choose_controller};
use history::{History, Recording};
use model::{Cpu, Machine, Memory, Plan, SCHEMA, Source, Target};
use size::{CpuUse, MemoryUse};
use usage::Usage;

pub use nics::NetworkMap;

/// How large the machine is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// As was measured; what was not, as the server is.
    Measured,
    /// As the server is.
    AsIs,
    /// As somebody said: processors, and MiB of memory; what was not said, as measured.
    Said {
        /// Processors.
        cpus: Option<u32>,
        /// Memory in MiB.
        memory_mib: Option<u64>,
    },
}

/// What a plan is made by, besides inventory and recordings.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// The machine's name; the host's if not said.
    pub name: Option<String>,
    /// Where it will run.
    pub target: Target,
    /// How large it is to be.
    pub size: Size,
    /// Take both sides of a mirror.
    pub keep_mirrors: bool,
    /// What cards are plugged into.
    pub networks: Vec<NetworkMap>,
}

/// Makes a plan of an inventory and recordings, each with the name of its file.
pub fn plan(
    inventory: &Inventory,
    recordings: Vec<(String, Recording)>,
    request: &PlanRequest,
) -> Result<Plan> {
    refuse_absurd(inventory)?;
    refuse_unknown_nics(inventory, &request.networks)?;
    let mut findings = findings::of_inventory(inventory);
    findings::of_recordings(inventory, &recordings, &mut findings);
    let known = Known::of(inventory, &recordings);
    let names = recordings
        .iter()
        .map(|(file, recording)| usage::named(recording, file));
    let names = names.collect();
    let history = History::of(
        recordings
            .into_iter()
            .map(|(_, recording)| recording)
            .collect(),
    );
    let usage = Usage::of(&history);
    let cpu = cpu(
        inventory,
        usage.cpu,
        known.cpus,
        request.size,
        &mut findings,
    );
    let memory = memory(
        inventory,
        usage.memory,
        known.memory_mib,
        request.size,
        &mut findings,
    );
    let none = || Error::unsupported("the target has no controller");
    let controller = choose_controller(inventory, request.target).ok_or_else(none)?;
    let card = choose_card(inventory, request.target).ok_or_else(none)?;
    findings::of_hardware(request.target, &controller, &card, &mut findings);
    let choices = DiskChoices {
        controller: controller.0,
        keep_mirrors: request.keep_mirrors,
        history: &history,
    };
    findings.sort_by_key(|finding| finding.level);
    Ok(Plan {
        plan: SCHEMA,
        source: source(inventory),
        machine: machine(inventory, request),
        cpu,
        memory,
        history: usage::measured(&history, usage, names),
        disks: disks::disks(inventory, &choices),
        swaps: disks::swaps(inventory),
        nics: nics::nics(inventory, card.0, &request.networks, &history),
        findings,
    })
}

/// Reads a plan that people may have edited. Errors: [`hako_block::ErrorKind::Invalid`], with the line, for what is no
/// plan.
pub fn from_toml(text: &str) -> Result<Plan> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let found = Error::invalid(error.message().to_owned());
        match line {
            Some(line) => found.place(format!("line {line}")),
            None => found,
        }
    })
}

/// Returns a plan as TOML with comments.
pub fn to_toml(plan: &Plan) -> String {
    text::to_toml(plan)
}

/// Returns a plan as JSON.
pub fn to_json(plan: &Plan) -> Result<serde_json::Value> {
    serde_json::to_value(plan).map_err(|error| Error::invalid(error.to_string()))
}

/// Returns what is wrong with an edited plan, as sentences that begin with the place; and takes over
/// the inventory's blockers that it does not mention.
pub fn check(plan: &mut Plan, inventory: Option<&Inventory>) -> Vec<String> {
    if let Some(inventory) = inventory {
        check::add_forgotten(plan, inventory);
    }
    check::mistakes(plan, inventory)
}

/// Reads a recording, whichever of the known ones it is; the name of its file goes with it.
pub fn recording(path: &Path) -> Result<(String, Recording)> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok((name.to_string_lossy().into_owned(), history::read(path)?))
}

/// How large the server is.
struct Known {
    cpus: Option<u32>,
    memory_mib: Option<u64>,
}

impl Known {
    fn of(inventory: &Inventory, recordings: &[(String, Recording)]) -> Self {
        let recorded = || recordings.iter().map(|(_, recording)| recording);
        let cpus = Some(inventory.cpu.threads).filter(|threads| *threads > 0);
        let modules = inventory.machine.memory_modules.iter();
        let modules = modules.fold(0, |sum: u64, module| sum.saturating_add(module.bytes));
        let of_recordings = recorded()
            .filter_map(|recording| recording.memory_bytes)
            .max();
        let memory = [
            Some(modules),
            Some(inventory.memory.total_bytes),
            of_recordings,
        ];
        let memory = memory.into_iter().flatten().find(|bytes| *bytes > 0);
        Self {
            cpus: cpus.or(recorded()
                .map(|recording| recording.n_cpus)
                .max()
                .filter(|n| *n > 0)),
            memory_mib: memory.map(size::memory_mib),
        }
    }
}

/// A part of a machine that has a size.
struct Part<T> {
    name: &'static str,
    /// The option that says its size.
    option: &'static str,
    /// What a machine gets whose server nobody knows the size of.
    default: T,
}

const CPUS: Part<u32> = Part {
    name: "processors",
    option: "--size N",
    default: 2,
};
const MEMORY_MIB: Part<u64> = Part {
    name: "memory",
    option: "--size SIZE",
    default: 4096,
};

impl<T: Copy> Part<T> {
    /// Chooses among what was said, what use comes to and what the server has, and says why.
    fn choose(
        &self,
        size: Size,
        said: Option<T>,
        by_use: Option<&size::Sized<T>>,
        as_is: Option<T>,
        findings: &mut Vec<model::Finding>,
    ) -> (T, String) {
        let chosen = match (said, by_use, as_is, size) {
            (Some(said), ..) => (said, "as was said".to_owned()),
            (None, Some(sized), _, Size::Measured | Size::Said { .. }) => {
                (sized.size, sized.why.clone())
            }
            (None, _, Some(as_is), Size::AsIs) => (as_is, "as the server".to_owned()),
            (None, _, Some(as_is), _) => (as_is, "as the server: nothing was measured".to_owned()),
            (None, _, None, _) => {
                findings.push(findings::unknown_size(self.name, self.option));
                (self.default, "nothing is known".to_owned())
            }
        };
        if said.is_none() && by_use.is_some_and(|sized| sized.is_short) {
            findings.push(findings::short(self.name));
        }
        chosen
    }
}

fn cpu(
    inventory: &Inventory,
    used: Option<CpuUse>,
    as_is: Option<u32>,
    size: Size,
    findings: &mut Vec<model::Finding>,
) -> Cpu {
    let by_use = used.map(|used| size::cpus(used, as_is));
    let said = match size {
        Size::Said { cpus, .. } => cpus,
        _ => None,
    };
    let (count, why) = CPUS.choose(size, said, by_use.as_ref(), as_is, findings);
    Cpu {
        count,
        cores_per_socket: cores_per_socket(count, inventory.cpu.sockets),
        as_is,
        measured: by_use.map(|sized| sized.size),
        why,
    }
}

/// Returns how many processors share a socket: all, as long as a socket of the server had room for as
/// many or they cannot be halved; large machines keep the server's sockets, which are its memory's, too.
fn cores_per_socket(count: u32, sockets: u32) -> u32 {
    /// Up to this number one socket is the easiest for everybody: licences, and small NUMA nodes.
    const ONE_SOCKET: u32 = 16;
    match sockets {
        2.. if count > ONE_SOCKET && count.is_multiple_of(sockets) => count / sockets,
        _ => count,
    }
}

fn memory(
    inventory: &Inventory,
    used: Option<MemoryUse>,
    as_is_mib: Option<u64>,
    size: Size,
    findings: &mut Vec<model::Finding>,
) -> Memory {
    let floor_bytes = findings::floor_bytes(inventory);
    let used = used.map(|used| MemoryUse {
        floor_bytes,
        ..used
    });
    let by_use = used.map(|used| size::memory(used, as_is_mib));
    let said = match size {
        Size::Said { memory_mib, .. } => memory_mib,
        _ => None,
    };
    let (mib, why) = MEMORY_MIB.choose(size, said, by_use.as_ref(), as_is_mib, findings);
    Memory {
        mib,
        as_is_mib,
        measured_mib: by_use.map(|sized| sized.size),
        why,
    }
}

fn source(inventory: &Inventory) -> Source {
    let model = [&inventory.machine.vendor, &inventory.machine.model];
    let model: Vec<&str> = model.iter().map(|word| word.trim()).collect();
    Source {
        host: inventory.hostname.clone(),
        model: model.join(" ").trim().to_owned(),
        system: inventory.os.name.clone(),
        taken: inventory.taken,
    }
}

fn machine(inventory: &Inventory, request: &PlanRequest) -> Machine {
    let host = inventory.hostname.split('.').next().unwrap_or_default();
    let host = host.replace(['/', '\0'], "-");
    let name = match host.is_empty() {
        true => "server".to_owned(),
        false => host,
    };
    let firmware = match inventory.firmware.kind {
        FirmwareKind::Uefi => "efi",
        FirmwareKind::Bios | FirmwareKind::Unknown => "bios",
    };
    Machine {
        name: request.name.clone().unwrap_or(name),
        target: request.target,
        guest_os: guest_os::guest_os(&inventory.os),
        firmware: firmware.to_owned(),
        secure_boot: inventory.firmware.secure_boot.unwrap_or(false) && firmware == "efi",
    }
}

/// Refuses lengths and times that no TOML can hold: 2^63 and more.
fn refuse_absurd(inventory: &Inventory) -> Result<()> {
    let disks = inventory.disks.iter().map(|disk| disk.bytes);
    let swaps = inventory.swaps.iter().map(|swap| swap.bytes);
    let mut all = disks.chain(swaps).chain([inventory.taken]);
    match all.find(|number| i64::try_from(*number).is_err()) {
        Some(number) => Err(Error::corrupt(
            "inventory",
            format!("{number} is no length or time"),
        )),
        None => Ok(()),
    }
}

/// Refuses a network for a card that the server has not: it is a slip.
fn refuse_unknown_nics(inventory: &Inventory, networks: &[NetworkMap]) -> Result<()> {
    let mut named = networks.iter().filter_map(|map| map.nic.as_deref());
    let is_unknown = |name: &&str| !inventory.nics.iter().any(|nic| nic.name == *name);
    match named.find(is_unknown) {
        Some(name) => Err(Error::invalid(format!(
            "the server has no network card {name:?}"
        ))),
        None => Ok(()),
    }
}

/// Returns whether an inventory was taken where nothing could be measured.
fn is_of_images(inventory: &Inventory) -> bool {
    inventory.source == Kind::Images
}
