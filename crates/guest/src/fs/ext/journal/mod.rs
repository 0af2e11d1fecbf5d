//! The journal (jbd2), replayed in memory: which blocks it holds later copies of. A transaction
//! counts once it is committed; a block that a later transaction revokes keeps what it has.

mod records;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hako_block::{Error, Result};

use self::records::{Head, Kind, commit_time, crc32_be, header, is_old_sum};
use super::Ext;
use super::blocks::Logged;
use super::features::{COMPAT_HAS_JOURNAL, INCOMPAT_RECOVER};
use super::inode::Inode;
use crate::fs::NodeKind;

/// Copies and revocations that are kept: those of 16 GiB of journal with blocks of 4 KiB.
const MOST_KEPT: usize = 1 << 22;

/// What a journal changes.
pub(super) struct Replay {
    /// Blocks of the file system that have a later copy.
    pub(super) copies: BTreeMap<u64, Logged>,
    /// What of it could not be replayed.
    pub(super) remarks: Vec<String>,
}

/// Reads the journal of a file system that was not unmounted; none if there is nothing to replay.
/// Errors: corrupt if it cannot be replayed at all; unsupported if it is on another disk or has
/// unknown features.
pub(super) fn replay(fs: &Ext) -> Result<Option<Replay>> {
    let features = fs.superblock.features;
    if features.compat & COMPAT_HAS_JOURNAL == 0 || !features.incompat(INCOMPAT_RECOVER) {
        return Ok(None);
    }
    if fs.superblock.journal_inode == 0 {
        return Err(
            Error::unsupported("it was not unmounted, and its journal is on another disk")
                .hint("mount it once together with its journal, or run e2fsck -j"),
        );
    }
    let log = Log::open(fs)?;
    if log.head.start == 0 {
        return Ok(None);
    }
    let scan = log.scan()?;
    log.copies(scan).map(Some)
}

/// A journal in an inode.
struct Log<'a> {
    fs: &'a Ext,
    inode: Arc<Inode>,
    head: Head,
}

/// The committed records of a log, and why it ends.
#[derive(Default)]
struct Scan {
    records: Vec<Record>,
    /// The first transaction that is not there.
    end: u32,
    remarks: Vec<String>,
}

/// A descriptor or revocation.
#[derive(Clone, Copy)]
struct Record {
    kind: Kind,
    /// Its block in the journal.
    at: u32,
    sequence: u32,
}

/// What is known of a transaction before its commit.
struct Begun {
    records: Vec<Record>,
    old_sum: u32,
    is_damaged: bool,
}

impl Begun {
    fn new() -> Self {
        Self {
            records: Vec::new(),
            old_sum: !0,
            is_damaged: false,
        }
    }
}

impl<'a> Log<'a> {
    fn open(fs: &'a Ext) -> Result<Self> {
        let inode = fs.inode(fs.superblock.journal_inode)?;
        if inode.kind()? != NodeKind::File || inode.is_inline() {
            return Err(inode.corrupt("is no journal"));
        }
        let block_bytes = u64::from(fs.blocks.block_bytes());
        let n_blocks = fs.len_bytes(&inode)? / block_bytes;
        let mut block = vec![0; block_bytes as usize];
        fs.read_blocks(&inode, 0, &mut block)?;
        let head = Head::decode(&block, n_blocks)?;
        Ok(Self { fs, inode, head })
    }

    /// Walks from the start of the log to the end of the last transaction that was committed.
    fn scan(&self) -> Result<Scan> {
        let mut scan = Scan {
            end: self.head.sequence,
            ..Scan::default()
        };
        let mut begun = Begun::new();
        let mut last_time = (0, 0);
        let mut at = self.head.start;
        let mut left = self.head.end - self.head.first;
        while left > 0 {
            let block = self.read(at)?;
            let Some((kind, sequence)) = header(&block).filter(|(_, found)| *found == scan.end)
            else {
                break;
            };
            let mut passed = 1;
            match kind {
                Kind::Descriptor => {
                    begun.is_damaged |= !self.head.is_sound(&block);
                    begun.records.push(Record { kind, at, sequence });
                    passed += self.pass(at, &block, &mut begun)?;
                }
                Kind::Revoke => {
                    begun.is_damaged |= !self.head.is_sound(&block);
                    begun.records.push(Record { kind, at, sequence });
                }
                Kind::Commit => {
                    let time = commit_time(&block);
                    if !self.is_whole(&begun, &block) {
                        // Of an earlier round through the ring, if it is older.
                        if time >= last_time {
                            scan.remarks
                                .push(damage(&format!("transaction {sequence} is damaged")));
                        }
                        break;
                    }
                    last_time = time;
                    scan.records.append(&mut begun.records);
                    begun = Begun::new();
                    scan.end = scan.end.wrapping_add(1);
                }
            }
            left = left.saturating_sub(passed);
            at = self.after(at, passed);
        }
        Ok(scan)
    }

