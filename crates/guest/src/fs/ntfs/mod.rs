//! NTFS: files in the master file table, sparse, compressed (LZNT1) or spread over many records;
//! directories, whatever the case of a name; links, those of WSL and ntfs-3g too.
//!
//! The layout is that of the documentation of the Linux-NTFS project and of MS-FSCC (reparse
//! points) and MS-XCA (LZNT1). Own code: what there is for Rust reads no compressed files. The log
//! is not replayed. Encrypted files, and those that Windows keeps elsewhere or in other forms, are
//! refused by name. Other streams than a file's own are passed over, and so are permissions.

mod boot;
mod index;
mod lznt1;
mod names;
mod record;
mod reparse;
mod runs;
mod stream;
mod table;
mod used;

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

use super::{
    Driver, Entry, FileSystem, FsInfo, LONGEST_LINK, NodeId, NodeKind, Opened, Stat, Time,
    wrong_kind,
};
use crate::bytes::{array_at, le};
use crate::used::Ranges;
use crate::volume::Volume;
use index::{Index, IndexName};
use names::{UpCase, to_utf8, to_utf16, units};
use record::{DATA, FILE_NAME, Reference, STANDARD_INFORMATION, VOLUME_INFORMATION, VOLUME_NAME};
use reparse::Reparse;
use stream::{File, Stream};
use table::Table;

/// What is remarked of a volume that cannot be taken as it is: a system is to go on with it.
pub const HIBERNATED: &str = "Windows is hibernated or was shut down with fast startup";

/// NTFS.
pub const DRIVER: Driver = Driver {
    name: "ntfs",
    probe: boot::probe,
    open,
};

/// Records of files that every volume has; the first 16 are shown to nobody, but the root.
const VOLUME: Reference = Reference(3);
const ROOT: Reference = Reference(5);
const UP_CASE: Reference = Reference(10);
const FIRST_SHOWN: u64 = 16;

/// Flags of files.
const IS_SYSTEM: u32 = 4;
const IS_REPARSE_POINT: u32 = 0x400;
const IS_DIRECTORY: u32 = 0x1000_0000;

fn open(volume: Arc<dyn Volume>) -> Opened {
    let boot = boot::read(&*volume)?;
    let (table, is_copy) = Table::open(volume, boot)?;
    let mut info = FsInfo {
        kind: "ntfs",
        label: String::new(),
        uuid: format!("{:016X}", boot.serial),
        len_bytes: boot.len_bytes,
        block_bytes: u32::try_from(boot.cluster_bytes).unwrap_or_default(),
        remarks: Vec::new(),
    };
    if is_copy {
        let what = "the first record of its table is damaged, the copy was used";
        info.remarks.push(what.to_owned());
    }
    let is_dirty = about_volume(&table, &mut info)?;
    let doubt = match is_dirty {
        true => Some("it is marked dirty"),
        false => used::doubt_of_log(&table)?,
    };
    let up_case = File::open(&table, UP_CASE)?.stream(&table, DATA, "")?;
    let mut bytes = vec![0; UpCase::BYTES];
    let len = match up_case {
        Some(stream) => stream.read(&table, 0, &mut bytes)?,
        None => 0,
    };
    let root = table.record(ROOT)?.sequence();
    let mut ntfs = Ntfs {
        up_case: UpCase::decode(bytes.get(..len).unwrap_or_default())?,
        root: Reference(ROOT.0 | u64::from(root) << 48),
        table,
        info,
        doubt,
    };
    if ntfs.is_hibernated() {
        ntfs.info.remarks.push(HIBERNATED.to_owned());
    }
    Ok(Arc::new(ntfs))
}

/// Reads the label, the version (major 8, minor 9) and the flags (0x0a). Returns whether it is dirty.
fn about_volume(table: &Table, info: &mut FsInfo) -> Result<bool> {
    const IS_DIRTY: u16 = 1;
    let volume = File::open(table, VOLUME)?;
    if let Some(label) = volume.value(table, VOLUME_NAME, "")? {
        info.label = String::from_utf8_lossy(&to_utf8(units(&label))).into_owned();
    }
    let about = volume.value(table, VOLUME_INFORMATION, "")?;
    let about = about.ok_or_else(|| bad("it says nothing of its version"))?;
    match array_at(&about, 8) {
        [1 | 3, _] => {}
        [major, minor] => {
            return Err(Error::unsupported(format!("NTFS version {major}.{minor}")));
        }
    }
    let is_dirty = le::u16_at(&about, 0x0a) & IS_DIRTY != 0;
    if is_dirty {
        let what = "it was not unmounted (marked dirty); its log was not replayed";
        info.remarks.push(what.to_owned());
    }
    Ok(is_dirty)
}

