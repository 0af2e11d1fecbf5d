//! The few system calls that rustix lacks: open-file-description locks on byte ranges.
#![allow(unsafe_code)]

use std::ffi::c_int;
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

const F_OFD_GETLK: c_int = 36;
const F_OFD_SETLK: c_int = 37;
const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;
const SEEK_SET: i16 = 0;

unsafe extern "C" {
    fn fcntl(fd: c_int, command: c_int, lock: *mut Flock) -> c_int;
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
    let mut lock = Flock {
        kind: F_RDLCK,
        whence: SEEK_SET,
        start: at,
        len: 1,
        pid: 0,
    };
    call(fd, F_OFD_SETLK, &mut lock)
}

/// Returns whether any other open file description holds a lock of any kind on byte `at`.
pub fn byte_is_locked_by_other(fd: BorrowedFd<'_>, at: i64) -> io::Result<bool> {
    let mut lock = Flock {
        kind: F_WRLCK,
        whence: SEEK_SET,
        start: at,
        len: 1,
        pid: 0,
    };
    call(fd, F_OFD_GETLK, &mut lock)?;
    Ok(lock.kind != F_UNLCK)
}
