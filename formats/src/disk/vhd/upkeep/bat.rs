//! Putting the BAT elsewhere: the switch of the header brings a copy into use.

use std::ops::Range;

use hako_block::{Result, SECTOR_BYTES};

use super::super::footer::FOOTER_BYTES;
use super::Disk;

/// Bytes of the BAT copied at once.
const COPY_BYTES: u64 = 64 << 10;

impl Disk<'_> {
    /// Returns the bytes of the BAT in the file, whole sectors.
    pub(super) fn bat(&self) -> Range<u64> {
        let layout = &self.dynamic.layout;
        layout.bat_offset..layout.bat_end()
    }

    /// Copies the BAT to `to`, where nothing is in use, with unused entries up to `len` bytes.
    /// Behind the footer it gets a new one behind itself. Returns once that is on disk.
    pub(super) fn copy_bat(&mut self, to: u64, len: u64) -> Result<()> {
        let layout = self.dynamic.layout;
        let old_len = layout.n_entries * 4;
        let mut done = 0;
        while done < len {
            let mut piece = vec![0xff; (len - done).min(COPY_BYTES) as usize];
            let n_old = old_len.saturating_sub(done).min(piece.len() as u64);
            self.storage
                .read_at(layout.bat_offset + done, &mut piece[..n_old as usize])?;
            self.storage.write_at(to + done, &piece)?;
            done += piece.len() as u64;
        }
        let end = to + len;
        if end > self.tail {
            self.storage
                .write_at(end, &self.dynamic.found.footer.encode())?;
            self.tail = end;
        }
        self.storage.sync()
    }

    /// Moves the BAT behind everything.
    pub(super) fn move_bat_behind(&mut self) -> Result<()> {
        self.copy_and_switch(self.tail + SECTOR_BYTES)
    }

    /// Moves the BAT, which only the footer follows, to a lower offset, and ends the file behind
    /// it.
    pub(super) fn move_bat_down(&mut self, to: u64) -> Result<()> {
        let bat = self.bat();
        if to + (bat.end - bat.start) > bat.start {
            // The copy would lie over what is in use.
            self.move_bat_behind()?;
        }
        self.copy_and_switch(to)?;
        self.end_at(self.bat().end)
    }

    fn copy_and_switch(&mut self, to: u64) -> Result<()> {
        let bat = self.bat();
        self.copy_bat(to, bat.end - bat.start)?;
        let mut header = self.dynamic.header.clone();
        header.bat_offset = to;
        let footer = self.dynamic.found.footer.clone();
        self.switch(footer, header)?;
        self.dynamic.layout.bat_offset = to;
        self.dynamic.found.file_len = self.tail + FOOTER_BYTES;
        self.storage.punch_hole(bat)?;
        self.storage.sync()
    }
}
