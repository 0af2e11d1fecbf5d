//! Zeroing and discarding in place: no bytes are written where the tables can say it.

use std::ops::Range;
use std::sync::Arc;

use hako_block::Result;

use super::image::HostedImage;
use super::table::{Found, Grain, Table};
use super::write::Writer;

impl HostedImage {
    /// Makes a range read as zeros, in an overlay too.
    pub(super) fn zero(&self, range: Range<u64>) -> Result<()> {
        self.for_each_table(range, |writer, table, range| {
            let [head, whole, tail] = self.split(range);
            self.zero_part(writer, table, head)?;
            self.zero_whole(writer, table, whole)?;
            self.zero_part(writer, table, tail)
        })
    }

    /// Lets go of the whole grains in a range.
    pub(super) fn trim(&self, range: Range<u64>) -> Result<()> {
        if self.has_parent {
            // A hole would show the parent's bytes again.
            return self.zero(range);
        }
        self.for_each_table(range, |writer, table, range| {
            let [_, whole, _] = self.split(range);
            writer.release(&self.tables, table, self.entries(&whole), Grain::Hole)
        })
    }

    /// Calls `act` for the part of `range` in each grain table; where a hole reads as zeros, not
    /// for tables without entries.
    fn for_each_table(
        &self,
        range: Range<u64>,
        act: impl Fn(&Writer, &Arc<Table>, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let writer = self.writer_for(&range)?;
        let span = self.geometry().table_span();
        let mut offset = range.start;
        while offset < range.end {
            let index = offset / span;
            let n_tables = match self.tables.find(index)? {
                Found::Empty(n_tables) if !self.has_parent => n_tables,
                _ => {
                    let _in_use = writer.use_grains();
                    let table = self.tables.get_or_new(index)?;
                    act(writer, &table, offset..range.end.min((index + 1) * span))?;
                    1
                }
            };
            offset = (index + n_tables) * span;
            self.flush_if_much(writer)?;
        }
        Ok(())
    }

    /// Splits a range into a part of a grain, whole grains, and another part; the last grain of
    /// the disk is whole up to the capacity.
    fn split(&self, range: Range<u64>) -> [Range<u64>; 3] {
        let grain = self.geometry().grain;
        let head_end = range.start.next_multiple_of(grain).min(range.end);
        let whole_end = match range.end {
            end if end == self.geometry().capacity => end,
            end => end - end % grain,
        };
        let whole_end = whole_end.max(head_end);
        [
            range.start..head_end,
            head_end..whole_end,
            whole_end..range.end,
        ]
    }

    /// Returns the entries of the grains that a range of one table touches.
    fn entries(&self, range: &Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let geometry = self.geometry();
        geometry.place(range.start).entry..geometry.place(range.end - 1).entry + 1
    }

    fn zero_whole(&self, writer: &Writer, table: &Arc<Table>, range: Range<u64>) -> Result<()> {
        let value = match (self.geometry().zeroed_grains, self.has_parent) {
            (true, _) => Grain::Zero,
            (false, false) => Grain::Hole,
            (false, true) => return self.store_zeros(writer, table, range),
        };
        writer.release(&self.tables, table, self.entries(&range), value)
    }

    /// Zeroes a range inside one grain.
    fn zero_part(&self, writer: &Writer, table: &Arc<Table>, range: Range<u64>) -> Result<()> {
        let entries = self.entries(&range);
        if entries.is_empty() {
            return Ok(());
        }
        match self.tables.grain(table, entries.start)? {
            Grain::Hole if self.has_parent && self.geometry().zeroed_grains => {
                writer.release(&self.tables, table, entries, Grain::Zero)
            }
            Grain::Hole if !self.has_parent => Ok(()),
            Grain::Zero => Ok(()),
            Grain::Hole | Grain::At(_) => self.store_zeros(writer, table, range),
        }
    }

    /// Stores zeros: in the grains that are there, and in new ones.
    fn store_zeros(&self, writer: &Writer, table: &Arc<Table>, range: Range<u64>) -> Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let run = self.run_of(table, offset, range.end)?;
            offset += match &run.host {
                Some(host) => {
                    self.storage()
                        .punch_hole(host.offset..host.offset + run.len)?;
                    run.len
                }
                // New grains read as zeros without a byte written.
                None => self.store(writer, table, offset..run.end(), &[])?,
            };
        }
        Ok(())
    }
}
