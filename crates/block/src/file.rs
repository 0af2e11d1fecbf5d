//! Host files, block devices and pipes as [`Storage`].

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::lock::{LockMode, lock_file, refuse_vmware_lock, unlock_file};
use crate::{Error, ErrorKind, FileId, Result, Storage, StorageExtent, sys, write_zeros};

/// Whether something is opened for reading only or for writing too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Reads only.
    #[default]
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

impl Access {
    /// Returns the lock that goes with the access.
    pub fn lock(self) -> LockMode {
        match self {
            Access::ReadOnly => LockMode::Read,
            Access::ReadWrite => LockMode::Write,
        }
    }
}

/// Lets this process open as many files as the system grants it: a split disk of 2 TiB has 1025
/// extent files, more than the usual limit. For a program to call once, when it begins.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where it cannot be raised, an image of many files says so when it is opened.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Returns how many bytes a user may still write to the file system that `path` is on.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path)
        .map_err(|error| Error::io("find the free space", error).in_file(path))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// A regular file or block device of the host.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    name: String,
    id: FileId,
    is_device: bool,
    is_blank: bool,
    /// Bytes written since writing back was last started.
    unstarted: AtomicU64,
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        unlock_file(&self.file);
    }
}

/// A new file is written at once and as a whole: after so many bytes the host is told to begin,
/// so that the sync at the end has little left to wait for.
const WRITEBACK_STEP: u64 = 32 << 20;

impl FileStorage {
    /// Opens a file or block device that exists, takes QEMU's locks and honours VMware's. A
    /// device is opened for writing with O_EXCL: the kernel refuses one that is mounted.
    pub fn open(path: &Path, access: Access, lock: LockMode) -> Result<Self> {
        let named = |error: Error| error.in_file(path);
        let is_device = std::fs::metadata(path)
            .map_err(|error| named(Error::io("open", error)))?
            .file_type()
            .is_block_device();
        // Non-blocking, so that a FIFO under an image's name cannot hang the open.
        let mut flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
        if is_device && access == Access::ReadWrite {
            flags |= OFlags::EXCL;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|error| named(open_error(error, is_device)))?;
        if lock != LockMode::None {
            refuse_vmware_lock(path)?;
        }
        let storage = Self::from_file(file, path, false)?;
        lock_file(&storage.file, path, lock)?;
        Ok(storage)
    }

    /// Wraps an open file. `is_blank`: it was just created, and what is not written reads as zeros.
    pub fn from_file(file: File, path: &Path, is_blank: bool) -> Result<Self> {
        let name = path.to_string_lossy().into_owned();
        let metadata = file
            .metadata()
            .map_err(|error| Error::io("stat", error).in_file(path))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(Error::invalid("is a folder, not an image").in_file(path));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(
                Error::invalid("is neither a regular file nor a block device").in_file(path),
            );
        }
        let is_device = kind.is_block_device();
        let id = if is_device {
            FileId {
                device: metadata.rdev(),
                inode: 0,
            }
        } else {
            FileId {
                device: metadata.dev(),
                inode: metadata.ino(),
            }
        };
        Ok(Self {
            file,
            name,
            id,
            is_device,
            is_blank,
            unstarted: AtomicU64::new(0),
        })
    }

    fn error(&self, doing: impl Into<String>, error: impl Into<std::io::Error>, at: u64) -> Error {
        Error::io(doing, error).in_file(&self.name).at_byte(at)
    }

    fn note_written(&self, len: u64) {
        let unstarted = self.unstarted.fetch_add(len, Ordering::Relaxed) + len;
        if self.is_blank && unstarted >= WRITEBACK_STEP {
            self.unstarted.store(0, Ordering::Relaxed);
            sys::start_writeback(self.file.as_fd());
        }
    }
}

fn open_error(error: std::io::Error, is_device: bool) -> Error {
    if is_device && error.kind() == std::io::ErrorKind::ResourceBusy {
        return Error::new(
            ErrorKind::Locked,
            "block device is in use (mounted, or part of a volume)",
        )
        .hint("unmount it first");
    }
    Error::io("open", error)
}

