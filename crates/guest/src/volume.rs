//! Runs of bytes that hold a file system or more volumes: disks, partitions, logical volumes, arrays.

use std::sync::Arc;

use hako_block::{BlockImage, Error, Result, Value};

/// Bytes that can be read at any offset, from any thread.
pub trait Volume: Send + Sync {
    /// Returns the length in bytes. It does not change.
    fn len_bytes(&self) -> u64;

    /// Returns the bytes of a sector as the guest addresses it: 512 or 4096.
    fn sector_bytes(&self) -> u32;

    /// Reads exactly `buf.len()` bytes. Errors: [`hako_block::ErrorKind::Corrupt`] if the range does
    /// not lie inside the volume (see [`check_range`]), and whatever reading gives.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Returns where on the disks a range lies, in its order, for who changes a copy: each byte of it
    /// in one place and in no other. Errors: [`hako_block::ErrorKind::Unsupported`] if that is not so
    /// (a mirror, zeros that lie nowhere).
    fn places(&self, offset: u64, len: u64) -> Result<Vec<Place>> {
        let _ = (offset, len);
        Err(Error::unsupported(
            "its bytes do not lie in one place on the disks",
        ))
    }
}

/// Bytes of a disk.
#[derive(Clone)]
pub struct Place {
    /// The disk.
    pub image: Arc<dyn BlockImage>,
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// Refuses a range that does not lie inside a volume of `volume_bytes`. What asks for it believed a
/// number on the disk.
pub fn check_range(offset: u64, len: usize, volume_bytes: u64) -> Result<()> {
    check_long_range(offset, len as u64, volume_bytes)
}

/// Like [`check_range`], of a range that need not fit in memory.
pub(crate) fn check_long_range(offset: u64, len: u64, volume_bytes: u64) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= volume_bytes => Ok(()),
        _ => Err(Error::corrupt(
            "volume",
            format!("{len} bytes wanted past its end ({volume_bytes} bytes)"),
        )
        .at_byte(offset)),
    }
}

/// Reads `len` bytes at `offset`. The range is checked before memory is taken.
pub fn read_vec(volume: &dyn Volume, offset: u64, len: usize) -> Result<Vec<u8>> {
    check_range(offset, len, volume.len_bytes())?;
    let mut bytes = vec![0; len];
    volume.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

/// A whole disk.
pub struct Disk {
    image: Arc<dyn BlockImage>,
    sector_bytes: u32,
}

impl Disk {
    /// Returns the disk in `image`, whose sectors have `sector_bytes` (512 or 4096) for the guest.
    pub fn new(image: Arc<dyn BlockImage>, sector_bytes: u32) -> Self {
        Self {
            image,
            sector_bytes,
        }
    }

    /// Returns the size of a sector that an image itself tells (VHDX).
    pub fn told_sector_bytes(image: &dyn BlockImage) -> Option<u32> {
        let mut details = image.info().details.iter();
        match details.find(|(key, _)| *key == "logical_sector_size") {
            Some((_, Value::Int(bytes))) => u32::try_from(*bytes).ok(),
            _ => None,
        }
    }
}

impl Volume for Disk {
    fn len_bytes(&self) -> u64 {
        self.image.info().virtual_size
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len_bytes())?;
        self.image.read_at(offset, buf)
    }

    fn places(&self, offset: u64, len: u64) -> Result<Vec<Place>> {
        check_long_range(offset, len, self.len_bytes())?;
        let image = Arc::clone(&self.image);
        Ok(vec![Place { image, offset, len }])
    }
}

/// A part of a volume, as a partition is of a disk.
#[derive(Clone)]
pub struct Slice {
    whole: Arc<dyn Volume>,
    start: u64,
    len: u64,
    sector_bytes: u32,
}

impl Slice {
    /// Returns `len` bytes of `whole` from `start`. Errors: [`hako_block::ErrorKind::Corrupt`] if
    /// they do not lie inside it.
    pub fn new(whole: Arc<dyn Volume>, start: u64, len: u64) -> Result<Self> {
        match start.checked_add(len) {
            Some(end) if end <= whole.len_bytes() => {
                let sector_bytes = whole.sector_bytes();
                Ok(Self {
                    whole,
                    start,
                    len,
                    sector_bytes,
                })
            }
            _ => Err(Error::corrupt(
                "volume",
                format!(
                    "a part of {len} bytes lies past its end ({} bytes)",
                    whole.len_bytes()
                ),
            )
            .at_byte(start)),
        }
    }

    /// Returns it with sectors of `sector_bytes`, where its partition table was found to count so.
    #[must_use]
    pub fn with_sector_bytes(self, sector_bytes: u32) -> Self {
        Self {
            sector_bytes,
            ..self
        }
    }
}

impl Volume for Slice {
    fn len_bytes(&self) -> u64 {
        self.len
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.whole.read_at(self.start + offset, buf)
    }

    fn places(&self, offset: u64, len: u64) -> Result<Vec<Place>> {
        check_long_range(offset, len, self.len)?;
        self.whole.places(self.start + offset, len)
    }
}

/// A volume in memory.
impl Volume for Vec<u8> {
    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn sector_bytes(&self) -> u32 {
        512
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len_bytes())?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.get(start..).and_then(|rest| rest.get(..buf.len())) {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => unreachable!("the range was checked"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_reads_its_own_bytes_and_nothing_past_them() {
        let whole: Arc<dyn Volume> = Arc::new((0..100).collect::<Vec<u8>>());
        let slice = Slice::new(Arc::clone(&whole), 10, 20).unwrap();
        assert_eq!(read_vec(&slice, 18, 2).unwrap(), [28, 29]);
        assert!(read_vec(&slice, 19, 2).is_err());
        assert!(read_vec(&slice, u64::MAX, 2).is_err());
        assert!(Slice::new(Arc::clone(&whole), 90, 11).is_err());
        assert!(Slice::new(whole, u64::MAX, 2).is_err());
    }
}
