//! `hako p2v plan`: what a server becomes.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};
use hako_block::{Error, Result, StagedFolder};
use hako_converter::p2v::inventory::model::{Inventory, Level};
use hako_converter::p2v::plan::model::{Action, Plan as Planned, Target};
use hako_converter::p2v::plan::{
    NetworkMap, PlanRequest, Size, check, from_toml, plan, recording, to_json, to_toml,
};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Out, print_table};
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako p2v plan --inventory web01.json --history web01.samples -o web01.toml
  hako p2v plan --inventory web01.json --history sa15.json --history sa16.json --target qemu
  hako p2v plan --inventory db01.json --size 8,48G --network eno1=Servers --network bridged
  hako p2v plan --check web01.toml --inventory web01.json

Exit status:
  0    done
  1    failed
  2    wrong usage, or the edited plan is wrong
  3    done, but blockers remain
  4    a recording or an inventory is damaged
  8    no space left";

/// Most bytes of an inventory, and of a plan.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Propose what a server becomes: sizes, disks, network cards, and what stands in the way
///
/// The plan is a text (TOML) to read and to edit. Processors and memory follow what the server used:
/// after the move they are loaded by 65 % in the busy hours (processors: what is not exceeded in 95 % of
/// the time / 0.65, and in 99.5 % / 0.95; memory: in 99 % / 0.65, the most ever / 0.90). They are never
/// less than what databases and Java machines are told to take, never more than the server has, and not
/// reduced where something waited for them or was swapped in. Mirrored disks become one, and disks hang
/// on what the guest has a driver for.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Plan {
    /// The server's inventory, - for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          required_unless_present = "check")]
    inventory: Option<PathBuf>,

    /// What the server used (repeatable): a file of hako p2v sample, or of sysstat, atop or collectl
    ///
    /// As texts: sadf -j FILE -- -u -r ALL -S -W -q ALL -d -n DEV; atop -r FILE -P
    /// CPU,MEM,SWP,PAG,PSI,DSK,NET; collectl -p FILE -P -scdmnDN. Of time that several tell of, the finer
    /// is believed.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    history: Vec<PathBuf>,

    /// Where the machine will run
    #[arg(long, value_name = "WHERE", value_parser = targets(), default_value = "vmware")]
    target: Target,

    /// How large it is to be: measured, as-is, or CPUS, MEMORY, or CPUS,MEMORY
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "measured")]
    size: Size,

    /// The machine's name; by default the server's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// What a card is plugged into (repeatable): bridged, nat, hostonly, a port group
    ///
    /// Without NIC= of all cards that are not named.
    #[arg(long, value_name = "[NIC=]NETWORK", value_parser = parse_network)]
    network: Vec<NetworkMap>,

    /// Take both sides of a mirror (RAID1), instead of one
    #[arg(long)]
    keep_mirrors: bool,

    /// Write the plan to FILE, and show a summary; by default it is printed
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Replace FILE
    #[arg(long, requires = "output")]
    force: bool,

    /// Look at a plan that was edited, with --inventory also at what does not go with the server
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["history", "target", "size", "name", "network", "keep_mirrors", "output"])]
    check: Option<PathBuf>,
}

impl Plan {
    /// Plans, or checks.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let inventory = self.inventory.as_deref().map(read_inventory).transpose()?;
        match (&self.check, &inventory) {
            (Some(path), inventory) => check_plan(context, path, inventory.as_ref()),
            (None, Some(inventory)) => self.propose(context, inventory),
            (None, None) => Err(Error::invalid("no inventory")),
        }
    }

    fn propose(&self, context: &Context, inventory: &Inventory) -> Result<Exit> {
        let recordings = self.history.iter().map(|path| recording(path));
        let recordings = recordings.collect::<Result<Vec<_>>>()?;
        let request = PlanRequest {
            name: self.name.clone(),
            target: self.target,
            size: self.size,
            keep_mirrors: self.keep_mirrors,
            networks: self.network.clone(),
        };
        let plan = plan(inventory, recordings, &request)?;
        let text = to_toml(&plan);
        if let Some(path) = &self.output {
            write(path, &text, self.force)?;
        }
        if self.output.is_some() || context.json {
            show(context, &plan)?;
        } else {
            let mut out = Out::new();
            out.text(&text)?;
            out.finish()?;
        }
        Ok(ended(context, &plan))
    }
}

