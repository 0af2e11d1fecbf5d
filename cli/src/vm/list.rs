//! `hako vm list`: the machines of the inventory.

use clap::Args;
use hako_block::{ErrorKind, Result};
use hako_vm::Listed;
use serde_json::{Value, json};

use super::home::home;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Out, print_table, printable};
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako vm list
  hako vm list --json | jq -r '.[] | select(.state == \"running\").name'

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    the inventory is corrupt";

/// List the virtual machines of the inventory
///
/// With --json an array of {\"name\",\"state\",\"cpus\",\"memory\",\"vmx\",\"error\"}; the state is
/// stopped, running, suspended, missing or unreadable.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct List {}

impl List {
    /// Prints them.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let machines = hako_vm::list(&home()?)?;
        let mut out = Out::new();
        if context.json {
            out.json(&machines.iter().map(row_json).collect())?;
        } else {
            let rows: Vec<[String; 5]> = machines.iter().map(row_text).collect();
            print_table(&mut out, &["NAME", "STATE", "CPUS", "MEMORY", "VMX"], &rows)?;
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

fn state(listed: &Listed) -> &'static str {
    match &listed.machine {
        Ok((_, state)) => state.name(),
        Err(error) if error.kind() == ErrorKind::VmNotFound => "missing",
        Err(_) => "unreadable",
    }
}

fn row_json(listed: &Listed) -> Value {
    let machine = listed.machine.as_ref().ok().map(|(machine, _)| machine);
    json!({
        "name": listed.name,
        "state": state(listed),
        "cpus": machine.map(|machine| machine.cpu.count),
        "memory": machine.map(|machine| machine.memory_bytes),
        "vmx": listed.vmx.to_string_lossy(),
        "error": listed.machine.as_ref().err().map(ToString::to_string),
    })
}

fn row_text(listed: &Listed) -> [String; 5] {
    let machine = listed.machine.as_ref().ok().map(|(machine, _)| machine);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        printable(&listed.name),
        state(listed).to_owned(),
        or_dash(machine.map(|machine| machine.cpu.count.to_string())),
        or_dash(machine.map(|machine| size::human(machine.memory_bytes))),
        printable(&listed.vmx.to_string_lossy()),
    ]
}
