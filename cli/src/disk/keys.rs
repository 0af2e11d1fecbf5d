//! Passphrases and keys: out of files or from a terminal, never out of a command line, which others
//! can see.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use hako_block::{Error, ErrorKind, Result};
use hako_guest::Keys;
use rustix::termios::LocalModes;

use crate::context::standard;
use crate::terminal::ChangedTerminal;

/// Most bytes of a key: those that cryptsetup takes.
const MOST_BYTES: u64 = 8 << 20;
/// What Ctrl-C types where it is not a signal.
const INTERRUPT: u8 = 3;

/// What opens encrypted volumes.
#[derive(Debug, Args)]
pub struct KeyFlags {
    /// Open LUKS by the passphrase or key in FILE (repeatable); - asks for it, or reads standard input
    ///
    /// The whole content of FILE is the key. A newline at its end may be part of it or not. LUKS1 and
    /// LUKS2 with AES (XTS, CBC) are opened, in memory and to be read.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: Vec<PathBuf>,
}

impl KeyFlags {
    /// Reads the keys.
    pub fn read(&self) -> Result<Keys> {
        let dashes = self.key.iter().filter(|path| is_dash(path)).count();
        if dashes > 1 && !std::io::stdin().is_terminal() {
            return Err(Error::invalid("standard input is one key: --key - once"));
        }
        let keys = self.key.iter().map(|path| match is_dash(path) {
            true if std::io::stdin().is_terminal() => ask(),
            true => content(standard(std::io::stdin())?)
                .map_err(|error| error.in_file("standard input")),
            false => File::open(path)
                .map_err(|error| Error::io("open", error))
                .and_then(content)
                .map_err(|error| error.in_file(path)),
        });
        Ok(Keys::new(keys.collect::<Result<_>>()?))
    }
}

fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}

fn content(file: File) -> Result<Vec<u8>> {
    let mut key = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut key)
        .map_err(|error| Error::io("read", error))?;
    match key.len() as u64 {
        0 => Err(Error::invalid("the key is empty")),
        len if len > MOST_BYTES => Err(Error::invalid(
            "it is too long for a key: 8 MiB are the most",
        )),
        _ => Ok(key),
    }
}

/// Asks for a passphrase on the terminal, where it is not shown.
fn ask() -> Result<Vec<u8>> {
    let failed = |error| Error::io("ask for the passphrase", error);
    let keyboard = standard(std::io::stdin())?;
    let hidden = ChangedTerminal::new(&keyboard, |modes| {
        // A signal would leave the terminal mute.
        modes
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ISIG);
    })?;
    let mut screen = standard(std::io::stderr())?;
    screen.write_all(b"Passphrase: ").map_err(failed)?;
    let mut line = Vec::new();
    let read = BufReader::new(&keyboard)
        .take(MOST_BYTES)
        .read_until(b'\n', &mut line);
    drop(hidden);
    screen.write_all(b"\n").map_err(failed)?;
    read.map_err(failed)?;
    if line.pop_if(|byte| *byte == b'\n').is_none() || line.contains(&INTERRUPT) {
        return Err(Error::new(ErrorKind::Cancelled, "no passphrase was given"));
    }
    Ok(line)
}
