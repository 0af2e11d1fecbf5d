//! What a disk may hold after the power went: everything that was synced, and any part of what
//! was not.

use std::collections::BTreeMap;

use super::fault::{Op, apply};
use super::{FaultFolder, Rng, SparseBytes};

/// The sector of a disk: a write may be torn between two, never inside one.
const SECTOR: usize = 512;

/// One possible state of a folder after a cut.
pub struct CutImage {
    /// How many operations of the log had been issued.
    pub n_ops: usize,
    /// Which of them were lost, for the failing test's message.
    pub lost: String,
    /// The folder as it would be found, with an empty log.
    pub folder: FaultFolder,
}

/// Calls `each` with possible states after a cut at every point of `log`. `before` is what the
/// files held when the log began, `numbers` their numbers then. At each point: all unsynced
/// operations lost, all kept, then up to `n_variants` of: one lost, one kept, one write torn,
/// random subsets.
pub fn cut_images(
    before: &BTreeMap<String, SparseBytes>,
    numbers: &BTreeMap<String, usize>,
    log: &[Op],
    n_variants: usize,
    rng: &mut Rng,
    mut each: impl FnMut(CutImage),
) {
    let mut disk = Disk::new(before, numbers);
    for n_ops in 0..=log.len() {
        if let Some(op) = n_ops.checked_sub(1).map(|last| &log[last]) {
            disk.issue(op);
        }
        for (lost, pick) in disk.picks(n_variants, rng) {
            each(CutImage {
                n_ops,
                lost,
                folder: disk.state(&pick),
            });
        }
    }
}

/// What is kept of one pending operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    /// Of a write, the sectors whose bit (by number modulo 64) is set.
    Torn(u64),
}

struct Disk<'a> {
    names: BTreeMap<String, usize>,
    durable: BTreeMap<usize, SparseBytes>,
    pending: Vec<(usize, &'a Op)>,
}

impl<'a> Disk<'a> {
    fn new(before: &BTreeMap<String, SparseBytes>, numbers: &BTreeMap<String, usize>) -> Self {
        let durable = numbers
            .iter()
            .map(|(name, file)| (*file, before[name].clone()))
            .collect();
        Self {
            names: numbers.clone(),
            durable,
            pending: Vec::new(),
        }
    }

    fn issue(&mut self, op: &'a Op) {
        match op {
            Op::Create { file, name } => {
                self.names.insert(name.clone(), *file);
                self.durable.insert(*file, SparseBytes::default());
            }
            Op::Replace { file, name, bytes } => {
                self.names.insert(name.clone(), *file);
                self.durable.insert(*file, SparseBytes::from_bytes(bytes));
            }
            Op::Remove { name } => {
                self.names.remove(name);
            }
            Op::Sync { file } => {
                let content = self.durable.entry(*file).or_default();
                for (_, op) in self.pending.iter().filter(|(of, _)| of == file) {
                    apply(content, op);
                }
                self.pending.retain(|(of, _)| of != file);
            }
            Op::Write { file, .. } | Op::SetLen { file, .. } | Op::Punch { file, .. } => {
                self.pending.push((*file, op));
            }
        }
    }

    /// Chooses which pending operations are kept.
    fn picks(&self, n_variants: usize, rng: &mut Rng) -> Vec<(String, Vec<Fate>)> {
        let n = self.pending.len();
        let mut picks = vec![("all unsynced".to_owned(), vec![Fate::Lost; n])];
        if n == 0 {
            return picks;
        }
        picks.push(("nothing".to_owned(), vec![Fate::Kept; n]));
        for variant in 0..n_variants {
            let one = rng.below(0..n as u64) as usize;
            let mut pick;
            let text;
            match variant % 4 {
                0 if n > 1 => {
                    pick = vec![Fate::Kept; n];
                    pick[one] = Fate::Lost;
                    text = format!("only {}", self.describe(one));
                }
                1 if n > 1 => {
                    pick = vec![Fate::Lost; n];
                    pick[one] = Fate::Kept;
                    text = format!("all unsynced but {}", self.describe(one));
                }
                2 => {
                    pick = vec![Fate::Kept; n];
                    let bits = rng.next_u64();
                    pick[one] = Fate::Torn(bits);
                    text = format!("sectors (mask {bits:#x} kept) of {}", self.describe(one));
                }
                _ => {
                    pick = (0..n)
                        .map(|_| {
                            if rng.one_in(2) {
                                Fate::Kept
                            } else {
                                Fate::Lost
                            }
                        })
                        .collect();
                    let lost: Vec<_> = (0..n)
                        .filter(|at| pick[*at] == Fate::Lost)
                        .map(|at| self.describe(at))
                        .collect();
                    text = lost.join(", ");
                }
            }
            picks.push((text, pick));
        }
        picks
    }

    fn describe(&self, at: usize) -> String {
        let (file, op) = &self.pending[at];
        match op {
            Op::Write { offset, bytes, .. } => {
                format!("write {:#x}+{:#x} of file {file}", offset, bytes.len())
            }
            Op::SetLen { len, .. } => format!("set_len {len:#x} of file {file}"),
            Op::Punch { range, .. } => format!("punch {range:x?} of file {file}"),
            _ => String::new(),
        }
    }

    fn state(&self, pick: &[Fate]) -> FaultFolder {
        let mut contents = self.durable.clone();
        for ((file, op), fate) in self.pending.iter().zip(pick) {
            let content = contents.entry(*file).or_default();
            match (fate, op) {
                (Fate::Kept, op) => apply(content, op),
                (Fate::Torn(bits), Op::Write { offset, bytes, .. }) => {
                    apply_torn(content, *offset, bytes, *bits);
                }
                _ => {}
            }
        }
        FaultFolder::with_files(self.names.iter().map(|(name, file)| {
            let content = contents.get(file).cloned().unwrap_or_default();
            (name.clone(), content)
        }))
    }
}

fn apply_torn(content: &mut SparseBytes, offset: u64, bytes: &[u8], bits: u64) {
    let mut at = 0;
    while at < bytes.len() {
        let position = offset + at as u64;
        let sector = position / SECTOR as u64;
        let len = (SECTOR - (position % SECTOR as u64) as usize).min(bytes.len() - at);
        if bits >> (sector % 64) & 1 == 1 {
            content.write(position, &bytes[at..at + len]);
        }
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Resolver};

    #[test]
    fn synced_bytes_survive_and_unsynced_ones_may_not() {
        let folder =
            FaultFolder::with_files([("f".to_owned(), SparseBytes::from_bytes(&[0; 4096]))]);
        let (before, numbers) = (folder.files(), folder.numbers());
        let file = folder.open("f", Access::ReadWrite).unwrap().storage;
        file.write_at(0, &[1; 512]).unwrap();
        file.sync().unwrap();
        file.write_at(512, &[2; 1024]).unwrap();
        folder.replace("g", b"new").unwrap();
        let log = folder.take_log();
        let (mut n, mut torn, mut lost) = (0, false, false);
        cut_images(&before, &numbers, &log, 20, &mut Rng::new(1), |image| {
            n += 1;
            let files = image.folder.files();
            let bytes = files["f"].to_vec();
            if image.n_ops >= 2 {
                assert_eq!(bytes[..512], [1; 512], "{}", image.lost);
            }
            assert_eq!(files.contains_key("g"), image.n_ops == 4);
            torn |= image.n_ops == 4 && bytes[512] != bytes[1024];
            lost |= image.n_ops == 4 && bytes[512] == 0;
        });
        assert!(n > 40 && torn && lost);
    }
}
