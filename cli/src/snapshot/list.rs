//! `hako snapshot list`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::Result;
use hako_vm::{ListedSnapshot, SnapshotList, Vm, list_snapshots, utc};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Out, print_table, printable};
use crate::vm::home::home;

const EXAMPLES: &str = "\
Examples:
  hako snapshot list web
  hako snapshot list web --tree
  hako snapshot list web --json | jq -r '.snapshots[].path'

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    the VMX or the list of snapshots is corrupt
  6    no such virtual machine";

/// List the snapshots of a machine
///
/// The one that the present state comes from is marked with a *; times are UTC. Works on a running
/// machine, too. With --json {\"name\",\"vmx\",\"current\",\"needs_consolidation\",\"pending\",
/// \"snapshots\":[{\"uid\",\"name\",\"path\",\"parent\",\"depth\",\"current\",\"description\",
/// \"created\",\"created_us\",\"memory\",\"disks\"}],\"oddities\"}.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct List {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// Show which was taken on which
    #[arg(long)]
    tree: bool,
}

impl List {
    /// Prints them.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let vm = Vm::open(&home()?, &self.machine, &[])?;
        let list = list_snapshots(&vm)?;
        tell_state(context, &list);
        let mut out = Out::new();
        if context.json {
            out.json(&list_json(&vm, &list))?;
        } else if self.tree {
            for line in tree(&list) {
                out.line(&line)?;
            }
        } else {
            let row = |one: &ListedSnapshot| row(one, list.current);
            let rows: Vec<[String; 5]> = list.snapshots.iter().map(row).collect();
            let heading = ["UID", "NAME", "CREATED", "MEMORY", "DESCRIPTION"];
            print_table(&mut out, &heading, &rows)?;
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

fn tell_state(context: &Context, list: &SnapshotList) {
    for oddity in &list.oddities {
        context.messages.warn(oddity);
    }
    if let Some(verb) = list.pending {
        context.messages.warn(&format!(
            "a snapshot {} was cut off: hako snapshot doctor VM --repair completes or undoes it",
            verb.name()
        ));
    }
    if list.needs_consolidation {
        context.messages.warn(
            "files of deleted snapshots are still to be merged: hako snapshot consolidate VM",
        );
    }
}

/// Returns a time in microseconds since 1970 as people write it, in UTC.
fn time_text(created_us: u64) -> String {
    let [year, month, day, hour, minute, second] = utc(created_us / 1_000_000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

fn row(listed: &ListedSnapshot, current: Option<u32>) -> [String; 5] {
    let snapshot = &listed.snapshot;
    let mark = if current == Some(snapshot.uid) {
        "*"
    } else {
        ""
    };
    let first_line = snapshot.description.lines().next().unwrap_or_default();
    [
        format!("{}{mark}", snapshot.uid),
        printable(&snapshot.name),
        snapshot
            .created_us
            .map_or_else(|| "-".to_owned(), time_text),
        if listed.has_memory { "yes" } else { "-" }.to_owned(),
        printable(first_line),
    ]
}

/// Returns the tree, a line for each snapshot and one for the present state.
fn tree(list: &SnapshotList) -> Vec<String> {
    let present = || "* present state".to_owned();
    let mut lines = Vec::new();
    for listed in &list.snapshots {
        let snapshot = &listed.snapshot;
        let time = snapshot.created_us.map(time_text);
        let time = time.map(|time| format!(", {time}")).unwrap_or_default();
        let memory = if listed.has_memory { ", memory" } else { "" };
        let text = format!("{} ({}{time}{memory})", snapshot.name, snapshot.uid);
        lines.push((listed.depth, text));
        if list.current == Some(snapshot.uid) {
            lines.push((listed.depth + 1, present()));
        }
    }
    if list.current.is_none() && !lines.is_empty() {
        lines.push((0, present()));
    }
    with_branches(&lines)
}

/// Returns lines of these depths as a tree.
fn with_branches(lines: &[(usize, String)]) -> Vec<String> {
    // Of each depth, whether a line of the same branch follows.
    let mut follows: Vec<bool> = Vec::new();
    let mut drawn = Vec::new();
    for (depth, text) in lines.iter().rev() {
        follows.resize(depth + 1, false);
        let above = follows.iter().take(*depth).skip(1);
        let mut line: String = above
            .map(|more| if *more { "│  " } else { "   " })
            .collect();
        if *depth > 0 {
            line.push_str(if follows[*depth] {
                "├─ "
            } else {
                "└─ "
            });
        }
        follows[*depth] = true;
        drawn.push(line + text);
    }
    drawn.reverse();
    drawn
}

fn list_json(vm: &Vm, list: &SnapshotList) -> Value {
    let snapshots = list.snapshots.iter().map(|listed| {
        let snapshot = &listed.snapshot;
        let disks = snapshot.disks.iter().map(|disk| {
            json!({
                "node": disk.node.to_string(),
                "file": disk.file,
                "format": disk.format.as_deref().unwrap_or("vmdk"),
            })
        });
        let created = snapshot.created_us.map(|time| {
            let text = time_text(time).replace(' ', "T");
            format!("{text}Z")
        });
        json!({
            "uid": snapshot.uid,
            "name": snapshot.name,
            "path": listed.path,
            "parent": snapshot.parent,
            "depth": listed.depth,
            "current": list.current == Some(snapshot.uid),
            "description": snapshot.description,
            "created": created,
            "created_us": snapshot.created_us,
            "memory": listed.has_memory,
            "disks": disks.collect::<Vec<_>>(),
        })
    });
    json!({
        "name": vm.name(),
        "vmx": vm.path().to_string_lossy(),
        "current": list.current,
        "needs_consolidation": list.needs_consolidation,
        "pending": list.pending.map(|verb| verb.name()),
        "snapshots": snapshots.collect::<Vec<_>>(),
        "oddities": list.oddities,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_shows_what_was_taken_on_what() {
        let lines = [
            (0, "a"),
            (1, "b"),
            (2, "c"),
            (2, "d"),
            (1, "e"),
            (2, "f"),
            (0, "g"),
        ];
        let lines = lines.map(|(depth, text)| (depth, text.to_owned()));
        assert_eq!(
            with_branches(&lines),
            ["a", "├─ b", "│  ├─ c", "│  └─ d", "└─ e", "   └─ f", "g"]
        );
    }
}
