//! The text descriptor: a model of what it says, and edits that leave every other byte alone.
//!
//! Descriptors are read as they are found in the wild: keys and words in any case, blanks around
//! `=`, quotes or none, a UTF-8 byte order mark, CR LF, blank lines anywhere, keys in any order,
//! more fields on an extent line than the specification has. A line that looks like an extent line
//! but cannot be understood is an error, for skipping it would move everything that follows.

mod edit;

use std::collections::HashSet;
use std::ops::Range;

use encoding_rs::{Encoding, UTF_8};
use hako_block::{Error, Result};

use crate::code_page;

use super::extent_line::{ExtentLine, parse_extent_line};

pub use edit::{Edits, check_value};

/// Longest descriptor accepted: qemu reads as much.
pub const MAX_DESCRIPTOR_BYTES: u64 = 1 << 20;
/// The value of parentCID that says there is no parent.
pub const NO_PARENT: u32 = 0xffff_ffff;
/// The first line by custom, in lower case.
const FIRST_LINE: &[u8] = b"# disk descriptorfile";
const BOM: &[u8] = b"\xef\xbb\xbf";
/// Highest descriptor version whose meaning is known.
const MAX_VERSION: u64 = 3;

/// A parsed descriptor.
#[derive(Debug, Clone)]
pub struct Descriptor {
    text: Vec<u8>,
    encoding: &'static Encoding,
    entries: Vec<Entry>,
    extents: Vec<ExtentLine>,
    /// Bytes of each extent's line, its ending included.
    extent_lines: Vec<Range<usize>>,
    oddities: Vec<String>,
}

/// A `key = value` line.
#[derive(Debug, Clone)]
struct Entry {
    /// In lower case.
    key: String,
    /// Bytes of the whole line, its ending included.
    line: Range<usize>,
    /// Bytes of the value, without quotes.
    value: Range<usize>,
}