struct Ntfs {
    table: Table,
    up_case: UpCase,
    root: Reference,
    info: FsInfo,
    /// Why its bitmap is not to be believed, if it is not.
    doubt: Option<&'static str>,
}

/// What a file is, with what had to be read to know.
enum Shape {
    Directory,
    /// Its bytes; none if it has none.
    File(Option<Stream>),
    /// A file whose content is elsewhere, as its data says how long it is.
    Elsewhere(Option<Stream>, String),
    Link(Vec<u8>),
    Special(NodeKind, Option<(u32, u32)>),
}

impl Ntfs {
    fn file(&self, node: NodeId) -> Result<File> {
        File::open(&self.table, Reference(node.number))
    }

    fn shape(&self, file: &File) -> Result<Shape> {
        let shape = self.shape_of(file);
        shape.map_err(|error| error.place(format!("NTFS record {}", file.reference.record())))
    }

    fn shape_of(&self, file: &File) -> Result<Shape> {
        let about = file.value(&self.table, STANDARD_INFORMATION, "")?;
        let flags = le::u32_at(&about.unwrap_or_default(), 0x20);
        let reparse = match flags & IS_REPARSE_POINT {
            0 => None,
            _ => reparse::read(&self.table, file)?,
        };
        let elsewhere = match reparse {
            Some(Reparse::Link(path)) => return Ok(Shape::Link(path)),
            Some(Reparse::Special(kind)) => return Ok(Shape::Special(kind, None)),
            Some(Reparse::Elsewhere(what)) => Some(what),
            None => None,
        };
        if file.record.is_directory() {
            return Ok(Shape::Directory);
        }
        let data = file.stream(&self.table, DATA, "")?;
        match (elsewhere, data) {
            (Some(what), data) => Ok(Shape::Elsewhere(data, what)),
            (None, Some(data)) if flags & IS_SYSTEM != 0 => self.shape_of_system_file(data),
            (None, data) => Ok(Shape::File(data)),
        }
    }

    /// Links and devices as Interix and ntfs-3g have them: files that begin so. A device has its
    /// major number at 8 and its minor at 0x10.
    fn shape_of_system_file(&self, data: Stream) -> Result<Shape> {
        const LONGEST: u64 = 8 + 2 * LONGEST_LINK as u64;
        if data.len < 8 || data.len > LONGEST || data.is_encrypted() {
            return Ok(Shape::File(Some(data)));
        }
        let mut content = vec![0; usize::try_from(data.len).unwrap_or_default()];
        data.read(&self.table, 0, &mut content)?;
        let low = |at| (le::u64_at(&content, at) & u64::from(u32::MAX)) as u32;
        let device = Some((low(8), low(16)));
        Ok(match &array_at(&content, 0) {
            b"IntxLNK\x01" => {
                let path = content.get(8..).unwrap_or_default();
                Shape::Link(to_utf8(units(path)))
            }
            b"IntxCHR\0" if data.len == 24 => Shape::Special(NodeKind::CharDevice, device),
            b"IntxBLK\0" if data.len == 24 => Shape::Special(NodeKind::BlockDevice, device),
            _ => Shape::File(Some(data)),
        })
    }

    fn index(&self, directory: NodeId) -> Result<Index<'_>> {
        let file = self.file(directory)?;
        match self.shape(&file)? {
            Shape::Directory => Index::open(&self.table, &file),
            _ => Err(wrong_kind(directory, "directory")),
        }
    }

    /// Hibernation begins its file so; after waking up that is overwritten.
    fn is_hibernated(&self) -> bool {
        let mut magic = [0; 4];
        let node = self.lookup(self.root(), b"hiberfil.sys");
        let Ok(Some(node)) = node else { return false };
        let read = self.read_at(node, 0, &mut magic);
        matches!(read, Ok(4)) && magic.eq_ignore_ascii_case(b"hibr")
    }
}

