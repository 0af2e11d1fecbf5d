//! Paths: the way from the root to a node, links followed inside, from one file system to the next
//! where one is mounted.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

use crate::fs::{Entry, FileSystem, NodeId, NodeKind, Stat};

/// Links that may be met on the way of one path, as Linux has it (`MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// File systems that may be mounted in one tree.
const MOST_MOUNTS: usize = 256;

/// File systems by paths: one, and those that are mounted in it. A path begins at the root whether
/// it begins with `/` or not; `..` of the root is the root, and so no path and no link leads out.
#[derive(Clone)]
pub struct Tree {
    /// The first one is the root.
    mounts: Vec<Mount>,
}

#[derive(Clone)]
struct Mount {
    top: Found,
    /// The directory that it covers; the root covers none.
    over: Option<Step>,
}

/// A node by the number of its mount.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Step {
    mount: usize,
    node: NodeId,
}

/// A node that a path led to, and the file system it is in.
#[derive(Clone)]
pub struct Found {
    fs: Arc<dyn FileSystem>,
    node: NodeId,
}

impl Found {
    /// Returns a node of `fs`.
    pub fn new(fs: Arc<dyn FileSystem>, node: NodeId) -> Self {
        Self { fs, node }
    }

    /// Returns the file system it is in.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// Returns its number there.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns whether both are one, whatever paths led there.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fs, &other.fs) && self.node == other.node
    }

    /// Returns what is known of it.
    pub fn stat(&self) -> Result<Stat> {
        self.fs.stat(self.node)
    }

    /// Visits the names in it, a directory; see [`FileSystem::visit`].
    pub fn visit(&self, each: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        self.fs.visit(self.node, each)
    }

    /// Reads its content; see [`FileSystem::read_at`].
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.fs.read_at(self.node, offset, buf)
    }

    /// Returns where it leads, a link.
    pub fn read_link(&self) -> Result<Vec<u8>> {
        self.fs.read_link(self.node)
    }

    /// Returns its content from the beginning on, as a stream.
    pub fn reader(&self) -> Reader {
        self.reader_from(0)
    }

    /// Returns its content from `offset` on, as a stream.
    pub fn reader_from(&self, offset: u64) -> Reader {
        let file = self.clone();
        Reader { file, offset }
    }
}

/// The content of a file as a stream. An error of the file system is inside of what it gives.
pub struct Reader {
    file: Found,
    offset: u64,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(self.offset, buf);
        let len = read.map_err(std::io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}

impl Tree {
    /// Returns the paths of `fs`.
    pub fn new(fs: Arc<dyn FileSystem>) -> Self {
        let root = fs.root();
        Self::of(Found::new(fs, root))
    }

    /// Returns the paths below a directory: a subvolume that is mounted without what is around it.
    pub fn of(top: Found) -> Self {
        let root = Mount { top, over: None };
        Self { mounts: vec![root] }
    }

    /// Returns the file system of the root.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        self.mounts[0].top.fs()
    }

    /// Mounts the directory `top` over the one at `path`. Errors: as of [`Tree::find`];
    /// [`ErrorKind::Invalid`] if there is no directory; [`ErrorKind::Unsupported`] past 256 mounts.
    pub fn mount(&mut self, path: &[u8], top: Found) -> Result<()> {
        let over = self.walk(path, true)?;
        if self.found(over).stat()?.kind != NodeKind::Directory {
            return Err(Error::invalid(format!("{}: no directory", shown(path))));
        }
        if self.mounts.len() >= MOST_MOUNTS {
            return Err(Error::unsupported(format!(
                "more than {MOST_MOUNTS} mounts"
            )));
        }
        let over = Some(over);
        self.mounts.push(Mount { top, over });
        Ok(())
    }

    /// Returns the node at `path`, a link at its end followed. Errors: [`ErrorKind::NotFound`] if
    /// nothing is there, [`ErrorKind::Invalid`] if a name on the way is no directory or there are
    /// more than 40 links.
    pub fn find(&self, path: &[u8]) -> Result<Found> {
        Ok(self.found(self.walk(path, true)?))
    }

    /// Like [`Tree::find`], but a link at the end of the path is what is found.
    pub fn find_no_follow(&self, path: &[u8]) -> Result<Found> {
        Ok(self.found(self.walk(path, false)?))
    }

