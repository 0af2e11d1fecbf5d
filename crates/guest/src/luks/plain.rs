//! What is inside of an encrypted volume.

use std::sync::Arc;

use hako_block::{Error, Result};

use super::cipher::Cipher;
use crate::volume::{Place, Volume, check_range};

/// An encrypted volume that is open.
pub(super) struct Plain {
    pub(super) below: Arc<dyn Volume>,
    /// Where in it the encrypted bytes begin.
    pub(super) start: u64,
    /// How many there are: whole sectors.
    pub(super) len: u64,
    /// The units in which they are encrypted.
    pub(super) sector_bytes: u32,
    pub(super) first_sector: u64,
    pub(super) cipher: Cipher,
}

impl Volume for Plain {
    fn len_bytes(&self) -> u64 {
        self.len
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes.max(self.below.sector_bytes())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        let unit = u64::from(self.sector_bytes);
        let first = offset - offset % unit;
        let end = (offset + buf.len() as u64).next_multiple_of(unit);
        if (first, end - first) == (offset, buf.len() as u64) {
            return self.read_sectors(first, buf);
        }
        let mut sectors = vec![0; usize::try_from(end - first).unwrap_or(usize::MAX)];
        self.read_sectors(first, &mut sectors)?;
        // Less than a sector is before it.
        let skipped = (offset - first) as usize;
        if let Some(wanted) = sectors.get(skipped..skipped + buf.len()) {
            buf.copy_from_slice(wanted);
        }
        Ok(())
    }

    fn places(&self, _: u64, _: u64) -> Result<Vec<Place>> {
        Err(Error::unsupported("it is encrypted"))
    }
}

impl Plain {
    fn read_sectors(&self, offset: u64, sectors: &mut [u8]) -> Result<()> {
        self.below.read_at(self.start + offset, sectors)?;
        let first = self.first_sector.wrapping_add(offset / 512);
        self.cipher
            .decrypt(sectors, self.sector_bytes as usize, first);
        Ok(())
    }
}