impl FileSystem for Ntfs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        node(self.root)
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        let file = self.file(node)?;
        let shape = self.shape(&file)?;
        let len_of = |stream: &Option<Stream>| stream.as_ref().map_or(0, |stream| stream.len);
        let (kind, len_bytes, device) = match &shape {
            Shape::Directory => (NodeKind::Directory, 0, None),
            Shape::File(data) | Shape::Elsewhere(data, _) => (NodeKind::File, len_of(data), None),
            Shape::Link(path) => (NodeKind::Link, path.len() as u64, None),
            Shape::Special(kind, device) => (*kind, 0, *device),
        };
        let mut links = 0;
        let mut modified = Time::default();
        file.each_attribute(&self.table, |attribute| {
            let value = attribute.resident().unwrap_or_default();
            match attribute.kind {
                FILE_NAME if !is_for_dos(value) => links += 1,
                STANDARD_INFORMATION => modified = time(le::u64_at(value, 8)),
                _ => {}
            }
        })?;
        Ok(Stat {
            kind,
            len_bytes,
            mode: match kind {
                NodeKind::Directory => 0o755,
                NodeKind::Link => 0o777,
                _ => 0o644,
            },
            uid: 0,
            gid: 0,
            links,
            modified,
            device,
        })
    }

    fn visit(
        &self,
        directory: NodeId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let index = self.index(directory)?;
        index.walk(|_| Ordering::Equal, &mut |name| {
            if name.is_for_dos || is_hidden(&name) {
                return Ok(ControlFlow::Continue(()));
            }
            Ok(each(Entry {
                node: node(name.reference),
                kind: kind_of(&name),
                name: checked_name(&name)?,
            }))
        })
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let index = self.index(directory)?;
        let Some(wanted) = to_utf16(name) else {
            return Ok(None);
        };
        let mut found = None;
        let order = |letters: &[u16]| self.up_case.compare(letters, &wanted);
        index.walk(order, &mut |name| {
            let is_exact = name.letters == wanted;
            if !is_hidden(&name) && (is_exact || found.is_none()) {
                found = Some(node(name.reference));
            }
            Ok(match is_exact {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        Ok(found)
    }

    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let opened = self.file(file)?;
        match self.shape(&opened)? {
            Shape::File(Some(data)) => data
                .read(&self.table, offset, buf)
                .map_err(|error| error.place(format!("NTFS record {}", opened.reference.record()))),
            Shape::File(None) => Ok(0),
            Shape::Elsewhere(_, what) => Err(Error::unsupported(format!("a file that is {what}"))),
            _ => Err(wrong_kind(file, "file")),
        }
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        match self.shape(&self.file(link)?)? {
            Shape::Link(path) if path.len() <= LONGEST_LINK => Ok(path),
            Shape::Link(path) => Err(bad(format!("a link of {} bytes", path.len()))),
            _ => Err(wrong_kind(link, "link")),
        }
    }

    fn used(&self, _device: u64, window: &Range<u64>) -> Result<Ranges> {
        self.used_in(window)
    }

    fn scratch(&self) -> Result<Ranges> {
        self.scratch_files()
    }
}

fn node(reference: Reference) -> NodeId {
    NodeId {
        tree: 0,
        number: reference.0,
    }
}

/// Returns whether the name is of one of NTFS's own files, or the root's name for itself.
fn is_hidden(name: &IndexName) -> bool {
    name.reference.record() < FIRST_SHOWN
}

fn checked_name(name: &IndexName) -> Result<Vec<u8>> {
    let utf8 = to_utf8(name.letters.iter().copied());
    let is_name =
        utf8 != b"." && utf8 != b".." && !utf8.iter().any(|byte| matches!(byte, b'/' | 0));
    match is_name {
        true => Ok(utf8),
        false => Err(bad(format!("no name: {}", utf8.escape_ascii()))),
    }
}

/// What is named, unless it must be read to know.
fn kind_of(name: &IndexName) -> Option<NodeKind> {
    match name.attributes {
        flags if flags & (IS_REPARSE_POINT | IS_SYSTEM) != 0 => None,
        flags if flags & IS_DIRECTORY != 0 => Some(NodeKind::Directory),
        _ => Some(NodeKind::File),
    }
}

/// Returns whether the record of a name is but a short form for DOS.
fn is_for_dos(name: &[u8]) -> bool {
    array_at(name, 0x41) == [2]
}

/// Converts a time: it counts tenths of microseconds from the year 1601.
fn time(ticks: u64) -> Time {
    const SECOND: i64 = 10_000_000;
    const YEARS_SECONDS: i64 = 11_644_473_600;
    let ticks = i64::from_le_bytes(ticks.to_le_bytes());
    Time {
        seconds: ticks.div_euclid(SECOND) - YEARS_SECONDS,
        nanoseconds: u32::try_from(ticks.rem_euclid(SECOND) * 100).unwrap_or_default(),
    }
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}
