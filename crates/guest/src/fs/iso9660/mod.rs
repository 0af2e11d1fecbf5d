//! ISO 9660 (ECMA-119) with Rock Ridge or Joliet: names of Rock Ridge where there are, else those of
//! Joliet, else the plain ones in lower case, as Linux mounts it.
//!
//! A node's number is the byte at which its directory record lies; that of a directory which Rock
//! Ridge has moved, of its record there.

mod record;
mod rock;
mod volume;

use std::ops::ControlFlow;
use std::sync::Arc;

use hako_block::{Error, Result};

use super::{Driver, Entry, FileSystem, FsInfo, NodeId, NodeKind, Opened, Stat, wrong_kind};
use crate::volume::{Volume, check_range, read_vec};
use record::Record;
use rock::Rock;
use volume::Descriptor;

/// ISO 9660 as one of the file systems that are known.
pub const DRIVER: Driver = Driver {
    name: "iso9660",
    probe: volume::probe,
    open,
};

/// Records do not cross these.
const SECTOR: u64 = 2048;
/// Bytes of a directory at most, and pieces of a file: 4 GiB less a sector each.
const LONGEST_DIRECTORY: u32 = 64 << 20;
const MOST_PIECES: usize = 4096;
/// The node of the root, whose record is in a descriptor.
const ROOT: NodeId = NodeId { tree: 0, number: 0 };

fn open(volume: Arc<dyn Volume>) -> Opened {
    let (primary, joliet) = volume::read(&*volume)?;
    let first = first_record(&*volume, &primary)?;
    let skip = first.and_then(|record| rock::skip(&record.system_use));
    let chosen = match (skip, joliet) {
        (None, Some(joliet)) => joliet,
        _ => primary.clone(),
    };
    let mut remarks = Vec::new();
    if chosen.len_bytes > volume.len_bytes() {
        remarks.push("it goes past the end of its volume".to_owned());
    }
    Ok(Arc::new(Iso {
        info: FsInfo {
            kind: "iso9660",
            label: match chosen.label.as_str() {
                "" => primary.label,
                label => label.to_owned(),
            },
            uuid: primary.uuid,
            len_bytes: chosen.len_bytes,
            block_bytes: chosen.block_bytes,
            remarks,
        },
        volume,
        skip,
        tree: chosen,
    }))
}

/// Returns the first record of the root directory, which is its own.
fn first_record(volume: &dyn Volume, tree: &Descriptor) -> Result<Option<Record>> {
    let at = tree.root.block * u64::from(tree.block_bytes);
    match check_range(at, 2048, volume.len_bytes()) {
        Ok(()) => Ok(Record::decode(&read_vec(volume, at, 2048)?)),
        Err(_) => Ok(None),
    }
}

struct Iso {
    volume: Arc<dyn Volume>,
    info: FsInfo,
    tree: Descriptor,
    /// Bytes before the fields of Rock Ridge, if the image has them.
    skip: Option<usize>,
}

/// A file or directory: its first record and its pieces.
struct Node {
    record: Record,
    rock: Rock,
    /// First byte and length of each piece of the content.
    pieces: Vec<(u64, u32)>,
}

impl Node {
    fn kind(&self) -> NodeKind {
        let plain = match self.record.is_directory || self.rock.child.is_some() {
            true => NodeKind::Directory,
            false => NodeKind::File,
        };
        match self.rock.kind() {
            // Where the records are decides, whatever the mode says.
            Some(NodeKind::File | NodeKind::Directory) | None => plain,
            Some(kind) => kind,
        }
    }

    fn len(&self) -> u64 {
        self.pieces.iter().map(|(_, len)| u64::from(*len)).sum()
    }
}

impl Iso {
    /// Reads the record at a byte; none if there is none in the rest of its sector.
    fn record(&self, at: u64) -> Result<Option<Record>> {
        let left = SECTOR - at % SECTOR;
        let left = left
            .min(self.volume.len_bytes().saturating_sub(at))
            .min(255);
        let bytes = read_vec(&*self.volume, at, usize::try_from(left).unwrap_or(0))?;
        Ok(Record::decode(&bytes))
    }

    fn rock(&self, record: &Record) -> Result<Rock> {
        match self.skip.and_then(|skip| record.system_use.get(skip..)) {
            Some(fields) if !self.tree.is_joliet => {
                Rock::read(&*self.volume, fields, self.tree.block_bytes)
            }
            _ => Ok(Rock::default()),
        }
    }