impl Descriptor {
    /// Parses a descriptor. What follows a NUL is not part of it: embedded ones are padded so.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_DESCRIPTOR_BYTES {
            return Err(Error::corrupt(
                "descriptor",
                format!("{} bytes are too long", bytes.len()),
            ));
        }
        let end = bytes.iter().position(|byte| *byte == 0);
        let text = bytes[..end.unwrap_or(bytes.len())].to_vec();
        let mut parsed = Self {
            encoding: UTF_8,
            entries: entries_of(&text),
            extents: Vec::new(),
            extent_lines: Vec::new(),
            oddities: Vec::new(),
            text,
        };
        parsed.choose_encoding();
        parsed.read_extents()?;
        parsed.note_oddities();
        Ok(parsed)
    }

    /// Returns the text as it is stored.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the decoded value of a key (any case), the first if there are several.
    pub fn value(&self, key: &str) -> Option<String> {
        let entry = self.entry(key)?;
        Some(self.decode(&self.text[entry.value.clone()]))
    }

    /// Returns the extent lines, in disk order.
    pub fn extents(&self) -> &[ExtentLine] {
        &self.extents
    }

    /// Returns what is odd about the text, one sentence each.
    pub fn oddities(&self) -> &[String] {
        &self.oddities
    }

    /// Returns the name of the encoding that names are decoded with.
    pub fn encoding_name(&self) -> &'static str {
        self.encoding.name()
    }

    /// Returns the content ID, if there is a valid one.
    pub fn content_id(&self) -> Option<u32> {
        parse_content_id(&self.value("cid")?)
    }

    /// Returns the content ID that the parent must have; `None` without a parent.
    pub fn parent_content_id(&self) -> Result<Option<u32>> {
        let Some(text) = self.value("parentcid") else {
            return if self.value("parentfilenamehint").is_some() {
                Err(Error::corrupt(
                    "descriptor",
                    "parentFileNameHint without a parentCID",
                ))
            } else {
                Ok(None)
            };
        };
        match parse_content_id(&text) {
            Some(NO_PARENT) => Ok(None),
            Some(id) => Ok(Some(id)),
            None => Err(Error::corrupt(
                "descriptor",
                format!("parentCID {text:?} is no 32-bit hexadecimal number"),
            )),
        }
    }

    /// Returns the version, if it is one whose meaning is known.
    pub fn known_version(&self) -> Option<u64> {
        let version = self.value("version")?.parse().ok()?;
        (1..=MAX_VERSION).contains(&version).then_some(version)
    }

    /// Returns the text after a change of content: CID and the end of longContentID are `id`, and
    /// a change track, stale from now on, is no longer named. Every other byte stays.
    pub fn with_content_id(&self, id: u32) -> Vec<u8> {
        let mut edits = self.content_id_edits(&format!("{id:08x}"));
        let stale = self.stale_lines();
        edits.extend(stale.map(|entry| (entry.line.clone(), Vec::new())));
        self.edited(edits)
    }

    /// Like [`Descriptor::with_content_id`], but the text keeps its length and every byte its
    /// place: an embedded descriptor is rewritten sector by sector, and must be whole after a cut
    /// between any two. A CID of fewer digits keeps their number.
    pub fn with_content_id_in_place(&self, id: u32) -> Vec<u8> {
        let digits = format!("{id:08x}");
        let n_digits = self.content_id_digits().len();
        let mut edits = self.content_id_edits(&digits[8 - n_digits..]);
        for entry in self.stale_lines() {
            let line = &self.text[entry.line.clone()];
            let len = line.trim_ascii_end().len();
            let mut comment = vec![b' '; len];
            comment[0] = b'#';
            edits.push((entry.line.start..entry.line.start + len, comment));
        }
        self.edited(edits)
    }

    /// Returns the bytes of the CID's digits, without a leading `0x`; empty without a valid CID.
    pub fn content_id_digits(&self) -> Range<usize> {
        let Some(entry) = self.entry("cid") else {
            return 0..0;
        };
        if self.content_id().is_none() {
            return 0..0;
        }
        let value = &self.text[entry.value.clone()];
        let prefix = if value.starts_with(b"0x") || value.starts_with(b"0X") {
            2
        } else {
            0
        };
        entry.value.start + prefix..entry.value.end
    }

    /// Lines that a change of content makes false.
    fn stale_lines(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.key == "changetrackpath")
    }

    fn content_id_edits(&self, digits: &str) -> Vec<(Range<usize>, Vec<u8>)> {
        let at = self.content_id_digits();
        if at.is_empty() {
            return Vec::new();
        }
        let mut edits = vec![(at, digits.as_bytes().to_vec())];
        if let Some(entry) = self.entry("ddb.longcontentid") {
            let value = &self.text[entry.value.clone()];
            if value.len() == 32 && value.iter().all(u8::is_ascii_hexdigit) {
                let tail = entry.value.end - digits.len()..entry.value.end;
                edits.push((tail, digits.as_bytes().to_vec()));
            }
        }
        edits
    }

    fn edited(&self, mut edits: Vec<(Range<usize>, Vec<u8>)>) -> Vec<u8> {
        edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut text = Vec::with_capacity(self.text.len() + 16);
        let mut position = 0;
        for (range, bytes) in edits {
            text.extend_from_slice(&self.text[position..range.start]);
            text.extend_from_slice(&bytes);
            position = range.end;
        }
        text.extend_from_slice(&self.text[position..]);
        text
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.key.eq_ignore_ascii_case(key))
    }

    fn decode(&self, bytes: &[u8]) -> String {
        self.encoding
            .decode_without_bom_handling(bytes)
            .0
            .into_owned()
    }

    /// The descriptor's own word, else UTF-8 if it is that, else the code page of the West.
    fn choose_encoding(&mut self) {
        let label = self
            .value("encoding")
            .or_else(|| self.value("ddb.encoding"));
        let is_utf8 = std::str::from_utf8(&self.text).is_ok();
        self.encoding = code_page::choose(label.as_deref(), is_utf8, &mut self.oddities);
    }

    fn read_extents(&mut self) -> Result<()> {
        let mut n_lost_names = 0;
        for (index, line) in lines_of(&self.text).enumerate() {
            let content = trimmed(&self.text, line.clone());
            let decoded = self
                .encoding
                .decode_without_bom_handling(&self.text[content]);
            let extent = parse_extent_line(&decoded.0)
                .map_err(|what| Error::corrupt(format!("descriptor line {}", index + 1), what))?;
            if let Some(extent) = extent {
                n_lost_names += u64::from(decoded.1);
                self.extents.push(extent);
                self.extent_lines.push(line);
            } else if !is_key_or_comment(&decoded.0) {
                let odd = format!("descriptor line {} is not understood", index + 1);
                self.oddities.push(odd);
            }
        }
        if n_lost_names > 0 {
            let encoding = self.encoding.name();
            self.oddities.push(format!(
                "{n_lost_names} file names are not valid in encoding {encoding}"
            ));
        }
        Ok(())
    }

    fn note_oddities(&mut self) {
        let mut seen = HashSet::new();
        for entry in &self.entries {
            if !seen.insert(entry.key.as_str()) {
                self.oddities.push(format!(
                    "key {:?} is there twice; the first counts",
                    entry.key
                ));
            }
        }
        if self.known_version().is_none() {
            let version = self.value("version").unwrap_or_else(|| "none".to_owned());
            self.oddities
                .push(format!("descriptor version {version} (1 to 3 are known)"));
        }
        if self.content_id().is_none() {
            self.oddities
                .push("the descriptor has no valid CID".to_owned());
        }
        let no_parent = matches!(self.parent_content_id(), Ok(None));
        if no_parent && self.value("parentfilenamehint").is_some() {
            self.oddities
                .push("parentFileNameHint is there, but parentCID says no parent".to_owned());
        }
    }
}

