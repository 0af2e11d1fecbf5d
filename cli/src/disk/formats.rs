//! `hako disk formats`: the table of what can be read and written, from the registry.

use clap::Args;
use hako_block::Result;
use hako_formats::{DiskFormat, FORMATS, Subformat};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako disk formats
  hako disk formats --json

Exit status:
  0    done";

/// List the disk formats and what can be done with each
///
/// Columns: read an image, create one, write in place, write to a pipe, mend by check --repair,
/// resize, compact.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Formats {}

impl Formats {
    /// Prints the table.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let rows = FORMATS
            .iter()
            .flat_map(|format| format.subformats().iter().map(move |row| (*format, row)));
        let mut out = Out::new();
        if context.json {
            let rows: Vec<Value> = rows.map(|(format, row)| row_json(format, row)).collect();
            out.json(&json!({"formats": rows}))?;
        } else {
            let mut table = vec![[
                "format",
                "subformat",
                "read",
                "create",
                "write",
                "pipe",
                "repair",
                "resize",
                "compact",
                "notes",
            ]];
            table.extend(rows.map(|(format, row)| row_text(format, row)));
            for line in aligned(&table) {
                out.line(&line)?;
            }
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

fn row_text(format: &dyn DiskFormat, row: &Subformat) -> [&'static str; 10] {
    let yes = |flag: bool| if flag { "yes" } else { "-" };
    [
        format.name(),
        if row.name.is_empty() { "-" } else { row.name },
        yes(row.read),
        yes(row.create),
        yes(row.write),
        yes(row.pipe),
        yes(row.repair),
        yes(row.resize),
        yes(row.compact),
        row.notes,
    ]
}

/// Pads each column to its widest cell.
fn aligned<const N: usize>(table: &[[&str; N]]) -> Vec<String> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let line = |row: &[&str; N]| {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        line.trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

fn row_json(format: &dyn DiskFormat, row: &Subformat) -> Value {
    json!({
        "format": format.name(),
        "subformat": (!row.name.is_empty()).then_some(row.name),
        "read": row.read,
        "create": row.create,
        "write": row.write,
        "pipe": row.pipe,
        "repair": row.repair,
        "resize": row.resize,
        "compact": row.compact,
        "notes": row.notes,
        "extensions": format.extensions(),
    })
}
