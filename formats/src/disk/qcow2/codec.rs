//! Compressed clusters: one raw deflate stream or zstd frame each, of exactly one cluster.
//!
//! Deflate is written with a window of 4 KiB, as qemu does: some readers inflate with no more.
//! Contexts are kept per thread: setting one up costs more than a cluster.

use std::cell::RefCell;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use hako_block::{Error, Result};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::header::Codec;

const WINDOW_BITS: u8 = 12;
/// Largest zstd window accepted, 8 MiB: a cluster has 2 MiB at most.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

thread_local! {
    static INFLATE: RefCell<libdeflater::Decompressor> =
        RefCell::new(libdeflater::Decompressor::new());
    static ZSTD_DECODE: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    static DEFLATE: RefCell<Option<(u32, Compress)>> = const { RefCell::new(None) };
    static ZSTD_ENCODE: RefCell<Option<(u32, zstd::bulk::Compressor<'static>)>> =
        const { RefCell::new(None) };
}

impl Codec {
    /// Returns the level used when the user chose none.
    pub fn default_level(self) -> u32 {
        match self {
            Codec::Deflate => 6,
            Codec::Zstd => 2,
        }
    }

    /// Returns the highest level.
    pub fn max_level(self) -> u32 {
        match self {
            Codec::Deflate => 9,
            Codec::Zstd => 19,
        }
    }

    /// Decompresses `input`, which may have bytes after the stream's end, into exactly `out`.
    pub fn decompress(self, input: &[u8], out: &mut [u8]) -> Result<()> {
        let done = match self {
            Codec::Deflate => inflate(input, out),
            Codec::Zstd => zstd_decode(input, out),
        };
        if done {
            return Ok(());
        }
        Err(Error::corrupt(
            "compressed cluster",
            format!("its {} stream is damaged", self.name()),
        ))
    }

    /// Appends the compressed form of `cluster` to `out`. `false`: it is not smaller than the
    /// cluster, and `out` is as before.
    pub fn compress(self, level: u32, cluster: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let start = out.len();
        // One byte less than the cluster: what does not fit is not worth it.
        out.resize(start + cluster.len() - 1, 0);
        let target = &mut out[start..];
        let len = match self {
            Codec::Deflate => deflate(level, cluster, target),
            Codec::Zstd => zstd_encode(level, cluster, target)?,
        };
        out.truncate(start + len.unwrap_or(0));
        Ok(len.is_some())
    }
}

fn inflate(input: &[u8], out: &mut [u8]) -> bool {
    let fast = INFLATE.with_borrow_mut(|inflate| inflate.deflate_decompress(input, out));
    // A stream whose output is whole but whose end is cut off is accepted, as by qemu.
    matches!(fast, Ok(len) if len == out.len()) || inflate_without_end(input, out)
}

fn inflate_without_end(input: &[u8], out: &mut [u8]) -> bool {
    let mut inflate = Decompress::new(false);
    let done = inflate.decompress(input, out, FlushDecompress::Finish);
    done.is_ok() && inflate.total_out() == out.len() as u64
}

fn zstd_decode(input: &[u8], out: &mut [u8]) -> bool {
    ZSTD_DECODE.with_borrow_mut(|slot| {
        let context = slot.get_or_insert_with(DCtx::create);
        let ready = context
            .reset(zstd::zstd_safe::ResetDirective::SessionAndParameters)
            .is_ok()
            && context
                .set_parameter(DParameter::WindowLogMax(MAX_ZSTD_WINDOW_LOG))
                .is_ok();
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(out);
        while ready && target.pos() < target.capacity() {
            let before = (source.pos(), target.pos());
            if context.decompress_stream(&mut target, &mut source).is_err()
                || before == (source.pos(), target.pos())
            {
                return false;
            }
        }
        ready
    })
}

fn deflate(level: u32, cluster: &[u8], out: &mut [u8]) -> Option<usize> {
    DEFLATE.with_borrow_mut(|slot| {
        let mut context = match slot.take() {
            Some((made_for, context)) if made_for == level => context,
            _ => {
                Compress::new_with_window_bits(flate2::Compression::new(level), false, WINDOW_BITS)
            }
        };
        context.reset();
        match context.compress(cluster, out, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => {
                let len = usize::try_from(context.total_out()).ok();
                *slot = Some((level, context));
                len
            }
            // Given up half-way, it is not used again: zlib-rs 0.6.8 panics after such a reset.
            _ => None,
        }
    })
}

fn zstd_encode(level: u32, cluster: &[u8], out: &mut [u8]) -> Result<Option<usize>> {
    ZSTD_ENCODE.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(made_for, _)| *made_for != level) {
            let context = zstd::bulk::Compressor::new(level.cast_signed())
                .map_err(|error| Error::io("set up zstd", error))?;
            *slot = Some((level, context));
        }
        // The only error is an output too small: the cluster does not compress.
        Ok(slot
            .as_mut()
            .and_then(|(_, context)| context.compress_to_buffer(cluster, out).ok()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text-like bytes with matches at short and long distances.
    pub fn sample(len: usize) -> Vec<u8> {
        let mut state = 12345_u32;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let back = (state >> 16) as usize % 60000 + 1;
            if state & 3 != 0 && bytes.len() > back {
                let start = bytes.len() - back;
                let piece = bytes[start..(start + 40).min(bytes.len())].to_vec();
                bytes.extend(piece);
            } else {
                bytes.extend((state >> 8).to_le_bytes());
            }
        }
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn clusters_survive_both_codecs_with_bytes_after_the_end() {
        for codec in [Codec::Deflate, Codec::Zstd] {
            for level in 1..=codec.max_level() {
                for len in [4096, 65536] {
                    let cluster = sample(len);
                    let mut out = vec![9];
                    assert!(codec.compress(level, &cluster, &mut out).unwrap());
                    out.extend([0xaa; 400]);
                    let mut back = vec![0; len];
                    codec.decompress(&out[1..], &mut back).unwrap();
                    assert_eq!(back, cluster, "{codec:?} level {level}");
                }
            }
        }
    }

    #[test]
    fn deflate_never_reaches_back_more_than_four_kilobytes() {
        let cluster = sample(65536);
        let mut out = Vec::new();
        assert!(Codec::Deflate.compress(9, &cluster, &mut out).unwrap());
        // An inflater with that window and a small output buffer cannot reach further back.
        let mut inflate = Decompress::new_with_window_bits(false, WINDOW_BITS);
        let mut back = Vec::<u8>::new();
        let mut buffer = [0; 512];
        while back.len() < cluster.len() {
            let (consumed, produced) = (inflate.total_in() as usize, inflate.total_out());
            inflate
                .decompress(&out[consumed..], &mut buffer, FlushDecompress::None)
                .unwrap();
            back.extend(&buffer[..(inflate.total_out() - produced) as usize]);
        }
        assert_eq!(back, cluster);
    }

    #[test]
    fn noise_is_not_compressed() {
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..65536)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for codec in [Codec::Deflate, Codec::Zstd] {
            let mut out = vec![7];
            assert!(!codec.compress(1, &noise, &mut out).unwrap());
            assert_eq!(out, [7]);
            // Nor does giving up harm what comes next.
            for len in [512, 4096, 65536] {
                let mut out = Vec::new();
                codec.compress(6, &noise[..len], &mut out).unwrap();
                let cluster = sample(len);
                if codec.compress(6, &cluster, &mut out).unwrap() {
                    let mut back = vec![0; len];
                    codec.decompress(&out, &mut back).unwrap();
                    assert_eq!(back, cluster);
                }
            }
        }
    }

    #[test]
    fn streams_cut_or_changed_are_errors_or_of_full_length() {
        for codec in [Codec::Deflate, Codec::Zstd] {
            let cluster = sample(4096);
            let mut out = Vec::new();
            codec.compress(3, &cluster, &mut out).unwrap();
            let mut back = vec![0; 4096];
            for len in 0..out.len() - 16 {
                assert!(
                    codec.decompress(&out[..len], &mut back).is_err(),
                    "{codec:?} {len}"
                );
            }
            for at in 0..out.len() {
                let mut changed = out.clone();
                changed[at] ^= 0x55;
                let _ = codec.decompress(&changed, &mut back);
            }
        }
    }
}
