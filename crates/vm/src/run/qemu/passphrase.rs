//! What guests ask on their consoles when they want the passphrase of an encrypted disk, and who answers.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hako_block::{Error, Result};

/// What initrds say when they want one: cryptsetup-initramfs, systemd, dracut without systemd.
pub const QUESTIONS: &[&str] = &[
    "Please unlock disk",
    "Please enter passphrase",
    "Enter passphrase for",
];
/// How often a passphrase is given: once per encrypted disk, and few have so many.
const MAX_ANSWERS: usize = 16;
/// How long a question stands before it is answered: cryptsetup asks, then switches the echo off, and what
/// was typed before that is thrown away.
const THINKING: Duration = Duration::from_secs(2);

/// Returns whether a passphrase goes through a terminal as it is.
pub(super) fn can_be_typed(passphrase: &str) -> bool {
    !passphrase.contains(char::is_control)
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is none.
    NotAsked,
    /// It was answered.
    Given,
    /// Nobody knows the passphrase.
    Unknown,
    /// It was given often, and the guest asks again.
    Refused,
}

/// Who answers questions.
pub(super) struct Typist<'a> {
    passphrase: Option<&'a str>,
    n_answers: usize,
    /// Up to where in what was heard questions were answered.
    answered: usize,
}

impl<'a> Typist<'a> {
    /// Returns one who knows this passphrase. Errors: it cannot be typed.
    pub fn new(passphrase: Option<&'a str>) -> Result<Self> {
        if passphrase.is_some_and(|text| !can_be_typed(text)) {
            return Err(Error::invalid(
                "a passphrase with control characters cannot be typed",
            ));
        }
        Ok(Self {
            passphrase,
            n_answers: 0,
            answered: 0,
        })
    }

    /// Looks at all that a console has said, and types the answer of a question at its end.
    pub fn answer(&mut self, heard: &[u8], console: &mut UnixStream) -> Result<Answer> {
        let new = heard.get(self.answered..).unwrap_or_default();
        // A question waits at the end of its line.
        let line = new.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let asks = QUESTIONS.iter().any(|question| line.contains(question));
        if !asks || !line.trim_end().ends_with(':') {
            return Ok(Answer::NotAsked);
        }
        let Some(passphrase) = self.passphrase else {
            return Ok(Answer::Unknown);
        };
        if self.n_answers == MAX_ANSWERS {
            return Ok(Answer::Refused);
        }
        self.n_answers += 1;
        self.answered = heard.len();
        std::thread::sleep(THINKING);
        let typed = console.write_all(format!("{passphrase}\n").as_bytes());
        typed.map_err(|error| Error::io("type the passphrase", error))?;
        Ok(Answer::Given)
    }

    /// Is told that so many bytes were dropped of the front of what was heard.
    pub fn forget(&mut self, n_bytes: usize) {
        self.answered = self.answered.saturating_sub(n_bytes);
    }
}