fn check_plan(context: &Context, path: &Path, inventory: Option<&Inventory>) -> Result<Exit> {
    let plan = read_plan(context, path, inventory)?;
    show(context, &plan)?;
    Ok(ended(context, &plan))
}

/// Reads a plan that people may have edited. What is wrong with it is said; the first of that is the
/// error.
pub fn read_plan(context: &Context, path: &Path, inventory: Option<&Inventory>) -> Result<Planned> {
    let mut plan = from_toml(&read_text(path)?).map_err(|error| error.in_file(path))?;
    let mistakes = check(&mut plan, inventory);
    let Some((first, rest)) = mistakes.split_first() else {
        return Ok(plan);
    };
    for mistake in rest.iter().rev() {
        context
            .messages
            .warn(&format!("{}: {mistake}", path.display()));
    }
    Err(Error::invalid(first.clone()).in_file(path))
}

/// Says which blockers remain, and ends by it.
fn ended(context: &Context, plan: &Planned) -> Exit {
    let blockers = plan.blockers();
    for blocker in &blockers {
        let about = match blocker.about.is_empty() {
            true => String::new(),
            false => format!("{}: ", blocker.about),
        };
        let text = format!(
            "blocker {}: {about}{}; {}",
            blocker.code, blocker.what, blocker.advice
        );
        context.messages.warn(&text);
    }
    match blockers.is_empty() {
        true => Exit::Done,
        false => Exit::Incomplete,
    }
}

/// Reads the inventory of a server; `-` is standard input.
pub fn read_inventory(path: &Path) -> Result<Inventory> {
    let text = match path.as_os_str() == "-" {
        true => text_of(std::io::stdin().lock()).map_err(|error| error.in_file("standard input")),
        false => read_text(path),
    };
    Inventory::from_json(&text?).map_err(|error| error.in_file(path))
}

fn read_text(path: &Path) -> Result<String> {
    let named = |error: Error| error.in_file(path);
    let file = std::fs::File::open(path).map_err(|error| named(Error::io("open", error)))?;
    text_of(file).map_err(named)
}

fn text_of(from: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read", error))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(Error::unsupported("too large a text"));
    }
    String::from_utf8(bytes).map_err(|_| Error::corrupt("text", "it is not UTF-8"))
}

fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let staged = StagedFolder::new(path, force)?;
    let file = staged.create_main()?;
    file.write_at(0, text.as_bytes())?;
    file.sync()?;
    staged.commit()
}

/// Prints the plan as JSON, or a summary: what the server has beside what the machine gets.
fn show(context: &Context, plan: &Planned) -> Result<()> {
    let mut out = Out::new();
    if context.json {
        out.json(&to_json(plan)?)?;
        return out.finish();
    }
    let size = plan.source.model.as_str();
    out.line(&format!(
        "{} ({size}) as {}",
        plan.source.host,
        plan.machine.target.name()
    ))?;
    let rows: Vec<[String; 4]> = [cpu_row(plan), memory_row(plan)]
        .into_iter()
        .chain(plan.disks.iter().map(disk_row))
        .chain(plan.nics.iter().map(nic_row))
        .collect();
    print_table(&mut out, &["", "SERVER", "MACHINE", "WHY"], &rows)?;
    match &plan.history {
        Some(history) => out.line(&format!(
            "measured: {} samples, confidence {}: {}",
            history.samples,
            history.confidence.name(),
            history.confidence_why
        ))?,
        None => out.line("measured: nothing")?,
    }
    for finding in plan
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Warning)
    {
        out.line(&format!(
            "warning {}: {}; {}",
            finding.code, finding.what, finding.advice
        ))?;
    }
    out.finish()
}

fn cpu_row(plan: &Planned) -> [String; 4] {
    let cpu = &plan.cpu;
    let as_is = cpu
        .as_is
        .map_or_else(|| "?".to_owned(), |as_is| as_is.to_string());
    [
        "processors".to_owned(),
        as_is,
        cpu.count.to_string(),
        cpu.why.clone(),
    ]
}

