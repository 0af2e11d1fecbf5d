//! `hako vm list`: the machines of the inventory.

use clap::Args;
use hako_block::{ErrorKind, Result};
use hako_vm::Listed;
use hako_vm::run::Status;
use serde_json::{Value, json};

use super::home::{home, run_home};
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
/// With --json an array of {\"name\",\"state\",\"cpus\",\"memory\",\"vmx\",\"error\",\"run\"}; the state is
/// stopped, running, paused, suspended, missing or unreadable. One that something else has in use
/// counts as running; \"run\" is null then, else it is what the runner says (hako vm info).
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct List {}

impl List {
    /// Prints them.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let run = run_home()?;
        let machines: Vec<Row> = hako_vm::list(&home()?)?
            .into_iter()
            .map(|listed| Row {
                status: run.folder(&listed.vmx).status(),
                listed,
            })
            .collect();
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

/// A machine, and what its runner says if it runs.
struct Row {
    listed: Listed,
    status: Option<Status>,
}

fn state(row: &Row) -> &'static str {
    match (&row.listed.machine, &row.status) {
        (_, Some(status)) => status.state.name(),
        (Ok((_, state)), None) => state.name(),
        (Err(error), None) if error.kind() == ErrorKind::VmNotFound => "missing",
        (Err(_), None) => "unreadable",
    }
}

fn row_json(row: &Row) -> Value {
    let listed = &row.listed;
    let machine = listed.machine.as_ref().ok().map(|(machine, _)| machine);
    json!({
        "name": listed.name,
        "state": state(row),
        "cpus": machine.map(|machine| machine.cpu.count),
        "memory": machine.map(|machine| machine.memory_bytes),
        "vmx": listed.vmx.to_string_lossy(),
        "error": listed.machine.as_ref().err().map(ToString::to_string),
        "run": row.status.as_ref().map(Status::to_json),
    })
}

fn row_text(row: &Row) -> [String; 5] {
    let listed = &row.listed;
    let machine = listed.machine.as_ref().ok().map(|(machine, _)| machine);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        printable(&listed.name),
        state(row).to_owned(),
        or_dash(machine.map(|machine| machine.cpu.count.to_string())),
        or_dash(machine.map(|machine| size::human(machine.memory_bytes))),
        printable(&listed.vmx.to_string_lossy()),
    ]
}
