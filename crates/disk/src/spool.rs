//! What comes through a pipe, kept in an unnamed file so that it can be read anywhere.

use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use hako_block::lock::lock_file;
use hako_block::{
    Cancel, Error, FileStorage, GateRules, LockMode, Progress, Result, Storage, is_zero,
};
use rustix::event::{PollFd, PollFlags, Timespec};

/// What comes through a file that somebody else has opened.
pub enum Inflow {
    /// A regular file or block device, locked for reading: read in place.
    InPlace(FileStorage),
    /// A pipe.
    Pipe(Pipe),
}

impl Inflow {
    /// Finds out what `file` is.
    pub fn of(file: File, name: &Path, rules: &GateRules) -> Result<Self> {
        let kind = file
            .metadata()
            .map_err(|error| Error::io("stat", error).in_file(name))?
            .file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Ok(Inflow::Pipe(Pipe(file)));
        }
        if !rules.no_lock {
            lock_file(&file, name, LockMode::Read)?;
        }
        FileStorage::from_file(file, name, false).map(Inflow::InPlace)
    }

    /// Returns it as storage of the name `name`: the content of a pipe from an unnamed file in
    /// `folder`.
    pub fn spool(
        self,
        name: &Path,
        folder: &Path,
        (progress, cancel): (&dyn Progress, &Cancel),
    ) -> Result<FileStorage> {
        let pipe = match self {
            Inflow::InPlace(storage) => return Ok(storage),
            Inflow::Pipe(pipe) => pipe,
        };
        let spool = unnamed_file(name, folder)?;
        progress.phase("receive");
        receive(pipe, &spool, progress, cancel).map_err(|error| error.in_file(name))?;
        Ok(spool)
    }
}

/// Returns an unnamed file in `folder` as storage of the name `name`.
pub fn unnamed_file(name: &Path, folder: &Path) -> Result<FileStorage> {
    let file = tempfile::tempfile_in(folder)
        .map_err(|error| Error::io("create a temporary file", error).in_file(folder))?;
    FileStorage::from_file(file, name, true)
}

/// A pipe that lets its reader look up now and then while nothing comes through: it says that it
/// was interrupted.
pub struct Pipe(File);

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        const NAP: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&NAP))? == 0 {
            return Err(IoErrorKind::Interrupted.into());
        }
        self.0.read(buf)
    }
}

/// Copies all of `reader` into the blank `spool`, blocks of zeros left out.
fn receive(
    mut reader: impl Read,
    spool: &dyn Storage,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let len = fill(&mut reader, &mut buffer, cancel)?;
        write_blocks(spool, offset, &buffer[..len])?;
        offset += len as u64;
        progress.advance(len as u64);
        if len < buffer.len() {
            return spool.set_len(offset);
        }
    }
}

/// Writes into a blank file, blocks of zeros left out.
pub fn write_blocks(spool: &dyn Storage, offset: u64, bytes: &[u8]) -> Result<()> {
    const BLOCK_BYTES: usize = 65536;
    let offsets = (offset..).step_by(BLOCK_BYTES);
    for (block, offset) in bytes.chunks(BLOCK_BYTES).zip(offsets) {
        if !is_zero(block) {
            spool.write_at(offset, block)?;
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the input ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8], cancel: &Cancel) -> Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        cancel.check()?;
        match reader.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == IoErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", error)),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use hako_block::{MemoryStorage, NoProgress};

    use super::*;

    /// Gives a few bytes at a time, as pipes do.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let len = buf.len().min(10_007).min(self.0.len());
            buf[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    #[test]
    fn what_comes_through_a_pipe_is_kept_whole() {
        for len in [0, 1, 65_536, 3_000_001] {
            let mut content = vec![0; len];
            for at in (0..len).step_by(200_000) {
                content[at] = 1;
            }
            let spool = MemoryStorage::new("spool", Vec::new());
            let cancel = Cancel::default();
            receive(Trickle(&content), &spool, &NoProgress, &cancel).unwrap();
            assert!(spool.to_vec() == content, "{len}");
        }
    }
}
