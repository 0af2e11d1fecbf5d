//! Transactions: what the operations in the records make up. Those of several are mixed, and one may
//! go on in the next record.

use std::collections::HashMap;

use hako_block::{Error, Result};

use super::record::Record;
use crate::bytes::be::u32_at;
use crate::bytes::le;

const OPERATION_BYTES: usize = 12;
const HEADER_BYTES: usize = 16;
/// "TRAN"
const HEADER_MAGIC: u32 = 0x5452_414e;
/// Bytes of transactions that are not committed yet. Linux keeps each below an eighth of the log.
const MOST_BYTES: usize = 256 << 20;

const FLAG_START: u8 = 0x1;
const FLAG_COMMIT: u8 = 0x2;
const FLAG_CONTINUE: u8 = 0x4;
const FLAG_CONTINUED: u8 = 0x8;
const FLAG_END: u8 = 0x10;
const FLAG_UNMOUNT: u8 = 0x20;

/// A change: a description, and the bytes that it is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Item {
    /// The description first.
    pub(super) regions: Vec<Vec<u8>>,
    n_regions: usize,
}

/// Transactions that are not committed yet, by their numbers.
#[derive(Default)]
pub(super) struct Transactions {
    open: HashMap<u32, Open>,
    n_bytes: usize,
}

#[derive(Default)]
struct Open {
    has_header: bool,
    items: Vec<Item>,
    n_bytes: usize,
}

impl Item {
    /// Returns what it is: the number in its description.
    pub(super) fn kind(&self) -> u16 {
        le::u16_at(self.region(0), 0)
    }

    /// Returns a region, empty if there is none.
    pub(super) fn region(&self, index: usize) -> &[u8] {
        self.regions.get(index).map_or(&[], Vec::as_slice)
    }
}

/// Returns whether a record says that the file system was unmounted.
pub(super) fn is_unmount(record: &Record) -> bool {
    record.n_operations == 1
        && record
            .data
            .get(9)
            .is_some_and(|flags| flags & FLAG_UNMOUNT != 0)
}

impl Transactions {
    /// Takes in a record, and calls `commit` for the items of each transaction that ends in it.
    pub(super) fn take(
        &mut self,
        record: &Record,
        commit: &mut dyn FnMut(Vec<Item>) -> Result<()>,
    ) -> Result<()> {
        let mut rest = record.data.as_slice();
        for _ in 0..record.n_operations {
            let damaged = |what: &str| {
                Error::corrupt(
                    format!("log, record at block {}", record.at),
                    what.to_owned(),
                )
            };
            let Some((head, others)) = rest.split_at_checked(OPERATION_BYTES) else {
                return Err(damaged("fewer operations than it says"));
            };
            let len = usize::try_from(u32_at(head, 4)).unwrap_or(usize::MAX);
            let Some((bytes, others)) = others.split_at_checked(len) else {
                return Err(damaged("an operation longer than the record"));
            };
            rest = others;
            let flags = head.get(9).copied().unwrap_or(0);
            if let Some(items) = self
                .operate(u32_at(head, 0), flags, bytes)
                .map_err(damaged)?
            {
                commit(items)?;
            }
            if self.n_bytes > MOST_BYTES {
                return Err(Error::unsupported(format!(
                    "its log has transactions of more than {MOST_BYTES} bytes"
                )));
            }
        }
        Ok(())
    }

    /// Does one operation. Returns the items of the transaction that it commits.
    fn operate(
        &mut self,
        number: u32,
        flags: u8,
        bytes: &[u8],
    ) -> std::result::Result<Option<Vec<Item>>, &'static str> {
        if flags & FLAG_START != 0 {
            self.close(number);
            self.open.insert(number, Open::default());
            return Ok(None);
        }
        // It began before the tail: all it changed is in its place.
        let Some(open) = self.open.get_mut(&number) else {
            return Ok(None);
        };
        let continued = flags & FLAG_CONTINUED != 0;
        match flags & !(FLAG_END | FLAG_CONTINUED) {
            FLAG_COMMIT if !continued => return Ok(self.close(number)),
            FLAG_UNMOUNT if !continued => {
                self.close(number);
                return Ok(None);
            }
            0 | FLAG_CONTINUE => {}
            _ => return Err("an operation with unknown flags"),
        }
        open.n_bytes += bytes.len();
        self.n_bytes += bytes.len();
        match continued {
            true => open.go_on(bytes),
            false => open.add(bytes)?,
        }
        Ok(None)
    }

    fn close(&mut self, number: u32) -> Option<Vec<Item>> {
        let open = self.open.remove(&number)?;
        self.n_bytes -= open.n_bytes;
        Some(open.items)
    }
}

