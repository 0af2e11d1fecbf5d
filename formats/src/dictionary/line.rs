//! One line of a dictionary: `key = "value" # comment`, with the escapes of its value.
//!
//! What VMware's own reader accepts (open-vm-tools, `dictll.c`) is the grammar here, in nom: blanks
//! and tabs around each part, a value between quotes or one bare word, a comment behind it. Lines
//! with a key and a `=` that this grammar does not cover are read as other tools read them and
//! marked as not strict.

use std::borrow::Cow;
use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while, take_while1};
use nom::combinator::{all_consuming, map, not, opt, rest};
use nom::sequence::{delimited, terminated};
use nom::{IResult, Offset, Parser};

/// A line, with its ending.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Every byte, the ending included.
    bytes: Vec<u8>,
    content: Content,
}

/// What a line says.
#[derive(Debug, Clone)]
enum Content {
    /// Nothing, or a comment.
    Nothing,
    /// A key and its value.
    Entry(Entry),
    /// Something that is not understood.
    Unknown,
}

/// A key and where its value is.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// As it is written; ASCII.
    pub(super) key: String,
    /// Bytes of the value in the line, with its escapes, without quotes.
    value: Range<usize>,
    is_quoted: bool,
    /// Whether VMware's own reader understands the line.
    pub(super) is_strict: bool,
}

impl Line {
    /// Reads a line, its ending included.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = without_ending(bytes);
        let content = match entry(text) {
            Some(entry) => Content::Entry(entry),
            None if nothing(text).is_ok() => Content::Nothing,
            None => Content::Unknown,
        };
        Self {
            bytes: bytes.to_vec(),
            content,
        }
    }

    /// Returns a new line `key = "value"`; `value` with its escapes.
    pub(super) fn new(key: &str, value: &[u8], ending: &[u8]) -> Self {
        Self::parse(&[key.as_bytes(), b" = \"", value, b"\"", ending].concat())
    }

    /// Returns every byte, the ending included.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the key and what is known of the value.
    pub(super) fn entry(&self) -> Option<&Entry> {
        match &self.content {
            Content::Entry(entry) => Some(entry),
            Content::Nothing | Content::Unknown => None,
        }
    }

    /// Returns whether the line says something that is not understood.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.content, Content::Unknown)
    }

    /// Returns the value without its escapes, if the line has a key.
    pub(super) fn value(&self) -> Option<Cow<'_, [u8]>> {
        let entry = self.entry()?;
        self.bytes.get(entry.value.clone()).map(unescaped)
    }

    /// Gives the line's key another value (with its escapes). All else stays, but for a line that
    /// VMware's reader does not understand: that is written anew.
    pub(super) fn set_value(&mut self, value: &[u8]) {
        let Some(entry) = self.entry() else { return };
        if !entry.is_strict {
            *self = Self::new(&entry.key, value, self.ending());
            return;
        }
        let stays_bare = !value.is_empty() && value.iter().all(|byte| is_bare(*byte));
        let new = if entry.is_quoted || stays_bare {
            value.to_vec()
        } else {
            [b"\"", value, b"\""].concat()
        };
        let (before, after) = (
            &self.bytes[..entry.value.start],
            &self.bytes[entry.value.end..],
        );
        *self = Self::parse(&[before, &new, after].concat());
    }

    /// Gives the line another key. All else stays.
    pub(super) fn set_key(&mut self, key: &str) {
        let Some(old) = self.entry().map(|entry| entry.key.len()) else {
            return;
        };
        // Only blanks stand before a key.
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = self.bytes.iter().take_while(|byte| is_blank(byte)).count();
        let (before, rest) = self.bytes.split_at(start);
        let after = rest.get(old..).unwrap_or_default();
        *self = Self::parse(&[before, key.as_bytes(), after].concat());
    }

    /// Returns the ending: `\n`, `\r\n`; of the last line also nothing, or `\r`.
    pub(super) fn ending(&self) -> &[u8] {
        &self.bytes[without_ending(&self.bytes).len()..]
    }

    /// Returns whether another line cannot follow.
    pub(super) fn is_open(&self) -> bool {
        !self.bytes.ends_with(b"\n")
    }

    /// Lets another line follow.
    pub(super) fn close(&mut self, ending: &[u8]) {
        if self.bytes.ends_with(b"\r") {
            self.bytes.push(b'\n');
        } else if self.is_open() {
            self.bytes.extend_from_slice(ending);
        }
    }
}

