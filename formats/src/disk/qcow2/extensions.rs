//! The first cluster as bytes: changing what it says of the parent and nothing else.
//!
//! The fixed header and the extensions that matter fit into the first sector, and a sector is
//! written whole or not at all: the first sector is the switch. What it will point to (the name,
//! the table of feature names) is on disk before, in bytes that nothing used.

use std::ops::Range;

use hako_block::{Error, Result, SECTOR_BYTES, Storage};

use super::header::{
    AUTOCLEAR_FIELD, BITMAPS, EXT_BACKING_FORMAT, EXT_END, EXT_FEATURE_NAMES, Header,
    MAX_NAME_BYTES, RAW_EXTERNAL, V2_BYTES, put_extension, u32_at, u64_at,
};

/// Offset and length of the parent's name.
const NAME_FIELD: Range<usize> = 8..20;
/// Kind and length, before the data of an extension.
const EXT_HEAD_BYTES: usize = 8;
const SECTOR: usize = SECTOR_BYTES as usize;

/// The first cluster, taken apart.
struct First {
    /// The fixed header.
    fixed: Vec<u8>,
    /// The extensions but for the parent's format and the feature names, as they are stored.
    kept: Vec<u8>,
    /// The extension with the feature names, as it is stored; may be empty.
    feature_names: Vec<u8>,
    /// Where the extensions end.
    end: usize,
    /// Where the parent's name is.
    name: Range<usize>,
    cluster_bytes: usize,
}

/// Changes name and format of the parent, given as the image shall record them; both empty for
/// none. Cut off anywhere, the image says the old or the new. Errors: they do not fit into the
/// header.
pub fn relink(storage: &dyn Storage, header: &Header, name: &str, format: &str) -> Result<()> {
    let mut first = First::read(storage, header)?;
    let longest = first.beginning(format, 0..0, false).len();
    if name.len() > MAX_NAME_BYTES {
        return Err(too_long(name));
    }
    if longest > SECTOR {
        let what = "the header's extensions leave no room to change the parent safely";
        return Err(Error::unsupported(what)
            .hint("convert the image, or let qemu-img rebase -u do it on a copy"));
    }
    let old_format = header.backing_format.as_deref().unwrap_or("");
    let old = first.beginning(old_format, first.name.clone(), false);
    if !first.feature_names.is_empty() {
        first.end = old.len();
    }
    let Some(place) = first.place_for(name, format) else {
        return first.write_in_one_sector(storage, name, format, longest);
    };
    if !first.feature_names.is_empty() {
        // What followed is unused from now on, but for the old name.
        write(storage, 0, &old)?;
    }
    write(storage, place.start, name.as_bytes())?;
    write(storage, 0, &first.beginning(format, place.clone(), false))?;
    first.restore_feature_names(storage, format, place)
}

fn write(storage: &dyn Storage, at: usize, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    storage.write_at(at as u64, bytes)?;
    storage.sync()
}

impl First {
    fn read(storage: &dyn Storage, header: &Header) -> Result<Self> {
        let cluster_bytes = 1_usize << header.cluster_shift;
        let mut bytes = vec![0; cluster_bytes];
        let stored = storage.len_bytes()?.min(cluster_bytes as u64) as usize;
        storage.read_at(0, &mut bytes[..stored])?;
        let fixed_len = if header.version >= 3 {
            u32_at(&bytes, 100)? as usize
        } else {
            V2_BYTES
        };
        let fixed = bytes.get(..fixed_len).ok_or_else(|| {
            Error::corrupt("header", format!("header length {fixed_len}")).at_byte(100)
        })?;
        let mut first = Self {
            fixed: fixed.to_vec(),
            kept: Vec::new(),
            feature_names: Vec::new(),
            end: fixed_len,
            name: 0..0,
            cluster_bytes,
        };
        if header.version >= 3 {
            let field = AUTOCLEAR_FIELD as usize..AUTOCLEAR_FIELD as usize + 8;
            let known = header.autoclear & (BITMAPS | RAW_EXTERNAL);
            first.fixed[field].copy_from_slice(&known.to_be_bytes());
        }
        let mut end = cluster_bytes;
        if header.backing_name.is_some() {
            let start = usize::try_from(u64_at(&bytes, 8)?).unwrap_or(usize::MAX);
            first.name = start..start.saturating_add(u32_at(&bytes, 16)? as usize);
            end = if start > fixed_len { start } else { end };
        }
        first.take_extensions(&bytes, end)?;
        Ok(first)
    }

