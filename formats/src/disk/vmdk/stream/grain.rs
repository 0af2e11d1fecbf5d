//! Reads compressed grains: those that stand together in the file with one read, each unpacked
//! straight into the caller's buffer.

use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, Result, SECTOR_BYTES, Storage};
use libdeflater::Decompressor;

use super::layout::cut;
use super::marker::{GRAIN_MARKER_BYTES, Marker, max_compressed, stored_bytes};
use crate::disk::cache::Cache;

/// Most bytes of the file read at once.
const WINDOW_BYTES: u64 = 1 << 20;
/// Bytes of unpacked grains kept for reads that want less than a grain.
const RECENT_BYTES: u64 = 4 << 20;

/// A part of one stored grain that the caller wants.
pub(super) struct Piece<'a> {
    /// Guest position of the grain in sectors.
    pub(super) lba: u64,
    /// Sector of the file where the grain's marker is.
    pub(super) sector: u64,
    /// Sector of the grain that follows in the table, 0 if none is known.
    pub(super) next_sector: u64,
    /// Bytes of guest disk that the grain covers: fewer than a grain at the end of the disk.
    pub(super) covers: usize,
    /// Bytes of the grain before the part.
    pub(super) skip: usize,
    /// Where the part goes.
    pub(super) out: &'a mut [u8],
}

/// Reads and unpacks the grains of one extent file.
pub(super) struct GrainReader {
    storage: Arc<dyn Storage>,
    file_len: u64,
    grain_bytes: usize,
    /// What a thread needs while it unpacks; as many as there were threads at once.
    scratch: Mutex<Vec<Scratch>>,
    recent: Cache<Vec<u8>>,
}

struct Scratch {
    decompressor: Decompressor,
    window: Window,
}

/// A piece of the file in memory.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl GrainReader {
    /// Fills the struct.
    pub(super) fn new(storage: Arc<dyn Storage>, file_len: u64, grain_bytes: usize) -> Self {
        let n_recent = (RECENT_BYTES / grain_bytes as u64).max(1);
        Self {
            storage,
            file_len,
            grain_bytes,
            scratch: Mutex::new(Vec::new()),
            recent: Cache::new(n_recent as usize),
        }
    }

    /// Returns the most sectors that a grain takes in the file.
    pub(super) fn max_stored_sectors(&self) -> u64 {
        max_stored(self.grain_bytes) / SECTOR_BYTES
    }

    /// Reads all the pieces.
    pub(super) fn read(&self, pieces: Vec<Piece<'_>>) -> Result<()> {
        let mut pieces = self.without_recent(pieces);
        let mut rest = pieces.as_mut_slice();
        if rest.is_empty() {
            return Ok(());
        }
        let mut scratch = self.take_scratch();
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(self.n_together(rest));
            self.load_window(&mut scratch.window, now)?;
            for piece in now {
                self.unpack(&mut scratch, piece)
                    .map_err(|error| place(error, piece))?;
            }
            rest = later;
        }
        self.give_back(scratch);
        Ok(())
    }

    /// Serves small pieces from the grains unpacked last and returns the others.
    fn without_recent<'a>(&self, pieces: Vec<Piece<'a>>) -> Vec<Piece<'a>> {
        let mut missing = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let recent = match piece.out.len() < piece.covers {
                true => self.recent.get(piece.lba),
                false => None,
            };
            match recent {
                Some(grain) => copy_part(&grain, piece),
                None => missing.push(piece),
            }
        }
        missing
    }

    /// Returns how many of the pieces are close enough together for one read.
    fn n_together(&self, pieces: &[Piece<'_>]) -> usize {
        let max_sectors = self.max_stored_sectors();
        let first = pieces[0].sector;
        let gaps = pieces.windows(2).take_while(|pair| {
            let (before, next) = (pair[0].sector, pair[1].sector);
            next > before
                && next - before <= max_sectors
                && (next - first + max_sectors) * SECTOR_BYTES
                    <= WINDOW_BYTES.max(max_sectors * SECTOR_BYTES)
        });
        1 + gaps.count()
    }

    /// Reads the bytes of pieces that are together. Where the last one ends is a guess.
    fn load_window(&self, window: &mut Window, pieces: &[Piece<'_>]) -> Result<()> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return Ok(());
        };
        let longest = last.sector + self.max_stored_sectors();
        let end = match last.next_sector {
            next if next > last.sector && next < longest => next,
            _ => longest,
        };
        let start = first.sector * SECTOR_BYTES;
        let end = (end * SECTOR_BYTES).min(self.file_len);
        window.load(&*self.storage, start, end)
    }

    fn unpack(&self, scratch: &mut Scratch, piece: &mut Piece<'_>) -> Result<()> {
        let Scratch {
            decompressor,
            window,
        } = scratch;
        let start = piece.sector * SECTOR_BYTES;
        let len = self.check_marker(window.marker(start)?, piece)?;
        let end = start + GRAIN_MARKER_BYTES as u64 + u64::from(len);
        if end > self.file_len {
            return Err(cut(format!(
                "ends at byte {end}, past end of file ({} bytes)",
                self.file_len
            )));
        }
        let mut longer = Window::default();
        let window = if window.holds(end) {
            window
        } else {
            longer.load(&*self.storage, start, end)?;
            &longer
        };
        let data = window.slice(start + GRAIN_MARKER_BYTES as u64, end)?;
        if piece.out.len() == self.grain_bytes {
            let n = inflate(decompressor, data, piece.out)?;
            return self.check_len(n, self.grain_bytes);
        }
        let mut grain = vec![0; self.grain_bytes];
        let n = inflate(decompressor, data, &mut grain)?;
        self.check_len(n, piece.covers)?;
        let end = piece.skip + piece.out.len();
        piece.out.copy_from_slice(&grain[piece.skip..end]);
        self.recent.put(piece.lba, Arc::new(grain));
        Ok(())
    }

    fn check_marker(&self, marker: Marker, piece: &Piece<'_>) -> Result<u32> {
        let Marker::Grain { lba, len } = marker else {
            return Err(corrupt("no grain marker where the table points"));
        };
        if lba != piece.lba {
            return Err(corrupt(format!("the marker there is of LBA {lba}")));
        }
        if u64::from(len) > max_compressed(self.grain_bytes as u64) {
            return Err(corrupt(format!("{len} compressed bytes are too many")));
        }
        Ok(len)
    }

    fn check_len(&self, n: usize, needed: usize) -> Result<()> {
        if n >= needed {
            return Ok(());
        }
        Err(corrupt(format!("unpacks to {n} bytes, not {needed}")))
    }

    fn take_scratch(&self) -> Scratch {
        let mut pool = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        pool.pop().unwrap_or_else(|| Scratch {
            decompressor: Decompressor::new(),
            window: Window::default(),
        })
    }

    fn give_back(&self, scratch: Scratch) {
        let mut pool = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        pool.push(scratch);
    }
}

