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
/// Columns: read an image, create one, write in place, write to a pipe.
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
            out.line(&row_text([
                "format",
                "subformat",
                "read",
                "create",
                "write",
                "pipe",
                "notes",
            ]))?;
            for (format, row) in rows {
                let yes = |flag: bool| if flag { "yes" } else { "-" };
                let name = if row.name.is_empty() { "-" } else { row.name };
                out.line(&row_text([
                    format.name(),
                    name,
                    yes(row.read),
                    yes(row.create),
                    yes(row.write),
                    yes(row.pipe),
                    row.notes,
                ]))?;
            }
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

fn row_text([format, subformat, read, create, write, pipe, notes]: [&str; 7]) -> String {
    let row =
        format!("{format:<7} {subformat:<20} {read:<5} {create:<7} {write:<6} {pipe:<5} {notes}");
    row.trim_end().to_owned()
}

fn row_json(format: &dyn DiskFormat, row: &Subformat) -> Value {
    json!({
        "format": format.name(),
        "subformat": (!row.name.is_empty()).then_some(row.name),
        "read": row.read,
        "create": row.create,
        "write": row.write,
        "pipe": row.pipe,
        "notes": row.notes,
        "extensions": format.extensions(),
    })
}
