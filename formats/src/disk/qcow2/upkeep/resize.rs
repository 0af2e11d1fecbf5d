//! Another virtual size. The header's first sector is the switch: before it, a growing image has
//! its larger L1 table and nothing stored beyond its old end; after it, a shrinking one gives up
//! what lies beyond its new end.

use hako_block::{Error, Result};

use super::open_sound;
use crate::disk::OpenArgs;
use crate::disk::qcow2::header::{self, Header};
use crate::disk::qcow2::image::Image;
use crate::disk::qcow2::sink::l1_entries;
use crate::disk::qcow2::snapshot::Snapshots;

/// File offset of the virtual size, followed by encryption, entries and offset of the L1 table.
const SIZE_FIELD: u64 = 24;
/// Bytes of an L1 table copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// Changes the virtual size. Takes time by what is stored, not by the size.
pub fn resize(args: &OpenArgs, virtual_size: u64) -> Result<()> {
    if !virtual_size.is_multiple_of(512) {
        return Err(Error::invalid(format!(
            "a virtual size of {virtual_size} bytes is no multiple of 512"
        )));
    }
    let (header, mut image) = open_sound(args)?;
    refuse(args, &header)?;
    let n_l1 = l1_entries(&header.layout(), virtual_size)?.max(header.n_l1);
    if virtual_size > header.virtual_size {
        grow(&mut image, &header, virtual_size, n_l1)
    } else if virtual_size < header.virtual_size {
        shrink(&mut image, &header, virtual_size)
    } else {
        Ok(())
    }
}

/// Refuses what would no longer fit the new size.
fn refuse(args: &OpenArgs, header: &Header) -> Result<()> {
    let snapshots = Snapshots::read(&*args.storage, header)?;
    if let Some(one) = snapshots.list.iter().find(|one| !one.has_size) {
        return Err(Error::unsupported(format!(
            "its internal snapshot {:?} does not record the size that the disk had",
            one.name
        ))
        .hint("remove it first: qemu-img snapshot -d"));
    }
    if header.bitmaps.is_some() && header.autoclear & header::BITMAPS != 0 {
        return Err(
            Error::unsupported("has bitmaps of what changed, which fit its size now")
                .hint("remove them first: qemu-img bitmap --remove"),
        );
    }
    Ok(())
}

fn grow(image: &mut Image, header: &Header, virtual_size: u64, n_l1: u32) -> Result<()> {
    image.shed(header.virtual_size)?;
    if header.autoclear & header::RAW_EXTERNAL != 0 {
        let len = image.data.len_bytes()?;
        image.data.punch_hole(header.virtual_size.min(len)..len)?;
        image.data.set_len(virtual_size)?;
        image.data.sync()?;
    }
    let l1_offset = if n_l1 > header.n_l1 {
        image.copy_l1(u64::from(n_l1))?
    } else {
        header.l1_offset
    };
    let mut field = virtual_size.to_be_bytes().to_vec();
    field.extend(0_u32.to_be_bytes());
    field.extend(n_l1.to_be_bytes());
    field.extend(l1_offset.to_be_bytes());
    image.storage.write_at(SIZE_FIELD, &field)?;
    image.storage.sync()?;
    if l1_offset != header.l1_offset {
        image.release(header.l1_offset, u64::from(header.n_l1) * 8)?;
    }
    Ok(())
}

fn shrink(image: &mut Image, header: &Header, virtual_size: u64) -> Result<()> {
    image.begin()?;
    image
        .storage
        .write_at(SIZE_FIELD, &virtual_size.to_be_bytes())?;
    image.storage.sync()?;
    image.shed(virtual_size)?;
    if image.layout().has_data_file {
        let is_raw = header.autoclear & header::RAW_EXTERNAL != 0;
        let cluster_end = virtual_size.next_multiple_of(image.layout().cluster_bytes());
        let end = if is_raw { virtual_size } else { cluster_end };
        if is_raw || image.data.len_bytes()? > end {
            image.data.set_len(end)?;
            image.data.sync()?;
        }
    }
    image.cut_free_end()
}

impl Image {
    /// Copies the L1 table, which has not changed, to where there is room for `n_l1` entries, on
    /// disk. Returns its new file offset.
    fn copy_l1(&self, n_l1: u64) -> Result<u64> {
        let layout = self.layout();
        let n_clusters = (n_l1 * 8).div_ceil(layout.cluster_bytes());
        let new = {
            let mut meta = self.meta();
            let meta = &mut *meta;
            let writer = meta.writer.as_mut().ok_or_else(Error::read_only)?;
            writer.unsynced = true;
            let storage = &*self.storage;
            let found = writer
                .allocator
                .allocate_row(&mut meta.tables, storage, n_clusters)?;
            found.start << layout.cluster_shift
        };
        let (len, old_len) = (n_clusters << layout.cluster_shift, self.map.n_l1 * 8);
        let mut at = 0;
        while at < len {
            let mut bytes = vec![0; (len - at).min(COPY_BYTES) as usize];
            let n_old = old_len.saturating_sub(at).min(bytes.len() as u64);
            if n_old > 0 {
                let old = &mut bytes[..n_old as usize];
                self.storage.read_at(self.map.l1_offset + at, old)?;
            }
            self.storage.write_at(new + at, &bytes)?;
            at += bytes.len() as u64;
        }
        self.flush_all()?;
        Ok(new)
    }

    /// Gives up a file range that nothing on disk refers to any more, on disk too.
    fn release(&self, offset: u64, len: u64) -> Result<()> {
        {
            let mut meta = self.meta();
            let writer = meta.writer.as_mut().ok_or_else(Error::read_only)?;
            writer.unsynced = true;
            writer.allocator.release(offset..offset + len);
        }
        self.flush_all()
    }
}
