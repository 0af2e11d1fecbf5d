//! Storage made of other storage: a range of one file, several files one after another.

use std::ops::Range;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result, Storage, StorageExtent};

/// A range of another storage as a file of its own, read-only: a member of a tar, read in place.
pub struct Window {
    inner: Arc<dyn Storage>,
    name: String,
    range: Range<u64>,
}

impl Window {
    /// Returns the window. Errors: a range that the storage does not have.
    pub fn new(
        inner: Arc<dyn Storage>,
        name: impl Into<String>,
        range: Range<u64>,
    ) -> Result<Self> {
        let len = inner.len_bytes()?;
        let name = name.into();
        if range.start > range.end || range.end > len {
            return Err(Error::corrupt(
                "a file inside",
                format!("bytes {}..{} of {len} do not exist", range.start, range.end),
            )
            .in_file(name));
        }
        Ok(Self { inner, name, range })
    }
}

impl Storage for Window {
    fn name(&self) -> &str {
        &self.name
    }

    fn len_bytes(&self) -> Result<u64> {
        Ok(self.range.end - self.range.start)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_end(&self.name, offset, buf.len(), self.len_bytes()?)?;
        self.inner.read_at(self.range.start + offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<StorageExtent> {
        let len = self.len_bytes()?;
        if offset >= len {
            return Err(Error::invalid("extent past the end").in_file(&self.name));
        }
        let found = self.inner.next_extent(self.range.start + offset)?;
        Ok(StorageExtent {
            offset,
            len: found.len.min(len - offset),
            data: found.data,
        })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// Several storages one after another as one file, read-only: a file that was cut into chunks.
pub struct Joined {
    name: String,
    /// Each with the offset that it begins at.
    parts: Vec<(u64, Arc<dyn Storage>)>,
    len: u64,
}

impl Joined {
    /// Returns the parts as one file.
    pub fn new(name: impl Into<String>, parts: Vec<Arc<dyn Storage>>) -> Result<Self> {
        let name = name.into();
        let mut len: u64 = 0;
        let mut placed = Vec::with_capacity(parts.len());
        for part in parts {
            let start = len;
            len = len
                .checked_add(part.len_bytes()?)
                .ok_or_else(|| Error::invalid("is too large").in_file(&name))?;
            placed.push((start, part));
        }
        Ok(Self {
            name,
            parts: placed,
            len,
        })
    }

    /// Returns the part that has the byte at `offset`, where it begins and where it ends.
    fn part_at(&self, offset: u64) -> Option<(Range<u64>, &Arc<dyn Storage>)> {
        // Of an empty part and the next one, which begin alike, the last is the one.
        let index = self.parts.partition_point(|(start, _)| *start <= offset);
        let (start, part) = self.parts.get(index.checked_sub(1)?)?;
        let end = self.parts.get(index).map_or(self.len, |(start, _)| *start);
        (offset < end).then_some((*start..end, part))
    }
}

impl Storage for Joined {
    fn name(&self) -> &str {
        &self.name
    }

    fn len_bytes(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_end(&self.name, offset, buf.len(), self.len)?;
        let mut offset = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let Some((range, part)) = self.part_at(offset) else {
                return Err(Error::invalid("read past the end").in_file(&self.name));
            };
            let room = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
            let (head, tail) = rest.split_at_mut(room.min(rest.len()));
            part.read_at(offset - range.start, head)?;
            offset += head.len() as u64;
            rest = tail;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<StorageExtent> {
        let Some((range, part)) = self.part_at(offset) else {
            return Err(Error::invalid("extent past the end").in_file(&self.name));
        };
        let found = part.next_extent(offset - range.start)?;
        Ok(StorageExtent {
            offset,
            len: found.len.min(range.end - offset),
            data: found.data,
        })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn check_end(name: &str, offset: u64, len: usize, end: u64) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(needed) if needed <= end => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{len} bytes needed, but the file ends before"),
        )
        .in_file(name)
        .at_byte(offset)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;

    fn memory(bytes: &[u8]) -> Arc<dyn Storage> {
        Arc::new(MemoryStorage::new("outer", bytes.to_vec()))
    }

    #[test]
    fn a_window_shows_its_range_and_nothing_else() {
        let window = Window::new(memory(b"0123456789"), "inner", 2..6).unwrap();
        let mut buf = [0; 4];
        window.read_at(0, &mut buf).unwrap();
        assert_eq!((&buf, window.len_bytes().unwrap()), (b"2345", 4));
        for (offset, len) in [(1, 4), (4, 1), (u64::MAX, 1)] {
            let error = window.read_at(offset, &mut vec![0; len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        assert_eq!(window.next_extent(1).unwrap().len, 3);
        assert_eq!(
            window.write_at(0, b"x").unwrap_err().kind(),
            ErrorKind::ReadOnly
        );
        assert!(Window::new(memory(b"0123"), "inner", 2..5).is_err());
    }

    #[test]
    fn joined_parts_read_as_one() {
        let parts = [&b"abc"[..], b"", b"defg", b"h", b""];
        let joined = Joined::new("all", parts.iter().map(|part| memory(part)).collect()).unwrap();
        let whole = b"abcdefgh";
        for start in 0..=whole.len() {
            for end in start..=whole.len() {
                let mut buf = vec![0; end - start];
                joined.read_at(start as u64, &mut buf).unwrap();
                assert_eq!(buf, &whole[start..end]);
            }
        }
        assert!(joined.read_at(5, &mut [0; 4]).is_err());
        let mut offset = 0;
        while offset < joined.len_bytes().unwrap() {
            offset += joined.next_extent(offset).unwrap().len;
        }
        assert_eq!(offset, 8);
        assert!(joined.next_extent(8).is_err());
    }
}