    fn node(&self, id: NodeId) -> Result<Node> {
        if id == ROOT {
            let record = self.tree.root.clone();
            let own = first_record(&*self.volume, &self.tree)?;
            let rock = own.map_or(Ok(Rock::default()), |own| self.rock(&own))?;
            return Ok(self.with_pieces(record, rock, Vec::new()));
        }
        let no_record = || Error::corrupt("directory", format!("no record {:#x}", id.number));
        if id.tree != 0 || id.number < 16 * SECTOR {
            return Err(no_record());
        }
        let record = self.record(id.number)?.ok_or_else(no_record)?;
        let rock = self.rock(&record)?;
        if let Some(block) = rock.child {
            // What a moved directory is stands in its own record, the first one in it.
            let at = u64::from(block) * u64::from(self.tree.block_bytes);
            let moved = self.record(at)?.ok_or_else(no_record)?;
            return Ok(self.with_pieces(moved, rock, Vec::new()));
        }
        let mut rest = Vec::new();
        let (mut at, mut last) = (id.number, record.clone());
        while last.goes_on {
            at = self.behind(at)?;
            last = self.record(at)?.ok_or_else(no_record)?;
            if rest.len() == MOST_PIECES {
                return Err(Error::corrupt("directory", "a file of too many pieces").at_byte(at));
            }
            rest.push(last.clone());
        }
        Ok(self.with_pieces(record, rock, rest))
    }

    fn with_pieces(&self, record: Record, rock: Rock, rest: Vec<Record>) -> Node {
        let block_bytes = u64::from(self.tree.block_bytes);
        let pieces = std::iter::once(&record).chain(&rest);
        let pieces = pieces.map(|piece| (piece.block * block_bytes, piece.len_bytes));
        Node {
            pieces: pieces.collect(),
            record,
            rock,
        }
    }

    /// Returns where the record that follows the one at `at` begins.
    fn behind(&self, at: u64) -> Result<u64> {
        let len = read_vec(&*self.volume, at, 1)?
            .first()
            .copied()
            .unwrap_or(0);
        let next = at.saturating_add(u64::from(len));
        let follows = next % SECTOR != 0 && read_vec(&*self.volume, next, 1)? != [0];
        Ok(if follows {
            next
        } else {
            at - at % SECTOR + SECTOR
        })
    }

    fn name(&self, record: &Record, rock: &Rock) -> Vec<u8> {
        match &rock.name {
            Some(name) => name
                .iter()
                .map(|byte| {
                    if matches!(byte, 0 | b'/') {
                        b'?'
                    } else {
                        *byte
                    }
                })
                .collect(),
            None if self.tree.is_joliet => record.joliet_name(),
            None => record.plain_name(),
        }
    }
}

impl FileSystem for Iso {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    fn stat(&self, id: NodeId) -> Result<Stat> {
        let node = self.node(id)?;
        let kind = node.kind();
        let usual = if kind == NodeKind::Directory {
            0o555
        } else {
            0o444
        };
        let [mode, links, uid, gid] = node.rock.attributes.unwrap_or([usual, 1, 0, 0]);
        Ok(Stat {
            kind,
            len_bytes: match (kind, &node.rock.link) {
                (NodeKind::Link, Some(link)) => link.len() as u64,
                (NodeKind::File | NodeKind::Directory, _) => node.len(),
                _ => 0,
            },
            mode: mode & 0o7777,
            uid,
            gid,
            links,
            modified: node.rock.modified.unwrap_or(node.record.modified),
            device: node
                .rock
                .device
                .filter(|_| matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice)),
        })
    }

    fn visit(
        &self,
        directory: NodeId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let node = self.node(directory)?;
        if node.kind() != NodeKind::Directory {
            return Err(wrong_kind(directory, "directory"));
        }
        let Some((start, len)) = node
            .pieces
            .first()
            .filter(|(_, len)| *len <= LONGEST_DIRECTORY)
        else {
            return Err(Error::corrupt("directory", "it is too long"));
        };
        let (mut at, end) = (*start, start.saturating_add(u64::from(*len)));
        let mut is_rest = false;
        while at < end {
            let Some(record) = self.record(at)? else {
                // The rest of the sector is empty.
                at = at - at % SECTOR + SECTOR;
                continue;
            };
            let here = at;
            at = self.behind(at)?;
            let is_piece = std::mem::replace(&mut is_rest, record.goes_on);
            if is_piece || record.is_dot() {
                continue;
            }
            let rock = self.rock(&record)?;
            let name = self.name(&record, &rock);
            if rock.is_moved || matches!(name.as_slice(), b"" | b"." | b"..") {
                continue;
            }
            let entry = Entry {
                name,
                node: NodeId {
                    tree: 0,
                    number: here,
                },
                kind: None,
            };
            if each(entry).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_at(&self, file: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let node = self.node(file)?;
        if node.kind() != NodeKind::File {
            return Err(wrong_kind(file, "file"));
        }
        if node.rock.is_compressed || node.record.is_interleaved {
            return Err(Error::unsupported(
                "a file that is compressed (zisofs) or interleaved",
            ));
        }
        let (mut done, mut skip) = (0, offset);
        for (start, len) in node.pieces {
            let len = u64::from(len);
            if skip >= len {
                skip -= len;
                continue;
            }
            let rest = buf.get_mut(done..).unwrap_or_default();
            let most = usize::try_from(len - skip)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let Some(rest) = rest.get_mut(..most).filter(|rest| !rest.is_empty()) else {
                break;
            };
            self.volume.read_at(start + skip, rest)?;
            done += most;
            skip = 0;
        }
        Ok(done)
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let node = self.node(link)?;
        match node.rock.link {
            Some(target) if node.rock.kind() == Some(NodeKind::Link) => Ok(target),
            _ => Err(wrong_kind(link, "link")),
        }
    }
}
