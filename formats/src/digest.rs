//! Digests of files, as the manifest of an OVF has them (DSP0243, section 6.4 "Manifest").

use std::fmt::Write;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use hako_block::{Error, Result, Storage};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};

/// How a file is digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// SHA-1: what OVF 1.0 and 1.1 know. It shows damage, but no forgery.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512];

    /// Returns a manifest's word for it: "SHA256".
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha512 => "SHA512",
        }
    }

    /// Returns the length of its digests in bytes.
    pub fn digest_bytes(self) -> usize {
        match self {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    /// Reads a manifest's word, in any case.
    fn from_str(text: &str) -> Result<Self> {
        let named = |algorithm: &Algorithm| algorithm.name().eq_ignore_ascii_case(text);
        Algorithm::ALL.into_iter().find(named).ok_or_else(|| {
            Error::unsupported(format!("no digest {text:?} is known"))
                .hint("manifests have SHA1, SHA256 or SHA512")
        })
    }
}

/// A digest that grows.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// Returns the digest of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(Context::new(match algorithm {
            Algorithm::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha512 => &SHA512,
        }))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest.
    pub fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

/// A digest that grows in a thread of its own: who has the bytes waits only while that thread is
/// more than a few pieces behind. Dropped unfinished, the thread ends by itself.
pub struct HashingThread {
    /// What was not handed over yet.
    piece: Vec<u8>,
    full: Sender<Vec<u8>>,
    /// Pieces that were hashed, to be filled again: there are only so many of them.
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<Hasher>,
}

impl HashingThread {
    const PIECE_BYTES: usize = 128 << 10;
    const N_PIECES: usize = 8;

    /// Starts the digest of nothing yet.
    pub fn start(algorithm: Algorithm) -> Result<Self> {
        let (full, to_hash) = channel::<Vec<u8>>();
        let (hashed, empty) = channel();
        for _ in 1..Self::N_PIECES {
            // The other end is held just below.
            let _ = hashed.send(Vec::new());
        }
        let thread = std::thread::Builder::new()
            .name("hako-hash".to_owned())
            .spawn(move || {
                let mut hasher = Hasher::new(algorithm);
                for mut piece in to_hash {
                    hasher.update(&piece);
                    piece.clear();
                    // Nobody takes them back once all was handed over.
                    let _ = hashed.send(piece);
                }
                hasher
            })
            .map_err(|error| Error::io("start a thread", error))?;
        Ok(Self {
            piece: Vec::new(),
            full,
            empty,
            thread,
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = Self::PIECE_BYTES - self.piece.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.reserve_exact(room);
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == Self::PIECE_BYTES {
                let full = std::mem::take(&mut self.piece);
                self.full.send(full).map_err(|_| gone())?;
                self.piece = self.empty.recv().map_err(|_| gone())?;
            }
        }
        Ok(())
    }

    /// Waits for the rest and returns the digest.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.full.send(self.piece).map_err(|_| gone())?;
        drop(self.full);
        Ok(self.thread.join().map_err(|_| gone())?.finish())
    }
}

fn gone() -> Error {
    Error::invalid("the thread that computes a digest ended before its time")
}

/// Returns the digest of bytes at hand.
pub fn digest(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// Returns the digest of all of `storage`. `advance` is told of every piece, in bytes, and may
/// stop the work.
pub fn digest_of(
    storage: &dyn Storage,
    algorithm: Algorithm,
    mut advance: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<u8>> {
    // Small enough to be in the processor's cache still when it is hashed.
    const PIECE_BYTES: u64 = 128 << 10;
    let len = storage.len_bytes()?;
    let mut buffer = vec![0; len.min(PIECE_BYTES) as usize];
    let mut hasher = Hasher::new(algorithm);
    let mut offset = 0;
    while offset < len {
        let piece = &mut buffer[..(len - offset).min(PIECE_BYTES) as usize];
        storage.read_at(offset, piece)?;
        hasher.update(piece);
        offset += piece.len() as u64;
        advance(piece.len() as u64)?;
    }
    Ok(hasher.finish())
}

/// Returns bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use hako_block::MemoryStorage;

    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        // FIPS 180-2, appendices: the message "abc".
        for (algorithm, expected) in [
            (Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                Algorithm::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            assert_eq!(hex(&digest(algorithm, b"abc")), expected);
        }
        assert!(hex(&digest(Algorithm::Sha512, b"abc")).starts_with("ddaf35a193617aba"));
        for algorithm in Algorithm::ALL {
            assert_eq!(digest(algorithm, b"").len(), algorithm.digest_bytes());
            assert_eq!(
                algorithm
                    .name()
                    .to_lowercase()
                    .parse::<Algorithm>()
                    .unwrap(),
                algorithm
            );
        }
    }

    #[test]
    fn a_thread_of_its_own_finds_the_same_digest() {
        let bytes: Vec<u8> = (0..(5 << 20) + 17).map(|at: u32| (at / 7) as u8).collect();
        let mut rng = hako_block::testkit::Rng::new(1);
        for algorithm in Algorithm::ALL {
            let mut thread = HashingThread::start(algorithm).unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let len = (rng.next_u64() % 700_000).min(rest.len() as u64) as usize;
                thread.update(&rest[..len]).unwrap();
                rest = &rest[len..];
            }
            assert_eq!(thread.finish().unwrap(), digest(algorithm, &bytes));
        }
        let nothing = HashingThread::start(Algorithm::Sha256).unwrap();
        assert_eq!(nothing.finish().unwrap(), digest(Algorithm::Sha256, b""));
        drop(HashingThread::start(Algorithm::Sha256).unwrap());
    }

    #[test]
    fn a_storage_has_the_digest_of_its_bytes() {
        let bytes: Vec<u8> = (0..(3 << 20) + 17).map(|at: u32| (at / 7) as u8).collect();
        let storage = MemoryStorage::new("a", bytes.clone());
        let mut seen = 0;
        let found = digest_of(&storage, Algorithm::Sha256, |len| {
            seen += len;
            Ok(())
        });
        assert_eq!(found.unwrap(), digest(Algorithm::Sha256, &bytes));
        assert_eq!(seen, bytes.len() as u64);
    }
}