impl Open {
    /// Adds a region: the header of the transaction, or one of an item.
    fn add(&mut self, bytes: &[u8]) -> std::result::Result<(), &'static str> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.has_header {
            if bytes.len() > HEADER_BYTES
                || bytes.len() >= 4 && le::u32_at(bytes, 0) != HEADER_MAGIC
            {
                return Err("a transaction without a header");
            }
            // The rest of a shorter one follows in the next record.
            self.has_header = bytes.len() == HEADER_BYTES;
            return Ok(());
        }
        match self.items.last_mut() {
            Some(item) if item.regions.len() < item.n_regions => item.regions.push(bytes.to_vec()),
            _ => self.items.push(Item {
                regions: vec![bytes.to_vec()],
                n_regions: usize::from(le::u16_at(bytes, 2)),
            }),
        }
        Ok(())
    }

    /// Adds to the last region.
    fn go_on(&mut self, bytes: &[u8]) {
        if !self.has_header {
            self.has_header = true;
            return;
        }
        let Some(item) = self.items.last_mut() else {
            return;
        };
        if let Some(region) = item.regions.last_mut() {
            region.extend_from_slice(bytes);
        }
        if let [description] = item.regions.as_slice() {
            // It may have been too short to tell.
            item.n_regions = usize::from(le::u16_at(description, 2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(flags: u8, bytes: &[u8]) -> Vec<u8> {
        let mut operation = vec![0, 0, 0, 7];
        operation.extend((bytes.len() as u32).to_be_bytes());
        operation.extend([0x69, flags, 0, 0]);
        operation.extend(bytes);
        operation
    }

    fn record(operations: &[Vec<u8>]) -> Record {
        Record {
            at: 0,
            end: 1,
            sequence: 0,
            tail: 0,
            n_operations: operations.len() as u32,
            data: operations.concat(),
        }
    }

    fn committed(records: &[Record]) -> Vec<Vec<Vec<u8>>> {
        let mut transactions = Transactions::default();
        let mut found = Vec::new();
        for record in records {
            transactions
                .take(record, &mut |items| {
                    found.extend(items.into_iter().map(|item| item.regions));
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(transactions.n_bytes, 0);
        found
    }

    #[test]
    fn items_that_go_on_in_the_next_record_are_put_together() {
        let header = [b"NART".as_slice(), &[0; 12]].concat();
        let first = record(&[
            operation(FLAG_START, &[]),
            operation(0, &header),
            operation(0, &[1, 1, 2, 0]),
            operation(FLAG_CONTINUE, b"ab"),
        ]);
        let second = record(&[
            operation(FLAG_CONTINUED | FLAG_END, b"cd"),
            operation(0, &[2, 2, 1, 0]),
            operation(FLAG_COMMIT, &[]),
        ]);
        let items = committed(&[first, second]);
        assert_eq!(
            items,
            [
                vec![vec![1, 1, 2, 0], b"abcd".to_vec()],
                vec![vec![2, 2, 1, 0]]
            ]
        );
    }

    #[test]
    fn what_began_before_the_tail_or_has_no_end_counts_for_nothing() {
        let items = committed(&[record(&[
            operation(0, b"rest"),
            operation(FLAG_COMMIT, &[]),
        ])]);
        assert!(items.is_empty());
        let mut transactions = Transactions::default();
        let cut = record(&[operation(0, b"much")[..14].to_vec()]);
        assert!(transactions.take(&cut, &mut |_| Ok(())).is_err());
    }
}
