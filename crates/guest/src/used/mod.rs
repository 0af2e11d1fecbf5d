//! What of some disks is in use: the bytes that a copy needs.
//!
//! Each file system knows what of its volume is in use ([`FileSystem::used`](crate::FileSystem::used));
//! from below, a disk is asked through its partitions, the arrays and volume groups that they are parts
//! of, and the logical volumes on those. What no table, superblock or label explains is in use, and so
//! are the gaps between partitions, boot code and both copies of a GPT. What is encrypted, or is not
//! understood, or may not be believed, is in use as a whole, and said.

mod exfat;
mod graph;
mod ranges;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use hako_block::{ErrorKind, Result};

pub use ranges::Ranges;

use crate::volumes::Volumes;
use graph::{Node, What};

/// Bytes of a volume that its file system is asked about at once.
const WINDOW_BYTES: u64 = 32 << 20;
/// The first and last bytes of a disk, which are always in use: boot code, tables and what firmware
/// keeps of its arrays.
const ENDS_BYTES: u64 = 1 << 20;
/// How deep volumes may lie in each other, hidden ones too, and how many pieces one question may fall
/// into: more than any machine has.
const DEEPEST: usize = 32;
const MOST_PIECES: usize = 1 << 20;
/// Notes that are kept.
const MOST_NOTES: usize = 1000;

/// What of some disks is in use.
pub struct UsedMap {
    nodes: Vec<Node>,
    /// For each disk its node.
    disks: Vec<usize>,
    /// What was found while asking, by node.
    notes: Mutex<Vec<(usize, String)>>,
}

/// What a volume has of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUse {
    /// Its short name, as in [`Volumes::list`]; hidden logical volumes have theirs too.
    pub name: String,
    /// What is in it, as blkid(8) says it; empty if that is not known.
    pub kind: String,
    /// The bytes of the disk that it has for itself: of what holds others, all that none of them has.
    pub bytes: u64,
    /// Those that are in use.
    pub used_bytes: u64,
    /// Those that are in use and passed over: what Windows swaps to.
    pub scratch_bytes: u64,
    /// Whether all of it is taken to be in use, because nobody knows more.
    pub is_whole: bool,
    /// Why, and what else is odd.
    pub notes: Vec<String>,
}

/// Who asks: counts pieces, and what falls to which node.
struct Asking<'a> {
    pieces: usize,
    counts: Option<&'a mut Vec<Count>>,
}

/// What a node has.
#[derive(Default, Clone)]
struct Count {
    bytes: u64,
    used: u64,
    scratch: u64,
    is_whole: bool,
}

impl UsedMap {
    /// Looks at all volumes. `keep_scratch`: what Windows swaps to is in use like anything else. Errors
    /// are those of reading.
    pub fn of(volumes: &Volumes, keep_scratch: bool) -> Result<Self> {
        let (nodes, disks) = graph::build(volumes, keep_scratch)?;
        Ok(Self {
            nodes,
            disks,
            notes: Mutex::default(),
        })
    }

    /// Returns what of a window of a disk (the how-manieth of those given, from 0) is in use. Errors
    /// are those of reading: what is damaged is in use.
    pub fn used(&self, disk: usize, window: &Range<u64>) -> Result<Ranges> {
        self.ask(disk, window, None)
    }

