//! Keys made of what a user knows, and keys that were spread over many stripes.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use hako_block::{Error, Result};
use ring::{digest, pbkdf2};

/// Most memory that Argon2 may want, in KiB, as cryptsetup has it: 4 GiB.
const MOST_MEMORY_KIB: u32 = 4 << 20;
/// Most work that it may be, in KiB times passes: hours of it are no header's of somebody who wants to get
/// in.
const MOST_WORK: u64 = 1 << 31;

/// A hash that LUKS uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

/// How a key is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kdf {
    Pbkdf2 {
        hash: Hash,
        salt: Vec<u8>,
        iterations: u32,
    },
    Argon2 {
        /// `argon2i` or `argon2id`.
        is_id: bool,
        salt: Vec<u8>,
        passes: u32,
        memory_kib: u32,
        lanes: u32,
    },
}

impl Hash {
    /// Returns the one of that name. Errors: not supported.
    pub(super) fn named(name: &str) -> Result<Self> {
        match name {
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            name => Err(Error::unsupported(format!(
                "LUKS: the hash {name:?} is not read: sha1, sha256 and sha512 are"
            ))),
        }
    }

    pub(super) fn of(self, parts: &[&[u8]]) -> digest::Digest {
        let mut context = digest::Context::new(match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        });
        for part in parts {
            context.update(part);
        }
        context.finish()
    }

    /// Puts a key together again that was spread over stripes of its length (LUKS1, section 2.4).
    pub(super) fn merge(self, spread: &[u8], stripes: usize) -> Vec<u8> {
        let len = spread.len().checked_div(stripes).unwrap_or(0);
        let mut key = vec![0; len];
        for (number, stripe) in spread.chunks_exact(len.max(1)).enumerate() {
            for (byte, other) in key.iter_mut().zip(stripe) {
                *byte ^= other;
            }
            if number + 1 < stripes {
                self.diffuse(&mut key);
            }
        }
        key
    }

    /// Hashes each piece of the hash's length with its number.
    fn diffuse(self, key: &mut [u8]) {
        let len = self.of(&[]).as_ref().len();
        for (number, piece) in (0_u32..).zip(key.chunks_mut(len)) {
            let hashed = self.of(&[&number.to_be_bytes(), piece]);
            for (byte, hashed) in piece.iter_mut().zip(hashed.as_ref()) {
                *byte = *hashed;
            }
        }
    }
}

impl Kdf {
    /// Returns a key of `len` bytes. Errors: corrupt for what nobody computes; not supported for more
    /// memory than there is.
    pub(super) fn derive(&self, secret: &[u8], len: usize) -> Result<Vec<u8>> {
        let mut key = vec![0; len.min(super::MOST_KEY_BYTES)];
        match self {
            Self::Pbkdf2 {
                hash,
                salt,
                iterations,
            } => {
                let Some(iterations) = NonZeroU32::new(*iterations) else {
                    return Err(Error::corrupt("LUKS keyslot", "PBKDF2 of no iteration"));
                };
                let algorithm = match hash {
                    Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
                    Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
                    Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
                };
                pbkdf2::derive(algorithm, iterations, salt, secret, &mut key);
            }
            Self::Argon2 {
                is_id,
                salt,
                passes,
                memory_kib,
                lanes,
            } => {
                let kind = if *is_id {
                    Algorithm::Argon2id
                } else {
                    Algorithm::Argon2i
                };
                let work = u64::from(*memory_kib) * u64::from(*passes);
                let params = Params::new(*memory_kib, *passes, *lanes, Some(key.len()));
                let corrupt = || {
                    let what =
                        format!("Argon2 of {memory_kib} KiB, {passes} passes, {lanes} lanes");
                    Error::corrupt("LUKS keyslot", what)
                };
                let params = params.map_err(|_| corrupt())?;
                if *memory_kib > MOST_MEMORY_KIB || work > MOST_WORK {
                    return Err(corrupt());
                }
                let argon2 = Argon2::new(kind, Version::V0x13, params);
                let mut memory = memory(argon2.params().block_count())?;
                let done =
                    argon2.hash_password_into_with_memory(secret, salt, &mut key, &mut memory);
                done.map_err(|_| corrupt())?;
            }
        }
        Ok(key)
    }
}

/// Takes memory for Argon2, if there is as much.
fn memory(n_blocks: usize) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    if blocks.try_reserve_exact(n_blocks).is_err() {
        let what = format!("LUKS keyslot: {n_blocks} KiB of memory are wanted to open it");
        return Err(Error::unsupported(what));
    }
    blocks.resize(n_blocks, Block::new());
    Ok(blocks)
}