    /// Like [`Tree::find`]; none if nothing is there.
    pub fn look_for(&self, path: &[u8]) -> Result<Option<Found>> {
        match self.find(path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what is known of the node at `path`, links followed.
    pub fn stat(&self, path: &[u8]) -> Result<Stat> {
        self.find(path)?.stat()
    }

    /// Returns the names in the directory at `path`, sorted. Errors: [`ErrorKind::Unsupported`] if
    /// there are more than `most`.
    pub fn entries(&self, path: &[u8], most: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.find(path)?.visit(&mut |entry| {
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
        let file = self.find(path)?;
        let stat = file.stat()?;
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
            match file.read_at(have as u64, &mut content[have..])? {
                0 => break,
                more => have += more,
            }
        }
        content.truncate(have);
        Ok(content)
    }

    fn found(&self, step: Step) -> Found {
        Found::new(Arc::clone(self.mounts[step.mount].top.fs()), step.node)
    }

    /// Returns the node that is seen where `step` is: the root of what is mounted over it.
    fn cross(&self, mut step: Step) -> Step {
        // Each mount covers what was there before it.
        for (mount, Mount { top, over }) in self.mounts.iter().enumerate() {
            if *over == Some(step) {
                step = Step {
                    mount,
                    node: top.node(),
                };
            }
        }
        step
    }

    fn root(&self) -> Step {
        self.cross(Step {
            mount: 0,
            node: self.mounts[0].top.node(),
        })
    }

    fn walk(&self, path: &[u8], follow_last: bool) -> Result<Step> {
        let missing =
            |what: &str| Error::new(ErrorKind::NotFound, format!("{}: {what}", shown(path)));
        let mut links = 0;
        // Where we are: the way from the root, itself not included.
        let mut way: Vec<Step> = Vec::new();
        // Names still to go, the next one last.
        let mut names = names_of(path);
        while let Some(name) = names.pop() {
            if name == b".." {
                way.pop();
                continue;
            }
            let here = way.last().copied().unwrap_or_else(|| self.root());
            let fs = self.mounts[here.mount].top.fs();
            if fs.stat(here.node)?.kind != NodeKind::Directory {
                return Err(Error::invalid(format!(
                    "{}: no directory on the way",
                    shown(path)
                )));
            }
            let node = fs
                .lookup(here.node, &name)?
                .ok_or_else(|| missing(&format!("no {} there", shown(&name))))?;
            let is_link = fs.stat(node)?.kind == NodeKind::Link;
            if !is_link || (names.is_empty() && !follow_last) {
                way.push(self.cross(Step { node, ..here }));
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(Error::invalid(format!("{}: too many links", shown(path))));
            }
            let target = fs.read_link(node)?;
            if target.first() == Some(&b'/') {
                way.clear();
            }
            names.extend(names_of(&target));
        }
        Ok(way.last().copied().unwrap_or_else(|| self.root()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::MemoryFs;

    fn tree() -> Tree {
        let root = MemoryFs::new("ext4")
            .dir("/boot")
            .dir("/home/a")
            .link("/bin", "usr/bin")
            .link("/kernel", "/boot/vmlinuz")
            .link("/out", "../../../etc/name")
            .link("/loop", "/loop")
            .file("/usr/bin/sh", "shell")
            .file("/etc/name", "root's");
        let boot = MemoryFs::new("ext4")
            .file("/vmlinuz-1", "kernel")
            .link("/vmlinuz", "vmlinuz-1")
            .link("/etc", "/etc")
            .link("/up", "../etc/name")
            .dir("/efi");
        let esp = MemoryFs::new("vfat").any_case().file("/EFI/x.efi", "efi");
        let mut tree = Tree::new(root.build());
        tree.mount(b"/boot", top_of(boot.build())).unwrap();
        tree.mount(b"/boot/efi", top_of(esp.build())).unwrap();
        tree
    }

    fn top_of(fs: Arc<dyn FileSystem>) -> Found {
        let root = fs.root();
        Found::new(fs, root)
    }

    #[test]
    fn links_work_across_mounts_and_never_lead_out() {
        let tree = tree();
        let read = |path: &str| tree.read(path.as_bytes(), 100).unwrap();
        for (path, content) in [
            ("/bin/sh", "shell"),
            ("/kernel", "kernel"),
            ("/boot/vmlinuz", "kernel"),
            ("/boot/etc/name", "root's"),
            ("/boot/up", "root's"),
            ("/out", "root's"),
            ("boot/../boot/./efi/efi/X.EFI", "efi"),
            ("/boot/efi/../vmlinuz", "kernel"),
            ("/boot/efi/../../etc/name", "root's"),
        ] {
            assert_eq!(read(path), content.as_bytes(), "{path}");
        }
        for path in ["/loop", "/boot/efi/none", "/etc/name/x"] {
            assert!(tree.find(path.as_bytes()).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_mounted_later_covers_what_was_there() {
        let mut tree = tree();
        let again = MemoryFs::new("xfs").file("/new", "new");
        tree.mount(b"/boot", top_of(again.build())).unwrap();
        assert_eq!(tree.find(b"/boot/new").unwrap().fs().info().kind, "xfs");
        assert!(tree.find(b"/boot/vmlinuz").is_err());
        let whole = MemoryFs::new("btrfs").file("/only", "");
        tree.mount(b"/", top_of(whole.build())).unwrap();
        assert!(tree.find(b"/only").is_ok());
        assert!(tree.find(b"/etc").is_err());
        assert!(
            tree.mount(b"/only", top_of(MemoryFs::new("xfs").build()))
                .is_err()
        );
    }

    #[test]
    fn a_file_is_read_whole_or_as_a_stream() {
        let tree = tree();
        assert!(tree.read(b"/etc/name", 5).is_err());
        let mut text = String::new();
        let mut reader = tree.find(b"/etc/name").unwrap().reader();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "root's");
        assert_eq!(tree.entries(b"/boot", 10).unwrap().len(), 5);
        assert!(tree.entries(b"/boot", 4).is_err());
    }
}
