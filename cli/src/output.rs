//! Standard output (results) and standard error (everything else).

use std::fmt::Write as _;
use std::io::{BufWriter, IsTerminal, StdoutLock, Write};

use hako_block::{Error, Result};
use serde_json::{Value, json};

/// Standard output, buffered. Errors of a write come out as errors, never as a panic.
pub struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    /// Takes standard output.
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(65536, std::io::stdout().lock()))
    }

    /// Writes text as it is.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Writes a line, control characters made visible: a name out of an image must not reach the
    /// terminal as an escape sequence.
    pub fn line(&mut self, text: &str) -> Result<()> {
        let mut line = printable(text);
        line.push('\n');
        self.bytes(line.as_bytes())
    }

    /// Writes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed)
    }

    /// Writes one JSON value on a line of its own.
    pub fn json(&mut self, value: &Value) -> Result<()> {
        self.text(&format!("{value}\n"))
    }

    /// Hands everything to the system.
    pub fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("write", error).in_file("standard output")
}

/// Returns whether the error is that the reader of our output went away.
pub fn is_broken_pipe(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Messages on standard error.
#[derive(Debug, Clone, Copy)]
pub struct Messages {
    json: bool,
    quiet: bool,
    colour: bool,
}

impl Messages {
    /// Returns messages as the user wants them; colours only on a terminal, and not with NO_COLOR.
    pub fn new(json: bool, quiet: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = std::io::stderr().is_terminal() && !set("NO_COLOR") && !dumb;
        Self {
            json,
            quiet,
            colour,
        }
    }

    /// Says why the command failed, with the hint on a line of its own; as JSON if results are.
    pub fn error(&self, error: &Error) {
        if self.json {
            self.say(&error_json(error).to_string());
            return;
        }
        self.say(&format!(
            "{} {}",
            self.painted("hako:", "1;31"),
            printable(&error.to_string())
        ));
        if let Some(hint) = error.hint_text() {
            self.say(&format!(
                "{} {}",
                self.painted("hint:", "1;36"),
                printable(hint)
            ));
        }
    }

    /// Says what the user should know, unless he wants quiet.
    pub fn warn(&self, text: &str) {
        if self.quiet {
            return;
        }
        if self.json {
            self.say(&json!({"warning": text}).to_string());
        } else {
            let head = self.painted("hako: warning:", "1;33");
            self.say(&format!("{head} {}", printable(text)));
        }
    }

    /// Says something.
    pub fn note(&self, text: &str) {
        self.say(&printable(text));
    }

    fn painted(&self, text: &str, colour: &str) -> String {
        if self.colour {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn say(&self, line: &str) {
        // Where standard error is gone there is nobody left to tell.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

fn error_json(error: &Error) -> Value {
    json!({"error": {
        "kind": error.kind().name(),
        "message": error.to_string(),
        "file": error.file().map(|file| file.to_string_lossy()),
        "byte": error.byte(),
        "hint": error.hint_text(),
    }})
}

/// Returns the text with control characters made visible.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Prints rows below a heading, columns as wide as they must be; nothing if there is no row.
pub fn print_table<const N: usize>(
    out: &mut Out,
    heading: &[&str; N],
    rows: &[[String; N]],
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let heading = heading.map(str::to_owned);
    let all: Vec<&[String; N]> = std::iter::once(&heading).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).filter_map(width).collect();
    for row in all {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.line(line.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\nc é"), "a\\u{1b}[31mb\\nc é");
    }

    #[test]
    fn errors_have_their_parts_in_json() {
        let error = Error::corrupt("header", "bad")
            .in_file("d.vmdk")
            .at_byte(4)
            .hint("try");
        assert_eq!(
            error_json(&error).to_string(),
            r#"{"error":{"kind":"corrupt","message":"d.vmdk: header: bad (byte 0x4)","file":"d.vmdk","byte":4,"hint":"try"}}"#
        );
    }
}
