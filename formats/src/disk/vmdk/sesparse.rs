//! SESparse extents, ESXi's "seSparse": read only. The format is not published; what is known of
//! it was found out by others from files of VMware's. A journal that waits to be replayed is
//! refused: what it holds is not known. The free bitmap and the back map are not looked at.
//!
//! Constant header, one sector of 64-bit fields; offsets and sizes in sectors:
//!
//! | byte | field |
//! |---|---|
//! | 0 | magic 0xcafebabe |
//! | 8 | version 0x0000000200000001 |
//! | 16 | capacity |
//! | 24 | grain size: 8 |
//! | 32 | grain table size: 64 |
//! | 40 | flags: 0 |
//! | 48 | four reserved fields: 0 |
//! | 80, 88 | volatile header: offset, size; likewise |
//! | 96, 104 | journal header |
//! | 112, 120 | journal |
//! | 128, 136 | grain directory |
//! | 144, 152 | grain tables |
//! | 160, 168 | free bitmap |
//! | 176, 184 | back map |
//! | 192, 200 | grains |
//!
//! Volatile header: magic 0xcafecafe at 0, "replay the journal" at 24. A directory entry is 0 or
//! 0x10000000 in the upper half and the number of a table in the lower. A table has 4096 entries;
//! the upper four bits are the kind (0 unallocated, 1 unmapped, 2 zero, 3 data), of the rest the
//! upper 12 bits are the lower 12 of the grain's number.

use std::sync::Arc;

use hako_block::{BlockImage, Error, ErrorKind, ImageInfo, Result, SECTOR_BYTES, Storage};

use super::two_level::{Entries, Grain, TABLE_ENTRIES, TwoLevel, n_tables};
use crate::disk::Findings;

/// The first eight bytes.
pub const MAGIC: [u8; 8] = 0xcafe_babe_u64.to_le_bytes();

const HEADER_BYTES: usize = 512;
const VERSION: u64 = 0x0000_0002_0000_0001;
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
const GRAIN_SECTORS: u64 = 8;
const GRAIN_BYTES: u64 = GRAIN_SECTORS * SECTOR_BYTES;
const TABLE_SECTORS: u64 = TABLE_ENTRIES * 8 / SECTOR_BYTES;
/// Largest disk: 64 TiB, above what ESXi allows.
const MAX_CAPACITY_SECTORS: u64 = 1 << 37;

/// Opens an extent for reading; guest offsets are relative to it.
pub fn open(storage: Arc<dyn Storage>) -> Result<Box<dyn BlockImage>> {
    let name = storage.name().to_owned();
    let image = Header::read(&*storage)
        .and_then(|header| header.load(storage))
        .map_err(|error| error.in_file(name))?;
    Ok(Box::new(image))
}

/// Checks an extent file; what is found goes into `findings`. An error means that the check could
/// not be done.
pub fn check(storage: Arc<dyn Storage>, findings: &mut Findings) -> Result<()> {
    let name = storage.name().to_owned();
    match check_all(storage, findings) {
        Err(error) if !matches!(error.kind(), ErrorKind::Io | ErrorKind::Unsupported) => {
            findings.add_error(&name, &error);
            Ok(())
        }
        result => result.map_err(|error| error.in_file(name)),
    }
}

fn check_all(storage: Arc<dyn Storage>, findings: &mut Findings) -> Result<()> {
    let header = Header::read(&*storage)?;
    let directory = header.directory_byte..header.directory_byte + header.n_tables() * 8;
    let image = header.load(storage)?;
    image.check(&[0..HEADER_BYTES as u64, directory], findings)?;
    Ok(())
}

/// A checked pair of headers.
struct Header {
    capacity_sectors: u64,
    directory_byte: u64,
    entries: SeEntries,
}

impl Header {
    fn read(storage: &dyn Storage) -> Result<Self> {
        let mut bytes = [0; HEADER_BYTES];
        storage.read_at(0, &mut bytes)?;
        let constant = Fields::new(&bytes, "constant header");
        let header = Self::decode(&constant)?;
        let volatile_byte = constant.byte_at(80)?;
        storage.read_at(volatile_byte, &mut bytes)?;
        check_volatile(&Fields::new(&bytes, "volatile header"), volatile_byte)?;
        Ok(header)
    }

