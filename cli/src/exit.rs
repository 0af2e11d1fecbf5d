//! What the process says by its exit code: the one place where an error becomes a number.

use hako_block::ErrorKind;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed; of `compare`: the images differ.
    Failed = 1,
    /// Wrong usage; of `compare`: any trouble.
    Usage = 2,
    /// Done with warnings, or incomplete; of `check`: leaks only.
    Incomplete = 3,
    /// Corruption or wrong content was found.
    Corrupt = 4,
    /// Locked or in use.
    Locked = 5,
    /// There is no such virtual machine.
    NotFound = 6,
    /// The key does not open what is encrypted.
    WrongKey = 7,
    /// No space left.
    NoSpace = 8,
    /// Time was up, as timeout(1) has it.
    TimeUp = 124,
}

/// Exit code when the reader of our output went away: that of a process that SIGPIPE ended.
pub const BROKEN_PIPE: u8 = 128 + 13;

impl Exit {
    /// Returns how a command ends that fails with an error of this kind. A cancelled one ends by
    /// the signal's number instead.
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Exit::Usage,
            ErrorKind::Corrupt | ErrorKind::Mismatch => Exit::Corrupt,
            ErrorKind::Locked => Exit::Locked,
            ErrorKind::VmNotFound => Exit::NotFound,
            ErrorKind::WrongKey => Exit::WrongKey,
            ErrorKind::NoSpace => Exit::NoSpace,
            _ => Exit::Failed,
        }
    }

    /// Returns the number.
    pub fn code(self) -> u8 {
        self as u8
    }
}
