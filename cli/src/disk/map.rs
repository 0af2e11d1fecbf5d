//! `hako disk map`: which bytes are where. Streams: memory does not grow with the disk.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use hako_block::{BlockImage, Extent, ExtentKind, Result, extents};
use hako_formats::open_chain;

use super::options::ReadFlags;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako disk map web.vmdk
  hako disk map --json web.qcow2

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    incomplete: --salvage found something missing
  4    the image is corrupt
  5    locked or in use";

/// Show the extents of an image: data, zeros and holes, and where they are stored
///
/// Layer 0 is the image itself, 1 its parent, and so on. A hole is what no layer stores. With
/// --json: an array of objects with the keys of `qemu-img map --output=json`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Map {
    /// The image
    image: PathBuf,

    #[command(flatten)]
    read: ReadFlags,
}

impl Map {
    /// Prints it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let opened = open_chain(&self.image, &self.read.options())?;
        let mut out = Out::new();
        if context.json {
            let mut separator = "[";
            walk(&opened.chain, |extent| {
                out.text(separator)?;
                separator = ",\n";
                out.text(&entry_json(extent))
            })?;
            out.text(if separator == "[" { "[]\n" } else { "]\n" })?;
        } else {
            out.line("guest offset      length            kind   layer  file offset       file")?;
            walk(&opened.chain, |extent| out.line(&entry_text(extent)))?;
        }
        out.finish()?;
        Ok(super::salvaged(context, &self.read, &opened))
    }
}

/// Calls `each` with the extents of a disk, neighbours of one kind merged.
fn walk(image: &dyn BlockImage, mut each: impl FnMut(&Extent) -> Result<()>) -> Result<()> {
    let mut run: Option<Extent> = None;
    for extent in extents(image) {
        let extent = shown(extent?);
        match &mut run {
            Some(run) if continues(run, &extent) => run.len += extent.len,
            _ => {
                if let Some(run) = run.replace(extent) {
                    each(&run)?;
                }
            }
        }
    }
    run.map_or(Ok(()), |run| each(&run))
}

/// Where a compressed unit is stored says nothing of where a guest byte is.
fn shown(mut extent: Extent) -> Extent {
    if extent.compressed {
        extent.host = None;
    }
    extent
}

fn continues(run: &Extent, next: &Extent) -> bool {
    let continues_host = match (&run.host, &next.host) {
        (None, None) => true,
        (Some(a), Some(b)) => a.file == b.file && a.offset.checked_add(run.len) == Some(b.offset),
        _ => false,
    };
    continues_host
        && run.kind == next.kind
        && run.depth == next.depth
        && run.compressed == next.compressed
}

fn entry_text(extent: &Extent) -> String {
    let kind = match extent.kind {
        ExtentKind::Data => "data",
        ExtentKind::Zero => "zero",
        ExtentKind::Hole => "hole",
    };
    let mut line = format!(
        "{:<#16x}  {:<#16x}  {kind:<5}  {:<5}",
        extent.offset, extent.len, extent.depth
    );
    if extent.compressed {
        line.push_str("  compressed");
    } else if let Some(host) = &extent.host {
        let _ = write!(line, "  {:<#16x}  {}", host.offset, host.file);
    }
    line.trim_end().to_owned()
}

fn entry_json(extent: &Extent) -> String {
    let mut entry = format!(
        r#"{{ "start": {}, "length": {}, "depth": {}, "present": {}, "zero": {}, "data": {}, "compressed": {}"#,
        extent.offset,
        extent.len,
        extent.depth,
        extent.kind != ExtentKind::Hole,
        extent.kind != ExtentKind::Data,
        extent.kind == ExtentKind::Data,
        extent.compressed,
    );
    if let Some(host) = &extent.host {
        let _ = write!(entry, r#", "offset": {}"#, host.offset);
    }
    entry.push('}');
    entry
}
