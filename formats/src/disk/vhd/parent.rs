//! How a differencing disk names its parent: up to eight locators of several kinds, and the plain
//! file name in the header (Virtual Hard Disk Image Format Specification 1.0, "Parent Locator
//! Entries").
//!
//! | code | what it is |
//! |---|---|
//! | W2ru, W2ku | path relative to this disk, absolute path; UTF-16LE |
//! | Wi2r, Wi2k | the same in the system's 8-bit character set |
//! | MacX | file URL, UTF-8 |
//! | Mac  | alias record: cannot be read elsewhere than on a Mac |

use encoding_rs::WINDOWS_1252;
use hako_block::{Error, ParentLink, Result, Storage};

use super::header::{Header, Locator};

/// Relative path, UTF-16LE.
const W2RU: &[u8; 4] = b"W2ru";
/// Absolute path, UTF-16LE.
const W2KU: &[u8; 4] = b"W2ku";
/// Relative path, 8 bits a letter.
const WI2R: &[u8; 4] = b"Wi2r";
/// Absolute path, 8 bits a letter.
const WI2K: &[u8; 4] = b"Wi2k";
/// File URL.
const MACX: &[u8; 4] = b"MacX";
/// Longest name read: the longest path of Windows, in bytes.
const MAX_NAME_BYTES: u32 = 2 * 32768;
/// The order in which to believe them: what stays true when a folder moves comes first.
const ORDER: [&[u8; 4]; 5] = [W2RU, WI2R, W2KU, WI2K, MACX];

/// What is known of a parent's names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ParentNames {
    /// As they are recorded, each with its kind ("W2ru", or "name" for the one in the header).
    pub recorded: Vec<(String, String)>,
    /// What to open, the best guess first.
    pub guesses: Vec<String>,
    /// Locators that cannot be read, one sentence each.
    pub oddities: Vec<String>,
}

impl ParentNames {
    /// Reads all names of the parent.
    pub fn read(storage: &dyn Storage, header: &Header) -> Result<Self> {
        let file_len = storage.len_bytes()?;
        let mut names = Self::default();
        for code in ORDER {
            for locator in header.locators.iter().filter(|it| it.code == *code) {
                let end = locator.offset.checked_add(u64::from(locator.len));
                if locator.len > MAX_NAME_BYTES || end.is_none_or(|end| end > file_len) {
                    names.oddities.push(format!(
                        "parent locator {}: {} bytes at {:#x} are not in the file",
                        text_of(code),
                        locator.len,
                        locator.offset
                    ));
                    continue;
                }
                let mut bytes = vec![0; locator.len as usize];
                storage.read_at(locator.offset, &mut bytes)?;
                names.add(code, &decode(code, &bytes));
            }
        }
        names.add(b"name", &header.parent_name);
        let beside: Vec<_> = names.guesses.iter().map(|name| last_part(name)).collect();
        beside.into_iter().for_each(|name| names.guess(name));
        Ok(names)
    }

    /// Returns how to find the parent, which must have the identity in the header.
    pub fn link(&self, header: &Header) -> ParentLink {
        let mut guesses = self.guesses.iter().cloned();
        ParentLink {
            name: guesses.next().unwrap_or_default(),
            other_names: guesses.collect(),
            format: Some("vhd".to_owned()),
            identity: Some(header.parent_uuid),
            ..ParentLink::default()
        }
    }

    fn add(&mut self, code: &[u8; 4], name: &str) {
        if name.is_empty() {
            return;
        }
        self.recorded.push((text_of(code), name.to_owned()));
        let guess = match code {
            MACX => url_path(name),
            _ if is_absolute_on_windows(name) || name.starts_with('/') => Some(name.to_owned()),
            _ => Some(from_windows(name)),
        };
        if let Some(guess) = guess {
            self.guess(guess);
        }
    }

    fn guess(&mut self, name: String) {
        if !name.is_empty() && !self.guesses.contains(&name) {
            self.guesses.push(name);
        }
    }
}

/// Names of a parent as they are to be stored.
#[derive(Debug, PartialEq, Eq)]
pub struct NewNames {
    /// The file name, for the header.
    pub plain: String,
    code: [u8; 4],
    bytes: Vec<u8>,
}

impl NewNames {
    /// Prepares to record a parent by the name that an overlay gives it. Errors: it is not known
    /// which disk it is, it is no VHD, or Windows' paths cannot express the name.
    pub fn of(parent: &ParentLink) -> Result<Self> {
        if parent.format.as_deref().is_some_and(|name| name != "vhd") {
            return Err(Error::unsupported(
                "the parent of a differencing VHD must be a VHD",
            ));
        }
        if parent.identity.is_none() {
            return Err(Error::invalid("the parent's unique ID is not known"));
        }
        let name = parent.name.as_str();
        if name.contains(['\\', '\0']) || name.is_empty() {
            return Err(Error::invalid(format!(
                "a VHD cannot record a parent named {name:?}"
            )));
        }
        let (code, path) = if name.starts_with('/') {
            (*W2KU, name.to_owned())
        } else if name.starts_with("../") {
            (*W2RU, name.replace('/', "\\"))
        } else {
            let name = name.trim_start_matches("./");
            (*W2RU, format!(".\\{}", name.replace('/', "\\")))
        };
        Ok(Self {
            plain: last_part(name),
            code,
            bytes: path.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        })
    }

