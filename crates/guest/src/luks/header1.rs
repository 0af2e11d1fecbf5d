//! The header of LUKS1: 592 bytes, numbers are big-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic, version |
//! | 8, 40, 72 | 32 each | cipher, its mode, hash |
//! | 104 | 4 | first sector of the data |
//! | 108 | 4 | bytes of the key |
//! | 112 | 20 + 32 + 4 | digest of the key, its salt, its iterations |
//! | 168 | 40 | UUID |
//! | 208 | 8 × 48 | keyslots: state, iterations, salt (32), first sector, stripes |

use hako_block::{Error, Result};

use super::derive::{Hash, Kdf};
use super::{Digest, Header, Segment, Slot};
use crate::bytes::{array_at, be, text};
use crate::volume::{Volume, read_vec};

const HEADER_BYTES: usize = 592;
const SECTOR_BYTES: u64 = 512;
/// A keyslot in use.
const ACTIVE: u32 = 0x00ac_71f3;

pub(super) fn read(volume: &dyn Volume) -> Result<Header> {
    decode(&read_vec(volume, 0, HEADER_BYTES)?)
}

fn decode(bytes: &[u8]) -> Result<Header> {
    let name = |at| text(&array_at::<32>(bytes, at));
    let cipher = format!("{}-{}", name(8), name(40));
    let hash = Hash::named(&name(72))?;
    let start = u64::from(be::u32_at(bytes, 104)) * SECTOR_BYTES;
    if start == 0 {
        return Err(Error::unsupported("LUKS header: its data lies elsewhere"));
    }
    let pbkdf2 = |salt: [u8; 32], iterations| Kdf::Pbkdf2 {
        hash,
        salt: salt.to_vec(),
        iterations,
    };
    let digest = Digest {
        kdf: pbkdf2(array_at(bytes, 132), be::u32_at(bytes, 164)),
        value: array_at::<20>(bytes, 112).to_vec(),
    };
    let key_bytes = be::u32_at(bytes, 108) as usize;
    let slots = (0..8).map(|number| 208 + number * 48);
    let used = slots.filter(|at| be::u32_at(bytes, *at) == ACTIVE);
    let slots = used.map(|at| Slot {
        kdf: pbkdf2(array_at(bytes, at + 8), be::u32_at(bytes, at + 4)),
        area: u64::from(be::u32_at(bytes, at + 40)) * SECTOR_BYTES,
        area_cipher: cipher.clone(),
        area_key_bytes: key_bytes,
        key_bytes,
        stripes: be::u32_at(bytes, at + 44) as usize,
        hash,
        digest: digest.clone(),
    });
    Ok(Header {
        slots: slots.collect(),
        segment: Segment {
            start,
            len: None,
            cipher: cipher.clone(),
            sector_bytes: 512,
            first_sector: 0,
        },
    })
}
