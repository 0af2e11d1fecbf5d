//! The log, replayed in memory: which pieces of the volume, and which inodes, it has later. A
//! transaction counts once it is committed; a buffer that is cancelled keeps what the disk has.
//!
//! New chunks of inodes need no replay (every inode that is in use there has its own item), nor do
//! the lists of what is to be freed.

mod items;
mod record;
mod transactions;

use std::collections::BTreeMap;

use hako_block::{Error, Result};

use self::items::Changes;
pub(super) use self::items::Patches;
use self::record::{BLOCK_BYTES, Log, Record};
use self::transactions::{Transactions, is_unmount};
use super::store::Piece;
use super::superblock::Superblock;
use crate::volume::{Volume, check_range};

/// Blocks of the log that Linux writes at once at most (8 buffers of 256 KiB): behind the first one
/// that is missing there may be others.
const IN_FLIGHT: u64 = 8 * 512;

/// What a log changes.
#[derive(Default)]
pub(super) struct Replay {
    /// Pieces of the volume.
    pub(super) pieces: BTreeMap<u64, Piece>,
    /// Inodes.
    pub(super) inodes: Patches,
    /// Whether it could not be replayed as a whole, or not be found.
    pub(super) is_partial: bool,
    /// What of it could not be replayed, or was under way.
    pub(super) remarks: Vec<String>,
}

/// Reads the log; nothing changes if the file system was unmounted. Errors: corrupt if it cannot be
/// replayed at all.
pub(super) fn replay(volume: &dyn Volume, superblock: &Superblock) -> Result<Replay> {
    if superblock.log_start == 0 {
        let remark = "its log is on another disk: if it was not unmounted, what was written last is \
                      missing";
        return Ok(Replay {
            is_partial: true,
            remarks: vec![remark.to_owned()],
            ..Replay::default()
        });
    }
    let blocks = u64::from(superblock.log_blocks);
    let log = Log {
        volume,
        at: superblock.position(superblock.log_start, blocks)?,
        n_blocks: blocks * u64::from(superblock.block_bytes) / BLOCK_BYTES,
        uuid: superblock.uuid,
        has_sums: superblock.has_sums,
    };
    if log.n_blocks == 0 {
        return Err(Error::corrupt("log", "has no blocks"));
    }
    let bytes = usize::try_from(log.n_blocks * BLOCK_BYTES).unwrap_or(usize::MAX);
    check_range(log.at, bytes, volume.len_bytes())?;
    match log.last()? {
        Some(end) if end.is_whole && is_unmount(&end.last) => Ok(Replay::default()),
        Some(end) => log.replay(&end),
        None => Ok(Replay::default()),
    }
}

/// Where a log ends.
struct End {
    /// The last whole record.
    last: Record,
    /// Nothing newer is behind it. There is when a write was cut off, or damaged later.
    is_whole: bool,
}

impl Log<'_> {
    /// Returns the last record; none if nothing was ever written.
    fn last(&self) -> Result<Option<End>> {
        let first = self.round(0)?;
        if first == 0 {
            return Ok(None);
        }
        let end = self.end_of_round(first)?;
        let has_wrapped = self.round(self.n_blocks - 1)? != 0;
        let mut n_before = (2 * IN_FLIGHT).min(self.n_blocks / 2);
        if !has_wrapped {
            n_before = n_before.min(end);
        }
        let from = (end + self.n_blocks - n_before) % self.n_blocks;
        for header in self.headers(from, n_before)? {
            let Some(mut last) = self.record(header)? else {
                continue;
            };
            while let Some(next) = self.next(&last)? {
                last = next;
            }
            let is_whole = last.end == end % self.n_blocks;
            return Ok(Some(End { last, is_whole }));
        }
        Err(Error::corrupt(
            "log",
            format!("no record before block {end}"),
        ))
    }

    /// Returns the first block that was not written in the round of block 0, which is `first`: 1 to
    /// the number of all.
    fn end_of_round(&self, first: u32) -> Result<u64> {
        if self.round(self.n_blocks - 1)? == first {
            return Ok(self.n_blocks);
        }
        let (mut written, mut other) = (0, self.n_blocks - 1);
        while other - written > 1 {
            let middle = written + (other - written) / 2;
            match self.round(middle)? == first {
                true => written = middle,
                false => other = middle,
            }
        }
        Ok(other)
    }

    /// Returns the record behind another one, if it is whole and as new as it must be.
    fn next(&self, record: &Record) -> Result<Option<Record>> {
        let has_wrapped = u64::from(record.end <= record.at);
        let round = (record.sequence >> 32) + has_wrapped;
        let next = self.record(record.end)?;
        Ok(next.filter(|next| next.sequence == round << 32 | record.end))
    }

    /// Takes in all from the tail to the end.
    fn replay(&self, end: &End) -> Result<Replay> {
        let last = end.last.sequence;
        let tail = end.last.tail;
        let mut remarks = Vec::new();
        if !end.is_whole {
            remarks.push(damage("its end is not whole"));
        }
        let mut changes = Changes::default();
        let mut transactions = Transactions::default();
        let block = tail & 0xffff_ffff;
        if block >= self.n_blocks || tail > last {
            return Err(Error::corrupt("log", format!("its tail is at {tail:#x}")));
        }
        let mut next = self.record(block)?.filter(|record| record.sequence == tail);
        let mut have = None;
        while let Some(record) = next {
            transactions.take(&record, &mut |items| changes.take(items))?;
            have = Some(record.sequence);
            if record.sequence >= last {
                break;
            }
            next = self.next(&record)?;
        }
        if have != Some(last) {
            remarks.push(damage("a record in the middle is not whole"));
        }
        let is_partial = !remarks.is_empty();
        if !changes.intended.is_empty() {
            let n = changes.intended.len();
            remarks.push(format!(
                "it was not unmounted, and {n} changes of files' blocks were under way: these files \
                 may be as before or in between"
            ));
        }
        Ok(Replay {
            pieces: changes.pieces,
            inodes: changes.inodes,
            is_partial,
            remarks,
        })
    }
}

fn damage(what: &str) -> String {
    format!(
        "it was not unmounted, and its log is damaged ({what}): what was written last is missing"
    )
}
