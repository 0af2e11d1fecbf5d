//! A saved copy of what a change in place overwrites, and the way back.
//!
//! The copy is a file of records, each a line of text and then bytes. A record is on stable
//! storage before what it saves is changed; the way back applies them from the last to the first.
//!
//! | line | bytes that follow | on the way back |
//! |---|---|---|
//! | `hako saved bytes 1` | – | the first line |
//! | `bytes OFFSET LEN FILE` | LEN bytes and a line feed | are written to FILE at OFFSET |
//! | `length LEN FILE` | – | FILE is cut (or grown) to LEN |
//! | `whole LEN FILE` | LEN bytes and a line feed | FILE is replaced by them |
//!
//! FILE is a name in the image's own folder, the rest of the line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gate::{replace_file, sync_folder_of};
use crate::{Access, Error, FileId, Opened, Resolver, Result, Storage, StorageExtent};

const FIRST_LINE: &str = "hako saved bytes 1";
/// Longest line of a saved copy: a file name is at most 255 bytes.
const MAX_LINE: u64 = 512;
/// How much is copied at once.
const CHUNK: usize = 1 << 20;

/// The file that what is overwritten is saved to. Made when there is something to save.
#[derive(Clone)]
pub struct SavedCopy(Arc<Inner>);

struct Inner {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl SavedCopy {
    /// Returns a saved copy that will be at `path`, which must not exist.
    pub fn new(path: &Path) -> Self {
        Self(Arc::new(Inner {
            path: path.to_path_buf(),
            file: Mutex::new(None),
        }))
    }

    /// Returns where the copy is, if anything had to be saved.
    pub fn path(&self) -> Option<&Path> {
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.is_some().then_some(self.0.path.as_path())
    }

    /// Returns the opened file, and what it names, such that what is overwritten through them is
    /// saved first.
    pub fn guard(&self, opened: Opened) -> Opened {
        Opened {
            storage: Arc::new(SavingStorage {
                storage: opened.storage,
                name: opened.name.clone(),
                saved: self.clone(),
            }),
            name: opened.name,
            resolver: Arc::new(SavingResolver {
                resolver: opened.resolver,
                saved: self.clone(),
            }),
        }
    }

    fn append(&self, line: &str, storage: Option<(&dyn Storage, Range<u64>)>) -> Result<()> {
        let mut slot = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| Error::io("save what is overwritten", error).in_file(&self.0.path);
        if slot.is_none() {
            let mut file = File::create_new(&self.0.path).map_err(failed)?;
            writeln!(file, "{FIRST_LINE}").map_err(failed)?;
            sync_folder_of(&self.0.path)?;
            *slot = Some(file);
        }
        let Some(file) = slot.as_mut() else {
            return Ok(());
        };
        writeln!(file, "{line}").map_err(failed)?;
        if let Some((storage, range)) = storage {
            let mut offset = range.start;
            let mut buffer = vec![0; CHUNK];
            while offset < range.end {
                let len = CHUNK.min((range.end - offset) as usize);
                storage.read_at(offset, &mut buffer[..len])?;
                file.write_all(&buffer[..len]).map_err(failed)?;
                offset += len as u64;
            }
            writeln!(file).map_err(failed)?;
        }
        file.sync_data().map_err(failed)
    }
}

struct SavingStorage {
    storage: Arc<dyn Storage>,
    name: String,
    saved: SavedCopy,
}

impl SavingStorage {
    /// Saves what of `range` the file has.
    fn save(&self, range: Range<u64>) -> Result<()> {
        let len = self.storage.len_bytes()?;
        let range = range.start.min(len)..range.end.min(len);
        if range.is_empty() {
            return Ok(());
        }
        let line = format!(
            "bytes {} {} {}",
            range.start,
            range.end - range.start,
            self.name
        );
        self.saved.append(&line, Some((&*self.storage, range)))
    }

    fn save_len(&self) -> Result<()> {
        let line = format!("length {} {}", self.storage.len_bytes()?, self.name);
        self.saved.append(&line, None)
    }
}

impl Storage for SavingStorage {
    fn name(&self) -> &str {
        self.storage.name()
    }

    fn len_bytes(&self) -> Result<u64> {
        self.storage.len_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.storage.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.storage.len_bytes()? {
            self.save_len()?;
        }
        self.save(offset..end)?;
        self.storage.write_at(offset, buf)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.save_len()?;
        self.save(len..u64::MAX)?;
        self.storage.set_len(len)
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.save(range.clone())?;
        self.storage.punch_hole(range)
    }

