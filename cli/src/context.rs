//! What every verb needs besides its own options.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use hako_block::{Cancel, Error, Progress, Result};

use crate::cli::Global;
use crate::output::Messages;
use crate::progress::ProgressMode;
use crate::signals::Caught;

/// How the user wants to be talked to, and whether he wants to stop.
pub struct Context {
    /// Whether results are JSON.
    pub json: bool,
    /// Says things on standard error.
    pub messages: Messages,
    quiet: bool,
    verbose: bool,
    progress: ProgressMode,
    caught: Caught,
}

impl Context {
    /// Returns the context that the global options ask for.
    pub fn new(global: &Global) -> Self {
        Self {
            json: global.json,
            messages: Messages::new(global.json, global.quiet),
            quiet: global.quiet,
            verbose: global.verbose,
            progress: global.progress,
            caught: Caught::default(),
        }
    }

    /// Returns what shows the progress of long work; it is gone when dropped.
    pub fn progress(&self) -> Box<dyn Progress> {
        self.progress.start(self.quiet)
    }

    /// Catches signals from now on, and returns what they set.
    pub fn cancel_on_signals(&self) -> Result<Cancel> {
        let cancel = Cancel::default();
        self.caught.install(&cancel)?;
        Ok(cancel)
    }

    /// Catches signals from now on, and returns what gives a byte for each.
    pub fn signals(&self) -> Result<UnixStream> {
        self.caught.stream()
    }

    /// Returns the exit code of the signal that came, if one did.
    pub fn signal_code(&self) -> Option<u8> {
        self.caught.exit_code()
    }

    /// Returns the folder for what comes through a pipe while it is worked on.
    pub fn temp_folder(&self) -> PathBuf {
        std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
    }

    /// Returns the time in seconds since 1970: the clock's, or what `$SOURCE_DATE_EPOCH` says.
    pub fn time(&self) -> u64 {
        let said = std::env::var("SOURCE_DATE_EPOCH").ok();
        let said = said.and_then(|text| text.parse().ok());
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH);
        said.unwrap_or_else(|| clock().map_or(0, |since| since.as_secs()))
    }

    /// Returns the time in microseconds since 1970: the clock's, or what `$SOURCE_DATE_EPOCH` says.
    pub fn time_us(&self) -> u64 {
        const SECOND: u64 = 1_000_000;
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let micros = clock.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
        match self.time() {
            second if second == micros / SECOND => micros,
            second => second.saturating_mul(SECOND),
        }
    }

    /// Says how work ended: with -v, or to a person on a terminal, so that cron stays silent.
    pub fn summary(&self, text: &str) {
        if self.json {
            return;
        }
        if self.verbose || (!self.quiet && std::io::stderr().is_terminal()) {
            self.messages.note(text);
        }
    }

    /// Says something, unless the user wants quiet or programs read.
    pub fn say(&self, text: &str) {
        if !self.quiet && !self.json {
            self.messages.note(text);
        }
    }

    /// Says something that only a user of -v wants to know.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.messages.note(text);
        }
    }

    /// Says what the user should know of a new image: which debris of a killed run was removed to
    /// make it, and what was odd.
    pub fn tell(&self, cleared: &[String], warnings: &[String]) {
        for name in cleared {
            self.messages.warn(&format!(
                "removed {name}, which a killed run had left behind"
            ));
        }
        for warning in warnings {
            self.messages.warn(warning);
        }
    }

    /// Says what is odd about an image.
    pub fn warn_oddities(&self, file: &str, oddities: &[String]) {
        for oddity in oddities {
            self.messages.warn(&format!("{file}: {oddity}"));
        }
    }
}

/// Returns a standard stream as a file: without buffer, and seekable where it is a file.
pub fn standard(stream: impl AsFd) -> Result<File> {
    stream
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(|error| Error::io("open a standard stream", error))
}
