//! A file system in memory, for tests of what is above file systems.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

use crate::fs::{Entry, FileSystem, FsInfo, NodeId, NodeKind, Stat, Time, wrong_kind};

/// A file system built from paths and what is there. Folders on the way are made.
#[derive(Clone)]
pub struct MemoryFs {
    info: FsInfo,
    any_case: bool,
    root: NodeId,
    nodes: BTreeMap<NodeId, Node>,
    next_number: u64,
}

#[derive(Clone)]
struct Node {
    kind: NodeKind,
    content: Arc<Vec<u8>>,
    names: Vec<(Vec<u8>, NodeId)>,
}

/// The root of a subvolume, as btrfs numbers it.
const SUBVOLUME_ROOT: u64 = 256;

/// The tree of the top level, as btrfs numbers it.
const TOP_LEVEL: u64 = 5;

impl MemoryFs {
    /// Returns an empty one of that kind ("ext4").
    pub fn new(kind: &'static str) -> Self {
        let info = FsInfo {
            kind,
            label: String::new(),
            uuid: String::new(),
            len_bytes: 1 << 30,
            block_bytes: 4096,
            remarks: Vec::new(),
        };
        let root = match kind {
            "btrfs" => NodeId {
                tree: TOP_LEVEL,
                number: SUBVOLUME_ROOT,
            },
            _ => NodeId { tree: 0, number: 2 },
        };
        let mut fs = Self {
            info,
            any_case: false,
            root,
            nodes: BTreeMap::new(),
            next_number: 1000,
        };
        fs.nodes.insert(root, Node::of(NodeKind::Directory, b""));
        fs
    }

    /// Gives it a UUID.
    #[must_use]
    pub fn uuid(mut self, uuid: &str) -> Self {
        self.info.uuid = uuid.into();
        self
    }

    /// Gives it a label.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        self.info.label = label.into();
        self
    }

    /// Names are found whatever their case, as in FAT.
    #[must_use]
    pub fn any_case(mut self) -> Self {
        self.any_case = true;
        self
    }

    /// Adds a file, or replaces what is there.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.node(path, Node::of(NodeKind::File, content.as_ref()))
    }

    /// Adds a link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.node(path, Node::of(NodeKind::Link, target.as_bytes()))
    }

    /// Adds a directory, and those on the way to it.
    #[must_use]
    pub fn dir(mut self, path: &str) -> Self {
        self.directory(path);
        self
    }

    /// Adds a subvolume of btrfs, a tree of its own.
    #[must_use]
    pub fn subvolume(mut self, path: &str, tree: u64) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.directory(parent);
        let number = SUBVOLUME_ROOT;
        let node = NodeId { tree, number };
        self.nodes.insert(node, Node::of(NodeKind::Directory, b""));
        self.name(parent, name, node);
        self
    }

    /// Makes the directory at `path` what mounting shows: the default subvolume.
    #[must_use]
    pub fn root_at(mut self, path: &str) -> Self {
        self.root = self.directory(path);
        self
    }

    /// Returns it as what it is for.
    pub fn build(self) -> Arc<dyn FileSystem> {
        Arc::new(self)
    }

    fn node(mut self, path: &str, node: Node) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.directory(parent);
        let id = self.fresh(parent);
        self.nodes.insert(id, node);
        self.name(parent, name, id);
        self
    }

    fn fresh(&mut self, parent: NodeId) -> NodeId {
        self.next_number += 1;
        NodeId {
            number: self.next_number,
            ..parent
        }
    }

    /// Names a node, in place of what had that name.
    fn name(&mut self, parent: NodeId, name: &str, node: NodeId) {
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.names.retain(|(known, _)| known != name.as_bytes());
            parent.names.push((name.into(), node));
        }
    }

    /// Returns the directory at `path` from the top on, which is made if it is not there.
    fn directory(&mut self, path: &str) -> NodeId {
        let first = self.nodes.first_key_value().map(|(node, _)| *node);
        let mut here = first.unwrap_or(self.root);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let names = &self.nodes[&here].names;
            let known = names.iter().find(|(known, _)| known == name.as_bytes());
            here = match known {
                Some((_, node)) => *node,
                None => {
                    let node = self.fresh(here);
                    self.nodes.insert(node, Node::of(NodeKind::Directory, b""));
                    self.name(here, name, node);
                    node
                }
            };
        }
        here
    }

    fn known(&self, node: NodeId, kind: Option<NodeKind>) -> Result<&Node> {
        let known = self.nodes.get(&node).ok_or_else(|| {
            let what = format!("no node {} in tree {}", node.number, node.tree);
            Error::new(ErrorKind::Corrupt, what)
        })?;
        match kind {
            Some(kind) if kind != known.kind => Err(wrong_kind(node, &format!("{kind:?}"))),
            _ => Ok(known),
        }
    }
}

impl Node {
    fn of(kind: NodeKind, content: &[u8]) -> Self {
        Self {
            kind,
            content: Arc::new(content.to_vec()),
            names: Vec::new(),
        }
    }
}

impl FileSystem for MemoryFs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        let known = self.known(node, None)?;
        Ok(Stat {
            kind: known.kind,
            len_bytes: known.content.len() as u64,
            mode: 0o755,
            uid: 0,
            gid: 0,
            links: 1,
            modified: Time::default(),
            device: None,
        })
    }

    fn visit(
        &self,
        directory: NodeId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let known = self.known(directory, Some(NodeKind::Directory))?;
        for (name, node) in &known.names {
            let entry = Entry {
                name: name.clone(),
                node: *node,
                kind: Some(self.known(*node, None)?.kind),
            };
            if each(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let known = self.known(directory, Some(NodeKind::Directory))?;
        let is_it = |known: &[u8]| match self.any_case {
            true => known.eq_ignore_ascii_case(name),
            false => known == name,
        };
        let found = known.names.iter().find(|(known, _)| is_it(known));
        Ok(found.map(|(_, node)| *node))
    }

    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let content = &self.known(file, Some(NodeKind::File))?.content;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = content.get(start..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let known = self.known(link, Some(NodeKind::Link))?;
        Ok(known.content.to_vec())
    }
}
