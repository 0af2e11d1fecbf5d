//! What is noted while a file system is checked.

use std::collections::HashMap;
use std::ops::Range;

use hako_block::{Error, ErrorKind, Result};

use super::runs::Runs;
use super::{Checkup, is_of_content};
use crate::fs::{NodeId, NodeKind, Stat};

/// Findings that are kept of each kind.
const MOST_FINDINGS: usize = 100;

/// The owner of a run that belongs to no node.
pub(super) const STRUCTURE: u64 = u64::MAX;

/// What is known so far.
#[derive(Default)]
pub struct Audit {
    pub(super) report: Checkup,
    pub(super) runs: Runs,
    /// Runs were told of every node already.
    pub(super) has_all_runs: bool,
    /// Runs were told of some.
    pub(super) knows_runs: bool,
    /// All that is in use is somebody's run.
    pub(super) owns_all: bool,
    nodes: HashMap<NodeId, Seen>,
    /// Nodes that a name must lead to.
    wanted: Vec<NodeId>,
}

/// A node that a name led to.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) names: u32,
    pub(super) is_directory: bool,
    subdirectories: u32,
    /// None if it could not be read.
    links: Option<u32>,
}

impl Audit {
    /// Returns one of a volume of so many blocks.
    pub(super) fn of(n_blocks: u64) -> Self {
        let mut audit = Self::default();
        audit.runs.most = usize::try_from(n_blocks.saturating_mul(2)).unwrap_or(usize::MAX);
        audit
    }

    /// Returns whether more runs were noted than the volume has room for: something goes in circles.
    pub fn is_full(&self) -> bool {
        self.runs.is_full()
    }

    /// Notes that something is damaged.
    pub fn damaged(&mut self, place: &str, what: &str) {
        self.report.n_damage += 1;
        if self.report.damage.len() < MOST_FINDINGS {
            self.report.damage.push(format!("{place}: {what}"));
        }
    }

    /// Takes an error of reading the content of a volume as a finding; any other is returned.
    pub fn take(&mut self, place: &str, error: Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Unsupported => self.unknown(&format!("{place}: {error}")),
            _ if is_of_content(&error) => self.damaged(place, &error.to_string()),
            _ => return Err(error),
        }
        Ok(())
    }

    /// Notes what is odd.
    pub fn remark(&mut self, what: String) {
        self.report.remarks.push(what);
    }

    /// Notes what was looked at.
    pub fn checked(&mut self, what: &str) {
        self.report.checked.push(what.to_owned());
    }

    /// Notes what is not looked at.
    pub fn unknown(&mut self, what: &str) {
        let list = &mut self.report.not_checked;
        if list.len() < MOST_FINDINGS && !list.iter().any(|known| known == what) {
            list.push(what.to_owned());
        }
    }

    /// Notes bytes that a node has.
    pub fn has(&mut self, node: u64, range: Range<u64>) {
        self.runs.add(range, node);
    }

    /// Notes bytes that a table of the file system has.
    pub fn has_structure(&mut self, range: Range<u64>) {
        self.runs.add(range, STRUCTURE);
    }

    /// Says that the runs of all nodes were noted; `owns_all`: and of all else that is in use.
    pub fn has_all_runs(&mut self, owns_all: bool) {
        self.has_all_runs = true;
        self.owns_all = owns_all;
    }

    /// Says that all that is in use is noted once all names are walked.
    pub fn will_own_all(&mut self) {
        self.owns_all = true;
    }

    /// Says that nodes may have runs together.
    pub fn shares_runs(&mut self) {
        self.runs.may_overlap = true;
    }

    /// Notes a node that a name must lead to.
    pub fn wants_name(&mut self, node: NodeId) {
        self.wanted.push(node);
    }

    pub(super) fn seen(&mut self, node: NodeId) -> Option<&mut Seen> {
        self.nodes.get_mut(&node)
    }

    /// Notes a node that is met for the first time.
    pub(super) fn meet(&mut self, node: NodeId, directory: Option<NodeId>, stat: Option<&Stat>) {
        let is_directory = stat.is_some_and(|stat| stat.kind == NodeKind::Directory);
        let seen = Seen {
            names: 1,
            is_directory,
            subdirectories: 0,
            links: stat.map(|stat| stat.links),
        };
        self.nodes.insert(node, seen);
        let above = directory.and_then(|directory| self.nodes.get_mut(&directory));
        if let Some(above) = above.filter(|_| is_directory) {
            above.subdirectories = above.subdirectories.saturating_add(1);
        }
    }

    /// Compares the names that were met with what the nodes count.
    pub(super) fn compare_names(&mut self, kind: &str) {
        for node in std::mem::take(&mut self.wanted) {
            if !self.nodes.contains_key(&node) {
                let place = format!("inode {}", node.number);
                self.damaged(&place, "is in use, and no directory names it");
            }
        }
        let of_directories = match kind {
            "ext2" | "ext3" | "ext4" | "xfs" => true,
            "btrfs" => false,
            _ => return self.unknown("how many names a file has"),
        };
        let mut wrong = Vec::new();
        for (node, seen) in &self.nodes {
            let Some(links) = seen.links else { continue };
            let wanted = match seen.is_directory {
                false => seen.names,
                true if of_directories => seen.subdirectories.saturating_add(2),
                true => continue,
            };
            // ext4 stops to count the subdirectories of one that has very many.
            let counts = links != 1 || !seen.is_directory || kind == "xfs";
            if links != wanted && counts {
                wrong.push((node.number, links, wanted));
            }
        }
        wrong.sort_unstable();
        for (node, links, wanted) in wrong {
            let what = format!("counts {links} links, and has {wanted}");
            self.damaged(&format!("inode {node}"), &what);
        }
        self.checked("links");
    }

    pub(super) fn into_report(self) -> Checkup {
        self.report
    }
}
