//! A conversation with a guest's serial port: on a terminal each key goes to the guest as it is
//! pressed, and one of them leaves; a script's standard input and output are passed through.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use hako_block::{Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::Termios;

use crate::context::standard;
use crate::terminal::ChangedTerminal;

/// What leaves: Ctrl-].
const ESCAPE: u8 = 0x1d;
/// What it is called.
pub const ESCAPE_NAME: &str = "Ctrl-]";

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The machine is off.
    Off,
    /// The user left.
    Left,
}

/// Returns whether keys are read from a terminal.
pub fn has_keyboard() -> bool {
    std::io::stdin().is_terminal()
}

/// Passes on what either side says, `first` before all else, until the machine is off or the user
/// leaves. Each byte of `signals` is a signal that came: `signalled` says whether to go on.
pub fn converse(
    mut guest: UnixStream,
    first: &[u8],
    signals: &UnixStream,
    mut signalled: impl FnMut() -> Result<bool>,
) -> Result<Parting> {
    let mut keyboard = Some(standard(std::io::stdin())?);
    let mut screen = standard(std::io::stdout())?;
    let raw = match &keyboard {
        Some(keyboard) if has_keyboard() => {
            Some(ChangedTerminal::new(keyboard, Termios::make_raw)?)
        }
        _ => None,
    };
    guest
        .set_nonblocking(true)
        .map_err(|error| Error::io("talk to the console", error))?;
    show(&mut screen, first)?;
    let mut typed = Vec::new();
    loop {
        let ready = wait(&guest, signals, keyboard.as_ref(), &typed)?;
        if ready.signal && take(signals) > 0 && !signalled()? {
            return Ok(Parting::Left);
        }
        if ready.guest && !show_guest(&mut guest, &mut screen)? {
            return Ok(Parting::Off);
        }
        if ready.keyboard
            && let Some(file) = &mut keyboard
        {
            match read_keys(file, &mut typed)? {
                0 => keyboard = None,
                _ if raw.is_some() && cut_at_escape(&mut typed) => {
                    // What was typed before still goes out, if that is possible at once.
                    let _ = guest.write(&typed);
                    return Ok(Parting::Left);
                }
                _ => (),
            }
        }
        hand_over(&mut guest, &mut typed)?;
    }
}

/// What there is to read.
struct Ready {
    guest: bool,
    signal: bool,
    keyboard: bool,
}

fn wait(
    guest: &UnixStream,
    signals: &UnixStream,
    keyboard: Option<&File>,
    typed: &[u8],
) -> Result<Ready> {
    let writes = match typed.is_empty() {
        true => PollFlags::empty(),
        false => PollFlags::OUT,
    };
    let mut fds = vec![
        PollFd::new(guest, PollFlags::IN | writes),
        PollFd::new(signals, PollFlags::IN),
    ];
    // No more is taken while the guest does not read.
    if let Some(keyboard) = keyboard.filter(|_| typed.is_empty()) {
        fds.push(PollFd::from_borrowed_fd(keyboard.as_fd(), PollFlags::IN));
    }
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => (),
        Err(error) => return Err(Error::io("wait", std::io::Error::from(error))),
    }
    let seen = |index: usize| fds.get(index).map_or(PollFlags::empty(), PollFd::revents);
    Ok(Ready {
        guest: !seen(0).difference(PollFlags::OUT).is_empty(),
        signal: !seen(1).is_empty(),
        keyboard: !seen(2).is_empty(),
    })
}

/// Takes the signals that came; says how many.
pub fn take(mut signals: &UnixStream) -> usize {
    let mut bytes = [0; 64];
    signals.read(&mut bytes).unwrap_or(0)
}

/// Shows what the guest has written; says whether there may be more.
fn show_guest(guest: &mut UnixStream, screen: &mut File) -> Result<bool> {
    let mut bytes = [0; 16 << 10];
    match guest.read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(n) => show(screen, bytes.get(..n).unwrap_or_default()).map(|()| true),
        Err(error) if is_passing(&error) => Ok(true),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(Error::io("read the console", error)),
    }
}

fn show(screen: &mut File, bytes: &[u8]) -> Result<()> {
    screen
        .write_all(bytes)
        .map_err(|error| Error::io("write", error).in_file("standard output"))
}

fn read_keys(keyboard: &mut File, typed: &mut Vec<u8>) -> Result<usize> {
    let mut bytes = [0; 4096];
    match keyboard.read(&mut bytes) {
        Ok(n) => {
            typed.extend_from_slice(bytes.get(..n).unwrap_or_default());
            Ok(n)
        }
        Err(error) if is_passing(&error) => Ok(typed.len().max(1)),
        // A terminal that was hung up.
        Err(error) if error.raw_os_error() == Some(5) => Ok(0),
        Err(error) => Err(Error::io("read", error).in_file("standard input")),
    }
}

/// Cuts off the key that leaves, with what follows; says whether it was there.
fn cut_at_escape(typed: &mut Vec<u8>) -> bool {
    let escape = typed.iter().position(|byte| *byte == ESCAPE);
    typed.truncate(escape.unwrap_or(typed.len()));
    escape.is_some()
}

/// Hands the guest what was typed, as much as it takes.
fn hand_over(guest: &mut UnixStream, typed: &mut Vec<u8>) -> Result<()> {
    while !typed.is_empty() {
        match guest.write(typed) {
            Ok(n) => drop(typed.drain(..n.min(typed.len()))),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The machine is off: what it said last is still to be read.
            Err(_) => typed.clear(),
        }
    }
    Ok(())
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
