//! Names: UTF-16 on the disk, UTF-8 here; what is the same whatever its case, by the volume's own
//! table.

use std::cmp::Ordering;

use hako_block::{Error, Result};

use crate::bytes::le;

/// How each 16-bit letter is written in upper case: file `$UpCase`.
pub struct UpCase(Vec<u16>);

impl UpCase {
    /// Bytes of the file.
    pub const BYTES: usize = 1 << 17;

    /// Decodes the file.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes.len() {
            Self::BYTES => Ok(Self(units(bytes).collect())),
            len => {
                let what = format!("{len} bytes, should be {}", Self::BYTES);
                Err(Error::corrupt("NTFS $UpCase", what))
            }
        }
    }

    /// Compares names as directories sort them, letters of both cases as one.
    pub fn compare(&self, one: &[u16], other: &[u16]) -> Ordering {
        let upper = |unit: &u16| self.0.get(usize::from(*unit)).copied().unwrap_or(*unit);
        one.iter().map(upper).cmp(other.iter().map(upper))
    }
}

/// Returns the 16-bit letters of bytes.
pub fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|unit| le::u16_at(unit, 0))
}

/// Returns a name in UTF-8. Half a pair of surrogates, which NTFS lets pass, becomes three bytes as
/// any other letter (WTF-8, as ntfs-3g has it): no two names become the same.
pub fn to_utf8(units: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut name = Vec::new();
    for letter in char::decode_utf16(units) {
        match letter {
            Ok(letter) => name.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
            Err(half) => {
                let half = half.unpaired_surrogate();
                let six = |shift: u32| 0x80 | (half >> shift) as u8 & 0x3f;
                name.extend([0xe0 | (half >> 12) as u8, six(6), six(0)]);
            }
        }
    }
    name
}

/// Returns the letters of such a name; none if it is none.
pub fn to_utf16(mut name: &[u8]) -> Option<Vec<u16>> {
    let mut letters = Vec::new();
    while !name.is_empty() {
        match std::str::from_utf8(name) {
            Ok(text) => {
                letters.extend(text.encode_utf16());
                break;
            }
            Err(error) => {
                let (good, rest) = name.split_at_checked(error.valid_up_to())?;
                letters.extend(std::str::from_utf8(good).ok()?.encode_utf16());
                let (half, rest) = rest.split_first_chunk::<3>()?;
                let [0xed, high @ 0xa0..=0xbf, low @ 0x80..=0xbf] = *half else {
                    return None;
                };
                letters.push(0xd000 | u16::from(high & 0x3f) << 6 | u16::from(low & 0x3f));
                name = rest;
            }
        }
    }
    Some(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        let names: [&[u16]; 4] = [
            &[0x41, 0xe9, 0x65e5],
            &[0xd83e, 0xdd80],
            &[0xd83e],
            &[0x41, 0xdd80, 0xd83e, 0x42],
        ];
        for name in names {
            let utf8 = to_utf8(name.iter().copied());
            assert_eq!(to_utf16(&utf8).unwrap(), name);
        }
        assert_eq!(to_utf8([0xd83e, 0xdd80]), "🦀".as_bytes());
        assert_eq!(to_utf8([0xd83e]), [0xed, 0xa0, 0xbe]);
        assert_eq!(to_utf16(&[0xff]), None);
        assert_eq!(to_utf16(&[0xed, 0xa0]), None);
    }
}
