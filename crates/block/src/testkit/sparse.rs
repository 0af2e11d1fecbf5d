//! The content of a file as pages: copies are cheap, and a file of terabytes costs what is in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes in a page; a page that is absent is a hole.
const PAGE: u64 = 4096;

/// A sparse file's content. Clones share their pages until one is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SparseBytes {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

/// Calls `each` with every page that the range touches, the place inside the page, and the place
/// inside the range.
fn for_pages(offset: u64, len: usize, mut each: impl FnMut(u64, Range<usize>, Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let inside = (at % PAGE) as usize;
        let now = (PAGE as usize - inside).min(len - done);
        each(at / PAGE, inside..inside + now, done..done + now);
        done += now;
    }
}

impl SparseBytes {
    /// Returns the content `bytes`, every page present.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes that are present.
    pub fn allocated_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// Fills `buf`; returns false where the file ends before.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> bool {
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= self.len => {}
            _ => return false,
        }
        for_pages(offset, buf.len(), |page, inside, place| {
            match self.pages.get(&page) {
                Some(bytes) => buf[place].copy_from_slice(&bytes[inside]),
                None => buf[place].fill(0),
            }
        });
        true
    }

    /// Writes, growing where needed.
    pub fn write(&mut self, offset: u64, buf: &[u8]) {
        for_pages(offset, buf.len(), |page, inside, place| {
            let bytes = self
                .pages
                .entry(page)
                .or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(bytes)[inside].copy_from_slice(&buf[place]);
        });
        self.len = self.len.max(offset + buf.len() as u64);
    }

    /// Returns whether writing there takes new space.
    pub fn needs_space(&self, offset: u64, len: usize) -> bool {
        let mut needs = false;
        for_pages(offset, len, |page, _, _| {
            needs |= !self.pages.contains_key(&page);
        });
        needs
    }

    /// Sets the length.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.punch(len..self.len.next_multiple_of(PAGE));
        }
        self.len = len;
    }

    /// Makes a range zeros, dropping whole pages. Never grows.
    pub fn punch(&mut self, range: Range<u64>) {
        let first_whole = range.start.div_ceil(PAGE);
        let end_whole = range.end / PAGE;
        if first_whole < end_whole {
            let gone: Vec<u64> = self
                .pages
                .range(first_whole..end_whole)
                .map(|(page, _)| *page)
                .collect();
            for page in gone {
                self.pages.remove(&page);
            }
        }
        let partial = [
            range.start..range.end.min(first_whole * PAGE),
            range.start.max(end_whole * PAGE)..range.end,
        ];
        for part in partial.into_iter().filter(|part| part.start < part.end) {
            let len = (part.end - part.start) as usize;
            for_pages(part.start, len, |page, inside, _| {
                if let Some(bytes) = self.pages.get_mut(&page) {
                    Arc::make_mut(bytes)[inside].fill(0);
                }
            });
        }
    }

    /// Writes the content to a file of the host, what is absent as holes. Panics if the host fails.
    pub fn save(&self, path: &Path) {
        let file = File::create(path).expect("the host creates a file");
        file.set_len(self.len).expect("the host sets its length");
        let mut offset = 0;
        while offset < self.len {
            let (len, present) = self.run_at(offset);
            if present {
                let mut bytes = vec![0; len.min(self.len - offset) as usize];
                self.read(offset, &mut bytes);
                file.write_all_at(&bytes, offset)
                    .expect("the host writes to it");
            }
            offset += len;
        }
    }

    /// Returns the run at `offset`, which must be below the length: its length, and whether it is
    /// present.
    pub fn run_at(&self, offset: u64) -> (u64, bool) {
        let first = offset / PAGE;
        let present = self.pages.contains_key(&first);
        let end_page = if present {
            let mut next = first + 1;
            for (page, _) in self.pages.range(first + 1..) {
                if *page != next {
                    break;
                }
                next += 1;
            }
            next
        } else {
            self.pages
                .range(first..)
                .next()
                .map_or(self.len.div_ceil(PAGE), |(page, _)| *page)
        };
        ((end_page * PAGE).min(self.len) - offset, present)
    }

    /// Returns the content as plain bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("fits in memory")];
        self.read(0, &mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Rng;

    #[test]
    fn behaves_like_plain_bytes() {
        let mut rng = Rng::new(1);
        let mut sparse = SparseBytes::default();
        let mut plain: Vec<u8> = Vec::new();
        for _ in 0..500 {
            let offset = rng.below(0..30_000);
            let len = rng.below(0..10_000) as usize;
            let end = offset as usize + len;
            match rng.below(0..4) {
                0 | 1 => {
                    let bytes = rng.bytes(len);
                    sparse.write(offset, &bytes);
                    if len > 0 {
                        plain.resize(plain.len().max(end), 0);
                        plain[offset as usize..end].copy_from_slice(&bytes);
                    } else {
                        plain.resize(plain.len().max(end), 0);
                    }
                }
                2 => {
                    sparse.punch(offset..end as u64);
                    let end = end.min(plain.len());
                    if (offset as usize) < end {
                        plain[offset as usize..end].fill(0);
                    }
                }
                _ => {
                    sparse.set_len(end as u64);
                    plain.resize(end, 0);
                }
            }
            assert_eq!(sparse.to_vec(), plain);
        }
    }

    #[test]
    fn runs_tell_holes_from_data() {
        let mut sparse = SparseBytes::default();
        sparse.set_len(1 << 40);
        sparse.write(8192, &[1; 5000]);
        assert_eq!(sparse.run_at(100), (8092, false));
        assert_eq!(sparse.run_at(8192), (8192, true));
        assert!(!sparse.run_at(16384).1);
        assert_eq!(sparse.run_at(16384).0, (1 << 40) - 16384);
    }
}
