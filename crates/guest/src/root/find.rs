//! Where systems are installed.

use std::ops::ControlFlow;

use super::{SUBVOLUME_ROOT, top_level};
use crate::fs::NodeKind;
use crate::tree::{Found, Tree};
use crate::volumes::Volumes;

/// A root file system.
#[derive(Clone)]
pub struct Installation {
    /// The short name of the volume it is in.
    pub volume: String,
    /// The subvolume that it is, where its file system has those.
    pub subvolume: Option<String>,
    /// Whether it is Windows.
    pub is_windows: bool,
    pub(super) top: Found,
}

impl Installation {
    /// Returns its files without what is mounted in them.
    pub fn tree(&self) -> Tree {
        Tree::of(self.top.clone())
    }
}

/// Subvolumes of one file system that are looked at.
const MOST_SUBVOLUMES: usize = 64;

/// Returns the systems that are installed on some disks, in the order of their volumes. Of a btrfs
/// its default subvolume and those at its top level are looked at: snapshots are none.
pub fn installations(volumes: &Volumes) -> Vec<Installation> {
    let mut all = Vec::new();
    for volume in volumes.with_file_systems() {
        let Some(fs) = volume.file_system() else {
            continue;
        };
        let found = Found::new(fs.clone(), fs.root());
        let mut tops = vec![(None, found)];
        if fs.info().kind == "btrfs" {
            tops.extend(subvolumes(&top_level(fs)));
        }
        let mut seen = Vec::new();
        for (subvolume, top) in tops {
            let node = top.node();
            let Some(is_windows) = what_is_installed(&Tree::of(top.clone())) else {
                continue;
            };
            if seen.contains(&node) {
                continue;
            }
            seen.push(node);
            all.push(Installation {
                volume: volume.name.clone(),
                subvolume,
                is_windows,
                top,
            });
        }
    }
    all
}

/// Returns the installation that a kernel's command line names as its root (`root=`,
/// `rootflags=subvol=`), else the first one that is no Windows.
pub fn installation_of<'a>(
    all: &'a [Installation],
    volumes: &Volumes,
    options: &str,
) -> Option<&'a Installation> {
    let value = |key: &str| {
        let mut words = options.split_ascii_whitespace();
        words.rfind(|word| word.starts_with(key))?.get(key.len()..)
    };
    let is_named = |one: &&Installation, with_subvolume: bool| {
        let wanted = value("root=").unwrap_or_default();
        let is_it = volumes
            .find(wanted)
            .iter()
            .any(|found| found.name == one.volume);
        let flags = value("rootflags=").unwrap_or_default().split(',');
        let mut subvolumes = flags.filter_map(|flag| flag.strip_prefix("subvol="));
        let is_subvolume = subvolumes
            .next()
            .is_some_and(|wanted| one.subvolume.as_deref() == Some(wanted.trim_matches('/')));
        is_it && (is_subvolume || !with_subvolume)
    };
    let linux = || all.iter().filter(|one| !one.is_windows);
    linux()
        .find(|one| is_named(one, true))
        .or_else(|| linux().find(|one| is_named(one, false)))
        .or_else(|| linux().next())
}

/// Returns the subvolumes in a directory. One that cannot be read has none.
fn subvolumes(top: &Found) -> Vec<(Option<String>, Found)> {
    let mut found = Vec::new();
    let seen = top.visit(&mut |entry| {
        let is_one = entry.node.number == SUBVOLUME_ROOT && entry.node.tree != top.node().tree;
        if is_one {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            found.push((Some(name), Found::new(top.fs().clone(), entry.node)));
        }
        match found.len() < MOST_SUBVOLUMES {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    if seen.is_err() {
        found.clear();
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

/// Returns whether a system is installed there, and if so whether it is Windows. What cannot be
/// read is none.
fn what_is_installed(tree: &Tree) -> Option<bool> {
    // A link may lead to what is mounted: it counts without what it leads to.
    let has = |path: &str| tree.find_no_follow(path.as_bytes()).is_ok();
    let is_dir = |path: &str| {
        let stat = tree.stat(path.as_bytes());
        stat.is_ok_and(|stat| stat.kind == NodeKind::Directory)
    };
    let of_release = [
        "etc/os-release",
        "usr/lib/os-release",
        "etc/fstab",
        "etc/inittab",
    ];
    let of_system = ["usr", "lib", "bin", "sbin"];
    if of_release.into_iter().any(has) && of_system.into_iter().any(has) && is_dir("etc") {
        return Some(false);
    }
    // Without /etc as yet, a system that makes it at its first boot.
    if has("usr/lib/os-release") && is_dir("usr/lib") {
        return Some(false);
    }
    (is_dir("Windows/System32/config") || has("Windows/System32/ntoskrnl.exe")).then_some(true)
}