    /// Returns the number of copies behind a descriptor.
    fn pass(&self, at: u32, block: &[u8], begun: &mut Begun) -> Result<u32> {
        let n_copies = u32::try_from(self.head.tags(block).len()).unwrap_or(u32::MAX);
        if self.head.has_old_sums {
            begun.old_sum = crc32_be(begun.old_sum, block);
            for copy in 1..=n_copies {
                begun.old_sum = crc32_be(begun.old_sum, &self.read(self.after(at, copy))?);
            }
        }
        Ok(n_copies)
    }

    fn is_whole(&self, begun: &Begun, commit: &[u8]) -> bool {
        let is_old_sum = !self.head.has_old_sums || is_old_sum(commit, begun.old_sum);
        !begun.is_damaged && is_old_sum && self.head.is_sound_commit(commit)
    }

    /// Returns what is to be read in place of which block.
    fn copies(&self, scan: Scan) -> Result<Replay> {
        let revoked = self.revoked(&scan)?;
        let mut remarks = scan.remarks.clone();
        if self.has_fast_commits(scan.end)? {
            remarks.push(
                "it was not unmounted, and its journal has fast commits, which hako does not \
                 replay: what was written in the last seconds is missing"
                    .to_owned(),
            );
        }
        let mut copies = BTreeMap::new();
        let mut n_damaged = 0;
        for record in scan
            .records
            .iter()
            .filter(|record| record.kind == Kind::Descriptor)
        {
            let descriptor = self.read(record.at)?;
            for (tag, n) in self.head.tags(&descriptor).into_iter().zip(1..) {
                let is_revoked = revoked
                    .get(&tag.block)
                    .is_some_and(|by| by.wrapping_sub(record.sequence).cast_signed() >= 0);
                if is_revoked {
                    continue;
                }
                let at = self.after(record.at, n);
                if self.head.has_sums()
                    && !self
                        .head
                        .is_sound_copy(tag, record.sequence, &self.read(at)?)
                {
                    n_damaged += 1;
                    continue;
                }
                let copy = self.place(at)?;
                copies.insert(
                    tag.block,
                    Logged {
                        copy,
                        is_escaped: tag.is_escaped,
                    },
                );
                self.check_kept(copies.len())?;
            }
        }
        if n_damaged > 0 {
            remarks.push(damage(&format!("{n_damaged} of its blocks are damaged")));
        }
        Ok(Replay { copies, remarks })
    }

    /// Returns whether changes follow the last transaction that are not those of blocks.
    fn has_fast_commits(&self, end: u32) -> Result<bool> {
        // Linux leaves out the first of their blocks.
        if self.head.n_fast_blocks < 2 {
            return Ok(false);
        }
        Ok(records::is_fast_commit(&self.read(self.head.end + 1)?, end))
    }

    /// Returns for each block that is revoked the last transaction that does so.
    fn revoked(&self, scan: &Scan) -> Result<HashMap<u64, u32>> {
        let mut revoked = HashMap::new();
        for record in scan
            .records
            .iter()
            .filter(|record| record.kind == Kind::Revoke)
        {
            for block in self.head.revoked(&self.read(record.at)?) {
                // Records are in order: the last one counts.
                revoked.insert(block, record.sequence);
                self.check_kept(revoked.len())?;
            }
        }
        Ok(revoked)
    }

    fn check_kept(&self, n_kept: usize) -> Result<()> {
        match n_kept <= MOST_KEPT {
            true => Ok(()),
            false => Err(Error::unsupported(format!(
                "its journal changes more than {MOST_KEPT} blocks"
            ))),
        }
    }

    /// Returns the block `n` behind `at` in the ring.
    fn after(&self, at: u32, n: u32) -> u32 {
        let len = u64::from(self.head.end - self.head.first);
        let distance = (u64::from(at - self.head.first) + u64::from(n)) % len;
        // Below the length of the ring, which has 32 bits.
        self.head.first + distance as u32
    }

    fn read(&self, at: u32) -> Result<Vec<u8>> {
        self.fs.blocks.block(self.place(at)?)
    }

    /// Returns the block of the file system that holds a block of the journal.
    fn place(&self, at: u32) -> Result<u64> {
        let run = self.fs.run(&self.inode, u64::from(at), 1)?;
        run.at
            .ok_or_else(|| Error::corrupt("journal", format!("block {at} is not there")))
    }
}

fn damage(what: &str) -> String {
    format!(
        "it was not unmounted, and its journal is damaged ({what}): what was written last may be \
         missing"
    )
}
