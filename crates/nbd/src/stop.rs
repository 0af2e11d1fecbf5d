//! One flag that every waiting thread can wait for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use hako_block::{Error, Result};
use rustix::pipe::{PipeFlags, pipe_with};

/// Set once, and then for ever. Its descriptor becomes readable (it is a pipe that nobody holds
/// the other end of any more), so that it can be polled beside a socket.
pub struct Stop {
    set: AtomicBool,
    reader: OwnedFd,
    writer: Mutex<Option<OwnedFd>>,
}

impl Stop {
    /// Returns one that is not set.
    pub fn new() -> Result<Self> {
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| Error::io("make a pipe", error))?;
        Ok(Self {
            set: AtomicBool::new(false),
            reader,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Sets it.
    pub fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        *writer = None;
    }

    /// Returns whether it is set.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