fn is_key_or_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with('#') || line.contains('=')
}

/// Returns whether a file that begins with `head` is a descriptor.
pub fn looks_like_descriptor(head: &[u8]) -> bool {
    let head = &head[..head.len().min(8192)];
    let head = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    if head
        .get(..FIRST_LINE.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(FIRST_LINE))
    {
        return true;
    }
    let keys: HashSet<String> = entries_of(head)
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    let has = |key: &str| keys.contains(key);
    has("createtype") && (has("cid") || has("version")) || has("cid") && has("parentcid")
}

/// Returns the 32-bit number of `text`: up to eight hexadecimal digits, with or without `0x`.
fn parse_content_id(text: &str) -> Option<u32> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    valid
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Returns the byte ranges of the lines, endings (LF, CR LF, CR) included.
fn lines_of(text: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let len = match rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            Some(at) if rest[at] == b'\r' && rest.get(at + 1) == Some(&b'\n') => at + 2,
            Some(at) => at + 1,
            None => rest.len(),
        };
        let line = start..start + len;
        start = line.end;
        Some(line)
    })
}

/// Returns the line without blanks around it and without a byte order mark.
fn trimmed(text: &[u8], line: Range<usize>) -> Range<usize> {
    let mut start = line.start;
    if start == 0 && text.starts_with(BOM) {
        start = BOM.len().min(line.end);
    }
    let bytes = &text[start..line.end];
    let from = bytes.len() - bytes.trim_ascii_start().len();
    let len = bytes.trim_ascii().len();
    start + from..start + from + len
}

/// Returns the `key = value` lines.
fn entries_of(text: &[u8]) -> Vec<Entry> {
    lines_of(text)
        .filter_map(|line| entry_of(text, line))
        .collect()
}

fn entry_of(text: &[u8], line: Range<usize>) -> Option<Entry> {
    let content = trimmed(text, line.clone());
    let bytes = &text[content.clone()];
    if bytes.starts_with(b"#") {
        return None;
    }
    let equals = bytes.iter().position(|byte| *byte == b'=')?;
    let key = bytes[..equals].trim_ascii();
    // A key is one word; `RW 5 FLAT "a=b"` is none.
    if key.is_empty() || key.iter().any(|byte| byte.is_ascii_whitespace()) {
        return None;
    }
    let after = content.start + equals + 1;
    let mut value = trimmed(text, after..content.end);
    if text.get(value.start) == Some(&b'"') && !value.is_empty() {
        let quoted = &text[value.start + 1..value.end];
        let len = quoted.iter().position(|byte| *byte == b'"');
        value = value.start + 1..value.start + 1 + len.unwrap_or(quoted.len());
    }
    let value = trimmed(text, value);
    Some(Entry {
        key: String::from_utf8_lossy(key).to_lowercase(),
        line,
        value,
    })
}
