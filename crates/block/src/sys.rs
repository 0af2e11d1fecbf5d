//! The few system calls that rustix lacks: open-file-description locks on byte ranges, and
//! starting to write back without waiting.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct flock` of x86-64 Linux, see fcntl(2).
#[repr(C)]
struct Flock {
    kind: i16,
    whence: i16,
    start: i64,
    len: i64,
    pid: i32,
}

impl Flock {
    /// Returns one on bytes of a file; a length of 0 is as far as it goes.
    fn on(kind: i16, start: i64, len: i64) -> Self {
        Self {
            kind,
            whence: SEEK_SET,
            start,
            len,
            pid: 0,
        }
    }
}

const F_OFD_GETLK: c_int = 36;
const F_OFD_SETLK: c_int = 37;
const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;
const SEEK_SET: i16 = 0;

unsafe extern "C" {
    fn fcntl(fd: c_int, command: c_int, lock: *mut Flock) -> c_int;
    fn sync_file_range(fd: c_int, offset: i64, len: i64, flags: c_uint) -> c_int;
}

fn call(fd: BorrowedFd<'_>, command: c_int, lock: &mut Flock) -> io::Result<()> {
    // SAFETY: both commands take a pointer to one `struct flock`, which `lock` is and outlives
    // the call; the descriptor is borrowed, hence open.
    let result = unsafe { fcntl(fd.as_raw_fd(), command, lock) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes a shared lock on byte `at`, which the open file description holds until it is closed.
pub fn lock_byte_shared(fd: BorrowedFd<'_>, at: i64) -> io::Result<()> {
    let mut lock = Flock::on(F_RDLCK, at, 1);
    call(fd, F_OFD_SETLK, &mut lock)
}

/// Gives up every lock that the open file description holds on bytes.
pub fn unlock_bytes(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut lock = Flock::on(F_UNLCK, 0, 0);
    call(fd, F_OFD_SETLK, &mut lock)
}

/// Returns whether any other open file description holds a lock of any kind on byte `at`.
pub fn byte_is_locked_by_other(fd: BorrowedFd<'_>, at: i64) -> io::Result<bool> {
    let mut lock = Flock::on(F_WRLCK, at, 1);
    call(fd, F_OFD_GETLK, &mut lock)?;
    Ok(lock.kind != F_UNLCK)
}

/// `SYNC_FILE_RANGE_WRITE` of sync_file_range(2).
const START_WRITING: c_uint = 2;

/// Starts writing all dirty pages of a file to the disk, without waiting for them. A hint: what
/// cannot be started is written by the next sync.
pub fn start_writeback(fd: BorrowedFd<'_>) {
    // SAFETY: the call takes no pointers; the descriptor is borrowed, hence open. Offset and
    // length 0 mean the whole file.
    unsafe { sync_file_range(fd.as_raw_fd(), 0, 0, START_WRITING) };
}
