//! Small ISO 9660 images (ECMA-119) with Joliet names: one folder with a few files, as a guest
//! expects its seed. Writes only. No Rock Ridge, no subfolders: all who read seeds read Joliet.
//!
//! ```text
//! sector 16  primary volume descriptor       19, 20  its path tables (little-, big-endian)
//! sector 17  Joliet's volume descriptor      21, 22  Joliet's
//! sector 18  terminator                      23, 24  root folder, primary and Joliet
//!                                            25…     the files
//! ```

use hako_block::{Error, Result};

const SECTOR: usize = 2048;
const FIRST_FILE: usize = 25;
/// Bytes of a path table with the root alone (ECMA-119, 9.4).
const PATH_TABLE_BYTES: u32 = 10;
/// Midnight of 1 January 2000, for everything: the same files make the same image (9.1.5).
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
/// What a seed may take.
const MAX_BYTES: usize = 64 << 20;

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoFile {
    /// Its name: ASCII letters, digits, `-`, `_` and at most one `.`, up to 28 characters.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// Returns the image of a volume with these files. Errors: [`hako_block::ErrorKind::Invalid`] for
/// names that it cannot have, and for what is too large.
pub fn image(volume: &str, files: &[IsoFile]) -> Result<Vec<u8>> {
    let total: usize = files.iter().map(|file| file.content.len()).sum();
    if total > MAX_BYTES {
        let what = format!("{total} bytes are too many for a seed: at most {MAX_BYTES}");
        return Err(Error::invalid(what));
    }
    let mut next = FIRST_FILE;
    let mut entries = Vec::new();
    for file in files {
        check_name(&file.name)?;
        entries.push(Entry {
            name: &file.name,
            sector: next as u32,
            len: file.content.len() as u32,
        });
        next += file.content.len().div_ceil(SECTOR);
    }
    let primary = Tree {
        is_joliet: false,
        path_tables: 19,
        root: 23,
    };
    let joliet = Tree {
        is_joliet: true,
        path_tables: 21,
        root: 24,
    };
    let mut image = vec![0; 16 * SECTOR];
    for tree in [&primary, &joliet] {
        push_sectors(&mut image, &tree.descriptor(volume, next as u32));
    }
    push_sectors(&mut image, b"\xffCD001\x01");
    for tree in [&primary, &joliet] {
        push_sectors(&mut image, &path_table(&tree.root.to_le_bytes(), [1, 0]));
        push_sectors(&mut image, &path_table(&tree.root.to_be_bytes(), [0, 1]));
    }
    for tree in [&primary, &joliet] {
        push_sectors(&mut image, &tree.folder(&entries)?);
    }
    for file in files {
        push_sectors(&mut image, &file.content);
    }
    Ok(image)
}

fn check_name(name: &str) -> Result<()> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let n_points = name.bytes().filter(|byte| *byte == b'.').count();
    if (1..=28).contains(&name.len()) && name.bytes().all(known) && n_points <= 1 {
        return Ok(());
    }
    Err(Error::invalid(format!("{name:?} is no name for a seed")))
}

/// Where a file's content is.
struct Entry<'a> {
    name: &'a str,
    sector: u32,
    len: u32,
}

/// One of the two views of the same files.
struct Tree {
    is_joliet: bool,
    path_tables: u32,
    root: u32,
}

impl Tree {
    /// Returns the volume descriptor (8.4, 8.5).
    fn descriptor(&self, volume: &str, n_sectors: u32) -> Vec<u8> {
        let mut bytes = vec![if self.is_joliet { 2 } else { 1 }];
        bytes.extend(b"CD001\x01\0");
        bytes.extend(self.padded("", 32)); // System identifier.
        bytes.extend(self.padded(volume, 32));
        bytes.extend([0; 8]);
        bytes.extend(both_u32(n_sectors));
        let mut escapes = [0; 32];
        if self.is_joliet {
            escapes[..3].copy_from_slice(b"%/E"); // UCS-2, level 3.
        }
        bytes.extend(escapes);
        for number in [1, 1, SECTOR as u16] {
            bytes.extend(both_u16(number)); // Volumes in the set, this one, bytes of a block.
        }
        bytes.extend(both_u32(PATH_TABLE_BYTES));
        for (sector, is_little) in [(self.path_tables, true), (self.path_tables + 1, false)] {
            let word = if is_little {
                sector.to_le_bytes()
            } else {
                sector.to_be_bytes()
            };
            bytes.extend(word);
            bytes.extend([0; 4]); // No second copy.
        }
        bytes.extend(self.record(&[0], self.root, SECTOR as u32, true));
        for width in [128, 128, 128, 128, 37, 37, 37] {
            bytes.extend(self.padded("", width)); // Who made it, and files that say more.
        }
        for date in [true, true, false, false] {
            let digits: &[u8; 16] = if date {
                b"2000010100000000"
            } else {
                b"0000000000000000"
            };
            bytes.extend(digits);
            bytes.push(0);
        }
        bytes.push(1); // Version of the folder's records.
        bytes
    }

