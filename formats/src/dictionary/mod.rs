//! The text of VMware's dictionaries (VMX, VMSD, VMXF's kin): lines `key = "value"`, read and
//! edited so that every byte stays that an edit is not about.
//!
//! Keys have no case. `|XX` in a value stands for a byte, and only then are the bytes decoded, by
//! the code page that the key `.encoding` names. Kept as they are: order, comments, blank lines,
//! line endings, a byte order mark, unknown keys, lines that are not understood. The grammar is
//! that of open-vm-tools' `dictll.c`; what goes beyond it is read as far as it has one meaning,
//! and reported. No line goes on in the next.

mod edit;
mod line;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{HashMap, HashSet};

use encoding_rs::{Encoding, UTF_8};
use hako_block::{Error, Result};

use crate::code_page;
use crate::disk::vmdk::looks_like_descriptor;
use crate::oddities::Oddities;
use line::{Entry, Line};

/// Longest text accepted, in bytes. `guestinfo` keys may hold whole files; the rest is small.
pub const MAX_BYTES: usize = 4 << 20;
/// Most lines accepted.
pub const MAX_LINES: usize = 1 << 16;
const BOM: &[u8] = b"\xef\xbb\xbf";
/// The key that names the code page.
const ENCODING: &str = ".encoding";

/// A dictionary: its text and what it says.
#[derive(Debug, Clone)]
pub struct Dictionary {
    has_bom: bool,
    lines: Vec<Line>,
    /// By key in lower case, the lines that have it, ascending; never empty.
    lines_of: HashMap<String, Vec<usize>>,
    encoding: &'static Encoding,
    oddities: Vec<String>,
}

impl Dictionary {
    /// Returns an empty dictionary in UTF-8 that says so, with `\n` as line ending.
    #[allow(clippy::new_without_default, reason = "an empty file is another thing")]
    pub fn new() -> Self {
        Self::of_lines(false, vec![Line::new(ENCODING, b"UTF-8", b"\n")])
    }

