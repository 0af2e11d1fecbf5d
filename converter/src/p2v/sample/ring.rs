//! The ring file that samples are kept in: a header and slots of one size, the newest record in place
//! of the oldest. The file never grows, and a record is whole or not there: whoever is killed while it
//! is written, and whatever of it reached the disk, the others stay.
//!
//! | byte | what of the header, little-endian |
//! |---|---|
//! | 0 | `HAKOSMPL` |
//! | 8 | u32: version, 1 |
//! | 12 | u32: bytes of a slot, a multiple of 64 |
//! | 16 | u64: number of slots |
//! | 24 | u64: milliseconds between samples |
//! | 32 | u64: milliseconds that are to be sampled |
//! | 40 | u32: CRC-32C of the host's name (64 bytes), followed by the bytes 0–39 |
//! | 44 | 64 bytes: the host's name, filled up with 0 |
//!
//! Slots begin at byte 4096. Records are described in `record.rs`. A slot of zeros was never written.

use std::path::Path;
use std::sync::Arc;

use hako_block::{
    Access, Crc32c, Error, FileStorage, LockMode, Result, StagedFolder, Storage, is_zero,
};

use super::record::{DEVICE_BYTES, Fields, HEAD_BYTES, Sample};

/// What a ring file begins with.
pub const MAGIC: [u8; 8] = *b"HAKOSMPL";
const VERSION: u32 = 1;
/// Where slots begin.
const SLOTS_START: u64 = 4096;
/// Bytes of the header that mean something.
const HEADER_BYTES: usize = 108;
/// Longest name of a host.
pub const HOST_BYTES: usize = 64;
/// Largest slot: for 1000 devices.
const MAX_SLOT_BYTES: u32 = 65536;
/// Longest file: nobody waits for a longer one to be looked through.
const MAX_FILE_BYTES: u64 = 8 << 30;
/// Most slots: eight years of one a minute.
pub const MAX_SLOTS: u64 = 4 << 20;

/// What a ring is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Bytes of a slot.
    pub slot_bytes: u32,
    /// Number of slots.
    pub n_slots: u64,
    /// Milliseconds between samples.
    pub interval_ms: u64,
    /// Milliseconds that are to be sampled.
    pub window_ms: u64,
    /// The host's name.
    pub host: String,
}

impl Header {
    /// Returns the size of a slot that has room for so many devices, and a few that are plugged in
    /// later.
    pub fn slot_bytes_for(n_devices: usize) -> u32 {
        const SPARE: usize = 4;
        let bytes = HEAD_BYTES + n_devices.saturating_add(SPARE).saturating_mul(DEVICE_BYTES);
        u32::try_from(bytes).map_or(MAX_SLOT_BYTES, |bytes| bytes.min(MAX_SLOT_BYTES))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.slot_bytes.to_le_bytes());
        for number in [self.n_slots, self.interval_ms, self.window_ms] {
            bytes.extend(number.to_le_bytes());
        }
        let mut host = self.host.clone().into_bytes();
        host.resize(HOST_BYTES, 0);
        bytes.extend(checksum(&bytes, &host).to_le_bytes());
        bytes.extend(host);
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let short = || Error::corrupt("header", "it is cut short");
        let mut fields = Fields(bytes);
        if fields.take() != Some(MAGIC) {
            return Err(Error::corrupt("header", "this is no file of samples"));
        }
        match fields.u32().ok_or_else(short)? {
            VERSION => (),
            version => {
                return Err(Error::unsupported(format!(
                    "a file of samples of version {version}; this hako knows {VERSION}"
                )));
            }
        }
        let slot_bytes = fields.u32().ok_or_else(short)?;
        let [n_slots, interval_ms, window_ms] = fields.u64s().ok_or_else(short)?;
        let crc = fields.u32().ok_or_else(short)?;
        let host: [u8; HOST_BYTES] = fields.take().ok_or_else(short)?;
        let before = bytes.get(..40).unwrap_or_default();
        if crc != checksum(before, &host) {
            return Err(Error::corrupt("header", "its checksum is wrong").at_byte(40));
        }
        let name = host.split(|byte| *byte == 0).next().unwrap_or_default();
        let header = Self {
            slot_bytes,
            n_slots,
            interval_ms,
            window_ms,
            host: String::from_utf8_lossy(name).into_owned(),
        };
        header
            .check()
            .map_err(|what| Error::corrupt("header", what))?;
        Ok(header)
    }

    /// Says what is wrong with it, if anything is.
    fn check(&self) -> std::result::Result<(), String> {
        let (slot, slots) = (self.slot_bytes, self.n_slots);
        let smallest = u32::try_from(HEAD_BYTES).unwrap_or(MAX_SLOT_BYTES);
        if !(smallest..=MAX_SLOT_BYTES).contains(&slot) || !slot.is_multiple_of(64) {
            return Err(format!("slots of {slot} bytes"));
        }
        if !(1..=MAX_SLOTS).contains(&slots) || self.file_bytes() > MAX_FILE_BYTES {
            return Err(format!("{slots} slots of {slot} bytes"));
        }
        if self.interval_ms == 0 {
            return Err("an interval of nothing".to_owned());
        }
        Ok(())
    }

    /// Returns the length of the file; no overflow, as what is checked is small.
    fn file_bytes(&self) -> u64 {
        let slots = self.n_slots.saturating_mul(u64::from(self.slot_bytes));
        SLOTS_START.saturating_add(slots)
    }
}

