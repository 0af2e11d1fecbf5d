//! Where a descriptor is stored, and how it is replaced as a whole.
//!
//! One in a file of its own is replaced by a new file. One inside a sparse extent file spans
//! sectors that a cut may tear apart: the new text is written to the end of the file, the header
//! is pointed there (one sector, all or nothing), the usual place is rewritten, the header pointed
//! back. Whenever it is cut, the header points at a whole text.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, Resolver, Result, SECTOR_BYTES, Storage};

use super::descriptor::{Descriptor, MAX_DESCRIPTOR_BYTES};
use super::header::{HEADER_BYTES, SparseHeader};
use super::{hosted, stream};

/// Hosted sparse header, fields descriptorOffset and descriptorSize: bytes in the header.
const DESCRIPTOR_FIELDS: Range<usize> = 28..44;
/// Most sectors of a descriptor.
const MAX_SECTORS: u64 = MAX_DESCRIPTOR_BYTES / SECTOR_BYTES;

/// Where a descriptor is stored.
pub enum Home {
    /// In a text file of its own.
    File {
        /// Its name in its folder.
        name: String,
        /// What can replace it.
        resolver: Arc<dyn Resolver>,
    },
    /// Inside a sparse extent file.
    Embedded {
        /// That file.
        storage: Arc<dyn Storage>,
        /// File offset in bytes.
        offset: u64,
    },
}

impl Home {
    /// Replaces the text, all or nothing, and returns once that is on stable storage. Errors: a
    /// streamOptimized file has no room for a text of that length.
    pub fn replace(&self, old: &Descriptor, new: &Descriptor) -> Result<()> {
        if old.text() == new.text() {
            return Ok(());
        }
        match self {
            Home::File { name, resolver } => resolver.replace(name, new.text()),
            Home::Embedded { storage, .. } => {
                replace_embedded(&**storage, new.text()).map_err(|e| e.in_file(storage.name()))
            }
        }
    }

    /// Brings a text that a cut, or a longer text before it, has left behind the grains back to
    /// where it belongs. Returns whether it did.
    pub fn settle(&self, descriptor: &Descriptor) -> Result<bool> {
        let Home::Embedded { storage, .. } = self else {
            return Ok(false);
        };
        let header = read_header(&**storage)?;
        let usual = usual_place(&**storage, &header)?;
        let room = usual.n_sectors.saturating_mul(SECTOR_BYTES);
        if header.descriptor_sector == usual.sector || descriptor.text().len() as u64 > room {
            return Ok(false);
        }
        replace_embedded(&**storage, descriptor.text())?;
        Ok(true)
    }
}

/// Where an embedded descriptor is, in sectors.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    sector: u64,
    n_sectors: u64,
}

fn replace_embedded(storage: &dyn Storage, text: &[u8]) -> Result<()> {
    let header = read_header(storage)?;
    let is_stream = header.compressed || header.has_markers();
    let needed = (text.len() as u64).div_ceil(SECTOR_BYTES).max(1);
    let now = Place {
        sector: header.descriptor_sector,
        n_sectors: header.descriptor_sectors,
    };
    let usual = usual_place(storage, &header)?;
    let fits = needed <= usual.n_sectors;
    if is_stream && !fits {
        return Err(Error::invalid(format!(
            "a descriptor of {} bytes does not fit into the {} that a streamOptimized file has for it",
            text.len(),
            usual.n_sectors * SECTOR_BYTES
        )));
    }
    let old_len = storage.len_bytes()?;
    let end = if is_stream {
        old_len.next_multiple_of(SECTOR_BYTES)
    } else {
        hosted::end_of_grains(&header, old_len)
    };
    let moved = Place {
        sector: end / SECTOR_BYTES,
        n_sectors: needed,
    };
    write_text(storage, moved, text)
        .and_then(|()| storage.sync())
        .inspect_err(|_| {
            let _ = storage.set_len(old_len);
        })?;
    point_to(storage, now, moved)?;
    if !fits {
        // Nobody shall take the old text for the present one.
        storage.punch_hole(bytes_of(now))?;
        return storage.sync();
    }
    // Of an unused rest of the room no more is taken than is needed.
    let home = Place {
        n_sectors: match now {
            now if now.sector == usual.sector => now.n_sectors.max(needed),
            _ => usual.n_sectors,
        },
        ..usual
    };
    write_text(storage, home, text)?;
    storage.sync()?;
    point_to(storage, moved, home)?;
    let mut len = old_len;
    if now.sector > home.sector {
        // It had been moved once: its place of then is given back.
        let place = bytes_of(now);
        storage.punch_hole(place.clone())?;
        if place.end >= old_len {
            len = place.start;
        }
    }
    storage.set_len(len)?;
    if is_stream {
        stream::patch_footer(storage, DESCRIPTOR_FIELDS, &fields(home))?;
    }
    storage.sync()
}

/// Returns where the descriptor belongs and how much room there is before what follows.
fn usual_place(storage: &dyn Storage, header: &SparseHeader) -> Result<Place> {
    let first_behind = if header.compressed || header.has_markers() {
        stream::first_after_descriptor(header)
    } else {
        hosted::first_after_descriptor(storage, header)
    };
    let in_front = header.descriptor_sector < header.overhead_sectors;
    let sector = if in_front {
        header.descriptor_sector
    } else {
        1
    };
    let claimed = if in_front {
        header.descriptor_sectors
    } else {
        0
    };
    let room = first_behind.and_then(|first| first.checked_sub(sector));
    Ok(Place {
        sector,
        n_sectors: room.unwrap_or(0).min(MAX_SECTORS).max(claimed),
    })
}

fn bytes_of(place: Place) -> Range<u64> {
    let end = place.sector.saturating_add(place.n_sectors);
    place.sector.saturating_mul(SECTOR_BYTES)..end.saturating_mul(SECTOR_BYTES)
}

/// Writes the text, filled up with zeros to the end of its place.
fn write_text(storage: &dyn Storage, place: Place, text: &[u8]) -> Result<()> {
    let mut bytes = text.to_vec();
    let room = place.n_sectors.min(MAX_SECTORS) * SECTOR_BYTES;
    bytes.resize(bytes.len().max(room as usize), 0);
    storage.write_at(place.sector * SECTOR_BYTES, &bytes)
}

fn fields(place: Place) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&place.sector.to_le_bytes());
    bytes[8..].copy_from_slice(&place.n_sectors.to_le_bytes());
    bytes
}

/// Points the header from one place at another, on stable storage.
fn point_to(storage: &dyn Storage, from: Place, to: Place) -> Result<()> {
    let offset = DESCRIPTOR_FIELDS.start as u64;
    overwrite(storage, offset, &fields(from), &fields(to))?;
    storage.sync()
}

/// Writes `new` over `old` inside a sector. A write that fails may have left a part behind: `old`
/// is put back then.
pub fn overwrite(storage: &dyn Storage, offset: u64, old: &[u8], new: &[u8]) -> Result<()> {
    storage.write_at(offset, new).inspect_err(|_| {
        let _ = storage.write_at(offset, old);
    })
}

fn read_header(storage: &dyn Storage) -> Result<SparseHeader> {
    let mut bytes = [0; HEADER_BYTES];
    storage.read_at(0, &mut bytes)?;
    SparseHeader::decode(&bytes, "header")
}
