//! What is about to be written, written down first: a run that was cut off is completed by the next.
//!
//! | bytes | |
//! |---|---|
//! | 16 | `hako adapt 1\n` and zeros |
//! | 4, 4 | number of disks, number of writes |
//! | 8 each | the disks' lengths |
//! | | the writes: 4 which disk, 4 length, 8 offset, 4 CRC-32C of what was there, and the bytes |
//! | 4 | CRC-32C of all that |
//!
//! Numbers are little-endian.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::gate::{replace_file, sync_folder_of};
use hako_block::{BlockImage, Crc32c, Error, Result};
use hako_guest::bytes::le::{u32_at, u64_at};

use crate::Staged;

const MAGIC: &[u8; 16] = b"hako adapt 1\n\0\0\0";
const HEAD_BYTES: usize = 24;
const WRITE_BYTES: usize = 20;
/// Disks of a machine; bytes of an intent that is read.
const MOST_DISKS: usize = 256;
const MOST_BYTES: u64 = 3 << 30;

/// What is to be written to some disks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Writes {
    lens: Vec<u64>,
    writes: Vec<OneWrite>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OneWrite {
    disk: usize,
    offset: u64,
    /// The sum of what is there before.
    before: u32,
    bytes: Vec<u8>,
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.value()
}

impl Writes {
    /// Returns none for these disks.
    pub fn new(disks: &[Arc<dyn BlockImage>]) -> Self {
        Self {
            lens: disks.iter().map(|disk| disk.info().virtual_size).collect(),
            writes: Vec::new(),
        }
    }

    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Returns how many bytes there are.
    pub fn n_bytes(&self) -> u64 {
        self.writes.iter().map(|one| one.bytes.len() as u64).sum()
    }

    /// Adds what changes in a volume on the disks. Errors: [`hako_block::ErrorKind::Unsupported`] if
    /// its bytes do not lie in one place on them.
    pub fn add(&mut self, staged: &Staged, disks: &[Arc<dyn BlockImage>]) -> Result<()> {
        for piece in staged.changes()? {
            let (mut old, mut new) = (&piece.old[..], &piece.new[..]);
            for place in staged.base().places(piece.offset, piece.new.len() as u64)? {
                let is_it = |disk: &Arc<dyn BlockImage>| Arc::ptr_eq(disk, &place.image);
                let disk = disks.iter().position(is_it);
                let disk = disk.ok_or_else(|| Error::invalid("a disk that was not named"))?;
                let len = usize::try_from(place.len)
                    .unwrap_or(usize::MAX)
                    .min(new.len());
                let (now, later) = new.split_at(len);
                let (was, rest) = old.split_at(len.min(old.len()));
                self.writes.push(OneWrite {
                    disk,
                    offset: place.offset,
                    before: sum(was),
                    bytes: now.to_vec(),
                });
                (old, new) = (rest, later);
            }
        }
        Ok(())
    }

