//! The members of a tar and where they lie: header after header, long names and pax records taken
//! in, nothing but regular files let through.

use std::ops::Range;
use std::path::{Component, Path};

use hako_block::{Error, Result, Storage};

use super::header::{BLOCK_BYTES, Header, Kind};

/// A file in an OVA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name: parts between `/`, none of them empty, `.` or `..`.
    pub name: String,
    /// Where its bytes lie in the tar.
    pub range: Range<u64>,
}

/// Most members: an OVA has a dozen, and one in chunks some thousands.
const MAX_MEMBERS: usize = 1 << 16;
/// Most headers of any kind.
const MAX_HEADERS: usize = 1 << 18;
/// Longest name.
const MAX_NAME_BYTES: usize = 1024;
/// Most bytes of a long name or of pax records.
const MAX_EXTRA_BYTES: u64 = 1 << 16;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// What was found in a tar.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The files, in the order they lie.
    pub(super) members: Vec<Member>,
    /// Whether a block of zeros ended it.
    pub(super) ended: bool,
}

/// Walks over all headers. Errors name the byte.
pub(super) fn find(storage: &dyn Storage) -> Result<Found> {
    let mut members = Members::new(storage);
    let mut found = Found::default();
    while let Some(member) = members.next()? {
        found.members.push(member);
    }
    found.ended = members.position() < storage.len_bytes()?;
    Ok(found)
}

/// Walks over the members of a tar, which may still be growing: nothing is looked at before it is
/// asked for.
pub struct Members<'a> {
    walk: Walk<'a>,
    n_headers: usize,
    n_members: usize,
}

impl<'a> Members<'a> {
    /// Begins at the start of `storage`.
    pub fn new(storage: &'a dyn Storage) -> Self {
        Self {
            walk: Walk {
                storage,
                len: 0,
                position: 0,
                next: Extra::default(),
            },
            n_headers: 0,
            n_members: 0,
        }
    }

    /// Returns where the next header is; it is looked at next.
    pub fn position(&self) -> u64 {
        self.walk.position
    }

    /// Looks at the next header. `None`: the end. Errors name the byte.
    pub fn next_header(&mut self) -> Result<Option<Next>> {
        let too_many = || {
            Err(Error::unsupported(format!(
                "has more than {MAX_MEMBERS} files: no OVA has"
            )))
        };
        if self.n_headers == MAX_HEADERS {
            return too_many();
        }
        self.n_headers += 1;
        self.walk.len = self.walk.storage.len_bytes()?;
        let at = self.walk.position;
        let taken = match self.walk.header() {
            Ok(None) => return Ok(None),
            Ok(Some(header)) => self.walk.take(header),
            Err(error) => Err(error),
        };
        match taken.map_err(|error| error.at_byte(at))? {
            None => Ok(Some(Next::Other)),
            Some(_) if self.n_members == MAX_MEMBERS => too_many(),
            Some(member) => {
                self.n_members += 1;
                Ok(Some(Next::Member(member)))
            }
        }
    }

    /// Returns the next member. `None`: the end. Errors name the byte.
    fn next(&mut self) -> Result<Option<Member>> {
        loop {
            match self.next_header()? {
                None => return Ok(None),
                Some(Next::Member(member)) => return Ok(Some(member)),
                Some(Next::Other) => {}
            }
        }
    }
}

/// What a header turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A file.
    Member(Member),
    /// Something that tells of the next one, or is passed over.
    Other,
}

/// What long names and pax records say of the next member.
#[derive(Default)]
struct Extra {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

struct Walk<'a> {
    storage: &'a dyn Storage,
    len: u64,
    position: u64,
    next: Extra,
}