fn memory_row(plan: &Planned) -> [String; 4] {
    let memory = &plan.memory;
    let human = |mib: u64| size::human(mib.saturating_mul(1 << 20));
    let as_is = memory.as_is_mib.map_or_else(|| "?".to_owned(), human);
    [
        "memory".to_owned(),
        as_is,
        human(memory.mib),
        memory.why.clone(),
    ]
}

fn disk_row(disk: &hako_converter::p2v::plan::model::Disk) -> [String; 4] {
    let machine = match disk.action {
        Action::Keep => format!(
            "{} {}, {}",
            disk.controller,
            disk.node,
            size::human(disk.bytes)
        ),
        Action::Drop => "-".to_owned(),
    };
    let name = format!("disk {}", disk.source);
    [name, disk.about.clone(), machine, disk.why.clone()]
}

fn nic_row(nic: &hako_converter::p2v::plan::model::Nic) -> [String; 4] {
    let machine = match nic.action {
        Action::Keep => format!("{} {}, {}", nic.model, nic.mac, nic.network),
        Action::Drop => "-".to_owned(),
    };
    let name = format!("nic {}", nic.source);
    [name, nic.about.clone(), machine, nic.why.clone()]
}

/// Reads where a machine will run.
pub fn targets() -> impl TypedValueParser<Value = Target> {
    let names = Target::NAMES.map(|(name, _)| name);
    PossibleValuesParser::new(names).map(|name| {
        let mut known = Target::NAMES.iter();
        let found = known.find(|(known, _)| *known == name);
        found.map_or(Target::Vmware, |(_, target)| *target)
    })
}

/// Reads `measured`, `as-is`, `4`, `16G`, `4,16G`.
fn parse_size(text: &str) -> std::result::Result<Size, String> {
    let cpus = |text: &str| text.parse().ok().filter(|cpus| *cpus > 0);
    let memory = |text: &str| -> Option<u64> {
        let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
        let bytes = size::parse(text).ok().filter(|_| has_unit)?;
        let mib = bytes >> 20;
        (mib > 0 && bytes.is_multiple_of(4 << 20)).then_some(mib)
    };
    let (cpus, memory_mib) = match text.split_once(',') {
        _ if text == "measured" => return Ok(Size::Measured),
        _ if text == "as-is" => return Ok(Size::AsIs),
        Some((first, second)) => (cpus(first), memory(second)),
        None => (cpus(text), memory(text)),
    };
    match (cpus, memory_mib, text.contains(',')) {
        (Some(_), Some(_), true) | (Some(_), None, false) | (None, Some(_), false) => {
            Ok(Size::Said { cpus, memory_mib })
        }
        _ => Err("measured, as-is, or like 4, 16G or 4,16G; memory is a multiple of 4M".to_owned()),
    }
}

/// Reads `NETWORK` or `NIC=NETWORK`.
fn parse_network(text: &str) -> std::result::Result<NetworkMap, String> {
    let (nic, network) = match text.split_once('=') {
        Some((nic, network)) => (Some(nic.to_owned()), network),
        None => (None, text),
    };
    if network.is_empty() || nic.as_deref() == Some("") {
        return Err("write it like bridged, eno1=bridged or eno1=\"VM Network\"".to_owned());
    }
    Ok(NetworkMap {
        nic,
        network: network.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_machines_are_read() {
        let said = |cpus, memory_mib| Ok(Size::Said { cpus, memory_mib });
        assert_eq!(parse_size("measured"), Ok(Size::Measured));
        assert_eq!(parse_size("as-is"), Ok(Size::AsIs));
        assert_eq!(parse_size("4"), said(Some(4), None));
        assert_eq!(parse_size("16G"), said(None, Some(16384)));
        assert_eq!(parse_size("4,16G"), said(Some(4), Some(16384)));
        for text in [
            "", "0", "4,", ",16G", "4,16", "16G,4", "3M", "4,1M", "big", "4,16G,1",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