    /// Returns it as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((self.lens.len() as u32).to_le_bytes());
        bytes.extend((self.writes.len() as u32).to_le_bytes());
        bytes.extend(self.lens.iter().flat_map(|len| len.to_le_bytes()));
        for one in &self.writes {
            bytes.extend((one.disk as u32).to_le_bytes());
            bytes.extend((one.bytes.len() as u32).to_le_bytes());
            bytes.extend(one.offset.to_le_bytes());
            bytes.extend(one.before.to_le_bytes());
            bytes.extend_from_slice(&one.bytes);
        }
        bytes.extend(sum(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what [`Writes::encode`] wrote. Errors: corrupt if it is not whole.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::corrupt("intent", "it is damaged");
        let (all, end) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if !all.starts_with(MAGIC) || u32::from_le_bytes(*end) != sum(all) {
            return Err(damaged());
        }
        let n_disks = u32_at(all, 16) as usize;
        let n_writes = u32_at(all, 20);
        if n_disks > MOST_DISKS {
            return Err(damaged());
        }
        let mut rest = all.get(HEAD_BYTES..).ok_or_else(damaged)?;
        let (lens, writes) = rest.split_at_checked(n_disks * 8).ok_or_else(damaged)?;
        let lens: Vec<u64> = lens.chunks_exact(8).map(|len| u64_at(len, 0)).collect();
        rest = writes;
        let mut found = Vec::new();
        for _ in 0..n_writes {
            let (head, behind) = rest.split_at_checked(WRITE_BYTES).ok_or_else(damaged)?;
            let len = u32_at(head, 4) as usize;
            let (bytes, behind) = behind.split_at_checked(len).ok_or_else(damaged)?;
            let disk = u32_at(head, 0) as usize;
            let offset = u64_at(head, 8);
            let end = offset.checked_add(len as u64).ok_or_else(damaged)?;
            if lens.get(disk).is_none_or(|disk_len| end > *disk_len) {
                return Err(damaged());
            }
            found.push(OneWrite {
                disk,
                offset,
                before: u32_at(head, 16),
                bytes: bytes.to_vec(),
            });
            rest = behind;
        }
        match rest.is_empty() {
            true => Ok(Self {
                lens,
                writes: found,
            }),
            false => Err(damaged()),
        }
    }

    /// Refuses disks that have something else where something is to be written than what was there,
    /// or than what is to be there.
    fn check(&self, disks: &[Arc<dyn BlockImage>]) -> Result<()> {
        let other =
            || Error::invalid("what is written down to be written is about another disk, or older");
        if Self::new(disks).lens != self.lens {
            return Err(other());
        }
        for one in &self.writes {
            let disk = disks.get(one.disk).ok_or_else(other)?;
            let mut now = vec![0; one.bytes.len()];
            disk.read_at(one.offset, &mut now)?;
            if now != one.bytes && sum(&now) != one.before {
                return Err(other());
            }
        }
        Ok(())
    }

    fn carry_out(&self, disks: &[Arc<dyn BlockImage>]) -> Result<()> {
        for one in &self.writes {
            if let Some(disk) = disks.get(one.disk) {
                disk.write_at(one.offset, &one.bytes)?;
            }
        }
        disks.iter().try_for_each(|disk| disk.flush())
    }
}

/// The file beside the disks in which it is written down.
#[derive(Debug)]
pub struct Intent {
    path: PathBuf,
}

impl Intent {
    /// Returns the one at a path, whether it is there or not.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Completes what an earlier run was cut off in. Returns whether there was something. Errors:
    /// [`hako_block::ErrorKind::Invalid`] if it is about other disks; then nothing is written.
    pub fn complete(&self, disks: &[Arc<dyn BlockImage>]) -> Result<bool> {
        let Some(bytes) = self.read()? else {
            return Ok(false);
        };
        let named = |error: Error| error.in_file(&self.path);
        let writes = Writes::decode(&bytes).map_err(named)?;
        let hint = "if the disk was replaced since, remove this file";
        writes
            .check(disks)
            .map_err(|error| named(error).hint(hint))?;
        writes.carry_out(disks)?;
        self.remove()?;
        Ok(true)
    }

    /// Writes: what is cut off is completed by [`Intent::complete`].
    pub fn carry_out(&self, writes: &Writes, disks: &[Arc<dyn BlockImage>]) -> Result<()> {
        writes.check(disks)?;
        replace_file(&self.path, &writes.encode())?;
        writes.carry_out(disks)?;
        self.remove()
    }

    /// Returns whether an earlier run was cut off.
    pub fn is_there(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    fn read(&self) -> Result<Option<Vec<u8>>> {
        let failed = |error| Error::io("read", error).in_file(&self.path);
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(meta) if !meta.is_file() || meta.len() > MOST_BYTES => {
                return Err(Error::invalid("is no file of hako's").in_file(&self.path));
            }
            Ok(_) => {}
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&self.path).map_err(failed)?;
        file.take(MOST_BYTES)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(Some(bytes))
    }

    fn remove(&self) -> Result<()> {
        let failed = |error| Error::io("remove", error).in_file(&self.path);
        std::fs::remove_file(&self.path).map_err(failed)?;
        sync_folder_of(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_and_damage_is_found() {
        let writes = Writes {
            lens: vec![100, 200],
            writes: vec![OneWrite {
                disk: 1,
                offset: 190,
                before: 7,
                bytes: vec![1; 10],
            }],
        };
        let bytes = writes.encode();
        assert_eq!(Writes::decode(&bytes).unwrap(), writes);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Writes::decode(&damaged).is_err(), "{at}");
            assert!(Writes::decode(&bytes[..at]).is_err());
        }
        let mut outside = writes.clone();
        outside.writes[0].offset = 191;
        assert!(Writes::decode(&outside.encode()).is_err());
    }
}
