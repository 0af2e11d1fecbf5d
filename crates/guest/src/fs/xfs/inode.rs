//! Inodes ("XFS Algorithms & Data Structures", On-disk Inode).

use hako_block::{Error, Result, Uuid};

use super::checksum;
use super::extents::{Fork, List, Node};
use crate::bytes::array_at;
use crate::bytes::be::{u16_at, u32_at, u64_at};
use crate::fs::{NodeKind, Stat, Time};

/// Bytes of the fields of versions 1 and 2, and of version 3.
pub(super) const CORE_BYTES: [usize; 2] = [100, 176];
const MAGIC: &[u8; 2] = b"IN";
const CHECKSUM_AT: usize = 100;
/// di_flags: the content is on the realtime device.
const FLAG_REALTIME: u16 = 0x1;
/// di_flags2: times count nanoseconds in 64 bits.
pub(super) const FLAG2_BIGTIME: u64 = 0x8;
/// di_flags2: the number of extents has 64 bits.
pub(super) const FLAG2_NREXT64: u64 = 0x10;
/// Nanoseconds of bigtime count from here, in seconds since 1970.
const BIGTIME_FROM: i64 = -(1 << 31);

/// Where the content of an inode is.
pub(super) enum Content {
    /// In the inode.
    Local(Vec<u8>),
    /// In blocks.
    Blocks(Fork),
    /// Nowhere: devices, pipes, sockets.
    None,
}

/// An inode.
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) content: Content,
    raw: Vec<u8>,
}

impl Inode {
    /// Decodes the inode in `raw`, at least 256 bytes. `is_sealed`: its checksum and identity hold;
    /// they do not where the log changed it.
    pub(super) fn decode(number: u64, raw: Vec<u8>, seal: Option<Uuid>) -> Result<Self> {
        let mut inode = Self {
            number,
            content: Content::None,
            raw,
        };
        if !inode.raw.starts_with(MAGIC) {
            return Err(inode.corrupt("is none: its magic number is not IN"));
        }
        if !(1..=3).contains(&inode.version()) {
            return Err(inode.corrupt(format!("has version {}", inode.version())));
        }
        if let Some(uuid) = seal {
            inode.check_seal(uuid)?;
        }
        if u16_at(&inode.raw, 2) == 0 {
            return Err(inode.corrupt("is not in use"));
        }
        if inode.len_bytes() > i64::MAX as u64 {
            return Err(inode.corrupt(format!("a length of {} bytes", inode.len_bytes())));
        }
        inode.content = inode.decode_content()?;
        Ok(inode)
    }