impl Storage for FileStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len_bytes(&self) -> Result<u64> {
        if self.is_device {
            return rustix::fs::seek(&self.file, SeekFrom::End(0))
                .map_err(|error| self.error("find the device's size", error, 0));
        }
        let metadata = self
            .file
            .metadata()
            .map_err(|error| self.error("stat", error, 0))?;
        Ok(metadata.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{} bytes needed, but the file ends before", buf.len()),
                )
                .in_file(&self.name)
                .at_byte(offset)
            } else {
                self.error(format!("read {} bytes", buf.len()), error, offset)
            }
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.file
            .write_all_at(buf, offset)
            .map_err(|error| self.error(format!("write {} bytes", buf.len()), error, offset))?;
        self.note_written(buf.len() as u64);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if self.is_device {
            let size = self.len_bytes()?;
            return if len <= size {
                Ok(())
            } else {
                Err(Error::new(
                    ErrorKind::NoSpace,
                    format!("the device has {size} bytes, {len} are needed"),
                )
                .in_file(&self.name))
            };
        }
        self.file
            .set_len(len)
            .map_err(|error| self.error(format!("set the length to {len}"), error, len))
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let end = range.end.min(self.len_bytes()?);
        if range.start >= end {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, range.start, end - range.start) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                write_zeros(self, range.start..end)
            }
            Err(error) => Err(self.error("punch a hole", error, range.start)),
        }
    }

    fn reserve(&self, range: Range<u64>) -> Result<()> {
        if self.is_device || range.is_empty() {
            return Ok(());
        }
        let len = range.end - range.start;
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), range.start, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(self.error(format!("reserve {len} bytes"), error, range.start)),
        }
    }

    fn next_extent(&self, offset: u64) -> Result<StorageExtent> {
        let len = self.len_bytes()?;
        if offset >= len {
            return Err(
                Error::invalid(format!("extent at {offset} of {len} bytes")).in_file(&self.name)
            );
        }
        let data_to = |end: u64| StorageExtent {
            offset,
            len: end - offset,
            data: true,
        };
        let hole_to = |end: u64| StorageExtent {
            offset,
            len: end - offset,
            data: false,
        };
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) if start > offset => Ok(hole_to(start.min(len))),
            Ok(_) => match rustix::fs::seek(&self.file, SeekFrom::Hole(offset)) {
                // A file that shrinks meanwhile must not give an empty extent.
                Ok(end) if end > offset => Ok(data_to(end.min(len))),
                _ => Ok(data_to(len)),
            },
            Err(Errno::NXIO) => Ok(hole_to(len)),
            // No SEEK_DATA here (old kernels, block devices): all of it is data.
            Err(Errno::INVAL) => Ok(data_to(len)),
            Err(error) => Err(self.error("look for data", error, offset)),
        }
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| self.error("sync", error, 0))
    }

    fn host_file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn id(&self) -> Option<FileId> {
        Some(self.id)
    }

    fn is_blank(&self) -> bool {
        self.is_blank
    }

    fn is_device(&self) -> bool {
        self.is_device
    }

    fn allocated_bytes(&self) -> Result<u64> {
        if self.is_device {
            return self.len_bytes();
        }
        let metadata = self
            .file
            .metadata()
            .map_err(|error| self.error("stat", error, 0))?;
        Ok(metadata.blocks() * 512)
    }
}

/// A pipe or other sequential target as [`Storage`]: writes must ascend, gaps are filled with
/// zeros, nothing can be read back. For formats that write in one pass.
pub struct PipeStorage {
    name: String,
    inner: Mutex<Pipe>,
}

struct Pipe {
    writer: Box<dyn Write + Send>,
    written: u64,
}

impl PipeStorage {
    /// Wraps a writer.
    pub fn new(name: impl Into<String>, writer: Box<dyn Write + Send>) -> Self {
        Self {
            name: name.into(),
            inner: Mutex::new(Pipe { writer, written: 0 }),
        }
    }

    fn pipe(&self) -> std::sync::MutexGuard<'_, Pipe> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn no_seek(&self) -> Error {
        Error::unsupported("a pipe cannot seek; this target needs a file").in_file(&self.name)
    }
}

