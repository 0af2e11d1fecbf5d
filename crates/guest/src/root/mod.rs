//! A guest as it would see itself: its root file system, and what its fstab mounts in it.

mod find;
pub mod fstab;
mod gpt_auto;
mod kinds;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

pub use find::{Installation, installation_of, installations};
pub use kinds::Place;

use crate::fs::{FileSystem, NodeId};
use crate::tree::{Found, Tree};
use crate::volumes::{FoundVolume, Volumes};
use fstab::Line;

/// A guest's files as the guest sees them.
pub struct Root {
    /// All that is mounted.
    pub tree: Tree,
    /// What is mounted where, the root first.
    pub mounts: Vec<Mounted>,
    /// What could not be mounted, and why.
    pub remarks: Vec<String>,
}

/// A file system that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where, without a slash at the end.
    pub path: String,
    /// The short name of the volume it is in.
    pub volume: String,
    /// Its kind.
    pub kind: &'static str,
    /// The subvolume that is mounted of it, as fstab calls it.
    pub subvolume: Option<String>,
}

/// The longest fstab that is read.
const FSTAB_BYTES: usize = 1 << 20;

impl Root {
    /// Mounts an installation's root, and all in it that its fstab names and these disks have; what
    /// is not there is a remark. What fstab does not name is found by the types of its disk's GPT, as
    /// systemd-gpt-auto-generator does. Errors: those of reading the root.
    pub fn mount(volumes: &Volumes, installation: &Installation) -> Result<Self> {
        let mut root = Self {
            tree: Tree::of(installation.top.clone()),
            mounts: vec![Mounted {
                path: "/".into(),
                volume: installation.volume.clone(),
                kind: installation.top.fs().info().kind,
                subvolume: installation.subvolume.clone(),
            }],
            remarks: Vec::new(),
        };
        let text = match root.tree.read(b"/etc/fstab", FSTAB_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                root.remarks.push(format!("/etc/fstab: {error}"));
                Vec::new()
            }
        };
        let mut lines = fstab::parse(&text);
        // What is above is mounted first.
        lines.sort_by_key(|line| depth(&line.target));
        for line in lines.iter().filter(|line| depth(&line.target) > 0) {
            let is_bind = line.has("bind") || line.has("rbind");
            let kind = line.kind.as_str();
            let holds_files = !matches!(kind, "swap" | "none" | "ignore");
            if !is_bind && (!holds_files || Place::of(kind) != Place::Disk) {
                continue;
            }
            if let Err(error) = root.mount_line(volumes, line) {
                let remark = format!("{}: {} is not mounted: {error}", line.target, line.source);
                root.remarks.push(remark);
            }
        }
        gpt_auto::mount(&mut root, volumes);
        Ok(root)
    }

    /// Returns the volume that is mounted at the root.
    pub fn volume<'v>(&self, volumes: &'v Volumes) -> Option<&'v FoundVolume> {
        let name = &self.mounts.first()?.volume;
        volumes.list().iter().find(|found| found.name == *name)
    }

    fn mount_line(&mut self, volumes: &Volumes, line: &Line) -> Result<()> {
        if line.has("bind") || line.has("rbind") {
            let top = self.tree.find(line.source.as_bytes())?;
            return self.tree.mount(line.target.as_bytes(), top);
        }
        let found = volumes.find(&line.source);
        let with_files = found.iter().find(|found| found.file_system().is_some());
        let Some(volume) = with_files.or_else(|| found.first()) else {
            return Err(Error::new(ErrorKind::NotFound, "is not on these disks"));
        };
        let Some(fs) = volume.file_system() else {
            let what = match volume.content.kind {
                "" => "holds no file system that is known".to_owned(),
                kind => format!("holds {kind}, which is not read"),
            };
            return Err(Error::unsupported(what));
        };
        if found.len() > 1 {
            let n = found.len();
            let name = &volume.name;
            let remark = format!("{n} volumes are {}: {name} is taken", line.source);
            self.remarks.push(remark);
        }
        let subvolume = line.option("subvol").or(line.option("subvolid"));
        let top = top_of(fs, line)?;
        self.add(&line.target, volume, top, subvolume)
    }

    fn add(
        &mut self,
        path: &str,
        volume: &FoundVolume,
        top: Found,
        subvolume: Option<&str>,
    ) -> Result<()> {
        let kind = top.fs().info().kind;
        // As `/boot/efi/` in an fstab.
        let path = path.trim_end_matches('/');
        self.tree.mount(path.as_bytes(), top)?;
        self.mounts.push(Mounted {
            path: path.to_owned(),
            volume: volume.name.clone(),
            kind,
            subvolume: subvolume.map(str::to_owned),
        });
        Ok(())
    }
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

/// Returns what a line of fstab mounts of a file system: its root, or a subvolume.
fn top_of(fs: &Arc<dyn FileSystem>, line: &Line) -> Result<Found> {
    if fs.info().kind == "btrfs" {
        if let Some(path) = line.option("subvol") {
            return Tree::of(top_level(fs)).find(path.as_bytes());
        }
        if let Some(id) = line.option("subvolid") {
            let id = id
                .parse()
                .map_err(|_| Error::invalid(format!("subvolid={id}")))?;
            return Ok(subvolume(fs, if id == 0 { TOP_LEVEL } else { id }));
        }
    }
    Ok(Found::new(Arc::clone(fs), fs.root()))
}

/// The tree of btrfs's top level, and the number of every subvolume's root.
const TOP_LEVEL: u64 = 5;
const SUBVOLUME_ROOT: u64 = 256;

fn subvolume(fs: &Arc<dyn FileSystem>, tree: u64) -> Found {
    let number = SUBVOLUME_ROOT;
    Found::new(Arc::clone(fs), NodeId { tree, number })
}

/// Returns the directory of a file system that all of it is below: of btrfs the top level, whatever
/// its default subvolume is.
pub(crate) fn top_level(fs: &Arc<dyn FileSystem>) -> Found {
    match fs.info().kind {
        "btrfs" => subvolume(fs, TOP_LEVEL),
        _ => Found::new(Arc::clone(fs), fs.root()),
    }
}
