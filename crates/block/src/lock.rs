//! Who may use an image at the same time: QEMU's byte-range locks, taken and honoured, and
//! VMware's `.lck`, honoured.
//!
//! QEMU (docs/devel, block/file-posix.c) holds, per permission bit, a shared lock on byte 100+bit
//! for each permission it uses and on byte 200+bit for each it does not share with others. A
//! newcomer takes its own locks and then looks whether anybody else's contradict them.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result, sys};

/// Which locks to take on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockMode {
    /// None: look at an image in use at one's own risk.
    None,
    /// Reads, and lets nobody write meanwhile.
    #[default]
    Read,
    /// Writes, and lets nobody else write meanwhile.
    Write,
}

const PERMISSION_BASE: i64 = 100;
const UNSHARED_BASE: i64 = 200;
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Takes QEMU's locks on an open file. The file's descriptor holds them until it is closed.
///
/// Errors: [`ErrorKind::Locked`] if another process (or another open of this one) is in the way.
/// A file system without locks (some network ones) is used without.
pub fn lock_file(file: &File, path: &Path, mode: LockMode) -> Result<()> {
    let permissions: &[i64] = match mode {
        LockMode::None => return Ok(()),
        LockMode::Read => &[CONSISTENT_READ],
        LockMode::Write => &[CONSISTENT_READ, WRITE, RESIZE],
    };
    let unshared = [WRITE, RESIZE];
    let fd = file.as_fd();
    for byte in permissions.iter().map(|bit| PERMISSION_BASE + bit) {
        if !lock_supported(sys::lock_byte_shared(fd, byte), path)? {
            return Ok(());
        }
    }
    for byte in unshared.iter().map(|bit| UNSHARED_BASE + bit) {
        lock_supported(sys::lock_byte_shared(fd, byte), path)?;
    }
    let contradicting = permissions
        .iter()
        .map(|bit| UNSHARED_BASE + bit)
        .chain(unshared.iter().map(|bit| PERMISSION_BASE + bit));
    for byte in contradicting {
        let held = sys::byte_is_locked_by_other(fd, byte)
            .map_err(|error| Error::io("look for locks", error).in_file(path))?;
        if held {
            return Err(in_use(path, mode));
        }
    }
    Ok(())
}

/// Gives QEMU's locks on an open file up. Closing it does that, too, but not while somebody else has
/// the descriptor: a process that another thread is just starting has a copy until it runs its program.
pub(crate) fn unlock_file(file: &File) {
    // A file system that has no locks has none to give up.
    let _ = sys::unlock_bytes(file.as_fd());
}

/// Says whether the file system took the lock; `false` where it has none to give.
fn lock_supported(result: std::io::Result<()>, path: &Path) -> Result<bool> {
    const EINVAL: i32 = 22;
    const ENOLCK: i32 = 37;
    const EOPNOTSUPP: i32 = 95;
    match result {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(EINVAL | ENOLCK | EOPNOTSUPP) => Ok(false),
            Some(11 | 13) => Err(in_use(path, LockMode::Write)),
            _ => Err(Error::io("lock", error).in_file(path)),
        },
    }
}

fn in_use(path: &Path, mode: LockMode) -> Error {
    let what = match mode {
        LockMode::Write => "in use by another process",
        _ => "being written by another process",
    };
    Error::new(ErrorKind::Locked, what)
        .in_file(path)
        .hint("stop the VM or the other program that has it open")
}

/// Refuses a file that a VMware product has locked: a folder `NAME.lck` that holds `*.lck` files
/// (hosted products), or a file of that name (ESX on NFS makes `.lck-…`, which only ESX reads).
pub fn refuse_vmware_lock(path: &Path) -> Result<()> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lck");
    let lock_path = PathBuf::from(lock_path);
    let Ok(entries) = std::fs::read_dir(&lock_path) else {
        return Ok(());
    };
    let holds_lock = entries.flatten().any(|entry| {
        entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "lck")
    });
    if !holds_lock {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Locked, "locked by a VMware product")
        .in_file(path)
        .hint(format!(
            "stop the VM there; if none runs, remove the stale {}",
            lock_path.display()
        )))
}
