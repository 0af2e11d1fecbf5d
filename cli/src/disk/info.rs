//! `hako disk info`: what there is to know without reading data.

use std::path::PathBuf;

use clap::Args;
use hako_block::{ContentId, ImageInfo, ParentLink, Result, Value as Detail};
use hako_formats::{OpenOptions, open_chain};
use serde_json::{Map, Value, json};

use super::options::ReadFlags;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk info web.vmdk
  hako disk info --chain --json web-000002.vmdk

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    the image is corrupt
  5    locked or in use";

/// Show what an image is: format, sizes, parent, and what is odd about it
///
/// Reads no data, and without --chain opens no parent.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Info {
    /// The image
    image: PathBuf,

    /// Show every layer of the chain, the top first
    #[arg(long)]
    chain: bool,

    #[command(flatten)]
    read: ReadFlags,
}

impl Info {
    /// Prints it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let top_only = OpenOptions {
            top_only: true,
            ..self.read.options()
        };
        if !self.chain {
            self.print(context, &top_only)?;
            return Ok(Exit::Done);
        }
        let printed = self.print(context, &self.read.options());
        if printed.is_err() && !context.json {
            // The parent may be what is wrong: show what can be shown.
            let _ = self.print(context, &top_only);
        }
        printed.map(|()| Exit::Done)
    }

    fn print(&self, context: &Context, options: &OpenOptions) -> Result<()> {
        let opened = open_chain(&self.image, options)?;
        let layers = opened.layers.iter().map(|layer| layer.image.info());
        let mut out = Out::new();
        match (context.json, self.chain) {
            (true, true) => {
                let layers: Vec<Value> = layers.map(layer_json).collect();
                out.json(&json!({"layers": layers}))?;
            }
            (true, false) => {
                for info in layers {
                    out.json(&layer_json(info))?;
                }
            }
            (false, _) => {
                for (depth, info) in layers.enumerate() {
                    if depth > 0 {
                        out.line("")?;
                    }
                    for (key, value) in layer_text(info) {
                        out.line(&format!("{:<16} {value}", format!("{key}:")))?;
                    }
                }
            }
        }
        out.finish()
    }
}

fn layer_text(info: &ImageInfo) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| rows.push((key.to_owned(), value));
    for (index, file) in info.files.iter().enumerate() {
        row(
            if index == 0 { "file" } else { "extent file" },
            file.clone(),
        );
    }
    row(
        "format",
        match &info.subformat {
            Some(subformat) => format!("{} {subformat}", info.format),
            None => info.format.to_owned(),
        },
    );
    row("virtual size", size::human_and_bytes(info.virtual_size));
    row("allocated size", size::human_and_bytes(info.allocated_size));
    row("unit", size::human(info.unit_bytes));
    if let Some(id) = info.content_id {
        row(id_label(id), id.to_string());
    }
    if let Some(parent) = &info.parent {
        row("parent", parent_text(parent));
        if let Some(id) = parent.content_id {
            row(parent_id_label(id), id.to_string());
        }
    }
    for (key, value) in &info.details {
        // What the format says in its own words too ("cid") was said already.
        let plain = |key: &str| key.replace(['_', ' '], "").to_lowercase();
        if !rows.iter().any(|(shown, _)| plain(shown) == plain(key)) {
            detail_rows(&key.replace('_', " "), value, &mut rows);
        }
    }
    rows.extend(
        info.oddities
            .iter()
            .map(|oddity| ("odd".to_owned(), oddity.clone())),
    );
    rows
}

/// Returns what users of the format call its content ID.
fn id_label(id: ContentId) -> &'static str {
    match id {
        ContentId::Cid(_) => "CID",
        ContentId::Uuid(_) => "content ID",
    }
}

fn parent_id_label(id: ContentId) -> &'static str {
    match id {
        ContentId::Cid(_) => "parentCID",
        ContentId::Uuid(_) => "parent content ID",
    }
}

fn parent_text(parent: &ParentLink) -> String {
    let name = match parent.identity {
        Some(identity) if parent.name.is_empty() => format!("the disk {identity}"),
        _ => parent.name.clone(),
    };
    match &parent.format {
        Some(format) => format!("{name} ({format})"),
        None => format!("{name} (format not recorded)"),
    }
}

/// Lists become one row per element, maps one row per element with its name.
fn detail_rows(key: &str, value: &Detail, rows: &mut Vec<(String, String)>) {
    match value {
        Detail::Text(text) => rows.push((key.to_owned(), text.clone())),
        Detail::Int(number) => match key.strip_suffix(" bytes") {
            Some(key) => rows.push((key.to_owned(), size::human_and_bytes(*number))),
            None => rows.push((key.to_owned(), number.to_string())),
        },
        Detail::Bool(flag) => {
            rows.push((key.to_owned(), if *flag { "yes" } else { "no" }.to_owned()));
        }
        Detail::List(values) => {
            for value in values {
                match value {
                    Detail::Map(_) => rows.push((key.to_owned(), inline(value))),
                    _ => detail_rows(key, value, rows),
                }
            }
        }
        Detail::Map(_) => rows.push((key.to_owned(), inline(value))),
    }
}

/// A map on one line: `id 1, name before`.
fn inline(value: &Detail) -> String {
    match value {
        Detail::Text(text) => text.clone(),
        Detail::Int(number) => number.to_string(),
        Detail::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Detail::List(values) => {
            let values: Vec<_> = values.iter().map(inline).collect();
            values.join(" ")
        }
        Detail::Map(values) => {
            let values: Vec<_> = values
                .iter()
                .map(|(key, value)| format!("{} {}", key.replace('_', " "), inline(value)))
                .collect();
            values.join(", ")
        }
    }
}

fn layer_json(info: &ImageInfo) -> Value {
    let details: Map<String, Value> = info
        .details
        .iter()
        .map(|(key, value)| ((*key).to_owned(), detail_json(value)))
        .collect();
    json!({
        "format": info.format,
        "subformat": info.subformat,
        "virtual_size": info.virtual_size,
        "allocated_size": info.allocated_size,
        "unit_bytes": info.unit_bytes,
        "identity": info.identity.map(|id| id.to_string()),
        "content_id": info.content_id.map(|id| id.to_string()),
        "parent": info.parent.as_ref().map(|parent| json!({
            "name": parent.name,
            "format": parent.format,
            "identity": parent.identity.map(|id| id.to_string()),
            "content_id": parent.content_id.map(|id| id.to_string()),
        })),
        "files": info.files,
        "details": details,
        "oddities": info.oddities,
    })
}

fn detail_json(value: &Detail) -> Value {
    match value {
        Detail::Text(text) => text.as_str().into(),
        Detail::Int(number) => (*number).into(),
        Detail::Bool(flag) => (*flag).into(),
        Detail::List(values) => values.iter().map(detail_json).collect(),
        Detail::Map(values) => values
            .iter()
            .map(|(key, value)| (key.clone(), detail_json(value)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_become_rows() {
        let mut rows = Vec::new();
        let map = Detail::Map(vec![
            ("id".into(), 1.into()),
            ("vm_state".into(), true.into()),
        ]);
        detail_rows("snapshot", &Detail::List(vec![map]), &mut rows);
        detail_rows("grain size bytes", &Detail::Int(65536), &mut rows);
        let rows: Vec<_> = rows
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            rows,
            [
                "snapshot=id 1, vm state yes",
                "grain size=64 KiB (65536 bytes)"
            ]
        );
    }
}