    fn reserve(&self, range: Range<u64>) -> Result<()> {
        if range.end > self.storage.len_bytes()? {
            self.save_len()?;
        }
        self.storage.reserve(range)
    }

    fn next_extent(&self, offset: u64) -> Result<StorageExtent> {
        self.storage.next_extent(offset)
    }

    fn sync(&self) -> Result<()> {
        self.storage.sync()
    }

    fn id(&self) -> Option<FileId> {
        self.storage.id()
    }

    fn is_blank(&self) -> bool {
        self.storage.is_blank()
    }

    fn is_device(&self) -> bool {
        self.storage.is_device()
    }

    fn allocated_bytes(&self) -> Result<u64> {
        self.storage.allocated_bytes()
    }
}

struct SavingResolver {
    resolver: Arc<dyn Resolver>,
    saved: SavedCopy,
}

impl Resolver for SavingResolver {
    fn open(&self, name: &str, access: Access) -> Result<Opened> {
        Ok(self.saved.guard(self.resolver.open(name, access)?))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let old = self.resolver.open(name, Access::ReadOnly)?;
        let len = old.storage.len_bytes()?;
        let line = format!("whole {len} {name}");
        self.saved.append(&line, Some((&*old.storage, 0..len)))?;
        drop(old);
        self.resolver.replace(name, bytes)
    }

    fn names(&self) -> Result<Vec<String>> {
        self.resolver.names()
    }
}

/// One record of a saved copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Record {
    /// Bytes of a file, which begin in the saved copy at `at`.
    Bytes {
        file: String,
        offset: u64,
        len: u64,
        at: u64,
    },
    /// Length of a file.
    Length { file: String, len: u64 },
    /// A whole small file, which begins in the saved copy at `at`.
    Whole { file: String, len: u64, at: u64 },
}

/// Puts back what the saved copy at `saved` holds, into the files beside the image at `image`,
/// and returns their names. `open` opens one of them for writing. A record that the machine's
/// end cut short saved nothing that was changed, and is left out.
pub fn put_back(
    saved: &Path,
    image: &Path,
    open: &dyn Fn(&str) -> Result<Arc<dyn Storage>>,
) -> Result<Vec<String>> {
    let failed = |error| Error::io("read", error).in_file(saved);
    let mut file = File::open(saved).map_err(failed)?;
    let records = read_records(&mut file, saved)?;
    let mut opened: Vec<(String, Arc<dyn Storage>)> = Vec::new();
    let mut names = Vec::new();
    for record in records.iter().rev() {
        let name = match record {
            Record::Bytes { file, .. }
            | Record::Length { file, .. }
            | Record::Whole { file, .. } => file,
        };
        if !names.contains(name) {
            names.push(name.clone());
        }
        if let Record::Whole { len, at, .. } = record {
            let bytes = read_back(&mut file, *at, *len).map_err(failed)?;
            opened.retain(|(opened, _)| opened != name);
            replace_file(&image.with_file_name(name), &bytes)?;
            continue;
        }
        let index = match opened.iter().position(|(opened, _)| opened == name) {
            Some(index) => index,
            None => {
                opened.push((name.clone(), open(name)?));
                opened.len() - 1
            }
        };
        let storage = &opened[index].1;
        match record {
            Record::Length { len, .. } => storage.set_len(*len)?,
            Record::Bytes {
                offset, len, at, ..
            } => {
                let mut done = 0;
                while done < *len {
                    let part = (CHUNK as u64).min(len - done);
                    let bytes = read_back(&mut file, at + done, part).map_err(failed)?;
                    storage.write_at(offset + done, &bytes)?;
                    done += part;
                }
            }
            Record::Whole { .. } => {}
        }
    }
    for (_, storage) in &opened {
        storage.sync()?;
    }
    Ok(names)
}

