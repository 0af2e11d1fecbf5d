//! `hako vm wait`: until a machine does something.

use std::io::Read;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hako_block::{Cancel, Error, ErrorKind, Result};
use hako_vm::State;
use hako_vm::run::{Event, RunState};
use regex_lite::Regex;
use serde_json::{Value, json};

use super::watch::{STEP, parse_seconds};
use super::{Found, Which};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm wait web
  hako vm start web && hako vm wait web --for-line 'login:' --timeout 300
  hako vm wait web --for-line 'tests (passed|failed)' --regex
  hako vm wait web --state paused --timeout 10
  hako vm wait web --for-ip --timeout 300

Exit status:
  0    it has come
  1    failed, or it cannot come any more: the machine went off
  2    wrong usage
  5    it is in use by something else
  6    no such virtual machine
  124  time was up";

/// Wait until a machine is off, or until something else comes
///
/// Prints the line of the console that it waited for, the address, or the state.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Wait {
    #[command(flatten)]
    which: Which,

    /// Wait for this state
    #[arg(
        long,
        value_name = "STATE",
        default_value = "stopped",
        conflicts_with_all = ["for_line", "for_ip"]
    )]
    state: Wanted,

    /// Wait for a line on the console that has this text in it
    ///
    /// What the guest has written since it was started counts, as far as it is kept (at least
    /// 1 MiB). A line need not be complete, so that it may be a prompt; colours and the like are
    /// taken out of it.
    #[arg(long, value_name = "TEXT")]
    for_line: Option<String>,

    /// The text of --for-line is a regular expression
    #[arg(long, requires = "for_line")]
    regex: bool,

    /// Wait until a network card of the guest uses an address
    ///
    /// Its own frames tell: an address that it uses once it has one, by DHCP or by itself. IPv4 is
    /// waited for. Behind a user network the address is not reached from the host.
    #[arg(long, conflicts_with = "for_line")]
    for_ip: bool,

    /// Give up after this time
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// It is off
    Stopped,
    /// Its virtual CPUs run
    Running,
    /// They stand still
    Paused,
}

/// When to give up.
struct Patience {
    deadline: Option<Instant>,
    cancel: Cancel,
}

impl Patience {
    /// Returns how long to wait before looking again; `None` if time is up.
    fn step(&self) -> Result<Option<Duration>> {
        self.cancel.check()?;
        let left = self
            .deadline
            .map(|end| end.saturating_duration_since(Instant::now()));
        Ok(match left {
            Some(Duration::ZERO) => None,
            Some(left) => Some(left.min(STEP)),
            None => Some(STEP),
        })
    }
}

impl Wait {
    /// Waits.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let text = self.text()?;
        let found = self.which.find()?;
        let patience = Patience {
            deadline: self.timeout.map(|timeout| Instant::now() + timeout),
            cancel: context.cancel_on_signals()?,
        };
        let result = match &text {
            Some(text) => wait_for_line(&found, text, &patience)?.map(|line| {
                let json = json!({"line": line});
                (line, json)
            }),
            None if self.for_ip => wait_for_address(&found, &patience)?.map(|(node, address)| {
                let address = address.to_string();
                let json = json!({"node": node, "address": address});
                (address, json)
            }),
            None => {
                let came = wait_for_state(&found, self.state, &patience)?;
                let name = self.state.name();
                came.then(|| (name.to_owned(), json!({"state": name})))
            }
        };
        let Some((line, value)) = result else {
            let what = "time is up";
            let error = Error::new(ErrorKind::Io, what).in_file(found.vm.path());
            context.messages.error(&error);
            return Ok(Exit::TimeUp);
        };
        print(context, &line, &value)?;
        Ok(Exit::Done)
    }

    fn text(&self) -> Result<Option<Text>> {
        let Some(text) = &self.for_line else {
            return Ok(None);
        };
        if !self.regex {
            return Ok(Some(Text::Plain(text.clone())));
        }
        match Regex::new(text) {
            Ok(regex) => Ok(Some(Text::Regex(regex))),
            Err(error) => Err(Error::invalid(format!("--for-line {text}: {error}"))),
        }
    }
}

fn print(context: &Context, line: &str, value: &Value) -> Result<()> {
    let mut out = Out::new();
    match context.json {
        true => out.json(value)?,
        false => out.line(line)?,
    }
    out.finish()
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Wanted::Stopped => "stopped",
            Wanted::Running => "running",
            Wanted::Paused => "paused",
        }
    }

    fn is(self, state: RunState) -> bool {
        self.name() == state.name()
    }
}

/// Waits for a state; says whether it came.
fn wait_for_state(found: &Found, wanted: Wanted, patience: &Patience) -> Result<bool> {
    loop {
        if let Some(client) = found.folder.connect()? {
            match client.watch() {
                Ok((status, _)) if wanted.is(status.state) => return Ok(true),
                Ok((_, mut watch)) => loop {
                    let Some(step) = patience.step()? else {
                        return Ok(false);
                    };
                    match watch.next(step)? {
                        Some(Event::Paused { .. }) if wanted == Wanted::Paused => return Ok(true),
                        Some(Event::Resumed) if wanted == Wanted::Running => return Ok(true),
                        Some(Event::Off(_)) => break,
                        _ => (),
                    }
                },
                // It went off meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => (),
                Err(error) => return Err(error),
            }
        }
        if wanted == Wanted::Stopped && found.vm.state() == State::Stopped {
            return Ok(true);
        }
        let Some(step) = patience.step()? else {
            return Ok(false);
        };
        std::thread::sleep(step);
    }
}