    /// Returns the bytes to store, whole sectors.
    pub fn sectors(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    /// Returns the locator of names that are stored at `offset`.
    pub fn locator(&self, offset: u64) -> Locator {
        Locator {
            code: self.code,
            space: self.sectors().len() as u32,
            len: self.bytes.len() as u32,
            offset,
        }
    }
}

fn decode(code: &[u8; 4], bytes: &[u8]) -> String {
    let text = match code {
        W2RU | W2KU => {
            let units = bytes
                .chunks_exact(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            String::from_utf16_lossy(&units.collect::<Vec<_>>())
        }
        WI2R | WI2K => WINDOWS_1252.decode_without_bom_handling(bytes).0.into(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    let end = text.find('\0').unwrap_or(text.len());
    text[..end].to_owned()
}

fn text_of(code: &[u8; 4]) -> String {
    String::from_utf8_lossy(code).trim_end().to_owned()
}

/// Returns whether a path begins at a drive or a server.
fn is_absolute_on_windows(path: &str) -> bool {
    let letters = path.as_bytes();
    path.starts_with('\\')
        || (letters.first().is_some_and(u8::is_ascii_alphabetic) && letters.get(1) == Some(&b':'))
}

/// Returns a relative path of Windows as one of ours.
fn from_windows(path: &str) -> String {
    let path = path.replace('\\', "/");
    let mut rest = path.as_str();
    while let Some(shorter) = rest.strip_prefix("./") {
        rest = shorter;
    }
    rest.to_owned()
}

fn last_part(path: &str) -> String {
    path.rsplit(['\\', '/']).next().unwrap_or(path).to_owned()
}

/// Returns the path in a file URL.
fn url_path(url: &str) -> Option<String> {
    let rest = url.strip_prefix("file://")?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest).as_bytes();
    let mut bytes = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        let digits = path.get(at + 1..at + 3).unwrap_or(&[]);
        let escaped = std::str::from_utf8(digits)
            .ok()
            .filter(|_| *byte == b'%' && digits.len() == 2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::{MemoryStorage, Uuid};

    fn header_with(names: &[(&[u8; 4], Vec<u8>)]) -> (MemoryStorage, Header) {
        let mut file = vec![0; 512];
        let mut header = Header::new(512, 1, 21);
        for (index, (code, bytes)) in names.iter().enumerate() {
            header.locators[index] = Locator {
                code: **code,
                space: 512,
                len: bytes.len() as u32,
                offset: file.len() as u64,
            };
            file.extend_from_slice(bytes);
        }
        (MemoryStorage::new("f", file), header)
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn every_kind_of_locator_is_read_the_best_guess_first() {
        let (storage, mut header) = header_with(&[
            (
                b"MacX",
                b"file://localhost/Volumes/My%20Disk/x.vhd".to_vec(),
            ),
            (W2KU, utf16("C:\\VMs\\base disk.vhd")),
            (WI2R, b".\\old\\B\xe4r.vhd".to_vec()),
            (W2RU, utf16(".\\..\\p\\base.vhd\0")),
            (b"Mac ", vec![1, 2, 3]),
        ]);
        header.parent_name = "base.vhd".to_owned();
        let names = ParentNames::read(&storage, &header).unwrap();
        assert_eq!(
            names.guesses,
            [
                "../p/base.vhd",
                "old/Bär.vhd",
                "C:\\VMs\\base disk.vhd",
                "/Volumes/My Disk/x.vhd",
                "base.vhd",
                "Bär.vhd",
                "base disk.vhd",
                "x.vhd",
            ]
        );
        assert_eq!(names.recorded.len(), 5);
        let link = names.link(&header);
        assert_eq!(link.name, "../p/base.vhd");
        assert_eq!(link.other_names.len(), 7);
    }

    #[test]
    fn locators_that_lead_out_of_the_file_are_told_and_left() {
        let (storage, mut header) = header_with(&[(W2KU, utf16("p.vhd"))]);
        for (offset, len) in [(u64::MAX, 10), (510, 1000), (0, u32::MAX)] {
            header.locators[0].offset = offset;
            header.locators[0].len = len;
            let names = ParentNames::read(&storage, &header).unwrap();
            assert!(names.guesses.is_empty());
            assert_eq!(names.oddities.len(), 1);
        }
    }

    #[test]
    fn a_name_that_is_recorded_is_found_again() {
        for name in ["base.vhd", "sub/base.vhd", "../base.vhd", "/a/b/base.vhd"] {
            let parent = ParentLink {
                name: name.to_owned(),
                identity: Some(Uuid([7; 16])),
                ..ParentLink::default()
            };
            let new = NewNames::of(&parent).unwrap();
            assert_eq!(new.plain, "base.vhd");
            let mut header = Header::new(512, 1, 21);
            header.locators[0] = new.locator(512);
            let file = [vec![0; 512], new.sectors()].concat();
            let names = ParentNames::read(&MemoryStorage::new("f", file), &header).unwrap();
            assert_eq!(names.guesses[0], name);
        }
        let bad = ParentLink {
            name: "a\\b".to_owned(),
            identity: Some(Uuid([7; 16])),
            ..ParentLink::default()
        };
        assert!(NewNames::of(&bad).is_err());
    }
}
