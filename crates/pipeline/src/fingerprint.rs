//! The fingerprint of a disk's content, the same however it is allocated.
//!
//! BLAKE3 over the index (u64, little-endian) and the BLAKE3 of every chunk of 1 MiB that is not
//! all zero, ascending, then over the virtual size. Chunks are hashed in the workers, and what the
//! extent map calls zero is never read.

use std::fmt;
use std::ops::Range;

use hako_block::{BlockImage, ExtentKind, Result, Sink, is_zero};

use crate::CopyOptions;
use crate::copy::copy_first;
use crate::plan::{Run, WINDOW_BYTES};

const CHUNK_BYTES: u64 = WINDOW_BYTES;

/// The fingerprint of a disk's content and virtual size.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the fingerprint of `image` as a disk of `virtual_size` bytes: its first ones,
/// followed by zeros if there are fewer.
pub fn fingerprint(
    image: &dyn BlockImage,
    virtual_size: u64,
    options: &CopyOptions<'_>,
) -> Result<Fingerprint> {
    let options = CopyOptions {
        fingerprint: true,
        keep_holes: false,
        detect_zeros: false,
        rate: None,
        ..*options
    };
    let report = copy_first(image, Box::new(Nowhere), virtual_size, &options)?;
    // Always there: it was asked for.
    Ok(report.fingerprint.unwrap_or(Fingerprint([0; 32])))
}

/// A sink for who only wants what is seen on the way.
struct Nowhere;

impl Sink for Nowhere {
    fn unit_bytes(&self) -> u64 {
        4096
    }

    fn data(&mut self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn zero(&mut self, _range: Range<u64>) -> Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Index and hash of a chunk that is not all zero.
pub(crate) type Chunk = (u64, [u8; 32]);

/// Hashes the chunks that `runs` touch. `bytes` holds the data from guest offset `start` on; all
/// data of each chunk is in it.
pub(crate) fn take_chunks(runs: &[Run], start: u64, bytes: &[u8], chunks: &mut Vec<Chunk>) {
    let data = runs
        .iter()
        .filter(|run| run.kind == ExtentKind::Data)
        .flat_map(|run| split_at_chunks(&run.range));
    let mut hashing: Option<Hashing> = None;
    for piece in data {
        let index = piece.start / CHUNK_BYTES;
        if let Some(done) = hashing.take_if(|hashing| hashing.index != index) {
            chunks.extend(done.finish());
        }
        let hashing = hashing.get_or_insert_with(|| Hashing::new(index));
        let bytes = &bytes[(piece.start - start) as usize..(piece.end - start) as usize];
        hashing.add(piece.start % CHUNK_BYTES, bytes);
    }
    chunks.extend(hashing.and_then(Hashing::finish));
}

fn split_at_chunks(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let mut position = range.start;
    std::iter::from_fn(move || {
        let start = position;
        position = end.min((start / CHUNK_BYTES + 1).saturating_mul(CHUNK_BYTES));
        (start < end).then_some(start..position)
    })
}

/// The hash of one chunk, all of 1 MiB even where the disk ends before.
struct Hashing {
    index: u64,
    hasher: blake3::Hasher,
    position: u64,
    is_zero: bool,
}

impl Hashing {
    fn new(index: u64) -> Self {
        Self {
            index,
            hasher: blake3::Hasher::new(),
            position: 0,
            is_zero: true,
        }
    }

    fn add(&mut self, at: u64, bytes: &[u8]) {
        self.is_zero = self.is_zero && is_zero(bytes);
        self.zeros_to(at);
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
    }

    fn zeros_to(&mut self, at: u64) {
        while self.position < at {
            let len = (at - self.position).min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..len as usize]);
            self.position += len;
        }
    }

    fn finish(mut self) -> Option<Chunk> {
        if self.is_zero {
            return None;
        }
        self.zeros_to(CHUNK_BYTES);
        Some((self.index, *self.hasher.finalize().as_bytes()))
    }
}

/// What stands for zeros that were not read.
pub(crate) static ZEROS: [u8; 65536] = [0; 65536];

/// The fingerprint as it grows.
pub(crate) struct Fold(blake3::Hasher);

impl Fold {
    pub(crate) fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    pub(crate) fn add(&mut self, chunks: &[Chunk]) {
        for (index, hash) in chunks {
            self.0.update(&index.to_le_bytes());
            self.0.update(hash);
        }
    }

    pub(crate) fn finish(mut self, virtual_size: u64) -> Fingerprint {
        self.0.update(&virtual_size.to_le_bytes());
        Fingerprint(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use hako_block::{Cancel, NoProgress};

    use super::*;
    use crate::testing::{FakeImage, Random};

    fn of(image: &FakeImage, threads: usize) -> Fingerprint {
        let cancel = Cancel::default();
        let options = CopyOptions {
            threads,
            ..CopyOptions::new(&NoProgress, &cancel)
        };
        fingerprint(image, image.virtual_size(), &options).unwrap()
    }

    /// The definition, written down as plainly as can be.
    fn by_definition(content: &[u8]) -> Fingerprint {
        let mut all = Vec::new();
        for (index, chunk) in content.chunks(1 << 20).enumerate() {
            let mut chunk = chunk.to_vec();
            chunk.resize(1 << 20, 0);
            if chunk.iter().any(|byte| *byte != 0) {
                all.extend((index as u64).to_le_bytes());
                all.extend(blake3::hash(&chunk).as_bytes());
            }
        }
        all.extend((content.len() as u64).to_le_bytes());
        Fingerprint(*blake3::hash(&all).as_bytes())
    }

    #[test]
    fn fingerprint_depends_on_content_alone() {
        for seed in 0..8 {
            let image = FakeImage::random(&mut Random::new(seed), 3 << 20);
            let expected = by_definition(image.content());
            assert_eq!(of(&image, 1), expected, "seed {seed}");
            assert_eq!(of(&image.all_data(), 3), expected, "seed {seed}");
        }
    }

    #[test]
    fn one_changed_bit_changes_it() {
        let image = FakeImage::random(&mut Random::new(7), 3 << 20).all_data();
        let mut content = image.content().to_vec();
        content[image.content().len() / 2] ^= 1;
        assert_ne!(of(&image, 2), by_definition(&content));
    }
}
