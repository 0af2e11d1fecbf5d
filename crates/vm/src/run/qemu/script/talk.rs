//! What a guest says: its verdict on one serial port, all else on the other.

use std::io::{ErrorKind as IoKind, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hako_block::{Error, ErrorKind, Result};

use super::super::passphrase::{Answer, Typist};
use super::{Verdict, locked};

/// How long one look at a port takes.
const LOOK: Duration = Duration::from_millis(50);
/// Most that a script may print, in bytes.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// What is kept of a console, in bytes.
const MAX_CONSOLE_BYTES: usize = 64 << 10;
/// What is shown of it, in bytes.
const TOLD_BYTES: usize = 1500;

/// The port on which the verdict comes.
pub(super) struct Report {
    stream: UnixStream,
    heard: Vec<u8>,
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl Report {
    pub fn new(stream: UnixStream, nonce: &str) -> Result<Self> {
        prepare(&stream)?;
        Ok(Self {
            stream,
            heard: Vec::new(),
            begin: format!("HAKO-{nonce} begin\n").into_bytes(),
            end: format!("\nHAKO-{nonce} end ").into_bytes(),
        })
    }

    /// Listens for a moment; returns the verdict once it is there.
    pub fn listen(&mut self) -> Result<Option<Verdict>> {
        let n = hear(&mut self.stream, &mut self.heard)?;
        if self.heard.len() > MAX_OUTPUT_BYTES {
            return Err(Error::new(ErrorKind::Io, "the script prints too much"));
        }
        match n {
            0 => Ok(None),
            _ => Ok(self.verdict()),
        }
    }

    pub fn has_begun(&self) -> bool {
        position(&without_returns(&self.heard), &self.begin).is_some()
    }

    fn verdict(&self) -> Option<Verdict> {
        let heard = without_returns(&self.heard);
        let begin = position(&heard, &self.begin)? + self.begin.len();
        // The runner's own line comes last; the line break before it is not the script's.
        let rest = heard.get(begin.saturating_sub(1)..)?;
        let end = position(rest, &self.end)?;
        let words = rest.get(end + self.end.len()..)?;
        let line = words.get(..position(words, b"\n")?)?;
        let line = String::from_utf8_lossy(line);
        let (status, state) = line.split_once(' ')?;
        let output = rest.get(1..end).unwrap_or_default();
        Some(Verdict {
            status: status.parse().ok()?,
            output: String::from_utf8_lossy(output).into_owned(),
            is_clean: state == "clean",
        })
    }
}

/// The guest's console.
pub(super) struct Console<'a> {
    stream: Option<UnixStream>,
    heard: Vec<u8>,
    typist: Typist<'a>,
}

impl<'a> Console<'a> {
    pub fn new(stream: Option<UnixStream>, passphrase: Option<&'a str>) -> Result<Self> {
        if let Some(stream) = &stream {
            prepare(stream)?;
        }
        Ok(Self {
            stream,
            heard: Vec::new(),
            typist: Typist::new(passphrase)?,
        })
    }

    /// Listens for a moment, and answers a question. Errors: one that has no answer.
    pub fn listen(&mut self) -> Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if hear(stream, &mut self.heard)? == 0 {
            return Ok(());
        }
        if let Some(surplus) = self.heard.len().checked_sub(MAX_CONSOLE_BYTES) {
            self.heard.drain(..surplus);
            self.typist.forget(surplus);
        }
        match self.typist.answer(&self.heard, stream)? {
            Answer::NotAsked | Answer::Given => Ok(()),
            Answer::Unknown => Err(locked()),
            Answer::Refused => Err(self.error("the guest does not take the passphrase")),
        }
    }

    /// Returns an error with the end of what the console has said.
    pub fn error(&self, what: &str) -> Error {
        let from = self.heard.len().saturating_sub(TOLD_BYTES);
        let end = String::from_utf8_lossy(self.heard.get(from..).unwrap_or_default()).into_owned();
        let lines = end
            .lines()
            .map(|line| line.trim_matches(|letter: char| letter.is_control() || letter == ' '));
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let said = match lines.join(" | ") {
            said if said.is_empty() => "its console said nothing".to_owned(),
            said => format!("its console said last: {said}"),
        };
        let said: String = said.chars().filter(|letter| !letter.is_control()).collect();
        Error::new(ErrorKind::Io, format!("{what}; {said}"))
    }
}

fn prepare(stream: &UnixStream) -> Result<()> {
    let set = stream.set_read_timeout(Some(LOOK));
    set.and_then(|()| stream.set_write_timeout(Some(Duration::from_secs(10))))
        .map_err(|error| Error::io("listen to the guest", error))
}

/// Reads what is there, waiting a moment for it; returns how many bytes there were.
fn hear(stream: &mut UnixStream, heard: &mut Vec<u8>) -> Result<usize> {
    let mut bytes = [0; 16 << 10];
    match stream.read(&mut bytes) {
        Ok(n) => {
            heard.extend_from_slice(bytes.get(..n).unwrap_or_default());
            if n == 0 {
                // The other side is gone: nobody is to wait here in a hurry.
                std::thread::sleep(LOOK);
            }
            Ok(n)
        }
        Err(error) => match error.kind() {
            IoKind::WouldBlock | IoKind::TimedOut | IoKind::Interrupted => Ok(0),
            IoKind::ConnectionReset => Ok(0),
            _ => Err(Error::io("listen to the guest", error)),
        },
    }
}

/// A terminal ends lines with a carriage return, too.
fn without_returns(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte != b'\r' || bytes.peek() != Some(&&b'\n') {
            out.push(*byte);
        }
    }
    out
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|found| found == wanted)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn verdict(said: &str) -> Option<Verdict> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said.as_bytes()).unwrap();
        Report::new(ours, "n").unwrap().listen().unwrap()
    }

    #[test]
    fn a_verdict_is_what_is_said_between_our_lines() {
        let whole =
            verdict("HAKO-n begin\r\nhello\r\nthere\r\n\r\nHAKO-n end 3 clean\r\n").unwrap();
        assert_eq!((whole.status, whole.is_clean), (3, true));
        assert_eq!(whole.output, "hello\nthere\n");
        let none = verdict("HAKO-n begin\n\nHAKO-n end 0 dirty\n").unwrap();
        assert_eq!((none.output.as_str(), none.is_clean), ("", false));
        for nothing in [
            "HAKO-n begin\nhello\n",
            "HAKO-n begin\n\nHAKO-n end 3 cle",
            "HAKO-m begin\n\nHAKO-m end 0 clean\n",
            "HAKO-n begin\n\nHAKO-n end x clean\n",
        ] {
            assert_eq!(verdict(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn questions_are_answered_and_only_those() {
        let talk = |passphrase, said: &str| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.set_read_timeout(Some(LOOK)).unwrap();
            theirs.write_all(said.as_bytes()).unwrap();
            let heard =
                Console::new(Some(ours), passphrase).and_then(|mut console| console.listen());
            let mut answer = [0; 16];
            let n = theirs.read(&mut answer).unwrap_or(0);
            heard.map(|()| String::from_utf8_lossy(&answer[..n]).into_owned())
        };
        let question = "[ 1.0] sda\r\nPlease unlock disk sda5_crypt: ";
        assert_eq!(talk(Some("open"), question).unwrap(), "open\n");
        assert_eq!(
            talk(Some("open"), "Please unlock disk sda5_crypt: \r\ndone\r\n").unwrap(),
            ""
        );
        assert_eq!(talk(Some("open"), "login: ").unwrap(), "");
        assert_eq!(talk(None, question).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(talk(Some("a\nb"), "").is_err());
    }
}