fn without_ending(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let n_returns = bytes
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\r')
        .count();
    &bytes[..bytes.len() - n_returns]
}

/// Returns the entry of a line with a key and a `=`.
fn entry(line: &[u8]) -> Option<Entry> {
    let (after, key) = key(line).ok()?;
    let strict = alt((
        map(quoted, |value| (value, true)),
        map(bare, |value| (value, false)),
    ))
    .parse(after);
    let ((value, is_quoted), is_strict) = match strict {
        Ok((_, value)) => (value, true),
        Err(_) => (loose(after), false),
    };
    let start = line.offset(value);
    Some(Entry {
        key: key.iter().map(|byte| char::from(*byte)).collect(),
        value: start..start + value.len(),
        is_quoted,
        is_strict,
    })
}

fn key(input: &[u8]) -> IResult<&[u8], &[u8]> {
    delimited(blanks, take_while1(is_key), (blanks, tag("="), blanks)).parse(input)
}

fn quoted(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let value = delimited(tag("\""), take_till(|byte| byte == b'"'), tag("\""));
    terminated(value, nothing).parse(input)
}

fn bare(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let word = take_till(|byte| is_blank(byte) || byte == b'#');
    delimited(not(tag("\"")), word, nothing).parse(input)
}

/// Blanks and a comment, to the end of the line.
fn nothing(input: &[u8]) -> IResult<&[u8], ()> {
    let comment = opt((tag("#"), rest));
    map(all_consuming((blanks, comment)), |_| ()).parse(input)
}

fn blanks(input: &[u8]) -> IResult<&[u8], &[u8]> {
    take_while(is_blank).parse(input)
}

/// The value of a line that the grammar does not cover, and whether it begins with a quote: bare
/// words with blanks between them, quotes between quotes, an open quote, rubbish behind a quote.
fn loose(input: &[u8]) -> (&[u8], bool) {
    let Some(inner) = input.strip_prefix(b"\"") else {
        let end = input.iter().position(|byte| *byte == b'#');
        return (without_blanks(&input[..end.unwrap_or(input.len())]), false);
    };
    let inner = without_blanks(inner);
    let value = inner.strip_suffix(b"\"").unwrap_or_else(|| {
        let end = inner.iter().position(|byte| *byte == b'"');
        &inner[..end.unwrap_or(inner.len())]
    });
    (value, true)
}

fn without_blanks(bytes: &[u8]) -> &[u8] {
    let n_blanks = bytes
        .iter()
        .rev()
        .take_while(|byte| is_blank(**byte))
        .count();
    &bytes[..bytes.len() - n_blanks]
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Returns whether a key may have the byte. (VMware's reader takes letters beyond ASCII too, but
/// what is a letter there depends on the code page.)
pub(super) fn is_key(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'=' | b'#' | b'"')
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"')
}

/// Resolves `|XX`; a `|` without two hexadecimal digits behind it stands for itself.
fn unescaped(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'|') {
        return Cow::Borrowed(bytes);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let escape = match rest {
            [b'|', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let byte = escape.and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &rest[3..] } else { after };
    }
    Cow::Owned(out)
}

/// Returns the bytes with escapes for what VMware's writer escapes: quotes, `|`, and control
/// characters but the tab.
pub(super) fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\t' => out.push(b'\t'),
            b'"' | b'|' | 0..0x20 | 0x7f => out.extend(format!("|{byte:02X}").into_bytes()),
            _ => out.push(*byte),
        }
    }
    out
}
