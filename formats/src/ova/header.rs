//! One header of a tar: 512 bytes (POSIX 1003.1, "pax", ustar interchange format; GNU tar manual,
//! "Basic Tar Format"). Decoding and encoding only.
//!
//! | byte | length | field |
//! |---|---|---|
//! | 0 | 100 | name, ended by a zero byte if shorter |
//! | 100 | 8 | mode, octal |
//! | 108 | 8 | user |
//! | 116 | 8 | group |
//! | 124 | 12 | size, octal; GNU: with bit 7 of the first byte set a big-endian number |
//! | 136 | 12 | time in seconds since 1970 |
//! | 148 | 8 | sum of all bytes, this field taken as blanks |
//! | 156 | 1 | type |
//! | 157 | 100 | name of a link's target |
//! | 257 | 8 | "ustar\0" "00", or GNU's "ustar  \0" |
//! | 345 | 155 | ustar: what goes before the name and a `/` |

use hako_block::{Error, Result};

/// Bytes of a header, and what members are padded to.
pub(super) const BLOCK_BYTES: usize = 512;

const NAME: std::ops::Range<usize> = 0..100;
const MODE: usize = 100;
const UID: usize = 108;
const GID: usize = 116;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: usize = 136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const MAGIC: std::ops::Range<usize> = 257..265;
const PREFIX: std::ops::Range<usize> = 345..500;
const POSIX_MAGIC: &[u8; 8] = b"ustar\x0000";
const GNU_MAGIC: &[u8; 8] = b"ustar  \x00";

/// Largest size that eleven octal digits hold, in bytes: 8 GiB - 1.
const MAX_OCTAL: u64 = (1 << 33) - 1;

/// What a header describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// GNU: the next member's name.
    LongName,
    /// GNU: the name of the next member's target.
    LongLink,
    /// Pax: what replaces fields of the next header.
    Pax,
    /// Pax: what is said of all members.
    PaxGlobal,
    /// Something an OVA has no use for; the word for it.
    Other(&'static str),
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The member's name, as its bytes are.
    pub(super) name: Vec<u8>,
    /// Bytes of content.
    pub(super) size: u64,
    /// What it is.
    pub(super) kind: Kind,
}

impl Header {
    /// Decodes a header. `None`: a block of zeros, which ends an archive.
    pub(super) fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Option<Header>> {
        if hako_block::is_zero(block) {
            return Ok(None);
        }
        if !sum_is_right(block) {
            return Err(Error::corrupt(
                "tar header",
                "its checksum is wrong: no tar, or a damaged one",
            ));
        }
        let mut name = text(&block[NAME]).to_vec();
        let is_posix = &block[MAGIC] == POSIX_MAGIC;
        if is_posix && block[PREFIX.start] != 0 {
            name = [text(&block[PREFIX]), b"/", &name].concat();
        }
        let kind = kind(block[KIND], &name);
        Ok(Some(Header {
            name,
            size: number(&block[SIZE])?,
            kind,
        }))
    }

    /// Encodes the header of a file. `name` is at most 100 bytes.
    pub(super) fn encode_file(name: &str, size: u64, mtime: u64) -> Result<[u8; BLOCK_BYTES]> {
        let mut block = [0; BLOCK_BYTES];
        let room = block.get_mut(NAME.start..name.len());
        match room {
            Some(room) if name.len() <= NAME.end && !name.is_empty() => {
                room.copy_from_slice(name.as_bytes());
            }
            _ => {
                return Err(Error::unsupported(format!(
                    "the name {name:?} has more than the {} bytes that every reader of a tar takes",
                    NAME.end
                )));
            }
        }
        octal(&mut block[MODE..MODE + 8], 0o644);
        octal(&mut block[UID..UID + 8], 0);
        octal(&mut block[GID..GID + 8], 0);
        octal(&mut block[MTIME..MTIME + 12], mtime.min(MAX_OCTAL));
        block[KIND] = b'0';
        if size <= MAX_OCTAL {
            octal(&mut block[SIZE], size);
            block[MAGIC].copy_from_slice(POSIX_MAGIC);
        } else {
            block[SIZE.start] = 0x80;
            block[SIZE.end - 8..SIZE.end].copy_from_slice(&size.to_be_bytes());
            block[MAGIC].copy_from_slice(GNU_MAGIC);
        }
        let digits = format!("{:06o}\0 ", sums(&block).0);
        block[CHECKSUM].copy_from_slice(digits.as_bytes());
        Ok(block)
    }
}

