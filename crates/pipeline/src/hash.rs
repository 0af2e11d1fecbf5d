//! SHA-256 of everything the guest sees.

use std::ops::Range;

use hako_block::{BlockImage, Result, Sink};
use ring::digest::{Context, SHA256};

use crate::fingerprint::ZEROS;
use crate::{CopyOptions, copy};

/// Returns the SHA-256 of the whole content of `image`, zeros included. Workers read ahead; the
/// hash itself has an order and runs in the calling thread.
pub fn sha256(image: &dyn BlockImage, options: &CopyOptions<'_>) -> Result<[u8; 32]> {
    let options = CopyOptions {
        fingerprint: false,
        keep_holes: false,
        detect_zeros: false,
        ..*options
    };
    let mut hasher = Context::new(&SHA256);
    let sink = Box::new(HashSink {
        hasher: &mut hasher,
    });
    copy(image, sink, image.info().virtual_size, &options)?;
    let mut digest = [0; 32];
    digest.copy_from_slice(hasher.finish().as_ref());
    Ok(digest)
}

struct HashSink<'a> {
    hasher: &'a mut Context,
}

impl Sink for HashSink<'_> {
    fn unit_bytes(&self) -> u64 {
        4096
    }

    fn data(&mut self, _offset: u64, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        let mut left = range.end - range.start;
        while left > 0 {
            let len = left.min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..len as usize]);
            left -= len;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hako_block::{Cancel, NoProgress};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::testing::{FakeImage, Random};

    #[test]
    fn hash_is_that_of_the_whole_content() {
        for seed in 0..4 {
            let image = FakeImage::random(&mut Random::new(seed), 3 << 20);
            let cancel = Cancel::default();
            let found = sha256(&image, &CopyOptions::new(&NoProgress, &cancel)).unwrap();
            assert_eq!(found, <[u8; 32]>::from(Sha256::digest(image.content())));
        }
    }
}