fn read_back(file: &mut File, at: u64, len: u64) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_records(file: &mut File, path: &Path) -> Result<Vec<Record>> {
    let failed = |error| Error::io("read", error).in_file(path);
    let total = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::new(file);
    let mut records = Vec::new();
    let mut at = 0;
    let mut first = true;
    loop {
        let mut line = Vec::new();
        let n_read = (&mut reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        at += n_read as u64;
        if line.last() != Some(&b'\n') && !first {
            return Ok(records);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\n');
        if first {
            if text != FIRST_LINE {
                return Err(
                    Error::corrupt("first line", format!("is not {FIRST_LINE:?}"))
                        .in_file(path)
                        .hint("is it a file that `check --repair` saved?"),
                );
            }
            first = false;
            continue;
        }
        let record = parse_record(text, at).ok_or_else(|| {
            Error::corrupt("saved copy", "is no record")
                .at_byte(at)
                .in_file(path)
        })?;
        let (Record::Bytes { len, .. } | Record::Whole { len, .. }) = record else {
            records.push(record);
            continue;
        };
        let Some(next) = at.checked_add(len).and_then(|end| end.checked_add(1)) else {
            return Err(Error::corrupt("saved copy", "is no record")
                .at_byte(at)
                .in_file(path));
        };
        if next > total {
            return Ok(records);
        }
        reader.seek(SeekFrom::Start(next)).map_err(failed)?;
        at = next;
        records.push(record);
    }
}

fn parse_record(line: &str, at: u64) -> Option<Record> {
    let (kind, rest) = line.split_once(' ')?;
    let (number, rest) = rest.split_once(' ')?;
    let number: u64 = number.parse().ok()?;
    let plain = |file: &str| {
        let is_plain = Path::new(file).components().count() == 1 && file != ".." && file != ".";
        is_plain.then(|| file.to_owned())
    };
    match kind {
        "length" => Some(Record::Length {
            file: plain(rest)?,
            len: number,
        }),
        "whole" => Some(Record::Whole {
            file: plain(rest)?,
            len: number,
            at,
        }),
        "bytes" => {
            let (len, file) = rest.split_once(' ')?;
            Some(Record::Bytes {
                file: plain(file)?,
                offset: number,
                len: len.parse().ok()?,
                at,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gate, GateRules};

    fn open(path: &Path) -> Opened {
        Gate::open_user(path, Access::ReadWrite, &GateRules::default()).unwrap()
    }

    #[test]
    fn everything_that_was_changed_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let old: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        std::fs::write(at("disk"), &old).unwrap();
        std::fs::write(at("small"), b"old text").unwrap();
        let saved = SavedCopy::new(&at("saved"));
        assert!(saved.path().is_none());
        let opened = saved.guard(open(&at("disk")));
        opened.storage.write_at(5, b"new").unwrap();
        opened.storage.write_at(99_999, b"over the end").unwrap();
        opened.storage.punch_hole(4096..12288).unwrap();
        opened.storage.set_len(50_000).unwrap();
        opened.storage.write_at(60_000, b"again").unwrap();
        opened
            .resolver
            .replace("small", b"new text, longer")
            .unwrap();
        assert!(std::fs::read(at("disk")).unwrap() != old);
        drop(opened);

        assert_eq!(saved.path(), Some(at("saved").as_path()));
        let mut names = put_back(&at("saved"), &at("disk"), &|name| {
            Ok(open(&at(name)).storage)
        })
        .unwrap();
        names.sort();
        assert_eq!(names, ["disk", "small"]);
        assert!(std::fs::read(at("disk")).unwrap() == old);
        assert_eq!(std::fs::read(at("small")).unwrap(), b"old text");
    }

    #[test]
    fn copy_that_was_cut_short_gives_back_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("disk"), b"0123456789").unwrap();
        let saved = SavedCopy::new(&at("saved"));
        let opened = saved.guard(open(&at("disk")));
        opened.storage.write_at(0, b"ab").unwrap();
        let whole = std::fs::read(at("saved")).unwrap();
        opened.storage.write_at(5, b"cd").unwrap();
        let both = std::fs::read(at("saved")).unwrap();
        drop(opened);
        for len in whole.len()..both.len() {
            std::fs::write(at("disk"), b"ab23456789").unwrap();
            std::fs::write(at("saved"), &both[..len]).unwrap();
            put_back(&at("saved"), &at("disk"), &|name| {
                Ok(open(&at(name)).storage)
            })
            .unwrap();
            assert_eq!(std::fs::read(at("disk")).unwrap(), b"0123456789", "{len}");
        }
    }

    #[test]
    fn name_that_leads_out_of_the_folder_is_no_record() {
        for line in [
            "bytes 0 1 ../x",
            "length 5 /etc/passwd",
            "whole 1 ..",
            "bytes 0 x",
            "what 1 a",
        ] {
            assert_eq!(parse_record(line, 0), None, "{line}");
        }
    }
}
