//! The compressions of initrds, told apart as Linux' `lib/decompress.c` does.

use std::io::{Read, Result as IoResult};

use hako_block::Result;

use super::from_io;
use super::input::Input;
use super::lz4::Legacy;
use super::lzop::{self, Lzop};

/// How a stretch of an initrd is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// LZMA, its file of old ("lzma alone").
    Lzma,
    /// LZ4 in its legacy frame, the one that Linux unpacks.
    Lz4Legacy,
    /// LZ4 in a frame.
    Lz4,
    /// LZO in a file of lzop.
    Lzo,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Returns what begins with these bytes; none if nothing known does.
    pub fn of(head: &[u8]) -> Option<Self> {
        const BEGINNINGS: &[(&[u8], Compression)] = &[
            (b"070701", Compression::None),
            (b"070702", Compression::None),
            (&[0x1f, 0x8b], Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            (&[0x5d, 0, 0], Compression::Lzma),
            (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4Legacy),
            (&[0x04, 0x22, 0x4d, 0x18], Compression::Lz4),
            (&lzop::MAGIC, Compression::Lzo),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
        ];
        let mut known = BEGINNINGS.iter();
        let found = known.find(|(beginning, _)| head.starts_with(beginning))?;
        Some(found.1)
    }

    /// Returns its name, as that of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4Legacy => "lz4-legacy",
            Self::Lz4 => "lz4",
            Self::Lzo => "lzo",
            Self::Zstd => "zstd",
        }
    }
}

/// The memory that a dictionary may ask for, in KiB: what `xz -9` and `zstd --ultra` take.
const MOST_MEMORY_KIB: u32 = 128 << 10;
const MOST_WINDOW_LOG: u32 = 27;

/// One compressed stream, unpacked; it consumes no byte past its end.
pub(super) enum Decoder<'i, 's> {
    None(&'i mut Input<'s>),
    Gzip(Box<flate2::bufread::GzDecoder<&'i mut Input<'s>>>),
    Bzip2(bzip2::bufread::BzDecoder<&'i mut Input<'s>>),
    Xz(Box<lzma_rust2::XzReader<&'i mut Input<'s>>>),
    Lzma(Box<lzma_rust2::LzmaReader<&'i mut Input<'s>>>),
    Lz4Legacy(Legacy<'i, 's>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'i mut Input<'s>>>),
    Lzo(Lzop<'i, 's>),
    Zstd(zstd::Decoder<'static, &'i mut Input<'s>>),
}

impl<'i, 's> Decoder<'i, 's> {
    pub fn new(compression: Compression, input: &'i mut Input<'s>) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(input),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::GzDecoder::new(input))),
            Compression::Bzip2 => Self::Bzip2(bzip2::bufread::BzDecoder::new(input)),
            Compression::Xz => {
                let reader = lzma_rust2::XzReader::new_mem_limit(input, false, MOST_MEMORY_KIB);
                Self::Xz(Box::new(reader))
            }
            Compression::Lzma => {
                let reader = lzma_rust2::LzmaReader::new_mem_limit(input, MOST_MEMORY_KIB, None);
                Self::Lzma(Box::new(reader.map_err(from_io)?))
            }
            Compression::Lz4Legacy => Self::Lz4Legacy(Legacy::new(input)),
            Compression::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(input))),
            Compression::Lzo => Self::Lzo(Lzop::new(input).map_err(from_io)?),
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(input).map_err(from_io)?;
                let mut decoder = decoder.single_frame();
                decoder.window_log_max(MOST_WINDOW_LOG).map_err(from_io)?;
                Self::Zstd(decoder)
            }
        })
    }

    /// Gives back what was read too far, and returns where the stream ended.
    pub fn finish(self) -> Result<u64> {
        let input = match self {
            Self::None(input) => input,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Bzip2(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
            Self::Lzma(decoder) => {
                let (input, unused) = decoder.into_parts();
                input.unread(&unused);
                input
            }
            Self::Lz4Legacy(decoder) => decoder.into_inner(),
            Self::Lz4(decoder) => decoder.into_inner(),
            Self::Lzo(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        };
        Ok(input.offset())
    }
}

impl Read for Decoder<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> IoResult<usize> {
        match self {
            Self::None(input) => input.read(buf),
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Bzip2(decoder) => decoder.read(buf),
            Self::Xz(decoder) => decoder.read(buf),
            Self::Lzma(decoder) => decoder.read(buf),
            Self::Lz4Legacy(decoder) => decoder.read(buf),
            Self::Lz4(decoder) => decoder.read(buf),
            Self::Lzo(decoder) => decoder.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }
}
