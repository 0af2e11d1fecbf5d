//! Copied flags of the current state: set where the refcount is one, clear elsewhere. The
//! refcounts are right, and on disk.

use hako_block::{Result, Storage};

use crate::disk::OpenArgs;
use crate::disk::qcow2::header::Header;
use crate::disk::qcow2::layout::{COPIED, Entry, OFFSET_MASK};
use crate::disk::qcow2::map::{Map, words};
use crate::disk::qcow2::refcounts::Refcounts;
use crate::disk::qcow2::tables::{Class, Tables};

/// Corrects the flags. Returns what was done.
pub fn correct(args: &OpenArgs, header: &Header) -> Result<Option<String>> {
    let layout = header.layout();
    let table_len = u64::from(header.refcount_table_clusters) << layout.cluster_shift;
    let mut flags = Flags {
        storage: &*args.storage,
        len_bytes: args.storage.len_bytes()?,
        tables: Tables::new(args.storage.clone(), layout.cluster_shift),
        refcounts: Refcounts {
            layout,
            table_offset: header.refcount_table_offset,
            n_blocks: table_len / 8,
        },
        map: Map {
            layout,
            l1_offset: header.l1_offset,
            n_l1: u64::from(header.n_l1),
        },
        n_corrected: 0,
    };
    if flags.map.l1_offset + flags.map.n_l1 * 8 > flags.len_bytes {
        return Ok(None);
    }
    for index in 0..flags.map.n_l1 {
        flags.correct_table(index)?;
    }
    flags.write_back()?;
    let n = flags.n_corrected;
    Ok((n > 0).then(|| format!("copied flags corrected: {n}")))
}

struct Flags<'a> {
    storage: &'a dyn Storage,
    len_bytes: u64,
    tables: Tables,
    refcounts: Refcounts,
    map: Map,
    n_corrected: u64,
}

impl Flags<'_> {
    fn correct_table(&mut self, index: u64) -> Result<()> {
        let layout = self.map.layout;
        let at = self.map.l1_offset + index * 8;
        let entry = self.tables.read_u64(at)?;
        let l2 = match self.map.l2_offset(entry, at) {
            Ok(Some(l2)) if l2 + layout.cluster_bytes() <= self.len_bytes => l2,
            // Nothing, or damage that is told by the check.
            _ => return Ok(()),
        };
        self.correct_flag(at, entry, l2)?;
        if layout.has_data_file {
            return Ok(());
        }
        let step = 1_u64 << layout.entry_shift();
        let mut position = l2;
        while position < l2 + layout.cluster_bytes() {
            let page = self.tables.tail(position)?.to_vec();
            if page.len() < step as usize {
                break;
            }
            for bytes in page.chunks_exact(step as usize) {
                if let Some((word, bitmap)) = words(bytes, &layout)
                    && word & OFFSET_MASK != 0
                    && let Ok(Entry::Mapped(mapped)) = Entry::decode(&layout, word, bitmap)
                    && let Some(host) = mapped.host
                {
                    self.correct_flag(position, word, host)?;
                }
                position += step;
            }
        }
        if self.tables.is_full() {
            self.write_back()?;
        }
        Ok(())
    }

    fn correct_flag(&mut self, at: u64, entry: u64, offset: u64) -> Result<()> {
        let cluster = offset >> self.map.layout.cluster_shift;
        let is_copied = self.refcounts.count(&mut self.tables, cluster)? == 1;
        if is_copied == (entry & COPIED != 0) {
            return Ok(());
        }
        self.n_corrected += 1;
        self.tables.write_u64(at, entry ^ COPIED, Class::Mapping)
    }

    fn write_back(&mut self) -> Result<()> {
        if self.tables.write_back(Class::Mapping)? {
            self.storage.sync()?;
        }
        Ok(())
    }
}
