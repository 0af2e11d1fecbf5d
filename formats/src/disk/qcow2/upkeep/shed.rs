//! Giving up what is stored beyond an offset, and the file's unused end.

use std::ops::Range;

use hako_block::{Error, Result};

use crate::disk::qcow2::flush::MAX_RELEASED;
use crate::disk::qcow2::image::Image;
use crate::disk::qcow2::layout::{Entry, Kind, Mapped};
use crate::disk::qcow2::map::words;
use crate::disk::qcow2::tables::Class;

impl Image {
    /// Makes everything beyond guest offset `size` holes (in an external data file: zeros), also
    /// what lies beyond the virtual size: rests of a VM state, of a shrink that was cut off.
    /// Returns once that is on disk.
    pub fn shed(&mut self, size: u64) -> Result<()> {
        let shown = self.info.virtual_size;
        let layout = *self.layout();
        let end = self.map.n_l1 << layout.span_shift();
        let within = |offset: u64, shift: u32| (offset.div_ceil(1 << shift) << shift).min(end);
        let cluster_end = within(size, layout.cluster_shift);
        let table_end = within(size, layout.span_shift());
        self.info.virtual_size = end;
        self.begin()?;
        self.zero_stored(size..cluster_end)?;
        if !self.is_hole(cluster_end..table_end)? {
            self.empty(cluster_end..table_end, !layout.has_data_file)?;
        }
        for index in layout.l1_index(table_end)..self.map.n_l1 {
            self.drop_table(index)?;
        }
        self.flush_all()?;
        self.info.virtual_size = shown;
        Ok(())
    }

    /// Cuts off the end of the file that the refcounts say is free. Nothing is being written.
    pub fn cut_free_end(&self) -> Result<()> {
        let end = {
            let mut meta = self.meta();
            let meta = &mut *meta;
            let Some(writer) = &meta.writer else {
                return Err(Error::read_only());
            };
            writer.allocator.used_end(&mut meta.tables)?
        };
        if self.storage.is_device() || end >= self.storage.len_bytes()? {
            return Ok(());
        }
        self.storage.set_len(end)?;
        self.storage.sync()
    }

    /// Writes zeros to what is stored of a guest range within one cluster.
    fn zero_stored(&self, range: Range<u64>) -> Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let run = self.map.run(&mut self.meta().tables, offset, range.end)?;
            if matches!(run.kind, Kind::Data(_) | Kind::Compressed(_)) {
                self.write_guest(offset, &vec![0; run.len as usize])?;
            }
            offset += run.len;
        }
        Ok(())
    }

    fn is_hole(&self, range: Range<u64>) -> Result<bool> {
        let mut offset = range.start;
        while offset < range.end {
            let run = self.map.run(&mut self.meta().tables, offset, range.end)?;
            if run.kind != Kind::Hole {
                return Ok(false);
            }
            offset += run.len;
        }
        Ok(true)
    }

    /// Gives up an L2 table and all it refers to.
    fn drop_table(&self, index: u64) -> Result<()> {
        let at = self.map.l1_offset + index * 8;
        let is_due = {
            let mut meta = self.meta();
            let entry = meta.tables.read_u64(at)?;
            let Some(l2) = self.map.l2_offset(entry, at)? else {
                return Ok(());
            };
            let mut released = self.stored_under(&mut meta, l2)?;
            released.push(l2..l2 + 1);
            meta.tables.write_u64(at, 0, Class::Mapping)?;
            let writer = meta.writer.as_mut().ok_or_else(Error::read_only)?;
            writer.unsynced = true;
            for bytes in released {
                writer.allocator.release(bytes);
            }
            writer.allocator.n_released() > MAX_RELEASED
        };
        if is_due { self.flush_all() } else { Ok(()) }
    }

    /// Returns the file ranges that an L2 table refers to.
    fn stored_under(
        &self,
        meta: &mut crate::disk::qcow2::image::Meta,
        l2: u64,
    ) -> Result<Vec<Range<u64>>> {
        let layout = *self.layout();
        let mut found = Vec::new();
        let mut position = l2;
        while position < l2 + layout.cluster_bytes() {
            let page = meta.tables.tail(position)?;
            let step = 1_usize << layout.entry_shift();
            if page.len() < step {
                return Err(
                    Error::corrupt("L2 table", "past the end of the file").at_byte(position)
                );
            }
            for bytes in page.chunks_exact(step) {
                let entry = words(bytes, &layout)
                    .map(|(word, bitmap)| Entry::decode(&layout, word, bitmap))
                    .transpose()
                    .map_err(|error| error.place("L2 table").at_byte(position))?;
                match entry {
                    Some(Entry::Compressed(one)) => found.push(one.offset..one.offset + one.len),
                    Some(Entry::Mapped(Mapped {
                        host: Some(host), ..
                    })) if !layout.has_data_file => found.push(host..host + 1),
                    _ => {}
                }
                position += step as u64;
            }
        }
        Ok(found)
    }
}
