//! The parent locator (MS-VHDX, section 2.6.2.6): where an overlay's parent may be, in the words
//! of Windows.

use hako_block::{ContentId, Error, ErrorKind, ParentLink, Result, Uuid};

use super::bytes::{guid_at, put, u16_at, u32_at};
use super::region::guid;

/// The only type of locator: that of VHDX.
const VHDX_LOCATOR: &str = "b04aefb7-d19e-4a81-b789-25b8e9445913";
const HEADER_BYTES: usize = 20;
const ENTRY_BYTES: usize = 12;
/// More keys than anybody writes.
const MAX_KEYS: usize = 64;
/// Longest path that Windows has, in UTF-16 units.
const MAX_VALUE_UNITS: usize = 32767;

/// The parent's data write GUID.
const LINKAGE: &str = "parent_linkage";
/// Another one that will do.
const LINKAGE_2: &str = "parent_linkage2";
const RELATIVE: &str = "relative_path";
const VOLUME: &str = "volume_path";
const ABSOLUTE: &str = "absolute_win32_path";

/// A parent locator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// Keys and values, in the order of the file.
    pub pairs: Vec<(String, String)>,
}

impl Locator {
    /// Decodes the metadata item. Pure.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let kind = guid_at(bytes, 0);
        if bytes.len() < HEADER_BYTES {
            return Err(corrupt(format!("{} bytes are too few", bytes.len())));
        }
        if kind != guid(VHDX_LOCATOR) {
            return Err(Error::unsupported(format!(
                "a parent locator of type {kind}, which hako does not know"
            )));
        }
        let n = usize::from(u16_at(bytes, 18));
        if n > MAX_KEYS {
            return Err(corrupt(format!("{n} keys")));
        }
        let text = |offset: u32, len: u16, entry: usize| {
            let start = offset as usize;
            bytes
                .get(start..start.saturating_add(usize::from(len)))
                .map(decode_utf16)
                .ok_or_else(|| corrupt(format!("entry {entry} reaches past the locator's end")))
        };
        let mut pairs = Vec::new();
        for index in 0..n {
            let at = HEADER_BYTES + index * ENTRY_BYTES;
            let key = text(u32_at(bytes, at), u16_at(bytes, at + 8), index)?;
            let value = text(u32_at(bytes, at + 4), u16_at(bytes, at + 10), index)?;
            pairs.push((key, value));
        }
        Ok(Self { pairs })
    }

    /// Returns its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES + self.pairs.len() * ENTRY_BYTES];
        put(&mut bytes, 0, &guid(VHDX_LOCATOR).to_mixed_endian());
        let n = self.pairs.len() as u16;
        put(&mut bytes, 18, &n.to_le_bytes());
        for (index, (key, value)) in self.pairs.iter().enumerate() {
            for (half, text) in [key, value].into_iter().enumerate() {
                let at = HEADER_BYTES + index * ENTRY_BYTES;
                let offset = bytes.len() as u32;
                let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                put(&mut bytes, at + 4 * half, &offset.to_le_bytes());
                put(
                    &mut bytes,
                    at + 8 + 2 * half,
                    &(units.len() as u16).to_le_bytes(),
                );
                bytes.extend(units);
            }
        }
        bytes
    }

    /// Returns the locator that an overlay on `link` has. Errors: a parent of another format, of
    /// unknown content, or with too long a name.
    pub fn of(link: &ParentLink) -> Result<Self> {
        if link
            .format
            .as_deref()
            .is_some_and(|format| format != "vhdx")
        {
            return Err(Error::unsupported(
                "the parent of a VHDX must be a VHDX: the format records no other",
            ));
        }
        let linkage = match link.content_id {
            Some(ContentId::Uuid(id)) => id,
            _ => {
                return Err(Error::unsupported(
                    "the parent has no data write GUID, which the overlay must record",
                ));
            }
        };
        if link.name.encode_utf16().count() > MAX_VALUE_UNITS - 2 || link.name.contains('\\') {
            return Err(Error::invalid(format!(
                "the name {:?} cannot be recorded in a VHDX",
                link.name
            )));
        }
        let name = link.name.replace('/', "\\");
        let path = if name.starts_with('\\') {
            (ABSOLUTE.to_owned(), name)
        } else {
            (RELATIVE.to_owned(), format!(".\\{name}"))
        };
        Ok(Self {
            pairs: vec![(LINKAGE.to_owned(), braced(linkage)), path],
        })
    }

    /// Returns the value of a key.
    fn value(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(name, _)| name == key);
        pair.map(|(_, value)| value.as_str())
    }

    /// Returns the parent: its names, the best guess first, and the content it must have. Errors:
    /// nothing that names it, or its content.
    pub fn link(&self) -> Result<ParentLink> {
        let mut ids = [LINKAGE, LINKAGE_2]
            .into_iter()
            .filter_map(|key| Uuid::parse(self.value(key)?))
            .filter(|id| !id.is_nil())
            .map(ContentId::Uuid);
        let Some(content_id) = ids.next() else {
            return Err(corrupt("no parent_linkage".to_owned()));
        };
        let mut names = Vec::new();
        let mut last = Vec::new();
        for path in [RELATIVE, VOLUME, ABSOLUTE]
            .into_iter()
            .filter_map(|key| self.value(key))
        {
            let path = path.replace('\\', "/");
            if is_absolute_windows(&path) {
                // Where Windows had it says nothing here, but its own name may be kept.
                last.extend(path.rsplit('/').next().map(str::to_owned));
            } else {
                names.push(path.strip_prefix("./").unwrap_or(&path).to_owned());
            }
        }
        names.extend(last);
        names.retain(|name| !name.is_empty());
        let mut unique: Vec<String> = Vec::new();
        for name in names {
            if !unique.contains(&name) {
                unique.push(name);
            }
        }
        if unique.is_empty() {
            return Err(corrupt("no path to the parent".to_owned()));
        }
        Ok(ParentLink {
            name: unique.remove(0),
            other_names: unique,
            format: Some("vhdx".to_owned()),
            identity: None,
            content_id: Some(content_id),
            other_content_id: ids.next(),
        })
    }
}

