//! A small tree of an XML text that nobody trusts: namespaces resolved, no DTD, no entity but the
//! five of XML itself, everything counted. The text may be UTF-8, UTF-16 or what it declares.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use hako_block::{Error, Result};
use quick_xml::Reader;
use quick_xml::errors::Error as XmlError;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};

use super::names::Space;
use crate::xml_text::is_xml_char;

/// Longest text, in bytes. The largest appliances' envelopes have some hundred KiB.
pub const MAX_BYTES: usize = 16 << 20;
/// Most elements in a text; VMware's largest appliances have some thousands.
const MAX_ELEMENTS: usize = 50_000;
/// Deepest nesting. OVF itself needs seven, and one more for each collection in a collection.
const MAX_DEPTH: usize = 64;
/// Most attributes of an element, and most prefixes bound at a time.
const MAX_ATTRIBUTES: usize = 64;

/// An element with what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The namespace that its prefix stands for.
    pub space: Space,
    /// Its name without the prefix.
    pub name: String,
    /// Its attributes without the declarations of namespaces.
    pub attributes: Vec<Attribute>,
    /// The elements in it.
    pub children: Vec<Element>,
    /// The text in it, without that of its children.
    pub text: String,
    /// The line it begins on, from 1.
    pub line: u32,
}

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The namespace that its prefix stands for; without a prefix it has none.
    pub space: Space,
    /// Its name without the prefix.
    pub name: String,
    /// Its value, unescaped.
    pub value: String,
}

impl Element {
    /// Returns the value of an attribute of `space`, or of one without a namespace.
    pub fn attribute(&self, space: Space, name: &str) -> Option<&str> {
        let named = |wanted: Space| {
            self.attributes
                .iter()
                .find(|attribute| attribute.space == wanted && attribute.name == name)
        };
        let found = named(space).or_else(|| named(Space::None))?;
        Some(&found.value)
    }

    /// Returns the children that are called `name`, of whatever namespace.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Returns the text of the first child that is called `name`, without blanks around it.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        let child = self.children.iter().find(|child| child.name == name)?;
        Some(child.text.trim())
    }
}

/// Reads a text into its root element. Errors: [`hako_block::ErrorKind::Corrupt`] with the line for
/// what is no well-formed XML; [`hako_block::ErrorKind::Unsupported`] for a DTD, an encoding that
/// is not known, or more than the limits.
pub fn parse(bytes: &[u8]) -> Result<Element> {
    if bytes.len() > MAX_BYTES {
        return Err(too_much(&format!("it is longer than {MAX_BYTES} bytes")));
    }
    let text = decode(bytes)?;
    if let Some(position) = text.find(|char| !is_xml_char(char)) {
        return Err(Error::corrupt(
            line_name(line_at(&text, position)),
            "has a character that XML forbids",
        ));
    }
    Builder::new(&text).build()
}

/// Turns the bytes into text by their byte order mark, or what they declare, or as UTF-8.
fn decode(bytes: &[u8]) -> Result<String> {
    let (encoding, skip) = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Err(unknown_encoding("UTF-32")),
        _ => match Encoding::for_bom(bytes) {
            Some(found) => found,
            None if bytes.starts_with(b"<\0") => (UTF_16LE, 0),
            None if bytes.starts_with(b"\0<") => (UTF_16BE, 0),
            None => (declared_encoding(bytes)?, 0),
        },
    };
    let body = bytes.get(skip..).unwrap_or_default();
    let text = encoding
        .decode_without_bom_handling_and_without_replacement(body)
        .ok_or_else(|| {
            let valid = Encoding::utf8_valid_up_to(body);
            let error = Error::corrupt("text", format!("is not valid {}", encoding.name()));
            match encoding == UTF_8 {
                true => error.at_byte((skip + valid) as u64),
                false => error,
            }
        })?;
    Ok(text.into_owned())
}

/// Reads `encoding="…"` of the declaration that an 8-bit text begins with.
fn declared_encoding(bytes: &[u8]) -> Result<&'static Encoding> {
    let head = bytes.get(..256).unwrap_or(bytes);
    let declared = head
        .starts_with(b"<?xml")
        .then(|| String::from_utf8_lossy(head))
        .and_then(|head| {
            let declaration = head.split_once("?>")?.0.to_owned();
            let value = declaration.split_once("encoding")?.1.trim_start();
            let value = value.strip_prefix('=')?.trim_start();
            let quote = value
                .chars()
                .next()
                .filter(|quote| "\"'".contains(*quote))?;
            Some(value.get(1..)?.split_once(quote)?.0.to_owned())
        });
    let Some(label) = declared else {
        return Ok(UTF_8);
    };
    let encoding = Encoding::for_label(label.as_bytes()).ok_or_else(|| unknown_encoding(&label))?;
    if encoding == UTF_16LE || encoding == UTF_16BE {
        return Err(Error::corrupt(
            "declaration",
            format!("says {label}, but the text has one byte per character"),
        ));
    }
    Ok(encoding)
}

