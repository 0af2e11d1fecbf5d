//! A kernel's file, as the loader reads it: piece by piece, straight to where it goes. Of the file only
//! what the guest gets is read, and it is never in memory twice.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;

use hako_block::{Error, Result, Storage};
use rustix::fs::seek;
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

/// Bytes that pass through memory of ours at a time.
const PIECE: usize = 256 << 10;

/// A file with a place in it.
pub struct Image<'a> {
    storage: &'a dyn Storage,
    len: u64,
    at: u64,
    failed: Option<Error>,
}

impl<'a> Image<'a> {
    /// Returns `storage` from its start on.
    pub fn new(storage: &'a dyn Storage) -> Result<Self> {
        Ok(Self {
            storage,
            len: storage.len_bytes()?,
            at: 0,
            failed: None,
        })
    }

    /// Returns what the file said when it could not be read.
    pub fn failed(self) -> Option<Error> {
        self.failed
    }

    /// Reads what is left, at most `buf`.
    fn next(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let n = buf.len().min(left);
        let Some(buf) = buf.get_mut(..n) else {
            return Ok(0);
        };
        if let Err(error) = self.storage.read_at(self.at, buf) {
            self.failed = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        self.at += n as u64;
        Ok(n)
    }

    /// Reads a file of the host's straight into the guest's memory, which saves a copy of it.
    fn straight<B: BitmapSlice>(
        &mut self,
        file: BorrowedFd<'_>,
        to: &VolatileSlice<B>,
    ) -> std::result::Result<usize, VolatileMemoryError> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let to = to.subslice(0, to.len().min(left))?;
        read_from(file, self.at, &to)
            .inspect(|n| self.at += *n as u64)
            .map_err(|error| match error {
                VolatileMemoryError::IOError(error) => {
                    let error = Error::io("read", error).in_file(self.storage.name());
                    self.failed = Some(error);
                    VolatileMemoryError::IOError(io::ErrorKind::Other.into())
                }
                other => other,
            })
    }
}

/// Reads from a place in a file until all of `to` is full or the file ends.
fn read_from<B: BitmapSlice>(
    mut file: BorrowedFd<'_>,
    at: u64,
    to: &VolatileSlice<B>,
) -> std::result::Result<usize, VolatileMemoryError> {
    let place = rustix::fs::SeekFrom::Start(at);
    seek(file, place).map_err(|error| VolatileMemoryError::IOError(error.into()))?;
    let mut done = 0;
    while done < to.len() {
        match file.read_volatile(&mut to.offset(done)?) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(VolatileMemoryError::IOError(error))
                if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl Read for Image<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.next(buf)
    }
}

impl Seek for Image<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl ReadVolatile for Image<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        to: &mut VolatileSlice<B>,
    ) -> std::result::Result<usize, VolatileMemoryError> {
        if let Some(file) = self.storage.host_file() {
            return self.straight(file, to);
        }
        let mut piece = vec![0; PIECE.min(to.len())];
        let mut done = 0;
        // A caller takes it for the end of the file when there is less than it asks for.
        while done < to.len() {
            let room = piece.len().min(to.len() - done);
            let n = self
                .next(piece.get_mut(..room).unwrap_or_default())
                .map_err(VolatileMemoryError::IOError)?;
            if n == 0 {
                break;
            }
            to.offset(done)?
                .copy_from(piece.get(..n).unwrap_or_default());
            done += n;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use hako_block::{Access, FileStorage, LockMode, MemoryStorage};
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory::{self, Pages};

    #[test]
    fn it_is_read_from_any_place_to_its_end_and_no_further() {
        let content: Vec<u8> = (0..PIECE * 2 + 100).map(|at| (at / 7) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &content).unwrap();
        let on_disk = FileStorage::open(file.path(), Access::ReadOnly, LockMode::None).unwrap();
        assert!(on_disk.host_file().is_some());
        is_read(&on_disk, &content);
        is_read(&MemoryStorage::new("kernel", content.clone()), &content);
    }

    fn is_read(storage: &dyn Storage, content: &[u8]) {
        let mut image = Image::new(storage).unwrap();
        let memory = memory::map(memory::LEAST_BYTES, Pages::Normal).unwrap();
        image.seek(SeekFrom::Start(50)).unwrap();
        let len = content.len() - 50;
        let read = memory.read_exact_volatile_from(GuestAddress(4096), &mut image, len);
        read.unwrap();
        let mut found = vec![0; len];
        memory.read_slice(&mut found, GuestAddress(4096)).unwrap();
        assert_eq!(found, &content[50..]);
        assert_eq!(image.read(&mut [0; 8]).unwrap(), 0);
        image.seek(SeekFrom::End(-3)).unwrap();
        assert!(
            memory
                .read_exact_volatile_from(GuestAddress(0), &mut image, 4)
                .is_err()
        );
        assert!(image.seek(SeekFrom::Current(-1 << 40)).is_err());
        assert!(image.failed().is_none());
    }
}
