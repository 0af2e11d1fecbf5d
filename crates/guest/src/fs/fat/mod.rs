//! FAT12, FAT16 and FAT32 with long names.
//!
//! A node's number is the byte at which its directory record lies; the root's is 0. Times are local
//! ones of a zone that nobody wrote down: they are taken for UTC.

mod audit;
mod chain;
mod geometry;
mod names;
#[cfg(test)]
mod tests;
mod used;

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

use hako_block::{Error, ErrorKind, Result};

use super::cache::Cache;
use super::{Driver, Entry, FileSystem, FsInfo, NodeId, NodeKind, Opened, Stat, Time, wrong_kind};
use crate::bytes::le;
use crate::check::Audit;
use crate::date::Date;
use crate::used::Ranges;
use crate::volume::Volume;
use chain::Last;
use geometry::{Geometry, Root, Width, is_fat};
use names::LongName;

/// FAT as one of the file systems that are known.
pub const DRIVER: Driver = Driver {
    name: "vfat",
    probe,
    open,
};

/// Records that a directory has at most, as Linux has it.
const MOST_RECORDS: u64 = 65536;
/// Bytes of the pieces in which tables and directories are read, and how many are kept.
const BLOCK_BYTES: u64 = 4096;
const MOST_BLOCKS: usize = 128;

const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;
const FREE: u8 = 0xe5;

const ROOT: NodeId = NodeId { tree: 0, number: 0 };

fn boot_sector(volume: &dyn Volume) -> Result<[u8; 512]> {
    let mut sector = [0; 512];
    if volume.len_bytes() >= 512 {
        volume.read_at(0, &mut sector)?;
    }
    Ok(sector)
}

fn probe(volume: &dyn Volume) -> Result<bool> {
    Ok(is_fat(&boot_sector(volume)?))
}

fn open(volume: Arc<dyn Volume>) -> Opened {
    let geometry = Geometry::decode(&boot_sector(&*volume)?, volume.len_bytes())?;
    let mut fat = Fat {
        info: FsInfo {
            kind: "vfat",
            label: names::label(&geometry.label),
            uuid: geometry.serial.map(serial_text).unwrap_or_default(),
            len_bytes: geometry.len_bytes,
            block_bytes: geometry.cluster_bytes,
            remarks: Vec::new(),
        },
        volume,
        geometry,
        blocks: Cache::new(MOST_BLOCKS),
        last: Mutex::new(Last::default()),
    };
    if fat.info.label == "NO NAME" {
        fat.info.label.clear();
    }
    if let Some(label) = fat.root_label()? {
        fat.info.label = label;
    }
    if fat.geometry.is_dirty {
        fat.info
            .remarks
            .push("it was not unmounted cleanly".to_owned());
    }
    if fat.geometry.len_bytes > fat.volume.len_bytes() {
        fat.info
            .remarks
            .push("it goes past the end of its volume".to_owned());
    }
    Ok(Arc::new(fat))
}

fn serial_text(serial: u32) -> String {
    format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)
}

struct Fat {
    volume: Arc<dyn Volume>,
    geometry: Geometry,
    info: FsInfo,
    blocks: Cache<u64, Vec<u8>>,
    last: Mutex<Last>,
}

/// A directory record.
struct Record {
    at: u64,
    bytes: [u8; 32],
}

impl Record {
    fn attributes(&self) -> u8 {
        self.bytes[11]
    }

    fn is_label(&self) -> bool {
        self.attributes() & (LABEL | DIRECTORY) == LABEL
    }

    fn is_directory(&self) -> bool {
        self.attributes() & DIRECTORY != 0
    }

    fn kind(&self) -> NodeKind {
        match self.is_directory() {
            true => NodeKind::Directory,
            false => NodeKind::File,
        }
    }

    /// The upper half is that of FAT32 only: others keep something else there.
    fn first_cluster(&self, width: Width) -> u32 {
        let high = match width {
            Width::Bits32 => u32::from(le::u16_at(&self.bytes, 20)),
            Width::Bits12 | Width::Bits16 => 0,
        };
        high << 16 | u32::from(le::u16_at(&self.bytes, 26))
    }

    fn modified(&self) -> Time {
        let (time, date) = (le::u16_at(&self.bytes, 22), le::u16_at(&self.bytes, 24));
        let bits = |value: u16, shift: u16, mask: u16| (value >> shift & mask) as u8;
        let date = Date {
            year: 1980 + (date >> 9),
            month: bits(date, 5, 15),
            day: bits(date, 0, 31),
            hour: bits(time, 11, 31),
            minute: bits(time, 5, 63),
            second: bits(time, 0, 31) * 2,
        };
        Time {
            seconds: date.seconds().unwrap_or(0),
            nanoseconds: 0,
        }
    }

    fn node(&self) -> NodeId {
        NodeId {
            tree: 0,
            number: self.at,
        }
    }
}

/// A name: the record, the long name if it has one, and the short one.
struct Name {
    record: Record,
    long: Option<String>,
    short: String,
}

impl Name {
    fn shown(&self) -> &str {
        self.long.as_deref().unwrap_or(&self.short)
    }
}

