//! AES of sectors: XTS (IEEE 1619) and CBC, with the initial vectors of dm-crypt. Only decrypting.

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use hako_block::{Error, Result};

use super::derive::Hash;

/// How dm-crypt counts, whatever the sectors' size.
const COUNTED_BYTES: u64 = 512;

/// Decrypts sectors.
pub(super) struct Cipher {
    data: Aes,
    mode: Mode,
}

enum Mode {
    /// The key of the tweak.
    Xts(Vector),
    Cbc(Vector),
}

/// How a sector's number becomes its initial vector.
enum Vector {
    /// 32 bits of it, little-endian.
    Plain,
    /// 64 bits.
    Plain64,
    /// 64 bits, encrypted.
    Encrypted(Aes),
    /// The same of 32 bits.
    Encrypted32(Aes),
}

enum Aes {
    Short(Aes128),
    Middle(Aes192),
    Long(Aes256),
}

impl Cipher {
    /// Returns the cipher that dm-crypt calls so, with a key. Errors: not supported.
    pub(super) fn new(name: &str, key: &[u8]) -> Result<Self> {
        let unknown = || {
            Error::unsupported(format!(
                "LUKS: {name} with a key of {} bits is not read: aes-xts-plain64 and aes-cbc-essiv:sha256 are",
                key.len() * 8
            ))
        };
        let mode = name.strip_prefix("aes-").ok_or_else(unknown)?;
        let (data, mode) = match mode {
            "xts-plain64" | "xts-plain" => {
                let (data, tweak) = key.split_at(key.len() / 2);
                let tweak = Aes::new(tweak).ok_or_else(unknown)?;
                let vector = match mode {
                    "xts-plain" => Vector::Encrypted32(tweak),
                    _ => Vector::Encrypted(tweak),
                };
                (data, Mode::Xts(vector))
            }
            "cbc-plain" => (key, Mode::Cbc(Vector::Plain)),
            "cbc-plain64" => (key, Mode::Cbc(Vector::Plain64)),
            mode => {
                let hash = mode.strip_prefix("cbc-essiv:").ok_or_else(unknown)?;
                let hashed = Hash::named(hash)?.of(&[key]);
                let vector = Aes::new(hashed.as_ref()).ok_or_else(unknown)?;
                (key, Mode::Cbc(Vector::Encrypted(vector)))
            }
        };
        let data = Aes::new(data).ok_or_else(unknown)?;
        Ok(Self { data, mode })
    }

    /// Decrypts whole sectors of `sector_bytes` (512 to 4096), the first of which has the number
    /// `first`, counted in 512 bytes.
    pub(super) fn decrypt(&self, bytes: &mut [u8], sector_bytes: usize, first: u64) {
        let step = sector_bytes as u64 / COUNTED_BYTES;
        let mut number = first;
        for sector in bytes.chunks_exact_mut(sector_bytes) {
            match &self.mode {
                Mode::Xts(vector) => self.decrypt_xts(sector, vector.of(number)),
                Mode::Cbc(vector) => self.decrypt_cbc(sector, vector.of(number)),
            }
            number = number.wrapping_add(step);
        }
    }

    fn decrypt_xts(&self, sector: &mut [u8], vector: Block) {
        let (blocks, _) = Array::slice_as_chunks_mut(sector);
        let first = u128::from_le_bytes(vector.0);
        xor_tweaks(blocks, first);
        self.data.decrypt(blocks);
        xor_tweaks(blocks, first);
    }

    fn decrypt_cbc(&self, sector: &mut [u8], vector: Block) {
        let before = sector.to_vec();
        self.data.decrypt(Array::slice_as_chunks_mut(sector).0);
        let before = vector.0.iter().chain(&before);
        for (byte, other) in sector.iter_mut().zip(before) {
            *byte ^= other;
        }
    }
}

/// Changes each block by its tweak: the one before, doubled in the field of 2^128.
fn xor_tweaks(blocks: &mut [Block], first: u128) {
    let mut tweak = first;
    for block in blocks {
        block.0 = (u128::from_le_bytes(block.0) ^ tweak).to_le_bytes();
        let carry = if tweak >> 127 == 1 { 0x87 } else { 0 };
        tweak = tweak << 1 ^ carry;
    }
}

impl Vector {
    fn of(&self, number: u64) -> Block {
        let number = match self {
            Self::Plain | Self::Encrypted32(_) => number & u64::from(u32::MAX),
            Self::Plain64 | Self::Encrypted(_) => number,
        };
        let mut block = Array(u128::from(number).to_le_bytes());
        if let Self::Encrypted(aes) | Self::Encrypted32(aes) = self {
            aes.encrypt(&mut block);
        }
        block
    }
}

impl Aes {
    fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Aes128::new_from_slice(key).ok().map(Self::Short),
            24 => Aes192::new_from_slice(key).ok().map(Self::Middle),
            32 => Aes256::new_from_slice(key).ok().map(Self::Long),
            _ => None,
        }
    }

    fn encrypt(&self, block: &mut Block) {
        match self {
            Self::Short(aes) => aes.encrypt_block(block),
            Self::Middle(aes) => aes.encrypt_block(block),
            Self::Long(aes) => aes.encrypt_block(block),
        }
    }

    fn decrypt(&self, blocks: &mut [Block]) {
        match self {
            Self::Short(aes) => aes.decrypt_blocks(blocks),
            Self::Middle(aes) => aes.decrypt_blocks(blocks),
            Self::Long(aes) => aes.decrypt_blocks(blocks),
        }
    }
}