/// Returns whether a path with its backslashes turned is one of Windows' own: with a drive's
/// letter, a share, a volume.
fn is_absolute_windows(path: &str) -> bool {
    path.starts_with("//") || path.as_bytes().get(1) == Some(&b':')
}

fn braced(id: Uuid) -> String {
    format!("{{{id}}}")
}

fn decode_utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|unit| u16_at(unit, 0));
    char::decode_utf16(units)
        .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
        .take_while(|letter| *letter != '\0')
        .collect()
}

fn corrupt(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(pairs: &[(&str, &str)]) -> Result<ParentLink> {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Locator::decode(&Locator { pairs }.encode()).unwrap().link()
    }

    const ID: &str = "{9A4D2C3B-1234-4BCD-8EF0-0123456789AB}";

    #[test]
    fn paths_of_windows_become_names_the_best_guess_first() {
        let link = link(&[
            (LINKAGE, ID),
            (ABSOLUTE, "C:\\VMs\\base disk.vhdx"),
            (
                VOLUME,
                "\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\VMs\\base disk.vhdx",
            ),
            (RELATIVE, "..\\VMs\\base.vhdx"),
        ])
        .unwrap();
        assert_eq!(link.name, "../VMs/base.vhdx");
        assert_eq!(link.other_names, ["base disk.vhdx"]);
        let id = ContentId::Uuid(Uuid::parse(ID).unwrap());
        assert_eq!(link.content_id, Some(id));
        assert_eq!(link.other_content_id, None);
    }

    #[test]
    fn a_second_linkage_will_do_as_well() {
        let second = "{00000001-0000-0000-0000-000000000000}";
        let link = link(&[(LINKAGE, ID), (LINKAGE_2, second), (RELATIVE, ".\\ä.vhdx")]).unwrap();
        assert_eq!(link.name, "ä.vhdx");
        let id = ContentId::Uuid(Uuid::parse(second).unwrap());
        assert_eq!(link.other_content_id, Some(id));
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        for name in [
            "base.vhdx",
            "sub/base.vhdx",
            "/vm/base.vhdx",
            "../base.vhdx",
        ] {
            let link = ParentLink {
                name: name.to_owned(),
                format: Some("vhdx".to_owned()),
                content_id: Some(ContentId::Uuid(Uuid([7; 16]))),
                ..ParentLink::default()
            };
            let again = Locator::decode(&Locator::of(&link).unwrap().encode());
            assert_eq!(again.unwrap().link().unwrap(), link);
        }
    }

    #[test]
    fn locators_that_say_nothing_are_refused() {
        assert!(link(&[(RELATIVE, "base.vhdx")]).is_err());
        assert!(link(&[(LINKAGE, ID)]).is_err());
        assert!(
            link(&[
                (LINKAGE, "{00000000-0000-0000-0000-000000000000}"),
                (RELATIVE, "a")
            ])
            .is_err()
        );
        let mut bytes = Locator {
            pairs: vec![(LINKAGE.to_owned(), ID.to_owned())],
        }
        .encode();
        bytes[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Locator::decode(&bytes).is_err());
        assert!(Locator::decode(&bytes[..19]).is_err());
        bytes[0] ^= 1;
        let error = Locator::decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