/// Returns whether a block's checksum is that of its bytes, as signed ones too: old writers.
pub(super) fn sum_is_right(block: &[u8; BLOCK_BYTES]) -> bool {
    let (unsigned, signed) = sums(block);
    number(&block[CHECKSUM]).is_ok_and(|sum| sum == unsigned || i64::try_from(sum) == Ok(signed))
}

fn sums(block: &[u8; BLOCK_BYTES]) -> (u64, i64) {
    let bytes = block.iter().enumerate();
    bytes.fold((0, 0), |(unsigned, signed), (index, byte)| {
        let byte = if CHECKSUM.contains(&index) {
            b' '
        } else {
            *byte
        };
        (
            unsigned + u64::from(byte),
            signed + i64::from(byte.cast_signed()),
        )
    })
}

fn kind(flag: u8, name: &[u8]) -> Kind {
    match flag {
        // Before POSIX a folder was a file whose name ends so.
        0 | b'0' | b'7' if name.ends_with(b"/") => Kind::Folder,
        0 | b'0' | b'7' => Kind::File,
        b'5' => Kind::Folder,
        b'L' => Kind::LongName,
        b'K' => Kind::LongLink,
        b'x' => Kind::Pax,
        b'g' => Kind::PaxGlobal,
        b'1' => Kind::Other("a hard link"),
        b'2' => Kind::Other("a symbolic link"),
        b'3' | b'4' => Kind::Other("a device"),
        b'6' => Kind::Other("a FIFO"),
        b'S' => Kind::Other("a file stored with holes (GNU sparse)"),
        b'M' => Kind::Other("the rest of a file of another volume"),
        b'V' => Kind::Other("the label of a volume"),
        _ => Kind::Other("of an unknown type"),
    }
}

/// Returns a field up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Reads a number: octal digits between blanks and zero bytes, or GNU's base 256.
fn number(field: &[u8]) -> Result<u64> {
    let wrong = |what: &str| Error::corrupt("tar header", what.to_owned());
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        if first & 0x40 != 0 {
            return Err(wrong("a number is negative"));
        }
        return rest
            .iter()
            .try_fold(u64::from(first & 0x3f), |value, byte| {
                Some(value.checked_mul(256)? + u64::from(*byte))
            })
            .ok_or_else(|| wrong("a number is too large"));
    }
    let digits = text(field).trim_ascii();
    digits
        .iter()
        .try_fold(0_u64, |value, digit| {
            (b'0'..=b'7')
                .contains(digit)
                .then(|| value.checked_mul(8)?.checked_add(u64::from(digit - b'0')))?
        })
        .ok_or_else(|| wrong("a number is not in octal digits"))
}

/// Writes octal digits and a zero byte. `value` fits.
fn octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}\0", width = field.len() - 1);
    field.copy_from_slice(&digits.as_bytes()[digits.len() - field.len()..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_decode_to_what_was_encoded() {
        let long = "n".repeat(100);
        for (name, size) in [
            ("a.ovf", 0),
            ("disk.vmdk", MAX_OCTAL),
            (&*long, MAX_OCTAL + 1),
            ("huge", u64::MAX),
        ] {
            let block = Header::encode_file(name, size, 1 << 30).unwrap();
            let expected = Header {
                name: name.as_bytes().to_vec(),
                size,
                kind: Kind::File,
            };
            assert_eq!(Header::decode(&block).unwrap(), Some(expected));
        }
        assert!(Header::encode_file(&"n".repeat(101), 0, 0).is_err());
        assert!(Header::encode_file("", 0, 0).is_err());
    }

    #[test]
    fn one_changed_bit_is_noticed() {
        let block = Header::encode_file("a", 1, 2).unwrap();
        for at in 0..BLOCK_BYTES {
            let mut damaged = block;
            damaged[at] ^= 1;
            let same_sum = Header::decode(&damaged);
            assert!(same_sum.is_err() || CHECKSUM.contains(&at), "byte {at}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        for field in [
            &b"12x"[..],
            b"-1",
            b"8",
            b"\xff\xff\xff\xff",
            b"\x80\x01\0\0\0\0\0\0\0\0",
            b"7777777777777777777777777",
        ] {
            assert!(number(field).is_err(), "{field:?}");
        }
    }

    #[test]
    fn zeros_end_the_archive() {
        assert_eq!(Header::decode(&[0; BLOCK_BYTES]).unwrap(), None);
    }
}
