//! Another pair of eyes: what was written is read with the reader, which shares no code with the
//! writer, and nothing may have changed that was not to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;

use hako_block::{Error, Result};
use hako_guest::{FileSystem, Found, NodeId, NodeKind, Ranges, Volume};

use crate::{Staged, Traces};

/// Files of a tree that is compared, and how deep it is looked into.
const MOST_FILES: usize = 100_000;
const DEEPEST: usize = 64;

/// Checks a changed ext file system: it opens; of the bytes that were in use before only those
/// changed that the writer says it changed; its directories have the names that they had, but for
/// those that came and went. Returns it as the reader sees it now. Errors: corrupt if that is not so.
pub fn check(
    staged: &Arc<Staged>,
    before: &Arc<dyn FileSystem>,
    traces: &Traces,
) -> Result<Arc<dyn FileSystem>> {
    let after = reopen(staged)?;
    let used = before.used(0, &(0..staged.len_bytes()))?;
    let mut allowed = Ranges::default();
    let mut touched = traces.touched.clone();
    touched.sort_by_key(|range| range.start);
    touched.into_iter().for_each(|range| allowed.add(range));
    for unit in staged.changed_units(traces.block_bytes)? {
        if used.run_at(unit.start).0 {
            only_allowed(staged, &unit, &allowed)?;
        }
    }
    for (directory, changed) in &traces.names {
        let node = NodeId {
            tree: 0,
            number: u64::from(*directory),
        };
        let (mut old, new) = (names(before, node)?, names(&after, node)?);
        for (name, came) in changed {
            match new.get(name).filter(|_| *came) {
                Some(node) => drop(old.insert(name.clone(), *node)),
                None => drop(old.remove(name)),
            }
        }
        let is_as_said = changed
            .iter()
            .all(|(name, came)| new.contains_key(name) == *came);
        if old != new || !is_as_said {
            return Err(wrong(&format!("the names in directory {directory}")));
        }
    }
    Ok(after)
}

/// Checks a changed file system as a whole: all files that are not among `except` (paths from its
/// root, in lower case) are what they were. Returns it as the reader sees it now.
pub fn check_tree(
    staged: &Arc<Staged>,
    before: &Arc<dyn FileSystem>,
    except: &BTreeSet<String>,
) -> Result<Arc<dyn FileSystem>> {
    let after = reopen(staged)?;
    let (old, new) = (files(before)?, files(&after)?);
    let is_meant = |path: &&String| !except.contains(path.as_str());
    if old.keys().filter(is_meant).ne(new.keys().filter(is_meant)) {
        return Err(wrong("the names of its files"));
    }
    for (path, file) in old.iter().filter(|(path, _)| is_meant(path)) {
        match new.get(path) {
            Some(now) if same(file, now)? => {}
            _ => return Err(wrong(path)),
        }
    }
    Ok(after)
}

fn reopen(staged: &Arc<Staged>) -> Result<Arc<dyn FileSystem>> {
    let volume: Arc<dyn Volume> = Arc::clone(staged) as _;
    hako_guest::fs::open(volume)?.ok_or_else(|| wrong("the file system"))
}

fn wrong(what: &str) -> Error {
    Error::corrupt(
        "check of what would be written",
        format!("{what} would not be right, and nothing was written"),
    )
}

/// Refuses a changed byte of a unit that nobody was to change.
fn only_allowed(staged: &Staged, unit: &std::ops::Range<u64>, allowed: &Ranges) -> Result<()> {
    let len = usize::try_from(unit.end - unit.start).unwrap_or(0);
    let (mut old, mut new) = (vec![0; len], vec![0; len]);
    staged.base().read_at(unit.start, &mut old)?;
    staged.read_at(unit.start, &mut new)?;
    let bytes = old.iter().zip(&new).zip(unit.start..);
    let mut changed = bytes.filter(|((old, new), _)| old != new);
    match changed.find(|(_, at)| !allowed.run_at(*at).0) {
        None => Ok(()),
        Some((_, at)) => Err(wrong(&format!("byte {at:#x} of the volume"))),
    }
}

fn names(fs: &Arc<dyn FileSystem>, directory: NodeId) -> Result<BTreeMap<Vec<u8>, NodeId>> {
    let mut names = BTreeMap::new();
    // A directory that was made, may be in the place of a file that is gone, or is gone itself.
    if !matches!(fs.stat(directory), Ok(stat) if stat.kind == NodeKind::Directory) {
        return Ok(names);
    }
    fs.visit(directory, &mut |entry| {
        names.insert(entry.name, entry.node);
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// Returns all files and folders by their paths, in lower case.
fn files(fs: &Arc<dyn FileSystem>) -> Result<BTreeMap<String, Found>> {
    let mut all = BTreeMap::new();
    let mut left = vec![(String::new(), Found::new(Arc::clone(fs), fs.root()), 0)];
    while let Some((path, folder, depth)) = left.pop() {
        let mut entries = Vec::new();
        folder.visit(&mut |entry| {
            entries.push(entry);
            match entries.len() < MOST_FILES {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        for entry in entries {
            let name = String::from_utf8_lossy(&entry.name).to_lowercase();
            let path = format!("{path}/{name}");
            let found = Found::new(Arc::clone(fs), entry.node);
            if depth < DEEPEST && found.stat()?.kind == NodeKind::Directory {
                left.push((path.clone(), found.clone(), depth + 1));
            }
            all.insert(path, found);
        }
        if all.len() >= MOST_FILES {
            return Err(Error::unsupported("too many files to compare"));
        }
    }
    Ok(all)
}

fn same(old: &Found, new: &Found) -> Result<bool> {
    let (old_stat, new_stat) = (old.stat()?, new.stat()?);
    if old_stat.kind != new_stat.kind || old_stat.len_bytes != new_stat.len_bytes {
        return Ok(false);
    }
    if old_stat.kind != NodeKind::File {
        return Ok(true);
    }
    let failed = |error| Error::io("compare files", error);
    let mut bytes = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut old, mut new) = (old.reader(), new.reader());
    loop {
        let n = old.read(&mut bytes.0).map_err(failed)?;
        if n == 0 {
            return Ok(true);
        }
        let (left, right) = (bytes.0.get(..n), bytes.1.get_mut(..n));
        let right = right.unwrap_or_default();
        new.read_exact(right).map_err(failed)?;
        if left != Some(right) {
            return Ok(false);
        }
    }
}
