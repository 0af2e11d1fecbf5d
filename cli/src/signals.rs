//! SIGINT, SIGTERM and SIGHUP: the first asks the work to stop, so that everything unwinds and
//! staged files are removed; the second ends the process at once.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hako_block::{Cancel, Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// Remembers which signal came.
#[derive(Debug, Clone, Default)]
pub struct Caught(Arc<AtomicUsize>);

impl Caught {
    /// Catches the signals for the rest of the process's life, and returns what gives a byte for
    /// each that comes; those that are ignored stay so. Reading from it does not wait.
    pub fn stream(&self) -> Result<UnixStream> {
        let failed = |error| Error::io("catch signals", error);
        let (reads, writes) = UnixStream::pair().map_err(failed)?;
        reads.set_nonblocking(true).map_err(failed)?;
        let ignored = ignored_signals();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            let number = signal.unsigned_abs() as usize;
            // In this order: whoever reads the byte finds the number.
            flag::register_usize(signal, Arc::clone(&self.0), number)
                .and_then(|_| pipe::register(signal, writes.try_clone()?))
                .map_err(failed)?;
        }
        Ok(reads)
    }

    /// Catches the signals for the rest of the process's life, but for those that whoever started
    /// it (nohup, a shell's `&`) had it ignore.
    pub fn install(&self, cancel: &Cancel) -> Result<()> {
        let ignored = ignored_signals();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            // In this order: the second signal finds the flag set and ends the process.
            flag::register_conditional_shutdown(signal, 128 + signal, cancel.flag())
                .and_then(|_| flag::register(signal, cancel.flag()))
                .and_then(|_| {
                    flag::register_usize(
                        signal,
                        Arc::clone(&self.0),
                        signal.unsigned_abs() as usize,
                    )
                })
                .map_err(|error| Error::io("catch signals", error))?;
        }
        Ok(())
    }

    /// Returns the exit code that says which signal came: 130 for SIGINT, 143 for SIGTERM, 129
    /// for SIGHUP.
    pub fn exit_code(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => u8::try_from(128 + signal).ok(),
        }
    }
}

/// Returns the mask of signals that are ignored; none where there is no /proc to ask.
fn ignored_signals() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}
