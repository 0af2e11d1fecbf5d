//! Who has which bytes of a volume.

use std::ops::Range;

use super::audit::{Audit, STRUCTURE};
use crate::used::Ranges;

/// Runs of bytes, each of a node.
#[derive(Default)]
pub(super) struct Runs {
    all: Vec<(u64, u64, u64)>,
    /// Nodes may have the same bytes.
    pub(super) may_overlap: bool,
    /// No more than these are kept, and some.
    pub(super) most: usize,
}

/// What the smallest volume may have.
const LEAST: usize = 10_000;

impl Runs {
    pub fn add(&mut self, range: Range<u64>, node: u64) {
        if !range.is_empty() && !self.is_full() {
            self.all.push((range.start, range.end, node));
        }
    }

    pub fn is_full(&self) -> bool {
        self.all.len() >= self.most.saturating_add(LEAST)
    }

    /// Returns them all as one set; notes what lies past the end, and what two have.
    pub fn sorted(mut self, len: u64, audit: &mut Audit) -> Ranges {
        self.all.sort_unstable();
        let mut all = Ranges::default();
        // The one that reaches farthest so far.
        let mut last: Option<(u64, u64)> = None;
        for (start, end, node) in &self.all {
            if *end > len {
                let what = format!("bytes {start}..{end} are past the end ({len})");
                audit.damaged(&name(*node), &what);
            }
            if let Some((reached, other)) = last
                && *start < reached
                && !self.may_overlap
            {
                let end = reached.min(*end);
                let what = format!("has bytes {start}..{end}, and so has {}", name(other));
                audit.damaged(&name(*node), &what);
            }
            if last.is_none_or(|(reached, _)| reached < *end) {
                last = Some((*end, *node));
            }
            all.add(*start..(*end).min(len));
        }
        all
    }
}

fn name(node: u64) -> String {
    match node {
        STRUCTURE => "a table of the file system".to_owned(),
        node => format!("node {node}"),
    }
}
