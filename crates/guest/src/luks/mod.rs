//! LUKS of versions 1 and 2, opened by a passphrase or the content of a key file, to be read.
//!
//! A header says how to make a key of what the user gives (PBKDF2, Argon2), which then decrypts a
//! keyslot; in that, spread over thousands of stripes, is the key of the volume, and a digest says
//! whether it is the right one. From [LUKS1 on-disk format 1.2.3] and [LUKS2 on-disk format 1.1.3].
//!
//! AES as XTS and CBC is read, in sectors of 512 to 4096 bytes. Not read: other ciphers, detached headers,
//! data with integrity tags, and what is being re-encrypted (it has several segments).
//!
//! [LUKS1 on-disk format 1.2.3]: https://gitlab.com/cryptsetup/cryptsetup/-/wikis/LUKS-standard/on-disk-format.pdf
//! [LUKS2 on-disk format 1.1.3]: https://gitlab.com/cryptsetup/LUKS2-docs

mod base64;
mod cipher;
mod derive;
mod header1;
mod header2;
mod plain;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use hako_block::{Error, Result};

use crate::volume::{Volume, check_range, read_vec};
use cipher::Cipher;
use derive::{Hash, Kdf};
use plain::Plain;

/// What both versions begin with.
pub(crate) const MAGIC: &[u8] = b"LUKS\xba\xbe";
/// The longest keyslot, spread: a key of 128 bytes in 4000 stripes has half a million.
const MOST_SPREAD_BYTES: usize = 16 << 20;
/// The longest key: that of AES-256 as XTS has 64.
const MOST_KEY_BYTES: usize = 512;

/// Passphrases, or contents of key files, that may open what is encrypted.
#[derive(Clone, Default)]
pub struct Keys(Vec<Vec<u8>>);

impl Keys {
    /// Returns them. Each is tried on each volume; one that ends in a newline without that, first.
    pub fn new(keys: Vec<Vec<u8>>) -> Self {
        Self(keys)
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first that is a text, as a user types it: without a newline at its end.
    pub fn passphrase(&self) -> Option<&str> {
        let mut texts = self
            .0
            .iter()
            .filter_map(|key| std::str::from_utf8(key).ok());
        texts
            .next()
            .map(|text| text.strip_suffix('\n').unwrap_or(text))
    }
}

/// A secret is not shown.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Reads the header of a volume and returns how many keyslots it has for its data. Errors: corrupt, or
/// not supported.
pub fn n_keyslots(volume: &dyn Volume) -> Result<usize> {
    Ok(read(volume)?.slots.len())
}

/// A volume that a key opened.
pub(crate) struct Opened {
    pub(crate) volume: Arc<dyn Volume>,
    /// Which of the keys did.
    pub(crate) key: usize,
    /// Where in the volume below its bytes begin, as many as it has, and in which units they are
    /// encrypted.
    pub(crate) start: u64,
    pub(crate) sector_bytes: u32,
    /// How it is encrypted: `aes-xts-plain64`.
    pub(crate) cipher: String,
}

/// A header of either version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The keyslots, in the order in which they are tried.
    slots: Vec<Slot>,
    segment: Segment,
}

/// A keyslot.
#[derive(Debug, PartialEq, Eq)]
struct Slot {
    kdf: Kdf,
    /// Where its spread key lies, and how that is encrypted with the key made by `kdf`.
    area: u64,
    area_cipher: String,
    area_key_bytes: usize,
    /// The volume's key: its length, in how many stripes it lies, by which hash those were spread.
    key_bytes: usize,
    stripes: usize,
    hash: Hash,
    /// What tells whether it is the right one.
    digest: Digest,
}

/// What tells a right key from a wrong one.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Digest {
    kdf: Kdf,
    value: Vec<u8>,
}

/// Where the encrypted bytes are.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    start: u64,
    /// All to the end of the volume below, if not said.
    len: Option<u64>,
    cipher: String,
    sector_bytes: u32,
    /// The number of the first sector, for the cipher.
    first_sector: u64,
}

/// Opens a volume with the first of the keys that fits; none if none does. Errors: corrupt, or not
/// supported, as far as all slots are.
pub(crate) fn open(volume: &Arc<dyn Volume>, keys: &Keys) -> Result<Option<Opened>> {
    let header = read(&**volume)?;
    let segment = &header.segment;
    let inside = |len: u64| check_range(segment.start, 0, volume.len_bytes()).map(|()| len);
    let rest = inside(volume.len_bytes().saturating_sub(segment.start))?;
    let len = segment
        .len
        .unwrap_or(rest - rest % u64::from(segment.sector_bytes));
    if len > rest || len % u64::from(segment.sector_bytes) != 0 {
        let what = format!("{len} bytes from {}, where {rest} are left", segment.start);
        return Err(Error::corrupt("LUKS segment", what));
    }
    let mut failed = None;
    for (index, key) in keys.0.iter().enumerate() {
        let without = key.strip_suffix(b"\n");
        let secrets = without.into_iter().chain([&key[..]]);
        for (secret, slot) in
            secrets.flat_map(|secret| header.slots.iter().map(move |slot| (secret, slot)))
        {
            match slot.open(&**volume, secret) {
                Ok(Some(found)) => {
                    return Ok(Some(Opened {
                        volume: Arc::new(Plain {
                            below: Arc::clone(volume),
                            start: segment.start,
                            len,
                            sector_bytes: segment.sector_bytes,
                            first_sector: segment.first_sector,
                            cipher: Cipher::new(&segment.cipher, &found)?,
                        }),
                        key: index,
                        start: segment.start,
                        sector_bytes: segment.sector_bytes,
                        cipher: segment.cipher.clone(),
                    }));
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(None),
    }
}

/// Reads the header of a volume that begins with [`MAGIC`].
pub(crate) fn read(volume: &dyn Volume) -> Result<Header> {
    match read_vec(volume, 0, 8)?.last_chunk() {
        Some([0, 1]) => header1::read(volume),
        Some([0, 2]) => header2::read(volume),
        version => Err(Error::unsupported(format!(
            "LUKS header: version {version:?} is not known, 1 and 2 are"
        ))),
    }
}

impl Slot {
    /// Returns the volume's key, if the slot opens with what the user gave.
    fn open(&self, volume: &dyn Volume, secret: &[u8]) -> Result<Option<Vec<u8>>> {
        let len = self.key_bytes.saturating_mul(self.stripes);
        if len > MOST_SPREAD_BYTES || !(1..=MOST_KEY_BYTES).contains(&self.key_bytes) {
            let what = format!(
                "a key of {} bytes in {} stripes",
                self.key_bytes, self.stripes
            );
            return Err(Error::corrupt("LUKS keyslot", what));
        }
        let mut spread = read_vec(volume, self.area, len.next_multiple_of(512))?;
        let derived = self.kdf.derive(secret, self.area_key_bytes)?;
        let cipher = Cipher::new(&self.area_cipher, &derived)?;
        cipher.decrypt(&mut spread, 512, 0);
        let key = self
            .hash
            .merge(spread.get(..len).unwrap_or_default(), self.stripes);
        let is_right = self.digest.kdf.derive(&key, self.digest.value.len())? == self.digest.value;
        Ok(is_right.then_some(key))
    }
}
