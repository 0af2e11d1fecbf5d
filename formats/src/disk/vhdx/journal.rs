//! Changing tables through the log, so that a cut at any point leaves each change whole or undone.
//!
//! A commit is: the entry, under a GUID of its own, with everything it refers to; sync; a header
//! that names the GUID; sync; the change itself; sync. Then a header that names none, which needs
//! no sync of its own: as long as the older one is on disk, the entry is replayed, which changes
//! nothing. Two entries in a row never share a place, nor do two headers.

use std::sync::Arc;

use hako_block::{Result, Storage, Uuid};

use super::bytes::{put, record_checksum};
use super::header::{HEADER_OFFSETS, Header, Headers};
use super::log::{DESCRIPTOR_BYTES, ENTRY_SIGNATURE, HEADER_BYTES, SECTOR, head_bytes};
use super::metadata::Patch;

/// Most sectors changed by one entry: with it, three entries fit into the smallest log, 1 MiB.
pub const MAX_SECTORS: usize = 84;
const ENTRY_PLACES: u64 = 3;

/// A sector of a table: its file offset, a multiple of 4 KiB, and its 4 KiB.
pub type Sector = (u64, Vec<u8>);

/// Writes headers and the log.
pub struct Journal {
    storage: Arc<dyn Storage>,
    header: Header,
    slot: usize,
    /// Counts entries.
    sequence: u64,
    sync_failed: bool,
}

impl Journal {
    /// Returns a journal that begins with these headers; the log is empty.
    pub fn new(storage: Arc<dyn Storage>, headers: &Headers) -> Result<Self> {
        headers.current.log_area()?;
        Ok(Self {
            storage,
            header: headers.current.clone(),
            slot: headers.slot,
            sequence: 0,
            sync_failed: false,
        })
    }

    /// Returns whether a sync has failed: what the disk holds is not known any more.
    pub fn sync_failed(&self) -> bool {
        self.sync_failed
    }

    /// Tells, on disk before it returns, that the file is going to change, and its content.
    pub fn change_ids(&mut self, content_too: bool) -> Result<()> {
        let mut header = self.header.clone();
        header.file_write = Uuid::random();
        if content_too {
            header.data_write = Uuid::random();
        }
        self.write_header(header)?;
        self.sync()
    }

    /// Writes the header that counts over the other one, too.
    pub fn rewrite(&mut self) -> Result<()> {
        self.write_header(self.header.clone())?;
        self.sync()
    }

    /// Changes sectors. All of them at once if there are no more than [`MAX_SECTORS`]; else as many
    /// at a time, in their order. On disk when it returns, with everything written before.
    pub fn commit(&mut self, sectors: &[&Sector]) -> Result<()> {
        if sectors.is_empty() {
            self.sync()?;
        }
        for some in sectors.chunks(MAX_SECTORS) {
            self.commit_some(some)?;
        }
        self.close()
    }

    /// Changes what lies at some places, at once; the sectors around them are read.
    pub fn patch(&mut self, patches: &[Patch]) -> Result<()> {
        let sectors = sectors_of(&*self.storage, patches)?;
        if sectors.len() > MAX_SECTORS {
            return Err(hako_block::Error::unsupported(
                "so large a change does not fit into the log",
            ));
        }
        self.commit(&sectors.iter().collect::<Vec<_>>())
    }

    /// Says that the log is empty, if it is not said yet.
    pub fn close(&mut self) -> Result<()> {
        if self.header.log.is_nil() {
            return Ok(());
        }
        let header = Header {
            log: Uuid::default(),
            ..self.header.clone()
        };
        self.write_header(header)
    }

    fn commit_some(&mut self, sectors: &[&Sector]) -> Result<()> {
        let guid = Uuid::random();
        self.sequence += 1;
        let place = self.sequence % ENTRY_PLACES;
        let position = place * (head_bytes(MAX_SECTORS as u64) + MAX_SECTORS as u64 * SECTOR);
        let file_len = self.storage.len_bytes()?;
        let entry = encode(guid, self.sequence, position as u32, file_len, sectors);
        let at = self.header.log_offset + position;
        self.storage.write_at(at, &entry)?;
        self.sync()?;
        self.write_header(Header {
            log: guid,
            ..self.header.clone()
        })?;
        self.sync()?;
        for (offset, bytes) in sectors {
            self.storage.write_at(*offset, bytes)?;
        }
        self.sync()
    }

    fn sync(&mut self) -> Result<()> {
        self.storage.sync().inspect_err(|_| self.sync_failed = true)
    }

    /// Writes a header in place of the older one.
    fn write_header(&mut self, mut header: Header) -> Result<()> {
        header.sequence = self.header.sequence.wrapping_add(1);
        let slot = 1 - self.slot;
        let offset = HEADER_OFFSETS.get(slot).copied().unwrap_or_default();
        self.storage.write_at(offset, &header.encode())?;
        self.header = header;
        self.slot = slot;
        Ok(())
    }
}

/// Returns the sectors that patches touch, as they shall be.
fn sectors_of(storage: &dyn Storage, patches: &[Patch]) -> Result<Vec<Sector>> {
    let mut sectors = std::collections::BTreeMap::new();
    for (offset, bytes) in patches {
        let mut at = 0;
        while at < bytes.len() {
            let position = offset + at as u64;
            let start = position / SECTOR * SECTOR;
            let within = (position - start) as usize;
            let n = (SECTOR as usize - within).min(bytes.len() - at);
            let sector = match sectors.entry(start) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    let mut sector = vec![0; SECTOR as usize];
                    storage.read_at(start, &mut sector)?;
                    new.insert(sector)
                }
            };
            put(sector, within, bytes.get(at..at + n).unwrap_or(&[]));
            at += n;
        }
    }
    Ok(sectors.into_iter().collect())
}

/// Returns an entry that stands alone: its tail is itself.
fn encode(guid: Uuid, sequence: u64, position: u32, file_len: u64, sectors: &[&Sector]) -> Vec<u8> {
    let n = sectors.len() as u64;
    let mut entry = vec![0; head_bytes(n) as usize];
    put(&mut entry, 0, ENTRY_SIGNATURE);
    let len = (head_bytes(n) + n * SECTOR) as u32;
    put(&mut entry, 8, &len.to_le_bytes());
    put(&mut entry, 12, &position.to_le_bytes());
    put(&mut entry, 16, &sequence.to_le_bytes());
    put(&mut entry, 24, &(n as u32).to_le_bytes());
    put(&mut entry, 32, &guid.to_mixed_endian());
    put(&mut entry, 48, &file_len.to_le_bytes());
    put(&mut entry, 56, &file_len.to_le_bytes());
    for (index, (offset, bytes)) in sectors.iter().enumerate() {
        let at = HEADER_BYTES as usize + index * DESCRIPTOR_BYTES as usize;
        put(&mut entry, at, b"desc");
        put(&mut entry, at + 4, bytes.get(4092..).unwrap_or(&[]));
        put(&mut entry, at + 8, bytes.get(..8).unwrap_or(&[]));
        put(&mut entry, at + 16, &offset.to_le_bytes());
        put(&mut entry, at + 24, &sequence.to_le_bytes());
        let start = entry.len();
        entry.extend_from_slice(bytes);
        put(&mut entry, start, b"data");
        put(
            &mut entry,
            start + 4,
            &((sequence >> 32) as u32).to_le_bytes(),
        );
        put(&mut entry, start + 4092, &(sequence as u32).to_le_bytes());
    }
    let checksum = record_checksum(&entry);
    put(&mut entry, 4, &checksum.to_le_bytes());
    entry
}
