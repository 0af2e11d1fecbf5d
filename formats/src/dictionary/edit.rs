//! Changes of a dictionary that leave every byte alone that they are not about.

use encoding_rs::{Encoding, UTF_8};
use hako_block::{Error, Result};

use super::line::{Line, escaped, is_key};
use super::{Dictionary, ENCODING, MAX_BYTES, MAX_LINES};
use crate::code_page;

/// Longest key that is written, in bytes.
const MAX_KEY: usize = 1024;

impl Dictionary {
    /// Gives a key a value. One that is there keeps its line, and if it is there several times,
    /// the first line stays alone, so that all readers agree. A new one comes behind the last line
    /// of the same device. The first letter beyond ASCII in a text that names no code page brings
    /// the line that names it.
    ///
    /// Errors: [`hako_block::ErrorKind::Invalid`] for what is no key, for a value that the text's
    /// code page does not have or that has a NUL, and for a text that becomes too long.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        let encoding = match key.eq_ignore_ascii_case(ENCODING) {
            true => self.other_encoding(value)?,
            false => self.encoding,
        };
        let bytes = escaped(&self.encoded(key, value)?);
        let n_more = key.len() + bytes.len() + 64;
        if self.len() + n_more > MAX_BYTES || self.lines.len() + 2 > MAX_LINES {
            return Err(Error::invalid(format!("the value of {key} is too long")));
        }
        let is_told = self.has_bom || self.line_of(ENCODING).is_some();
        if !value.is_ascii() && !is_told && self.encoding == UTF_8 {
            self.insert(ENCODING, b"UTF-8");
        }
        match self.line_of(key) {
            Some(index) => self.change(index, value, &bytes),
            None => self.insert(key, &bytes),
        }
        self.encoding = encoding;
        self.keep_encoding();
        Ok(())
    }

    /// Removes every line of a key, and returns whether there was one. The key `.encoding` stays:
    /// without it the others would be read otherwise.
    pub fn remove(&mut self, key: &str) -> bool {
        self.remove_where(|other| other.eq_ignore_ascii_case(key)) > 0
    }

    /// Removes every line of a device, `ethernet0.…`, and returns how many there were.
    pub fn remove_tree(&mut self, prefix: &str) -> usize {
        self.remove_where(|key| is_below(key, prefix))
    }

    /// Gives keys other names, those for which `new_key` has one; all else stays.
    pub(crate) fn rename_keys(&mut self, new_key: impl Fn(&str) -> Option<String>) {
        for line in &mut self.lines {
            let key = line.entry().and_then(|entry| new_key(&entry.key));
            if let Some(key) = key {
                line.set_key(&key);
            }
        }
        self.index();
    }

    fn remove_where(&mut self, matches: impl Fn(&str) -> bool) -> usize {
        let before = self.lines.len();
        self.lines.retain(|line| {
            let key = line.entry().map_or("", |entry| entry.key.as_str());
            key.is_empty() || key.eq_ignore_ascii_case(ENCODING) || !matches(key)
        });
        let n_removed = before - self.lines.len();
        if n_removed > 0 {
            self.index();
            self.keep_encoding();
        }
        n_removed
    }

    /// Names the code page where the text would be taken for UTF-8 from now on, and is not.
    fn keep_encoding(&mut self) {
        let is_told = self.has_bom || self.line_of(ENCODING).is_some();
        let is_like_utf8 = || self.values_are(|value| std::str::from_utf8(value).is_ok());
        let is_guessed = !is_told && self.encoding != UTF_8;
        if is_guessed && is_like_utf8() && !self.values_are(<[u8]>::is_ascii) {
            self.insert(ENCODING, self.encoding.name().as_bytes());
        }
    }

    /// Gives the key of a line another value, and removes the other lines of that key.
    fn change(&mut self, index: usize, value: &str, bytes: &[u8]) {
        let Some(entry) = self.lines.get(index).and_then(Line::entry) else {
            return;
        };
        let (key, is_strict) = (entry.key.clone(), entry.is_strict);
        if !is_strict || self.value(&key).as_deref() != Some(value) {
            self.lines[index].set_value(bytes);
        }
        let others = self.lines_of.get(&key.to_ascii_lowercase());
        let others: Vec<usize> = others.map_or(Vec::new(), |lines| lines[1..].to_vec());
        if others.is_empty() {
            return;
        }
        for other in others.into_iter().rev() {
            self.lines.remove(other);
        }
        self.index();
    }

    fn insert(&mut self, key: &str, value: &[u8]) {
        let index = self.place(key);
        let before = index.checked_sub(1).and_then(|at| self.lines.get(at));
        let is_open = before.is_some_and(Line::is_open);
        let models = before.into_iter().chain(self.lines.first());
        let mut endings = models.filter(|line| !line.is_open()).map(Line::ending);
        let ending = endings.next().unwrap_or(b"\n").to_vec();
        if is_open {
            // The last line has no ending; the new last line gets none either.
            self.lines[index - 1].close(&ending);
        }
        let line = Line::new(key, value, if is_open { b"" } else { &ending });
        if index == self.lines.len() {
            // A text that grows is not looked through for each line.
            let lines = self.lines_of.entry(key.to_ascii_lowercase());
            lines.or_default().push(index);
            self.lines.push(line);
        } else {
            self.lines.insert(index, line);
            self.index();
        }
    }

    /// Returns where a line for a new key goes.
    fn place(&self, key: &str) -> usize {
        if key == ENCODING {
            let script = self.lines.first();
            return usize::from(script.is_some_and(|line| line.bytes().starts_with(b"#!")));
        }
        let behind = |matches: &dyn Fn(&str) -> bool| {
            let lines = self.entries_of_lines();
            let last = lines.filter(|(_, entry)| matches(&entry.key)).last();
            last.map(|(index, _)| index + 1)
        };
        let prefix = key.split_once('.').map(|(prefix, _)| prefix);
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        let of_device = prefix.and_then(|prefix| behind(&|key| is_below(key, prefix)));
        let controller = prefix.and_then(|prefix| prefix.split_once(':'));
        let of_controller = || {
            let (name, _) = controller?;
            behind(&|key| {
                let start = key.get(..name.len());
                let is_same = start.is_some_and(|start| start.eq_ignore_ascii_case(name));
                is_same && key[name.len()..].starts_with(['.', ':'])
            })
        };
        of_device.or_else(of_controller).unwrap_or(self.lines.len())
    }

    /// Returns a value in the text's code page, without escapes.
    fn encoded(&self, key: &str, value: &str) -> Result<Vec<u8>> {
        if value.contains('\0') {
            return Err(Error::invalid(format!("the value of {key} has a NUL")));
        }
        if value.is_ascii() {
            return Ok(value.as_bytes().to_vec());
        }
        let label = self.value(ENCODING);
        if let Some(label) = label.filter(|label| code_page::named(label).is_none()) {
            return Err(Error::invalid(format!(
                "the value of {key} has letters beyond ASCII, and the text's encoding, \
                 {label:?}, is not known"
            ))
            .hint("use letters of ASCII"));
        }
        let (bytes, _, is_lossy) = self.encoding.encode(value);
        if is_lossy || self.decode(&bytes).0 != value {
            let name = self.encoding.name();
            let what = format!("the value of {key}, {value:?}, cannot be written in {name}");
            let hint = format!("the text's .encoding is {name}: use letters that it has");
            return Err(Error::invalid(what).hint(hint));
        }
        Ok(bytes.into_owned())
    }

    /// Refuses another code page for values that have been read with one.
    fn other_encoding(&self, label: &str) -> Result<&'static Encoding> {
        let Some(encoding) = code_page::named(label) else {
            return Err(Error::invalid(format!("encoding {label:?} is not known")));
        };
        let is_free = !self.has_bom && self.values_are(<[u8]>::is_ascii);
        if encoding != self.encoding && !is_free {
            let what =
                format!("another .encoding, {label:?}, would make other letters of the text");
            return Err(Error::invalid(what));
        }
        Ok(encoding)
    }
}

/// Returns whether a key is `PREFIX.…`, in any case.
fn is_below(key: &str, prefix: &str) -> bool {
    let start = key.get(..prefix.len());
    let is_same = start.is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is_same && key[prefix.len()..].starts_with('.')
}

fn check_key(key: &str) -> Result<()> {
    let is_key = (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(is_key);
    if is_key {
        return Ok(());
    }
    let key: String = key.chars().take(60).collect();
    Err(Error::invalid(format!("{key:?} is no key"))
        .hint("a key is one word of ASCII without = # and quotes"))
}