impl Fat {
    /// Returns the record of a node. The root has none.
    fn record(&self, node: NodeId) -> Result<Record> {
        let no_record = || Error::corrupt("directory", format!("no record {:#x}", node.number));
        if node.tree != 0 || !node.number.is_multiple_of(32) || node.number < self.geometry.table_at
        {
            return Err(no_record());
        }
        let record = Record {
            at: node.number,
            bytes: self.bytes_at(node.number)?,
        };
        let is_none = matches!(record.bytes[0], 0 | FREE) || record.is_label();
        if is_none {
            Err(no_record())
        } else {
            Ok(record)
        }
    }

    /// Returns where a directory's records are.
    fn directory(&self, node: NodeId) -> Result<Root> {
        if node == ROOT {
            return Ok(self.geometry.root);
        }
        let record = self.record(node)?;
        match (
            record.is_directory(),
            record.first_cluster(self.geometry.width),
        ) {
            (false, _) => Err(wrong_kind(node, "directory")),
            (true, 0) => Err(Error::corrupt("directory", "it has no cluster").at_byte(record.at)),
            (true, cluster) => Ok(Root::Chain(cluster)),
        }
    }

    /// Calls `each` with the records of a directory up to its end.
    fn each_record(
        &self,
        directory: Root,
        each: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut left = MOST_RECORDS;
        self.each_run(directory, &mut |at, len| {
            for place in (0..len / 32).map(|index| at + index * 32) {
                let record = Record {
                    at: place,
                    bytes: self.bytes_at(place)?,
                };
                if left == 0 || record.bytes[0] == 0 || each(record).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                left -= 1;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn each_name(
        &self,
        directory: Root,
        each: &mut dyn FnMut(Name) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut long = LongName::default();
        self.each_record(directory, &mut |record| {
            if record.bytes[0] == FREE {
                long.clear();
            } else if record.attributes() & 0x3f == LONG_NAME {
                long.push(&record.bytes);
            } else if record.is_label() {
                long.clear();
            } else {
                let name = Name {
                    long: long.take(&record.bytes),
                    short: names::short(&record.bytes),
                    record,
                };
                if !matches!(name.shown(), "." | ".." | "") {
                    return each(name);
                }
            }
            ControlFlow::Continue(())
        })
    }

    fn root_label(&self) -> Result<Option<String>> {
        let mut label = None;
        self.each_record(self.geometry.root, &mut |record| {
            let is_long = record.attributes() & 0x3f == LONG_NAME;
            if record.bytes[0] == FREE || is_long || !record.is_label() {
                return ControlFlow::Continue(());
            }
            label = record.bytes.first_chunk().map(names::label);
            ControlFlow::Break(())
        })
        .or_else(|error| match error.kind() {
            // A root that cannot be read is told when it is listed.
            ErrorKind::Corrupt => Ok(()),
            _ => Err(error),
        })?;
        Ok(label)
    }
}

impl FileSystem for Fat {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        let root = Stat {
            kind: NodeKind::Directory,
            len_bytes: 0,
            mode: 0o755,
            uid: 0,
            gid: 0,
            links: 1,
            modified: Time::default(),
            device: None,
        };
        if node == ROOT {
            return Ok(root);
        }
        let record = self.record(node)?;
        let modified = record.modified();
        Ok(match record.kind() {
            NodeKind::Directory => Stat { modified, ..root },
            kind => Stat {
                kind,
                len_bytes: le::u32_at(&record.bytes, 28).into(),
                mode: 0o644,
                modified,
                ..root
            },
        })
    }

    fn visit(
        &self,
        directory: NodeId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.each_name(self.directory(directory)?, &mut |name| {
            each(Entry {
                name: name.shown().as_bytes().to_vec(),
                node: name.record.node(),
                kind: Some(name.record.kind()),
            })
        })
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let Ok(wanted) = std::str::from_utf8(name).map(str::to_lowercase) else {
            return Ok(None);
        };
        let mut found = None;
        self.each_name(self.directory(directory)?, &mut |name| {
            let is_it = |name: &str| name.to_lowercase() == wanted;
            if is_it(name.shown()) || is_it(&name.short) {
                found = Some(name.record.node());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if file == ROOT {
            return Err(wrong_kind(file, "file"));
        }
        let record = self.record(file)?;
        if record.is_directory() {
            return Err(wrong_kind(file, "file"));
        }
        let len = u64::from(le::u32_at(&record.bytes, 28));
        let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let most = buf.len().min(left);
        let Some(buf) = buf.get_mut(..most).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        self.read_chain(record.first_cluster(self.geometry.width), offset, buf)
            .map_err(|error| error.at_byte(record.at))?;
        Ok(most)
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        Err(wrong_kind(link, "link"))
    }

    fn used(&self, _device: u64, window: &Range<u64>) -> Result<Ranges> {
        self.used_in(window)
    }

    fn runs(&self, node: NodeId, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        self.runs_of(node, each)
    }

    fn audit(&self, audit: &mut Audit, tick: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.compare_tables(audit, tick)
    }
}