/// Waits for the first address of IPv4 that a card uses, and returns both; `None` if time is up.
fn wait_for_address(found: &Found, patience: &Patience) -> Result<Option<(String, IpAddr)>> {
    let (status, mut watch) = found.connect()?.watch()?;
    let mut known = status.addresses.into_iter();
    if let Some(known) = known.find(|(_, address)| address.is_ipv4()) {
        return Ok(Some(known));
    }
    while let Some(step) = patience.step()? {
        match watch.next(step)? {
            Some(Event::Address { node, address }) if address.is_ipv4() => {
                return Ok(Some((node, address)));
            }
            Some(Event::Off(_)) => {
                let what = "the machine went off before it used an address";
                return Err(Error::new(ErrorKind::NotFound, what).in_file(found.vm.path()));
            }
            _ => (),
        }
    }
    Ok(None)
}

/// Waits for a line on the console, and returns it; `None` if time is up.
fn wait_for_line(found: &Found, text: &Text, patience: &Patience) -> Result<Option<String>> {
    let console = found.connect()?.console(true);
    let (first, mut guest) = console.map_err(|error| error.in_file(found.vm.path()))?;
    let mut screen = Screen::default();
    if let Some(line) = screen.take(&first, text) {
        return Ok(Some(line));
    }
    let mut bytes = [0; 16 << 10];
    loop {
        let Some(step) = patience.step()? else {
            return Ok(None);
        };
        let read = guest
            .set_read_timeout(Some(step))
            .and_then(|()| guest.read(&mut bytes));
        match read {
            Ok(0) => {
                let what = "the machine went off before that line came";
                return Err(Error::new(ErrorKind::NotFound, what).in_file(found.vm.path()));
            }
            Ok(n) => {
                let written = bytes.get(..n).unwrap_or_default();
                if let Some(line) = screen.take(written, text) {
                    return Ok(Some(line));
                }
            }
            Err(error) if is_timeout(&error) => (),
            Err(error) => return Err(Error::io("read the console", error)),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// What a line is to have in it.
enum Text {
    Plain(String),
    Regex(Regex),
}

impl Text {
    fn is_in(&self, line: &str) -> bool {
        match self {
            Text::Plain(text) => line.contains(text),
            Text::Regex(regex) => regex.is_match(line),
        }
    }
}

/// Bytes of a line that are looked at.
const MAX_LINE_BYTES: usize = 64 << 10;

/// The line that a guest is writing.
#[derive(Default)]
struct Screen {
    line: Vec<u8>,
    escape: Escape,
}

/// Where in an escape sequence (ECMA-48) it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Escape {
    /// In none.
    #[default]
    No,
    /// After ESC.
    Begun,
    /// In a control sequence: ESC [ parameters, then a byte from @ to ~.
    Control,
    /// In a string (ESC ] and the like): until BEL or ESC \.
    String,
}

impl Screen {
    /// Takes what was written; returns the first line that has the text in it.
    fn take(&mut self, bytes: &[u8], text: &Text) -> Option<String> {
        for byte in bytes {
            self.escape = match (self.escape, byte) {
                (Escape::No, 0x1b) => Escape::Begun,
                (Escape::No, b'\n') => {
                    if let Some(line) = self.looked_for(text) {
                        return Some(line);
                    }
                    self.line.clear();
                    Escape::No
                }
                (Escape::No, byte) => {
                    if *byte >= b' ' || *byte == b'\t' {
                        self.line.push(*byte);
                    }
                    Escape::No
                }
                (Escape::Begun, b'[') => Escape::Control,
                (Escape::Begun, b']' | b'P' | b'X' | b'^' | b'_') => Escape::String,
                (Escape::Begun, b' '..=b'/') => Escape::Begun,
                (Escape::Begun, _) => Escape::No,
                (Escape::Control, b'@'..=b'~') => Escape::No,
                (Escape::Control, _) => Escape::Control,
                (Escape::String, 0x07) => Escape::No,
                (Escape::String, 0x1b) => Escape::Begun,
                (Escape::String, _) => Escape::String,
            };
            if self.line.len() > MAX_LINE_BYTES {
                self.line.drain(..MAX_LINE_BYTES / 2);
            }
        }
        self.looked_for(text)
    }

    fn looked_for(&self, text: &Text) -> Option<String> {
        let line = String::from_utf8_lossy(&self.line);
        text.is_in(&line).then(|| line.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Text {
        Text::Plain(text.to_owned())
    }

    #[test]
    fn a_line_is_found_across_pieces_and_colours() {
        let mut screen = Screen::default();
        assert_eq!(
            screen.take(b"[\x1b[0;32m  OK  \x1b[0m] Rea", &plain("Reached target")),
            None
        );
        let found = screen.take(
            b"ched \x1b]0;title\x07target\r\nnext",
            &plain("Reached target"),
        );
        assert_eq!(found.as_deref(), Some("[  OK  ] Reached target"));
    }

    #[test]
    fn a_prompt_is_found_and_a_line_that_is_gone_is_not() {
        let mut screen = Screen::default();
        let found = screen.take(b"Debian\r\n\r\nweb login: ", &plain("login:"));
        assert_eq!(found.as_deref(), Some("web login: "));
        let mut screen = Screen::default();
        let regex = Text::Regex(Regex::new("^one.*two$").unwrap());
        assert_eq!(screen.take(b"one\ntwo", &regex), None);
        let found = screen.take(b"\none and two", &regex);
        assert_eq!(found.as_deref(), Some("one and two"));
    }

    #[test]
    fn hostile_output_neither_grows_nor_panics() {
        let mut screen = Screen::default();
        let all: Vec<u8> = (0..=255).collect();
        for _ in 0..2000 {
            assert_eq!(screen.take(&all, &plain("nothing like it")), None);
            assert_eq!(screen.take(&[b'x'; 4000], &plain("nothing like it")), None);
            assert!(screen.line.len() <= MAX_LINE_BYTES);
        }
    }
}
