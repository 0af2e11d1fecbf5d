//! Paths: the way from the root of a file system to a node, links followed inside it.

use std::ops::ControlFlow;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

use crate::fs::{Entry, FileSystem, NodeId, NodeKind, Stat};

/// Links that may be met on the way of one path, as Linux has it (`MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// A file system by paths. A path begins at its root whether it begins with `/` or not; `..` of the
/// root is the root, and so no path and no link leads out.
#[derive(Clone)]
pub struct Tree {
    fs: Arc<dyn FileSystem>,
}

impl Tree {
    /// Returns the paths of `fs`.
    pub fn new(fs: Arc<dyn FileSystem>) -> Self {
        Self { fs }
    }

    /// Returns the file system.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// Returns the node at `path`, a link at its end followed. Errors: [`ErrorKind::NotFound`] if
    /// nothing is there, [`ErrorKind::Invalid`] if a name on the way is no directory or there are
    /// more than 40 links.
    pub fn find(&self, path: &[u8]) -> Result<NodeId> {
        self.walk(path, true)
    }

    /// Like [`Tree::find`], but a link at the end of the path is what is found.
    pub fn find_no_follow(&self, path: &[u8]) -> Result<NodeId> {
        self.walk(path, false)
    }

    /// Like [`Tree::find`]; none if nothing is there.
    pub fn look_for(&self, path: &[u8]) -> Result<Option<NodeId>> {
        match self.find(path) {
            Ok(node) => Ok(Some(node)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what is known of the node at `path`, links followed.
    pub fn stat(&self, path: &[u8]) -> Result<Stat> {
        self.fs.stat(self.find(path)?)
    }

    /// Returns the names in the directory at `path`, sorted. Errors: [`ErrorKind::Unsupported`] if
    /// there are more than `most`.
    pub fn entries(&self, path: &[u8], most: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.fs.visit(self.find(path)?, &mut |entry| {
            entries.push(entry);
            match entries.len() > most {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        if entries.len() > most {
            return Err(Error::unsupported(format!(
                "{}: more than {most} names",
                shown(path)
            )));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Returns the content of the file at `path`. Errors: [`ErrorKind::Unsupported`] if it is longer
    /// than `most` bytes.
    pub fn read(&self, path: &[u8], most: usize) -> Result<Vec<u8>> {
        let node = self.find(path)?;
        let stat = self.fs.stat(node)?;
        if stat.kind != NodeKind::File {
            return Err(Error::invalid(format!("{}: no file", shown(path))));
        }
        let too_long = || {
            let len = stat.len_bytes;
            Error::unsupported(format!("{}: {len} bytes, more than {most}", shown(path)))
        };
        let len = usize::try_from(stat.len_bytes).map_err(|_| too_long())?;
        if len > most {
            return Err(too_long());
        }
        let mut content = vec![0; len];
        let mut have = 0;
        while have < len {
            match self.fs.read_at(node, have as u64, &mut content[have..])? {
                0 => break,
                more => have += more,
            }
        }
        content.truncate(have);
        Ok(content)
    }

    fn walk(&self, path: &[u8], follow_last: bool) -> Result<NodeId> {
        let missing =
            |what: &str| Error::new(ErrorKind::NotFound, format!("{}: {what}", shown(path)));
        let mut links = 0;
        // Where we are: the way from the root, itself not included.
        let mut way: Vec<NodeId> = Vec::new();
        // Names still to go, the next one last.
        let mut names = names_of(path);
        while let Some(name) = names.pop() {
            if name == b".." {
                way.pop();
                continue;
            }
            let here = way.last().copied().unwrap_or_else(|| self.fs.root());
            if self.fs.stat(here)?.kind != NodeKind::Directory {
                return Err(Error::invalid(format!(
                    "{}: no directory on the way",
                    shown(path)
                )));
            }
            let node = self
                .fs
                .lookup(here, &name)?
                .ok_or_else(|| missing(&format!("no {} there", shown(&name))))?;
            let is_link = self.fs.stat(node)?.kind == NodeKind::Link;
            if !is_link || (names.is_empty() && !follow_last) {
                way.push(node);
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(Error::invalid(format!("{}: too many links", shown(path))));
            }
            let target = self.fs.read_link(node)?;
            if target.first() == Some(&b'/') {
                way.clear();
            }
            names.extend(names_of(&target));
        }
        Ok(way.last().copied().unwrap_or_else(|| self.fs.root()))
    }
}

/// Returns the names of a path, the first one last.
fn names_of(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .rev()
        .collect()
}

/// Returns bytes of a path for a message.
pub fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}