    /// Asks for all of a disk. `tick` is called with the bytes done now and then; its error ends it.
    /// Returns what is in use and how that falls to the volumes, in the order of their list.
    pub fn survey(
        &self,
        disk: usize,
        tick: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<VolumeUse>> {
        let mut counts = vec![Count::default(); self.nodes.len()];
        let len = self.disk_node(disk).map_or(0, |(_, node)| node.len);
        let mut at = 0;
        while at < len {
            let end = at.saturating_add(WINDOW_BYTES).min(len);
            self.ask(disk, &(at..end), Some(&mut counts))?;
            at = end;
            tick(at)?;
        }
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.nodes.iter().zip(counts).enumerate();
        let own = all.filter(|(_, (_, count))| count.bytes > 0);
        Ok(own
            .map(|(index, (node, count))| {
                let found = notes.iter().filter(|(at, _)| *at == index);
                let found = found.map(|(_, note)| note.clone());
                VolumeUse {
                    name: node.name.clone(),
                    kind: node.kind.clone(),
                    bytes: count.bytes,
                    used_bytes: count.used,
                    scratch_bytes: count.scratch,
                    is_whole: count.is_whole,
                    notes: node.note.iter().cloned().chain(found).collect(),
                }
            })
            .collect())
    }

    fn disk_node(&self, disk: usize) -> Option<(usize, &Node)> {
        let index = *self.disks.get(disk)?;
        Some((index, self.nodes.get(index)?))
    }

    fn ask(
        &self,
        disk: usize,
        window: &Range<u64>,
        counts: Option<&mut Vec<Count>>,
    ) -> Result<Ranges> {
        let Some((index, node)) = self.disk_node(disk) else {
            return Ok(Ranges::of(window.clone()));
        };
        let mut asking = Asking { pieces: 0, counts };
        let window = window.start..window.end.min(node.len);
        let mut used = self.of_node(index, &window, 0, &mut asking)?;
        let ends = [
            0..ENDS_BYTES.min(node.len),
            node.len.saturating_sub(ENDS_BYTES)..node.len,
        ];
        for end in ends {
            used.add(end.start.max(window.start)..end.end.min(window.end));
        }
        Ok(used)
    }

    /// Returns what of a window of a node is in use, clipped to it.
    fn of_node(
        &self,
        index: usize,
        window: &Range<u64>,
        depth: usize,
        asking: &mut Asking<'_>,
    ) -> Result<Ranges> {
        let whole = || Ranges::of(window.clone());
        let Some(node) = self.nodes.get(index) else {
            return Ok(whole());
        };
        asking.pieces += 1;
        if depth > DEEPEST || asking.pieces > MOST_PIECES {
            self.note(index, "volumes lie in each other in too many ways");
            asking.count(index, window, &whole(), &Ranges::default(), true);
            return Ok(whole());
        }
        if let What::Parts { parts, free } = &node.what {
            return self.of_parts(index, (parts, free), window, depth, asking);
        }
        let mut used = Ranges::default();
        let mut at = window.start;
        let mut is_whole = false;
        while at < window.end {
            let end = (at / WINDOW_BYTES + 1)
                .saturating_mul(WINDOW_BYTES)
                .min(window.end);
            let piece = at..end;
            match node.own(&piece) {
                Ok(found) => used.add_all(&found.within(&piece)),
                Err(error) if is_ignorance(error.kind()) => {
                    self.note(index, &error.to_string());
                    is_whole = true;
                    used.add(piece);
                }
                Err(error) => return Err(error),
            }
            at = end;
        }
        is_whole |= matches!(node.what, What::Whole);
        // What is behind its end is not its own.
        used.add(node.len.max(window.start)..window.end);
        let scratch = node.scratch.within(window);
        used.remove(&scratch);
        asking.count(index, window, &used, &scratch, is_whole);
        Ok(used)
    }

    /// Asks those that a node has parts of; what is in no part of them is in use, but for what is free.
    fn of_parts(
        &self,
        index: usize,
        (parts, free): (&[graph::Part], &Range<u64>),
        window: &Range<u64>,
        depth: usize,
        asking: &mut Asking<'_>,
    ) -> Result<Ranges> {
        let mut used = Ranges::default();
        let mut covered = Ranges::default();
        for part in parts {
            let share = &part.share;
            let end = share.start.saturating_add(share.len).min(window.end);
            let mut at = share.start.max(window.start);
            if at < end {
                covered.add(at..end);
            }
            while at < end && asking.pieces <= MOST_PIECES {
                let Some((above, len)) = share.above(at) else {
                    break;
                };
                let len = len.min(end - at);
                let asked = above..above.saturating_add(len);
                let found = self.of_node(part.node, &part.units(&asked), depth + 1, asking)?;
                for range in found.iter() {
                    let range = part.units(&range);
                    let (start, end) = (range.start.max(above), range.end.min(asked.end));
                    if start < end {
                        used.add(at + (start - above)..at + (end - above));
                    }
                }
                at += len;
            }
            // What nobody could be asked about is in use.
            if at < end {
                used.add(at..end);
            }
        }
        let mut own = covered.gaps(window);
        let bytes = own.n_bytes();
        own.remove(&Ranges::of(free.clone()));
        asking.add(index, bytes, own.n_bytes());
        used.add_all(&own);
        Ok(used)
    }

    fn note(&self, index: usize, what: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = notes.iter().any(|(at, note)| *at == index && note == what);
        if !is_known && notes.len() < MOST_NOTES {
            notes.push((index, what.to_owned()));
        }
    }
}

impl Asking<'_> {
    fn count(
        &mut self,
        index: usize,
        window: &Range<u64>,
        used: &Ranges,
        scratch: &Ranges,
        is_whole: bool,
    ) {
        self.add(
            index,
            window.end.saturating_sub(window.start),
            used.n_bytes(),
        );
        if let Some(count) = self.at(index) {
            count.scratch = count.scratch.saturating_add(scratch.n_bytes());
            count.is_whole |= is_whole;
        }
    }

    fn add(&mut self, index: usize, bytes: u64, used: u64) {
        if let Some(count) = self.at(index) {
            count.bytes = count.bytes.saturating_add(bytes);
            count.used = count.used.saturating_add(used);
        }
    }

    fn at(&mut self, index: usize) -> Option<&mut Count> {
        self.counts.as_mut()?.get_mut(index)
    }
}

/// Whether an error says that nobody knows, not that reading failed.
fn is_ignorance(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported)
}