    /// Reads a text. Errors: [`hako_block::ErrorKind::Unsupported`] for a VMDK, binary or UTF-16,
    /// [`hako_block::ErrorKind::Corrupt`] for a text longer than [`MAX_BYTES`] or [`MAX_LINES`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        refuse_other_files(bytes)?;
        let (has_bom, text) = match bytes.strip_prefix(BOM) {
            Some(text) => (true, text),
            None => (false, bytes),
        };
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        Ok(Self::of_lines(has_bom, lines.map(Line::parse).collect()))
    }

    fn of_lines(has_bom: bool, lines: Vec<Line>) -> Self {
        let mut dictionary = Self {
            has_bom,
            lines,
            lines_of: HashMap::new(),
            encoding: UTF_8,
            oddities: Vec::new(),
        };
        dictionary.index();
        dictionary.choose_encoding();
        dictionary.note_oddities();
        dictionary
    }

    /// Returns the text: byte for byte what was read, but for what was edited.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        if self.has_bom {
            bytes.extend_from_slice(BOM);
        }
        for line in &self.lines {
            bytes.extend_from_slice(line.bytes());
        }
        bytes
    }

    /// Returns the value of a key (any case), the first if there are several.
    pub fn value(&self, key: &str) -> Option<String> {
        let line = self.lines.get(self.line_of(key)?)?;
        line.value().map(|bytes| self.decode(&bytes).0)
    }

    /// Returns whether a key has a value that means yes: `TRUE` in any case, or what older texts
    /// say instead.
    pub fn is_true(&self, key: &str) -> bool {
        self.flag(key) == Some(true)
    }

    /// Returns whether a key has a value that means no: `FALSE` in any case, or what older texts
    /// say instead.
    pub fn is_false(&self, key: &str) -> bool {
        self.flag(key) == Some(false)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        truth_of(&self.value(key)?)
    }

    /// Returns the keys as they are written, with their values, in the order of the text; of a key
    /// that is there several times the first.
    pub fn entries(&self) -> impl Iterator<Item = (&str, String)> {
        self.lines.iter().enumerate().filter_map(|(index, line)| {
            let entry = line.entry()?;
            let counts = self.line_of(&entry.key) == Some(index);
            let value = self.decode(&line.value()?).0;
            counts.then_some((entry.key.as_str(), value))
        })
    }

    /// Returns what the keys begin with, up to the first dot, in lower case: the devices.
    pub(crate) fn prefixes(&self) -> HashSet<&str> {
        let keys = self.lines_of.keys();
        keys.filter_map(|key| key.split_once('.'))
            .map(|(prefix, _)| prefix)
            .collect()
    }

    /// Returns what was odd about the text when it was read, one sentence each.
    pub fn oddities(&self) -> &[String] {
        &self.oddities
    }

    /// Returns the name of the code page that values are decoded with.
    pub fn encoding_name(&self) -> &'static str {
        self.encoding.name()
    }

    /// Length of the text in bytes.
    fn len(&self) -> usize {
        let bom = if self.has_bom { BOM.len() } else { 0 };
        bom + self
            .lines
            .iter()
            .map(|line| line.bytes().len())
            .sum::<usize>()
    }

    /// The line whose value counts.
    fn line_of(&self, key: &str) -> Option<usize> {
        let lines = self.lines_of.get(&key.to_ascii_lowercase())?;
        lines.first().copied()
    }

    fn entries_of_lines(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let lines = self.lines.iter().enumerate();
        lines.filter_map(|(index, line)| Some((index, line.entry()?)))
    }

    /// Returns the text, and whether bytes were lost.
    fn decode(&self, bytes: &[u8]) -> (String, bool) {
        let (text, lossy) = self.encoding.decode_without_bom_handling(bytes);
        (text.into_owned(), lossy)
    }

    fn index(&mut self) {
        let mut lines_of: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, entry) in self.entries_of_lines() {
            let key = entry.key.to_ascii_lowercase();
            lines_of.entry(key).or_default().push(index);
        }
        self.lines_of = lines_of;
    }

    fn choose_encoding(&mut self) {
        let label = self.value(ENCODING);
        let mut oddities = Vec::new();
        let is_utf8 = self.has_bom || self.values_are(|value| std::str::from_utf8(value).is_ok());
        self.encoding = code_page::choose(label.as_deref(), is_utf8, &mut oddities);
        if self.has_bom && self.encoding != UTF_8 {
            let name = self.encoding.name();
            oddities.push(format!("the text begins like UTF-8, but names {name}"));
            self.encoding = UTF_8;
        }
        self.oddities = oddities;
    }

    fn values_are(&self, is_right: impl Fn(&[u8]) -> bool) -> bool {
        let mut values = self.lines.iter().filter_map(Line::value);
        values.all(|value| is_right(&value))
    }

    fn note_oddities(&mut self) {
        let mut found = Oddities::default();
        for (index, line) in self.lines.iter().enumerate() {
            let number = index + 1;
            if line.is_unknown() {
                found.push(format!("line {number} is not understood"));
            }
            let Some(entry) = line.entry() else { continue };
            let key: String = entry.key.chars().take(60).collect();
            if !entry.is_strict {
                found.push(format!(
                    "line {number}: VMware does not understand how {key:?} is written"
                ));
            }
            if self.line_of(&entry.key) != Some(index) {
                found.push(format!(
                    "line {number}: {key:?} is there again; the first counts"
                ));
            }
            if line.value().is_some_and(|value| self.decode(&value).1) {
                let name = self.encoding.name();
                found.push(format!(
                    "line {number}: the value of {key:?} is not valid {name}"
                ));
            }
        }
        self.oddities.extend(found.into_sentences());
    }
}

/// Returns what a word says of a truth, in any case; old texts have other words than `TRUE`.
pub(crate) fn truth_of(word: &str) -> Option<bool> {
    match word.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Returns a note whose lines end in `\n`, however they ended.
pub(crate) fn note_of(text: &str) -> String {
    let lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
    let lines: Vec<&str> = lines.collect();
    lines.join("\n")
}

fn refuse_other_files(bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(b"KDMV") || bytes.starts_with(b"COWD") || looks_like_descriptor(bytes) {
        return Err(
            Error::unsupported("a disk image (VMDK), no description of a VM")
                .hint("name the .vmx file"),
        );
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(
            Error::unsupported("a text in UTF-16, which VMware does not read")
                .hint("save it as UTF-8"),
        );
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(Error::unsupported("binary, no text").at_byte(at as u64));
    }
    if bytes.len() > MAX_BYTES {
        let what = format!("{} bytes are too long (at most {MAX_BYTES})", bytes.len());
        return Err(Error::corrupt("text", what));
    }
    let n_lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    if n_lines >= MAX_LINES {
        let what = format!("{n_lines} lines are too many (at most {MAX_LINES})");
        return Err(Error::corrupt("text", what));
    }
    Ok(())
}