    fn take_extensions(&mut self, bytes: &[u8], end: usize) -> Result<()> {
        while self.end + EXT_HEAD_BYTES <= end.min(bytes.len()) {
            let at = self.end;
            let (kind, len) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)? as usize);
            self.end += EXT_HEAD_BYTES;
            if kind == EXT_END {
                break;
            }
            self.end += len.next_multiple_of(8);
            let stored = bytes.get(at..self.end).ok_or_else(|| {
                Error::corrupt("header", "an extension leaves the first cluster").at_byte(at as u64)
            })?;
            match kind {
                EXT_BACKING_FORMAT => {}
                EXT_FEATURE_NAMES => self.feature_names = stored.to_vec(),
                _ => self.kept.extend(stored),
            }
        }
        Ok(())
    }

    /// Returns the beginning of the first cluster, up to the end of its extensions.
    fn beginning(&self, format: &str, name: Range<usize>, with_feature_names: bool) -> Vec<u8> {
        let mut out = self.fixed.clone();
        let mut field = [0; 12];
        if !name.is_empty() {
            field[..8].copy_from_slice(&(name.start as u64).to_be_bytes());
            field[8..].copy_from_slice(&(name.len() as u32).to_be_bytes());
        }
        out[NAME_FIELD].copy_from_slice(&field);
        if !format.is_empty() {
            put_extension(&mut out, EXT_BACKING_FORMAT, format.as_bytes());
        }
        out.extend(&self.kept);
        if with_feature_names {
            out.extend(&self.feature_names);
        }
        put_extension(&mut out, EXT_END, &[]);
        out
    }

    /// Finds unused bytes for the name: behind where the feature names will be, if it fits there.
    fn place_for(&self, name: &str, format: &str) -> Option<Range<usize>> {
        if name.is_empty() {
            return Some(0..0);
        }
        let with_names = self.beginning(format, 0..0, true).len();
        let without = self.beginning(format, 0..0, false).len().max(self.end);
        [with_names.max(without), self.name.end.max(without), without]
            .into_iter()
            .map(|start| start..start + name.len())
            .find(|place| {
                let apart = place.end <= self.name.start || self.name.end <= place.start;
                apart && place.end <= self.cluster_bytes
            })
    }

    /// Writes all at once, if the name fits into the first sector too.
    fn write_in_one_sector(
        &self,
        storage: &dyn Storage,
        name: &str,
        format: &str,
        start: usize,
    ) -> Result<()> {
        let place = start..start + name.len();
        if place.end > SECTOR.min(self.cluster_bytes) {
            return Err(too_long(name));
        }
        let mut sector = self.beginning(format, place, false);
        sector.extend(name.as_bytes());
        write(storage, 0, &sector)
    }

    /// Puts the feature names back, if they have room before the name.
    fn restore_feature_names(
        &self,
        storage: &dyn Storage,
        format: &str,
        name: Range<usize>,
    ) -> Result<()> {
        let all = self.beginning(format, name.clone(), true);
        let room = if name.is_empty() {
            self.cluster_bytes
        } else {
            name.start
        };
        if self.feature_names.is_empty() || all.len() > room {
            return Ok(());
        }
        let (sector, behind) = all.split_at(all.len().min(SECTOR));
        write(storage, SECTOR, behind)?;
        write(storage, 0, sector)
    }
}

fn too_long(name: &str) -> Error {
    Error::invalid(format!(
        "the parent's name of {} bytes does not fit into the header",
        name.len()
    ))
    .hint("move the parent nearer to the image, or give it a shorter name")
}
