//! LVM2's text: `key = value`, `section { … }`, `#` comments; values are numbers, strings in quotes
//! and lists of them.

use hako_block::{Error, Result};

/// How deep sections lie in each other: LVM writes four.
const DEEPEST: usize = 16;

/// What a key means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(i64),
    Text(String),
    List(Vec<Value>),
    Section(Section),
}

/// Keys and what they mean, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section(Vec<(String, Value)>);

impl Section {
    /// Reads a text.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let mut parser = Parser { text, at: 0 };
        let section = parser.section(0)?;
        match parser.peek() {
            None | Some(0) => Ok(section),
            Some(_) => Err(parser.wrong("a section ends that was not begun")),
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }

    pub(super) fn section(&self, key: &str) -> Option<&Section> {
        match self.value(key) {
            Some(Value::Section(section)) => Some(section),
            _ => None,
        }
    }

    /// Returns the sections in it with their names.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns a number that is not negative.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.value(key) {
            Some(Value::Number(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Returns a list; a single value is a list of one.
    pub(super) fn list(&self, key: &str) -> &[Value] {
        match self.value(key) {
            Some(Value::List(values)) => values,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        }
    }

    /// Returns all texts in it, alone or in lists.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let values = self.0.iter().flat_map(|(_, value)| match value {
            Value::List(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        });
        values.filter_map(|value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Returns whether a list has that text.
    pub(super) fn has(&self, key: &str, text: &str) -> bool {
        let is_it = |value: &Value| matches!(value, Value::Text(have) if have == text);
        self.list(key).iter().any(is_it)
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// Reads up to the brace that ends a section, or the end of the text.
    fn section(&mut self, depth: usize) -> Result<Section> {
        let mut section = Section::default();
        while let Some(byte) = self.peek().filter(|byte| !matches!(byte, b'}' | 0)) {
            let key = match byte {
                b'"' => self.quoted()?,
                _ => self.word()?,
            };
            let value = match self.peek() {
                Some(b'=') => {
                    self.at += 1;
                    self.value()?
                }
                Some(b'{') if depth < DEEPEST => {
                    self.at += 1;
                    let inner = self.section(depth + 1)?;
                    if self.peek() != Some(b'}') {
                        return Err(self.wrong("a section does not end"));
                    }
                    self.at += 1;
                    Value::Section(inner)
                }
                _ => return Err(self.wrong("neither a value nor a section follows a key")),
            };
            section.0.push((key, value));
        }
        Ok(section)
    }

    fn value(&mut self) -> Result<Value> {
        if self.peek() != Some(b'[') {
            return self.scalar();
        }
        self.at += 1;
        let mut values = Vec::new();
        loop {
            match self.peek() {
                Some(b']') => break,
                Some(b',') => self.at += 1,
                _ => values.push(self.scalar()?),
            }
        }
        self.at += 1;
        Ok(Value::List(values))
    }

    fn scalar(&mut self) -> Result<Value> {
        if self.peek() == Some(b'"') {
            return self.quoted().map(Value::Text);
        }
        let word = self.word()?;
        Ok(match word.parse() {
            Ok(number) => Value::Number(number),
            Err(_) => Value::Text(word),
        })
    }

    fn quoted(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    bytes.extend(self.text.get(self.at));
                }
                Some(byte) => bytes.push(*byte),
                None => return Err(self.wrong("a string does not end")),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn word(&mut self) -> Result<String> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"={}[],\"#\0".contains(byte);
        let len = rest.iter().position(ends).unwrap_or(rest.len());
        let word = rest.get(..len).filter(|word| !word.is_empty());
        let word = word.ok_or_else(|| self.wrong("a word is missing"))?;
        self.at += len;
        Ok(String::from_utf8_lossy(word).into_owned())
    }

    /// Returns the next byte that is neither blank nor in a comment.
    fn peek(&mut self) -> Option<u8> {
        let mut in_comment = false;
        loop {
            let byte = *self.text.get(self.at)?;
            match byte {
                b'\n' => in_comment = false,
                b'#' => in_comment = true,
                _ if in_comment || byte.is_ascii_whitespace() => {}
                _ => return Some(byte),
            }
            self.at += 1;
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::corrupt("LVM metadata", what).at_byte(self.at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_values_and_comments_are_read() {
        let text = b"# one\nvg {\n id = \"a\\\"b\" # two\n n=-5\n tags=[]\n l = [\"pv0\", 0,\n7]\n\
                     s { t { u = 1.5 } }\n}\nversion = 1\0";
        let text = Section::parse(text).unwrap();
        assert_eq!(text.number("version"), Some(1));
        let vg = text.section("vg").unwrap();
        assert_eq!(vg.text("id"), Some("a\"b"));
        assert_eq!((vg.number("n"), vg.list("tags").len()), (None, 0));
        assert!(vg.has("l", "pv0") && !vg.has("l", "7"));
        assert_eq!(vg.list("l")[2], Value::Number(7));
        let inner = vg.section("s").unwrap().section("t").unwrap();
        assert_eq!(inner.text("u"), Some("1.5"));
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let deep = "a {".repeat(100_000);
        for text in [
            "a", "a {", "a = ", "a = [1", "a = \"x", "}", "= 1", "a = [{", "a = \"\\", &deep,
        ] {
            assert!(Section::parse(text.as_bytes()).is_err(), "{text:.20}");
        }
    }
}
