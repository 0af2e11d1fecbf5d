//! Finds the grain directory: in the header, or at the end of the file in the footer.

use hako_block::{Error, ErrorKind, Result, SECTOR_BYTES, Storage};

use super::marker::{self, Marker};
use crate::disk::vmdk::header::{GD_AT_END, HEADER_BYTES, SparseHeader};

/// How far before the end the footer is looked for: after it come the end-of-stream marker and
/// the padding that some transports add.
const FOOTER_SEARCH_BYTES: u64 = 1 << 20;
/// Most grain tables: 128 TiB with grains of 64 KiB, twice what VMware's disks may have.
const MAX_TABLES: u64 = 1 << 22;
/// Largest compressed grain; every writer known uses 64 KiB.
const MAX_GRAIN_BYTES: u64 = 1 << 20;

/// A footer and where it is.
pub(super) struct Footer {
    /// File offset of the footer itself; its marker is one sector before.
    pub(super) byte: u64,
    /// Its fields.
    pub(super) header: SparseHeader,
}

/// Refuses headers whose numbers would size buffers or tables beyond all that is in use.
pub(super) fn check_sizes(header: &SparseHeader) -> Result<()> {
    if !header.compressed {
        return Err(Error::unsupported("grains are not compressed").place("header"));
    }
    if header.grain_bytes() > MAX_GRAIN_BYTES {
        return Err(Error::unsupported(format!(
            "compressed grains of {} bytes (up to {MAX_GRAIN_BYTES} are supported)",
            header.grain_bytes()
        ))
        .place("header")
        .at_byte(20));
    }
    if header.n_grain_tables() > MAX_TABLES {
        return Err(Error::corrupt(
            "header",
            format!(
                "capacity of {} sectors needs {} grain tables, more than any disk has",
                header.capacity_sectors,
                header.n_grain_tables()
            ),
        )
        .at_byte(12));
    }
    Ok(())
}

/// Looks for the footer, from the end backwards. `None`: there is none.
pub(super) fn find_footer(storage: &dyn Storage, file_len: u64) -> Result<Option<Footer>> {
    let end = file_len / SECTOR_BYTES * SECTOR_BYTES;
    let start = end.saturating_sub(FOOTER_SEARCH_BYTES).max(SECTOR_BYTES);
    let mut tail = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
    storage.read_at(start, &mut tail)?;
    let sectors: Vec<_> = tail.as_chunks::<HEADER_BYTES>().0.iter().collect();
    for (index, pair) in sectors.windows(2).enumerate().rev() {
        let mut head = [0; 16];
        head.copy_from_slice(&pair[0][..16]);
        let is_footer =
            matches!(Marker::decode(head), Marker::Other { kind, .. } if kind == marker::FOOTER);
        if is_footer && pair[1][..4] == crate::disk::vmdk::header::MAGIC {
            let byte = start + (index as u64 + 1) * SECTOR_BYTES;
            let header =
                SparseHeader::decode(pair[1], "footer").map_err(|error| at_footer(error, byte))?;
            return Ok(Some(Footer { byte, header }));
        }
    }
    Ok(None)
}

/// Returns the header to go by: the file's own, or its footer where that has the directory.
/// What the two disagree on goes into `oddities`; the footer, written last, is right.
pub(super) fn resolve(
    storage: &dyn Storage,
    header: &SparseHeader,
    file_len: u64,
    oddities: &mut Vec<String>,
) -> Result<SparseHeader> {
    check_sizes(header)?;
    if header.gd_sector != GD_AT_END {
        return Ok(header.clone());
    }
    let footer = find_footer(storage, file_len)?.ok_or_else(|| no_footer(file_len))?;
    if footer.header.gd_sector == GD_AT_END {
        return Err(Error::corrupt("footer", "names no grain directory").at_byte(footer.byte + 56));
    }
    check_sizes(&footer.header).map_err(|error| at_footer(error, footer.byte))?;
    oddities.extend(differences(header, &footer.header));
    Ok(footer.header)
}

/// Returns what header and footer say differently of the disk.
pub(super) fn differences(header: &SparseHeader, footer: &SparseHeader) -> Vec<String> {
    [
        ("capacity", header.capacity_sectors, footer.capacity_sectors),
        ("grain size", header.grain_sectors, footer.grain_sectors),
    ]
    .iter()
    .filter(|(_, header, footer)| header != footer)
    .map(|(field, header, footer)| {
        format!("footer: {field} of {footer} sectors, but the header has {header}")
    })
    .collect()
}

/// The error for something that the file is too short for.
pub(super) fn cut(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
        .hint("the file seems to be cut short: --salvage reads what is left of it")
}

fn no_footer(file_len: u64) -> Error {
    cut(format!(
        "not found: the file ends at byte {file_len} without it"
    ))
    .place("footer")
    .at_byte(file_len)
}

fn at_footer(error: Error, byte: u64) -> Error {
    // The decoder's byte is relative to the header; only the footer's own place helps here.
    Error::corrupt("footer", error.finding()).at_byte(byte)
}