    fn decode(fields: &Fields<'_>) -> Result<Self> {
        if fields.at(0).to_le_bytes() != MAGIC {
            return Err(fields.bad(0, format!("magic is {:#x}, not 0xcafebabe", fields.at(0))));
        }
        for (byte, name, expected) in [
            (8, "version", VERSION),
            (24, "grain size in sectors", GRAIN_SECTORS),
            (32, "grain table size in sectors", TABLE_SECTORS),
            (40, "flags", 0),
            (48, "reserved field", 0),
            (56, "reserved field", 0),
            (64, "reserved field", 0),
            (72, "reserved field", 0),
        ] {
            let value = fields.at(byte);
            if value != expected {
                let what = format!("{name} {value:#x} ({expected:#x} is known)");
                return Err(fields.unsupported(byte, what));
            }
        }
        let header = Self {
            capacity_sectors: fields.at(16),
            directory_byte: fields.byte_at(128)?,
            entries: SeEntries {
                tables_byte: fields.byte_at(144)?,
                n_tables: fields.at(152) / TABLE_SECTORS,
                grains_byte: fields.byte_at(192)?,
            },
        };
        if header.capacity_sectors > MAX_CAPACITY_SECTORS {
            let what = format!(
                "capacity of {} sectors is too large",
                header.capacity_sectors
            );
            return Err(fields.bad(16, what));
        }
        let n_entries = fields.at(136).saturating_mul(SECTOR_BYTES / 8);
        if n_entries < header.n_tables() {
            let what = format!(
                "{n_entries} grain directory entries, but a capacity of {} sectors needs {}",
                header.capacity_sectors,
                header.n_tables()
            );
            return Err(fields.bad(136, what));
        }
        Ok(header)
    }

    fn virtual_size(&self) -> u64 {
        self.capacity_sectors * SECTOR_BYTES
    }

    /// Returns the number of grain tables: 2^22 at most.
    fn n_tables(&self) -> u64 {
        n_tables(self.virtual_size(), GRAIN_BYTES)
    }

    fn load(self, storage: Arc<dyn Storage>) -> Result<TwoLevel<SeEntries>> {
        let info = ImageInfo {
            format: "vmdk",
            subformat: Some("seSparse".to_owned()),
            virtual_size: self.virtual_size(),
            unit_bytes: GRAIN_BYTES,
            has_zero_extents: true,
            files: vec![storage.name().to_owned()],
            allocated_size: storage.allocated_bytes()?,
            details: vec![("grain_size_bytes", GRAIN_BYTES.into())],
            ..ImageInfo::default()
        };
        TwoLevel::load(storage, info, self.directory_byte, self.entries)
    }
}

fn check_volatile(fields: &Fields<'_>, start: u64) -> Result<()> {
    if fields.at(0) != VOLATILE_MAGIC {
        let what = format!("magic is {:#x}, not {VOLATILE_MAGIC:#x}", fields.at(0));
        return Err(fields.bad(start, what));
    }
    if fields.at(24) != 0 {
        return Err(fields
            .unsupported(start + 24, "the journal waits to be replayed".to_owned())
            .hint(
                "open the disk once on ESXi, which replays it: vmkfstools -x check, or power on",
            ));
    }
    Ok(())
}

/// The 64-bit fields of a header.
struct Fields<'a> {
    bytes: &'a [u8; HEADER_BYTES],
    place: &'static str,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8; HEADER_BYTES], place: &'static str) -> Self {
        Self { bytes, place }
    }

    /// Returns the field at `byte`, one of this module's own numbers.
    fn at(&self, byte: u64) -> u64 {
        let words = self.bytes.as_chunks::<8>().0;
        words
            .get(byte as usize / 8)
            .map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// Returns the file offset that a field gives in sectors.
    fn byte_at(&self, byte: u64) -> Result<u64> {
        // Bits to spare, so that later sums cannot overflow.
        self.at(byte)
            .checked_mul(SECTOR_BYTES)
            .filter(|offset| *offset <= u64::MAX >> 2)
            .ok_or_else(|| {
                self.bad(
                    byte,
                    format!("sector {} is out of all range", self.at(byte)),
                )
            })
    }

    fn bad(&self, byte: u64, what: String) -> Error {
        Error::corrupt(self.place, what).at_byte(byte)
    }

    fn unsupported(&self, byte: u64, what: String) -> Error {
        Error::unsupported(what).place(self.place).at_byte(byte)
    }
}

