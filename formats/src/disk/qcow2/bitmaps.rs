//! The directory of persistent dirty bitmaps: their names, and the clusters they take. What they
//! say is not read: a write by hako makes them invalid (autoclear bit 0).

use hako_block::{Error, Result, Storage};

use super::header::{BitmapDirectory, u16_at, u32_at, u64_at};

/// Most bitmaps, as in qemu.
const MAX_BITMAPS: u32 = 65535;
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
/// Most entries of a bitmap's table, as in qemu.
const MAX_TABLE_ENTRIES: u32 = 0x0800_0000;
const ENTRY_BYTES: usize = 24;

/// One bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Name.
    pub name: String,
    /// File offset of its table.
    pub table_offset: u64,
    /// Entries of its table.
    pub n_entries: u64,
}

/// Reads the bitmap directory.
pub fn read(storage: &dyn Storage, directory: &BitmapDirectory) -> Result<Vec<Bitmap>> {
    let fits = directory
        .offset
        .checked_add(directory.len)
        .is_some_and(|end| storage.len_bytes().is_ok_and(|len| end <= len));
    if directory.n_bitmaps > MAX_BITMAPS || directory.len > MAX_DIRECTORY_BYTES || !fits {
        return Err(bad(
            directory.offset,
            format!("{} bitmaps in {} bytes", directory.n_bitmaps, directory.len),
        ));
    }
    let mut bytes = vec![0; directory.len as usize];
    storage.read_at(directory.offset, &mut bytes)?;
    let mut bitmaps = Vec::new();
    let mut at = 0;
    for _ in 0..directory.n_bitmaps {
        let (bitmap, len) = entry(bytes.get(at..).unwrap_or(&[])).map_err(|_| {
            bad(
                directory.offset + at as u64,
                "an entry leaves the directory".into(),
            )
        })?;
        bitmaps.push(bitmap);
        at += len;
    }
    Ok(bitmaps)
}

fn entry(bytes: &[u8]) -> Result<(Bitmap, usize)> {
    let n_entries = u32_at(bytes, 8)?;
    let name_len = usize::from(u16_at(bytes, 18)?);
    let name_start = ENTRY_BYTES + u32_at(bytes, 20)? as usize;
    let name = bytes
        .get(name_start..name_start + name_len)
        .ok_or_else(|| bad(0, "name past the end".to_owned()))?;
    if n_entries > MAX_TABLE_ENTRIES {
        return Err(bad(0, format!("table of {n_entries} entries")));
    }
    let bitmap = Bitmap {
        name: String::from_utf8_lossy(name).into_owned(),
        table_offset: u64_at(bytes, 0)?,
        n_entries: u64::from(n_entries),
    };
    Ok((bitmap, (name_start + name_len).next_multiple_of(8)))
}

fn bad(at: u64, what: String) -> Error {
    Error::corrupt("bitmap directory", what).at_byte(at)
}