    /// Returns the root folder: itself, itself as its own parent, the files by name (9.3).
    fn folder(&self, entries: &[Entry<'_>]) -> Result<Vec<u8>> {
        let mut names: Vec<(Vec<u8>, &Entry<'_>)> = entries
            .iter()
            .map(|entry| (self.file_name(entry.name), entry))
            .collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        if names.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::invalid("two files of a seed have one name"));
        }
        let mut folder = Vec::new();
        for name in [&[0], &[1]] {
            folder.extend(self.record(name, self.root, SECTOR as u32, true));
        }
        for (name, entry) in names {
            folder.extend(self.record(&name, entry.sector, entry.len, false));
        }
        if folder.len() > SECTOR {
            return Err(Error::invalid("too many files for a seed"));
        }
        Ok(folder)
    }

    /// Returns a record of a folder (9.1).
    fn record(&self, name: &[u8], sector: u32, len: u32, is_folder: bool) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        bytes.extend(both_u32(sector));
        bytes.extend(both_u32(len));
        bytes.extend(DATE);
        bytes.extend([if is_folder { 2 } else { 0 }, 0, 0]);
        bytes.extend(both_u16(1));
        bytes.push(name.len() as u8);
        bytes.extend(name);
        if !bytes.len().is_multiple_of(2) {
            bytes.push(0);
        }
        bytes[0] = bytes.len() as u8;
        bytes
    }

    /// Returns a file's name: as it is in Joliet; else of capitals, digits and `_`, with a version
    /// (7.5.1).
    fn file_name(&self, name: &str) -> Vec<u8> {
        if self.is_joliet {
            return ucs2(name);
        }
        let plain = |byte: u8| match byte {
            b'-' => b'_',
            byte => byte.to_ascii_uppercase(),
        };
        let mut name: Vec<u8> = name.bytes().map(plain).collect();
        if !name.contains(&b'.') {
            name.push(b'.');
        }
        name.extend(b";1");
        name
    }

    /// Returns text in a field of `width` bytes, filled with blanks.
    fn padded(&self, text: &str, width: usize) -> Vec<u8> {
        let (mut bytes, blank) = if self.is_joliet {
            (ucs2(text), &b"\0 "[..])
        } else {
            (text.as_bytes().to_vec(), &b" "[..])
        };
        while bytes.len() + blank.len() <= width {
            bytes.extend(blank);
        }
        bytes.resize(width, 0);
        bytes
    }
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// Returns a path table that holds the root alone.
fn path_table(root_sector: &[u8], parent: [u8; 2]) -> Vec<u8> {
    [&[1, 0], root_sector, &parent, &[0, 0]].concat()
}

/// Returns a number in both byte orders (7.2.3).
fn both_u16(number: u16) -> Vec<u8> {
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}

/// Returns a number in both byte orders (7.3.3).
fn both_u32(number: u32) -> Vec<u8> {
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}

/// Appends bytes and fills up their last sector.
fn push_sectors(image: &mut Vec<u8>, bytes: &[u8]) {
    image.extend(bytes);
    image.resize(image.len().next_multiple_of(SECTOR), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> IsoFile {
        IsoFile {
            name: name.to_owned(),
            content: content.to_vec(),
        }
    }

    #[test]
    fn descriptors_and_files_are_where_the_standard_says() {
        let files = [
            file("user-data", b"#cloud-config\n"),
            file("meta-data", &[7; 5000]),
        ];
        let image = image("cidata", &files).unwrap();
        assert_eq!(image.len(), (25 + 1 + 3) * SECTOR);
        let at = |sector: usize| &image[sector * SECTOR..][..SECTOR];
        assert_eq!(&at(16)[..8], b"\x01CD001\x01\0");
        assert_eq!(&at(16)[40..46], b"cidata");
        assert_eq!(at(16)[881], 1, "every field before has its width");
        assert_eq!(&at(17)[40..46], b"\0c\0i\0d");
        assert_eq!(&at(17)[88..91], b"%/E");
        assert_eq!(at(17)[881], 1);
        assert_eq!(&at(18)[..7], b"\xffCD001\x01");
        assert_eq!(&at(25)[..14], b"#cloud-config\n");
        assert_eq!(at(26), [7; SECTOR]);
        // The folder's third record is the first file by name.
        assert_eq!(&at(23)[68 + 33..][..12], b"META_DATA.;1");
        assert_eq!(at(23)[68 + 2], 26);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in ["", "a/b", "..", "\u{fc}", "a b", &"a".repeat(29)] {
            assert!(image("cidata", &[file(name, b"")]).is_err(), "{name:?}");
        }
        let same = [file("a-b", b""), file("A_B", b"")];
        assert!(image("cidata", &same).is_err());
        let many: Vec<_> = (0..60).map(|n| file(&format!("name-{n}"), b"")).collect();
        assert!(image("cidata", &many).is_err());
    }
}