impl Window {
    fn load(&mut self, storage: &dyn Storage, start: u64, end: u64) -> Result<()> {
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        self.start = start;
        self.bytes.resize(len, 0);
        storage.read_at(start, &mut self.bytes)
    }

    fn holds(&self, end: u64) -> bool {
        end <= self.start + self.bytes.len() as u64
    }

    fn slice(&self, start: u64, end: u64) -> Result<&[u8]> {
        let at = |byte: u64| usize::try_from(byte.checked_sub(self.start)?).ok();
        at(start)
            .zip(at(end))
            .and_then(|(start, end)| self.bytes.get(start..end))
            .ok_or_else(|| cut("ends past end of file"))
    }

    fn marker(&self, start: u64) -> Result<Marker> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.slice(start, start + 16)?);
        Ok(Marker::decode(bytes))
    }
}

/// Returns the most bytes that a grain takes in the file.
fn max_stored(grain_bytes: usize) -> u64 {
    let len = max_compressed(grain_bytes as u64);
    stored_bytes(u32::try_from(len).unwrap_or(u32::MAX))
}

/// Unpacks a zlib stream, or plain deflate, which the specification promises but nobody writes.
pub(super) fn inflate(
    decompressor: &mut Decompressor,
    data: &[u8],
    out: &mut [u8],
) -> Result<usize> {
    let is_zlib = matches!(data, [cmf, flg, ..]
        if cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flg]) % 31 == 0);
    let result = if is_zlib {
        decompressor.zlib_decompress(data, out)
    } else {
        decompressor.deflate_decompress(data, out)
    };
    result.map_err(|error| match error {
        libdeflater::DecompressionError::BadData => corrupt("compressed data are damaged"),
        libdeflater::DecompressionError::InsufficientSpace => {
            corrupt("unpacks to more than a grain")
        }
    })
}

fn copy_part(grain: &[u8], piece: Piece<'_>) {
    let end = piece.skip + piece.out.len();
    piece.out.copy_from_slice(&grain[piece.skip..end]);
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::new(hako_block::ErrorKind::Corrupt, what)
}

fn place(error: Error, piece: &Piece<'_>) -> Error {
    error
        .place(format!("grain at LBA {}", piece.lba))
        .at_byte(piece.sector * SECTOR_BYTES)
}