impl Walk<'_> {
    /// Reads the next header. `None`: the end, by zeros or because there is no more.
    fn header(&self) -> Result<Option<Header>> {
        if self.position == self.len {
            return Ok(None);
        }
        if self.len - self.position < BLOCK {
            return Err(truncated("it ends in the middle of a header"));
        }
        let mut block = [0; BLOCK_BYTES];
        self.storage.read_at(self.position, &mut block)?;
        Header::decode(&block)
    }

    /// Takes in a header and steps over what follows it.
    fn take(&mut self, header: Header) -> Result<Option<Member>> {
        let start = self.position + BLOCK;
        match header.kind {
            Kind::LongName => {
                self.next.name = Some(long_name(self.extra(start, header.size)?));
                return Ok(None);
            }
            Kind::Pax => {
                let records = self.extra(start, header.size)?;
                self.next.add(&records)?;
                return Ok(None);
            }
            Kind::LongLink => return self.extra(start, header.size).map(|_| None),
            Kind::PaxGlobal => {
                let mut all = Extra::default();
                all.add(&self.extra(start, header.size)?)?;
                // One name or size for all members would make one file of them.
                if all.name.is_some() || all.size.is_some() {
                    return Err(Error::corrupt(
                        "global pax header",
                        "gives every file the same name or size",
                    ));
                }
                return Ok(None);
            }
            Kind::File | Kind::Folder | Kind::Other(_) => {}
        }
        let extra = std::mem::take(&mut self.next);
        let bytes = extra.name.unwrap_or(header.name);
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        if let Kind::Other(what) = header.kind {
            return Err(Error::unsupported(format!(
                "{shown:?} is {what}: an OVA has only regular files"
            )));
        }
        let range = self.content(start, extra.size.unwrap_or(header.size), &shown)?;
        if header.kind == Kind::Folder {
            if range.start != range.end {
                return Err(Error::corrupt(
                    format!("folder {shown:?}"),
                    "a folder has content",
                ));
            }
            return Ok(None);
        }
        let name = plain_name(&bytes)?;
        Ok((!is_apple_double(&name)).then_some(Member { name, range }))
    }

    /// Returns the range of a member's content, and steps over it and its padding.
    fn content(&mut self, start: u64, size: u64, name: &str) -> Result<Range<u64>> {
        let end = start
            .checked_add(size)
            .filter(|end| *end <= self.len)
            .ok_or_else(|| {
                truncated(&format!(
                    "{name:?} has {size} bytes, but only {} follow",
                    self.len.saturating_sub(start)
                ))
            })?;
        // Where the last padding is missing the tar is cut, but nothing of the file is.
        let padded = end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        self.position = padded.min(self.len);
        Ok(start..end)
    }

    /// Reads the content of a header that describes the next one.
    fn extra(&mut self, start: u64, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTRA_BYTES {
            return Err(Error::corrupt(
                "tar header",
                format!("a name or pax records of {size} bytes (at most {MAX_EXTRA_BYTES})"),
            ));
        }
        let range = self.content(start, size, "the description of the next file")?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.storage.read_at(range.start, &mut bytes)?;
        Ok(bytes)
    }
}

impl Extra {
    /// Takes in pax records: `LENGTH KEY=VALUE\n`, the length in decimal digits and of it all.
    fn add(&mut self, records: &[u8]) -> Result<()> {
        let wrong = || Error::corrupt("pax header", "a record is not LENGTH KEY=VALUE");
        let mut rest = records;
        // Some writers pad with zeros.
        while rest.first().is_some_and(|byte| *byte != 0) {
            let blank = rest
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or_else(wrong)?;
            let len = decimal(&rest[..blank]).and_then(|len| usize::try_from(len).ok());
            let (record, tail) = len
                .filter(|len| *len > blank + 1)
                .and_then(|len| rest.split_at_checked(len))
                .ok_or_else(wrong)?;
            rest = tail;
            let record = record[blank + 1..].strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(wrong)?;
            self.add_one(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn add_one(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"size" => {
                let size = decimal(value)
                    .ok_or_else(|| Error::corrupt("pax header", "the size is no number"))?;
                self.size = Some(size);
            }
            _ if key.starts_with(b"GNU.sparse") => {
                return Err(Error::unsupported(
                    "a file is stored with holes (GNU sparse): an OVA has only plain files",
                ));
            }
            // Times, owners, comments: nothing that an OVA needs.
            _ => {}
        }
        Ok(())
    }
}

fn truncated(what: &str) -> Error {
    Error::corrupt("tar", format!("is truncated: {what}"))
}

fn long_name(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    bytes
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Returns a member's name without `.` and empty parts. Refuses what leads out of its folder.
fn plain_name(bytes: &[u8]) -> Result<String> {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let refused = |why: &str| {
        Err(Error::corrupt(
            format!("the name {shown:?}"),
            why.to_owned(),
        ))
    };
    if bytes.len() > MAX_NAME_BYTES {
        let what = format!("has {} bytes: too many for a name", bytes.len());
        return Err(Error::corrupt("a name", what));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return refused("is not UTF-8");
    };
    if text.contains(['\0', '\\']) || text.chars().any(char::is_control) {
        return refused("has characters that no file of an OVA has");
    }
    let mut parts = Vec::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::CurDir => {}
            Component::ParentDir => return refused("leads out of its folder by `..`"),
            Component::RootDir | Component::Prefix(_) => return refused("is an absolute path"),
        }
    }
    if parts.is_empty() {
        return refused("names no file");
    }
    Ok(parts.join("/"))
}

/// Returns whether a file is what a Mac keeps beside one of that name ("AppleDouble").
fn is_apple_double(name: &str) -> bool {
    name.rsplit('/')
        .next()
        .is_some_and(|last| last.starts_with("._"))
}