fn unknown_encoding(label: &str) -> Error {
    let label: String = label.chars().take(40).collect();
    Error::unsupported(format!("a text in the encoding {label:?} cannot be read"))
        .place("declaration")
        .hint("save it as UTF-8")
}

fn line_at(text: &str, position: usize) -> u32 {
    let head = text.as_bytes().get(..position).unwrap_or_default();
    let breaks = head.iter().filter(|byte| **byte == b'\n').count();
    u32::try_from(breaks).unwrap_or(u32::MAX).saturating_add(1)
}

fn line_name(line: u32) -> String {
    format!("line {line}")
}

fn too_much(what: &str) -> Error {
    Error::unsupported(format!("{what}: no envelope of a machine is like that"))
}

/// A prefix, the namespace it stands for, and how deep the element is that says so.
struct Binding {
    prefix: String,
    space: Space,
    depth: usize,
}

/// An attribute as it is written: its name with the prefix, its value unescaped.
type RawAttribute = (String, String);

/// The tree while it grows.
struct Builder<'t> {
    text: &'t str,
    reader: Reader<&'t [u8]>,
    /// Elements that are open, the root first.
    open: Vec<Element>,
    bindings: Vec<Binding>,
    root: Option<Element>,
    n_elements: usize,
    /// Where the lines were counted up to, and which line that is.
    counted: (usize, u32),
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            reader: Reader::from_str(text),
            open: Vec::new(),
            bindings: Vec::new(),
            root: None,
            n_elements: 0,
            counted: (0, 1),
        }
    }

    fn build(mut self) -> Result<Element> {
        loop {
            let line = self.line();
            let event = match self.reader.read_event() {
                Ok(event) => event,
                Err(error) => return Err(self.broken(&error)),
            };
            match event {
                Event::Start(tag) => self.start(&tag, line)?,
                Event::Empty(tag) => {
                    self.start(&tag, line)?;
                    self.end();
                }
                Event::End(_) => self.end(),
                Event::Text(text) => self.characters(&text, line)?,
                Event::CData(text) => self.characters(&text, line)?,
                Event::GeneralRef(name) => match resolve_predefined_entity(&name) {
                    Some(text) => self.characters(text, line)?,
                    None => self.characters(&resolve(&format!("&{};", &*name), line)?, line)?,
                },
                Event::DocType(_) => return Err(no_dtd(line)),
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        match (self.open.pop(), self.root) {
            (Some(element), _) => Err(Error::corrupt(
                line_name(element.line),
                format!("<{}> has no end", shorten(&element.name)),
            )),
            (None, Some(root)) => Ok(root),
            (None, None) => Err(Error::corrupt("text", "has no element at all")),
        }
    }

    /// Returns the line that the reader has come to.
    fn line(&mut self) -> u32 {
        let position = usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX);
        let (from, line) = self.counted;
        let passed = self.text.as_bytes().get(from..position).unwrap_or_default();
        let breaks = passed.iter().filter(|byte| **byte == b'\n').count();
        let line = line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
        self.counted = (position.max(from), line);
        line
    }

    fn broken(&self, error: &XmlError) -> Error {
        let position = usize::try_from(self.reader.error_position()).unwrap_or(usize::MAX);
        ill_formed(line_at(self.text, position), error)
    }

    fn start(&mut self, tag: &BytesStart<'_>, line: u32) -> Result<()> {
        self.n_elements += 1;
        if self.n_elements > MAX_ELEMENTS {
            return Err(too_much(&format!(
                "it has more than {MAX_ELEMENTS} elements"
            )));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_much(&format!(
                "it is nested more than {MAX_DEPTH} deep"
            )));
        }
        if self.open.is_empty() && self.root.is_some() {
            return Err(Error::corrupt(
                line_name(line),
                "has a second element after the whole",
            ));
        }
        let raw = raw_attributes(tag, line)?;
        self.bind(&raw)?;
        let (prefix, name) = split_name(tag.name().into_inner());
        let element = Element {
            space: self.space(prefix),
            name: name.to_owned(),
            attributes: self.attributes(raw, line)?,
            children: Vec::new(),
            text: String::new(),
            line,
        };
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self) {
        // The reader has checked that the names agree, so there is one.
        let Some(element) = self.open.pop() else {
            return;
        };
        let depth = self.open.len();
        self.bindings.retain(|binding| binding.depth < depth);
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
    }

    fn characters(&mut self, text: &str, line: u32) -> Result<()> {
        match self.open.last_mut() {
            Some(element) => element.text.push_str(&text.replace("\r\n", "\n")),
            None if text.trim().is_empty() => {}
            None => {
                return Err(Error::corrupt(
                    line_name(line),
                    "has text outside of its element",
                ));
            }
        }
        Ok(())
    }

    /// Notes which prefixes an element binds.
    fn bind(&mut self, raw: &[RawAttribute]) -> Result<()> {
        for (name, uri) in raw {
            let prefix = match split_name(name) {
                ("", "xmlns") => "",
                ("xmlns", prefix) => prefix,
                _ => continue,
            };
            if self.bindings.len() >= MAX_ATTRIBUTES {
                return Err(too_much(&format!(
                    "it binds more than {MAX_ATTRIBUTES} prefixes"
                )));
            }
            self.bindings.push(Binding {
                prefix: prefix.to_owned(),
                space: Space::of(uri),
                depth: self.open.len(),
            });
        }
        Ok(())
    }

    /// Returns what a prefix stands for. One that nothing binds is somebody else's: VMware's own
    /// products read such texts.
    fn space(&self, prefix: &str) -> Space {
        let bound = self
            .bindings
            .iter()
            .rev()
            .find(|binding| binding.prefix == prefix);
        match (prefix, bound) {
            (_, Some(binding)) => binding.space,
            ("", None) => Space::None,
            ("xml", None) => Space::Xml,
            _ => Space::Other,
        }
    }

    /// Resolves the prefixes of attributes, and leaves out those that bind prefixes.
    fn attributes(&self, raw: Vec<RawAttribute>, line: u32) -> Result<Vec<Attribute>> {
        let mut attributes: Vec<Attribute> = Vec::with_capacity(raw.len());
        for (name, value) in raw {
            let (prefix, local) = split_name(&name);
            let space = match (prefix, local) {
                ("", "xmlns") | ("xmlns", _) => continue,
                ("", _) => Space::None,
                (prefix, _) => self.space(prefix),
            };
            let same = |other: &Attribute| other.space == space && other.name == local;
            if space != Space::Other && attributes.iter().any(same) {
                return Err(Error::corrupt(
                    line_name(line),
                    format!("has the attribute {} twice", shorten(&name)),
                ));
            }
            attributes.push(Attribute {
                space,
                name: local.to_owned(),
                value,
            });
        }
        Ok(attributes)
    }
}

