//! Files that are packed with gzip (DSP0243, 7.1: `ovf:compression`): a disk in one cannot be read
//! anywhere until it is unpacked.

use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use hako_block::{Cancel, Error, FileStorage, Progress, Result, Storage, is_zero};

/// Unpacks `from` into an unnamed file in `folder`. Errors: content that is no gzip, or unpacks
/// to more than `max_bytes`.
pub(super) fn unpack(
    from: &dyn Storage,
    folder: &Path,
    max_bytes: u64,
    (progress, cancel): (&dyn Progress, &Cancel),
) -> Result<Arc<dyn Storage>> {
    let file = tempfile::tempfile_in(folder)
        .map_err(|error| Error::io("create a temporary file", error).in_file(folder))?;
    let to = FileStorage::from_file(file, Path::new(from.name()), true)?;
    progress.phase("unpack");
    let len = decode(from, &to, max_bytes, (progress, cancel))
        .map_err(|error| error.in_file(from.name()))?;
    to.set_len(len)?;
    Ok(Arc::new(to))
}

/// Unpacks, blocks of zeros left out; returns how much there is.
fn decode(
    from: &dyn Storage,
    to: &dyn Storage,
    max_bytes: u64,
    (progress, cancel): (&dyn Progress, &Cancel),
) -> Result<u64> {
    let mut decoder = MultiGzDecoder::new(Reader {
        storage: from,
        position: 0,
        len: from.len_bytes()?,
    });
    let mut buffer = vec![0; 1 << 16];
    let mut offset: u64 = 0;
    loop {
        cancel.check()?;
        let len = match decoder.read(&mut buffer) {
            Ok(0) => return Ok(offset),
            Ok(len) => len,
            Err(error) if error.kind() == IoErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::corrupt("gzip", error.to_string())),
        };
        if offset + len as u64 > max_bytes {
            return Err(Error::corrupt(
                "gzip",
                format!("unpacks to more than the {max_bytes} bytes that its disk can need"),
            ));
        }
        if !is_zero(&buffer[..len]) {
            to.write_at(offset, &buffer[..len])?;
        }
        offset += len as u64;
        progress.advance(len as u64);
    }
}

/// Reads a storage from its beginning to its end.
struct Reader<'a> {
    storage: &'a dyn Storage,
    position: u64,
    len: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.len - self.position).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        self.storage
            .read_at(self.position, &mut buf[..len])
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        self.position += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use hako_block::{ErrorKind, MemoryStorage, NoProgress};

    use super::*;

    fn packed(bytes: &[u8]) -> MemoryStorage {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        MemoryStorage::new("disk.gz", encoder.finish().unwrap())
    }

    fn unpacked(from: &dyn Storage, max_bytes: u64) -> Result<Vec<u8>> {
        let cancel = Cancel::default();
        let folder = std::env::temp_dir();
        let storage = unpack(from, &folder, max_bytes, (&NoProgress, &cancel))?;
        let mut bytes = vec![0; storage.len_bytes()? as usize];
        storage.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let mut bytes = vec![0; 1 << 20];
        bytes[700_000..700_100].fill(7);
        assert!(unpacked(&packed(&bytes), 1 << 20).unwrap() == bytes);
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        let bomb = packed(&vec![0; 1 << 20]);
        assert_eq!(
            unpacked(&bomb, 1000).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        let mut cut = packed(b"something").to_vec();
        cut.truncate(cut.len() - 5);
        let cut = MemoryStorage::new("disk.gz", cut);
        assert_eq!(unpacked(&cut, 1000).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
