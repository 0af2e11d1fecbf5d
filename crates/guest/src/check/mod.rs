//! Whether a file system is whole, read-only: every directory and every node that a name leads to, the
//! links of each, where its bytes lie, and whether the map of what is in use knows of them.
//!
//! What a file system has beside (inodes that no name leads to, tables and copies of tables) it looks at
//! itself, in [`FileSystem::audit`]. A log that was not replayed is replayed in memory first, as always.
//! Contents are not read. Memory grows with the number of nodes and of the runs that they are stored in,
//! some 60 bytes each.

mod audit;
mod runs;
#[cfg(test)]
mod tests;

use std::ops::{ControlFlow, Range};

use hako_block::{Error, ErrorKind, Result};

pub use audit::Audit;

use crate::fs::{Entry, FileSystem, NodeId, NodeKind};
use crate::tree::shown;

/// Bytes of a volume whose map is asked for at once.
const WINDOW_BYTES: u64 = 32 << 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkup {
    /// Directories that were read.
    pub n_directories: u64,
    /// Other nodes that a name leads to.
    pub n_files: u64,
    /// What was looked at: a phrase each.
    pub checked: Vec<String>,
    /// What was not, and why.
    pub not_checked: Vec<String>,
    /// What is damaged: the first of it.
    pub damage: Vec<String>,
    /// How much is damaged.
    pub n_damage: u64,
    /// What is odd, and costs nobody a byte.
    pub remarks: Vec<String>,
}

impl Checkup {
    /// Returns whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.n_damage == 0
    }
}

/// Checks a file system in a volume of `volume_bytes`, which is the device of that number in it (see
/// [`FileSystem::used`]). `tick` is called now and then; its error ends it. Errors are else those of reading the volume: what is damaged
/// is in what it returns.
pub fn check(
    fs: &dyn FileSystem,
    (device, volume_bytes): (u64, u64),
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<Checkup> {
    let info = fs.info();
    let mut audit = Audit::of(volume_bytes / u64::from(info.block_bytes.max(512)));
    let is_cut = info.len_bytes > volume_bytes;
    if is_cut {
        let what = format!(
            "has {} bytes, and its volume {volume_bytes}",
            info.len_bytes
        );
        audit.damaged("the file system", &what);
        audit.unknown("where the bytes of files lie, and the map of what is in use");
    } else {
        fs.audit(&mut audit, tick)?;
    }
    walk(fs, &mut audit, tick)?;
    audit.compare_names(info.kind);
    if !is_cut {
        compare_map(fs, device, &mut audit, tick)?;
    }
    let mut report = audit.into_report();
    report.remarks.extend(info.remarks.iter().cloned());
    Ok(report)
}

/// Reads every directory, and looks at all that it names.
fn walk(
    fs: &dyn FileSystem,
    audit: &mut Audit,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let root = fs.root();
    let mut next = vec![root];
    look_at(fs, root, None, b"/", audit)?;
    while let Some(directory) = next.pop() {
        tick()?;
        audit.report.n_directories += 1;
        let mut failed = None;
        let visited = fs.visit(directory, &mut |entry| {
            match meet(fs, directory, &entry, audit) {
                Ok(true) => next.push(entry.node),
                Ok(false) => {}
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let place = || format!("directory {}", directory.number);
        visited.or_else(|error| audit.take(&place(), error))?;
    }
    audit.checked("directories, and what they name");
    Ok(())
}

/// Looks at a name. Returns whether it is a directory that was not met before.
fn meet(fs: &dyn FileSystem, directory: NodeId, entry: &Entry, audit: &mut Audit) -> Result<bool> {
    let place = || format!("{} in directory {}", shown(&entry.name), directory.number);
    if let Some(seen) = audit.seen(entry.node) {
        seen.names = seen.names.saturating_add(1);
        if seen.is_directory {
            audit.damaged(&place(), "is a directory that has another name, too");
        }
        return Ok(false);
    }
    let kind = look_at(fs, entry.node, Some(directory), &entry.name, audit)?;
    if let (Some(told), Some(kind)) = (entry.kind, kind)
        && told != kind
    {
        audit.damaged(&place(), &format!("is {told:?} by its name, and {kind:?}"));
    }
    Ok(kind == Some(NodeKind::Directory))
}

/// Looks at a node that is met for the first time. Returns what it is; none if that cannot be told.
fn look_at(
    fs: &dyn FileSystem,
    node: NodeId,
    directory: Option<NodeId>,
    name: &[u8],
    audit: &mut Audit,
) -> Result<Option<NodeKind>> {
    let place = || format!("{} (node {})", shown(name), node.number);
    let stat = match fs.stat(node) {
        Ok(stat) => stat,
        Err(error) => {
            audit.meet(node, directory, None);
            audit.take(&place(), error)?;
            return Ok(None);
        }
    };
    audit.meet(node, directory, Some(&stat));
    if stat.kind != NodeKind::Directory {
        audit.report.n_files += 1;
    }
    if stat.kind == NodeKind::Link
        && let Err(error) = fs.read_link(node)
    {
        audit.take(&place(), error)?;
    }
    if audit.has_all_runs {
        return Ok(Some(stat.kind));
    }
    let runs = &mut audit.runs;
    match fs.runs(node, &mut |range| runs.add(range, node.number)) {
        Ok(()) => audit.knows_runs = true,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            audit.unknown(&error.to_string());
        }
        Err(error) => audit.take(&place(), error)?,
    }
    Ok(Some(stat.kind))
}

/// Compares what nodes have with the map of what is in use, and with each other.
fn compare_map(
    fs: &dyn FileSystem,
    device: u64,
    audit: &mut Audit,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let len = fs.info().len_bytes;
    let runs = std::mem::take(&mut audit.runs);
    let claims = runs.sorted(len, audit);
    if audit.knows_runs || audit.has_all_runs {
        audit.checked("where the bytes of files lie: inside, and each in one file alone");
    }
    let owns_all = audit.owns_all && audit.report.is_sound();
    let mut leaked = 0;
    let mut at = 0;
    while at < len {
        tick()?;
        let window = at..at.saturating_add(WINDOW_BYTES).min(len);
        at = window.end;
        let used = match fs.used(device, &window) {
            Ok(used) => used.within(&window),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                audit.unknown(&format!("the map of what is in use: {error}"));
                return Ok(());
            }
            Err(error) => {
                audit.take("the map of what is in use", error)?;
                continue;
            }
        };
        let claimed = claims.within(&window);
        for free in used.gaps(&window).iter() {
            for lost in claimed.within(&free).iter() {
                audit.damaged(&text_of(&lost), "is in use, and free in the map");
            }
        }
        if owns_all {
            let mut nobodys = used;
            nobodys.remove(&claimed);
            leaked += nobodys.n_bytes();
        }
    }
    audit.checked("the map of what is in use");
    if audit.owns_all && !owns_all {
        audit.unknown("whether all that the map has in use is: what is damaged is not known");
    }
    if leaked > 0 {
        let what = format!("{leaked} bytes are in use in the map, and nothing has them");
        audit.report.remarks.push(what);
    }
    Ok(())
}

fn text_of(range: &Range<u64>) -> String {
    format!("bytes {}..{}", range.start, range.end)
}

/// Returns whether an error is about what is on the disk, not about reading it.
fn is_of_content(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Invalid
    )
}