impl Pipe {
    fn fill_to(&mut self, offset: u64) -> std::io::Result<()> {
        let zeros = [0; 65536];
        while self.written < offset {
            let len = (offset - self.written).min(zeros.len() as u64);
            self.writer.write_all(&zeros[..len as usize])?;
            self.written += len;
        }
        Ok(())
    }
}

impl Storage for PipeStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len_bytes(&self) -> Result<u64> {
        Ok(self.pipe().written)
    }

    fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> Result<()> {
        Err(self.no_seek())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let mut pipe = self.pipe();
        if offset < pipe.written {
            return Err(self.no_seek());
        }
        let write = |pipe: &mut Pipe| {
            pipe.fill_to(offset)?;
            pipe.writer.write_all(buf)
        };
        write(&mut pipe).map_err(|error| Error::io("write", error).in_file(&self.name))?;
        pipe.written += buf.len() as u64;
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.pipe()
            .fill_to(len)
            .map_err(|error| Error::io("write", error).in_file(&self.name))
    }

    fn punch_hole(&self, _range: Range<u64>) -> Result<()> {
        Err(self.no_seek())
    }

    fn next_extent(&self, _offset: u64) -> Result<StorageExtent> {
        Err(self.no_seek())
    }

    fn sync(&self) -> Result<()> {
        self.pipe()
            .writer
            .flush()
            .map_err(|error| Error::io("flush", error).in_file(&self.name))
    }

    fn is_blank(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_follow_the_holes_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        std::fs::write(&path, b"").unwrap();
        let file = FileStorage::open(&path, Access::ReadWrite, LockMode::None).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_at(65536, &[1; 65536]).unwrap();
        let first = file.next_extent(0).unwrap();
        assert_eq!((first.len, first.data), (65536, false));
        let second = file.next_extent(65536).unwrap();
        assert_eq!((second.len, second.data), (65536, true));
        assert!(!file.next_extent(200_000).unwrap().data);
        assert!(file.next_extent(1 << 20).is_err());
    }

    #[test]
    fn second_writer_is_refused_and_readers_share() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, b"x").unwrap();
        let reader = FileStorage::open(&path, Access::ReadOnly, LockMode::Read).unwrap();
        FileStorage::open(&path, Access::ReadOnly, LockMode::Read).unwrap();
        let error = FileStorage::open(&path, Access::ReadWrite, LockMode::Write).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        drop(reader);
        let _writer = FileStorage::open(&path, Access::ReadWrite, LockMode::Write).unwrap();
        for (access, mode) in [
            (Access::ReadOnly, LockMode::Read),
            (Access::ReadWrite, LockMode::Write),
        ] {
            let error = FileStorage::open(&path, access, mode).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{mode:?}");
        }
    }

    #[test]
    fn what_is_not_used_any_more_is_free_though_a_copy_of_its_descriptor_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        std::fs::write(&path, [0; 512]).unwrap();
        let open = || FileStorage::open(&path, Access::ReadWrite, LockMode::Write);
        let first = open().unwrap();
        // As a process has it that is being started.
        let copy = first.file.try_clone().unwrap();
        assert_eq!(open().err().unwrap().kind(), ErrorKind::Locked);
        drop(first);
        open().unwrap();
        drop(copy);
    }

    #[test]
    fn vmware_lock_folder_is_honoured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vmdk");
        std::fs::write(&path, b"x").unwrap();
        let lock = folder.path().join("disk.vmdk.lck");
        std::fs::create_dir(&lock).unwrap();
        FileStorage::open(&path, Access::ReadOnly, LockMode::Read).unwrap();
        std::fs::write(lock.join("M12345.lck"), b"host").unwrap();
        let error = FileStorage::open(&path, Access::ReadOnly, LockMode::Read).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
    }

    #[test]
    fn pipe_fills_gaps_and_refuses_to_go_back() {
        let pipe = PipeStorage::new("-", Box::new(Vec::new()));
        pipe.write_at(0, b"ab").unwrap();
        pipe.write_at(100, b"c").unwrap();
        assert_eq!(pipe.len_bytes().unwrap(), 101);
        assert!(pipe.write_at(50, b"x").is_err());
    }
}