/// Returns the checksum of a header without its checksum.
fn checksum(before: &[u8], host: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(host);
    crc.update(before);
    crc.value()
}

/// A ring file.
pub struct Ring {
    header: Header,
    storage: Arc<dyn Storage>,
    /// The number of the next record.
    next: u64,
    n_damaged: u64,
}

impl Ring {
    /// Makes a ring file and opens it. Errors: [`hako_block::ErrorKind::Exists`] if there is one of that name.
    pub fn create(path: &Path, header: &Header) -> Result<Self> {
        header.check().map_err(Error::invalid)?;
        let staged = StagedFolder::new(path, false)?;
        let storage = staged.create_main()?;
        let len = header.file_bytes();
        storage.set_len(len)?;
        // So that a disk that fills up later stops nobody from sampling.
        storage.reserve(0..len)?;
        storage.write_at(0, &header.encode())?;
        storage.sync()?;
        drop(storage);
        staged.commit()?;
        Self::resume(path)
    }

    /// Opens a ring file, to go on with it. Errors: [`hako_block::ErrorKind::Locked`] if another process does.
    pub fn resume(path: &Path) -> Result<Self> {
        let storage = FileStorage::open(path, Access::ReadWrite, LockMode::Write)?;
        Self::open(Arc::new(storage))
    }

    /// Opens a ring file, to read it; it may be written to meanwhile.
    pub fn read(path: &Path) -> Result<Self> {
        let storage = FileStorage::open(path, Access::ReadOnly, LockMode::None)?;
        Self::open(Arc::new(storage))
    }

    /// Opens a ring file.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let named = |error: Error| error.in_file(storage.name());
        let mut bytes = [0; HEADER_BYTES];
        let len = storage.len_bytes()?;
        if len < SLOTS_START {
            return Err(named(Error::corrupt("header", "the file is cut short")));
        }
        storage.read_at(0, &mut bytes)?;
        let header = Header::decode(&bytes).map_err(named)?;
        if len < header.file_bytes() {
            let what = format!("{len} bytes, not {}: it is cut short", header.file_bytes());
            return Err(named(Error::corrupt("slots", what)));
        }
        let mut ring = Self {
            header,
            storage,
            next: 0,
            n_damaged: 0,
        };
        ring.find_end()?;
        Ok(ring)
    }

    /// Returns what the ring is made for.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns how many slots hold what is no record.
    pub fn n_damaged(&self) -> u64 {
        self.n_damaged
    }

    /// Returns how many records were ever written.
    pub fn n_written(&self) -> u64 {
        self.next
    }

    /// Writes the next record over the oldest, and returns how many devices it has no room for. It
    /// survives the system only after [`Ring::sync`].
    pub fn append(&mut self, sample: &Sample) -> Result<u16> {
        let slot_bytes = usize::try_from(self.header.slot_bytes).unwrap_or(usize::MAX);
        let mut sample = sample.clone();
        sample.number = self.next;
        let n_left_out = sample.fit(slot_bytes);
        let record = sample.encode(slot_bytes);
        self.storage.write_at(self.slot_of(self.next), &record)?;
        self.next = self.next.saturating_add(1);
        Ok(n_left_out)
    }

    /// Returns once all records are on stable storage.
    pub fn sync(&self) -> Result<()> {
        self.storage.sync()
    }

    /// Returns the records, the oldest first; those that are damaged are left out.
    pub fn samples(&self) -> impl Iterator<Item = Result<Sample>> {
        let oldest = self.next.saturating_sub(self.header.n_slots);
        (oldest..self.next).filter_map(|number| match self.record(number) {
            Ok(Slot::Record(sample)) if sample.number == number => Some(Ok(*sample)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn slot_of(&self, number: u64) -> u64 {
        let slot = number.checked_rem(self.header.n_slots).unwrap_or(0);
        SLOTS_START.saturating_add(slot.saturating_mul(u64::from(self.header.slot_bytes)))
    }

    fn record(&self, number: u64) -> Result<Slot> {
        let mut slot = vec![0; usize::try_from(self.header.slot_bytes).unwrap_or(0)];
        self.storage.read_at(self.slot_of(number), &mut slot)?;
        Ok(match Sample::decode(&slot) {
            Some(sample) => Slot::Record(Box::new(sample)),
            None if is_zero(&slot) => Slot::Empty,
            None => Slot::Damaged,
        })
    }

    /// Looks at all slots for the newest record.
    fn find_end(&mut self) -> Result<()> {
        for slot in 0..self.header.n_slots {
            match self.record(slot)? {
                Slot::Record(sample) if sample.number % self.header.n_slots == slot => {
                    self.next = self.next.max(sample.number.saturating_add(1));
                }
                Slot::Empty => (),
                Slot::Record(_) | Slot::Damaged => self.n_damaged += 1,
            }
        }
        Ok(())
    }
}

/// What a slot holds.
enum Slot {
    Record(Box<Sample>),
    Empty,
    Damaged,
}
