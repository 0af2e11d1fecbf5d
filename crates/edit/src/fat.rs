//! FAT, by `fatfs`.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

use fatfs::{Dir, FileSystem, FsOptions};
use hako_block::{Error, ErrorKind, Result};
use hako_guest::bytes::le::{u16_at, u32_at};
use hako_guest::check::check;
use hako_guest::volume::read_vec;
use hako_guest::{Tree, Volume};

use crate::Staged;

/// A file system that is changed in memory. Paths begin at its root and have `/` between names.
pub struct Fat {
    volume: Arc<Staged>,
}

type Folder<'a> = Dir<'a, Cursor>;

impl Fat {
    /// Opens it. Errors: corrupt if it is none; [`ErrorKind::Unsupported`] if it is damaged, for fatfs
    /// takes what tables and folders say for granted: it counts from cluster 2, and would go astray from
    /// a folder that says that it is in cluster 1.
    pub fn open(volume: Arc<Staged>) -> Result<Self> {
        let fat = Self { volume };
        let len_bytes = fat.volume.len_bytes();
        let report = check(&*fat.reader()?, (0, len_bytes), &mut || Ok(()))?;
        if let Some(first) = report.damage.first() {
            let what = format!("the file system is damaged: {first}");
            return Err(Error::unsupported(what).hint("fsck.fat repairs it"));
        }
        fat.with("/", |_| Ok(()))?;
        Ok(fat)
    }

    /// Opens it as it is now with the reader.
    fn reader(&self) -> Result<Arc<dyn hako_guest::FileSystem>> {
        let fs = hako_guest::fs::open(Arc::clone(&self.volume) as _)?;
        fs.ok_or_else(|| Error::corrupt("FAT", "it is none"))
    }

    /// Makes a folder, and those above it; one that is there stays.
    pub fn make_folder(&self, path: &str) -> Result<()> {
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .filter(|at| *at > 0);
        for end in ends.chain([path.len()]) {
            let folder = path.get(..end).unwrap_or_default().trim_matches('/');
            let is_there = self.with(path, |root| Ok(root.open_dir(folder).is_ok()))?;
            if !is_there {
                self.with(path, |root| root.create_dir(folder).map(|_| ()))?;
                self.mend(&self.place_of(folder)?)?;
            }
        }
        Ok(())
    }

    /// Returns where the first cluster of a folder is, by its record.
    fn place_of(&self, folder: &str) -> Result<Range<u64>> {
        let record = Tree::new(self.reader()?)
            .find(folder.as_bytes())?
            .node()
            .number;
        let record = read_vec(&*self.volume, record, 32)?;
        let cluster = u64::from(u16_at(&record, 20)) << 16 | u64::from(u16_at(&record, 26));
        let boot = read_vec(&*self.volume, 0, 512)?;
        let sector_bytes = u64::from(u16_at(&boot, 11));
        let cluster_bytes = u64::from(boot.get(13).copied().unwrap_or(0)) * sector_bytes;
        let table_sectors = match u16_at(&boot, 22) {
            0 => u64::from(u32_at(&boot, 36)),
            sectors => u64::from(sectors),
        };
        let tables = u64::from(boot.get(16).copied().unwrap_or(0)) * table_sectors;
        let root_bytes = u64::from(u16_at(&boot, 17)) * 32;
        let data = (u64::from(u16_at(&boot, 14)) + tables) * sector_bytes
            + root_bytes.next_multiple_of(sector_bytes.max(1));
        let from = cluster
            .checked_sub(2)
            .and_then(|n| n.checked_mul(cluster_bytes));
        let start = from.and_then(|from| from.checked_add(data));
        let start = start.ok_or_else(|| Error::corrupt("FAT", "a folder without a cluster"))?;
        Ok(start..start.saturating_add(cluster_bytes))
    }