/// Where tables and grains begin.
struct SeEntries {
    tables_byte: u64,
    n_tables: u64,
    grains_byte: u64,
}

impl Entries for SeEntries {
    const ENTRY_BYTES: usize = 8;

    fn table(&self, entry: u64) -> Result<Option<u64>> {
        const PRESENT: u64 = 0x1000_0000;
        let number = entry & 0xffff_ffff;
        match entry >> 32 {
            0 if number == 0 => Ok(None),
            PRESENT if number < self.n_tables => Ok(Some(
                self.tables_byte + number * TABLE_SECTORS * SECTOR_BYTES,
            )),
            PRESENT => Err(damaged(format!("table {number} of {}", self.n_tables))),
            _ => Err(damaged(format!("{entry:#x} means nothing"))),
        }
    }

    fn grain(&self, entry: u64) -> Result<Grain> {
        match entry >> 60 {
            0 if entry == 0 => Ok(Grain::Hole),
            1 | 2 => Ok(Grain::Zero),
            3 => {
                let number = (entry >> 48 & 0xfff) | (entry & 0xffff_ffff_ffff) << 12;
                let byte = number.checked_mul(GRAIN_BYTES);
                byte.and_then(|byte| byte.checked_add(self.grains_byte))
                    .map(Grain::Data)
                    .ok_or_else(|| damaged(format!("grain {number} is out of all range")))
            }
            _ => Err(damaged(format!("{entry:#x} means nothing"))),
        }
    }
}