    /// Returns an error about this inode.
    pub(super) fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::corrupt(self.place(), what)
    }

    /// Returns its name for messages.
    pub(super) fn place(&self) -> String {
        format!("inode {}", self.number)
    }

    /// Returns what it is.
    pub(super) fn kind(&self) -> Result<NodeKind> {
        match u16_at(&self.raw, 2) >> 12 {
            1 => Ok(NodeKind::Fifo),
            2 => Ok(NodeKind::CharDevice),
            4 => Ok(NodeKind::Directory),
            6 => Ok(NodeKind::BlockDevice),
            8 => Ok(NodeKind::File),
            10 => Ok(NodeKind::Link),
            12 => Ok(NodeKind::Socket),
            other => Err(self.corrupt(format!("is of the unknown kind {other}"))),
        }
    }

    /// Returns the length of its content.
    pub(super) fn len_bytes(&self) -> u64 {
        u64_at(&self.raw, 56)
    }

    /// Refuses content that is on the realtime device.
    pub(super) fn check_readable(&self) -> Result<()> {
        if u16_at(&self.raw, 90) & FLAG_REALTIME != 0 && self.kind()? == NodeKind::File {
            return Err(Error::unsupported(format!(
                "{} is on the realtime device",
                self.place()
            )));
        }
        Ok(())
    }

    /// Returns what stat(2) would.
    pub(super) fn stat(&self) -> Result<Stat> {
        let raw = &self.raw;
        let kind = self.kind()?;
        let is_device = matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice);
        let device = u32_at(self.fork_bytes(), 0);
        Ok(Stat {
            kind,
            len_bytes: self.len_bytes(),
            mode: u32::from(u16_at(raw, 2)) & 0o7777,
            uid: u32_at(raw, 8),
            gid: u32_at(raw, 12),
            links: match self.version() {
                1 => u32::from(u16_at(raw, 6)),
                _ => u32_at(raw, 16),
            },
            modified: self.modified(),
            device: is_device.then_some((device >> 18, device & 0x3_ffff)),
        })
    }

    fn version(&self) -> u8 {
        self.raw.get(4).copied().unwrap_or(0)
    }

    fn flags2(&self) -> u64 {
        if self.version() == 3 {
            u64_at(&self.raw, 120)
        } else {
            0
        }
    }

    fn modified(&self) -> Time {
        const SECOND: u64 = 1_000_000_000;
        if self.flags2() & FLAG2_BIGTIME == 0 {
            return Time {
                seconds: i64::from(u32_at(&self.raw, 40).cast_signed()),
                nanoseconds: u32_at(&self.raw, 44).min(999_999_999),
            };
        }
        let count = u64_at(&self.raw, 40);
        Time {
            seconds: (count / SECOND).cast_signed() + BIGTIME_FROM,
            nanoseconds: (count % SECOND) as u32,
        }
    }

    /// Returns the bytes behind the fields, up to the attributes.
    fn fork_bytes(&self) -> &[u8] {
        let from = CORE_BYTES[usize::from(self.version() == 3)];
        let bytes = self.raw.get(from..).unwrap_or(&[]);
        match usize::from(self.raw.get(82).copied().unwrap_or(0)) * 8 {
            0 => bytes,
            attributes_at => bytes.get(..attributes_at).unwrap_or(bytes),
        }
    }

    fn n_extents(&self) -> u64 {
        match self.flags2() & FLAG2_NREXT64 {
            0 => u64::from(u32_at(&self.raw, 76)),
            _ => u64_at(&self.raw, 24),
        }
    }

    fn decode_content(&self) -> Result<Content> {
        let fork = self.fork_bytes();
        let in_fork = |what: String| self.corrupt(format!("its extents: {what}"));
        match self.raw.get(5) {
            Some(0) => Ok(Content::None),
            Some(1) => {
                let bytes = usize::try_from(self.len_bytes()).ok();
                let local = bytes.and_then(|len| fork.get(..len));
                let local = local.filter(|_| self.kind().is_ok_and(|kind| kind != NodeKind::File));
                let local = local.ok_or_else(|| self.corrupt("its content does not fit in it"))?;
                Ok(Content::Local(local.to_vec()))
            }
            Some(2) => {
                let list = List::decode(fork, self.n_extents(), &(0..u64::MAX));
                Ok(Content::Blocks(Fork::List(list.map_err(in_fork)?)))
            }
            Some(3) => {
                let root = Node::decode_root(fork).map_err(in_fork)?;
                Ok(Content::Blocks(Fork::Tree(root)))
            }
            other => Err(self.corrupt(format!("content of the unknown format {other:?}"))),
        }
    }

    fn check_seal(&self, uuid: Uuid) -> Result<()> {
        if self.version() != 3 {
            return Err(self.corrupt(format!("has version {}", self.version())));
        }
        if !checksum::is_sound(&self.raw, CHECKSUM_AT) {
            return Err(self.corrupt("its checksum is wrong"));
        }
        match u64_at(&self.raw, 152) == self.number && Uuid(array_at(&self.raw, 160)) == uuid {
            true => Ok(()),
            false => Err(self.corrupt(format!("says it is inode {}", u64_at(&self.raw, 152)))),
        }
    }
}