    /// Puts `.` and `..` where they belong in a folder that was just made: fatfs gives them long names
    /// before them, and nobody else wants that.
    fn mend(&self, own: &Range<u64>) -> Result<()> {
        const ENTRY_BYTES: usize = 32;
        const LONG_NAME: u8 = 0xf;
        let cluster = read_vec(&*self.volume, own.start, (own.end - own.start) as usize)?;
        let entries = cluster.chunks_exact(ENTRY_BYTES);
        let short = entries.filter(|entry| entry.get(11) != Some(&LONG_NAME));
        let mut mended: Vec<u8> = short.take(2).flatten().copied().collect();
        if !mended.starts_with(b".          ") || mended.get(32..43) != Some(b"..         ") {
            return Err(Error::corrupt(
                "new folder",
                "it does not begin as folders do",
            ));
        }
        mended.resize(cluster.len(), 0);
        self.volume.write_at(own.start, &mended)
    }

    /// Makes a file of a content, or gives one that is there another.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.with(path, |root| {
            let mut file = root.create_file(path.trim_start_matches('/'))?;
            file.truncate()?;
            file.write_all(bytes)?;
            file.flush()
        })
    }

    /// Appends to a file, which must have `len` bytes.
    pub fn append(&self, path: &str, len: u64, bytes: &[u8]) -> Result<()> {
        self.with(path, |root| {
            let mut file = root.open_file(path.trim_start_matches('/'))?;
            if file.seek(SeekFrom::End(0))? != len {
                return Err(io::Error::other("it has another length"));
            }
            file.write_all(bytes)?;
            file.flush()
        })
    }

    /// Cuts a file to `len` bytes, which it must have.
    pub fn cut(&self, path: &str, len: u64) -> Result<()> {
        self.with(path, |root| {
            let mut file = root.open_file(path.trim_start_matches('/'))?;
            if file.seek(SeekFrom::End(0))? < len {
                return Err(io::Error::other("it is shorter already"));
            }
            file.seek(SeekFrom::Start(len))?;
            file.truncate()?;
            file.flush()
        })
    }

    /// Removes a file, or a folder that is empty.
    pub fn remove(&self, path: &str) -> Result<()> {
        self.with(path, |root| root.remove(path.trim_start_matches('/')))
    }

    /// Calls `what` with the root, and writes what is kept in memory.
    fn with<T>(&self, path: &str, what: impl FnOnce(Folder<'_>) -> io::Result<T>) -> Result<T> {
        let failed = |error: io::Error| failed(path, error);
        let cursor = Cursor {
            volume: Arc::clone(&self.volume),
            at: 0,
        };
        let fat = FileSystem::new(cursor, FsOptions::new()).map_err(failed)?;
        let done = what(fat.root_dir()).map_err(failed)?;
        fat.unmount().map_err(failed)?;
        Ok(done)
    }
}

fn failed(path: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::Exists,
        // What fatfs says of a full volume.
        io::ErrorKind::WriteZero => ErrorKind::NoSpace,
        _ if error.to_string().contains("No space") => ErrorKind::NoSpace,
        _ => ErrorKind::Unsupported,
    };
    Error::new(kind, format!("{path}: {error}"))
}

/// The volume as a file.
struct Cursor {
    volume: Arc<Staged>,
    at: u64,
}

impl Cursor {
    fn within(&self, len: usize) -> usize {
        let left = self.volume.len_bytes().saturating_sub(self.at);
        usize::try_from(left).unwrap_or(usize::MAX).min(len)
    }
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.within(buf.len());
        let buf = buf.get_mut(..len).unwrap_or_default();
        self.volume
            .read_at(self.at, buf)
            .map_err(io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for Cursor {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.within(buf.len());
        let buf = buf.get(..len).unwrap_or_default();
        self.volume
            .write_at(self.at, buf)
            .map_err(io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.volume.len_bytes().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other("a place before the beginning"))?;
        Ok(self.at)
    }
}
