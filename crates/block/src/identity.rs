//! What tells disks, and states of a disk's content, apart.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// A UUID, its bytes in the order in which it is written as text (RFC 9562, section 4). A driver
/// whose format stores the first three fields little-endian swaps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Returns a random one (version 4). For telling things apart, not for secrets.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&random_u64().to_le_bytes());
        bytes[6] = 0x40 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Uuid(bytes)
    }

    /// Returns the one with these bytes, as Microsoft's formats and VDI store it: the first three
    /// fields little-endian.
    pub fn from_mixed_endian(mut bytes: [u8; 16]) -> Self {
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Uuid(bytes)
    }

    /// Returns its bytes as Microsoft's formats and VDI store it.
    pub fn to_mixed_endian(self) -> [u8; 16] {
        Uuid::from_mixed_endian(self.0).0
    }

    /// Returns whether all bytes are zero, which stands for "none".
    pub fn is_nil(self) -> bool {
        self.0 == [0; 16]
    }

    /// Reads the text form: 32 hexadecimal digits, in any case, dashes, blanks and braces ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u32> = text
            .chars()
            .filter(|letter| !matches!(letter, '-' | ' ' | '{' | '}'))
            .map(|letter| letter.to_digit(16))
            .collect::<Option<_>>()?;
        let digits: [u32; 32] = digits.try_into().ok()?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = (pair[0] << 4 | pair[1]) as u8;
        }
        Some(Uuid(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// What changes whenever the content does, so that an overlay can tell whether its parent is
/// still what it was made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentId {
    /// VMDK's CID.
    Cid(u32),
    /// VHDX's data write GUID, VDI's modification UUID.
    Uuid(Uuid),
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContentId::Cid(id) => write!(f, "{id:08x}"),
            ContentId::Uuid(id) => write!(f, "{id}"),
        }
    }
}

/// Returns random bits, for identifiers (not for secrets).
pub fn random_u64() -> u64 {
    RandomState::new().hash_one(0u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_mixed_endian_bytes_come_back() {
        let text = "2dc27766-f623-4200-9d64-115e9bfd4a08";
        let uuid = Uuid::parse(text).unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(
            uuid.to_mixed_endian()[..8],
            *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42"
        );
        assert_eq!(Uuid::from_mixed_endian(uuid.to_mixed_endian()), uuid);
        assert_eq!(
            Uuid::parse("{2DC27766 F6234200 9D64115E9BFD4A08}"),
            Some(uuid)
        );
        assert_eq!(Uuid::parse("2dc27766"), None);
    }

    #[test]
    fn random_ones_differ_and_say_their_version() {
        let (a, b) = (Uuid::random(), Uuid::random());
        assert_ne!(a, b);
        assert_eq!(&a.to_string()[14..15], "4");
    }
}