fn damaged(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::vmdk::testing::{assert_same_in_qemu, findings_of, read_all};
    use hako_block::{ExtentKind, MemoryStorage};

    const CAPACITY: u64 = 3 * 16 * (1 << 20) + 4096 + 1024;
    const DIRECTORY: u64 = 64;
    const TABLES: u64 = 128;
    const GRAINS: u64 = 512;

    fn put(file: &mut [u8], byte: u64, field: u64) {
        file[byte as usize..][..8].copy_from_slice(&field.to_le_bytes());
    }

    fn data_entry(grain: u64) -> u64 {
        3 << 60 | (grain & 0xfff) << 48 | grain >> 12
    }

    /// A disk of four tables, the second not there, with its content.
    pub(in crate::disk::vmdk) fn sample() -> (Vec<u8>, Vec<u8>) {
        let mut file = vec![0; (GRAINS * 512 + 4100 * 4096) as usize];
        for (byte, value) in [
            (0, 0xcafe_babe),
            (8, VERSION),
            (16, CAPACITY / 512),
            (24, 8),
            (32, 64),
            (80, 1),
            (88, 1),
            (128, DIRECTORY),
            (136, 1),
            (144, TABLES),
            (152, 4 * 64),
            (192, GRAINS),
            (200, 4100 * 8),
            (512, VOLATILE_MAGIC),
        ] {
            put(&mut file, byte, value);
        }
        let mut content = vec![0; CAPACITY as usize];
        for (entry, table) in [(0, 2), (2, 0), (3, 1)] {
            put(
                &mut file,
                DIRECTORY * 512 + entry * 8,
                0x1000_0000 << 32 | table,
            );
        }
        // Above 4095, so that both parts of a number are used.
        for (index, grain) in [
            (0, 5),
            (1, 6),
            (2, 4097),
            (8192, 3),
            (12288, 9),
            (12289, 4099),
        ] {
            let table = [2u64, 9, 0, 1][index as usize / 4096];
            let entry = TABLES * 512 + table * 32768 + index % 4096 * 8;
            put(&mut file, entry, data_entry(grain));
            let bytes: Vec<u8> = (0..4096u64).map(|at| (index + at / 7) as u8 | 1).collect();
            file[(GRAINS * 512 + grain * 4096) as usize..][..4096].copy_from_slice(&bytes);
            let start = index as usize * 4096;
            let end = (start + 4096).min(content.len());
            content[start..end].copy_from_slice(&bytes[..end - start]);
        }
        put(&mut file, TABLES * 512 + 2 * 32768 + 3 * 8, 1 << 60);
        put(&mut file, TABLES * 512 + 2 * 32768 + 4 * 8, 2 << 60);
        (file, content)
    }

    fn open_bytes(bytes: &[u8]) -> Result<Box<dyn BlockImage>> {
        open(Arc::new(MemoryStorage::new("delta.vmdk", bytes.to_vec())))
    }

    #[test]
    fn built_file_reads_as_built_here_and_in_qemu() {
        let (file, content) = sample();
        let image = open_bytes(&file).unwrap();
        assert!(read_all(&*image) == content);
        let kinds: Vec<_> = [0, 8192, 12288, 20480]
            .map(|offset| image.next_extent(offset).unwrap())
            .map(|extent| (extent.kind, extent.len))
            .to_vec();
        let to_third = 2 * 4096 * 4096 - 20480;
        let expected = [
            (ExtentKind::Data, 8192),
            (ExtentKind::Data, 4096),
            (ExtentKind::Zero, 8192),
            (ExtentKind::Hole, to_third),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(findings_of(check, &file).list, []);
        assert_same_in_qemu("seSparse", "SESPARSE", &file, &content);
    }

    #[test]
    fn dirty_journal_is_refused_with_a_hint() {
        let (mut file, _) = sample();
        put(&mut file, 512 + 24, 1);
        let error = open_bytes(&file).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint_text().unwrap().contains("ESXi"));
        let storage = Arc::new(MemoryStorage::new("delta.vmdk", file));
        assert!(check(storage, &mut Findings::default()).is_err());
    }

    #[test]
    fn damage_is_refused_with_its_place() {
        let table = TABLES * 512 + 2 * 32768;
        for (byte, value, says) in [
            (0, 7, "constant header: magic is 0x7"),
            (8, 7, "constant header: version 0x7"),
            (24, 16, "constant header: grain size in sectors 0x10"),
            (40, 1, "constant header: flags 0x1"),
            (56, 1, "constant header: reserved field 0x1"),
            (16, u64::MAX, "constant header: capacity of"),
            (16, 1 << 30, "constant header: 64 grain directory entries"),
            (80, u64::MAX, "constant header: sector 18446744073709551615"),
            (128, 1 << 40, "grain directory: 4 entries reach past end"),
            (512, 7, "volatile header: magic is 0x7"),
            (
                DIRECTORY * 512,
                5,
                "grain directory, entry 0: 0x5 means nothing",
            ),
            (
                DIRECTORY * 512,
                0x1000_0000_0000_0004,
                "grain directory, entry 0: table 4 of 4",
            ),
            (
                144,
                1 << 40,
                "grain directory, entry 0: sector 1099511627904 past end",
            ),
            (table, 1, "grain table 0, entry 0: 0x1 means nothing"),
            (
                table,
                15 << 60,
                "grain table 0, entry 0: 0xf000000000000000 means nothing",
            ),
            (
                table,
                data_entry(5000),
                "grain table 0, entry 0: sector 40512 past end of file",
            ),
            (
                table,
                data_entry(u64::MAX >> 4),
                "grain table 0, entry 0: grain",
            ),
        ] {
            let (mut file, _) = sample();
            put(&mut file, byte, value);
            let read = open_bytes(&file).and_then(|image| image.read_at(0, &mut [0; 10]));
            let error = read.unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            if error.kind() == ErrorKind::Corrupt {
                let findings = findings_of(check, &file);
                assert!(
                    findings.list.iter().any(|one| one.text.contains(says)),
                    "{findings:?}"
                );
            }
        }
    }

    #[test]
    fn check_finds_a_shared_table_and_a_shared_grain() {
        let (mut file, _) = sample();
        put(&mut file, DIRECTORY * 512 + 8, 0x1000_0000 << 32 | 2);
        put(&mut file, TABLES * 512 + 2 * 32768 + 8, data_entry(5));
        let findings = findings_of(check, &file);
        let texts: Vec<_> = findings.list.iter().map(|one| one.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "grain table 0, entry 1: overlaps something else in the file",
                "grain table 1: overlaps something else in the file",
            ]
        );
    }
}