/// Returns the attributes of a tag as they are written.
fn raw_attributes(tag: &BytesStart<'_>, line: u32) -> Result<Vec<RawAttribute>> {
    let mut raw = Vec::new();
    for attribute in tag.attributes().with_checks(false) {
        let attribute = attribute.map_err(|error| ill_formed(line, &error))?;
        if raw.len() == MAX_ATTRIBUTES {
            let what = format!("an element has more than {MAX_ATTRIBUTES} attributes");
            return Err(too_much(&what));
        }
        // A line break in a value is a blank (XML 1.0, 3.3.3), unless it is written &#10;.
        let value = attribute.value.replace(['\t', '\n', '\r'], " ");
        raw.push((
            attribute.key.into_inner().to_owned(),
            resolve(&value, line)?,
        ));
    }
    Ok(raw)
}

/// Replaces references: to characters, and to the five entities of XML itself.
fn resolve(text: &str, line: u32) -> Result<String> {
    let resolved = unescape(text).map_err(|error| ill_formed(line, &error))?;
    match resolved.chars().all(is_xml_char) {
        true => Ok(resolved.into_owned()),
        false => Err(Error::corrupt(
            line_name(line),
            "refers to a character that XML forbids",
        )),
    }
}

fn split_name(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or(("", name))
}

fn ill_formed(line: u32, error: &impl std::fmt::Display) -> Error {
    let what = shorten(&error.to_string());
    Error::corrupt(line_name(line), format!("is no well-formed XML: {what}"))
}

fn no_dtd(line: u32) -> Error {
    Error::unsupported("a document type definition is not read: no envelope needs one")
        .place(line_name(line))
}

/// Names and values of a hostile text may be long.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(100).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
