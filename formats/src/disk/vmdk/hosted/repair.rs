//! After an unclean shutdown: the redundant tables may be older than the first ones. The first
//! flush of the next writer brings them up to date, and only then is the flag cleared.

use super::copies::{Copies, Runs};
use super::table::Tables;
use super::write::Writer;

/// How far the repair of an extent is.
#[derive(Debug, Default)]
pub struct Repair {
    /// The next table to compare.
    next: u64,
    /// Something was found that cannot be right: the flag stays.
    has_faults: bool,
}

impl Repair {
    /// Returns whether every table has two equal copies, as far as the flushes so far have come.
    pub fn is_done(&self, tables: &Tables) -> bool {
        self.next >= tables.geometry.n_tables && !self.has_faults
    }

    /// Marks tables whose copies differ as changed, so that the flush writes both copies; as many
    /// as one flush takes.
    pub fn go_on(&mut self, writer: &Writer, tables: &Tables) {
        let mut runs = Runs::default();
        while self.next < tables.geometry.n_tables && !writer.has_much_to_flush() {
            if self.mark(writer, tables, &mut runs).is_none() {
                self.has_faults = true;
            }
            self.next += 1;
        }
    }

    fn mark(&self, writer: &Writer, tables: &Tables, runs: &mut Runs) -> Option<()> {
        let copies = Copies::read(tables, runs, self.next).ok()?;
        let fault = copies
            .believed()
            .and_then(|table| tables.first_fault(table));
        if fault.is_some() {
            return None;
        }
        if !copies.is_one_missing() && copies.differences().next().is_none() {
            return Some(());
        }
        let table = tables.get_or_new(self.next).ok()?;
        writer.touch(tables, &table).ok()
    }
}
